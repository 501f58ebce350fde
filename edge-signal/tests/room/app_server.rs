//! An app server that hears of the room. What it is told has to make sense by itself, whatever happens in the room.

use std::collections::{BTreeMap, BTreeSet};

use livekit_protocol as proto;
use livekit_protocol::participant_info::State;

#[derive(Default)]
pub(crate) struct AppServer {
    /// All it was told.
    pub(crate) heard: Vec<proto::WebhookEvent>,
    /// Sid of the room, while there is one.
    room: Option<String>,
    /// Sids of those who joined and did not leave, with their tracks.
    present: BTreeMap<String, BTreeSet<String>>,
    ids: BTreeSet<String>,
}

impl AppServer {
    pub(crate) fn hear(&mut self, event: proto::WebhookEvent) {
        let room = event.room.as_ref().expect("an event without a room");
        assert!(event.id.starts_with("EV_") && self.ids.insert(event.id.clone()), "an id twice");
        if event.event == "room_started" {
            assert!(self.room.replace(room.sid.clone()).is_none() && self.present.is_empty(), "started twice");
        }
        assert_eq!(self.room.as_ref(), Some(&room.sid), "{} of another room", event.event);
        let (participant, track) = (event.participant.as_ref(), event.track.as_ref());
        let who = participant.map(|participant| participant.sid.clone()).unwrap_or_default();
        match event.event.as_str() {
            "room_started" => assert_eq!(room.num_participants, 0),
            "participant_joined" => {
                assert_eq!(participant.unwrap().state(), State::Active);
                assert!(self.present.insert(who, BTreeSet::new()).is_none(), "joined twice");
            }
            "participant_left" => {
                assert_eq!(participant.unwrap().state(), State::Disconnected);
                assert_eq!(self.present.remove(&who), Some(BTreeSet::new()), "left with tracks, or never joined");
            }
            "participant_connection_aborted" => assert!(!self.present.contains_key(&who), "it was there"),
            "track_published" => {
                let tracks = self.present.get_mut(&who).expect("published before it joined");
                assert!(tracks.insert(track.unwrap().sid.clone()), "published twice");
            }
            "track_unpublished" => {
                let tracks = self.present.get_mut(&who).expect("unpublished after it left");
                assert!(tracks.remove(&track.unwrap().sid), "unpublished without being published");
            }
            "room_finished" => {
                assert!(self.present.is_empty(), "finished with participants");
                self.room = None;
            }
            other => panic!("no webhook of LiveKit's: {other}"),
        }
        self.heard.push(event);
    }

    /// Names of what it was told since it was last asked.
    pub(crate) fn news(&mut self) -> Vec<String> {
        self.heard.drain(..).map(|event| event.event).collect()
    }
}
