//! One peer connection on its own socket: str0m and the datagrams it wants sent.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use str0m::format::Codec;
use str0m::media::{Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcError};
use tokio::time::sleep_until;

use super::light::Light;
use super::loss::Loss;
use super::profile::Keys;
use super::socket::{Batch, MediaSocket};
use super::{MediaOptions, PacketSink};

/// How many of the datagrams sent last are kept for replay tests.
const KEPT: usize = 64;

/// Something a peer connection did.
pub(crate) struct PeerEvent {
    /// What.
    pub(crate) event: Event,
    /// When the kernel received the datagram that caused it, nanoseconds of Unix time; unknown, or no datagram did: `None`.
    pub(crate) received: Option<u64>,
}

/// A peer connection.
pub(crate) struct Peer {
    /// **Every change of it is followed by [`Peer::drain`].**
    pub(crate) rtc: Rtc,
    pub(crate) socket: MediaSocket,
    deadline: Instant,
    events: VecDeque<PeerEvent>,
    /// Media packets dropped while there is nothing to receive them with; `None`: there is.
    pub(crate) unbound: Option<usize>,
    /// Datagrams sent last, with their destination; kept only when asked for.
    kept: Option<VecDeque<(SocketAddr, Vec<u8>)>>,
    loss: Option<Arc<Loss>>,
    /// From the handshake, when it had one profile to offer.
    keys: Option<Keys>,
    light: Option<Light>,
    /// RTP went or came. Before, str0m reports on the streams it has for every section; libwebrtc has none yet.
    has_media: bool,
}

impl Peer {
    /// A connection on a free port of `bind`; with `keep`, it keeps the datagrams it sent last.
    ///
    /// # Errors
    /// The socket cannot be bound, or str0m does not like its address.
    pub(crate) async fn new(bind: SocketAddr, options: &MediaOptions, keep: bool) -> anyhow::Result<Self> {
        let socket = MediaSocket::bind(bind).await?;
        let now = Instant::now();
        let mut rtc = Rtc::builder()
            .set_crypto_provider(options.srtp.provider())
            .set_extension_map(extensions(options.transport_cc))
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .build(now);
        rtc.add_local_candidate(Candidate::host(socket.local(), "udp")?);
        Ok(Self {
            rtc,
            socket,
            deadline: now,
            events: VecDeque::new(),
            unbound: None,
            kept: keep.then(VecDeque::new),
            loss: options.loss.clone(),
            keys: None,
            light: None,
            has_media: false,
        })
    }

    /// From now on media takes the light way, to `sink`; the rest goes to str0m as before.
    ///
    /// # Errors
    /// The connection is not up, or offered more than one profile.
    pub(crate) fn lighten(&mut self, sink: Box<dyn PacketSink>) -> anyhow::Result<()> {
        let keys = self.keys.as_ref().context("only a connection that offers one SRTP profile can receive lightly")?;
        self.light = Some(Light::new(keys, sink)?);
        self.socket.stop_waking();
        Ok(())
    }

    /// When [`Peer::tick`] is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Tells str0m the time and sends what is due.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn tick(&mut self) -> Result<(), RtcError> {
        self.rtc.handle_input(Input::Timeout(Instant::now()))?;
        self.drain(None)
    }

    /// Learns of a candidate of the server's; `init` is an `RTCIceCandidateInit`. What str0m cannot use (TCP) is skipped.
    ///
    /// # Errors
    /// It is no JSON, or the connection is broken.
    pub(crate) fn candidate(&mut self, init: &str) -> anyhow::Result<()> {
        let init: serde_json::Value = serde_json::from_str(init)?;
        if let Some(Ok(candidate)) = init.get("candidate").and_then(|c| c.as_str()).map(Candidate::from_sdp_string) {
            self.rtc.add_remote_candidate(candidate);
            self.drain(None)?;
        }
        Ok(())
    }

    /// Takes one batch of datagrams from the socket. Datagrams that are no WebRTC at all are dropped.
    ///
    /// # Errors
    /// The connection or its socket is broken.
    pub(crate) fn receive(&mut self) -> anyhow::Result<usize> {
        let count = Batch::lend(|batch| {
            let count = self.socket.receive(batch)?;
            let now = Instant::now();
            for index in 0..count {
                if let Some((from, at, bytes)) = batch.datagram(index) {
                    self.take(now, from, at, bytes)?;
                }
            }
            anyhow::Ok(count)
        })?;
        if let Some(light) = &mut self.light {
            light.looked();
        }
        Ok(count)
    }

    /// One datagram.
    fn take(&mut self, now: Instant, from: SocketAddr, at: Option<u64>, bytes: &[u8]) -> anyhow::Result<()> {
        if is_rtp(bytes) {
            self.has_media = true;
            if let Some(dropped) = &mut self.unbound {
                *dropped += 1;
                return Ok(());
            }
            if self.loss.as_ref().is_some_and(|loss| loss.takes(self.is_retransmission(bytes))) {
                return Ok(());
            }
            if let Some(light) = &mut self.light {
                light.packet(bytes, at);
                return Ok(());
            }
        }
        if let Ok(receive) = Receive::new(Protocol::Udp, from, self.socket.local(), bytes) {
            self.rtc.handle_input(Input::Receive(now, receive))?;
            self.drain(at)?;
        }
        Ok(())
    }

    /// Whether an RTP packet has a payload type of retransmissions.
    fn is_retransmission(&self, datagram: &[u8]) -> bool {
        let payload_type = datagram.get(1).map(|second| second & 0x7f);
        payload_type.is_some() && self.rtc.codec_config().iter().any(|c| c.resend().map(|pt| *pt) == payload_type)
    }

    /// Sends what str0m wants sent and queues its events.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn drain(&mut self, received: Option<u64>) -> Result<(), RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.deadline = at;
                    self.keys = Keys::take_exported().or(mem::take(&mut self.keys));
                    return Ok(());
                }
                Output::Transmit(datagram) => {
                    self.has_media |= is_rtp(&datagram.contents);
                    if !self.has_media && is_rtcp(&datagram.contents) {
                        continue;
                    }
                    self.socket.send(datagram.destination, &datagram.contents);
                    if let Some(kept) = &mut self.kept {
                        if kept.len() == KEPT {
                            kept.pop_front();
                        }
                        kept.push_back((datagram.destination, datagram.contents.to_vec()));
                    }
                }
                Output::Event(event) => self.events.push_back(PeerEvent { event, received }),
            }
        }
    }

    /// The next queued event.
    pub(crate) fn event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// Datagrams sent last, oldest first; empty when they are not kept.
    pub(crate) fn kept(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.kept.iter().flatten().cloned().collect()
    }

    /// The payload type to send `codec` with in this section.
    pub(crate) fn payload_type(&self, mid: Mid, codec: Codec) -> Option<Pt> {
        let negotiated = self.rtc.media(mid)?.remote_pts();
        self.rtc.codec_config().iter().find(|p| p.spec().codec == codec && negotiated.contains(&p.pt())).map(|p| p.pt())
    }

    /// Waits until the socket is to be looked at. Cancel safe.
    pub(crate) fn readable(&self) -> impl Future<Output = io::Result<()>> {
        let (look, socket) = (self.light.as_ref().map(Light::next_look), &self.socket);
        async move {
            if let Some(look) = look {
                sleep_until(look.into()).await;
            }
            socket.readable().await
        }
    }
}

