//! What the control thread tells a shard and hears from it. All ids are the control thread's; a shard keeps no names
//! but those in [`Speaker`].

mod pipes;
mod shards;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use arrayvec::ArrayVec;
use bytes::Bytes;
use shared::control::{Delivery, TrackKind};
pub use shared::control::{LOUDEST_STEP, SrtpProfile};
use shared::ids::{Generation, Identity, ParticipantSid};

pub use self::pipes::{PipeConfig, PipeNumber, PipePeer};
pub use self::shards::{MAX_SHARDS, ShardIndex, ShardSet};
use super::datachannel::ChannelStreams;

/// Most header-extension ids in use on a section (one-byte form, RFC 8285 section 4.2).
pub const MAX_EXTENSION_ID: u8 = 14;
/// Most simulcast layers of a track.
pub const MAX_LAYERS: usize = 3;

/// A room; data packets and subscriptions stay inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoomKey(pub u64);
/// One ICE/DTLS transport: a peer connection of a session. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransportKey(pub u64);
/// One received track. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrackKey(pub u64);

impl TrackKey {
    /// Keys are counted from 1; the highest bit is free to tell the two codecs of a track apart.
    const BACKUP: u64 = 1 << 63;

    /// The same track in its second codec (LiveKit's backup codec): to a shard it is another one.
    #[must_use]
    pub const fn backup(self) -> Self {
        Self(self.0 | Self::BACKUP)
    }

    /// The track, whichever codec of it this is.
    #[must_use]
    pub const fn primary(self) -> Self {
        Self(self.0 & !Self::BACKUP)
    }
}

/// One participant's session: groups its transports for data packets. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpeakerKey(pub u64);

/// ICE credentials (RFC 8445 section 5.3), as written into a description. Ours are unique per shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub password: String,
}

/// SHA-256 fingerprint of the peer's certificate (RFC 8122).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// As in `a=fingerprint`: upper-case hex pairs and colons.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// The fingerprint cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 fingerprint")]
pub struct FingerprintError;

/// As [`fmt::Display`] writes it, in upper or lower case.
impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(FingerprintError)
    }
}

/// Which data channels a transport has and which way they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataRole {
    /// Client opens the channels; both directions (single connection).
    Both,
    /// Client opens them; upstream only (publisher of two).
    Upstream,
    /// The node opens them (`_reliable`, `_lossy`, `_data_track`) as soon as DTLS is up; downstream only (subscriber of two).
    Downstream,
    /// Between two nodes: both know the channels. What the room's participants here send goes there, and what comes from
    /// there goes to them, and nowhere else.
    Pipe,
    /// There are none: whatever comes is dropped.
    None,
}

/// Whose packets these are, for stamping `DataPacket`s.
#[derive(Debug, Clone)]
pub struct Speaker {
    /// Groups the transports of one session.
    pub key: SpeakerKey,
    /// Stamped as `participant_sid`.
    pub participant: ParticipantSid,
    /// Stamped as `participant_identity`.
    pub identity: Identity,
    /// May send data packets.
    pub can_publish_data: bool,
    /// Its identity is blanked.
    pub hidden: bool,
    /// May speak for others in transcriptions and chat.
    pub agent: bool,
}

/// A codec, as far as forwarding must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Codec {
    Opus,
    /// Redundant audio (RFC 2198).
    Red,
    Pcmu,
    Pcma,
    Vp8,
    Vp9,
    H264,
    Av1,
    H265,
}

impl Codec {
    /// What it is for.
    #[must_use]
    pub fn kind(self) -> TrackKind {
        match self {
            Self::Opus | Self::Red | Self::Pcmu | Self::Pcma => TrackKind::Audio,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1 | Self::H265 => TrackKind::Video,
        }
    }
}

/// A payload type of a section and what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadType {
    /// 0 to 127.
    pub pt: u8,
    /// What it carries.
    pub codec: Codec,
    /// Distinguishes several payload types of one codec (H264 profile and packetization mode, VP9 profile): equal format
    /// on both sides means the packets fit. 0 where there is only one.
    pub format: u32,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// The payload type that retransmits this one (RFC 4588).
    pub rtx_pt: Option<u8>,
    /// Generic NACK negotiated (RFC 4585).
    pub nack: bool,
    /// PLI negotiated.
    pub pli: bool,
}

