//! Shares what a subscriber's path carries among the videos it receives. **Pure: rates and wishes in, layers out.**

use std::cmp::Reverse;

use arrayvec::ArrayVec;

use crate::media::api::MAX_LAYERS;

/// A layer above the one going out must fit with room to spare, so that layers do not flap. Per cent of its rate.
const UPGRADE_PERCENT: u64 = 115;
/// A layer going out may exceed its share by a little before it is taken away.
const KEEP_PERCENT: u64 = 95;

/// Most steps of a video: four frame rates of its lowest layer, two of each other one.
pub(crate) const MAX_STEPS: usize = 4 + 2 * (MAX_LAYERS - 1);

/// How good a picture is: layer first, then frame rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quality {
    /// Simulcast or spatial layer.
    pub(crate) layer: u8,
    /// Temporal layer of it; the greatest there is: its full frame rate.
    pub(crate) temporal: u8,
}

impl Quality {
    /// All there is.
    pub(crate) const BEST: Self = Self { layer: u8::MAX, temporal: u8::MAX };

    /// No layer above this one.
    pub(crate) fn up_to(self, layer: u8) -> Self {
        if self.layer > layer { Self { layer, temporal: u8::MAX } } else { self }
    }
}

/// A quality and what it costs, bits per second.
pub(crate) type Step = (Quality, u64);

/// A video that is subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Slot of the subscription.
    pub(crate) slot: usize,
    /// Higher first.
    pub(crate) priority: u8,
    /// What of it is live, the least first.
    pub(crate) steps: ArrayVec<Step, MAX_STEPS>,
    /// The best the subscriber wants.
    pub(crate) limit: Quality,
    /// What it was given before; `None`: nothing.
    pub(crate) given: Option<Quality>,
}

impl Candidate {
    fn wanted(&self) -> impl Iterator<Item = Step> + '_ {
        let least = self.steps.first().map(|(quality, _)| *quality);
        self.steps.iter().copied().filter(move |(quality, _)| {
            let wanted = quality.layer <= self.limit.layer && quality.temporal <= self.limit.temporal;
            wanted || Some(*quality) == least
        })
    }

    /// The least that can go out.
    pub(crate) fn least(&self) -> Option<Step> {
        self.wanted().next()
    }

    /// What a step counts for: one that is not going out yet needs room to spare.
    fn cost(&self, (quality, rate): Step) -> u64 {
        let percent = if self.given.is_some_and(|given| quality <= given) { KEEP_PERCENT } else { UPGRADE_PERCENT };
        rate.saturating_mul(percent) / 100
    }
}

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shortfall {
    /// Bits per second of all videos with which the next better picture would fit; `None`: all have what they want.
    pub(crate) wanted: Option<u64>,
}

/// Gives each candidate a layer, or none, within `budget` bits per second: the lowest to as many as possible in the order
/// of their priority, then one more layer at a time. Writes it to `given`.
pub(crate) fn allocate(budget: u64, candidates: &mut [Candidate]) -> Shortfall {
    candidates.sort_by_key(|candidate| Reverse(candidate.priority));
    let (mut spent, mut shortfall) = (0_u64, Shortfall::default());
    let mut chosen: Vec<Option<Step>> = Vec::with_capacity(candidates.len());
    for candidate in candidates.iter() {
        let least = candidate.least();
        let cost = least.map_or(0, |step| candidate.cost(step));
        let fits = spent + cost <= budget;
        if fits {
            spent += cost;
        } else {
            shortfall.miss(spent + cost);
        }
        chosen.push(least.filter(|_| fits));
    }
    loop {
        let mut raised = false;
        for (candidate, chosen) in candidates.iter().zip(&mut chosen) {
            let Some(now) = *chosen else { continue };
            let Some(next) = candidate.wanted().find(|(quality, _)| *quality > now.0) else { continue };
            let total = spent - candidate.cost(now).min(spent) + candidate.cost(next);
            if total <= budget {
                spent = total;
                *chosen = Some(next);
                raised = true;
            } else {
                shortfall.miss(total);
            }
        }
        if !raised {
            break;
        }
    }
    for (candidate, chosen) in candidates.iter_mut().zip(chosen) {
        candidate.given = chosen.map(|(quality, _)| quality);
    }
    shortfall
}

