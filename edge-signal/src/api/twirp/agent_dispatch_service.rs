//! `livekit.AgentDispatchService`: what each method asks of its room. All want `roomAdmin` of it.

use livekit_protocol as proto;
use shared::claims::VideoGrant;

use super::room_service::{Ask, Call};
use super::{Code, Encoding, Error};
use crate::room::service::Request;

/// As in paths.
pub const NAME: &str = "livekit.AgentDispatchService";
/// Every method there is.
pub const METHODS: [&str; 3] = ["CreateDispatch", "DeleteDispatch", "ListDispatch"];

/// Checks a call.
///
/// # Errors
/// The grant is missing, or the request is not what it must be.
pub fn ask(method: &str, encoding: Encoding, body: &[u8], grant: &VideoGrant) -> Result<Ask, Error> {
    let call = Call { encoding, body, grant };
    match method {
        "CreateDispatch" => call.of_room(
            |request: proto::CreateAgentDispatchRequest| Request::CreateDispatch(Box::new(request)),
            |request| &request.room,
        ),
        "DeleteDispatch" => call.of_room(
            |request: proto::DeleteAgentDispatchRequest| Request::DeleteDispatch(request.dispatch_id),
            |request| &request.room,
        ),
        "ListDispatch" => call.of_room(
            |request: proto::ListAgentDispatchRequest| Request::ListDispatch(request.dispatch_id),
            |request| &request.room,
        ),
        _ => Err(Error::new(Code::Unimplemented, "not implemented")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_wants_the_admin_of_its_room() {
        let admin = VideoGrant { room_admin: true, room: "r".into(), ..VideoGrant::default() };
        let others = [
            VideoGrant::default(),
            VideoGrant { room_create: true, room_list: true, agent: true, room: "r".into(), ..VideoGrant::default() },
            VideoGrant { room_admin: true, room: "other".into(), ..VideoGrant::default() },
            VideoGrant { room_admin: true, ..VideoGrant::default() },
        ];
        let body = br#"{"room":"r","agent_name":"helper","dispatchId":"AD_x"}"#;
        for method in METHODS {
            assert!(ask(method, Encoding::Json, body, &admin).is_ok(), "{method}");
            for grant in &others {
                let refused = ask(method, Encoding::Json, body, grant).unwrap_err();
                assert_eq!(refused, Error::new(Code::Unauthenticated, "permissions denied"), "{method} with {grant:?}");
            }
        }
    }
}
