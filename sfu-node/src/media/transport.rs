//! One transport: a peer connection's ICE, DTLS, SRTP and SCTP put together. Datagrams in, plain packets, messages and
//! datagrams out. **From an address that ICE has not validated reads nothing but checks and what has the session's keys;
//! sends nothing there but checks.**

use std::hint::black_box;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rtc::crypto::RTCCrypto;

use super::api::{
    FailReason, Fingerprint, HandshakeRole, PipeConfig, PipeNumber, PipePeer, RoomKey, SpeakerKey, SrtpProfile,
    TransportConfig, TransportKey,
};
use super::batch::{Route, SendBatch};
use super::datachannel::{ChannelStreams, DataChannels, Message};
use super::demux::Protocol;
use super::dtls::{Dtls, DtlsEvent, Identity};
use super::ice::{Agent, Silence};
use super::srtp::{MAX_OVERHEAD, Srtp, SrtpError};

/// Time a client has to get through ICE and DTLS: as long as the room waits for a participant to connect.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// A client that gets media sends a report that often at the least; one that has sent lately is where it was.
const REPORTS_EVERY: Duration = Duration::from_millis(30);

/// From the answer to a client's first check until a handshake of ours: it changes over to the new path in between, and what
/// it sends before goes the former one.
const BEGIN_AFTER: Duration = Duration::from_millis(5);

/// What the datagrams of a pipe begin with; those of a client's transport with nothing.
type Tag = ArrayVec<u8, { PipeNumber::LEN }>;

/// What a transport has to tell its shard.
#[derive(Debug, PartialEq, Eq)]
pub enum Happening {
    /// DTLS is up with the right certificate; media may flow.
    Connected(SrtpProfile),
    /// Consent lapsed for a while.
    Disconnected,
    /// Over.
    Failed(FailReason),
    /// The client opened data channels; all there are.
    ChannelsOpened(ChannelStreams),
    /// A data-channel message.
    Data(Message),
}

/// What a transport to another node has beyond a client's.
struct Pipe {
    ours: PipeConfig,
    /// What the other end is called by, once it is known.
    theirs: Option<PipeNumber>,
}

/// ICE, DTLS, SRTP and SCTP of one peer connection.
pub struct Transport {
    /// Its key.
    pub key: TransportKey,
    /// Its room.
    pub room: RoomKey,
    /// Whose it is.
    pub speaker: SpeakerKey,
    /// Addresses and consent.
    pub ice: Agent,
    /// Channels.
    pub data: DataChannels,
    dtls: Dtls,
    handshake: HandshakeRole,
    /// When we begin it.
    begin_at: Option<Instant>,
    srtp: Option<Srtp>,
    connect_by: Instant,
    /// It leads to another node. Most do not.
    pipe: Option<Box<Pipe>>,
    /// SCTP packets go as they are, behind the first byte of a DTLS record of application data.
    #[cfg(any(test, feature = "sim"))]
    plain: bool,
}

/// See [`Transport::plain`].
#[cfg(any(test, feature = "sim"))]
pub(super) const PLAIN: u8 = 23;

impl Transport {
    /// A transport as the control thread wants it.
    #[must_use]
    pub fn new(now: Instant, config: &TransportConfig, identity: Identity) -> Self {
        Self {
            key: config.key,
            room: config.room,
            speaker: config.speaker.key,
            ice: Agent::new(config.local.clone()),
            data: DataChannels::new(config.data),
            dtls: Dtls::new(identity, config.fingerprint),
            handshake: config.handshake,
            begin_at: None,
            srtp: None,
            connect_by: now + CONNECT_LIMIT,
            pipe: config.pipe.map(|ours| Box::new(Pipe { ours, theirs: None })),
            #[cfg(any(test, feature = "sim"))]
            plain: false,
        }
    }

    /// What this end of a pipe is called by; `None`: it is a client's transport.
    #[must_use]
    pub fn pipe_number(&self) -> Option<PipeNumber> {
        self.pipe.as_ref().map(|pipe| pipe.ours.number)
    }

