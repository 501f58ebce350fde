//! Loss on the way to load clients: what they received is dropped before anything looks at it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A lossy path to any number of clients. One seed is one sequence of losses.
pub struct Loss {
    share: f64,
    random: Mutex<SmallRng>,
    media: AtomicU64,
    resent: AtomicU64,
}

/// RTP packets that came down a path, whether dropped there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// First transmissions.
    pub media: u64,
    /// Retransmissions (RFC 4588).
    pub resent: u64,
}

impl Loss {
    /// A path that loses this share of the packets, each by itself.
    #[must_use]
    pub fn new(share: f64, seed: u64) -> Self {
        let random = Mutex::new(SmallRng::seed_from_u64(seed));
        Self { share, random, media: AtomicU64::new(0), resent: AtomicU64::new(0) }
    }

    /// What came down it so far.
    #[must_use]
    pub fn carried(&self) -> Carried {
        Carried { media: self.media.load(Ordering::Relaxed), resent: self.resent.load(Ordering::Relaxed) }
    }

    /// Whether the next RTP packet is lost.
    pub(crate) fn takes(&self, retransmission: bool) -> bool {
        let count = if retransmission { &self.resent } else { &self.media };
        count.fetch_add(1, Ordering::Relaxed);
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random_bool(self.share)
    }
}

impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loss").field("share", &self.share).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_loses_its_share_the_same_way_for_the_same_seed() {
        let lost = |seed| {
            let loss = Loss::new(0.05, seed);
            (0..10_000).map(|number| loss.takes(number % 10 == 0)).collect::<Vec<bool>>()
        };
        assert_eq!(lost(1), lost(1));
        assert_ne!(lost(1), lost(2));
        let count = lost(1).into_iter().filter(|lost| *lost).count();
        assert!((400..600).contains(&count), "{count} of 10,000");
    }

    #[test]
    fn what_is_lost_was_carried() {
        let loss = Loss::new(1.0, 0);
        assert!(loss.takes(false) && loss.takes(false) && loss.takes(true));
        assert_eq!(loss.carried(), Carried { media: 2, resent: 1 });
    }
}
