//! When a shard that cannot keep up leaves something out, and when it takes it back: quickly and slowly. **Pure: load and
//! time are given.**

use std::time::{Duration, Instant};

use crate::media::relief::Relief;

/// Share of a core from which more is left out.
const TOO_BUSY: f32 = 0.85;
/// Share from which much more is: what waits grows already.
const SATURATED: f32 = 0.95;
/// Share below which something is taken back; a step changes less than what lies between.
const CALM: f32 = 0.65;
/// Datagrams dropped at full buffers tell of too much load only from this share on: below it, others took the CPU.
const LOADED: f32 = 0.5;
/// Calm before a step is taken back: at first, and at most.
const MIN_CALM: Duration = Duration::from_secs(5);
const MAX_CALM: Duration = Duration::from_secs(60);

/// The load of about a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Share of a core that the shard's thread took.
    pub(super) busy: f32,
    /// Datagrams were dropped at full socket buffers.
    pub(super) dropping: bool,
}

/// The policy's state.
#[derive(Debug)]
pub(super) struct Overload {
    relief: Relief,
    /// The load has been low since, or the last step was taken back then.
    calm_since: Option<Instant>,
    /// How long it must be low before the next step is taken back.
    calm: Duration,
    /// The last step was one back: if it was wrong, the next takes longer.
    gave_back: bool,
}

impl Overload {
    /// Nothing is left out.
    pub(super) fn new() -> Self {
        Self { relief: Relief::NONE, calm_since: None, calm: MIN_CALM, gave_back: false }
    }

    /// What is left out.
    pub(super) fn relief(&self) -> Relief {
        self.relief
    }

    /// Takes the load since the last call; about one a second.
    pub(super) fn observe(&mut self, now: Instant, load: Load) -> Relief {
        let dropping = load.dropping && load.busy >= LOADED;
        if load.busy >= TOO_BUSY || dropping {
            self.calm_since = None;
            if std::mem::take(&mut self.gave_back) {
                self.calm = (2 * self.calm).min(MAX_CALM);
            }
            let steps = if load.busy >= SATURATED || dropping { Relief::PHASE } else { 1 };
            self.relief = self.relief.more(steps);
        } else if load.busy >= CALM || self.relief == Relief::NONE {
            self.calm_since = None;
        } else {
            let since = *self.calm_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= self.calm {
                if std::mem::replace(&mut self.gave_back, true) {
                    self.calm = (self.calm / 2).max(MIN_CALM);
                }
                self.relief = self.relief.less();
                self.calm_since = Some(now);
            }
        }
        self.relief
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard whose load follows what it leaves out, second by second.
    struct Story {
        overload: Overload,
        now: Instant,
        /// Share of a core it would take if nothing were left out.
        demand: f32,
        changes: u32,
    }

    impl Story {
        fn new(demand: f32) -> Self {
            Self { overload: Overload::new(), now: Instant::now(), demand, changes: 0 }
        }

        fn busy(&self) -> f32 {
            let left = 1.0 - f32::from(self.overload.relief().steps()) / f32::from(Relief::MOST.steps());
            (self.demand * left).min(1.0)
        }

        fn pass(&mut self, seconds: u32) -> u8 {
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                let (before, load) = (self.overload.relief(), Load { busy: self.busy(), dropping: false });
                self.changes += u32::from(self.overload.observe(self.now, load) != before);
            }
            self.overload.relief().steps()
        }
    }

    #[test]
    fn a_shard_with_room_leaves_nothing_out() {
        assert_eq!(Story::new(0.84).pass(1000), 0);
    }

    #[test]
    fn too_much_is_met_within_seconds_and_only_as_far_as_needed() {
        let mut twice = Story::new(2.0);
        twice.pass(6);
        assert!((0.5..0.85).contains(&twice.busy()), "{}", twice.busy());
        let mut little = Story::new(0.9);
        assert!((1..=3).contains(&little.pass(5)), "a little too much costs a little");
    }

    #[test]
    fn what_was_left_out_comes_back_slowly_when_the_load_is_gone() {
        let mut story = Story::new(2.0);
        let most = story.pass(20);
        story.demand = 0.3;
        assert_eq!(story.pass(4), most, "not at once");
        let some = story.pass(30);
        assert!(some < most && some > 0, "{some} of {most}");
        assert_eq!(story.pass(300), 0);
    }

    #[test]
    fn it_does_not_flap() {
        // What a step saves is the whole difference between too busy and calm.
        let (mut overload, mut now, mut changes) = (Overload::new(), Instant::now(), 0);
        for _ in 0..3600 {
            now += Duration::from_secs(1);
            let before = overload.relief();
            let busy = if before == Relief::NONE { 0.9 } else { 0.5 };
            changes += u32::from(overload.observe(now, Load { busy, dropping: false }) != before);
        }
        assert!(changes <= 2 * 3600 / 60 + 12, "{changes} changes in an hour");
    }

    #[test]
    fn drops_count_when_the_shard_is_the_reason() {
        let (mut overload, now) = (Overload::new(), Instant::now());
        assert_eq!(overload.observe(now, Load { busy: 0.3, dropping: true }), Relief::NONE);
        assert!(overload.observe(now, Load { busy: 0.6, dropping: true }) > Relief::NONE);
    }
}
