//! How much a subscriber may have sent again: a share of its media, and one packet at most once a round trip.

use std::collections::VecDeque;
use std::time::Duration;

use crate::media::forward::clock::{Time, micros};

/// One byte in so many may be a retransmission (20 %).
const MEDIA_PER_REPEATED: usize = 5;
/// Most bytes saved up: a burst of about 50 packets.
const MAX_SAVED: usize = 64 * 1024;
/// What a new subscription starts with, bytes.
const INITIAL: usize = 32 * 1024;
/// Retransmissions remembered to tell a repeated request.
const REMEMBERED: usize = 64;
/// Round trip assumed before the first report, and the least.
const MIN_ROUND_TRIP: Duration = Duration::from_millis(20);
/// Longest round trip believed.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);

/// One subscription's allowance.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    round_trip: u64,
    recent: VecDeque<(u16, Time)>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: INITIAL, round_trip: micros(MIN_ROUND_TRIP), recent: VecDeque::new() }
    }
}

impl Budget {
    /// Media went out.
    pub(crate) fn earn(&mut self, payload_len: usize) {
        self.bytes = (self.bytes + payload_len / MEDIA_PER_REPEATED).min(MAX_SAVED);
    }

    /// A round trip was measured, microseconds.
    pub(crate) fn measured(&mut self, round_trip: u64) {
        self.round_trip = round_trip.clamp(micros(MIN_ROUND_TRIP), micros(MAX_ROUND_TRIP));
    }

    /// True when this packet may be sent again now; it is paid for.
    pub(crate) fn spend(&mut self, now: Time, sequence: u16, payload_len: usize) -> bool {
        let on_its_way = |(sent, at): &(u16, Time)| *sent == sequence && now.since(*at) < self.round_trip;
        if self.bytes < payload_len || self.recent.iter().any(on_its_way) {
            return false;
        }
        self.bytes -= payload_len;
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((sequence, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmissions_are_a_share_of_the_media() {
        let mut budget = Budget::default();
        let first = (0..1000).filter(|sequence| budget.spend(Time(0), *sequence, 1000)).count();
        assert_eq!(first, INITIAL / 1000);
        for _ in 0..1000 {
            budget.earn(1000);
        }
        let second = (0..1000).filter(|sequence| budget.spend(Time(1_000_000), *sequence, 1000)).count();
        assert_eq!(second, MAX_SAVED / 1000, "savings are bounded");
    }

    #[test]
    fn a_packet_goes_once_a_round_trip() {
        let mut budget = Budget::default();
        budget.measured(100_000);
        assert!(budget.spend(Time(0), 7, 10));
        assert!(!budget.spend(Time(99_999), 7, 10));
        assert!(budget.spend(Time(99_999), 8, 10));
        assert!(budget.spend(Time(100_000), 7, 10));
    }
}
