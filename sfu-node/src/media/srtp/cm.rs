//! AES128_CM_HMAC_SHA1_80 (RFC 3711), for clients without GCM.

use rtc::crypto::{HmacAlgorithm, Mac, RTCCrypto, StreamCipher, StreamCipherAlgorithm, constant_time_eq};

use super::kdf::{Label, MASTER_KEY_LEN, derive};
use super::{RTCP_CLEAR_LEN, RTCP_ENCRYPTED, RTCP_INDEX_LEN, SrtpError};

/// The 80 bits of HMAC-SHA1 that are sent (RFC 3711 section 4.2).
pub(super) const TAG_LEN: usize = 10;
/// HMAC-SHA1 before truncation.
const MAC_LEN: usize = 20;
/// RFC 3711 section 8.2: n_a.
const AUTH_KEY_LEN: usize = 20;
const SALT_LEN: usize = 14;

struct Keys {
    stream: Box<dyn StreamCipher>,
    mac: Box<dyn Mac>,
    salt: [u8; SALT_LEN],
}

/// One direction's keys.
pub(super) struct Cm {
    rtp: Keys,
    rtcp: Keys,
}

impl Cm {
    pub(super) fn derive(key: &[u8], salt: &[u8], crypto: &dyn RTCCrypto) -> Result<Self, SrtpError> {
        let keys = |cipher, auth, salting| {
            Keys::new(
                &derive::<MASTER_KEY_LEN>(cipher, key, salt, crypto)?,
                &derive::<AUTH_KEY_LEN>(auth, key, salt, crypto)?,
                derive(salting, key, salt, crypto)?,
                crypto,
            )
        };
        Ok(Self {
            rtp: keys(Label::RtpKey, Label::RtpAuth, Label::RtpSalt)?,
            rtcp: keys(Label::RtcpKey, Label::RtcpAuth, Label::RtcpSalt)?,
        })
    }

    /// Returns the length of the plain packet.
    pub(super) fn open_rtp(
        &mut self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, SrtpError> {
        let (sealed, tag) = split_tag(packet)?;
        let plain_len = sealed.len();
        self.rtp.verify(&[sealed, &rollover(index)], tag)?;
        let payload = sealed.get_mut(header_len..).ok_or(SrtpError::Malformed)?;
        self.rtp.apply(ssrc, index, payload)?;
        Ok(plain_len)
    }

    pub(super) fn seal_rtp(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), SrtpError> {
        let packet = buffer.get_mut(start..).ok_or(SrtpError::Malformed)?;
        self.rtp.apply(ssrc, index, packet.get_mut(header_len..).ok_or(SrtpError::Malformed)?)?;
        let tag = self.rtp.tag(&[packet, &rollover(index)])?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// `index_at`: where the SRTCP index stands, before the tag. Returns the plain length.
    pub(super) fn open_rtcp(
        &mut self,
        packet: &mut [u8],
        index_at: usize,
        ssrc: u32,
        index: u32,
    ) -> Result<usize, SrtpError> {
        let (sealed, tag) = split_tag(packet)?;
        self.rtcp.verify(&[sealed], tag)?;
        let rest = sealed.get_mut(RTCP_CLEAR_LEN..index_at).ok_or(SrtpError::Malformed)?;
        self.rtcp.apply(ssrc, u64::from(index), rest)?;
        Ok(index_at)
    }

    pub(super) fn seal_rtcp(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        ssrc: u32,
        index: u32,
    ) -> Result<(), SrtpError> {
        let rest = buffer.get_mut(start + RTCP_CLEAR_LEN..).ok_or(SrtpError::Malformed)?;
        self.rtcp.apply(ssrc, u64::from(index), rest)?;
        buffer.reserve(RTCP_INDEX_LEN + TAG_LEN);
        buffer.extend_from_slice(&(RTCP_ENCRYPTED | index).to_be_bytes());
        let tag = self.rtcp.tag(&[buffer.get(start..).ok_or(SrtpError::Malformed)?])?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }
}

impl Keys {
    fn new(
        key: &[u8; MASTER_KEY_LEN],
        auth: &[u8; AUTH_KEY_LEN],
        salt: [u8; SALT_LEN],
        crypto: &dyn RTCCrypto,
    ) -> Result<Self, SrtpError> {
        Ok(Self {
            stream: crypto.new_stream_cipher(StreamCipherAlgorithm::Aes128Ctr, key).map_err(|_| SrtpError::Crypto)?,
            mac: crypto.new_hmac(HmacAlgorithm::Sha1, auth).map_err(|_| SrtpError::Crypto)?,
            salt,
        })
    }

    /// RFC 3711 section 4.1.1: IV = (salt << 16) ^ (SSRC << 64) ^ (index << 16).
    fn apply(&mut self, ssrc: u32, index: u64, data: &mut [u8]) -> Result<(), SrtpError> {
        let mut iv = ((u128::from(ssrc) << 64) ^ (u128::from(index) << 16)).to_be_bytes();
        for (to, from) in iv.iter_mut().zip(self.salt) {
            *to ^= from;
        }
        self.stream.apply_keystream(&iv, data).map_err(|_| SrtpError::Crypto)
    }

    fn tag(&mut self, parts: &[&[u8]]) -> Result<[u8; TAG_LEN], SrtpError> {
        let mut mac = [0; MAC_LEN];
        self.mac.sign(parts, &mut mac).map_err(|_| SrtpError::Crypto)?;
        mac.first_chunk().copied().ok_or(SrtpError::Crypto)
    }

    fn verify(&mut self, parts: &[&[u8]], tag: &[u8]) -> Result<(), SrtpError> {
        let right = constant_time_eq(&self.tag(parts)?, tag);
        right.then_some(()).ok_or(SrtpError::Unauthentic)
    }
}

fn split_tag(packet: &mut [u8]) -> Result<(&mut [u8], &mut [u8; TAG_LEN]), SrtpError> {
    packet.split_last_chunk_mut().ok_or(SrtpError::Malformed)
}

/// The rollover counter is authenticated with the packet (RFC 3711 section 4.2).
fn rollover(index: u64) -> [u8; 4] {
    let [_, _, a, b, c, d, _, _] = index.to_be_bytes();
    [a, b, c, d]
}
