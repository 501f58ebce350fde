//! Shares what a subscriber's path carries among the videos it receives. **Pure: rates and wishes in, layers out.**

use std::cmp::Reverse;

use arrayvec::ArrayVec;

use crate::media::api::MAX_LAYERS;

/// A layer above the one going out must fit with room to spare, so that layers do not flap. Per cent of its rate.
const UPGRADE_PERCENT: u64 = 115;
/// A layer going out may exceed its share by a little before it is taken away.
const KEEP_PERCENT: u64 = 95;

/// A video that is subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Slot of the subscription.
    pub(crate) slot: usize,
    /// Higher first.
    pub(crate) priority: u8,
    /// Bits per second of each layer that is live, lowest first.
    pub(crate) layers: ArrayVec<(u8, u64), MAX_LAYERS>,
    /// Highest layer the subscriber wants.
    pub(crate) limit: u8,
    /// What it was given before; `None`: nothing.
    pub(crate) given: Option<u8>,
}

impl Candidate {
    fn wanted(&self) -> impl DoubleEndedIterator<Item = (u8, u64)> + '_ {
        let lowest = self.layers.first().map_or(0, |(layer, _)| *layer);
        self.layers.iter().copied().filter(move |(layer, _)| *layer <= self.limit.max(lowest))
    }

    /// What a layer counts for: one that is not going out yet needs room to spare.
    fn cost(&self, layer: u8, rate: u64) -> u64 {
        let percent = if self.given.is_some_and(|given| layer <= given) { KEEP_PERCENT } else { UPGRADE_PERCENT };
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
    let mut chosen: Vec<Option<u8>> = Vec::with_capacity(candidates.len());
    for candidate in candidates.iter() {
        let lowest = candidate.wanted().next();
        let cost = lowest.map_or(0, |(layer, rate)| candidate.cost(layer, rate));
        let fits = spent + cost <= budget;
        if fits {
            spent += cost;
        } else {
            shortfall.miss(spent + cost);
        }
        chosen.push(lowest.filter(|_| fits).map(|(layer, _)| layer));
    }
    loop {
        let mut raised = false;
        for (candidate, chosen) in candidates.iter().zip(&mut chosen) {
            let Some(now) = *chosen else { continue };
            let cost_of =
                |layer: u8| candidate.wanted().find(|(l, _)| *l == layer).map(|(l, rate)| candidate.cost(l, rate));
            let Some((next, rate)) = candidate.wanted().find(|(layer, _)| *layer > now) else { continue };
            let total = spent - cost_of(now).unwrap_or(0).min(spent) + candidate.cost(next, rate);
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
        candidate.given = chosen;
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

    fn candidate(priority: u8, rates: &[u64], given: Option<u8>) -> Candidate {
        let layers = (0..).zip(rates.iter().copied()).collect();
        Candidate { slot: 0, priority, layers, limit: 2, given }
    }

    const SIMULCAST: [u64; 3] = [150, 500, 1700];

    fn given(budget: u64, candidates: &[Candidate]) -> (Vec<Option<u8>>, Option<u64>) {
        let mut candidates = candidates.to_vec();
        let shortfall = allocate(budget, &mut candidates);
        (candidates.iter().map(|candidate| candidate.given).collect(), shortfall.wanted)
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
        assert_eq!((candidates[0].priority, candidates[0].given), (1, Some(0)));
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
        small.limit = 0;
        assert_eq!(given(10_000, &[small]), (vec![Some(0)], None));
        let mut upper_only = candidate(0, &[], None);
        upper_only.layers.push((2, 1700));
        upper_only.limit = 0;
        assert_eq!(given(10_000, &[upper_only]).0, [Some(2)], "better too good than nothing");
        assert_eq!(given(10_000, &[candidate(0, &[], Some(1))]).0, [None]);
    }
}
