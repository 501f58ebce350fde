//! A node's end of the room link, without media: sessions, announced tracks, what each session is served.

use std::collections::{BTreeMap, BTreeSet};

use shared::control::{
    Delivery, Description, Established, FirstSession, MediaGrants, PipeEnd, PipeKey, PipedStream, PipedTrack,
    PlayoutDelay, ReceivedData, RoomToNode, Subscription,
};
use shared::geo::Place;
use shared::ids::{Generation, Identity, ParticipantSid, SessionKey, TrackSid};

/// One node.
#[derive(Default)]
pub(crate) struct VirtualNode {
    pub(crate) linked: bool,
    pub(crate) said_hello: bool,
    pub(crate) sessions: BTreeMap<SessionKey, VirtualSession>,
    /// Sessions that ended without a word to the client.
    pub(crate) left: Vec<SessionKey>,
    pub(crate) welcomes: usize,
    /// Packets of app servers, whether reliable, and for whom.
    pub(crate) sent: Vec<(String, bool, Vec<Identity>)>,
    /// It is of a version that has none.
    pub(crate) knows_no_pipes: bool,
    pub(crate) place: Option<Place>,
    pub(crate) pipes: BTreeMap<PipeKey, VirtualPipe>,
    /// Sessions of other nodes that are to hear how its own fare.
    pub(crate) told_newcomers: Vec<SessionKey>,
}

/// Its end of a pipe.
#[derive(Default, Debug, Clone, PartialEq)]
pub(crate) struct VirtualPipe {
    pub(crate) dials: bool,
    pub(crate) tracks_only: bool,
    /// The other end.
    pub(crate) connected: Option<PipeEnd>,
    pub(crate) filled: Vec<PipedTrack>,
    pub(crate) drawn: Vec<PipedStream>,
}

/// One session on it.
#[derive(Default, Debug, Clone, PartialEq)]
pub(crate) struct VirtualSession {
    pub(crate) tracks: BTreeSet<TrackSid>,
    pub(crate) muted: BTreeSet<TrackSid>,
    pub(crate) served: BTreeMap<TrackSid, Delivery>,
    pub(crate) offers: Vec<Description>,
    pub(crate) answers: Vec<Description>,
    /// As last changed.
    pub(crate) grants: Option<MediaGrants>,
    pub(crate) restarts: usize,
    pub(crate) replays: Vec<ReceivedData>,
    /// What its client has from another node.
    pub(crate) established: Option<Established>,
    pub(crate) playout_delay: Option<PlayoutDelay>,
    /// Of served tracks that share one, the stream.
    pub(crate) streams: BTreeMap<TrackSid, String>,
}

impl VirtualNode {
    pub(crate) fn open(&mut self, first: &FirstSession) {
        let older = self.sessions.keys().filter(|key| key.participant == first.participant);
        older.cloned().collect::<Vec<_>>().iter().for_each(|key| self.close(key));
        let session = VirtualSession {
            tracks: first.open.tracks.iter().map(|track| track.sid.clone()).collect(),
            served: first.open.subscriptions.iter().map(|s| (s.track.clone(), s.delivery)).collect(),
            offers: first.open.offer.iter().cloned().collect(),
            established: first.open.established.clone(),
            playout_delay: first.open.playout_delay,
            streams: first.open.subscriptions.iter().filter_map(shared_stream).collect(),
            ..VirtualSession::default()
        };
        assert_eq!(first.open.token, "", "the shell mints the token");
        self.sessions.insert(key(&first.participant, first.generation), session);
    }

