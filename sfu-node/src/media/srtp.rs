//! SRTP and SRTCP of one transport (RFC 3711, RFC 7714), in place and keyed once for the session. **Nothing that does
//! not authenticate, and no index a second time, comes out.**

mod cm;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gcm;
mod index;
mod kdf;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rtc::crypto::RTCCrypto;
use rustc_hash::FxBuildHasher;

use self::cm::Cm;
use self::gcm::Gcm;
use self::index::Window;
use super::api::SrtpProfile;

/// SSRCs a peer may send from during a session: its tracks' layers with RTX, over every republication.
const MAX_INBOUND_SSRCS: usize = 1024;
/// SSRCs we may send with during a session. Never forgotten, or a reused one would repeat a nonce.
const MAX_OUTBOUND_SSRCS: usize = 16_384;
/// SSRCs whose place is known at once.
const RECENT: usize = 4;
/// Bytes protection adds at most: SRTCP index and a GCM tag (RFC 7714 section 9).
pub const MAX_OVERHEAD: usize = 20;
/// RTP fixed header (RFC 3550 section 5.1).
const RTP_HEADER_LEN: usize = 12;
/// RTCP header and sender SSRC, which stay in the clear (RFC 3711 section 3.4).
const RTCP_CLEAR_LEN: usize = 8;
/// SRTCP index with the E flag (RFC 3711 section 3.4).
const RTCP_INDEX_LEN: usize = 4;
/// E flag: the packet is encrypted.
const RTCP_ENCRYPTED: u32 = 1 << 31;

/// Why a packet was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// Too short, or a header that does not fit its packet.
    #[error("malformed packet")]
    Malformed,
    /// The tag is wrong, or an SRTCP packet was not encrypted.
    #[error("does not authenticate")]
    Unauthentic,
    /// Seen before, or older than the window.
    #[error("replayed")]
    Replayed,
    /// No room for another SSRC.
    #[error("too many ssrcs")]
    TooManySsrcs,
    /// The crypto library refused the keys or the packet.
    #[error("crypto failure")]
    Crypto,
}

/// Session keys of both directions, exported from DTLS (RFC 5764 section 4.2).
pub struct Srtp {
    /// From the peer.
    pub inbound: Inbound,
    /// To the peer.
    pub outbound: Outbound,
}

impl Srtp {
    /// Bytes of keying material the exporter has to give.
    #[must_use]
    pub fn keying_material_len(profile: SrtpProfile) -> usize {
        2 * (kdf::MASTER_KEY_LEN + kdf::salt_len(profile))
    }

    /// Keys both directions of a DTLS server.
    ///
    /// # Errors
    /// [`SrtpError::Crypto`] if `material` is not [`Srtp::keying_material_len`] bytes, or the library fails.
    pub fn for_server(profile: SrtpProfile, material: &[u8], crypto: &dyn RTCCrypto) -> Result<Self, SrtpError> {
        let (client, server) = Self::ciphers(profile, material, crypto)?;
        Ok(Self { inbound: Inbound::new(client), outbound: Outbound::new(server) })
    }

    /// Keys both directions of a DTLS client.
    ///
    /// # Errors
    /// As [`Srtp::for_server`].
    pub fn for_client(profile: SrtpProfile, material: &[u8], crypto: &dyn RTCCrypto) -> Result<Self, SrtpError> {
        let (client, server) = Self::ciphers(profile, material, crypto)?;
        Ok(Self { inbound: Inbound::new(server), outbound: Outbound::new(client) })
    }

    /// Of what the client sends, and of what the server sends (RFC 5764 section 4.2).
    fn ciphers(profile: SrtpProfile, material: &[u8], crypto: &dyn RTCCrypto) -> Result<(Cipher, Cipher), SrtpError> {
        let take = |from: &mut &[u8], len: usize| {
            let (head, tail) = from.split_at_checked(len).ok_or(SrtpError::Crypto)?;
            *from = tail;
            Ok::<_, SrtpError>(head.to_vec())
        };
        let mut rest = material;
        let client_key = take(&mut rest, kdf::MASTER_KEY_LEN)?;
        let server_key = take(&mut rest, kdf::MASTER_KEY_LEN)?;
        let client_salt = take(&mut rest, kdf::salt_len(profile))?;
        let server_salt = take(&mut rest, kdf::salt_len(profile))?;
        let client = Cipher::derive(profile, &client_key, &client_salt, crypto)?;
        Ok((client, Cipher::derive(profile, &server_key, &server_salt, crypto)?))
    }
}

enum Cipher {
    Gcm(Box<Gcm>),
    Cm(Box<Cm>),
}

