//! A client's peer connection: ICE checks, a stand-in for DTLS, SRTP both ways. It keeps time with what it was told last.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc::stun::textattrs::TextAttribute;
use sfu_node::media::srtp::Srtp;
use sfu_node::simulated::{HANDSHAKE, MATERIAL_LEN, PROFILE};

use crate::net::Net;
use crate::sdp::{self, Kind, Own, Remote, Section, Sent};

/// Time between checks while there is no connection, milliseconds.
const CHECK_FAST_MS: u64 = 250;
/// Time between checks of one that stands, milliseconds.
const CHECK_MS: u64 = 2_500;
/// Silence after which it has failed, milliseconds: libwebrtc's.
const FAILED_AFTER_MS: u64 = 15_000;
/// Time between packets of a track, milliseconds.
const PACKETS_MS: u64 = 500;
const RTP_HEADER: usize = 12;
/// An opus packet, or a VP8 frame that needs no other: descriptor and header of a keyframe (RFC 7741 sections 4.2, 4.3).
const OPUS_START: [u8; 1] = [0x78];
const VP8_START: [u8; 11] = [0x10, 0x50, 0x01, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00];

struct Stream {
    sent: Sent,
    kind: Kind,
    sequence: u16,
    /// The node was offered it, and then, has answered.
    offered: bool,
    agreed: bool,
}

/// One peer connection.
pub(crate) struct Peer {
    /// Its own address.
    pub(crate) addr: SocketAddr,
    /// What it says of itself.
    pub(crate) own: Own,
    /// Sections of its descriptions.
    pub(crate) sections: Vec<Section>,
    /// What the node said last.
    remote: Option<Remote>,
    srtp: Option<Srtp>,
    material: Vec<u8>,
    /// The check in flight, and whether an answer to one with these credentials came.
    transaction: [u8; 12],
    answered: Option<u64>,
    started: u64,
    check_at: u64,
    packets_at: u64,
    streams: Vec<Stream>,
    /// Of which tracks it heard what last, and when.
    pub(crate) heard: BTreeMap<String, (u64, String)>,
}

impl Peer {
    /// A new connection.
    pub(crate) fn new(net: &mut Net, addr: SocketAddr) -> Self {
        let own = Own { ufrag: ice_text(net), password: ice_text(net) + &ice_text(net), fingerprint: net.bytes() };
        Self {
            addr,
            own,
            sections: Vec::new(),
            remote: None,
            srtp: None,
            material: Vec::new(),
            transaction: [0; 12],
            answered: None,
            started: net.now,
            check_at: 0,
            packets_at: 0,
            streams: Vec::new(),
            heard: BTreeMap::new(),
        }
    }

    /// Media flows.
    #[must_use]
    pub(crate) fn is_connected(&self, now: u64) -> bool {
        self.srtp.is_some() && self.answered.is_some_and(|at| now < at + FAILED_AFTER_MS)
    }

    /// It was up, and will not be again by itself.
    #[must_use]
    pub(crate) fn has_failed(&self, now: u64) -> bool {
        self.remote.is_some() && now >= self.answered.unwrap_or(self.started) + FAILED_AFTER_MS
    }

    /// ICE restart: new credentials.
    pub(crate) fn restart(&mut self, net: &mut Net) {
        self.own.ufrag = ice_text(net);
        self.own.password = ice_text(net) + &ice_text(net);
    }

    /// Sends a track in a section of its own; returns its place.
    pub(crate) fn add_track(&mut self, kind: Kind, sent: Sent) -> usize {
        self.streams.push(Stream { sent: sent.clone(), kind, sequence: 0, offered: false, agreed: false });
        self.sections.push(Section { kind, sends: Some(sent), receives: false });
        self.sections.len() - 1
    }

    /// Sends it no longer.
    pub(crate) fn remove_track(&mut self, cid: &str) {
        self.streams.retain(|stream| stream.sent.cid != cid);
        for section in self.sections.iter_mut().filter(|s| s.sends.as_ref().is_some_and(|sent| sent.cid == cid)) {
            section.sends = None;
        }
    }

