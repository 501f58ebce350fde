//! Twirp v7: what a request's path and content type say, bodies as protobuf or proto3 JSON, errors as JSON.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::claims::VideoGrant;

use super::json::parse as object;
use answer_json::{Complete, Fields};
use room_service::Ask;

pub mod agent_dispatch_service;
pub mod answer_json;
pub mod room_service;

/// Where every method is.
pub const PREFIX: &str = "/twirp/";
/// Most bytes of a body (LiveKit's).
pub const MAX_BODY: usize = 10 * 1024 * 1024;

/// Kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A field is not what it must be.
    InvalidArgument,
    /// The body cannot be decoded.
    Malformed,
    /// What is asked about is not there.
    NotFound,
    /// No such method.
    BadRoute,
    /// No token, a wrong one, or one that does not grant this.
    Unauthenticated,
    /// It cannot be done now.
    FailedPrecondition,
    /// The body is over its limit, as gRPC says it. LiveKit answers that without a code.
    ResourceExhausted,
    /// It took too long.
    DeadlineExceeded,
    /// Not here.
    Unimplemented,
    /// Our fault.
    Internal,
}

impl Code {
    /// As on the wire, and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::Malformed => "malformed",
            Self::NotFound => "not_found",
            Self::BadRoute => "bad_route",
            Self::Unauthenticated => "unauthenticated",
            Self::FailedPrecondition => "failed_precondition",
            Self::ResourceExhausted => "resource_exhausted",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
        }
    }

    /// HTTP status: Twirp's, but for a body that is too large, which clients must not send again as they do after 429.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::NotFound | Self::BadRoute => 404,
            Self::DeadlineExceeded => 408,
            Self::FailedPrecondition => 412,
            Self::ResourceExhausted => 413,
            Self::Internal => 500,
            Self::Unimplemented => 501,
        }
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Kind.
    pub code: Code,
    /// For whoever reads the SDK's exception.
    pub text: String,
    /// What `meta` says: name and value.
    pub meta: Option<(&'static str, String)>,
}

impl Error {
    /// An error in these words.
    #[must_use]
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), meta: None }
    }

    /// Its body. **Its content type is exactly `application/json`**: the Node SDK compares the string.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = json!({ "code": self.code.as_str(), "msg": self.text });
        if let (Some((name, value)), Some(fields)) = (&self.meta, body.as_object_mut()) {
            fields.insert("meta".to_owned(), json!({ *name: value }));
        }
        body
    }
}

/// How bodies are encoded: an answer like its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/protobuf`.
    Protobuf,
    /// `application/json`, proto3 JSON.
    Json,
}

impl Encoding {
    /// The answer's content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/protobuf",
            Self::Json => "application/json",
        }
    }

    /// Decodes a body. Fields that this protocol does not know are passed over.
    ///
    /// # Errors
    /// It is not such a message.
    pub fn decode<T: Message + Default + DeserializeOwned>(self, body: &[u8]) -> Result<T, Error> {
        let (decoded, name) = match self {
            Self::Protobuf => (T::decode(body).ok(), "protobuf"),
            Self::Json => (object(body).ok(), "json"),
        };
        decoded.ok_or_else(|| Error::new(Code::Malformed, format!("the {name} request could not be decoded")))
    }

    /// Encodes an answer, in JSON with these fields.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn encode<T: Message + Serialize>(self, message: &T, fields: Fields) -> Result<Vec<u8>, Error> {
        match self {
            Self::Protobuf => Ok(message.encode_to_vec()),
            Self::Json => json_of(message, fields).map_err(|error| Error::new(Code::Internal, error.to_string())),
        }
    }

    /// The answer that says nothing.
    #[must_use]
    pub fn nothing(self) -> Vec<u8> {
        match self {
            Self::Protobuf => Vec::new(),
            Self::Json => b"{}".to_vec(),
        }
    }
}

/// Through text: each message can be written as that already, and the Worker is to stay small.
fn json_of(message: &impl Serialize, fields: Fields) -> serde_json::Result<Vec<u8>> {
    let written = serde_json::to_vec(message)?;
    serde_json::to_vec(&Complete(&serde_json::from_slice(&written)?, fields))
}

/// Whether the path is one of a service there is.
#[must_use]
pub fn is_service(path: &str) -> bool {
    service_of(path).is_some_and(|(service, _)| methods(service).is_some())
}

/// The methods of a service there is. **No two services have one of the same name.**
fn methods(service: &str) -> Option<&'static [&'static str]> {
    match service {
        room_service::NAME => Some(&room_service::METHODS),
        agent_dispatch_service::NAME => Some(&agent_dispatch_service::METHODS),
        _ => None,
    }
}

