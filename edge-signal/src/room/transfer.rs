//! Transfers: a participant goes on in another room (LiveKit's `MoveParticipant`), with the connection its client has and
//! the tracks it publishes. The room it comes from hands over what it knows of it; the one it goes to takes it in, and moves
//! its session to a node of its own as it would from a node that was lost; then the first one tells the client, whose socket
//! it closes: **all SDKs resume then, with the token of the room they are in now.**

use livekit_protocol as proto;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, RoomConfiguration};
use serde::{Deserialize, Serialize};
use shared::control::Description;
use shared::ids::{ParticipantSid, RoomName, TrackSid};

use super::Room;
use super::dynacast::{Dynacast, is_video};
use super::effect::Effect;
use super::event::ConnectionId;
use super::participant::Participant;
use super::publication::Publication;
use super::service::{Answer, Code, Error};
use super::session::{Media, Session, Side};
use super::turn::Turn;

/// One who goes to another room, with all that this one needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Where to.
    pub to: RoomName,
    /// Of its client, here.
    connection: ConnectionId,
    participant: Participant,
    session: Session,
    publications: Vec<(TrackSid, Publication)>,
    /// The client's last offer.
    client_offer: Option<Description>,
    /// The last offer for its subscriber connection.
    node_offer: Option<Description>,
}

/// One who has come from another room: what its client is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    #[serde(with = "crate::protobuf::message")]
    room: Box<proto::Room>,
    #[serde(with = "crate::protobuf::message")]
    participant: Box<proto::ParticipantInfo>,
    #[serde(with = "crate::protobuf::messages")]
    others: Vec<proto::ParticipantInfo>,
}

impl Transfer {
    /// The socket that its client has in the room it comes from.
    #[must_use]
    pub fn connection(&self) -> &ConnectionId {
        &self.connection
    }

    /// Who it is there.
    #[must_use]
    pub fn participant(&self) -> &ParticipantSid {
        &self.participant.sid
    }
}

impl Room {
    /// What the other room needs. Nothing has changed yet.
    pub(super) fn transfer(&self, turn: &mut Turn, identity: &str, to: RoomName) -> Result<Answer, Error> {
        let Ok(sid) = self.named(identity) else {
            // Asked again by one who had no answer.
            let is_gone_there = self.departed.values().any(|departed| departed.went(identity, &to));
            return if is_gone_there { Ok(Answer::Done) } else { Err(Error::no_participant()) };
        };
        self.not_forwarded(&sid)?;
        let (Some(participant), Some(session)) = (self.participants.get(&sid), self.sessions.get(&sid)) else {
            return Err(Error::no_participant());
        };
        let is_up = matches!(session.media, Media::Connected | Media::Disconnected) && session.moving.is_none();
        let Some(connection) = participant.connection.clone().filter(|_| is_up) else {
            let text = "participant is not connected at this moment: try again in a few seconds";
            return Err(Error::new(Code::FailedPrecondition, text));
        };
        let mut participant = Participant {
            sid: ParticipantSid::from_random(turn.random()),
            former: Some(sid.clone()),
            joined_at: turn.now,
            version: 1,
            active: false,
            queued: Vec::new(),
            connection: None,
            gone_since: Some(turn.now),
            served_from: None,
            untold: false,
            answer_at: None,
            ..participant.clone()
        };
        let grant = participant.claims.video.get_or_insert_default();
        grant.room = to.to_string();
        grant.destination_room.clear();
        // What it says of a room was said of the one that it leaves.
        participant.claims.room_config = None;
        let publications = participant.tracks.iter().filter_map(|track| {
            let publication = self.publications.get(track)?;
            let publication = Publication {
                publisher: participant.sid.clone(),
                hooked: false,
                told_subscribed: false,
                dynacast: Dynacast::default(),
                ..publication.clone()
            };
            Some((track.clone(), publication))
        });
        let publications = publications.collect();
        let session = Session { node: None, opened: false, mid_to_track: Vec::new(), refusals: 0, ..session.clone() };
        let description = |side| self.description(&sid, side).cloned();
        let (client_offer, node_offer) = (description(Side::ClientOffer), description(Side::NodeOffer));
        let transfer = Transfer { to, connection, participant, session, publications, client_offer, node_offer };
        Ok(Answer::Transfer(Box::new(transfer)))
    }