/// Header-extension ids negotiated for a section (RFC 8285); `None`: not negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`.
    pub mid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`.
    pub rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`.
    pub repaired_rid: Option<u8>,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`.
    pub transport_cc: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`.
    pub abs_send_time: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464).
    pub audio_level: Option<u8>,
    /// AV1 dependency descriptor.
    pub dependency_descriptor: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`.
    pub abs_capture_time: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`.
    pub playout_delay: Option<u8>,
}

/// A media stream a section names by SSRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SsrcPair {
    /// Media.
    pub ssrc: u32,
    /// Its retransmission stream, when grouped (`a=ssrc-group:FID`).
    pub rtx: Option<u32>,
}

/// A track this shard receives: one sending section of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// The track.
    pub track: TrackKey,
    /// Audio or video.
    pub kind: TrackKind,
    /// The section's mid, for packets that carry it.
    pub mid: String,
    /// Payload types negotiated, preferred first.
    pub payload_types: Vec<PayloadType>,
    /// Header extensions.
    pub extensions: ExtensionIds,
    /// Streams known by SSRC, 0 for those that are not (no simulcast: one).
    pub ssrcs: ArrayVec<SsrcPair, MAX_LAYERS>,
    /// Simulcast rids, lowest layer first; empty without simulcast.
    pub rids: ArrayVec<String, MAX_LAYERS>,
    /// Muted by its owner: no keyframe requests.
    pub muted: bool,
}

/// A track this shard sends: one section carrying a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The track to forward. It may be received by another transport of the room, now or later.
    pub source: TrackKey,
    /// Audio or video.
    pub kind: TrackKind,
    /// The section's mid.
    pub mid: String,
    /// SSRC we announced for it.
    pub ssrc: u32,
    /// RTX SSRC we announced for it, where RTX was negotiated.
    pub rtx_ssrc: Option<u32>,
    /// The client has the description that names the SSRC: it answered it, or could not have connected without it.
    /// Otherwise the first packets may come before the description, to a client that drops them.
    pub described: bool,
    /// Payload types negotiated; a source packet is sent with the one of equal codec and format, or not at all.
    pub payload_types: Vec<PayloadType>,
    /// Header extensions.
    pub extensions: ExtensionIds,
    /// What the subscriber is asked for in each packet, where the extension was negotiated
    /// ([`shared::control::PlayoutDelay`]).
    pub playout_delay: [u8; 3],
    /// Canonical name for SDES (RFC 3550 section 6.5.1).
    pub cname: String,
    /// What of the track is wanted.
    pub delivery: Delivery,
    /// Into a pipe goes this simulcast layer and no other, from any packet on, and the other node asks for the keyframes
    /// that its subscribers need. `None`: the best that fits.
    pub only: Option<u8>,
}

/// Which of the node's two certificates a transport shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateTurn {
    /// Sessions of even generation.
    First,
    /// Those of odd generation.
    Second,
}

impl CertificateTurn {
    /// Its one of the two.
    pub fn of<T>(self, both: &[T; 2]) -> &T {
        let [first, second] = both;
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }
}

impl From<Generation> for CertificateTurn {
    fn from(generation: Generation) -> Self {
        if generation.0.is_multiple_of(2) { Self::First } else { Self::Second }
    }
}

/// Our role in a transport's DTLS handshake (RFC 5763 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeRole {
    /// The peer begins, and we choose of the SRTP profiles that it offers.
    Server,
    /// We begin as soon as we know where the peer is, and offer this profile.
    Client(SrtpProfile),
}

impl HandshakeRole {
    /// Of an end of a pipe: both are our own nodes, so GCM it is.
    #[must_use]
    pub fn of_pipe(dials: bool) -> Self {
        if dials { Self::Client(SrtpProfile::AeadAes128Gcm) } else { Self::Server }
    }
}

/// A new transport. It answers binding requests at once; media flows when DTLS is up and the fingerprint fits.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Its key.
    pub key: TransportKey,
    /// Its room.
    pub room: RoomKey,
    /// Whose it is.
    pub speaker: Speaker,
    /// Our credentials for it.
    pub local: IceCredentials,
    /// The client's certificate; `None` while its answer is awaited (server-offered connection).
    pub fingerprint: Option<Fingerprint>,
    /// Our certificate.
    pub certificate: CertificateTurn,
    /// Who begins the handshake.
    pub handshake: HandshakeRole,
    /// Data channels.
    pub data: DataRole,
    /// It leads to another node.
    pub pipe: Option<PipeConfig>,
}