/// Checks a call of any service.
///
/// # Errors
/// The grant is missing, or the request is not what it must be.
pub fn ask(method: &str, encoding: Encoding, body: &[u8], grant: &VideoGrant) -> Result<Ask, Error> {
    if agent_dispatch_service::METHODS.contains(&method) {
        agent_dispatch_service::ask(method, encoding, body, grant)
    } else {
        room_service::ask(method, encoding, body, grant)
    }
}

fn service_of(path: &str) -> Option<(&str, &str)> {
    path.rsplit_once(PREFIX)?.1.split_once('/')
}

/// Which method a request is for, and how it is encoded.
///
/// # Errors
/// `bad_route`, in LiveKit's words.
pub fn route<'a>(method: &str, path: &'a str, content_type: &str) -> Result<(&'a str, Encoding), Error> {
    let bad = |text: String| Error {
        code: Code::BadRoute,
        text,
        meta: Some(("twirp_invalid_route", format!("{method} {path}"))),
    };
    if method != "POST" {
        return Err(bad(format!("unsupported method {method:?} (only POST is allowed)")));
    }
    let encoding = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/protobuf" => Encoding::Protobuf,
        "application/json" => Encoding::Json,
        _ => return Err(bad(format!("unexpected Content-Type: {content_type:?}"))),
    };
    let known = service_of(path).filter(|(service, name)| methods(service).is_some_and(|all| all.contains(name)));
    match known {
        Some((_, name)) => Ok((name, encoding)),
        None => Err(bad(format!("no handler for path {path:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol as proto;

    use super::*;

    #[test]
    fn bodies_are_read_in_both_encodings_and_all_spellings() {
        let request = proto::CreateRoomRequest { name: "r".into(), empty_timeout: 7, ..Default::default() };
        assert_eq!(Encoding::Protobuf.decode(&request.encode_to_vec()), Ok(request.clone()));
        for text in [
            r#"{"name":"r","emptyTimeout":7}"#,
            r#"{"name":"r","empty_timeout":"7"}"#,
            r#"{"name":"r","emptyTimeout":7,"newer":{"name":1},"newest":[]}"#,
        ] {
            assert_eq!(Encoding::Json.decode(text.as_bytes()), Ok(request.clone()), "{text}");
        }
        let nested = r#"{"identity":"a","permission":{"canPublish":true,"canFly":true},"attributes":{"a":"1"}}"#;
        let update: proto::UpdateParticipantRequest = Encoding::Json.decode(nested.as_bytes()).unwrap();
        assert!(update.permission.unwrap().can_publish && update.attributes.len() == 1);
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        for text in ["", "[]", "7", "{", r#"{"name":7}"#] {
            let error = Encoding::Json.decode::<proto::CreateRoomRequest>(text.as_bytes()).unwrap_err();
            assert_eq!(error, Error::new(Code::Malformed, "the json request could not be decoded"), "{text}");
        }
        let error = Encoding::Protobuf.decode::<proto::CreateRoomRequest>(&[0xff]).unwrap_err();
        assert_eq!(error.text, "the protobuf request could not be decoded");
    }

    #[test]
    fn routes() {
        let path = "/twirp/livekit.RoomService/CreateRoom";
        assert_eq!(route("POST", path, "application/protobuf"), Ok(("CreateRoom", Encoding::Protobuf)));
        assert_eq!(route("POST", path, "application/json;charset=UTF-8"), Ok(("CreateRoom", Encoding::Json)));
        let doubled = "//twirp/livekit.RoomService/CreateRoom";
        assert_eq!(route("POST", doubled, "application/json"), Ok(("CreateRoom", Encoding::Json)));
        let text = |method: &str, path: &str, content_type: &str| route(method, path, content_type).unwrap_err();
        assert_eq!(text("GET", path, "").text, "unsupported method \"GET\" (only POST is allowed)");
        assert_eq!(text("POST", path, "text/plain").text, "unexpected Content-Type: \"text/plain\"");
        let unknown = text("POST", "/twirp/livekit.RoomService/Fly", "application/json");
        assert_eq!(unknown.text, "no handler for path \"/twirp/livekit.RoomService/Fly\"");
        let meta = json!({"twirp_invalid_route": "POST /twirp/livekit.RoomService/Fly"});
        assert_eq!(unknown.body(), json!({"code": "bad_route", "msg": unknown.text, "meta": meta}));
        assert!(is_service(path) && is_service(doubled));
        assert!(!is_service("/twirp/livekit.Egress/ListEgress") && !is_service("/twirp/"));
    }
}
