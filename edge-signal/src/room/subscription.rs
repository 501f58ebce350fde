//! Subscriptions: who is served which track, from wishes, permissions and visibility.

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use shared::control::{PeerConnections, RoomToNode, Subscription as Served};
use shared::ids::{ParticipantSid, TrackSid};

use super::Room;
use super::delivery::{Settings, delivery};
use super::dynacast::is_video;
use super::event::UnixMs;
use super::participant::Participant;
use super::publication::Publication;
use super::track_info;
use super::turn::Turn;

/// Most wishes about tracks that do not exist (yet) a participant may have on record.
pub const MAX_UNKNOWN_WISHES: usize = 256;
/// Longest access list of a publisher, bytes as protobuf.
pub const MAX_ACL_LEN: usize = 256 * 1024;

/// Row `subscription`: what is not as `auto_subscribe` alone would have it, or is being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Subscription {
    /// What the client asked for; `None`: nothing, `auto_subscribe` decides.
    pub(super) wish: Option<bool>,
    /// The subscriber was told it may have it, and the node serves it.
    pub(super) served: bool,
    /// What of it the client wants.
    #[serde(default)]
    pub(super) settings: Option<Settings>,
    /// Which of the track's codecs it takes; 0: the primary.
    #[serde(default)]
    pub(super) codec: u8,
    /// The client asked for a track that is not there, and has had no answer.
    #[serde(default)]
    pub(super) unanswered: Option<UnixMs>,
}

/// What should be.
#[derive(PartialEq, Eq)]
enum Verdict {
    Serve,
    /// Wished for, but the publisher does not allow it.
    Denied,
    No,
}

impl Room {
    /// `subscription`: the client wants tracks, or wants them no more. Unknown ones are remembered.
    pub(super) fn update_subscription(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        request: &proto::UpdateSubscription,
    ) {
        let listed = request.participant_tracks.iter().flat_map(|tracks| &tracks.track_sids);
        let mut tracks = Vec::new();
        for text in request.track_sids.iter().chain(listed) {
            match TrackSid::try_from(text.as_str()) {
                Ok(track) if self.wish(turn.now, sid, &track, request.subscribe) => tracks.push(track),
                _ => self.counters.unknown_track += 1,
            }
        }
        self.settle_subscriptions(turn, sid, &tracks);
    }

    /// False: too many wishes about unknown tracks.
    fn wish(&mut self, now: UnixMs, sid: &ParticipantSid, track: &TrackSid, subscribe: bool) -> bool {
        let Some(current) = self.noted(sid, track) else { return false };
        let unanswered = (subscribe && !self.publications.contains_key(track)).then_some(now);
        self.put_subscription(sid, track, Subscription { wish: Some(subscribe), unanswered, ..current });
        if unanswered.is_some() {
            self.answer_in_time(now, sid);
        }
        true
    }

    /// False: too many wishes about unknown tracks.
    pub(super) fn note_settings(&mut self, sid: &ParticipantSid, track: &TrackSid, settings: Settings) -> bool {
        let Some(current) = self.noted(sid, track) else { return false };
        self.put_subscription(sid, track, Subscription { settings: Some(settings), ..current });
        true
    }

    /// What a client wants of a track.
    pub(super) fn wanted(&self, sid: &ParticipantSid, track: &TrackSid) -> Settings {
        let said = self.subscriptions.get(sid).and_then(|mine| mine.get(track)).and_then(|mine| mine.settings);
        self.settings_of(sid, said).unwrap_or(Settings::BEST)
    }

    /// What is on record of a subscription; `None`: nothing, and there is no room for more about unknown tracks.
    fn noted(&self, sid: &ParticipantSid, track: &TrackSid) -> Option<Subscription> {
        let mine = self.subscriptions.get(sid);
        if let Some(known) = mine.and_then(|mine| mine.get(track)) {
            return Some(*known);
        }
        let unknown = || mine.map_or(0, |mine| mine.keys().filter(|t| !self.publications.contains_key(t)).count());
        let fits = self.publications.contains_key(track) || unknown() < MAX_UNKNOWN_WISHES;
        fits.then(Subscription::default)
    }

    /// `subscription_permission`: who may subscribe to this publisher's tracks. Replaces what it said before.
    pub(super) fn update_allowed(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        request: proto::SubscriptionPermission,
    ) {
        if request.encoded_len() > MAX_ACL_LEN {
            self.counters.bad_messages += 1;
            return;
        }
        let allowed = if request.all_participants { None } else { Some(request.track_permissions) };
        let Some(participant) = self.participants.get(sid) else { return };
        if participant.allowed == allowed {
            return;
        }
        let tracks = participant.tracks.clone();
        if let Some(participant) = self.participant_mut(sid) {
            participant.allowed = allowed;
        }
        self.settle_everyone(turn, &tracks);
    }

