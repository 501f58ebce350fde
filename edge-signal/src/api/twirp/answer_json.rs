//! JSON answers as LiveKit's server writes them: fields by their names in the protocol, those that are not set written out.
//! The protocol's generated code writes neither, so this completes what it wrote.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// A message's fields.
pub type Fields = &'static [(&'static str, Kind)];

/// What a field holds, and so how it is written when it is not set (protobuf's JSON mapping).
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `""`.
    Text,
    /// `0`: of at most 32 bits.
    Number,
    /// `"0"`: of 64 bits.
    Long,
    /// `false`.
    Flag,
    /// The name of 0.
    Name(&'static str),
    /// `null`.
    One(Fields),
    /// `[]`.
    Many(Fields),
    /// `[]`, of what is no message.
    Values,
    /// `{}`, whose keys are its own.
    Texts,
}

use Kind::{Flag, Long, Many, Name, Number, One, Text, Texts, Values};

/// `Room`.
pub const ROOM: Fields = &[
    ("sid", Text),
    ("name", Text),
    ("empty_timeout", Number),
    ("departure_timeout", Number),
    ("max_participants", Number),
    ("creation_time", Long),
    ("creation_time_ms", Long),
    ("turn_password", Text),
    ("enabled_codecs", Many(&[("mime", Text), ("fmtp_line", Text)])),
    ("metadata", Text),
    ("num_participants", Number),
    ("num_publishers", Number),
    ("active_recording", Flag),
    ("version", One(VERSION)),
];

/// `ListRoomsResponse`.
pub const ROOMS: Fields = &[("rooms", Many(ROOM))];

/// `ParticipantInfo`.
pub const PARTICIPANT: Fields = &[
    ("sid", Text),
    ("identity", Text),
    ("state", Name("JOINING")),
    ("tracks", Many(TRACK)),
    ("metadata", Text),
    ("joined_at", Long),
    ("joined_at_ms", Long),
    ("name", Text),
    ("version", Number),
    ("permission", One(PERMISSION)),
    ("region", Text),
    ("is_publisher", Flag),
    ("kind", Name("STANDARD")),
    ("attributes", Texts),
    ("disconnect_reason", Name("UNKNOWN_REASON")),
    ("kind_details", Values),
    ("data_tracks", Values),
    ("client_protocol", Number),
    ("capabilities", Values),
];

/// `ListParticipantsResponse`.
pub const PARTICIPANTS: Fields = &[("participants", Many(PARTICIPANT))];

/// `MuteRoomTrackResponse`.
pub const MUTED: Fields = &[("track", One(TRACK))];

/// `PerformRpcResponse`.
pub const REPLY: Fields = &[("payload", Text)];

/// `AgentDispatch`.
pub const DISPATCH: Fields = &[
    ("id", Text),
    ("agent_name", Text),
    ("room", Text),
    ("metadata", Text),
    ("state", One(&[("jobs", Many(JOB)), ("created_at", Long), ("deleted_at", Long)])),
    ("restart_policy", Name("JRP_ON_FAILURE")),
    ("deployment", Text),
    ("attributes", Texts),
];

/// `ListAgentDispatchResponse`.
pub const DISPATCHES: Fields = &[("agent_dispatches", Many(DISPATCH))];

const VERSION: Fields = &[("unix_micro", Long), ("ticks", Number)];

const PERMISSION: Fields = &[
    ("can_subscribe", Flag),
    ("can_publish", Flag),
    ("can_publish_data", Flag),
    ("can_publish_sources", Values),
    ("hidden", Flag),
    ("recorder", Flag),
    ("can_update_metadata", Flag),
    ("agent", Flag),
    ("can_subscribe_metrics", Flag),
    ("can_manage_agent_session", Flag),
];

