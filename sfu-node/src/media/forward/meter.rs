//! The bitrate of one received stream.

use std::time::Duration;

use crate::media::forward::bandwidth::OVERHEAD;
use crate::media::forward::clock::{Time, micros};

/// Fixed RTP header and usual extensions, bytes.
const HEADER: usize = 24;
/// Time over which packets are counted: several frames, so that one does not weigh too much.
const SPAN: Duration = Duration::from_millis(500);

/// Counts bytes as they go over the wire.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    began: Option<Time>,
    bytes: u64,
    /// Of the spans before, smoothed.
    rate: Option<u64>,
}

impl Meter {
    /// A packet came.
    pub(crate) fn count(&mut self, now: Time, payload_len: usize) {
        let began = *self.began.get_or_insert(now);
        let elapsed = now.since(began);
        if elapsed >= micros(SPAN) {
            let measured = self.bytes.saturating_mul(8_000_000) / elapsed;
            // After a pause nothing of before holds.
            let before = self.rate.filter(|_| elapsed < 2 * micros(SPAN));
            self.rate = Some(before.map_or(measured, |before| u64::midpoint(before, measured)));
            (self.began, self.bytes) = (Some(now), 0);
        }
        self.bytes += (payload_len + HEADER + OVERHEAD) as u64;
    }

    /// Bits per second; what the first packets suggest before a span is over.
    pub(crate) fn rate(&self, now: Time) -> u64 {
        let elapsed = self.began.map_or(0, |began| now.since(began));
        match self.rate {
            Some(_) if elapsed > 4 * micros(SPAN) => 0,
            Some(rate) => rate,
            None => self.bytes.saturating_mul(8_000_000) / elapsed.max(micros(SPAN) / 5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_comes() {
        let mut meter = Meter::default();
        assert_eq!(meter.rate(Time(0)), 0);
        let packet = 1250 - HEADER - OVERHEAD;
        // 1 Mbit/s: 1250 bytes every 10 ms.
        (0..200_u64).for_each(|n| meter.count(Time(n * 10_000), packet));
        assert_eq!(meter.rate(Time(2_000_000)), 1_000_000);
        (0..200_u64).for_each(|n| meter.count(Time(2_000_000 + n * 20_000), packet));
        let rate = meter.rate(Time(6_000_000));
        assert!((490_000..520_000).contains(&rate), "{rate}");
        assert_eq!(meter.rate(Time(9_000_000)), 0, "it stopped");
    }
}
