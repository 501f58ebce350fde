//! The estimator on a virtual path: a bottleneck with a queue, delay and loss; a source with three layers and a peer that
//! sends feedback. Virtual time; one seed is one run.

use std::collections::VecDeque;

use rtc::rtcp::packet::Packet;

use self::moved::Arrivals;
use super::bounds::{ADAPTS_DOWN, ADAPTS_UP, GAP_AT_CHANGE, Record, SHARE};
use super::*;
use crate::media::forward::SplitMix;
use crate::media::forward::allocation::{Candidate, Quality, allocate};
use crate::media::forward::rtcp;
use crate::media::forward::twcc::ArrivalRecorder;

mod moved;

/// Microseconds of a step.
const STEP: u64 = 1_000;
const FRAME: u64 = 33_000;
const FEEDBACK: u64 = 100_000;
/// Who waits longer sees it, microseconds.
const LONG_WAIT: u64 = 150_000;
/// Layers with frame rates of their own.
const STEPS: [u64; 6] = [80_000, 150_000, 280_000, 500_000, 1_100_000, 2_200_000];
/// What a packet of padding alone has, bytes.
const PADDING: usize = 275;
const LAYERS: [u64; 3] = [150_000, 500_000, 1_700_000];

struct Path {
    /// Bits per second.
    capacity: f64,
    /// One way, microseconds.
    delay: u64,
    /// What its queue holds, microseconds of its capacity.
    queue: u64,
    /// Lost at random, per cent.
    loss: u64,
    free_at: f64,
    random: SplitMix,
}

impl Path {
    fn new(capacity: f64, delay: u64) -> Self {
        Self { capacity, delay, queue: 300_000, loss: 0, free_at: 0.0, random: SplitMix(7) }
    }

    fn is_full(&self, now: u64) -> bool {
        self.free_at - now as f64 > self.queue as f64
    }

    /// When a packet sent at `now` arrives.
    fn carry(&mut self, now: u64, size: u16) -> Option<u64> {
        let start = self.free_at.max(now as f64);
        if self.random.next() % 100 < self.loss || self.is_full(now) {
            return None;
        }
        self.free_at = start + f64::from(size) * 8e6 / self.capacity;
        Some(whole(self.free_at) + self.delay)
    }
}

/// Who gives the feedback.
enum Recorder {
    Ours(ArrivalRecorder),
    Libwebrtc(Arrivals),
}

impl Recorder {
    fn record(&mut self, at: u64, number: u16) {
        match self {
            Self::Ours(recorder) => recorder.record(Time(at), number),
            Self::Libwebrtc(arrivals) => arrivals.record(at, number),
        }
    }

    fn report(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Ours(recorder) => {
                let packet: Box<dyn Packet> = Box::new(recorder.report(1, 2)?);
                Some(rtcp::compound(&[packet]).unwrap()[12..].to_vec())
            }
            Self::Libwebrtc(arrivals) => arrivals.report(),
        }
    }
}

struct Run {
    bandwidth: Bandwidth,
    path: Path,
    now: u64,
    flying: VecDeque<(u64, u16)>,
    feedback: VecDeque<(u64, Vec<u8>)>,
    recorder: Recorder,
    layer: Option<u8>,
    changes: u32,
    sent: u64,
    lost: u64,
    /// Longest time a packet waited in the queue, microseconds.
    worst_wait: u64,
    /// Of each step, bits per second.
    rates: Vec<u64>,
    record: Record,
}

impl Run {
    fn new(path: Path) -> Self {
        Self {
            bandwidth: Bandwidth::new(),
            path,
            now: 10_000_000,
            flying: VecDeque::new(),
            feedback: VecDeque::new(),
            recorder: Recorder::Ours(ArrivalRecorder::new()),
            layer: None,
            changes: 0,
            sent: 0,
            lost: 0,
            worst_wait: 0,
            rates: LAYERS.to_vec(),
            record: Record::default(),
        }
    }

    fn send(&mut self, payload: usize) {
        let now = Time(self.now);
        let number = self.bandwidth.next_number();
        self.bandwidth.sent(now, payload);
        self.sent += 1;
        let size = u16::try_from(payload + OVERHEAD).unwrap();
        match self.path.carry(self.now, size) {
            Some(at) => {
                let wait = at - self.now - self.path.delay;
                self.worst_wait = self.worst_wait.max(wait);
                if wait > LONG_WAIT {
                    self.record.congested.push(self.now);
                }
                if payload != PADDING {
                    self.record.arrived.push((at, size.into()));
                    self.record.frames.push(at);
                }
                self.flying.push_back((at, number));
            }
            None => {
                self.lost += 1;
                if self.path.is_full(self.now) {
                    self.record.congested.push(self.now);
                }
            }
        }
    }

