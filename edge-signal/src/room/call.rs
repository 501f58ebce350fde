//! Calls of app servers to methods of participants (LiveKit's RPC, version 1): there through the node's data channel, and
//! back. Who waits for the answer, and for how long, is the shell's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use livekit_protocol as proto;
use livekit_protocol::data_packet::Value;
use livekit_protocol::rpc_response;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use shared::control::RoomToNode;
use shared::ids::random_part;

use super::Room;
use super::effect::Effect;
use super::service::{Answer, Code, Error};
use super::turn::Turn;

/// Longest payload of a call, bytes (LiveKit's).
pub const MAX_PAYLOAD_LEN: usize = 15 * 1024;
/// Longest name of a method, bytes.
pub const MAX_METHOD_LEN: usize = 64;
/// Milliseconds for an answer, if the caller does not say (LiveKit's).
pub const DEFAULT_TIMEOUT_MS: u32 = 10_000;
/// Longest a caller may wait, milliseconds: Workers' callers give up sooner or later.
pub const MAX_TIMEOUT_MS: u32 = 60_000;
/// Milliseconds for the word that a call has come (LiveKit's).
pub const ACK_TIMEOUT_MS: u32 = 2_000;
/// Version of RPC that servers speak.
const RPC_VERSION: u32 = 1;

/// A call on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// Names it in what the participant answers.
    pub id: String,
    /// How long to wait for the answer, milliseconds.
    pub timeout_ms: u32,
}

/// What came of a call so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It has come.
    Acknowledged,
    /// Its answer, or the error's code and text.
    Answered(Result<String, (u32, String)>),
}

/// Why a call was not answered: LiveKit's `RpcError` codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No word that it has come.
    ConnectionTimeout,
    /// No answer.
    ResponseTimeout,
    /// The payload is over its limit.
    RequestPayloadTooLarge,
}

impl Failure {
    /// For whoever reads the SDK's exception.
    #[must_use]
    pub fn error(self) -> Error {
        let (code, number, text) = match self {
            Self::ConnectionTimeout => (Code::DeadlineExceeded, 1501, "Connection timeout"),
            Self::ResponseTimeout => (Code::DeadlineExceeded, 1502, "Response timeout"),
            Self::RequestPayloadTooLarge => (Code::InvalidArgument, 1402, "Request payload too large"),
        };
        rpc_error(code, number, text)
    }
}

/// What a participant's error is for the caller.
#[must_use]
pub fn answered_error(number: u32, text: &str) -> Error {
    rpc_error(Code::InvalidArgument, number, text)
}

fn rpc_error(code: Code, number: u32, text: &str) -> Error {
    Error { code, text: format!("RpcError {number}: {text}"), argument: None }
}

impl Room {
    /// Sends a call on its way.
    pub(super) fn call(&mut self, turn: &mut Turn, request: proto::PerformRpcRequest) -> Result<Answer, Error> {
        if request.payload.len() > MAX_PAYLOAD_LEN {
            return Err(Failure::RequestPayloadTooLarge.error());
        }
        if request.method.is_empty() || request.method.len() > MAX_METHOD_LEN {
            let text = format!("method must have 1 to {MAX_METHOD_LEN} bytes");
            return Err(Error { code: Code::InvalidArgument, text, argument: Some("method".to_owned()) });
        }
        let sid = self.named(&request.destination_identity)?;
        self.not_forwarded(&sid)?;
        let timeout_ms = match request.response_timeout_ms {
            0 => DEFAULT_TIMEOUT_MS,
            wanted => wanted.min(MAX_TIMEOUT_MS),
        };
        let id = format!("{}{}", random_part(turn.random()), random_part(turn.random()));
        let call = proto::RpcRequest {
            id: id.clone(),
            method: request.method,
            payload: request.payload,
            response_timeout_ms: timeout_ms,
            version: RPC_VERSION,
            ..Default::default()
        };
        let packet = proto::DataPacket {
            destination_identities: vec![request.destination_identity],
            value: Some(Value::RpcRequest(call)),
            ..Default::default()
        };
        // To nobody whose session is not open: the caller hears that it did not come.
        if let (Some((node, _)), Some(to)) = (self.open_session_of(&sid), self.participants.get(&sid)) {
            let (packet, identities) = (STANDARD.encode(packet.encode_to_vec()), vec![to.identity.clone()]);
            turn.send_node(&node, RoomToNode::SendData { packet, reliable: true, identities });
        }
        Ok(Answer::Called(Called { id, timeout_ms }))
    }

    /// A participant answers a call.
    pub(super) fn call_answered(&mut self, turn: &mut Turn, packet: &str) {
        let decoded = STANDARD.decode(packet).ok().and_then(|bytes| proto::DataPacket::decode(bytes.as_slice()).ok());
        let (id, heard) = match decoded.and_then(|packet| packet.value) {
            Some(Value::RpcAck(ack)) => (ack.request_id, Heard::Acknowledged),
            Some(Value::RpcResponse(response)) => {
                let answer = match response.value {
                    Some(rpc_response::Value::Payload(payload)) => Ok(payload),
                    Some(rpc_response::Value::Error(error)) => Err((error.code, error.message)),
                    // What it is compressed with only clients agree on.
                    _ => Err((1500, "the answer cannot be read".to_owned())),
                };
                (response.request_id, Heard::Answered(answer))
            }
            _ => {
                self.counters.bad_messages += 1;
                return;
            }
        };
        turn.effects.push(Effect::CallHeard { id, heard });
    }
}