/// Data of an app server.
#[derive(Debug, Clone)]
pub struct ServerData {
    /// For whom.
    pub room: RoomKey,
    /// The encoded `DataPacket`.
    pub packet: Vec<u8>,
    /// On `_reliable`, else on `_lossy`.
    pub reliable: bool,
    /// For these; empty: for everyone.
    pub identities: Vec<Identity>,
}

/// Control thread to shard.
#[derive(Debug, Clone)]
pub enum Command {
    /// Opens a transport.
    Open(Box<TransportConfig>),
    /// The client has these data channels from another node: they are gone on with, and not opened anew.
    TakeOverChannels(TransportKey, ChannelStreams),
    /// The client's fingerprint, once its answer is here. Another one than before ends the transport.
    SetFingerprint(TransportKey, Fingerprint),
    /// ICE restart (RFC 8445 section 9): new local credentials; the old ones stay valid until the new ones are used.
    RestartIce(TransportKey, IceCredentials),
    /// The client's credentials, for those of ours that were set last: they sign checks of an address that it sends from
    /// without having checked it.
    SetRemoteIce(TransportKey, IceCredentials),
    /// The other end of a pipe that was opened.
    ConnectPipe(TransportKey, Box<PipePeer>),
    /// The transport's complete set of receivers; those not in it any more end.
    SetReceivers(TransportKey, Vec<Receiver>),
    /// The transport's complete set of senders; those not in it any more end. One with the same ssrc goes on.
    SetSenders(TransportKey, Vec<Sender>),
    /// The complete set of a transport's tracks that this shard forwards and another one receives; those not in it any
    /// more end.
    SetRelayed {
        /// The publisher's.
        transport: TransportKey,
        /// Its room.
        room: RoomKey,
        /// Who receives them.
        from: ShardIndex,
        /// The tracks.
        receivers: Vec<Receiver>,
    },
    /// The other shards a room is on: they get its data packets too.
    SetRoomShards(RoomKey, ShardSet),
    /// The client of this transport has the reliable data of these senders up to this `DataPacket.sequence`: it is sent what
    /// came after.
    ReplayData(TransportKey, Vec<(SpeakerKey, u32)>),
    /// Delivers data that comes from nobody in the room to those of it who are here.
    SendData(Box<ServerData>),
    /// Mutes or unmutes a received track.
    SetMuted(TrackKey, bool),
    /// Changed permission of a session.
    SetSpeaker(Speaker),
    /// Ends a transport, and says so to the client.
    Close(TransportKey),
    /// Ends a transport without a word: its client goes on elsewhere, and must not take its connection for closed.
    Forget(TransportKey),
    /// Answers with [`Event::Stats`].
    ReadStats,
    /// Ends the shard's thread.
    Stop,
}

/// Shard to control thread.
#[derive(Debug, Clone)]
pub enum Event {
    /// ICE has an address and DTLS is up with the right fingerprint.
    Connected {
        /// Which.
        transport: TransportKey,
        /// SRTP profile agreed on.
        profile: SrtpProfile,
    },
    /// The client opened data channels; all there are.
    ChannelsOpened(TransportKey, ChannelStreams),
    /// The client answers a call of the server: an encoded `DataPacket`.
    CallAnswered(TransportKey, Bytes),
    /// Consent lapsed (RFC 7675): no authenticated binding request for 10 s.
    Disconnected(TransportKey),
    /// An authenticated binding request came again.
    Reconnected(TransportKey),
    /// The peer's address is another one, and it does not know: something on its way has given it that.
    Readdressed(TransportKey),
    /// Gone for good (never connected, consent lapsed for 30 s, fingerprint mismatch, DTLS alert); already closed in the
    /// shard.
    Failed {
        /// Which.
        transport: TransportKey,
        /// Why.
        reason: FailReason,
    },
    /// First packets of a stream of a received track.
    LayerSeen {
        /// Which.
        track: TrackKey,
        /// Place in `rids`; 0 without simulcast.
        layer: u8,
        /// What the payload type says.
        codec: Codec,
        /// Media SSRC.
        ssrc: u32,
        /// RTX SSRC, 0 until seen.
        repair_ssrc: u32,
    },
    /// A subscriber's path does not carry a video any more, or carries it again.
    Paused {
        /// The subscriber's.
        transport: TransportKey,
        /// The video.
        source: TrackKey,
        /// Or sent again.
        paused: bool,
    },
    /// A microphone is louder than before, quieter, or silent.
    Loudness {
        /// Which.
        track: TrackKey,
        /// Up to [`LOUDEST_STEP`]; 0: silent.
        step: u8,
    },
    /// A transport carries media worse than before, or better.
    Score {
        /// Which.
        transport: TransportKey,
        /// Up to [`shared::control::BEST_SCORE`].
        score: u8,
    },
    /// Answer to [`Command::ReadStats`].
    Stats(Box<ShardStats>),
}

