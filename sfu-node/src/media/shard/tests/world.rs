//! A shard and str0m clients on a network without sockets, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use shared::control::TrackKind;
use shared::ids::{Identity as Name, ParticipantSid};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::ice::IceCreds;
use str0m::media::MediaKind;
use str0m::net::{Protocol as Transported, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event as RtcEvent, Input, Output, Rtc};

use crate::media::api::*;
use crate::media::dtls::Identities;
use crate::media::shard::Shard;

/// Where the shard is.
pub(super) const NODE: ([u8; 4], u16) = ([203, 0, 113, 1], 7900);
/// Virtual time after which a story that is not over has failed.
const PATIENCE: Duration = Duration::from_secs(90);
/// Payload type of Opus in every section here.
pub(super) const OPUS: u8 = 111;

/// A client and the wire between it and the shard.
pub(super) struct Client {
    pub(super) rtc: Rtc,
    /// Where it is seen from.
    pub(super) addr: SocketAddr,
    /// Where it believes to be.
    inside: SocketAddr,
    pub(super) key: TransportKey,
    pub(super) events: Vec<RtcEvent>,
    /// Everything it sent.
    pub(super) sent: Vec<Vec<u8>>,
    /// Its cable is out.
    pub(super) silent: bool,
    pub(super) channels: Vec<(String, ChannelId)>,
    deadline: Instant,
    sequence: u64,
}

/// A shard, its clients, and the time.
pub(super) struct World {
    pub(super) shard: Shard,
    pub(super) now: Instant,
    pub(super) clients: Vec<Client>,
    pub(super) events: Vec<Event>,
    pub(super) identities: Identities,
    /// Datagrams for addresses of no client.
    pub(super) stray: Vec<(SocketAddr, Vec<u8>)>,
    /// Bytes on the heap that the shard allocated and did not free.
    pub(super) heap: i64,
}

pub(super) fn speaker(n: u64) -> Speaker {
    Speaker {
        key: SpeakerKey(n),
        participant: ParticipantSid::try_from(format!("PA_22222222222{}", n % 8 + 2)).unwrap(),
        identity: Name::try_from(format!("client-{n}")).unwrap(),
        can_publish_data: true,
        hidden: false,
        agent: false,
    }
}

pub(super) fn credentials(n: u64) -> IceCredentials {
    IceCredentials { ufrag: format!("ufrag{n}"), password: format!("password-of-client-{n}-long-enough") }
}

pub(super) fn config(n: u64, data: DataRole, fingerprint: Option<Fingerprint>) -> TransportConfig {
    TransportConfig {
        key: TransportKey(n),
        room: RoomKey(1),
        speaker: speaker(n),
        local: credentials(n),
        fingerprint,
        certificate: CertificateTurn::First,
        handshake: HandshakeRole::Server,
        data,
        pipe: None,
    }
}

/// Bytes that `act` allocated and did not free.
fn heap_of(act: impl FnOnce()) -> i64 {
    allocation_counter::measure(act).bytes_current
}

