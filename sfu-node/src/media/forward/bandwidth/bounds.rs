//! What is promised on bad paths, and how it is measured: of the estimator alone and of the whole packet path.

use std::time::Duration;

/// Where a path becomes narrower, no queue stands in front of it any more after this time: it has to build up before it is
/// seen, and the rate that still arrives has to be measured.
pub(crate) const ADAPTS_DOWN: Duration = Duration::from_secs(4);
/// Where it becomes wider it is used again after this time: a probe at most doubles the estimate, after some that found
/// nothing the next waits for up to 5 s, and what is lost may make one tell nothing.
pub(crate) const ADAPTS_UP: Duration = Duration::from_secs(15);
/// Share of the path that media uses in the steady state: the next better layer or frame rate costs up to half more again,
/// and must fit with room to spare. What is lost does not count.
pub(crate) const SHARE: f64 = 0.5;
/// The same where up to a tenth is lost: what is sent again comes in bursts, and may look like a narrower path for a while.
pub(crate) const SHARE_WITH_LOSS: f64 = 0.4;
/// How often a better layer is taken away again in half a minute on a path that stays as it is: that one fits has to be
/// tried.
pub(crate) const FALLS: usize = 2;
/// Longest time without a new frame on a steady path that loses at random, besides the round trips: what is lost is sent
/// again, and that may be lost, too.
pub(crate) const GAP: Duration = Duration::from_millis(700);
/// Those round trips where up to a twentieth is lost, and where up to a tenth.
pub(crate) const GAP_ROUND_TRIPS: u32 = 4;
pub(crate) const GAP_ROUND_TRIPS_WITH_LOSS: u32 = 7;
/// Longest time without a new frame where a path becomes narrower, besides two round trips: what waits in front of it
/// drains first, then a keyframe comes.
pub(crate) const GAP_AT_CHANGE: Duration = Duration::from_secs(3);

/// Time over which rates are looked at, microseconds.
const BIN: u64 = 500_000;
/// Bins in a row that must be as promised.
const STEADY: u64 = 4;

/// What came over a path; times in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Media that arrived, each packet once, and its bytes on the wire.
    pub(crate) arrived: Vec<(u64, usize)>,
    /// When packets waited long in front of the path, or found no room.
    pub(crate) congested: Vec<u64>,
    /// When frames could be shown.
    pub(crate) frames: Vec<u64>,
    /// When a lower layer was shown in place of a better one.
    pub(crate) falls: Vec<u64>,
}

impl Record {
    /// Share of so many bits per second that media used.
    pub(crate) fn share(&self, from: u64, to: u64, capacity: f64) -> f64 {
        let inside = self.arrived.iter().filter(|(at, _)| (from..to).contains(at));
        inside.map(|(_, bytes)| bytes * 8).sum::<usize>() as f64 * 1e6 / (to - from) as f64 / capacity
    }

    /// Time after `from` from which on that share of the path is used, and no queue stands in front of it.
    pub(crate) fn adapted(&self, from: u64, to: u64, capacity: f64, share: f64) -> Option<Duration> {
        let good = |start: u64| {
            let end = start + BIN;
            self.share(start, end, capacity) >= share && !self.congested.iter().any(|at| (start..end).contains(at))
        };
        let bins = (0..(to - from) / BIN).map(|bin| from + bin * BIN);
        let mut starts = bins.filter(|start| (0..STEADY).all(|bin| good(start + bin * BIN)));
        starts.next().map(|start| Duration::from_micros(start - from))
    }

    /// How often a better layer was taken away.
    pub(crate) fn falls(&self, from: u64, to: u64) -> usize {
        self.falls.iter().filter(|at| (from..to).contains(at)).count()
    }

    /// Longest time without a frame.
    pub(crate) fn longest_gap(&self, from: u64, to: u64) -> Duration {
        let inside = self.frames.iter().copied().filter(|at| (from..to).contains(at));
        let times: Vec<u64> = [from].into_iter().chain(inside).chain([to]).collect();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        Duration::from_micros(longest)
    }
}
