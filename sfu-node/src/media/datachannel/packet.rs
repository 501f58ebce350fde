//! What happens to a `DataPacket` between its sender and its receivers: the sender's word about itself is overwritten,
//! everything else stays as it is.

use bytes::Bytes;
use livekit_protocol::data_packet::{Kind, Value};
use livekit_protocol::data_stream::header::ContentHeader;
use livekit_protocol::{DataPacket, UserPacket};
use prost::Message;
use shared::ids::ParticipantSid;

use super::Label;
use crate::media::api::Speaker;

/// A packet ready to be forwarded.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    /// The encoded `DataPacket`.
    pub bytes: Bytes,
    /// `DataPacket.sequence` of a reliable packet; 0: it has none.
    pub(crate) sequence: u32,
    /// Receivers named by identity.
    pub(crate) identities: Vec<String>,
    /// Receivers named by sid.
    pub(crate) sids: Vec<String>,
}

impl Stamped {
    /// Whether the packet is meant for `receiver`; without destinations it is for everyone.
    #[must_use]
    pub fn is_for(&self, receiver: &Speaker) -> bool {
        (self.identities.is_empty() && self.sids.is_empty())
            || self.identities.iter().any(|identity| identity == receiver.identity.as_str())
            || self.sids.iter().any(|sid| sid == receiver.participant.as_str())
    }
}

/// Why a packet is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not a `DataPacket`, or of a kind unknown to this server.
    #[error("malformed data packet")]
    Malformed,
    /// The sender may not send this.
    #[error("not permitted")]
    NotPermitted,
    /// A reliable packet that came before.
    #[error("repeated")]
    Repeated,
}

/// Stamps a packet that `sender` sent on `label`. `last_sequence` is the highest `sequence` of its session so far.
///
/// # Errors
/// [`Rejected`]; the packet is dropped then and the sender not told.
pub fn stamp(sender: &Speaker, label: Label, data: &[u8], last_sequence: &mut u32) -> Result<Stamped, Rejected> {
    if !sender.can_publish_data {
        return Err(Rejected::NotPermitted);
    }
    let mut packet = DataPacket::decode(data).map_err(|_| Rejected::Malformed)?;
    if label == Label::Reliable && packet.sequence != 0 {
        if packet.sequence <= *last_sequence {
            return Err(Rejected::Repeated);
        }
        *last_sequence = packet.sequence;
    }

    let speaks_for_another = mark_generated(sender, &mut packet);
    if !speaks_for_another {
        packet.participant_identity = if sender.hidden { String::new() } else { sender.identity.as_str().to_owned() };
    }
    packet.participant_sid = sender.participant.as_str().to_owned();
    // SDKs do not always say the kind of the channel they send on; the channel is what counts.
    #[allow(deprecated, reason = "clients still read it")]
    {
        packet.kind = if label == Label::Reliable { Kind::Reliable } else { Kind::Lossy }.into();
    }

    let mut sids = Vec::new();
    match &mut packet.value {
        None => return Err(Rejected::Malformed),
        Some(Value::Transcription(_)) if !sender.agent => return Err(Rejected::NotPermitted),
        #[allow(deprecated, reason = "must not be forwarded")]
        Some(Value::Speaker(_)) => return Err(Rejected::NotPermitted),
        // Metrics are for the server, not for other participants.
        Some(Value::Metrics(_)) => return Err(Rejected::NotPermitted),
        Some(Value::User(user)) => {
            let identity = packet.participant_identity.clone();
            sids = mirror(user, &mut packet.destination_identities, identity, &packet.participant_sid);
        }
        Some(_) => {}
    }
    let bytes = packet.encode_to_vec().into();
    let sequence = if label == Label::Reliable { packet.sequence } else { 0 };
    Ok(Stamped { bytes, sequence, identities: packet.destination_identities, sids })
}