const TRACK: Fields = &[
    ("sid", Text),
    ("type", Name("AUDIO")),
    ("name", Text),
    ("muted", Flag),
    ("width", Number),
    ("height", Number),
    ("simulcast", Flag),
    ("disable_dtx", Flag),
    ("source", Name("UNKNOWN")),
    ("layers", Many(LAYER)),
    ("mime_type", Text),
    ("mid", Text),
    ("codecs", Many(CODEC)),
    ("stereo", Flag),
    ("disable_red", Flag),
    ("encryption", Name("NONE")),
    ("stream", Text),
    ("version", One(VERSION)),
    ("audio_features", Values),
    ("backup_codec_policy", Name("PREFER_REGRESSION")),
    ("packet_trailer_features", Values),
];

const CODEC: Fields = &[
    ("mime_type", Text),
    ("mid", Text),
    ("cid", Text),
    ("layers", Many(LAYER)),
    ("video_layer_mode", Name("MODE_UNUSED")),
    ("sdp_cid", Text),
];

const LAYER: Fields = &[
    ("quality", Name("LOW")),
    ("width", Number),
    ("height", Number),
    ("bitrate", Number),
    ("ssrc", Number),
    ("spatial_layer", Number),
    ("rid", Text),
    ("repair_ssrc", Number),
];

const JOB: Fields = &[
    ("id", Text),
    ("dispatch_id", Text),
    ("type", Name("JT_ROOM")),
    ("room", One(ROOM)),
    ("participant", One(PARTICIPANT)),
    ("namespace", Text),
    ("metadata", Text),
    ("agent_name", Text),
    ("state", One(JOB_STATE)),
    ("enable_recording", Flag),
    ("deployment", Text),
    ("attributes", Texts),
    ("enable_redaction", Flag),
];

const JOB_STATE: Fields = &[
    ("status", Name("JS_PENDING")),
    ("error", Text),
    ("started_at", Long),
    ("ended_at", Long),
    ("updated_at", Long),
    ("participant_identity", Text),
    ("worker_id", Text),
    ("agent_id", Text),
];

/// A message that the generated code wrote, to be written as LiveKit's server would have: in the order of the protocol too.
#[derive(Debug, Clone, Copy)]
pub struct Complete<'a>(pub &'a Value, pub Fields);

impl Serialize for Complete<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(Value::Object(written), fields) = self else { return self.0.serialize(serializer) };
        let field = |(name, kind): &(&'static str, Kind)| (*name, Field(*kind, written.get(&lower_camel(name))));
        serializer.collect_map(fields.iter().map(field))
    }
}

