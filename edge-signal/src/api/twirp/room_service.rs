//! `livekit.RoomService`: which grant each method wants, what it asks, what it answers.

use livekit_protocol as proto;
use prost::Message;
use serde::de::DeserializeOwned;
use shared::claims::VideoGrant;
use shared::ids::{IdError, RoomName};

use super::{Code, Encoding, Error, answer_json};
use crate::room::service::{self, Answer, Request};

/// As in paths.
pub const NAME: &str = "livekit.RoomService";
/// Every method there is; those beyond [`ask`]'s are not implemented.
pub const METHODS: [&str; 14] = [
    "CreateRoom",
    "ListRooms",
    "DeleteRoom",
    "ListParticipants",
    "GetParticipant",
    "RemoveParticipant",
    "MutePublishedTrack",
    "UpdateParticipant",
    "UpdateSubscriptions",
    "SendData",
    "UpdateRoomMetadata",
    "ForwardParticipant",
    "MoveParticipant",
    "PerformRpc",
];

/// LiveKit's text, with the blank at its end.
const SAME_ROOM: &str = "destination room cannot be the same as source room ";

/// Whom to ask what.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// A room.
    Room(RoomName, Request),
    /// The directory: all rooms, or those with these names.
    Rooms(Vec<String>),
}

/// Checks a call.
///
/// # Errors
/// The grant is missing, or the request is not what it must be.
pub fn ask(method: &str, encoding: Encoding, body: &[u8], grant: &VideoGrant) -> Result<Ask, Error> {
    let call = Call { encoding, body, grant };
    match method {
        "CreateRoom" => {
            let request: proto::CreateRoomRequest = call.granted(grant.room_create)?;
            let room = room_name(&request.name)?;
            if request.egress.is_some() {
                // Whoever asks for a recording must not believe that there is one.
                return Err(Error::new(Code::Unimplemented, "egress is not implemented: make the room without it"));
            }
            if !request.room_preset.is_empty() {
                // LiveKit's text: there are none, and one that is not known is refused there too.
                let text = "unknown room configuration in create room request";
                return Err(Error::new(Code::InvalidArgument, text));
            }
            Ok(Ask::Room(room, Request::Create(Box::new(request))))
        }
        "ListRooms" => Ok(Ask::Rooms(call.granted::<proto::ListRoomsRequest>(grant.room_list)?.names)),
        "DeleteRoom" => {
            let request: proto::DeleteRoomRequest = call.granted(grant.room_create)?;
            let room = RoomName::try_from(request.room.as_str());
            let room = room.map_err(|_| Error::new(Code::NotFound, "requested room does not exist"))?;
            Ok(Ask::Room(room, Request::Delete))
        }
        "ListParticipants" => call.of_room(|_: proto::ListParticipantsRequest| Request::ListParticipants, |r| &r.room),
        "GetParticipant" => {
            call.of_room(|r: proto::RoomParticipantIdentity| Request::GetParticipant(r.identity), |r| &r.room)
        }
        "RemoveParticipant" => call.of_room(Request::RemoveParticipant, |r| &r.room),
        "MutePublishedTrack" => call.of_room(Request::MuteTrack, |r| &r.room),
        "UpdateParticipant" => {
            call.of_room(|r: proto::UpdateParticipantRequest| Request::UpdateParticipant(Box::new(r)), |r| &r.room)
        }
        "UpdateSubscriptions" => call.of_room(Request::UpdateSubscriptions, |r| &r.room),
        "SendData" => call.of_room(Request::SendData, |r| &r.room),
        "UpdateRoomMetadata" => {
            call.of_room(|r: proto::UpdateRoomMetadataRequest| Request::UpdateMetadata(r.metadata), |r| &r.room)
        }
        "ForwardParticipant" => {
            let request: proto::ForwardParticipantRequest = encoding.decode(body)?;
            let (room, to) = call.of_two_rooms(&request.room, &request.destination_room)?;
            Ok(Ask::Room(room, Request::Forward(request.identity, to)))
        }
        "MoveParticipant" => {
            let request: proto::MoveParticipantRequest = encoding.decode(body)?;
            let (room, to) = call.of_two_rooms(&request.room, &request.destination_room)?;
            Ok(Ask::Room(room, Request::Transfer(request.identity, to)))
        }
        "PerformRpc" => call.of_room(|r: proto::PerformRpcRequest| Request::PerformRpc(Box::new(r)), |r| &r.room),
        _ => Err(Error::new(Code::Unimplemented, "not implemented")),
    }
}