    /// One comes from another room. It is here from now on, and its client is on the way.
    pub(super) fn take_in(&mut self, turn: &mut Turn, transfer: Transfer) -> Result<Answer, Error> {
        let Transfer { participant, session, publications, client_offer, node_offer, .. } = transfer;
        let (sid, identity) = (participant.sid.clone(), participant.identity.clone());
        if self.is_full_for(self.record.max_participants, &identity, participant.is_dependent()) {
            return Err(Error::new(Code::FailedPrecondition, "room is full"));
        }
        self.create_unless_there(turn, &RoomConfiguration::default());
        if !self.record.joined && !participant.is_dependent() {
            self.record_mut().joined = true;
        }
        let superseded = self.supersede(turn, &identity);
        let region = self.usable_node().and_then(|id| self.nodes.get(id)).map(|node| node.region.to_string());
        self.agents_with(&identity);
        self.put_participant(Participant { region: region.unwrap_or_default(), ..participant }, session);
        for (track, mut publication) in publications {
            if publication.visible && is_video(&publication) {
                publication.dynacast.begin(turn.now);
            }
            self.put_publication(&track, publication);
        }
        self.put_description(&sid, Side::ClientOffer, client_offer);
        self.put_description(&sid, Side::NodeOffer, node_offer);
        self.move_session(turn, &sid, None);
        self.tell_of_newcomer(turn, &sid, superseded);
        self.offer_all_tracks(turn, &sid);
        let own = self.tracks_of(&sid);
        self.settle_everyone(turn, &own);
        self.announce_room(turn);
        let others = self.others_seen_by(&sid).filter_map(|other| self.participant_info(&other.sid)).collect();
        let participant = self.participant_info(&sid).ok_or_else(Error::no_participant)?;
        let welcome = Welcome { room: Box::new(self.info()), participant: Box::new(participant), others };
        Ok(Answer::Welcome(Box::new(welcome)))
    }

    /// The room where it came from has found that it cannot go. It is nobody's fault here.
    pub(super) fn send_back(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        if self.participants.get(sid).is_some_and(|participant| participant.connection.is_none()) {
            self.remove(turn, sid, DisconnectReason::Migration, None);
        }
    }

    /// The other room has taken it in: it is told so, and is here no more.
    pub(super) fn transferred(&mut self, turn: &mut Turn, transfer: &Transfer, welcome: Welcome) {
        let gone = transfer.participant.former.as_ref();
        let connection = transfer.connection.clone();
        // On another socket, or on none, it would not hear of it.
        let gone = gone.filter(|sid| self.connections.get(&connection) == Some(*sid)).cloned();
        let Some(sid) = gone else {
            turn.effects.push(Effect::Answer(Box::new(Err(Error::participant_left()))));
            return;
        };
        self.tell_all_departed(turn, &sid);
        self.send_moved(turn, connection.clone(), transfer, welcome);
        turn.effects.push(Effect::CloseClient { connection });
        self.forget_connection(turn, &sid);
        self.remove(turn, &sid, DisconnectReason::Migration, None);
        self.note_destination(&sid, &transfer.to);
        self.announce_room(turn);
        turn.effects.push(Effect::Answer(Box::new(Ok(Answer::Done))));
    }

    fn send_moved(&self, turn: &mut Turn, connection: ConnectionId, transfer: &Transfer, welcome: Welcome) {
        let moved = proto::RoomMovedResponse {
            room: Some(*welcome.room),
            token: String::new(),
            participant: Some(*welcome.participant),
            other_participants: welcome.others,
        };
        let claims = Box::new(transfer.participant.fresh_claims(turn.now));
        turn.effects.push(Effect::RoomMoved { connection, claims, moved: Box::new(moved) });
    }

    /// Native SDKs keep those of the room before unless they are told.
    fn tell_all_departed(&self, turn: &mut Turn, sid: &ParticipantSid) {
        let gone = |other: &Participant| proto::ParticipantInfo {
            sid: other.sid.to_string(),
            identity: other.identity.to_string(),
            state: State::Disconnected.into(),
            version: other.version + 1,
            ..Default::default()
        };
        let participants: Vec<_> = self.others_seen_by(sid).map(gone).collect();
        if !participants.is_empty() {
            self.send(turn, sid, Message::Update(proto::ParticipantUpdate { participants }));
        }
    }
}
