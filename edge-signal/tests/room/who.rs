//! Who joins a room, with which token and which wishes.

use edge_signal::room::event::JoinAttempt;
use livekit_protocol as proto;
use shared::claims::{AccessClaims, VideoGrant};
use shared::geo::Place;
use shared::ids::RoomName;

use crate::world::{START, session_description};

/// What a test wants of a joining client.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) claims: AccessClaims,
    pub(crate) request: proto::JoinRequest,
    pub(crate) single: bool,
    pub(crate) place: Option<Place>,
}

impl Who {
    pub(crate) fn named(identity: &str) -> Self {
        let video = VideoGrant { room_join: true, room: "r".into(), ..VideoGrant::default() };
        let claims = AccessClaims {
            iss: "devkey".into(),
            sub: identity.into(),
            exp: START.secs() + 3600,
            name: identity.to_uppercase(),
            video: Some(video),
            ..AccessClaims::default()
        };
        let client_info = proto::ClientInfo { sdk: 1, protocol: 17, ..Default::default() };
        let settings = proto::ConnectionSettings { auto_subscribe: true, ..Default::default() };
        let request = proto::JoinRequest {
            client_info: Some(client_info),
            connection_settings: Some(settings),
            ..Default::default()
        };
        Self { claims, request, single: true, place: None }
    }

    pub(crate) fn grant(mut self, change: impl FnOnce(&mut VideoGrant)) -> Self {
        change(self.claims.video.as_mut().unwrap());
        self
    }

    pub(crate) fn protocol(mut self, protocol: i32) -> Self {
        self.request.client_info.as_mut().unwrap().protocol = protocol;
        self
    }

    pub(crate) fn sdk(mut self, sdk: proto::client_info::Sdk) -> Self {
        self.request.client_info.as_mut().unwrap().set_sdk(sdk);
        self
    }

    pub(crate) fn browser(mut self, browser: &str) -> Self {
        self.request.client_info.as_mut().unwrap().browser = browser.into();
        self
    }

    pub(crate) fn dual(mut self) -> Self {
        self.single = false;
        self
    }

    pub(crate) fn no_auto_subscribe(mut self) -> Self {
        self.request.connection_settings.as_mut().unwrap().auto_subscribe = false;
        self
    }

    pub(crate) fn offering(mut self, id: u32) -> Self {
        self.request.publisher_offer = Some(session_description("offer", id));
        self
    }

    pub(crate) fn attempt(&self) -> JoinAttempt {
        JoinAttempt {
            room: RoomName::try_from("r").unwrap(),
            claims: self.claims.clone(),
            request: self.request.clone(),
            single_peer_connection: self.single,
            place: self.place,
        }
    }
}
