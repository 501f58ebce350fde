//! A viewer's data channels: an SCTP client that says something now and then, and remembers what others said.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use livekit_protocol::data_packet::Value;
use livekit_protocol::{DataPacket, UserPacket};
use prost::Message;
use rtc::datachannel::data_channel::{DataChannel, DataChannelConfig};
use rtc::sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, StreamEvent,
};
use rtc::shared::TransportProtocol;

use crate::media::datachannel::{Label, flush_dcep};
use crate::media::transport::PLAIN;

const NODE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const CHANNELS: [(Label, u16); 2] = [(Label::Reliable, 2), (Label::Lossy, 4)];

/// What was heard of whom on which channel: numbers, in the order they came.
pub(super) type Heard = BTreeMap<(String, bool), Vec<u32>>;

pub(super) struct Talker {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    open: bool,
    pub(super) said: u32,
    pub(super) heard: Heard,
}

impl Talker {
    pub(super) fn new(now: Instant) -> Self {
        let mut endpoint = Endpoint::new(NODE, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), None);
        let (handle, association) = endpoint.connect(now, ClientConfig::default(), NODE).unwrap();
        Self { endpoint, handle, association, open: false, said: 0, heard: Heard::new() }
    }

    /// Takes a datagram of the node's.
    pub(super) fn take(&mut self, now: Instant, datagram: &[u8]) {
        let packet = Bytes::copy_from_slice(&datagram[1..]);
        if let Some((_, DatagramEvent::AssociationEvent(event))) = self.endpoint.handle(now, NODE, None, packet) {
            self.association.handle_event(event);
        }
        while let Some(event) = self.association.poll() {
            match event {
                Event::Connected => CHANNELS.iter().for_each(|(label, stream)| self.dial(now, *label, *stream)),
                Event::Stream(StreamEvent::Readable { id }) => self.read(id),
                _ => {}
            }
        }
    }

    /// Says its next number on each channel, once they are open.
    pub(super) fn say(&mut self, now: Instant) {
        if !self.open {
            return;
        }
        let user = UserPacket { payload: self.said.to_be_bytes().to_vec(), ..UserPacket::default() };
        let message = DataPacket { value: Some(Value::User(user)), ..DataPacket::default() }.encode_to_vec();
        for (_, stream) in CHANNELS {
            let mut stream = self.association.stream(stream).unwrap();
            stream.write_sctp(now, &Bytes::from(message.clone()), PayloadProtocolIdentifier::Binary).unwrap();
        }
        self.said += 1;
    }

    /// Datagrams for the node.
    pub(super) fn output(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.association.poll_timeout().is_some_and(|due| due <= now) {
            self.association.handle_timeout(now);
        }
        let mut output = Vec::new();
        while let Some(transmit) = self.association.poll_transmit(now) {
            let Payload::RawEncode(packets) = transmit.message else { continue };
            output.extend(packets.iter().map(|packet| [&[PLAIN], &packet[..]].concat()));
        }
        output
    }

    fn dial(&mut self, now: Instant, label: Label, stream: u16) {
        self.association.open_stream(stream, PayloadProtocolIdentifier::Binary).unwrap();
        let config = DataChannelConfig {
            channel_type: label.channel_type(),
            label: label.text().to_owned(),
            ..DataChannelConfig::default()
        };
        let mut channel = DataChannel::dial(config, self.handle.0, stream).unwrap();
        flush_dcep(now, &mut self.association, stream, &mut channel);
        self.open = true;
    }

    fn read(&mut self, id: u16) {
        while let Some(chunks) = self.association.stream(id).ok().and_then(|mut stream| stream.read_sctp().ok()?) {
            if chunks.ppi != PayloadProtocolIdentifier::Binary {
                continue;
            }
            let packet = DataPacket::decode(chunks.to_payload(10_000).unwrap().freeze()).unwrap();
            let Some(Value::User(user)) = packet.value else { panic!("{packet:?}") };
            let number = u32::from_be_bytes(user.payload[..].try_into().unwrap());
            let reliable = id == CHANNELS[0].1;
            self.heard.entry((packet.participant_identity, reliable)).or_default().push(number);
        }
    }
}