/// A field; `None`: it is not set.
struct Field<'a>(Kind, Option<&'a Value>);

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.0, self.1) {
            (One(fields), Some(value)) => Complete(value, fields).serialize(serializer),
            (Many(fields), Some(Value::Array(all))) => {
                serializer.collect_seq(all.iter().map(|value| Complete(value, fields)))
            }
            (_, Some(value)) => value.serialize(serializer),
            (Text, None) => serializer.serialize_str(""),
            (Number, None) => serializer.serialize_u32(0),
            (Long, None) => serializer.serialize_str("0"),
            (Flag, None) => serializer.serialize_bool(false),
            (Name(of_zero), None) => serializer.serialize_str(of_zero),
            (One(_), None) => serializer.serialize_unit(),
            (Many(_) | Values, None) => serializer.serialize_seq(Some(0))?.end(),
            (Texts, None) => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

/// A field's name as the generated code writes it.
fn lower_camel(name: &str) -> String {
    let mut upper = false;
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            letter if std::mem::take(&mut upper) => text.push(letter.to_ascii_uppercase()),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use livekit_protocol as proto;
    use serde::de::DeserializeOwned;

    use super::*;

    fn complete(message: &impl Serialize, fields: Fields) -> Value {
        serde_json::to_value(Complete(&serde_json::to_value(message).unwrap(), fields)).unwrap()
    }

    /// The names of a message's fields, as the generated code knows them.
    fn names(message: &impl Debug) -> Vec<String> {
        let text = format!("{message:#?}");
        let fields =
            text.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with([' ', '}', ']']));
        fields.filter_map(|line| Some(line.split_once(':')?.0.trim_start_matches("r#").to_owned())).collect()
    }

    /// The table names every field of the message, and what it writes for none of them set reads as none of them set.
    fn fits<M: Debug + Default + PartialEq + Serialize + DeserializeOwned>(message: &M, fields: Fields) {
        let mut known: Vec<String> = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut there = names(message);
        known.sort_unstable();
        there.sort_unstable();
        assert_eq!(known, there);
        let complete = complete(&M::default(), fields);
        assert_eq!(serde_json::from_value::<M>(complete).unwrap(), M::default());
    }

    #[test]
    fn the_tables_have_every_field_there_is() {
        fits(&proto::Room::default(), ROOM);
        fits(&proto::ListRoomsResponse::default(), ROOMS);
        fits(&proto::ParticipantInfo::default(), PARTICIPANT);
        fits(&proto::ListParticipantsResponse::default(), PARTICIPANTS);
        fits(&proto::ParticipantPermission::default(), PERMISSION);
        fits(&proto::TrackInfo::default(), TRACK);
        fits(&proto::SimulcastCodecInfo::default(), CODEC);
        fits(&proto::VideoLayer::default(), LAYER);
        fits(&proto::TimedVersion::default(), VERSION);
        fits(&proto::MuteRoomTrackResponse::default(), MUTED);
        fits(&proto::PerformRpcResponse::default(), REPLY);
        fits(&proto::AgentDispatch::default(), DISPATCH);
        fits(&proto::ListAgentDispatchResponse::default(), DISPATCHES);
        fits(&proto::Job::default(), JOB);
        fits(&proto::JobState::default(), JOB_STATE);
    }

    #[test]
    fn an_answer_reads_as_it_was_meant_and_has_the_names_of_the_protocol() {
        let layers = vec![proto::VideoLayer { width: 7, ..Default::default() }];
        let codec = proto::SimulcastCodecInfo { layers, ..Default::default() };
        let track = proto::TrackInfo {
            sid: "TR_x".into(),
            muted: true,
            codecs: vec![codec],
            version: Some(proto::TimedVersion { unix_micro: 9, ticks: 0 }),
            ..Default::default()
        };
        let info = proto::ParticipantInfo {
            joined_at_ms: 1_795_220_611_209,
            tracks: vec![track],
            attributes: [("someKey".to_owned(), "v".to_owned())].into(),
            permission: Some(proto::ParticipantPermission::default()),
            ..Default::default()
        };
        let answer = proto::ListParticipantsResponse { participants: vec![info] };
        let written = complete(&answer, PARTICIPANTS);
        let one = &written["participants"][0];
        assert_eq!((&one["joined_at_ms"], &one["joined_at"]), (&"1795220611209".into(), &"0".into()));
        assert_eq!((&one["attributes"]["someKey"], &one["version"]), (&"v".into(), &0.into()));
        assert_eq!(one["permission"]["can_publish_sources"], Value::Array(Vec::new()));
        let track = &one["tracks"][0];
        assert_eq!(
            (&track["muted"], &track["simulcast"], &track["type"]),
            (&true.into(), &false.into(), &"AUDIO".into())
        );
        let layer = &track["codecs"][0]["layers"][0];
        assert_eq!((&layer["width"], &layer["quality"]), (&7.into(), &"LOW".into()));
        assert_eq!((&track["version"]["unix_micro"], &track["version"]["ticks"]), (&"9".into(), &0.into()));
        assert_eq!(serde_json::from_value::<proto::ListParticipantsResponse>(written).unwrap(), answer);
        let room = serde_json::to_value(proto::Room { metadata: "m".into(), ..Default::default() }).unwrap();
        let text = serde_json::to_string(&Complete(&room, ROOM)).unwrap();
        assert!(text.starts_with(r#"{"sid":"","name":"","empty_timeout":0,"#), "{text}");
    }
}
