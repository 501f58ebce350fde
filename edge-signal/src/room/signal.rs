//! Messages of clients: each is checked, counted when it is wrong, and given to the part it concerns.

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use livekit_protocol::simulate_scenario::Scenario;
use shared::control::{DescriptionKind, PeerConnections};
use shared::ids::ParticipantSid;

use super::Room;
use super::admit::description;
use super::event::ConnectionId;
use super::record::signed;
use super::session::{Progress, Session, Side};
use super::turn::Turn;

impl Room {
    pub(super) fn client_message(&mut self, turn: &mut Turn, connection: &ConnectionId, message: proto::SignalRequest) {
        let Some(sid) = self.connections.get(connection).cloned() else {
            self.counters.dropped_stale += 1;
            return;
        };
        // Empty frames and messages newer than this protocol are ignored, as in LiveKit.
        let Some(message) = message.message else { return };
        match message {
            Asked::Offer(offer) => self.client_offer(turn, &sid, &offer),
            Asked::Answer(answer) => self.client_answer(turn, &sid, &answer),
            Asked::Trickle(request) => self.trickle(turn, &sid, request),
            Asked::AddTrack(request) => self.add_track(turn, &sid, request),
            Asked::Mute(request) => self.mute_track(turn, &sid, request),
            Asked::Subscription(request) => self.update_subscription(turn, &sid, &request),
            Asked::SubscriptionPermission(request) => self.update_allowed(turn, &sid, request),
            Asked::Leave(_) => self.client_leaves(turn, &sid),
            Asked::Simulate(request) => self.simulate(turn, &sid, request),
            Asked::Ping(_) => self.send(turn, &sid, Message::Pong(signed(turn.now.0))),
            Asked::PingReq(ping) => {
                let pong = proto::Pong { last_ping_timestamp: ping.timestamp, timestamp: signed(turn.now.0) };
                self.send(turn, &sid, Message::PongResp(pong));
            }
            Asked::UpdateMetadata(request) => self.update_metadata(turn, &sid, request),
            Asked::UpdateAudioTrack(request) => self.update_audio_track(turn, &sid, request),
            Asked::UpdateVideoTrack(request) => self.update_video_track(turn, &sid, request),
            Asked::PublishDataTrackRequest(request) => {
                self.unsupported(turn, &sid, Some(Request::PublishDataTrack(request)), "data tracks are not supported");
            }
            Asked::UnpublishDataTrackRequest(request) => {
                let (reason, request) = (Reason::NotFound, Request::UnpublishDataTrack(request));
                self.respond(turn, &sid, 0, reason, String::new(), Some(request));
            }
            Asked::StoreDataBlobRequest(request) => self.no_data_blobs(turn, &sid, request.request_id),
            Asked::GetDataBlobRequest(request) => self.no_data_blobs(turn, &sid, request.request_id),
            Asked::TrackSetting(request) => self.update_track_settings(turn, &sid, &request),
            Asked::SyncState(state) => self.sync_state(turn, &sid, &state),
            _ => {}
        }
    }

    fn client_offer(&mut self, turn: &mut Turn, sid: &ParticipantSid, given: &proto::SessionDescription) {
        match description(given, DescriptionKind::Offer) {
            Ok(offer) => {
                self.put_description(sid, Side::ClientOffer, Some(offer));
                if let Some(session) = self.session_mut(sid) {
                    session.offer = Progress::Unsent;
                }
                self.pass_on(turn, sid);
            }
            Err(fault) => self.bad_description(turn, sid, fault),
        }
    }

    fn client_answer(&mut self, turn: &mut Turn, sid: &ParticipantSid, given: &proto::SessionDescription) {
        let is_dual =
            |session: &Session| session.peer_connections != PeerConnections::Single && !session.answers_before();
        let offer = self.description(sid, Side::NodeOffer).map(|offer| offer.id);
        let Some(offer) = offer.filter(|_| self.sessions.get(sid).is_some_and(is_dual)) else {
            // With one connection the server never offers; LiveKit ignores such answers too.
            self.counters.dropped_stale += 1;
            return;
        };
        match description(given, DescriptionKind::Answer) {
            Ok(mut answer) => {
                // Native SDKs answer with id 0; the node is to know which offer is meant when it hears this twice.
                if answer.id == 0 {
                    answer.id = offer;
                }
                self.put_description(sid, Side::ClientAnswer, Some(answer));
                if let Some(session) = self.session_mut(sid) {
                    session.answer = Progress::Unsent;
                    session.answer_repeated = false;
                }
                self.pass_on(turn, sid);
            }
            Err(fault) => self.bad_description(turn, sid, fault),
        }
    }

    fn bad_description(&mut self, turn: &mut Turn, sid: &ParticipantSid, fault: &str) {
        self.counters.rejected_descriptions += 1;
        self.respond(turn, sid, 0, Reason::InvalidRequest, fault.to_owned(), None);
    }

    /// Nodes are ICE-lite and learn addresses from binding requests: a candidate is only checked.
    fn trickle(&mut self, turn: &mut Turn, sid: &ParticipantSid, request: proto::TrickleRequest) {
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&request.candidate_init) {
            self.counters.bad_messages += 1;
            let (reason, text) = (Reason::UnclassifiedError, error.to_string());
            self.respond(turn, sid, 0, reason, text, Some(Request::Trickle(request)));
        }
    }

    fn simulate(&mut self, turn: &mut Turn, sid: &ParticipantSid, request: proto::SimulateScenario) {
        if matches!(request.scenario, Some(Scenario::LeaveRequestFullReconnect(true))) {
            self.end_session(turn, sid, DisconnectReason::ClientInitiated);
        }
    }

    fn unsupported(&mut self, turn: &mut Turn, sid: &ParticipantSid, request: Option<Request>, text: &str) {
        self.respond(turn, sid, 0, Reason::UnsupportedType, text.to_owned(), request);
    }

    fn no_data_blobs(&mut self, turn: &mut Turn, sid: &ParticipantSid, request_id: u32) {
        self.respond(turn, sid, request_id, Reason::NotAllowed, "data blob not enabled".to_owned(), None);
    }
}