/// Reads a packet that another node of ours has stamped: who sent it, and for whom it is. `None`: it is none.
pub(crate) fn read_stamped(label: Label, data: &Bytes) -> Option<(ParticipantSid, Stamped)> {
    let packet = DataPacket::decode(&data[..]).ok()?;
    let sender = ParticipantSid::try_from(packet.participant_sid).ok()?;
    #[allow(deprecated, reason = "older SDKs use them")]
    let sids = match packet.value? {
        Value::User(user) => user.destination_sids,
        _ => Vec::new(),
    };
    let sequence = if label == Label::Reliable { packet.sequence } else { 0 };
    Some((sender, Stamped { bytes: data.clone(), sequence, identities: packet.destination_identities, sids }))
}

/// Agents may send chat and text in the name of the participant whose speech they transcribed.
fn mark_generated(sender: &Speaker, packet: &mut DataPacket) -> bool {
    let named = &packet.participant_identity;
    if !sender.agent || named.is_empty() || named == sender.identity.as_str() {
        return false;
    }
    match &mut packet.value {
        Some(Value::ChatMessage(chat)) => chat.generated = true,
        Some(Value::StreamHeader(header)) => match &mut header.content_header {
            Some(ContentHeader::TextHeader(text)) => text.generated = true,
            _ => return false,
        },
        _ => return false,
    }
    true
}

/// Older SDKs read and write these fields in the `UserPacket`; returns its destination sids.
#[allow(deprecated, reason = "older SDKs use them")]
fn mirror(user: &mut UserPacket, identities: &mut Vec<String>, identity: String, sid: &str) -> Vec<String> {
    user.participant_identity = identity;
    user.participant_sid = sid.to_owned();
    if identities.is_empty() {
        identities.clone_from(&user.destination_identities);
    } else {
        user.destination_identities.clone_from(identities);
    }
    user.destination_sids.clone()
}

#[cfg(test)]
#[allow(deprecated)]
mod tests {
    use livekit_protocol::{ChatMessage, MetricsBatch, Transcription};
    use shared::ids::Identity;

    use super::*;
    use crate::media::api::SpeakerKey;

    fn speaker(identity: &str, sid: &str) -> Speaker {
        Speaker {
            key: SpeakerKey(1),
            participant: ParticipantSid::try_from(sid).unwrap(),
            identity: Identity::try_from(identity).unwrap(),
            can_publish_data: true,
            hidden: false,
            agent: false,
        }
    }

    fn ada() -> Speaker {
        speaker("ada", "PA_AAAAAAAAAAAA")
    }

    fn user(payload: &[u8]) -> DataPacket {
        DataPacket {
            value: Some(Value::User(UserPacket { payload: payload.to_vec(), ..Default::default() })),
            ..Default::default()
        }
    }

    fn forward(sender: &Speaker, label: Label, packet: &DataPacket) -> Result<DataPacket, Rejected> {
        let stamped = stamp(sender, label, &packet.encode_to_vec(), &mut 0)?;
        Ok(DataPacket::decode(&stamped.bytes[..]).unwrap())
    }

    #[test]
    fn the_senders_word_about_itself_is_overwritten() {
        let mut packet = user(b"hi");
        packet.participant_identity = "eve".into();
        packet.participant_sid = "PA_EVE".into();
        packet.kind = Kind::Lossy.into();
        packet.sequence = 7;
        let out = forward(&ada(), Label::Reliable, &packet).unwrap();
        assert_eq!((out.participant_identity.as_str(), out.participant_sid.as_str()), ("ada", "PA_AAAAAAAAAAAA"));
        assert_eq!((out.kind(), out.sequence), (Kind::Reliable, 7));
        let Some(Value::User(inner)) = out.value else { panic!() };
        assert_eq!((inner.participant_identity.as_str(), inner.payload.as_slice()), ("ada", b"hi".as_slice()));
        assert_eq!(inner.participant_sid, "PA_AAAAAAAAAAAA");
    }

