//! When a batch leaves: at once while there is little to send; else a moment later, so that the packets of a video frame,
//! which come one by one, go to each subscriber with one system call. **Pure: the time is given.**

use std::time::{Duration, Instant};

use crate::media::batch::SendBatch;

/// Longest wait of a packet. A poll sleeps whole milliseconds.
const LONGEST: Duration = Duration::from_millis(1);
/// Below so many destinations the calls saved are not worth the wait.
const MIN_DESTINATIONS: usize = 16;
/// Bytes gathered before they are sent whatever the time: what stays in a core's cache.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// The wait of the batch that is being filled.
#[derive(Debug, Default)]
pub(super) struct Hold {
    since: Option<Instant>,
}

impl Hold {
    /// Whether the batch is to be sent now; it is to be empty afterwards.
    pub(super) fn is_over(&mut self, now: Instant, batch: &SendBatch) -> bool {
        if batch.is_empty() {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let waits = batch.coalesces()
            && batch.destinations() >= MIN_DESTINATIONS
            && !is_full(batch)
            && now.saturating_duration_since(since) < LONGEST;
        if !waits {
            self.since = None;
        }
        !waits
    }

    /// When the batch that waits is to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since?.checked_add(LONGEST)
    }
}

/// No more is to be gathered.
pub(super) fn is_full(batch: &SendBatch) -> bool {
    batch.len() >= MAX_BYTES
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn batch(destinations: u16, bytes: usize, segments: usize) -> SendBatch {
        let mut batch = SendBatch::new(segments);
        for n in 0..destinations {
            let to = SocketAddr::from(([127, 0, 0, 1], n + 1));
            let write = |buffer: &mut Vec<u8>| {
                buffer.resize(buffer.len() + bytes, 0);
                Ok::<_, ()>(())
            };
            batch.push(n.into(), to, write).unwrap();
        }
        batch
    }

    #[test]
    fn little_leaves_at_once() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        assert!(!hold.is_over(now, &batch(0, 0, 64)), "nothing to send");
        assert!(hold.is_over(now, &batch(15, 100, 64)));
        assert!(hold.is_over(now, &batch(100, 100, 1)), "each packet is a call anyway");
        assert_eq!(hold.deadline(), None);
    }

    #[test]
    fn much_waits_a_millisecond_from_its_first_packet() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        let batch = batch(16, 100, 64);
        assert!(!hold.is_over(now, &batch));
        assert_eq!(hold.deadline(), Some(now + LONGEST));
        assert!(!hold.is_over(now + Duration::from_micros(999), &batch));
        assert!(hold.is_over(now + LONGEST, &batch));
        assert!(!hold.is_over(now + LONGEST, &batch), "the next begins anew");
    }

    #[test]
    fn what_fills_the_cache_leaves() {
        let now = Instant::now();
        assert!(Hold::default().is_over(now, &batch(16, MAX_BYTES / 16, 64)));
    }
}
