//! How much may be sent: additive and multiplicative increase, decrease on overuse and loss
//! (draft-ietf-rmcat-gcc-02 sections 5.5 and 6), raised at once by what a probe got through.

use std::time::Duration;

use arrayvec::ArrayVec;

use super::trend::Usage;
use crate::media::forward::clock::{Time, micros};

/// Where a transport starts, bits per second: a good picture at once on most paths; the first overuse corrects it.
pub(crate) const FIRST_RATE: f64 = 3_000_000.0;
/// Least and most ever estimated, bits per second.
const BOUNDS: (f64, f64) = (30_000.0, 200_000_000.0);
/// What is left of the rate that arrives, after overuse.
const DECREASE: f64 = 0.85;
/// Growth in a second while the path's limit is far or unknown.
const INCREASE: f64 = 1.08;
/// Growth in a second near the limit, bits per second.
const CAREFUL_INCREASE: f64 = 25_000.0;
/// The limit is near within this share of it.
const NEAR: f64 = 0.9;
/// The estimate grows no further beyond what arrives: nothing more is known.
const MAX_LEAD: f64 = 1.5;
/// Weight of a new measurement of the path's limit.
const LIMIT_WEIGHT: f64 = 0.3;
/// How old what arrives is at most when it is said, besides the round trip.
const ACKNOWLEDGED_AGE: Duration = Duration::from_millis(700);
/// Least time between two decreases besides the round trip.
const DECREASE_INTERVAL: Duration = Duration::from_millis(200);
/// Losses are counted over at least this many packets and this time, then judged: those of this interval alone, and with
/// those of the ones before it, so that a cliff is seen at once and a slope in time.
const LOSS_PACKETS: u32 = 50;
const LOSS_INTERVAL: Duration = Duration::from_millis(300);
const LOSS_INTERVALS: usize = 8;
/// Above this share of packets lost the rate falls; below the other it grows as fast as the delay lets it, between them
/// carefully.
const HIGH_LOSS: f64 = 0.10;
const LOW_LOSS: f64 = 0.02;
/// Standard deviations beyond the high share before it is believed. Of a few packets more than a tenth are often lost by
/// chance where a twentieth is lost on average: with a random loss of a tenth this is wrong about twice an hour, with a twentieth never.
const CERTAINTY: f64 = 4.0;

/// What one feedback message amounts to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) usage: Usage,
    /// Bits per second that arrive; `None`: too few packets to tell.
    pub(crate) acknowledged: Option<f64>,
    /// The same of the newest part of that time.
    pub(crate) lately: Option<f64>,
    pub(crate) lost: u32,
    pub(crate) told: u32,
}

/// Packets told of, and those lost of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Losses {
    lost: u32,
    told: u32,
}

impl Losses {
    fn and(self, other: Self) -> Self {
        Self { lost: self.lost + other.lost, told: self.told + other.told }
    }

    fn share(self) -> f64 {
        f64::from(self.lost) / f64::from(self.told.max(1))
    }

    /// More is lost than chance makes of a tenth.
    fn is_high(self) -> bool {
        let told = f64::from(self.told);
        f64::from(self.lost) > HIGH_LOSS * told + CERTAINTY * (HIGH_LOSS * (1.0 - HIGH_LOSS) * told).sqrt()
    }
}

/// The estimate of one transport.
#[derive(Debug)]
pub(crate) struct Rate {
    target: f64,
    /// What the path delivered when it was overused, smoothed.
    limit: Option<f64>,
    grown: Option<Time>,
    decreased: Option<Time>,
    loss_since: Option<Time>,
    /// Since then.
    counted: Losses,
    /// Of the last intervals, the oldest first.
    losses: ArrayVec<Losses, LOSS_INTERVALS>,
    round_trip: u64,
}

impl Rate {
    pub(crate) fn new() -> Self {
        Self {
            target: FIRST_RATE,
            limit: None,
            grown: None,
            decreased: None,
            loss_since: None,
            counted: Losses::default(),
            losses: ArrayVec::new(),
            round_trip: 100_000,
        }
    }

    /// Bits per second.
    pub(crate) fn target(&self) -> f64 {
        self.target
    }

    /// When the estimate fell last.
    pub(crate) fn decreased(&self) -> Option<Time> {
        self.decreased
    }