/// The header extensions of libwebrtc's that str0m knows, with transport-wide feedback or without.
fn extensions(transport_cc: bool) -> ExtensionMap {
    let mut map = ExtensionMap::empty();
    let standard = ExtensionMap::standard();
    for (id, extension) in standard.iter().filter(|(_, e)| transport_cc || **e != Extension::TransportSequenceNumber) {
        map.set(id, extension.clone());
    }
    map
}

/// RTP and not RTCP (RFC 5761 section 4, RFC 7983).
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(64..96).contains(&(second & 0x7f)))
}

/// RTCP and not RTP (RFC 5761 section 4, RFC 7983).
fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if (64..96).contains(&(second & 0x7f)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use str0m::change::SdpOffer;
    use str0m::media::MediaKind;
    use str0m::rtp::RtpWrite;

    use super::super::negotiation::{Negotiation, NewSection};
    use super::super::profile::SrtpOffer;
    use super::super::source::{AudioSource, Stamp};
    use super::*;

    /// Takes in what is there, lets time pass, and gives all events.
    async fn step(peer: &mut Peer) -> Vec<Event> {
        let wait = peer.deadline().saturating_duration_since(Instant::now()).min(Duration::from_millis(5));
        let _ = tokio::time::timeout(wait, peer.readable()).await;
        peer.receive().unwrap();
        peer.tick().unwrap();
        std::iter::from_fn(|| peer.event()).map(|e| e.event).collect()
    }

    fn with(srtp: SrtpOffer) -> MediaOptions {
        MediaOptions { srtp, ..MediaOptions::default() }
    }

    /// A client with this offer calls another str0m, publishes audio and hears that it arrived.
    async fn call(offer: SrtpOffer) {
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut client = Peer::new(bind, &with(offer), false).await.unwrap();
        let mut server = Peer::new(bind, &with(SrtpOffer::Gcm), false).await.unwrap();
        let mut negotiation = Negotiation::new(true);
        negotiation.add(NewSection { cid: "mic".to_owned(), kind: MediaKind::Audio, layers: 1 });
        let offer = negotiation.offer(&mut client).unwrap().unwrap();
        let mid = offer.sections[0].1;
        let sdp = SdpOffer::from_sdp_string(&offer.description.sdp).unwrap();
        let answer = server.rtc.sdp_api().accept_offer(sdp).unwrap();
        server.drain(None).unwrap();
        let mut description = offer.description;
        description.sdp = answer.to_sdp_string();
        assert!(negotiation.answered(&mut client, &description).unwrap());

        let pt = client.payload_type(mid, Codec::Opus).unwrap();
        let (mut source, mut up, mut sent) = (AudioSource::new(), false, 0_u64);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < deadline, "connected: {up}, sent {sent}");
            up |= step(&mut client).await.iter().any(|e| matches!(e, Event::Connected));
            let heard = step(&mut server).await.into_iter().find_map(|e| match e {
                Event::RtpPacket(packet) => Stamp::read(&packet.payload),
                _ => None,
            });
            if heard.is_some() {
                return;
            }
            if up {
                sent += 1;
                let time = u32::try_from(sent).unwrap() * 960;
                let write = RtpWrite::new(pt, sent.into(), time, Instant::now(), source.packet());
                client.rtc.direct_api().stream_tx_by_mid(mid, None).unwrap().write_rtp(write);
                client.tick().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_client_talks_to_another_stack() {
        call(SrtpOffer::Gcm).await;
    }

    #[tokio::test]
    async fn a_client_that_insists_on_a_profile_does_too() {
        call(SrtpOffer::Gcm128Only).await;
    }

    #[tokio::test]
    async fn a_client_without_gcm_does_too() {
        call(SrtpOffer::CmOnly).await;
    }
}