    /// Names the other end of a pipe, once.
    pub fn connect_pipe(&mut self, now: Instant, peer: PipePeer, crypto: &dyn RTCCrypto) -> Vec<Happening> {
        let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.theirs.is_none()) else { return Vec::new() };
        pipe.theirs = Some(peer.number);
        self.ice.set_remote(peer.ice);
        if pipe.ours.dials {
            self.ice.dial(now, peer.addresses);
        }
        self.expect(now, peer.fingerprint, crypto)
    }

    /// It is known where the peer is: has the handshake begin, where that is for us.
    pub fn shake_hands(&mut self, now: Instant) {
        if matches!(self.handshake, HandshakeRole::Client(_)) && self.dtls.may_begin() {
            self.begin_at.get_or_insert(now + BEGIN_AFTER);
        }
    }

    fn dials(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.ours.dials)
    }

    /// What a datagram begins with; `None`: nothing may be sent yet.
    fn tag(&self) -> Option<Tag> {
        match &self.pipe {
            None => Some(Tag::default()),
            Some(pipe) => pipe.theirs.map(|number| Tag::from(number.tag())),
        }
    }

    /// Whether media may flow.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.srtp.is_some()
    }

    /// Whether DTLS would take a peer with this certificate.
    #[cfg(feature = "sim")]
    pub(super) fn expects(&self, fingerprint: Fingerprint) -> bool {
        self.dtls.expects(fingerprint)
    }

    /// Our certificate.
    #[cfg(feature = "sim")]
    pub(super) fn shows(&self) -> Fingerprint {
        self.dtls.shows()
    }

    /// As if DTLS had come up with these keys.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn skip_dtls(&mut self, srtp: Srtp) -> Happening {
        self.srtp = Some(srtp);
        self.plain = true;
        self.begin_at = None;
        self.dtls.abandon();
        Happening::Connected(SrtpProfile::AeadAes128Gcm)
    }

    /// Names the certificate of the peer, once known.
    pub fn expect(&mut self, now: Instant, fingerprint: Fingerprint, crypto: &dyn RTCCrypto) -> Vec<Happening> {
        let mut events = Vec::new();
        self.dtls.expect(fingerprint, &mut events);
        self.handle_dtls_events(now, events, crypto)
    }

    /// Takes a DTLS datagram from a validated address.
    pub fn handle_dtls(&mut self, now: Instant, datagram: &[u8], crypto: &dyn RTCCrypto) -> Vec<Happening> {
        let mut events = Vec::new();
        #[cfg(any(test, feature = "sim"))]
        if self.plain {
            events.push(DtlsEvent::Data(datagram.get(1..).unwrap_or_default().into()));
            return self.handle_dtls_events(now, events, crypto);
        }
        self.dtls.handle_datagram(now, datagram, &mut events);
        self.handle_dtls_events(now, events, crypto)
    }

    /// As [`Transport::handle_dtls`], of a datagram from an unknown address: nothing happens unless it is data with this
    /// session's keys, `None`.
    pub fn take_stray_data(&mut self, now: Instant, datagram: &[u8], crypto: &dyn RTCCrypto) -> Option<Vec<Happening>> {
        let mut events = Vec::new();
        self.dtls.handle_data(now, datagram, &mut events);
        (!events.is_empty()).then(|| self.handle_dtls_events(now, events, crypto))
    }

    /// Decrypts an SRTP packet from a validated address, in place.
    ///
    /// # Errors
    /// [`SrtpError`]; [`SrtpError::Unauthentic`] before there are keys.
    pub fn unprotect_rtp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        self.srtp.as_mut().ok_or(SrtpError::Unauthentic)?.inbound.unprotect_rtp(packet)
    }

    /// Decrypts an SRTCP packet from a validated address, in place.
    ///
    /// # Errors
    /// [`SrtpError`]; [`SrtpError::Unauthentic`] before there are keys.
    pub fn unprotect_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        self.srtp.as_mut().ok_or(SrtpError::Unauthentic)?.inbound.unprotect_rtcp(packet)
    }

    /// Whether an SRTP or SRTCP packet from an unknown address may be the peer's: a stream it has sent before, and for
    /// reports, whose SSRC many have in common, nothing heard from where it was.
    #[must_use]
    pub fn may_have_sent(&self, now: Instant, protocol: Protocol, ssrc: u32) -> bool {
        if self.pipe.is_some() {
            return false;
        }
        let is_absent = protocol == Protocol::Rtp || self.ice.is_unheard(now, REPORTS_EVERY);
        is_absent && self.ice.has_remote() && self.srtp.as_ref().is_some_and(|srtp| srtp.inbound.knows(ssrc))
    }

    /// As [`Transport::may_have_sent`], of data, which says nothing of its sender.
    #[must_use]
    pub fn may_have_sent_data(&self, now: Instant) -> bool {
        self.pipe.is_none() && self.ice.has_remote() && self.is_connected() && self.ice.is_unheard(now, REPORTS_EVERY)
    }

    /// Encrypts an RTP packet into the batch; dropped silently while nothing may be sent.
    ///
    /// # Errors
    /// [`SrtpError`] if the packet cannot be protected.
    pub fn send_rtp(
        &mut self,
        slot: usize,
        header: &[u8],
        payload: &[u8],
        batch: &mut SendBatch,
    ) -> Result<(), SrtpError> {
        let Some(tag) = self.tag() else { return Ok(()) };
        let (Some(srtp), Some(to)) = (&mut self.srtp, self.ice.selected()) else { return Ok(()) };
        // The SSRC (RFC 3550 section 5.1).
        let ssrc = header.get(8..).and_then(|from| from.first_chunk().copied()).map_or(0, u32::from_be_bytes);
        batch.push_of(ssrc, slot, to, |buffer| {
            buffer.extend_from_slice(&tag);
            let start = buffer.len();
            buffer.reserve(header.len() + payload.len() + MAX_OVERHEAD);
            buffer.extend_from_slice(header);
            buffer.extend_from_slice(payload);
            srtp.outbound.protect_rtp(buffer, start, header.len())
        })
    }

    /// Asks for the memory that sending RTP needs.
    pub fn expect_rtp(&self) {
        if let Some(srtp) = &self.srtp {
            black_box(self.ice.selected());
            srtp.outbound.expect_rtp();
        }
    }

    /// Encrypts a compound RTCP packet into the batch; dropped silently while nothing may be sent.
    ///
    /// # Errors
    /// [`SrtpError`] if the packet cannot be protected.
    pub fn send_rtcp(&mut self, slot: usize, compound: &[u8], batch: &mut SendBatch) -> Result<(), SrtpError> {
        let Some(tag) = self.tag() else { return Ok(()) };
        let (Some(srtp), Some(to)) = (&mut self.srtp, self.ice.selected()) else { return Ok(()) };
        batch.push(slot, to, |buffer| {
            buffer.extend_from_slice(&tag);
            let start = buffer.len();
            buffer.reserve(compound.len() + MAX_OVERHEAD);
            buffer.extend_from_slice(compound);
            srtp.outbound.protect_rtcp(buffer, start)
        })
    }

    /// Moves what SCTP and DTLS have to send into the batch.
    pub fn flush(&mut self, now: Instant, slot: usize, batch: &mut SendBatch) {
        while let Some(packet) = self.data.poll_transmit(now) {
            #[cfg(any(test, feature = "sim"))]
            if let Some(to) = self.ice.selected().filter(|_| self.plain) {
                push_plain(slot, to, &[&[PLAIN], &packet[..]].concat(), batch);
                continue;
            }
            self.dtls.send(now, &packet);
        }
        while let Some(datagram) = self.dtls.poll_transmit() {
            if let Some(to) = self.ice.selected() {
                self.push(slot, to, &datagram, batch);
            }
        }
    }

    /// Adds a datagram that is ready as it is.
    pub fn push(&self, slot: usize, to: Route, datagram: &[u8], batch: &mut SendBatch) {
        match self.tag() {
            Some(tag) if tag.is_empty() => push_plain(slot, to, datagram, batch),
            Some(tag) => push_plain(slot, to, &[&tag, datagram].concat(), batch),
            None => {}
        }
    }

    /// Says goodbye to the peer.
    pub fn close(&mut self, now: Instant, slot: usize, batch: &mut SendBatch) {
        self.dtls.close(now);
        self.flush(now, slot, batch);
    }

    /// When to call [`Transport::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let connect_by = (!self.is_connected()).then_some(self.connect_by);
        let handshake = self.begin_at.or_else(|| self.dtls.next_timeout());
        let timers = [self.ice.next_timeout(), handshake, self.data.next_timeout(), connect_by];
        timers.into_iter().flatten().min()
    }

    /// Lets every timer that is due fire.
    pub fn handle_timeout(&mut self, now: Instant, crypto: &dyn RTCCrypto) -> Vec<Happening> {
        if !self.is_connected() && now >= self.connect_by {
            return vec![Happening::Failed(FailReason::NotConnected)];
        }
        let silence = match self.ice.handle_timeout(now) {
            Some(Silence::Expired) => return vec![Happening::Failed(FailReason::ConsentLapsed)],
            Some(Silence::Disconnected) if self.is_connected() => Some(Happening::Disconnected),
            _ => None,
        };
        let (mut events, mut messages) = (Vec::new(), Vec::new());
        if let HandshakeRole::Client(profile) = self.handshake
            && self.begin_at.take_if(|at| *at <= now).is_some()
        {
            self.dtls.begin(now, profile, &mut events);
        }
        self.dtls.handle_timeout(now, &mut events);
        self.data.handle_timeout(now, &mut messages);
        let mut happenings = self.handle_dtls_events(now, events, crypto);
        happenings.extend(messages.into_iter().map(Happening::Data).chain(silence));
        happenings
    }

    fn keyed(&self, profile: SrtpProfile, keys: &[u8], crypto: &dyn RTCCrypto) -> Result<Srtp, SrtpError> {
        match self.handshake {
            HandshakeRole::Client(_) => Srtp::for_client(profile, keys, crypto),
            HandshakeRole::Server => Srtp::for_server(profile, keys, crypto),
        }
    }

    fn handle_dtls_events(&mut self, now: Instant, events: Vec<DtlsEvent>, crypto: &dyn RTCCrypto) -> Vec<Happening> {
        let mut happenings = Vec::new();
        for event in events {
            match event {
                DtlsEvent::Connected { profile, keys } => match self.keyed(profile, keys.as_ref(), crypto) {
                    Ok(srtp) => {
                        self.srtp = Some(srtp);
                        self.data.start(now, self.dials());
                        happenings.push(Happening::Connected(profile));
                    }
                    Err(_) => happenings.push(Happening::Failed(FailReason::Dtls)),
                },
                DtlsEvent::Data(data) => {
                    let mut messages = Vec::new();
                    self.data.handle_packet(now, data.freeze(), &mut messages);
                    happenings.extend(self.data.take_opened().map(Happening::ChannelsOpened));
                    happenings.extend(messages.into_iter().map(Happening::Data));
                }
                DtlsEvent::FingerprintMismatch => {
                    happenings.push(Happening::Failed(FailReason::FingerprintMismatch));
                }
                // A client that leaves closes its connection too, and that may arrive before its leave does: a failure
                // would keep it in the room to come back. If no leave follows, consent lapses.
                DtlsEvent::Closed if self.is_connected() => happenings.push(Happening::Disconnected),
                DtlsEvent::Closed => happenings.push(Happening::Failed(FailReason::Dtls)),
            }
        }
        happenings
    }
}

/// Adds a datagram that is ready as it is.
pub fn push_plain(slot: usize, to: Route, datagram: &[u8], batch: &mut SendBatch) {
    let written = batch.push(slot, to, |buffer| {
        buffer.extend_from_slice(datagram);
        Ok::<_, std::convert::Infallible>(())
    });
    debug_assert!(written.is_ok());
}
