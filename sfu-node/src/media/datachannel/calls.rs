//! Calls of the server (RPC) that participants are to answer. **Nothing else they send reaches the edge.**

use std::collections::HashMap;
use std::time::{Duration, Instant};

use livekit_protocol::DataPacket;
use livekit_protocol::data_packet::Value;
use prost::Message;
use shared::ids::Identity;

/// Calls that wait for their answer at a time, on one shard; further ones are not answered.
const MAX_CALLS: usize = 1_000;
/// Answers to one call that are passed on: that it came, and what came of it.
const MAX_ANSWERS: u8 = 2;
/// How much longer than the caller waits.
const LEEWAY: Duration = Duration::from_secs(5);

/// Calls on their way.
#[derive(Debug, Default)]
pub(crate) struct Calls(HashMap<String, Call>);

#[derive(Debug)]
struct Call {
    of: Identity,
    until: Instant,
    answers: u8,
}

impl Calls {
    /// Data of the server for these: if it is a call of one of them, its answer is expected.
    pub(crate) fn note(&mut self, now: Instant, packet: &[u8], identities: &[Identity]) {
        let [of] = identities else { return };
        let Ok(DataPacket { value: Some(Value::RpcRequest(request)), .. }) = DataPacket::decode(packet) else { return };
        self.0.retain(|_, call| call.until > now);
        if self.0.len() < MAX_CALLS {
            let wait = Duration::from_millis(request.response_timeout_ms.into());
            let until = now + wait + LEEWAY;
            self.0.insert(request.id, Call { of: of.clone(), until, answers: 0 });
        }
    }

    /// Whether what a participant sent to nobody is the answer to a call.
    pub(crate) fn is_answer(&mut self, now: Instant, sender: &Identity, packet: &[u8]) -> bool {
        let id = match DataPacket::decode(packet).ok().and_then(|packet| packet.value) {
            Some(Value::RpcAck(ack)) => ack.request_id,
            Some(Value::RpcResponse(response)) => response.request_id,
            _ => return false,
        };
        let Some(call) = self.0.get_mut(&id).filter(|call| call.of == *sender && call.until > now) else {
            return false;
        };
        call.answers += 1;
        if call.answers >= MAX_ANSWERS {
            self.0.remove(&id);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{RpcAck, RpcRequest, RpcResponse};

    use super::*;

    fn encoded(value: Value) -> Vec<u8> {
        DataPacket { value: Some(value), ..DataPacket::default() }.encode_to_vec()
    }

    fn call(id: usize) -> Vec<u8> {
        encoded(Value::RpcRequest(RpcRequest { id: id.to_string(), response_timeout_ms: 1_000, ..Default::default() }))
    }

    #[test]
    fn only_who_was_called_answers_and_twice_at_most() {
        let (now, mut calls) = (Instant::now(), Calls::default());
        let [ada, bob] = ["ada", "bob"].map(|name| Identity::try_from(name).unwrap());
        let ack = encoded(Value::RpcAck(RpcAck { request_id: "7".into() }));
        let response = encoded(Value::RpcResponse(RpcResponse { request_id: "7".into(), value: None }));
        assert!(!calls.is_answer(now, &ada, &ack), "nobody called");
        calls.note(now, &call(7), std::slice::from_ref(&ada));
        assert!(!calls.is_answer(now, &bob, &ack), "not him");
        assert!(calls.is_answer(now, &ada, &ack) && calls.is_answer(now, &ada, &response));
        assert!(!calls.is_answer(now, &ada, &response), "no more");
        calls.note(now, &call(7), std::slice::from_ref(&ada));
        assert!(!calls.is_answer(now + Duration::from_secs(6), &ada, &ack), "too late");
        calls.note(now, &call(8), &[ada.clone(), bob.clone()]);
        assert!(calls.0.len() <= 1, "for two it is none");
        assert!(!calls.is_answer(now, &ada, b"garbage"));
    }

    #[test]
    fn calls_are_bounded_and_forgotten() {
        let (now, mut calls) = (Instant::now(), Calls::default());
        let ada = Identity::try_from("ada").unwrap();
        (0..2 * MAX_CALLS).for_each(|id| calls.note(now, &call(id), std::slice::from_ref(&ada)));
        assert_eq!(calls.0.len(), MAX_CALLS);
        calls.note(now + Duration::from_secs(7), &call(0), std::slice::from_ref(&ada));
        assert_eq!(calls.0.len(), 1);
    }
}
