//! What an overloaded shard leaves out, step by step: layers of ordinary videos, then of those its subscribers call
//! important, then whole videos in the same order; audio never. **Pure.**

/// Subscriptions fall into so many parts; a step takes something from one of them.
const PARTS: u8 = 4;
const PHASE_COUNT: u8 = 6;
/// By what is left out first: of important videos or of the others, and what still goes out.
const PHASES: [(bool, Share); PHASE_COUNT as usize] = [
    (false, Share::UpTo(1)),
    (false, Share::UpTo(0)),
    (true, Share::UpTo(1)),
    (true, Share::UpTo(0)),
    (false, Share::Nothing),
    (true, Share::Nothing),
];

/// What goes out of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// All.
    Whole,
    /// No layer above this one; the lowest goes out all the same.
    UpTo(u8),
    /// It is paused.
    Nothing,
}

/// How much is left out: steps taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Relief(u8);

impl Relief {
    /// Nothing is left out.
    pub(crate) const NONE: Self = Self(0);
    /// Only audio is left.
    pub(crate) const MOST: Self = Self(PARTS * PHASE_COUNT);
    /// Steps that take the same from all videos of a kind.
    pub(crate) const PHASE: u8 = PARTS;

    /// So many steps more.
    pub(crate) fn more(self, steps: u8) -> Self {
        Self(self.0.saturating_add(steps)).min(Self::MOST)
    }

    /// A step less.
    pub(crate) fn less(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Steps taken.
    pub(crate) fn steps(self) -> u8 {
        self.0
    }

    /// What goes out of a video; `ssrc` is its own at the subscriber and puts it into a part.
    pub(crate) fn share(self, important: bool, ssrc: u32) -> Share {
        // Fibonacci hashing: neighbours fall into different parts.
        let part = ssrc.wrapping_mul(0x9e37_79b1) >> 30;
        let taken = |phase: u8| u32::from(self.0.saturating_sub(phase.saturating_mul(PARTS)));
        let mut phases = (0..PHASE_COUNT).zip(PHASES).rev();
        phases.find(|(n, (of, _))| *of == important && taken(*n) > part).map_or(Share::Whole, |(_, (_, share))| share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of 4,000 videos get what, at each step: whole, two layers, one, nothing.
    fn shares(relief: Relief, important: bool) -> [usize; 4] {
        let mut counts = [0; 4];
        for ssrc in 0..4000 {
            counts[match relief.share(important, ssrc * 7 + 3) {
                Share::Whole => 0,
                Share::UpTo(1) => 1,
                Share::UpTo(_) => 2,
                Share::Nothing => 3,
            }] += 1;
        }
        counts
    }

    #[test]
    fn ordinary_videos_go_before_important_ones_and_layers_before_videos() {
        let at = |phases: u8| Relief::NONE.more(phases * Relief::PHASE);
        assert_eq!(shares(Relief::NONE, false), [4000, 0, 0, 0]);
        assert_eq!((shares(at(1), false), shares(at(1), true)), ([0, 4000, 0, 0], [4000, 0, 0, 0]));
        assert_eq!((shares(at(2), false), shares(at(2), true)), ([0, 0, 4000, 0], [4000, 0, 0, 0]));
        assert_eq!((shares(at(4), false), shares(at(4), true)), ([0, 0, 4000, 0], [0, 0, 4000, 0]));
        assert_eq!((shares(at(5), false), shares(at(5), true)), ([0, 0, 0, 4000], [0, 0, 4000, 0]));
        assert_eq!(shares(Relief::MOST, true), [0, 0, 0, 4000]);
        assert_eq!(Relief::MOST.more(9), Relief::MOST);
    }

    #[test]
    fn a_step_takes_from_about_a_quarter_and_gives_nothing_back() {
        let mut relief = Relief::NONE;
        while relief < Relief::MOST {
            for important in [false, true] {
                let (before, after) = (shares(relief, important), shares(relief.more(1), important));
                let moved: usize = before.iter().zip(after).map(|(b, a)| b.abs_diff(a)).sum();
                assert!(moved == 0 || (1800..2200).contains(&moved), "{before:?} to {after:?}");
                let rank = |share| match share {
                    Share::Whole => 3,
                    Share::UpTo(layer) => 1 + layer,
                    Share::Nothing => 0,
                };
                let none_rises =
                    |ssrc| rank(relief.share(important, ssrc)) >= rank(relief.more(1).share(important, ssrc));
                assert!((0..1000).all(none_rises));
            }
            relief = relief.more(1);
        }
    }
}