/// A room's answer as a body.
///
/// # Errors
/// What the room says, or it cannot be written.
pub fn answer(encoding: Encoding, answer: Result<Answer, service::Error>) -> Result<Vec<u8>, Error> {
    match answer.map_err(of_room)? {
        Answer::Room(room) => encoding.encode(&*room, answer_json::ROOM),
        Answer::Participants(participants) => {
            encoding.encode(&proto::ListParticipantsResponse { participants }, answer_json::PARTICIPANTS)
        }
        Answer::Participant(info) => encoding.encode(&*info, answer_json::PARTICIPANT),
        Answer::Track(track) => {
            encoding.encode(&proto::MuteRoomTrackResponse { track: Some(*track) }, answer_json::MUTED)
        }
        Answer::Reply(payload) => encoding.encode(&proto::PerformRpcResponse { payload }, answer_json::REPLY),
        // The room's object waits for what comes of these.
        Answer::Called(_) | Answer::Transfer(_) | Answer::Welcome(_) | Answer::Forward(_) => {
            Err(Error::new(Code::Internal, "the room has not finished"))
        }
        Answer::Dispatch(dispatch) => encoding.encode(&*dispatch, answer_json::DISPATCH),
        Answer::Dispatches(agent_dispatches) => {
            encoding.encode(&proto::ListAgentDispatchResponse { agent_dispatches }, answer_json::DISPATCHES)
        }
        Answer::Done => Ok(encoding.nothing()),
    }
}

fn of_room(error: service::Error) -> Error {
    let code = match error.code {
        service::Code::NotFound => Code::NotFound,
        service::Code::InvalidArgument => Code::InvalidArgument,
        service::Code::FailedPrecondition => Code::FailedPrecondition,
        service::Code::DeadlineExceeded => Code::DeadlineExceeded,
        // The Twirp code is taken by bodies that are too large (413), and it is no matter of waiting (429).
        service::Code::ResourceExhausted => Code::FailedPrecondition,
    };
    Error { code, text: error.text, meta: error.argument.map(|argument| ("argument", argument)) }
}

/// A call whose grants are to be checked.
pub(super) struct Call<'a> {
    pub(super) encoding: Encoding,
    pub(super) body: &'a [u8],
    pub(super) grant: &'a VideoGrant,
}

impl Call<'_> {
    fn granted<T: Message + Default + DeserializeOwned>(&self, granted: bool) -> Result<T, Error> {
        let request = self.encoding.decode(self.body)?;
        if granted { Ok(request) } else { Err(denied()) }
    }

    /// `roomAdmin` of the very room that is asked.
    pub(super) fn of_room<T: Message + Default + DeserializeOwned>(
        &self,
        request: impl FnOnce(T) -> Request,
        room: impl FnOnce(&T) -> &String,
    ) -> Result<Ask, Error> {
        let asked: T = self.encoding.decode(self.body)?;
        let name = RoomName::try_from(room(&asked).as_str()).ok();
        let name = name.filter(|name| self.grant.room_admin && self.grant.room == name.as_str()).ok_or_else(denied)?;
        Ok(Ask::Room(name, request(asked)))
    }

    /// `roomAdmin` of the room, and the room to go to in `destinationRoom`.
    fn of_two_rooms(&self, room: &str, destination: &str) -> Result<(RoomName, RoomName), Error> {
        let name = RoomName::try_from(room).ok().filter(|_| self.grant.room_admin && self.grant.room == room);
        let Some(name) = name.filter(|_| self.grant.destination_room == destination) else {
            return Err(denied());
        };
        if room == destination {
            let meta = Some(("argument", SAME_ROOM.trim_end().to_owned()));
            return Err(Error { code: Code::InvalidArgument, text: SAME_ROOM.to_owned(), meta });
        }
        Ok((name, room_name(destination)?))
    }
}

/// The name of a room that may be made.
fn room_name(text: &str) -> Result<RoomName, Error> {
    RoomName::try_from(text).map_err(|error| {
        let text = match error {
            IdError::TooLong => "room name length exceeds limits: max length 256",
            _ => "no room name",
        };
        Error::new(Code::InvalidArgument, text)
    })
}