    /// The round trip, microseconds.
    pub(crate) fn measured(&mut self, round_trip: u64) {
        self.round_trip = round_trip.min(2_000_000);
    }

    /// A probe got through at this rate, bits per second.
    pub(crate) fn probed(&mut self, rate: f64) {
        if rate > self.target {
            self.target = rate.min(BOUNDS.1);
            self.limit = self.limit.filter(|limit| *limit >= rate);
        }
    }

    /// The peer itself says how much it takes (REMB), bits per second.
    pub(crate) fn told_limit(&mut self, rate: f64) {
        self.target = rate.clamp(BOUNDS.0, BOUNDS.1);
    }

    /// The path is another one: its limit is not known, nor what it loses.
    pub(crate) fn path_changed(&mut self) {
        (self.limit, self.grown, self.loss_since) = (None, None, None);
        self.counted = Losses::default();
        self.losses.clear();
    }

    /// Share of the packets lost lately, whatever the reason.
    pub(crate) fn loss(&self) -> f64 {
        self.lately().share()
    }

    /// Feedback came.
    pub(crate) fn heard(&mut self, now: Time, outcome: Outcome) {
        self.count_loss(now, outcome);
        match (outcome.usage, outcome.acknowledged) {
            (Usage::Over, Some(acknowledged)) if self.may_decrease(now) => {
                let acknowledged = outcome.lately.map_or(acknowledged, |lately| lately.min(acknowledged));
                let limit = self.limit.map_or(acknowledged, |limit| limit + LIMIT_WEIGHT * (acknowledged - limit));
                self.limit = Some(limit);
                self.decrease(now, DECREASE * acknowledged);
            }
            (Usage::Normal, Some(acknowledged)) => self.increase(now, acknowledged),
            _ => {}
        }
        if outcome.usage != Usage::Normal {
            self.grown = None;
        }
    }

    fn increase(&mut self, now: Time, acknowledged: f64) {
        let elapsed = self.grown.replace(now).map_or(0, |grown| now.since(grown)).min(1_000_000);
        let seconds = elapsed as f64 / 1e6;
        if self.limit.is_some_and(|limit| acknowledged > 1.2 * limit) {
            // The path carries clearly more than it did.
            self.limit = None;
        }
        let settled = self.decreased.is_none_or(|at| now.since(at) >= self.round_trip + micros(ACKNOWLEDGED_AGE));
        if settled && acknowledged > self.target {
            // It does arrive, and no queue builds up.
            self.target = acknowledged.min(BOUNDS.1);
        }
        let lately = self.lately();
        if lately.is_high() {
            return;
        }
        let near = self.limit.is_some_and(|limit| self.target > NEAR * limit) || lately.share() > LOW_LOSS;
        let grown = if near { self.target + CAREFUL_INCREASE * seconds } else { self.target * INCREASE.powf(seconds) };
        let most = (MAX_LEAD * acknowledged + 10_000.0).max(self.target);
        self.target = grown.min(most).min(BOUNDS.1);
    }

    fn count_loss(&mut self, now: Time, outcome: Outcome) {
        let since = *self.loss_since.get_or_insert(now);
        self.counted = self.counted.and(Losses { lost: outcome.lost, told: outcome.told });
        if self.counted.told < LOSS_PACKETS || now.since(since) < micros(LOSS_INTERVAL) {
            return;
        }
        let interval = std::mem::take(&mut self.counted);
        self.loss_since = Some(now);
        if self.losses.is_full() {
            self.losses.remove(0);
        }
        self.losses.push(interval);
        let lately = if interval.is_high() { outcome.lately } else { None };
        if !(interval.is_high() || self.lately().is_high()) || !self.may_decrease(now) {
            return;
        }
        // What arrives is what the path carries; what was sent beyond it is lost.
        let arrives = outcome.acknowledged.map(|acknowledged| lately.map_or(acknowledged, |l| l.min(acknowledged)));
        self.decrease(now, arrives.unwrap_or(0.5 * self.target).min(self.target));
        // What was lost at the rate before says nothing of this one.
        self.losses.clear();
    }

    fn lately(&self) -> Losses {
        self.losses.iter().copied().fold(Losses::default(), Losses::and)
    }