impl Cipher {
    fn derive(profile: SrtpProfile, key: &[u8], salt: &[u8], crypto: &dyn RTCCrypto) -> Result<Self, SrtpError> {
        Ok(match profile {
            SrtpProfile::AeadAes128Gcm => Self::Gcm(Box::new(Gcm::derive(key, salt, crypto)?)),
            SrtpProfile::Aes128CmHmacSha1_80 => Self::Cm(Box::new(Cm::derive(key, salt, crypto)?)),
        })
    }
}

#[derive(Default)]
struct Stream {
    rtp: Window,
    rtcp: Window,
}

/// Packets from the peer.
pub struct Inbound {
    cipher: Cipher,
    streams: HashMap<u32, Box<Stream>, FxBuildHasher>,
}

impl Inbound {
    fn new(cipher: Cipher) -> Self {
        Self { cipher, streams: HashMap::default() }
    }

    /// Whether a packet of this SSRC has authenticated.
    #[must_use]
    pub fn knows(&self, ssrc: u32) -> bool {
        self.streams.contains_key(&ssrc)
    }

    /// Authenticates and decrypts an SRTP packet in place; returns the plain RTP packet.
    ///
    /// # Errors
    /// See [`SrtpError`]; `packet` is worthless then.
    pub fn unprotect_rtp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        let header_len = rtp_header_len(packet)?;
        let (sequence, ssrc) = (be16(packet, 2)?, be32(packet, 8)?);
        // State is kept only for an SSRC of which a packet has authenticated.
        let known = self.streams.get(&ssrc);
        if known.is_none() && self.streams.len() >= MAX_INBOUND_SSRCS {
            return Err(SrtpError::TooManySsrcs);
        }
        let index = known.map_or(Some(u64::from(sequence)), |s| s.rtp.index_of(sequence)).ok_or(SrtpError::Replayed)?;
        if known.is_some_and(|s| !s.rtp.is_new(index)) {
            return Err(SrtpError::Replayed);
        }
        let plain_len = match &mut self.cipher {
            Cipher::Gcm(gcm) => gcm.open_rtp(packet, header_len, ssrc, index)?,
            Cipher::Cm(cm) => cm.open_rtp(packet, header_len, ssrc, index)?,
        };
        self.streams.entry(ssrc).or_default().rtp.accept(index);
        packet.get(..plain_len).ok_or(SrtpError::Malformed)
    }

    /// Authenticates and decrypts an SRTCP packet in place; returns the plain compound packet.
    ///
    /// # Errors
    /// See [`SrtpError`]; `packet` is worthless then.
    pub fn unprotect_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        let ssrc = be32(packet, 4)?;
        let trailer = match &self.cipher {
            Cipher::Gcm(_) => RTCP_INDEX_LEN,
            Cipher::Cm(_) => RTCP_INDEX_LEN + cm::TAG_LEN,
        };
        let index_at = packet.len().checked_sub(trailer).ok_or(SrtpError::Malformed)?;
        let word = be32(packet, index_at)?;
        if index_at < RTCP_CLEAR_LEN {
            return Err(SrtpError::Malformed);
        }
        // We negotiate encryption (RFC 5764 section 4.1.2); a packet in the clear is nobody's but a forger's.
        if word & RTCP_ENCRYPTED == 0 {
            return Err(SrtpError::Unauthentic);
        }
        let index = word & !RTCP_ENCRYPTED;
        let known = self.streams.get(&ssrc);
        if known.is_none() && self.streams.len() >= MAX_INBOUND_SSRCS {
            return Err(SrtpError::TooManySsrcs);
        }
        if known.is_some_and(|s| !s.rtcp.is_new(u64::from(index))) {
            return Err(SrtpError::Replayed);
        }
        let plain_len = match &mut self.cipher {
            Cipher::Gcm(gcm) => gcm.open_rtcp(packet, index_at, ssrc, index)?,
            Cipher::Cm(cm) => cm.open_rtcp(packet, index_at, ssrc, index)?,
        };
        self.streams.entry(ssrc).or_default().rtcp.accept(u64::from(index));
        packet.get(..plain_len).ok_or(SrtpError::Malformed)
    }
}

/// Packets to the peer.
pub struct Outbound {
    cipher: Cipher,
    streams: SentStreams,
    rtcp_index: u32,
}

/// Indexes used, by SSRC. Most sessions send few streams, each in runs: what was sent from last is found without a hash.
#[derive(Default)]
struct SentStreams {
    recent: [Option<(u32, u32)>; RECENT],
    places: HashMap<u32, u32, FxBuildHasher>,
    used: Vec<Window>,
}