fn denied() -> Error {
    Error::new(Code::Unauthenticated, "permissions denied")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, body: &str, grant: &VideoGrant) -> Result<Ask, Error> {
        ask(method, Encoding::Json, body.as_bytes(), grant)
    }

    #[test]
    fn each_method_wants_its_own_grant() {
        let none = VideoGrant::default();
        let create = VideoGrant { room_create: true, ..none.clone() };
        let list = VideoGrant { room_list: true, ..none.clone() };
        let admin = VideoGrant { room_admin: true, room: "r".into(), ..none.clone() };
        let body = r#"{"room":"r","name":"r"}"#;
        for method in METHODS {
            let right = match method {
                "CreateRoom" | "DeleteRoom" => &create,
                "ListRooms" => &list,
                // Other tests have what these want.
                "ForwardParticipant" | "MoveParticipant" => continue,
                _ => &admin,
            };
            for grant in [&none, &create, &list, &admin] {
                let asked = call(method, body, grant);
                if std::ptr::eq(grant, right) {
                    assert!(asked.is_ok(), "{method}: {asked:?}");
                } else {
                    assert_eq!(asked, Err(denied()), "{method} with {grant:?}");
                }
            }
        }
        let other = VideoGrant { room_admin: true, room: "other".into(), ..none };
        assert_eq!(call("ListParticipants", body, &other), Err(denied()), "an admin of another room");
        let nameless = VideoGrant { room_admin: true, ..VideoGrant::default() };
        assert_eq!(call("ListParticipants", "{}", &nameless), Err(denied()), "an admin of no room");
    }

    #[test]
    fn room_names_are_checked() {
        let create = VideoGrant { room_create: true, ..VideoGrant::default() };
        let text = |body: &str| call("CreateRoom", body, &create).unwrap_err().text;
        assert_eq!(text("{}"), "no room name");
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(257));
        assert_eq!(text(&long), "room name length exceeds limits: max length 256");
        assert_eq!(call("DeleteRoom", "{}", &create).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn a_room_that_is_to_be_recorded_is_refused_and_options_without_effect_are_taken() {
        let create = VideoGrant { room_create: true, ..VideoGrant::default() };
        let recorded = r#"{"name":"r","egress":{"room":{"roomName":"r"}}}"#;
        assert_eq!(call("CreateRoom", recorded, &create).unwrap_err().code, Code::Unimplemented);
        let preset = call("CreateRoom", r#"{"name":"r","roomPreset":"stage"}"#, &create).unwrap_err();
        assert_eq!(preset.code, Code::InvalidArgument);
        let others = r#"{"name":"r","tags":{"a":"b"},"replayEnabled":true}"#;
        assert!(call("CreateRoom", others, &create).is_ok());
    }

    #[test]
    fn who_takes_a_participant_elsewhere_needs_both_rooms() {
        let grant = |room: &str, to: &str| VideoGrant {
            room_admin: true,
            room: room.into(),
            destination_room: to.into(),
            ..VideoGrant::default()
        };
        let body = r#"{"room":"r","identity":"ada","destinationRoom":"s"}"#;
        let code = |method: &str, grant: &VideoGrant| call(method, body, grant).unwrap_err().code;
        let (room, to) = (RoomName::try_from("r").unwrap(), RoomName::try_from("s").unwrap());
        let asked = call("MoveParticipant", body, &grant("r", "s"));
        assert_eq!(asked, Ok(Ask::Room(room.clone(), Request::Transfer("ada".into(), to.clone()))));
        let asked = call("ForwardParticipant", body, &grant("r", "s"));
        assert_eq!(asked, Ok(Ask::Room(room, Request::Forward("ada".into(), to))));
        let nameless = call("MoveParticipant", r#"{"room":"r","identity":"ada"}"#, &grant("r", "")).unwrap_err();
        assert_eq!((nameless.code, nameless.text.as_str()), (Code::InvalidArgument, "no room name"));
        for method in ["ForwardParticipant", "MoveParticipant"] {
            let powerless = VideoGrant { room_admin: false, ..grant("r", "s") };
            for wrong in [powerless, grant("r", ""), grant("r", "r"), grant("", "s"), grant("s", "s")] {
                assert_eq!(code(method, &wrong), Code::Unauthenticated, "{method} with {wrong:?}");
            }
            let nowhere = r#"{"room":"r","identity":"ada","destinationRoom":"r"}"#;
            let error = call(method, nowhere, &grant("r", "r")).unwrap_err();
            assert_eq!((error.code, error.text.as_str()), (Code::InvalidArgument, SAME_ROOM));
        }
    }

    #[test]
    fn answers_are_wrapped_as_each_method_has_them() {
        let track = proto::TrackInfo { sid: "TR_x".into(), ..Default::default() };
        let body = answer(Encoding::Json, Ok(Answer::Track(Box::new(track)))).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["track"]["sid"], &body["track"]["mime_type"]), (&"TR_x".into(), &"".into()));
        assert_eq!(answer(Encoding::Json, Ok(Answer::Done)).unwrap(), b"{}");
        assert_eq!(answer(Encoding::Protobuf, Ok(Answer::Done)).unwrap(), b"");
        let none = answer(Encoding::Protobuf, Ok(Answer::Participants(Vec::new()))).unwrap();
        assert!(none.is_empty());
        let wrong = service::Error {
            code: service::Code::InvalidArgument,
            text: "metadata size exceeds limits 524288".into(),
            argument: Some("metadata size exceeds limits".into()),
        };
        let error = answer(Encoding::Json, Err(wrong)).unwrap_err();
        assert_eq!(error.body()["meta"]["argument"], "metadata size exceeds limits");
    }
}
