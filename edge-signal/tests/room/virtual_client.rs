//! A client's end of the signal connection: keeps what it was sent and checks what every client relies on.

use std::collections::{BTreeMap, BTreeSet};

use livekit_protocol as proto;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;

/// One connection.
#[derive(Default)]
pub(crate) struct VirtualClient {
    pub(crate) protocol: u32,
    pub(crate) sid: String,
    /// Not yet looked at by the test.
    pub(crate) inbox: Vec<Message>,
    /// Participants by sid, as last heard.
    pub(crate) roster: BTreeMap<String, proto::ParticipantInfo>,
    /// Tracks it was told it may have.
    pub(crate) allowed: BTreeSet<String>,
    pub(crate) tokens: usize,
    pub(crate) closed: bool,
    frames: usize,
    left: bool,
    /// It asked to go on.
    resumes: bool,
}

impl VirtualClient {
    pub(crate) fn new(protocol: u32) -> Self {
        Self { protocol, ..Self::default() }
    }

    /// The same client on a new socket: it knows what it knew.
    pub(crate) fn resuming(&self) -> Self {
        Self {
            protocol: self.protocol,
            sid: self.sid.clone(),
            roster: self.roster.clone(),
            allowed: self.allowed.clone(),
            resumes: true,
            ..Self::default()
        }
    }

    pub(crate) fn receive(&mut self, message: Message) {
        assert!(!self.closed && !self.left, "a frame after leave or close: {message:?}");
        self.frames += 1;
        let greets = self.frames == 1 && !matches!(message, Message::Leave(_));
        assert_eq!(greets && !self.resumes, matches!(message, Message::Join(_)));
        assert_eq!(greets && self.resumes, matches!(message, Message::Reconnect(_)));
        match &message {
            Message::Join(join) => {
                let me = join.participant.clone().unwrap();
                assert_eq!((me.state(), me.version), (State::Joining, 0));
                self.sid.clone_from(&me.sid);
                for info in join.other_participants.iter().chain([&me]) {
                    self.roster.insert(info.sid.clone(), info.clone());
                }
            }
            Message::Update(update) => update.participants.iter().for_each(|info| self.update(info)),
            Message::SubscriptionPermissionUpdate(update) => {
                let publisher =
                    self.roster.get(&update.participant_sid).expect("permission for an unknown participant");
                assert!(publisher.tracks.iter().any(|t| t.sid == update.track_sid), "permission for an unknown track");
                if update.allowed {
                    self.allowed.insert(update.track_sid.clone());
                } else {
                    self.allowed.remove(&update.track_sid);
                }
            }
            Message::Leave(_) => self.left = true,
            Message::RequestResponse(_) => assert!(self.protocol >= 10, "old clients cannot decode this"),
            _ => {}
        }
        self.inbox.push(message);
    }

    fn update(&mut self, info: &proto::ParticipantInfo) {
        if let Some(known) = self.roster.get(&info.sid) {
            assert!(info.version >= known.version, "versions go down: {known:?} then {info:?}");
            assert!(info.version > known.version || info == known, "changed without a version: {known:?} {info:?}");
            assert!(info.state >= known.state, "states go back: {known:?} then {info:?}");
        }
        if info.state() == State::Disconnected {
            self.roster.remove(&info.sid);
        } else {
            self.roster.insert(info.sid.clone(), info.clone());
        }
    }

    pub(crate) fn token(&mut self) {
        assert!(self.frames > 0, "a token before the join");
        assert!(!self.closed && !self.left, "a token after leave or close");
        self.tokens += 1;
    }

    pub(crate) fn close(&mut self) {
        assert!(!self.closed, "closed twice");
        self.closed = true;
    }

    /// The one `leave` it got.
    pub(crate) fn leave(&self) -> Option<proto::LeaveRequest> {
        self.inbox.iter().find_map(|message| match message {
            Message::Leave(leave) => Some(leave.clone()),
            _ => None,
        })
    }
}