    fn may_decrease(&self, now: Time) -> bool {
        let wait = self.round_trip + micros(DECREASE_INTERVAL);
        self.decreased.is_none_or(|decreased| now.since(decreased) >= wait)
    }

    fn decrease(&mut self, now: Time, to: f64) {
        if to < self.target {
            self.target = to.max(BOUNDS.0);
        }
        self.decreased = Some(now);
        self.grown = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(rate: &mut Rate, at: u64, usage: Usage, acknowledged: f64, lost: u32) {
        rate.heard(Time(at), Outcome { usage, acknowledged: Some(acknowledged), lately: None, lost, told: 50 });
    }

    #[test]
    fn overuse_leaves_less_than_what_arrives_once_a_round_trip() {
        let mut rate = Rate::new();
        heard(&mut rate, 0, Usage::Over, 500_000.0, 0);
        assert!((rate.target() - 425_000.0).abs() < 1.0);
        heard(&mut rate, 200_000, Usage::Over, 400_000.0, 0);
        assert!((rate.target() - 425_000.0).abs() < 1.0, "the first has not had its effect yet");
        heard(&mut rate, 300_000, Usage::Over, 400_000.0, 0);
        assert!((rate.target() - 340_000.0).abs() < 1.0);
    }

    #[test]
    fn it_grows_by_what_arrives_and_carefully_near_the_limit() {
        let mut rate = Rate::new();
        heard(&mut rate, 0, Usage::Over, 1_000_000.0, 0);
        for n in 1..=100_u64 {
            heard(&mut rate, n * 100_000, Usage::Normal, 850_000.0, 0);
        }
        let grown = rate.target();
        assert!(grown > 1_050_000.0 && grown < 1_275_000.0 + 10_001.0, "{grown}");
        for n in 101..=400_u64 {
            heard(&mut rate, n * 100_000, Usage::Normal, 500_000.0, 0);
        }
        assert!(rate.target() <= grown, "beyond what arrives nothing is known");
    }

    #[test]
    fn heavy_loss_lowers_it_to_what_arrives_and_a_little_lets_it_grow_carefully() {
        let mut rate = Rate::new();
        heard(&mut rate, 0, Usage::Normal, 1_000_000.0, 0);
        heard(&mut rate, 400_000, Usage::Normal, 1_000_000.0, 40);
        let held = rate.target();
        assert!((held - 1_000_000.0).abs() < 1.0, "{held}");
        for n in 0..100_u64 {
            heard(&mut rate, 1_000_000 + n * 100_000, Usage::Normal, 1_000_000.0, 3);
        }
        let grown = rate.target() - held;
        assert!((150_000.0..350_000.0).contains(&grown), "{grown} in ten seconds");
    }

    #[test]
    fn of_few_packets_many_may_be_lost_by_chance() {
        let fell = |lost: [u32; 8]| {
            let mut rate = Rate::new();
            for (n, lost) in (0..).zip(lost) {
                heard(&mut rate, n * 400_000, Usage::Normal, 60_000.0, lost);
            }
            rate.target() < FIRST_RATE
        };
        assert!(!fell([8, 9, 2, 3, 12, 4, 5, 3]), "a tenth, in clusters");
        assert!(fell([0, 0, 0, 0, 0, 0, 0, 15]), "a cliff shows in one interval");
        assert!(fell([9, 9, 9, 9, 9, 9, 9, 9]), "a slope in all of them");
    }

    #[test]
    fn what_arrives_without_a_queue_is_carried() {
        let mut rate = Rate::new();
        heard(&mut rate, 0, Usage::Over, 40_000.0, 0);
        heard(&mut rate, 500_000, Usage::Normal, 57_000.0, 5);
        assert!(rate.target() < 40_000.0, "that may have been on its way");
        heard(&mut rate, 900_000, Usage::Normal, 57_000.0, 5);
        assert!(rate.target() >= 57_000.0);
    }

    #[test]
    fn a_probe_raises_it_at_once_and_never_lowers_it() {
        let mut rate = Rate::new();
        heard(&mut rate, 0, Usage::Over, 500_000.0, 0);
        rate.probed(1_200_000.0);
        assert!((rate.target() - 1_200_000.0).abs() < 1.0);
        rate.probed(700_000.0);
        assert!((rate.target() - 1_200_000.0).abs() < 1.0);
    }
}