impl SentStreams {
    /// Those of an SSRC, new ones for a new SSRC.
    fn of(&mut self, ssrc: u32) -> Result<&mut Window, SrtpError> {
        let line = usize::try_from(ssrc).unwrap_or(0) % RECENT;
        let recent = self.recent.get_mut(line).ok_or(SrtpError::Crypto)?;
        let place = match *recent {
            Some((known, place)) if known == ssrc => place,
            _ => {
                let next = u32::try_from(self.used.len()).map_err(|_| SrtpError::TooManySsrcs)?;
                let place = *match self.places.entry(ssrc) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) if self.used.len() < MAX_OUTBOUND_SSRCS => {
                        self.used.push(Window::default());
                        entry.insert(next)
                    }
                    Entry::Vacant(_) => return Err(SrtpError::TooManySsrcs),
                };
                *recent = Some((ssrc, place));
                place
            }
        };
        usize::try_from(place).ok().and_then(|place| self.used.get_mut(place)).ok_or(SrtpError::Crypto)
    }
}

impl Outbound {
    fn new(cipher: Cipher) -> Self {
        Self { cipher, streams: SentStreams::default(), rtcp_index: 0 }
    }

    /// Asks for the memory that protecting RTP needs.
    pub fn expect_rtp(&self) {
        for window in self.streams.used.iter().take(RECENT) {
            window.expect();
        }
        match &self.cipher {
            Cipher::Gcm(gcm) => gcm.expect(),
            Cipher::Cm(_) => {}
        }
    }

    /// Protects the RTP packet that starts at `start` of `buffer` and ends with it, in place; appends the tag.
    ///
    /// # Errors
    /// [`SrtpError::Replayed`] if a packet with this SSRC and index went out before: a nonce must not repeat (RFC 7714
    /// section 8.4). On any error the packet is in an unknown state; the caller truncates `buffer` to `start`.
    pub fn protect_rtp(&mut self, buffer: &mut Vec<u8>, start: usize, header_len: usize) -> Result<(), SrtpError> {
        let packet = buffer.get(start..).ok_or(SrtpError::Malformed)?;
        let (sequence, ssrc) = (be16(packet, 2)?, be32(packet, 8)?);
        if header_len < RTP_HEADER_LEN || header_len > packet.len() {
            return Err(SrtpError::Malformed);
        }
        let used = self.streams.of(ssrc)?;
        let index = used.index_of(sequence).ok_or(SrtpError::Replayed)?;
        if !used.is_new(index) {
            return Err(SrtpError::Replayed);
        }
        used.accept(index);
        match &mut self.cipher {
            Cipher::Gcm(gcm) => gcm.seal_rtp(buffer, start, header_len, ssrc, index),
            Cipher::Cm(cm) => cm.seal_rtp(buffer, start, header_len, ssrc, index),
        }
    }

    /// Protects the compound RTCP packet that starts at `start` of `buffer` and ends with it, in place; appends index
    /// and tag.
    ///
    /// # Errors
    /// See [`SrtpError`]. The caller truncates `buffer` to `start` then.
    pub fn protect_rtcp(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), SrtpError> {
        let packet = buffer.get(start..).ok_or(SrtpError::Malformed)?;
        let ssrc = be32(packet, 4)?;
        // One index for all SSRCs is as good as one each: no (SSRC, index) pair comes twice.
        let index = self.rtcp_index;
        if index >= RTCP_ENCRYPTED - 1 {
            return Err(SrtpError::Crypto);
        }
        self.rtcp_index += 1;
        match &mut self.cipher {
            Cipher::Gcm(gcm) => gcm.seal_rtcp(buffer, start, ssrc, index),
            Cipher::Cm(cm) => cm.seal_rtcp(buffer, start, ssrc, index),
        }
    }
}

/// Length of the RTP header with CSRCs and extension (RFC 3550 section 5.1, 5.3.1).
pub(super) fn rtp_header_len(packet: &[u8]) -> Result<usize, SrtpError> {
    let first = *packet.first().ok_or(SrtpError::Malformed)?;
    let mut len = RTP_HEADER_LEN + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        len += 4 + 4 * usize::from(be16(packet, len + 2)?);
    }
    if first >> 6 != 2 || len > packet.len() {
        return Err(SrtpError::Malformed);
    }
    Ok(len)
}

fn be16(bytes: &[u8], at: usize) -> Result<u16, SrtpError> {
    let raw = bytes.get(at..).and_then(<[u8]>::first_chunk);
    raw.copied().map(u16::from_be_bytes).ok_or(SrtpError::Malformed)
}

fn be32(bytes: &[u8], at: usize) -> Result<u32, SrtpError> {
    let raw = bytes.get(at..).and_then(<[u8]>::first_chunk);
    raw.copied().map(u32::from_be_bytes).ok_or(SrtpError::Malformed)
}

#[cfg(test)]
mod tests;
