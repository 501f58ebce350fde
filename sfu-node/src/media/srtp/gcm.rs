//! AEAD_AES_128_GCM (RFC 7714) straight on the crypto library, which is what makes it cheap.

use std::hint::black_box;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rtc::crypto::RTCCrypto;

use super::kdf::{Label, MASTER_KEY_LEN, derive};
use super::{RTCP_CLEAR_LEN, RTCP_ENCRYPTED, SrtpError};

/// One direction's keys.
pub(super) struct Gcm {
    rtp: LessSafeKey,
    rtp_salt: [u8; NONCE_LEN],
    rtcp: LessSafeKey,
    rtcp_salt: [u8; NONCE_LEN],
}

impl Gcm {
    pub(super) fn derive(key: &[u8], salt: &[u8], crypto: &dyn RTCCrypto) -> Result<Self, SrtpError> {
        Self::new(
            &derive(Label::RtpKey, key, salt, crypto)?,
            derive(Label::RtpSalt, key, salt, crypto)?,
            &derive(Label::RtcpKey, key, salt, crypto)?,
            derive(Label::RtcpSalt, key, salt, crypto)?,
        )
    }

    pub(super) fn new(
        rtp: &[u8; MASTER_KEY_LEN],
        rtp_salt: [u8; NONCE_LEN],
        rtcp: &[u8; MASTER_KEY_LEN],
        rtcp_salt: [u8; NONCE_LEN],
    ) -> Result<Self, SrtpError> {
        let key =
            |bytes: &[u8]| UnboundKey::new(&AES_128_GCM, bytes).map(LessSafeKey::new).map_err(|_| SrtpError::Crypto);
        Ok(Self { rtp: key(rtp)?, rtp_salt, rtcp: key(rtcp)?, rtcp_salt })
    }

    /// Asks for the memory that sealing needs, as far as it is ours.
    pub(super) fn expect(&self) {
        black_box(self.rtp_salt);
    }

    /// Returns the length of the plain packet.
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, SrtpError> {
        let (header, sealed) = packet.split_at_mut_checked(header_len).ok_or(SrtpError::Malformed)?;
        let plain = self
            .rtp
            .open_in_place(rtp_nonce(&self.rtp_salt, ssrc, index), Aad::from(header), sealed)
            .map_err(|_| SrtpError::Unauthentic)?;
        Ok(header_len + plain.len())
    }

    pub(super) fn seal_rtp(
        &self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), SrtpError> {
        let packet = buffer.get_mut(start..).ok_or(SrtpError::Malformed)?;
        let (header, payload) = packet.split_at_mut_checked(header_len).ok_or(SrtpError::Malformed)?;
        let tag = self
            .rtp
            .seal_in_place_separate_tag(rtp_nonce(&self.rtp_salt, ssrc, index), Aad::from(header), payload)
            .map_err(|_| SrtpError::Crypto)?;
        buffer.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// `index_at`: where the SRTCP index stands, behind the tag (RFC 7714 section 9). Returns the plain length.
    pub(super) fn open_rtcp(
        &self,
        packet: &mut [u8],
        index_at: usize,
        ssrc: u32,
        index: u32,
    ) -> Result<usize, SrtpError> {
        let packet = packet.get_mut(..index_at).ok_or(SrtpError::Malformed)?;
        let (clear, sealed) = packet.split_first_chunk_mut::<RTCP_CLEAR_LEN>().ok_or(SrtpError::Malformed)?;
        let plain = self
            .rtcp
            .open_in_place(rtcp_nonce(&self.rtcp_salt, ssrc, index), rtcp_aad(*clear, index), sealed)
            .map_err(|_| SrtpError::Unauthentic)?;
        Ok(RTCP_CLEAR_LEN + plain.len())
    }

    pub(super) fn seal_rtcp(&self, buffer: &mut Vec<u8>, start: usize, ssrc: u32, index: u32) -> Result<(), SrtpError> {
        let packet = buffer.get_mut(start..).ok_or(SrtpError::Malformed)?;
        let (clear, rest) = packet.split_first_chunk_mut::<RTCP_CLEAR_LEN>().ok_or(SrtpError::Malformed)?;
        let tag = self
            .rtcp
            .seal_in_place_separate_tag(rtcp_nonce(&self.rtcp_salt, ssrc, index), rtcp_aad(*clear, index), rest)
            .map_err(|_| SrtpError::Crypto)?;
        buffer.extend_from_slice(tag.as_ref());
        buffer.extend_from_slice(&(RTCP_ENCRYPTED | index).to_be_bytes());
        Ok(())
    }
}

/// RFC 7714 section 8.1: two zero octets, SSRC, rollover counter, sequence number, all over the salt.
fn rtp_nonce(salt: &[u8; NONCE_LEN], ssrc: u32, index: u64) -> Nonce {
    // The 48-bit index is rollover counter and sequence number in one.
    over_salt(salt, (u128::from(ssrc) << 48) | u128::from(index))
}

/// RFC 7714 section 9.1: two zero octets, SSRC, two zero octets, SRTCP index, all over the salt.
fn rtcp_nonce(salt: &[u8; NONCE_LEN], ssrc: u32, index: u32) -> Nonce {
    over_salt(salt, (u128::from(ssrc) << 48) | u128::from(index))
}

fn over_salt(salt: &[u8; NONCE_LEN], fields: u128) -> Nonce {
    let mut nonce = *salt;
    for (to, from) in nonce.iter_mut().zip(fields.to_be_bytes().into_iter().skip(16 - NONCE_LEN)) {
        *to ^= from;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 7714 section 9.2: header and SSRC, then the index with its E flag.
fn rtcp_aad(clear: [u8; RTCP_CLEAR_LEN], index: u32) -> Aad<[u8; RTCP_CLEAR_LEN + 4]> {
    let mut aad = [0; RTCP_CLEAR_LEN + 4];
    let word = (RTCP_ENCRYPTED | index).to_be_bytes();
    for (to, from) in aad.iter_mut().zip(clear.into_iter().chain(word)) {
        *to = from;
    }
    Aad::from(aad)
}