impl Shortfall {
    fn miss(&mut self, total: u64) {
        self.wanted = Some(self.wanted.map_or(total, |wanted| wanted.min(total)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u8 = u8::MAX;

    fn full(layer: u8) -> Quality {
        Quality { layer, temporal: FULL }
    }

    fn candidate(priority: u8, rates: &[u64], given: Option<u8>) -> Candidate {
        let steps = (0..).map(full).zip(rates.iter().copied()).collect();
        Candidate { slot: 0, priority, steps, limit: full(2), given: given.map(full) }
    }

    const SIMULCAST: [u64; 3] = [150, 500, 1700];

    fn given(budget: u64, candidates: &[Candidate]) -> (Vec<Option<u8>>, Option<u64>) {
        let mut candidates = candidates.to_vec();
        let shortfall = allocate(budget, &mut candidates);
        (candidates.iter().map(|candidate| candidate.given.map(|given| given.layer)).collect(), shortfall.wanted)
    }

    #[test]
    fn everyone_gets_the_lowest_before_anyone_gets_more() {
        let three = vec![candidate(0, &SIMULCAST, None); 3];
        assert_eq!(given(10_000, &three), (vec![Some(2); 3], None));
        assert_eq!(given(600, &three).0, [Some(0); 3]);
        assert_eq!(given(1_000, &three).0, [Some(1), Some(0), Some(0)]);
        assert_eq!(given(400, &three).0, [Some(0), Some(0), None], "what does not fit is paused");
    }

    #[test]
    fn the_more_important_is_served_first() {
        let two = [candidate(0, &SIMULCAST, None), candidate(1, &[1_000], None)];
        let mut candidates = two.to_vec();
        allocate(1_200, &mut candidates);
        assert_eq!((candidates[0].priority, candidates[0].given), (1, Some(full(0))));
        assert_eq!(candidates[1].given, None);
    }

    #[test]
    fn a_layer_is_kept_where_it_would_not_be_taken_up() {
        let fits_tightly = 1_700;
        assert_eq!(given(fits_tightly, &[candidate(0, &SIMULCAST, Some(2))]), (vec![Some(2)], None));
        let (layers, wanted) = given(fits_tightly, &[candidate(0, &SIMULCAST, Some(1))]);
        assert_eq!((layers, wanted), (vec![Some(1)], Some(1_955)));
    }

    #[test]
    fn only_what_is_wanted_and_live_is_given() {
        let mut small = candidate(0, &SIMULCAST, None);
        small.limit = full(0);
        assert_eq!(given(10_000, &[small]), (vec![Some(0)], None));
        let mut upper_only = candidate(0, &[], None);
        upper_only.steps.push((full(2), 1700));
        upper_only.limit = full(0);
        assert_eq!(given(10_000, &[upper_only]).0, [Some(2)], "better too good than nothing");
        assert_eq!(given(10_000, &[candidate(0, &[], Some(1))]).0, [None]);
    }

    #[test]
    fn frame_rates_are_steps_between_layers() {
        let at = |layer, temporal| Quality { layer, temporal };
        let steps =
            [(at(0, 0), 60), (at(0, FULL), 150), (at(1, 1), 300), (full(1), 500), (at(2, 1), 1_000), (full(2), 1_700)];
        let mut video = candidate(0, &[], None);
        video.steps.extend(steps);
        let mut of = |budget: u64, limit: Quality| {
            video.limit = limit;
            video.given = None;
            let wanted = allocate(budget, std::slice::from_mut(&mut video)).wanted;
            (video.given, wanted)
        };
        assert_eq!(of(50, full(2)), (None, Some(69)));
        assert_eq!(of(100, full(2)), (Some(at(0, 0)), Some(172)));
        assert_eq!(of(1_200, full(2)), (Some(at(2, 1)), Some(1_955)));
        assert_eq!(of(10_000, full(2)), (Some(full(2)), None));
        assert_eq!(of(10_000, full(1)), (Some(full(1)), None));
        assert_eq!(of(10_000, at(2, 1)), (Some(at(2, 1)), None), "no more frames than asked for");
    }
}