fn opus() -> PayloadType {
    PayloadType { pt: OPUS, codec: Codec::Opus, format: 0, clock_rate: 48_000, rtx_pt: None, nack: false, pli: false }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_room_for(100)
    }

    pub(super) fn with_room_for(transports: usize) -> Self {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let identities = Identities::generate(&provider).unwrap();
        Self {
            shard: Shard::new(transports, 64, 1, identities.clone(), provider),
            now: Instant::now(),
            clients: Vec::new(),
            events: Vec::new(),
            identities,
            stray: Vec::new(),
            heap: 0,
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        let (shard, now) = (&mut self.shard, self.now);
        self.heap += heap_of(|| shard.handle_command(now, command));
        self.carry();
    }

    /// A client with a transport of its own; returns its number.
    pub(super) fn join(&mut self, data: DataRole) -> usize {
        let at = self.dial(data);
        let fingerprint = self.clients[at].fingerprint();
        self.command(Command::Open(Box::new(config(at as u64, data, Some(fingerprint)))));
        let creds = self.clients[at].rtc.direct_api().local_ice_credentials();
        let remote = IceCredentials { ufrag: creds.ufrag, password: creds.pass };
        self.command(Command::SetRemoteIce(TransportKey(at as u64), remote));
        at
    }

    /// As [`World::join`], but the shard knows nothing of the client yet.
    pub(super) fn dial(&mut self, data: DataRole) -> usize {
        self.dial_as(data, true)
    }

    /// As [`World::dial`], of a client that begins DTLS or waits for the node to do so.
    pub(super) fn dial_as(&mut self, data: DataRole, begins: bool) -> usize {
        let at = self.clients.len();
        let mut rtc = Rtc::builder()
            .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
            .set_rtp_mode(true)
            .build(self.now);
        let [high, low] = u16::try_from(at + 1).unwrap().to_be_bytes();
        let addr = SocketAddr::from(([10, 0, high, low], 5000));
        rtc.add_local_candidate(Candidate::host(addr, "udp").unwrap());
        rtc.add_remote_candidate(Candidate::host(NODE.into(), "udp").unwrap());
        let local = credentials(at as u64);
        let mut direct = rtc.direct_api();
        direct.set_remote_ice_credentials(IceCreds { ufrag: local.ufrag, pass: local.password });
        direct.set_remote_fingerprint(str0m::crypto::Fingerprint {
            hash_func: "sha-256".to_owned(),
            bytes: self.identities.of(CertificateTurn::First).fingerprint().0.to_vec(),
        });
        direct.set_ice_controlling(true);
        direct.start_dtls(begins).unwrap();
        direct.start_sctp(true);
        if data != DataRole::Downstream {
            for label in ["_lossy", "_reliable", "_data_track", "unheard-of"] {
                let reliable = label == "_reliable";
                direct.create_data_channel(ChannelConfig {
                    label: label.to_owned(),
                    ordered: reliable,
                    reliability: if reliable {
                        Reliability::Reliable
                    } else {
                        Reliability::MaxRetransmits { retransmits: 0 }
                    },
                    ..ChannelConfig::default()
                });
            }
        }
        self.clients.push(Client {
            rtc,
            addr,
            inside: addr,
            key: TransportKey(at as u64),
            events: Vec::new(),
            sent: Vec::new(),
            silent: false,
            channels: Vec::new(),
            deadline: self.now,
            sequence: 1,
        });
        at
    }

    /// Carries datagrams until all is quiet; no time passes.
    pub(super) fn carry(&mut self) {
        loop {
            let mut quiet = true;
            for client in &mut self.clients {
                for datagram in client.drain() {
                    quiet = false;
                    client.sent.push(datagram.clone());
                    if !client.silent {
                        let (shard, now, from, mut datagram) = (&mut self.shard, self.now, client.addr, datagram);
                        self.heap += heap_of(|| shard.handle_datagram(now, from, &mut datagram));
                    }
                }
            }
            for (to, datagram) in self.take_batch() {
                quiet = false;
                let Some(client) = self.clients.iter_mut().find(|c| c.addr == to) else {
                    self.stray.push((to, datagram));
                    continue;
                };
                if !client.silent
                    && let Ok(receive) = Receive::new(Transported::Udp, NODE.into(), client.inside, &datagram)
                {
                    client.rtc.handle_input(Input::Receive(self.now, receive)).unwrap();
                }
            }
            self.events.extend(std::iter::from_fn(|| self.shard.poll_event()));
            if quiet {
                return;
            }
        }
    }

    /// Gives a client a datagram that the shard has sent elsewhere.
    pub(super) fn hand_over(&mut self, at: usize, datagram: &[u8]) {
        let client = &mut self.clients[at];
        let receive = Receive::new(Transported::Udp, NODE.into(), client.inside, datagram).unwrap();
        client.rtc.handle_input(Input::Receive(self.now, receive)).unwrap();
    }

    fn take_batch(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut datagrams = Vec::new();
        loop {
            let (shard, mut next) = (&mut self.shard, None);
            self.heap += heap_of(|| next = shard.next_batch());
            let Some(batch) = next else { return datagrams };
            let bursts = batch.bursts();
            datagrams.extend(bursts.flat_map(|b| b.bytes.chunks(b.segment).map(move |d| (b.route.to, d.to_vec()))));
            self.heap += heap_of(|| batch.clear());
        }
    }

    /// Lets what is to be sent get lost.
    pub(super) fn discard(&mut self) {
        self.take_batch();
    }

    /// Lets the next timer of anybody fire, or time pass until `end` if none does before.
    fn step(&mut self, end: Instant) {
        self.carry();
        let deadlines = self.clients.iter().map(|c| c.deadline).chain(self.shard.next_timeout());
        let next = deadlines.min().unwrap_or(self.now + Duration::from_secs(1));
        self.now = next.min(end).max(self.now + Duration::from_micros(100));
        for client in &mut self.clients {
            let _ = client.rtc.handle_input(Input::Timeout(self.now));
        }
        let (shard, now) = (&mut self.shard, self.now);
        self.heap += heap_of(|| shard.handle_timeout(now));
        self.carry();
    }

    /// Lets time pass until `over`.
    pub(super) fn until(&mut self, what: &str, mut over: impl FnMut(&mut Self) -> bool) {
        let deadline = self.now + PATIENCE;
        self.carry();
        while !over(self) {
            assert!(self.now < deadline, "never happened: {what}; events {:?}", self.events);
            self.step(deadline);
        }
    }

    /// Lets a span of time pass.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.step(end);
        }
    }

    pub(super) fn connect(&mut self, at: usize) {
        let key = self.clients[at].key;
        self.until("connected", |w| {
            w.clients[at].rtc.is_connected()
                && w.events.iter().any(|e| matches!(e, Event::Connected { transport, .. } if *transport == key))
        });
    }

    pub(super) fn connected_with(&self, at: usize) -> Option<SrtpProfile> {
        let key = self.clients[at].key;
        self.events.iter().find_map(|e| match e {
            Event::Connected { transport, profile } if *transport == key => Some(*profile),
            _ => None,
        })
    }

    pub(super) fn failed_with(&self, at: usize) -> Option<FailReason> {
        let key = self.clients[at].key;
        self.events.iter().find_map(|e| match e {
            Event::Failed { transport, reason } if *transport == key => Some(*reason),
            _ => None,
        })
    }

    /// Gives `from` an audio track and `to` a subscription to it.
    pub(super) fn subscribe(&mut self, from: usize, to: usize) {
        let sender = self.audio_track(from);
        self.expect_audio(to, sender.ssrc);
        self.command(Command::SetSenders(self.clients[to].key, vec![sender]));
    }

    /// Gives a client an audio track; returns a subscription to it.
    pub(super) fn audio_track(&mut self, from: usize) -> Sender {
        let ssrc = 1000 + u32::try_from(from).unwrap();
        let mut direct = self.clients[from].rtc.direct_api();
        direct.declare_media("0".into(), MediaKind::Audio);
        direct.declare_stream_tx(ssrc.into(), None, "0".into(), None);
        self.audio_receiver(self.clients[from].key, ssrc)
    }

    /// Makes the shard receive an audio track; returns a subscription to it.
    pub(super) fn audio_receiver(&mut self, from: TransportKey, ssrc: u32) -> Sender {
        let (track, kind, extensions) = (TrackKey(from.0), TrackKind::Audio, ExtensionIds::default());
        let receiver = Receiver {
            track,
            kind,
            mid: "0".to_owned(),
            payload_types: vec![opus()],
            extensions,
            ssrcs: ArrayVec::from_iter([SsrcPair { ssrc, rtx: None }]),
            rids: ArrayVec::new(),
            muted: false,
        };
        self.command(Command::SetReceivers(from, vec![receiver]));
        Sender {
            source: track,
            kind,
            mid: "1".to_owned(),
            ssrc: ssrc + 8000,
            rtx_ssrc: None,
            described: true,
            payload_types: vec![opus()],
            extensions,
            playout_delay: [0; 3],
            cname: "cname".to_owned(),
            delivery: shared::control::Delivery::default(),
            only: None,
        }
    }

    /// Makes a client ready for a subscription.
    pub(super) fn expect_audio(&mut self, to: usize, ssrc: u32) {
        let mut direct = self.clients[to].rtc.direct_api();
        direct.declare_media("1".into(), MediaKind::Audio);
        direct.expect_stream_rx(ssrc.into(), None, "1".into(), None);
    }

    /// Sends an audio packet from a track made by [`World::subscribe`].
    pub(super) fn speak(&mut self, from: usize, payload: &[u8]) {
        self.utter(from, payload);
        self.carry();
    }

    /// The same; it is still to be carried.
    pub(super) fn datagrams_of(&mut self, from: usize, payload: &[u8]) -> Vec<Vec<u8>> {
        self.utter(from, payload);
        self.clients[from].drain()
    }

    fn utter(&mut self, from: usize, payload: &[u8]) {
        let now = self.now;
        let client = &mut self.clients[from];
        client.sequence += 1;
        let sequence = client.sequence;
        let mut direct = client.rtc.direct_api();
        let stream = direct.stream_tx(&(1000 + u32::try_from(from).unwrap()).into()).unwrap();
        let time = u32::try_from(sequence * 960).unwrap();
        stream.write_rtp(RtpWrite::new(OPUS.into(), sequence.into(), time, now, payload));
        client.rtc.handle_input(Input::Timeout(now)).unwrap();
    }

    /// Payloads a client heard.
    pub(super) fn heard(&self, at: usize) -> Vec<Vec<u8>> {
        let packets = self.clients[at].events.iter();
        packets.filter_map(|e| if let RtcEvent::RtpPacket(p) = e { Some(p.payload.to_vec()) } else { None }).collect()
    }

    /// Sends on a client's channel, once open.
    pub(super) fn say(&mut self, from: usize, label: &str, data: &[u8]) {
        self.until("channel open", |w| w.clients[from].channels.iter().any(|(l, _)| l == label));
        let client = &mut self.clients[from];
        let id = client.channels.iter().find(|(l, _)| l == label).unwrap().1;
        client.rtc.channel(id).unwrap().write(true, data).unwrap();
        client.rtc.handle_input(Input::Timeout(self.now)).unwrap();
        self.carry();
    }

    /// Messages a client got, with their channels' labels.
    pub(super) fn messages(&self, at: usize) -> Vec<(String, Vec<u8>)> {
        let client = &self.clients[at];
        let label = |id: ChannelId| client.channels.iter().find(|(_, i)| *i == id).unwrap().0.clone();
        let data = client.events.iter();
        data.filter_map(|e| if let RtcEvent::ChannelData(d) = e { Some((label(d.id), d.data.clone())) } else { None })
            .collect()
    }
}

impl Client {
    pub(super) fn fingerprint(&mut self) -> Fingerprint {
        Fingerprint(self.rtc.direct_api().local_dtls_fingerprint().bytes.clone().try_into().unwrap())
    }

    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        loop {
            // A connection that was cut off before it stood is an error to str0m; it has no more to say then.
            match self.rtc.poll_output().unwrap_or(Output::Timeout(self.deadline + PATIENCE)) {
                Output::Timeout(at) => {
                    self.deadline = at;
                    return datagrams;
                }
                Output::Transmit(transmit) => datagrams.push(transmit.contents.to_vec()),
                Output::Event(event) => {
                    if let RtcEvent::ChannelOpen(id, label) = &event {
                        self.channels.push((label.clone(), *id));
                    }
                    self.events.push(event);
                }
            }
        }
    }
}