    /// Its offer.
    pub(crate) fn offer(&mut self) -> String {
        self.streams.iter_mut().for_each(|stream| stream.offered = true);
        sdp::write(&self.own, "actpass", &self.sections)
    }

    /// Takes the node's description.
    pub(crate) fn take_remote(&mut self, net: &Net, text: &str) {
        let mut remote = Remote::read(text);
        self.streams.iter_mut().for_each(|stream| stream.agreed |= stream.offered);
        if let Some(before) = &self.remote {
            remote.candidate = remote.candidate.or(before.candidate);
            if before.ufrag != remote.ufrag {
                (self.answered, self.started, self.check_at) = (None, net.now, 0);
            }
        } else {
            (self.started, self.check_at) = (net.now, 0);
        }
        if self.remote.as_ref().is_some_and(|before| before.fingerprint != remote.fingerprint) {
            (self.srtp, self.material) = (None, Vec::new());
        }
        self.remote = Some(remote);
    }

    /// The node's, as it said last.
    pub(crate) fn remote_ufrag(&self) -> Option<&str> {
        self.remote.as_ref().map(|remote| remote.ufrag.as_str())
    }

    /// For the log.
    pub(crate) fn state(&self) -> String {
        let (is_described, has_keys) = (self.remote.is_some(), self.srtp.is_some());
        format!("described {is_described}, keys {has_keys}, answered {:?} since {}", self.answered, self.started)
    }

    /// When it has something to send.
    #[must_use]
    pub(crate) fn due(&self) -> Option<u64> {
        self.remote
            .as_ref()
            .map(|_| if self.srtp.is_some() { self.check_at.min(self.packets_at) } else { self.check_at })
    }

    /// What it sends now, and where to.
    pub(crate) fn output(&mut self, net: &mut Net) -> Vec<(SocketAddr, Vec<u8>)> {
        let Some(to) = self.remote.as_ref().and_then(|remote| remote.candidate) else { return Vec::new() };
        let mut output = Vec::new();
        if self.check_at <= net.now {
            let stands = self.is_connected(net.now);
            self.check_at = net.now + if stands { CHECK_MS } else { CHECK_FAST_MS };
            output.push((to, self.check(net)));
            if self.answered.is_some() && self.srtp.is_none() {
                output.push((to, self.handshake(net)));
            }
        }
        if self.srtp.is_some() && self.packets_at <= net.now {
            self.packets_at = net.now + PACKETS_MS;
            output.extend(self.packets(net.now).into_iter().map(|packet| (to, packet)));
        }
        output
    }