    #[test]
    fn hidden_senders_have_no_identity() {
        let mut hidden = ada();
        hidden.hidden = true;
        assert_eq!(forward(&hidden, Label::Lossy, &user(b"hi")).unwrap().participant_identity, "");
    }

    #[test]
    fn without_permission_nothing_goes_out() {
        let mut mute = ada();
        mute.can_publish_data = false;
        assert_eq!(forward(&mute, Label::Reliable, &user(b"hi")), Err(Rejected::NotPermitted));
    }

    #[test]
    fn repeated_reliable_packets_are_dropped() {
        let mut last = 0;
        let mut send = |sequence, label| {
            let packet = DataPacket { sequence, ..user(b"hi") };
            stamp(&ada(), label, &packet.encode_to_vec(), &mut last).map(|_| ())
        };
        assert_eq!(send(1, Label::Reliable), Ok(()));
        assert_eq!(send(3, Label::Reliable), Ok(()));
        assert_eq!(send(3, Label::Reliable), Err(Rejected::Repeated));
        assert_eq!(send(2, Label::Reliable), Err(Rejected::Repeated));
        assert_eq!(send(0, Label::Reliable), Ok(()));
        assert_eq!(send(1, Label::Lossy), Ok(()));
    }

    #[test]
    fn destinations_are_taken_from_either_place() {
        let (ada, bob) = (ada(), speaker("bob", "PA_BBBBBBBBBBBB"));
        let route = |packet: DataPacket| {
            let stamped = stamp(&ada, Label::Reliable, &packet.encode_to_vec(), &mut 0).unwrap();
            (stamped.is_for(&bob), stamped.is_for(&speaker("cy", "PA_CCCCCCCCCCCC")))
        };
        let inner = |edit: fn(&mut UserPacket)| {
            let mut user = UserPacket::default();
            edit(&mut user);
            DataPacket { value: Some(Value::User(user)), ..Default::default() }
        };
        assert_eq!(route(user(b"all")), (true, true));
        assert_eq!(route(DataPacket { destination_identities: vec!["bob".into()], ..user(b"x") }), (true, false));
        assert_eq!(route(inner(|u| u.destination_identities = vec!["bob".into()])), (true, false));
        assert_eq!(route(inner(|u| u.destination_sids = vec!["PA_CCCCCCCCCCCC".into()])), (false, true));
    }

    #[test]
    fn only_agents_speak_for_others_and_transcribe() {
        let chat = DataPacket {
            participant_identity: "bob".into(),
            value: Some(Value::ChatMessage(ChatMessage::default())),
            ..Default::default()
        };
        let transcription =
            DataPacket { value: Some(Value::Transcription(Transcription::default())), ..Default::default() };
        assert_eq!(forward(&ada(), Label::Reliable, &chat).unwrap().participant_identity, "ada");
        assert_eq!(forward(&ada(), Label::Reliable, &transcription), Err(Rejected::NotPermitted));

        let mut agent = ada();
        agent.agent = true;
        let out = forward(&agent, Label::Reliable, &chat).unwrap();
        assert_eq!(out.participant_identity, "bob");
        assert!(matches!(out.value, Some(Value::ChatMessage(chat)) if chat.generated));
        assert!(forward(&agent, Label::Reliable, &transcription).is_ok());
        let mut plain = user(b"x");
        plain.participant_identity = "bob".into();
        assert_eq!(forward(&agent, Label::Reliable, &plain).unwrap().participant_identity, "ada");
    }

    #[test]
    fn metrics_and_garbage_go_nowhere() {
        let metrics = DataPacket { value: Some(Value::Metrics(MetricsBatch::default())), ..Default::default() };
        assert_eq!(forward(&ada(), Label::Reliable, &metrics), Err(Rejected::NotPermitted));
        assert_eq!(forward(&ada(), Label::Reliable, &DataPacket::default()), Err(Rejected::Malformed));
        assert_eq!(stamp(&ada(), Label::Reliable, &[0xff; 40], &mut 0), Err(Rejected::Malformed));
    }
}