    /// Something about these tracks changed: visibility, or who may have them.
    pub(super) fn settle_everyone(&mut self, turn: &mut Turn, tracks: &[TrackSid]) {
        for subscriber in self.participant_sids() {
            self.settle_subscriptions(turn, &subscriber, tracks);
        }
    }

    /// A session takes subscriptions now.
    pub(super) fn offer_all_tracks(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let tracks: Vec<TrackSid> = self.visible_tracks();
        self.settle_subscriptions(turn, sid, &tracks);
    }

    /// Makes what is served what it should be.
    fn settle_subscriptions(&mut self, turn: &mut Turn, subscriber: &ParticipantSid, tracks: &[TrackSid]) {
        let (mut starts, mut stops, mut news) = (Vec::new(), Vec::new(), Vec::new());
        let held = self.participants.get(subscriber).is_some_and(|p| p.served_from.is_some_and(|from| turn.now < from));
        for track in tracks {
            let current = self.subscriptions.get(subscriber).and_then(|mine| mine.get(track)).copied();
            let current = current.unwrap_or_default();
            let verdict = self.verdict(subscriber, track, current.wish);
            let Some(publication) = self.publications.get(track) else { continue };
            match (current.served, verdict) {
                (false, Verdict::Serve) if held => {}
                (false, Verdict::Serve) => {
                    news.push(permission_update(publication, track, true));
                    starts.push(self.served(subscriber, publication, track, current.settings));
                    self.put_subscription(subscriber, track, Subscription { served: true, ..current });
                }
                (true, Verdict::Denied) => {
                    news.push(permission_update(publication, track, false));
                    stops.push(track.clone());
                    self.put_subscription(subscriber, track, Subscription { served: false, ..current });
                }
                (true, Verdict::No) => {
                    stops.push(track.clone());
                    self.put_subscription(subscriber, track, Subscription { served: false, ..current });
                }
                (true, Verdict::Serve) | (false, Verdict::Denied | Verdict::No) => {}
            }
        }
        for message in news {
            self.send(turn, subscriber, message);
        }
        stops.iter().for_each(|track| self.want_less(turn, track));
        let Some((node, session)) = self.open_session_of(subscriber) else { return };
        if !starts.is_empty() {
            turn.send_node(&node, RoomToNode::Subscribe { session: session.clone(), subscriptions: starts });
        }
        if !stops.is_empty() {
            turn.send_node(&node, RoomToNode::Unsubscribe { session, tracks: stops });
        }
    }

    fn verdict(&self, subscriber: &ParticipantSid, track: &TrackSid, wish: Option<bool>) -> Verdict {
        let Some(publication) = self.publications.get(track).filter(|p| p.visible) else { return Verdict::No };
        let (Some(participant), Some(publisher), Some(session)) = (
            self.participants.get(subscriber),
            self.participants.get(&publication.publisher),
            self.sessions.get(subscriber),
        ) else {
            return Verdict::No;
        };
        let wanted = wish.unwrap_or(participant.auto_subscribe);
        let own = publisher.sid == *subscriber;
        if !wanted || own || publisher.permission.hidden || !participant.permission.can_subscribe {
            return Verdict::No;
        }
        if !session.takes_subscriptions() {
            return Verdict::No;
        }
        if is_allowed(publisher, participant, track) { Verdict::Serve } else { Verdict::Denied }
    }

    /// Which tracks it may have, as it was or should have been told: those it is served, and those it is denied.
    pub(super) fn permissions_anew(&self, sid: &ParticipantSid) -> Vec<Message> {
        let told = |track: &TrackSid| {
            let publication = self.publications.get(track)?;
            let mine = self.subscriptions.get(sid).and_then(|mine| mine.get(track)).copied().unwrap_or_default();
            let denied = || self.verdict(sid, track, mine.wish) == Verdict::Denied;
            (mine.served || denied()).then(|| permission_update(publication, track, mine.served))
        };
        self.visible_tracks().iter().filter_map(told).collect()
    }

    /// What the node is to serve a participant.
    pub(super) fn served_to(&self, sid: &ParticipantSid) -> Vec<Served> {
        let mine = self.subscriptions.get(sid).into_iter().flatten().filter(|(_, subscription)| subscription.served);
        let served = |(track, mine): (&TrackSid, &Subscription)| {
            Some(self.served(sid, self.publications.get(track)?, track, mine.settings))
        };
        mine.filter_map(served).collect()
    }