    fn check(&mut self, net: &mut Net) -> Vec<u8> {
        let Some(remote) = &self.remote else { return Vec::new() };
        self.transaction = net.bytes();
        let provider = AwsLcRsProvider::new();
        let password = remote.password.clone();
        let setters: Vec<Box<dyn Setter>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId(self.transaction)),
            Box::new(TextAttribute::new(ATTR_USERNAME, format!("{}:{}", remote.ufrag, self.own.ufrag))),
            Box::new(RawAttribute { typ: ATTR_USE_CANDIDATE, length: 0, value: Vec::new() }),
            Box::new(MessageIntegrity::new_short_term_integrity_with_provider(password, provider.crypto())),
            Box::new(FINGERPRINT),
        ];
        let mut message = Message::new();
        match message.build(&setters) {
            Ok(()) => message.raw,
            Err(_) => Vec::new(),
        }
    }

    fn handshake(&mut self, net: &mut Net) -> Vec<u8> {
        if self.material.is_empty() {
            self.material = net.bytes::<MATERIAL_LEN>().to_vec();
        }
        [&[HANDSHAKE], &self.own.fingerprint[..], &self.material].concat()
    }

    fn packets(&mut self, now: u64) -> Vec<Vec<u8>> {
        let Some(srtp) = &mut self.srtp else { return Vec::new() };
        let mut packets = Vec::new();
        for stream in self.streams.iter_mut().filter(|stream| stream.agreed) {
            stream.sequence = stream.sequence.wrapping_add(1);
            let (pt, rate, start) = match stream.kind {
                Kind::Video => (0x80 | 96, 90, &VP8_START[..]),
                Kind::Audio | Kind::Data => (111, 48, &OPUS_START[..]),
            };
            let mut packet = vec![0x80, pt];
            packet.extend(stream.sequence.to_be_bytes());
            let time = now.wrapping_mul(rate).to_be_bytes();
            packet.extend(&time[4..]);
            packet.extend(stream.sent.ssrc.to_be_bytes());
            packet.extend(start);
            packet.extend(stream.sent.cid.as_bytes());
            if srtp.outbound.protect_rtp(&mut packet, 0, RTP_HEADER).is_ok() {
                packets.push(packet);
            }
        }
        packets
    }

    /// Takes a datagram.
    pub(crate) fn take(&mut self, net: &Net, from: SocketAddr, mut bytes: Vec<u8>) {
        let Some(remote) = &self.remote else { return };
        if remote.candidate != Some(from) {
            return;
        }
        match bytes.first() {
            Some(&HANDSHAKE) => {
                let shown: Vec<String> = bytes[1..].iter().map(|byte| format!("{byte:02X}")).collect();
                let is_it = remote.fingerprint == format!("sha-256 {}", shown.join(":"));
                if is_it && self.srtp.is_none() && !self.material.is_empty() {
                    // For a client the halves are the other way round.
                    let halves = |at: usize, len: usize| [at + len..at + 2 * len, at..at + len];
                    let [a, b] = halves(0, 16);
                    let [c, d] = halves(32, 12);
                    let parts = [a, b, c, d].map(|range| self.material[range].to_vec());
                    self.srtp = Srtp::for_server(PROFILE, &parts.concat(), AwsLcRsProvider::new().crypto()).ok();
                    self.packets_at = net.now;
                }
            }
            Some(0..=3) => {
                let mut message = Message::new();
                let ours = TransactionId(self.transaction);
                let is_answer = message.unmarshal_binary(&bytes).is_ok() && message.typ == BINDING_SUCCESS;
                if is_answer && message.transaction_id == ours {
                    if self.answered.is_none() {
                        self.check_at = net.now;
                    }
                    self.answered = Some(net.now);
                }
            }
            Some(128..=191) if bytes.get(1).is_some_and(|second| !(192..=223).contains(second)) => {
                let Some(plain) = self.srtp.as_mut().and_then(|srtp| srtp.inbound.unprotect_rtp(&mut bytes).ok())
                else {
                    return;
                };
                let (Some(ssrc), Some(payload)) = (plain.get(8..12), payload(plain)) else { return };
                let ssrc = u32::from_be_bytes(ssrc.try_into().unwrap_or_default());
                let named = remote.sections.iter().filter_map(|(_, sent)| sent.as_ref());
                if let Some((_, track)) = named.into_iter().find(|(known, _)| *known == ssrc)
                    && !payload.is_empty()
                {
                    self.heard.insert(track.clone(), (net.now, payload));
                }
            }
            _ => {}
        }
    }
}

/// What a packet carries behind its header and the start of its frame.
fn payload(packet: &[u8]) -> Option<String> {
    let has_padding = packet.first()? & 0x20 != 0;
    let csrcs = usize::from(packet.first()? & 0x0f) * 4;
    let mut at = RTP_HEADER + csrcs;
    if packet.first()? & 0x10 != 0 {
        let words = u16::from_be_bytes(packet.get(at + 2..at + 4)?.try_into().ok()?);
        at += 4 + 4 * usize::from(words);
    }
    let end = if has_padding { packet.len().checked_sub(usize::from(*packet.last()?))? } else { packet.len() };
    let text = packet.get(at..end)?;
    let from = text.windows(4).position(|window| window == b"cid-")?;
    String::from_utf8(text[from..].to_vec()).ok()
}

fn ice_text(net: &mut Net) -> String {
    format!("{:016x}", net.pick(0, u64::MAX))
}