    pub(crate) fn receive(&mut self, message: RoomToNode) {
        assert!(self.linked, "sent to a node that is not linked: {message:?}");
        assert!(self.said_hello || matches!(message, RoomToNode::Welcome { .. }), "sent before hello: {message:?}");
        match message {
            RoomToNode::Welcome { sessions, .. } => {
                self.welcomes += 1;
                let extra: Vec<_> = self.sessions.keys().filter(|key| !sessions.contains(key)).cloned().collect();
                extra.iter().for_each(|key| self.close(key));
            }
            RoomToNode::OpenSession(_) => panic!("the shell makes this one from Effect::OpenSession"),
            RoomToNode::CloseSession { session, quietly } => {
                self.left.extend(quietly.then(|| session.clone()));
                self.close(&session);
            }
            RoomToNode::Offer { session, description } => self.at(&session).offers.push(description),
            RoomToNode::Answer { session, description } => self.at(&session).answers.push(description),
            RoomToNode::AnnounceTrack { session, track } => {
                self.at(&session).tracks.insert(track.sid);
            }
            RoomToNode::RetractTrack { session, track } => {
                self.at(&session).tracks.remove(&track);
            }
            RoomToNode::MuteTrack { session, track, muted } => {
                let all = &mut self.at(&session).muted;
                if muted {
                    all.insert(track)
                } else {
                    all.remove(&track)
                };
            }
            RoomToNode::Subscribe { session, subscriptions } => {
                let session = self.at(&session);
                session.streams.extend(subscriptions.iter().filter_map(shared_stream));
                session.served.extend(subscriptions.into_iter().map(|s| (s.track, s.delivery)));
            }
            RoomToNode::Unsubscribe { session, tracks } => self.at(&session).served.retain(|t, _| !tracks.contains(t)),
            RoomToNode::RestartIce { session } => self.at(&session).restarts += 1,
            RoomToNode::ReplayData { session, received } => self.at(&session).replays.extend(received),
            RoomToNode::SendData { packet, reliable, identities } => self.sent.push((packet, reliable, identities)),
            RoomToNode::UpdateGrants { session, grants } => self.at(&session).grants = Some(grants),
            RoomToNode::OpenPipe { pipe, dials, tracks_only } => {
                assert!(!self.knows_no_pipes);
                let before = self.pipes.insert(pipe, VirtualPipe { dials, tracks_only, ..VirtualPipe::default() });
                assert_eq!(before, None, "opened twice");
            }
            RoomToNode::ConnectPipe { pipe, end } => self.pipe(pipe).connected = Some(end),
            RoomToNode::FillPipe { pipe, tracks } => {
                // A session may be lost that the room takes to be here until its participant is connected elsewhere.
                let is_here = |track: &PipedTrack| self.sessions.keys().any(|key| key.participant == track.publisher);
                let filled = tracks.into_iter().filter(is_here).collect();
                self.pipe(pipe).filled = filled;
            }
            RoomToNode::DrawPipe { pipe, streams } => self.pipe(pipe).drawn = streams,
            RoomToNode::ClosePipe { pipe } => drop(self.pipes.remove(&pipe)),
            RoomToNode::TellQuality { newcomers } => self.told_newcomers.extend(newcomers),
        }
    }

    /// A session's tracks end with it.
    pub(crate) fn close(&mut self, key: &SessionKey) {
        let Some(closed) = self.sessions.remove(key) else { return };
        for session in self.sessions.values_mut() {
            session.served.retain(|track, _| !closed.tracks.contains(track));
        }
    }

    fn pipe(&mut self, pipe: PipeKey) -> &mut VirtualPipe {
        self.pipes.get_mut(&pipe).unwrap_or_else(|| panic!("no pipe {pipe:?} here"))
    }

    fn at(&mut self, key: &SessionKey) -> &mut VirtualSession {
        self.sessions.get_mut(key).unwrap_or_else(|| panic!("no session {key} here"))
    }
}

fn key(participant: &ParticipantSid, generation: Generation) -> SessionKey {
    SessionKey { participant: participant.clone(), generation }
}

fn shared_stream(subscription: &Subscription) -> Option<(TrackSid, String)> {
    Some((subscription.track.clone(), subscription.stream.clone()?))
}