    fn served(
        &self,
        subscriber: &ParticipantSid,
        publication: &Publication,
        track: &TrackSid,
        settings: Option<Settings>,
    ) -> Served {
        let settings = self.settings_of(subscriber, settings);
        Served {
            publisher: publication.publisher.clone(),
            track: track.clone(),
            kind: track_info::kind(&publication.info),
            codecs: track_info::alternatives(&publication.info),
            delivery: delivery(&publication.info, settings),
            stream: self.common_stream(subscriber, publication),
        }
    }

    /// What a subscriber wants of a track for which it said this.
    pub(super) fn settings_of(&self, subscriber: &ParticipantSid, said: Option<Settings>) -> Option<Settings> {
        let adaptive = || self.participants.get(subscriber).is_some_and(|participant| participant.adaptive_stream);
        said.or_else(|| adaptive().then_some(Settings::LOWEST))
    }

    /// Tracks ended: nobody is subscribed to them any more.
    pub(super) fn drop_subscriptions_to(&mut self, turn: &mut Turn, tracks: &[TrackSid]) {
        for subscriber in self.participant_sids() {
            let mut stops = Vec::new();
            for track in tracks {
                if self.remove_subscription(&subscriber, track).is_some_and(|ended| ended.served) {
                    stops.push(track.clone());
                }
            }
            if let Some((node, session)) = self.open_session_of(&subscriber).filter(|_| !stops.is_empty()) {
                turn.send_node(&node, RoomToNode::Unsubscribe { session, tracks: stops });
            }
        }
    }

    /// The node bound a subscribed track: tell the publisher, the first time.
    pub(super) fn track_bound(&mut self, turn: &mut Turn, sid: &ParticipantSid, track: &TrackSid) {
        let Some(publication) = self.publications.get(track) else {
            self.counters.unknown_track += 1;
            return;
        };
        let is_single = self.sessions.get(sid).is_none_or(|s| s.peer_connections == PeerConnections::Single);
        if is_video(publication) && !is_single {
            // As LiveKit does, with two connections only.
            self.stream_state(turn, sid, track, false);
        }
        self.want_quality(turn, sid, track);
        self.note_subscribed(turn, track);
    }

    /// Somebody is subscribed: tells the publisher, the first time.
    pub(super) fn note_subscribed(&mut self, turn: &mut Turn, track: &TrackSid) {
        let Some(publication) = self.publications.get(track).filter(|publication| !publication.told_subscribed) else {
            return;
        };
        let publisher = publication.publisher.clone();
        if let Some(publication) = self.publication_mut(track) {
            publication.told_subscribed = true;
        }
        self.send(turn, &publisher, Message::TrackSubscribed(proto::TrackSubscribed { track_sid: track.to_string() }));
    }

    /// The subscriber's path does not carry a video any more, or does again: tell its client.
    pub(super) fn stream_state(&mut self, turn: &mut Turn, sid: &ParticipantSid, track: &TrackSid, paused: bool) {
        let served = self.subscriptions.get(sid).and_then(|mine| mine.get(track)).is_some_and(|mine| mine.served);
        let Some(publication) = self.publications.get(track).filter(|_| served) else {
            self.counters.unknown_track += 1;
            return;
        };
        let state = if paused { proto::StreamState::Paused } else { proto::StreamState::Active };
        let info = proto::StreamStateInfo {
            participant_sid: publication.publisher.to_string(),
            track_sid: track.to_string(),
            state: state.into(),
        };
        self.send(turn, sid, Message::StreamStateUpdate(proto::StreamStateUpdate { stream_states: vec![info] }));
    }
}

/// Agents and recorders are exempt from access lists, as in LiveKit.
fn is_allowed(publisher: &Participant, subscriber: &Participant, track: &TrackSid) -> bool {
    let Some(list) = &publisher.allowed else { return true };
    let names = |entry: &&proto::TrackPermission| {
        entry.participant_identity == subscriber.identity.as_str() || entry.participant_sid == subscriber.sid.as_str()
    };
    let allows = |entry: &proto::TrackPermission| {
        entry.all_tracks || entry.track_sids.iter().any(|allowed| allowed == track.as_str())
    };
    subscriber.is_dependent() || list.iter().filter(names).any(allows)
}

fn permission_update(publication: &Publication, track: &TrackSid, allowed: bool) -> Message {
    Message::SubscriptionPermissionUpdate(proto::SubscriptionPermissionUpdate {
        participant_sid: publication.publisher.to_string(),
        track_sid: track.to_string(),
        allowed,
    })
}