    /// Another node served the peer so far, and this one does from now on.
    fn move_here(&mut self) {
        self.bandwidth = Bandwidth::new();
        self.flying.clear();
        self.feedback.clear();
        self.layer = None;
    }

    /// Lets so many seconds pass.
    fn seconds(&mut self, seconds: u64) -> &mut Self {
        self.pass(seconds * 1_000_000);
        self
    }

    fn pass(&mut self, micros: u64) {
        let end = self.now + micros;
        while self.now < end {
            self.now += STEP;
            self.step();
        }
    }

    fn step(&mut self) {
        let now = Time(self.now);
        while let Some((at, number)) = self.flying.front().copied().filter(|(at, _)| *at <= self.now) {
            self.recorder.record(at, number);
            self.flying.pop_front();
        }
        if self.now.is_multiple_of(FEEDBACK)
            && let Some(report) = self.recorder.report()
        {
            self.feedback.push_back((self.now + self.path.delay, report));
        }
        while let Some((_, body)) = self.feedback.pop_front_if(|(at, _)| *at <= self.now) {
            self.bandwidth.heard(now, &body).unwrap();
            self.choose();
        }
        if self.layer.is_none() {
            self.choose();
        }
        if self.now % FRAME < STEP
            && let Some(layer) = self.layer
        {
            let mut left = self.rates[usize::from(layer)] * FRAME / 8_000_000;
            while left > 0 {
                let payload = left.min(1_100);
                left -= payload;
                self.send(usize::try_from(payload).unwrap());
            }
        }
        while self.bandwidth.padding_due(now) > 0 {
            self.send(PADDING);
        }
        self.bandwidth.next_due(now);
    }

    fn choose(&mut self) {
        let full = |layer| Quality { layer, temporal: u8::MAX };
        let steps = (0..).map(full).zip(self.rates.iter().copied()).collect();
        let given = self.layer.map(full);
        let mut candidates = [Candidate { slot: 0, priority: 0, steps, limit: Quality::BEST, given }];
        let shortfall = allocate(self.bandwidth.estimate(), &mut candidates);
        if let Some(wanted) = shortfall.wanted {
            self.bandwidth.probe_for(Time(self.now), wanted);
        }
        let given = candidates[0].given.map(|given| given.layer);
        if self.layer != given {
            self.changes += 1;
            self.layer = given;
        }
    }

    /// Seconds, in tenths, until this layer goes out; it is an error if that takes longer than `limit` seconds.
    fn reaches(&mut self, layer: u8, limit: u64) -> f64 {
        let start = self.now;
        while self.layer != Some(layer) {
            assert!(
                self.now - start < limit * 1_000_000,
                "layer {:?} at {} bit/s",
                self.layer,
                self.bandwidth.estimate()
            );
            self.pass(10_000);
        }
        (self.now - start) as f64 / 1e6
    }

    fn keeps(&mut self, layer: u8, seconds: u64) {
        let changes = self.changes;
        self.seconds(seconds);
        assert_eq!((self.layer, self.changes), (Some(layer), changes), "at {} bit/s", self.bandwidth.estimate());
    }
}

#[test]
fn a_good_path_gets_the_best_layer_at_once_and_keeps_it() {
    for delay in [10_000, 100_000] {
        let mut run = Run::new(Path::new(20e6, delay));
        run.pass(1_000);
        run.keeps(2, 60);
        assert_eq!(run.lost, 0);
    }
}

#[test]
fn a_poor_path_gets_the_layer_that_fits_within_two_seconds_and_keeps_it() {
    for delay in [10_000, 100_000] {
        let mut run = Run::new(Path::new(800_000.0, delay));
        run.reaches(2, 1);
        run.reaches(1, 2);
        run.seconds(3);
        run.keeps(1, 60);
    }
}

#[test]
fn steps_of_the_rate_are_followed_both_ways() {
    for delay in [10_000, 50_000, 100_000] {
        let mut run = Run::new(Path::new(3e6, delay));
        run.seconds(10);
        assert_eq!(run.layer, Some(2));
        run.path.capacity = 500_000.0;
        run.reaches(0, 3);
        run.seconds(20);
        assert_eq!(run.layer, Some(0));
        run.path.capacity = 3e6;
        run.reaches(2, 20);
        run.seconds(2);
        run.keeps(2, 20);
    }
}

#[test]
fn after_a_cliff_the_queue_drains_within_two_seconds() {
    let mut run = Run::new(Path::new(5e6, 20_000));
    run.seconds(10);
    run.path.capacity = 250_000.0;
    run.seconds(3);
    run.worst_wait = 0;
    run.seconds(10);
    assert_eq!(run.layer, Some(0));
    assert!(run.worst_wait < 150_000, "waited {} us", run.worst_wait);
}