/// Why a transport ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailReason {
    /// RFC 7675.
    ConsentLapsed,
    /// ICE and DTLS were not through in time.
    NotConnected,
    /// The certificate is not the one in the description.
    FingerprintMismatch,
    /// The handshake failed.
    Dtls,
    /// Not opened: the shard is full, or key or ufrag are taken.
    Refused,
}

/// Bounds of [`RoundTrips`], microseconds: what people notice lies between 100 and 400 ms (ITU-T G.114).
pub const ROUND_TRIP_BOUNDS: [u64; 9] = [10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 400_000, 1_000_000];

/// Round trips to clients, as their receiver reports tell (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoundTrips {
    /// How many there were up to each of [`ROUND_TRIP_BOUNDS`] and above the one before; the last are all above.
    pub counts: [u64; ROUND_TRIP_BOUNDS.len() + 1],
    /// The sum of all, microseconds.
    pub micros: u64,
}

impl RoundTrips {
    /// Counts one.
    pub fn take(&mut self, micros: u64) {
        let bucket = ROUND_TRIP_BOUNDS.iter().take_while(|bound| micros > **bound).count();
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.micros = self.micros.saturating_add(micros);
    }
}

/// Counters of a shard since its start, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ShardStats {
    /// Transports open now.
    pub transports: u64,
    /// Receivers now.
    pub receivers: u64,
    /// Senders now.
    pub senders: u64,
    pub packets_received: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    /// Send system calls; packets_sent over this is the GSO gain.
    pub send_calls: u64,
    pub receive_calls: u64,
    /// Dropped: source address not validated by ICE.
    pub dropped_unknown_address: u64,
    /// Dropped: binding requests that do not authenticate.
    pub dropped_bad_stun: u64,
    /// Dropped: SRTP or SRTCP that does not authenticate.
    pub dropped_bad_srtp: u64,
    /// Dropped: SRTP or SRTCP seen before.
    pub dropped_replay: u64,
    /// Dropped: RTP of no known section, malformed RTP or RTCP, data that does not parse.
    pub dropped_malformed: u64,
    /// Dropped: the socket would not take it.
    pub dropped_send: u64,
    /// Dropped by the kernel: the socket's receive buffer was full.
    pub dropped_receive: u64,
    /// Share of a core that the shard's thread took in the last second, per cent.
    pub busy_percent: u64,
    /// CPU time that the shard's thread has taken, microseconds.
    pub cpu_micros: u64,
    /// Steps by which it leaves out video because it cannot keep up; 0: none.
    pub relief: u64,
    /// RTP packets sent that their receivers report lost (RFC 3550 section 6.4.1).
    pub sent_lost: u64,
    /// RTP packets of publishers that had not come when they were reported on.
    pub received_lost: u64,
    pub nacks_received: u64,
    pub nacks_sent: u64,
    pub plis_received: u64,
    pub plis_sent: u64,
    pub retransmissions_sent: u64,
    /// Packets that only probed for bandwidth.
    pub padding_sent: u64,
    pub data_messages_received: u64,
    pub data_messages_sent: u64,
    /// Not sent: the receiver does not keep up or has no such channel.
    pub data_messages_dropped: u64,
    /// Packets and data messages handed to other shards.
    pub crossings_sent: u64,
    /// Packets and data messages other shards handed over.
    pub crossings_received: u64,
    /// Not handed over: the other shard does not keep up.
    pub crossings_dropped: u64,
    /// Transports whose data channels ended: the SCTP library panicked on what the peer sent.
    pub sctp_panics: u64,
    /// To its clients.
    pub round_trips: RoundTrips,
}

/// How shards are started.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// UDP address the first shard binds; each next one binds the next port. Port 0: any.
    pub bind: SocketAddr,
    /// Socket buffer asked for, bytes, each way.
    pub socket_buffer: usize,
    /// Most transports a shard takes.
    pub max_transports: usize,
    /// Microphones of a room that are heard at once.
    pub audible: usize,
}
