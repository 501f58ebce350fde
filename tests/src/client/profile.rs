//! Which SRTP profiles a client offers.

use std::sync::Arc;

use str0m::config::CryptoProvider;

/// SRTP profiles in a client's ClientHello (RFC 5764 section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrtpOffer {
    /// `AEAD_AES_128_GCM` among others, as browsers offer.
    GcmFirst,
}

impl SrtpOffer {
    /// str0m's crypto with this offer.
    pub(crate) fn provider(self) -> Arc<CryptoProvider> {
        match self {
            Self::GcmFirst => Arc::new(str0m::crypto::from_feature_flags()),
        }
    }
}