#[test]
fn loss_alone_does_not_take_the_picture_away() {
    for loss in [1, 5] {
        let mut run = Run::new(Path { loss, ..Path::new(10e6, 30_000) });
        run.seconds(60);
        assert_eq!(run.layer, Some(2), "{loss} %");
    }
}

#[test]
fn a_path_just_too_narrow_is_not_flooded_by_probes() {
    let mut run = Run::new(Path::new(1_200_000.0, 30_000));
    run.seconds(20);
    (run.sent, run.lost, run.changes) = (0, 0, 0);
    run.seconds(60);
    assert_eq!(run.layer, Some(1));
    assert!(run.changes <= 2, "flapped {} times", run.changes);
    assert!(run.lost * 100 <= run.sent, "{} of {} lost", run.lost, run.sent);
}

/// Estimators with fine steps on paths that lose so many of a hundred, with the delay in milliseconds.
fn each_path(losses: &[u64], mut judge: impl FnMut(&str, Run)) {
    for delay in [20, 100, 200] {
        for loss in losses {
            let mut run = Run::new(Path { loss: *loss, ..Path::new(3e6, delay * 1_000) });
            run.rates = STEPS.to_vec();
            judge(&format!("{loss} % lost, {delay} ms"), run);
        }
    }
}

#[test]
fn a_path_that_loses_at_random_is_used() {
    each_path(&[1, 5, 10], |path, mut run| {
        let from = run.seconds(3).now;
        run.seconds(57);
        let share = run.record.share(from, run.now, 3e6);
        assert!(share >= SHARE, "{path}: {share}");
        assert_eq!(run.layer, Some(5), "{path}");
    });
}

#[test]
fn a_path_that_becomes_narrow_and_wide_again_is_used() {
    each_path(&[0, 1, 5], |path, mut run| {
        let narrow = run.seconds(20).now;
        run.path.capacity = 500_000.0;
        let wide = run.seconds(40).now;
        run.path.capacity = 3e6;
        let end = run.seconds(40).now;
        let drained = run.record.adapted(narrow, wide, 0.5e6, 0.0);
        assert!(drained.is_some_and(|time| time <= ADAPTS_DOWN), "{path}: {drained:?}");
        let share = run.record.share(narrow + 20_000_000, wide, 0.5e6);
        assert!(share >= SHARE, "{path}: {share}");
        let gap = run.record.longest_gap(narrow, wide);
        assert!(gap <= GAP_AT_CHANGE, "{path}: {gap:?}");
        let used = run.record.adapted(wide, end, 3e6, SHARE);
        assert!(used.is_some_and(|time| time <= ADAPTS_UP), "{path}: {used:?}");
    });
}

#[test]
fn after_a_cliff_what_is_left_is_used() {
    each_path(&[0, 1, 5], |path, mut run| {
        let narrow = run.seconds(10).now;
        run.path.capacity = 250_000.0;
        let end = run.seconds(40).now;
        let drained = run.record.adapted(narrow, end, 0.25e6, 0.0);
        assert!(drained.is_some_and(|time| time <= ADAPTS_DOWN), "{path}: {drained:?}");
        let share = run.record.share(narrow + 20_000_000, end, 0.25e6);
        assert!(share >= SHARE, "{path}: {share}");
        let gap = run.record.longest_gap(narrow, end);
        assert!(gap <= GAP_AT_CHANGE, "{path}: {gap:?}");
    });
}

#[test]
fn what_went_to_an_address_that_the_peer_had_left_is_no_congestion() {
    let mut untold = Run::new(Path::new(20e6, 20_000));
    untold.seconds(10);
    let before = untold.bandwidth.estimate();
    untold.path.loss = 100;
    untold.pass(300_000);
    untold.path.loss = 0;
    untold.seconds(1);
    assert!(untold.bandwidth.estimate() < before / 2, "without a word of it, it is");
    for gap in [50_000, 300_000, 900_000] {
        let mut run = Run::new(Path::new(20e6, 20_000));
        run.seconds(10);
        let before = run.bandwidth.estimate();
        for _ in 0..5 {
            run.path.loss = 100;
            run.pass(gap);
            run.path.loss = 0;
            run.bandwidth.path_changed(Time(run.now));
            run.keeps(2, 2);
        }
        assert!(run.bandwidth.estimate() >= before, "{} after {before} bit/s", run.bandwidth.estimate());
    }
}

#[test]
fn a_path_that_is_changed_for_a_narrow_one_is_not_flooded_for_long() {
    let mut run = Run::new(Path::new(20e6, 20_000));
    run.seconds(10);
    run.path.capacity = 400_000.0;
    run.bandwidth.path_changed(Time(run.now));
    run.reaches(0, 2);
    run.seconds(5);
    run.worst_wait = 0;
    run.seconds(10);
    assert!(run.worst_wait < 300_000, "{} us in the queue", run.worst_wait);
}
