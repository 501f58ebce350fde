//! Is a queue building up on the way? Delay gradient between groups of packets, its trend line, and an adaptive
//! threshold (draft-ietf-rmcat-gcc-02 sections 5.2 to 5.4; the trend line in place of its Kalman filter, as libwebrtc
//! does: it sees a queue that grows by a few per cent).

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::media::forward::clock::{Time, micros};

/// Packets sent within this time are one group.
const BURST: Duration = Duration::from_millis(5);
/// And what was held of it and went out at its pace, within this time: else a large frame looks like a queue that builds up.
const HELD_BURST: Duration = Duration::from_millis(100);
/// Gradients the line is laid through.
const WINDOW: usize = 20;
/// Share of the old value in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// Gradients after which the trend counts in full.
const FULL_TREND: f64 = 60.0;
/// Makes the trend comparable with the threshold.
const GAIN: f64 = 4.0;
/// First threshold, milliseconds, and its bounds.
const FIRST_THRESHOLD: f64 = 12.5;
const THRESHOLD_BOUNDS: (f64, f64) = (6.0, 600.0);
/// How fast the threshold follows upwards and downwards, per millisecond.
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
/// A trend further above the threshold does not move it: it is an event, not the path's jitter.
const THRESHOLD_BLIND: f64 = 15.0;
/// The threshold moves by at most this time's worth at once, milliseconds.
const THRESHOLD_STEP: f64 = 100.0;
/// How long the trend is above the threshold before it is believed, milliseconds.
const OVERUSE_TIME: f64 = 10.0;
/// An arrival that jumps by more, microseconds, is another clock.
const MAX_JUMP: i64 = 3_000_000;

/// What the trend means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Usage {
    /// The queue stays as it is.
    #[default]
    Normal,
    /// It grows.
    Over,
    /// It drains.
    Under,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent: Time,
    last_sent: Time,
    first_arrival: i64,
    last_arrival: i64,
}

/// The detector of one transport.
#[derive(Debug)]
pub(crate) struct Trend {
    current: Option<Group>,
    previous: Option<Group>,
    /// Arrival since the first and smoothed delay, milliseconds.
    points: ArrayVec<(f64, f64), WINDOW>,
    first_arrival: Option<i64>,
    delay: f64,
    smoothed: f64,
    gradients: f64,
    threshold: f64,
    last_trend: f64,
    /// Milliseconds spent above the threshold, and gradients seen there.
    above: Option<(f64, u32)>,
    usage: Usage,
}

impl Trend {
    pub(crate) fn new() -> Self {
        Self {
            current: None,
            previous: None,
            points: ArrayVec::new(),
            first_arrival: None,
            delay: 0.0,
            smoothed: 0.0,
            gradients: 0.0,
            threshold: FIRST_THRESHOLD,
            last_trend: 0.0,
            above: None,
            usage: Usage::Normal,
        }
    }

    /// What is believed now.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// A packet sent at `sent` arrived at `arrival`, microseconds of the peer's clock. In sending order. `held`: what went
    /// out before it held it up.
    pub(crate) fn arrived(&mut self, sent: Time, held: bool, arrival: i64) {
        let fresh = Group { first_sent: sent, last_sent: sent, first_arrival: arrival, last_arrival: arrival };
        let Some(current) = self.current.as_mut() else {
            self.current = Some(fresh);
            return;
        };
        if (arrival - current.last_arrival).abs() > MAX_JUMP {
            *self = Self { threshold: self.threshold, current: Some(fresh), ..Self::new() };
            return;
        }
        if current.takes(sent, held, arrival) {
            current.last_sent = current.last_sent.max(sent);
            current.last_arrival = current.last_arrival.max(arrival);
            return;
        }
        let done = *current;
        *current = fresh;
        if let Some(previous) = self.previous.replace(done) {
            let sent = millis(done.last_sent.0.cast_signed() - previous.last_sent.0.cast_signed());
            let came = millis(done.last_arrival - previous.last_arrival);
            self.gradient(came - sent, came, done.last_arrival);
        }
    }

    fn gradient(&mut self, gradient: f64, elapsed: f64, arrival: i64) {
        let first = *self.first_arrival.get_or_insert(arrival);
        self.gradients = (self.gradients + 1.0).min(FULL_TREND);
        self.delay += gradient;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.delay;
        if self.points.is_full() {
            self.points.remove(0);
        }
        self.points.push((millis(arrival - first), self.smoothed));
        let slope = if self.points.is_full() { slope(&self.points) } else { None };
        self.judge(slope.unwrap_or(0.0) * self.gradients * GAIN, elapsed.max(0.0));
    }

