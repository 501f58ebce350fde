//! One viewer at the end of a bad path: the whole packet path keeps what is promised of time to adapt, use of the path and
//! frames that can be shown.

use super::link::Weather;
use super::publisher::Shape;
use super::*;
use crate::media::forward::bandwidth::OVERHEAD;
use crate::media::forward::bandwidth::bounds::{
    ADAPTS_DOWN, ADAPTS_UP, FALLS, GAP, GAP_AT_CHANGE, GAP_ROUND_TRIPS, GAP_ROUND_TRIPS_WITH_LOSS, Record, SHARE,
    SHARE_WITH_LOSS,
};

const VIEWER: u64 = 1;
/// 0.15, 0.5 and 2.4 Mbit/s, about half of it without the highest temporal layer.
const LARGE: Shape = [(1, 500), (2, 1000), (9, 1000)];

/// A time with one capacity, bits per second.
#[derive(Debug, Clone, Copy)]
struct Phase {
    from: u64,
    to: u64,
    capacity: f64,
}

struct Call {
    world: World,
    phases: Vec<Phase>,
    round_trip: Duration,
}

impl Call {
    fn new(seed: u64, lost: u32, delay: u64) -> Self {
        let delay = Duration::from_millis(delay);
        let mut world = World::with_publisher(seed, 1, Weather::fair(Duration::from_millis(1)));
        world.publisher.shape = LARGE;
        let mut viewer = world.viewer(VIEWER);
        viewer.steady = true;
        viewer.retry = viewer.retry.max(2 * delay + Duration::from_millis(30));
        world.add(viewer, Weather { lost, ..Weather::fair(delay) });
        Self { world, phases: Vec::new(), round_trip: 2 * delay }
    }

    /// The way to the viewer carries so many bits per second for so long.
    fn over(mut self, capacity: f64, seconds: u64) -> Self {
        let from = self.micros(self.world.now);
        self.world.links.get_mut(&VIEWER).unwrap().1.weather.capacity = Some(capacity);
        self.world.run_until(self.world.now + Duration::from_secs(seconds));
        self.phases.push(Phase { from, to: self.micros(self.world.now), capacity });
        self
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from((at - self.world.origin).as_micros()).unwrap()
    }

    fn record(&mut self) -> Record {
        let falls = |pair: &&[Shown]| pair[1].layer < pair[0].layer;
        let mut viewer = self.world.viewers.remove(&VIEWER).unwrap();
        let judgement = viewer.judge(self.world.now);
        Record {
            arrived: viewer.received.iter().map(|(at, len)| (self.micros(*at), len + OVERHEAD)).collect(),
            congested: self.world.links[&VIEWER].1.congested.iter().map(|at| self.micros(*at)).collect(),
            frames: judgement.camera.iter().map(|shown| self.micros(shown.at)).collect(),
            falls: judgement.camera.windows(2).filter(falls).map(|pair| self.micros(pair[1].at)).collect(),
        }
    }
}

/// Each seed's paths: what to say of one, and a call over it that is about to begin. `losses`: of a thousand.
fn each_path(losses: &[u32], mut judge: impl FnMut(&str, u32, Call)) {
    for seed in seeds() {
        for delay in [20, 100, 200] {
            for lost in losses {
                let path = format!("seed {seed}, {lost} of a thousand lost, {delay} ms");
                judge(&path, *lost, Call::new(seed, *lost, delay));
            }
        }
    }
}

fn pauses(call: &Call) -> usize {
    call.world.node.events.iter().filter(|event| matches!(event, Event::Paused { paused: true, .. })).count()
}

#[test]
fn a_steady_path_that_loses_at_random_shows_the_best_layer() {
    each_path(&[0, 10, 50, 100], |path, lost, call| {
        let mut call = call.over(3e6, 30);
        let (record, phase) = (call.record(), call.phases[0]);
        assert_eq!(pauses(&call), 0, "{path}");
        let (least, round_trips) =
            if lost <= 50 { (SHARE, GAP_ROUND_TRIPS) } else { (SHARE_WITH_LOSS, GAP_ROUND_TRIPS_WITH_LOSS) };
        let steady = phase.from + 3_000_000;
        let share = record.share(steady, phase.to, phase.capacity);
        assert!(share >= least, "{path}: {share}");
        let falls = record.falls(steady, phase.to);
        assert!(falls <= FALLS, "{path}: {falls}");
        let gap = record.longest_gap(phase.from + 1_000_000, phase.to);
        assert!(gap <= GAP + round_trips * call.round_trip, "{path}: {gap:?}");
    });
}

#[test]
fn a_path_that_becomes_narrow_and_wide_again_is_followed() {
    each_path(&[0, 10, 50], |path, _, call| {
        let mut call = call.over(3e6, 20).over(0.5e6, 40).over(3e6, 40);
        let record = call.record();
        let [_, narrow, wide] = call.phases[..] else { unreachable!() };
        let drained = record.adapted(narrow.from, narrow.to, narrow.capacity, 0.0);
        assert!(drained.is_some_and(|time| time <= ADAPTS_DOWN), "{path}: {drained:?}");
        let share = record.share(narrow.from + 20_000_000, narrow.to, narrow.capacity);
        assert!(share >= SHARE, "{path}: {share}");
        let falls = record.falls(narrow.from + 5_000_000, narrow.to);
        assert!(falls <= FALLS, "{path}: {falls}");
        let gap = record.longest_gap(narrow.from, narrow.to);
        assert!(gap <= GAP_AT_CHANGE + 2 * call.round_trip, "{path}: {gap:?}");
        let used = record.adapted(wide.from, wide.to, wide.capacity, SHARE);
        assert!(used.is_some_and(|time| time <= ADAPTS_UP), "{path}: {used:?}");
        let falls = record.falls(wide.from, wide.to);
        assert!(falls <= FALLS, "{path}: {falls}");
        let gap = record.longest_gap(wide.from, wide.to);
        assert!(gap <= GAP + GAP_ROUND_TRIPS * call.round_trip, "{path}: {gap:?}");
    });
}

#[test]
fn after_a_cliff_there_is_a_picture_again_soon() {
    each_path(&[0, 10, 50], |path, _, call| {
        let mut call = call.over(3e6, 10).over(0.3e6, 40);
        let record = call.record();
        let narrow = call.phases[1];
        let drained = record.adapted(narrow.from, narrow.to, narrow.capacity, 0.0);
        assert!(drained.is_some_and(|time| time <= ADAPTS_DOWN), "{path}: {drained:?}");
        let share = record.share(narrow.from + 20_000_000, narrow.to, narrow.capacity);
        assert!(share >= SHARE, "{path}: {share}");
        let falls = record.falls(narrow.from + 5_000_000, narrow.to);
        assert!(falls <= FALLS, "{path}: {falls}");
        let gap = record.longest_gap(narrow.from, narrow.to);
        assert!(gap <= GAP_AT_CHANGE + 2 * call.round_trip, "{path}: {gap:?}");
    });
}
