//! Session keys from the master key (RFC 3711 section 4.3, RFC 7714 section 11).

use rtc::crypto::{BlockCipherAlgorithm, RTCCrypto};

use super::SrtpError;
use crate::media::api::SrtpProfile;

/// Both profiles have 128-bit master keys.
pub(super) const MASTER_KEY_LEN: usize = 16;
/// AES block.
const BLOCK_LEN: usize = 16;
/// Bytes of the counter block that salt and label fill; the last two count blocks.
const SALT_ROOM: usize = 14;
/// Where the label falls: 48 bits of index follow it in the 112-bit salt.
const LABEL_AT: usize = 7;

/// RFC 3711 section 4.3.1.
#[derive(Clone, Copy)]
pub(super) enum Label {
    RtpKey = 0,
    RtpAuth = 1,
    RtpSalt = 2,
    RtcpKey = 3,
    RtcpAuth = 4,
    RtcpSalt = 5,
}

/// Length of the master salt, and of the session salts.
pub(super) fn salt_len(profile: SrtpProfile) -> usize {
    match profile {
        SrtpProfile::AeadAes128Gcm => 12,
        SrtpProfile::Aes128CmHmacSha1_80 => 14,
    }
}

/// Derives `N` bytes under `label`; key derivation rate 0.
pub(super) fn derive<const N: usize>(
    label: Label,
    master_key: &[u8],
    master_salt: &[u8],
    crypto: &dyn RTCCrypto,
) -> Result<[u8; N], SrtpError> {
    if master_salt.len() > SALT_ROOM {
        return Err(SrtpError::Crypto);
    }
    let mut start = [0u8; BLOCK_LEN];
    for (to, from) in start.iter_mut().zip(master_salt) {
        *to = *from;
    }
    if let Some(byte) = start.get_mut(LABEL_AT) {
        *byte ^= label as u8;
    }
    let mut out = [0u8; N];
    for (counter, chunk) in (0u16..).zip(out.chunks_mut(BLOCK_LEN)) {
        let mut block = start;
        for (to, from) in block.iter_mut().skip(SALT_ROOM).zip(counter.to_be_bytes()) {
            *to = from;
        }
        crypto.block_encrypt(BlockCipherAlgorithm::Aes128, master_key, &mut block).map_err(|_| SrtpError::Crypto)?;
        for (to, from) in chunk.iter_mut().zip(block) {
            *to = from;
        }
    }
    Ok(out)
}