    fn judge(&mut self, trend: f64, elapsed: f64) {
        if trend > self.threshold {
            // The first time counts by half: it was crossed somewhere in between.
            let (above, seen) = self.above.map_or((elapsed / 2.0, 1), |(above, seen)| (above + elapsed, seen + 1));
            self.above = Some((above, seen));
            if above > OVERUSE_TIME && seen > 1 && trend >= self.last_trend {
                self.above = Some((0.0, 1));
                self.usage = Usage::Over;
            }
        } else {
            self.above = None;
            self.usage = if trend < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.last_trend = trend;
        let excess = trend.abs() - self.threshold;
        if excess <= THRESHOLD_BLIND {
            let gain = if excess < 0.0 { THRESHOLD_DOWN } else { THRESHOLD_UP };
            let moved = self.threshold + gain * excess * elapsed.min(THRESHOLD_STEP);
            self.threshold = moved.clamp(THRESHOLD_BOUNDS.0, THRESHOLD_BOUNDS.1);
        }
    }
}

impl Group {
    /// Sent together, or held up together and let go at once.
    fn takes(&self, sent: Time, held: bool, arrival: i64) -> bool {
        let since_first = sent.since(self.first_sent);
        let gap = arrival - self.last_arrival;
        let caught_up = gap - (sent.0.cast_signed() - self.last_sent.0.cast_signed()) < 0;
        let together = gap.unsigned_abs() <= micros(BURST) && arrival - self.first_arrival < 100_000;
        since_first <= micros(if held { HELD_BURST } else { BURST }) || (caught_up && together)
    }
}

/// Slope of the line of least squares; `None` when all points have one time.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), point| {
        (above + (point.0 - x) * (point.1 - y), below + (point.0 - x) * (point.0 - x))
    });
    (below > 0.0).then_some(above / below)
}

fn millis(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of three packets every 33 ms; each frame is delayed `extra` microseconds more than the one before.
    fn run(trend: &mut Trend, from: u64, frames: u64, base: i64, extra: i64) -> Vec<Usage> {
        let frame = |n: u64| {
            let sent = Time(1_000_000 + (from + n) * 33_000);
            for _ in 0..3 {
                trend.arrived(sent, false, sent.0.cast_signed() + base + extra * n.cast_signed());
            }
            trend.usage()
        };
        (0..frames).map(frame).collect()
    }

    #[test]
    fn a_steady_path_is_normal() {
        let mut trend = Trend::new();
        assert!(run(&mut trend, 0, 300, 50_000, 0).iter().all(|usage| *usage == Usage::Normal));
    }

    #[test]
    fn a_queue_that_grows_by_five_per_cent_is_seen_within_two_seconds_and_its_draining_too() {
        let mut trend = Trend::new();
        run(&mut trend, 0, 60, 50_000, 0);
        let growing = run(&mut trend, 60, 60, 50_000, 1_650);
        assert!(growing.contains(&Usage::Over));
        let draining = run(&mut trend, 120, 40, 50_000 + 60 * 1_650, -2_400);
        assert!(draining.contains(&Usage::Under));
        assert_eq!(run(&mut trend, 160, 100, 50_000, 0).last(), Some(&Usage::Normal));
    }

    #[test]
    fn jitter_without_a_trend_is_normal() {
        let mut trend = Trend::new();
        for n in 0..900_u64 {
            let sent = Time(1_000_000 + n * 33_000);
            let jitter = [0, 9_000, 3_000, 12_000, 1_000, 6_000][usize::try_from(n % 6).unwrap()];
            trend.arrived(sent, false, sent.0.cast_signed() + jitter);
            assert_ne!(trend.usage(), Usage::Over, "frame {n}");
        }
    }

    #[test]
    fn another_clock_starts_anew() {
        let mut trend = Trend::new();
        run(&mut trend, 0, 60, 50_000, 0);
        assert!(run(&mut trend, 60, 60, 60_000_000, 0).iter().all(|usage| *usage == Usage::Normal));
    }

    #[test]
    fn what_was_held_of_a_frame_belongs_to_it() {
        let first = Time(1_000_000);
        let group = Group { first_sent: first, last_sent: first, first_arrival: 50_000, last_arrival: 50_000 };
        let takes = |after: u64, held: bool| group.takes(Time(first.0 + after), held, 50_000 + 2 * after.cast_signed());
        assert!(takes(5_000, false) && !takes(10_000, false));
        assert!(takes(10_000, true) && takes(100_000, true));
        assert!(!takes(100_001, true), "but a video that is held all the time is more than one");
    }
}
