//! Forwarding: a participant of one room is shown in another one too, with its tracks (LiveKit's `ForwardParticipant`). It
//! stays in its own room, the **source**; in the **destination** it is a participant without a client. Media goes through
//! pipes between the two rooms, one for each node of the destination on which somebody is served its tracks, from the node
//! that it is on: as pipes within a room, they carry each track once, as far as it is wanted there.
//!
//! **Each room tells the other how things stand there, complete each time** ([`Word`]): what is lost or comes twice does no
//! harm. What one of them drops, the other does when it hears of it.

use std::hash::{DefaultHasher, Hash, Hasher};

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use serde::{Deserialize, Serialize};
use shared::control::{MediaState, PipeEnd, PipeKey, PipedStream, RoomToNode};
use shared::ids::{NodeId, ParticipantSid, RoomName, TrackSid};

use super::Room;
use super::effect::Effect;
use super::event::UnixMs;
use super::participant::Participant;
use super::service::{Answer, Code, Error};
use super::snapshot::RowKey;
use super::turn::Turn;

pub(super) mod destination;
mod presence;
pub(super) mod source;

/// Most rooms that a participant is forwarded to at a time.
pub const MAX_DESTINATIONS: usize = 16;

/// What a room tells another of a participant that is forwarded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The room that says it.
    pub from: RoomName,
    /// Who it is in the source.
    pub participant: ParticipantSid,
    /// Grows with each; an older one that comes late is void.
    version: u64,
    news: News,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum News {
    /// The source shows it.
    Shown(Box<Shown>),
    /// It has left the source: a `DisconnectReason`.
    Left(i32),
    /// The destination wants these pipes.
    Wanted(Vec<Wanted>),
    /// It is in the destination no more.
    Dropped,
    /// The source hears it so loud: a step of [`shared::control::LOUDEST_STEP`].
    Loud(u8),
    /// The source knows how its connection is, as [`shared::control::SessionQuality`] has it.
    Fares(Option<u8>),
}

impl Word {
    /// Words of one subject about one participant are told the last one alone.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self.news {
            News::Shown(_) | News::Left(_) | News::Wanted(_) | News::Dropped => Subject::Forwarding,
            News::Loud(_) => Subject::Loudness,
            News::Fares(_) => Subject::Quality,
        }
    }
}

/// What a word is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The forwarding itself.
    Forwarding,
    /// Who speaks.
    Loudness,
    /// How its connection is.
    Quality,
}

/// A participant as its room has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Shown {
    /// The destination has not said yet that it takes it.
    first: bool,
    participant: Participant,
    tracks: Vec<(TrackSid, proto::TrackInfo)>,
    ends: Vec<Offered>,
}

/// The source's end of a pipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Offered {
    key: PipeKey,
    /// `None`: not open yet.
    end: Option<PipeEnd>,
    streams: Vec<PipedStream>,
    /// It is over.
    void: bool,
}

/// The destination's end of a pipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wanted {
    key: PipeKey,
    /// `None`: not open yet.
    end: Option<PipeEnd>,
    /// Each with the highest layer that is wanted; `None`: all.
    tracks: Vec<WantedTrack>,
}

/// A track, and its highest layer that somebody wants; `None`: all.
type WantedTrack = (TrackSid, Option<u8>);

/// What was said last, and heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Talk {
    /// Version of the last word.
    said: u64,
    /// What it was about, in short.
    digest: u64,
    /// Version of the last word of the other room.
    heard: u64,
}

impl Talk {
    /// The version of a word about `news`; `None`: it has been said.
    fn say(&mut self, now: UnixMs, news: &News) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(news).unwrap_or_default().hash(&mut hasher);
        let digest = hasher.finish();
        if self.said > 0 && self.digest == digest {
            return None;
        }
        self.digest = digest;
        // A word after the row was lost is newer than those before.
        self.said = (self.said + 1).max(now.0);
        Some(self.said)
    }

    /// False: a newer one has come.
    fn hear(&mut self, version: u64) -> bool {
        let is_news = version > self.heard;
        self.heard = self.heard.max(version);
        is_news
    }
}

impl Room {
    /// Another room says something of a participant that is forwarded.
    pub(super) fn hear(&mut self, turn: &mut Turn, word: Word) -> Result<Answer, Error> {
        let Word { from, participant, version, news } = word;
        match news {
            News::Shown(shown) => self.show(turn, &from, &participant, version, *shown),
            News::Left(reason) => {
                let reason = DisconnectReason::try_from(reason).unwrap_or(DisconnectReason::UnknownReason);
                self.stop_showing(turn, &from, &participant, reason)
            }
            News::Wanted(wanted) => self.hear_wanted(turn, (participant, from), version, wanted),
            News::Dropped => {
                self.stop_forwarding(turn, &(participant, from));
                Ok(Answer::Done)
            }
            // Who is not here any more is not missed.
            News::Loud(step) => {
                self.hear_loudness(turn, &from, &participant, step);
                Ok(Answer::Done)
            }
            News::Fares(score) => {
                self.hear_quality(turn, &from, &participant, score);
                Ok(Answer::Done)
            }
        }
    }

