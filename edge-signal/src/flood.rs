//! How much one client may say: so many messages and bytes at once, and so many a second after that.

use crate::room::event::UnixMs;

/// Messages at once: a client in a large room asks for something else of every track it shows.
pub const MESSAGES_AT_ONCE: u64 = 1_000;
/// Messages a second, in the long run. A busy client sends a few.
pub const MESSAGES_PER_SECOND: u64 = 100;
/// Bytes at once: a few of the longest messages there may be.
pub const BYTES_AT_ONCE: u64 = 8 * 1024 * 1024;
/// Bytes a second, in the long run.
pub const BYTES_PER_SECOND: u64 = 1024 * 1024;

/// What one client has left. Not kept: after the object slept it has everything again.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    messages: Bucket,
    bytes: Bucket,
}

impl Allowance {
    /// Everything.
    #[must_use]
    pub fn new(now: UnixMs) -> Self {
        Self {
            messages: Bucket::full(MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, now),
            bytes: Bucket::full(BYTES_AT_ONCE, BYTES_PER_SECOND, now),
        }
    }

    /// Takes one message of so many bytes. False: it has said too much.
    #[must_use]
    pub fn take(&mut self, now: UnixMs, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.messages.take(now, 1) && self.bytes.take(now, bytes)
    }
}

/// In thousandths, so that every millisecond gives something.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    max: u64,
    per_ms: u64,
    at: UnixMs,
}

impl Bucket {
    fn full(at_once: u64, per_second: u64, at: UnixMs) -> Self {
        let max = at_once.saturating_mul(1000);
        Self { level: max, max, per_ms: per_second, at }
    }

    fn take(&mut self, now: UnixMs, units: u64) -> bool {
        let passed = now.0.saturating_sub(self.at.0);
        self.at = now;
        self.level = self.level.saturating_add(passed.saturating_mul(self.per_ms)).min(self.max);
        let taken = self.level.checked_sub(units.saturating_mul(1000));
        self.level = taken.unwrap_or(self.level);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let mut allowance = Allowance::new(UnixMs(0));
        let passed = (0..10 * MESSAGES_AT_ONCE).take_while(|_| allowance.take(UnixMs(0), 10)).count();
        assert_eq!(passed as u64, MESSAGES_AT_ONCE);
        let later = (0..10 * MESSAGES_AT_ONCE).take_while(|_| allowance.take(UnixMs(1_000), 10)).count();
        assert_eq!(later as u64, MESSAGES_PER_SECOND);
        let rested = (0..10 * MESSAGES_AT_ONCE).take_while(|_| allowance.take(UnixMs(1_000_000), 10)).count();
        assert_eq!(rested as u64, MESSAGES_AT_ONCE, "never more than at once");
    }

    #[test]
    fn few_but_long_messages_are_a_flood_too() {
        let mut allowance = Allowance::new(UnixMs(0));
        let long = 2 * 1024 * 1024;
        assert!((0..4).all(|_| allowance.take(UnixMs(0), long)));
        assert!(!allowance.take(UnixMs(0), 1));
        assert!(allowance.take(UnixMs(0), 0));
        assert!(!allowance.take(UnixMs(1_000), long));
        assert!(allowance.take(UnixMs(2_000), long));
    }

    #[test]
    fn a_steady_client_is_never_stopped() {
        let mut allowance = Allowance::new(UnixMs(0));
        assert!((0..100_000).all(|message| allowance.take(UnixMs(message * 10), 1_000)));
    }
}
