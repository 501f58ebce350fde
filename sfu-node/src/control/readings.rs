//! The shards' counters as they were last read, and what flowed between two readings. **Pure: the time is given.**

use std::time::Instant;

use crate::media::api::{ShardIndex, ShardStats};

/// What flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Traffic {
    /// Sent, bits per second.
    pub(super) egress_bps: u64,
    /// Received and sent.
    pub(super) packets_per_second: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    at: Option<Instant>,
    traffic: Traffic,
    /// Read since all were complete.
    fresh: bool,
}

/// One reading a shard.
#[derive(Debug)]
pub(super) struct Readings {
    stats: Vec<ShardStats>,
    readings: Vec<Reading>,
}

impl Readings {
    /// Nothing was read yet.
    pub(super) fn new(shards: usize) -> Self {
        Self { stats: vec![ShardStats::default(); shards], readings: vec![Reading::default(); shards] }
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.readings.len()
    }

    /// Takes a shard's counters; what flowed there since it was last read.
    pub(super) fn take(&mut self, now: Instant, shard: ShardIndex, stats: ShardStats) -> Traffic {
        let (Some(last), Some(reading)) = (self.stats.get_mut(shard.place()), self.readings.get_mut(shard.place()))
        else {
            return Traffic::default();
        };
        let before = std::mem::replace(last, stats);
        let traffic = reading.at.map_or_else(Traffic::default, |then| between(then, &before, now, &stats));
        *reading = Reading { at: Some(now), traffic, fresh: true };
        traffic
    }

    /// The counters of all shards, and what flows through all, once each was read anew.
    pub(super) fn complete(&mut self) -> Option<(&[ShardStats], Traffic)> {
        if !self.readings.iter().all(|reading| reading.fresh) {
            return None;
        }
        let mut sum = Traffic::default();
        for reading in &mut self.readings {
            reading.fresh = false;
            sum.egress_bps = sum.egress_bps.saturating_add(reading.traffic.egress_bps);
            sum.packets_per_second = sum.packets_per_second.saturating_add(reading.traffic.packets_per_second);
        }
        Some((&self.stats, sum))
    }
}

fn between(then: Instant, before: &ShardStats, now: Instant, after: &ShardStats) -> Traffic {
    let millis = u64::try_from(now.duration_since(then).as_millis()).unwrap_or(u64::MAX).max(1);
    let per_second = |new: u64, old: u64| new.saturating_sub(old).saturating_mul(1000) / millis;
    let packets = |stats: &ShardStats| stats.packets_received.saturating_add(stats.packets_sent);
    Traffic {
        egress_bps: per_second(after.bytes_sent, before.bytes_sent).saturating_mul(8),
        packets_per_second: u32::try_from(per_second(packets(after), packets(before))).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stats(packets_received: u64, packets_sent: u64, bytes_sent: u64) -> ShardStats {
        ShardStats { packets_received, packets_sent, bytes_sent, ..ShardStats::default() }
    }

    #[test]
    fn rates_are_of_each_shard_and_summed_when_all_have_answered() {
        let (a, b) = (ShardIndex(0), ShardIndex(1));
        let mut readings = Readings::new(2);
        let start = Instant::now();
        assert_eq!(readings.take(start, a, stats(10, 20, 1000)), Traffic::default(), "nothing to compare with");
        assert!(readings.complete().is_none());
        readings.take(start, b, stats(0, 0, 0));
        assert_eq!(readings.complete().unwrap().1, Traffic::default());

        let later = start + Duration::from_millis(500);
        let there = Traffic { egress_bps: 16_000, packets_per_second: 60 };
        assert_eq!(readings.take(later, a, stats(20, 40, 2000)), there);
        assert_eq!(readings.take(later, a, stats(20, 40, 2000)), Traffic::default());
        assert!(readings.complete().is_none(), "the other one is silent");
        let traffic = readings.take(later, b, stats(0, 50, 500));
        assert_eq!(traffic, Traffic { egress_bps: 8_000, packets_per_second: 100 });
        let (all, sum) = readings.complete().unwrap();
        assert_eq!(all.iter().map(|stats| stats.packets_sent).sum::<u64>(), 90);
        assert_eq!(sum, traffic, "of the last reading of each");
    }
}