    /// Another room has taken a word.
    pub(super) fn word_taken(&mut self, turn: &mut Turn, to: &RoomName, participant: &ParticipantSid) {
        if self.forward_accepted(&(participant.clone(), to.clone())) {
            self.ask_how_it_fares(turn, participant);
        }
    }

    /// Another room knows nothing of it, or does not take it: there is no forwarding.
    pub(super) fn word_refused(&mut self, turn: &mut Turn, to: &RoomName, participant: &ParticipantSid) {
        self.stop_forwarding(turn, &(participant.clone(), to.clone()));
        let _ = self.stop_showing(turn, to, participant, DisconnectReason::ServerShutdown);
    }

    /// Makes pipes to other rooms what they should be, and tells those rooms, after anything changed that may concern them.
    pub(super) fn settle_forwards(&mut self, turn: &mut Turn) {
        if self.forwards.is_empty() && self.forwarded.is_empty() {
            return;
        }
        let concerns = |row: &RowKey| {
            !matches!(
                row,
                RowKey::Room | RowKey::Description(..) | RowKey::Departed(_) | RowKey::Dispatch(_) | RowKey::Job(_)
            )
        };
        if !self.changed.iter().any(concerns) {
            return;
        }
        self.route_from_here(turn);
        self.route_to_here(turn);
        self.say_shown(turn);
        self.say_wanted(turn);
    }

    /// A participant is out of the room, whoever it was.
    pub(super) fn forwards_without(&mut self, turn: &mut Turn, sid: &ParticipantSid, reason: DisconnectReason) {
        let gone: Vec<_> = self.forwards.keys().filter(|(participant, _)| participant == sid).cloned().collect();
        for key in gone {
            if let Some(talk) = self.stop_forwarding(turn, &key) {
                self.say(turn, &key.1, &key.0, talk, News::Left(reason.into()));
            }
        }
        if let Some((from, participant, talk)) = self.forget_forwarded(turn, sid) {
            self.say(turn, &from, &participant, talk, News::Dropped);
        }
    }

    /// An end of a pipe to another room is open. False: it is none of these.
    pub(super) fn forward_opened(&mut self, id: &NodeId, pipe: PipeKey, like: &PipeEnd) -> bool {
        self.source_opened(id, pipe, like) || self.destination_opened(id, pipe, like)
    }

    /// A node says what goes into a pipe to another room. False: it is none of these.
    pub(super) fn forward_filled(&mut self, id: &NodeId, pipe: PipeKey, streams: &[PipedStream]) -> bool {
        self.source_filled(id, pipe, streams) || self.has_inlet(id, pipe)
    }

    /// A pipe to another room is up, interrupted, or over. False: it is none of these.
    pub(super) fn forward_state(&mut self, now: UnixMs, id: &NodeId, pipe: PipeKey, state: MediaState) -> bool {
        let failed = state == MediaState::Failed;
        self.source_state(id, pipe, failed) || self.destination_state(now, id, pipe, failed)
    }

    /// A node is back and says which pipes it has: those to other rooms are brought up to date. Which they are.
    pub(super) fn forwards_known(&mut self, turn: &mut Turn, id: &NodeId, present: &[PipeKey]) -> Vec<PipeKey> {
        let mut known = self.outlets_known(turn, id, present);
        known.extend(self.inlets_known(turn, id, present));
        known
    }

    /// Who asks for a change has to ask the source.
    pub(super) fn not_forwarded(&self, sid: &ParticipantSid) -> Result<(), Error> {
        let text = "participant is forwarded from another room: ask for it there";
        if self.forwarded.contains_key(sid) { Err(Error::new(Code::FailedPrecondition, text)) } else { Ok(()) }
    }

    fn say(&self, turn: &mut Turn, to: &RoomName, participant: &ParticipantSid, mut talk: Talk, news: News) {
        if let Some(version) = talk.say(turn.now, &news) {
            self.send_word(turn, to, participant, version, news);
        }
    }

    fn send_word(&self, turn: &mut Turn, to: &RoomName, participant: &ParticipantSid, version: u64, news: News) {
        let word = Word { from: self.record.name.clone(), participant: participant.clone(), version, news };
        turn.effects.push(Effect::ToRoom { to: to.clone(), word: Box::new(word) });
    }

    /// Whether a pipe may be opened at a node now.
    fn can_open_at(&self, id: &NodeId) -> bool {
        self.listens(id) && self.nodes.get(id).is_some_and(|node| node.takes_pipes)
    }

    fn open_end(&self, turn: &mut Turn, id: &NodeId, pipe: PipeKey, dials: bool) {
        self.tell_node(turn, id, RoomToNode::OpenPipe { pipe, dials, tracks_only: true });
    }
}
