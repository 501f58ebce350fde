//! Which frames of a stream make up which picture quality: decode targets, and what a frame says of them. The words are
//! those of the AV1 RTP payload format, appendix A; what VP8 and VP9 descriptors say is put into the same form.

use arrayvec::ArrayVec;

/// Most decode targets (AV1 RTP payload format, appendix A.8.2).
pub(crate) const MAX_TARGETS: usize = 32;
/// Frames back that a dependency is followed.
const HISTORY: u16 = 64;

/// What a frame is in its stream. The default belongs to every target and can be switched to at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Counts up by one with each frame of the stream.
    pub(crate) number: u16,
    /// Of the targets it speaks of; 0: they are not known.
    pub(crate) generation: u32,
    /// The packet is the frame's first.
    pub(crate) first: bool,
    /// The packet is the frame's last.
    pub(crate) last: bool,
    /// The packet is the first of its temporal unit, as far as was seen.
    pub(crate) unit_start: bool,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// Decode targets it is part of, one bit each.
    pub(crate) targets: u32,
    /// Decode targets that can be decoded from here on, where this frame can.
    pub(crate) switches: u32,
    /// Frames it depends on: bit n is the one n before it.
    pub(crate) needs: u64,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            number: 0,
            generation: 0,
            first: false,
            last: false,
            unit_start: false,
            spatial: 0,
            temporal: 0,
            targets: u32::MAX,
            switches: u32::MAX,
            needs: 0,
        }
    }
}

/// A choice of frames that a decoder can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) index: u8,
    /// Its highest spatial layer.
    pub(crate) spatial: u8,
    /// Its highest temporal layer.
    pub(crate) temporal: u8,
    /// It is all of the stream.
    pub(crate) whole: bool,
}

impl Target {
    /// All of a stream whose layers are not known.
    pub(crate) const WHOLE: Self = Self { index: 0, spatial: u8::MAX, temporal: u8::MAX, whole: true };

    /// The frame belongs to it.
    pub(crate) fn takes(&self, frame: &Frame) -> bool {
        self.whole || frame.targets >> self.index & 1 == 1
    }

    /// The packet is the last of its temporal unit that goes out.
    pub(crate) fn ends_unit(&self, frame: &Frame) -> bool {
        !self.whole && frame.last && frame.spatial == self.spatial
    }
}

/// How far a subscriber's wishes and path reach in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
}

/// The decode targets of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Targets {
    /// Highest spatial and temporal layer of each.
    layers: ArrayVec<(u8, u8), MAX_TARGETS>,
    /// For each: those whose frames it has all.
    includes: ArrayVec<u32, MAX_TARGETS>,
    /// Those that have all frames.
    whole: u32,
}

impl Targets {
    /// From frames of all kinds a stream has: spatial and temporal layer, and the targets each is part of.
    pub(crate) fn of(count: usize, kinds: impl Iterator<Item = (u8, u8, u32)> + Clone) -> Self {
        let mut targets = Self { whole: u32::MAX, ..Self::default() };
        for index in 0..count.min(MAX_TARGETS) {
            let inside = |targets: u32| targets >> index & 1 == 1;
            let (mut spatial, mut temporal, mut includes) = (0, 0, u32::MAX);
            for (frame_spatial, frame_temporal, part_of) in kinds.clone() {
                if inside(part_of) {
                    spatial = frame_spatial.max(spatial);
                    temporal = frame_temporal.max(temporal);
                } else {
                    includes &= !part_of;
                }
            }
            targets.layers.push((spatial, temporal));
            targets.includes.push(includes);
        }
        targets.whole = kinds.fold(u32::MAX, |whole, (_, _, part_of)| whole & part_of);
        targets
    }

    /// Number of targets.
    pub(crate) fn len(&self) -> usize {
        self.layers.len()
    }

    /// Each with its highest spatial and temporal layer.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Target> + Clone + '_ {
        (0_u8..).zip(&self.layers).map(|(index, (spatial, temporal))| {
            let whole = self.whole >> index & 1 == 1;
            Target { index, spatial: *spatial, temporal: *temporal, whole }
        })
    }

    /// The best of the `active` ones within reach; the least where none is.
    pub(crate) fn choose(&self, active: u32, reach: Reach) -> Target {
        let rank = |target: &Target| (target.spatial, target.temporal);
        let active = self.iter().filter(|target| active >> target.index & 1 == 1);
        let within = |target: &Target| target.spatial <= reach.spatial && target.temporal <= reach.temporal;
        let best = active.clone().filter(within).max_by_key(rank);
        best.or_else(|| active.min_by_key(rank)).unwrap_or(Target::WHOLE)
    }

    /// Who has `from` has all frames of `to`.
    pub(crate) fn includes(&self, from: Target, to: Target) -> bool {
        from.whole || self.includes.get(usize::from(from.index)).is_some_and(|known| known >> to.index & 1 == 1)
    }

    /// The active ones that who has `target` can decode, one bit each.
    pub(crate) fn decodable(&self, target: Target, active: u32) -> u32 {
        let included =
            if target.whole { u32::MAX } else { *self.includes.get(usize::from(target.index)).unwrap_or(&0) };
        included & active
    }
}

/// What goes out of a stream to one subscriber, and which of its frames went out lately.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    target: Target,
    /// Of the targets chosen from.
    generation: u32,
    /// Frames sent: bit n is the one n before `newest`.
    sent: u64,
    newest: u16,
}

impl Default for Selection {
    fn default() -> Self {
        Self { target: Target::WHOLE, generation: 0, sent: u64::MAX, newest: 0 }
    }
}

impl Selection {
    /// What goes out now.
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// A stream begins with a keyframe.
    pub(crate) fn begin(&mut self, target: Target, generation: u32, number: u16) {
        *self = Self { target, generation, sent: 0, newest: number };
    }

    /// A frame begins: takes `to` from here on, where a decoder can follow. True when that is a change.
    pub(crate) fn turn(&mut self, targets: &Targets, generation: u32, frame: &Frame, to: Target) -> bool {
        if self.generation != generation {
            // Frames of an unknown structure went out whole.
            let changed = self.target != to;
            *self = Self { target: to, generation, sent: u64::MAX, newest: frame.number };
            return changed;
        }
        if to == self.target || (to.spatial != self.target.spatial && !frame.unit_start) {
            return false;
        }
        let opens = frame.switches >> to.index & 1 == 1 && frame.needs & !self.sent_before(frame.number) == 0;
        if !opens && !targets.includes(self.target, to) {
            return false;
        }
        self.target = to;
        true
    }

    /// The target cannot be reached without a keyframe.
    pub(crate) fn stuck(&self, targets: &Targets, generation: u32, to: Target) -> bool {
        self.generation == generation && self.target.spatial != to.spatial && !targets.includes(self.target, to)
    }

    /// A frame began; `sent`: it goes out.
    pub(crate) fn note(&mut self, number: u16, sent: bool) {
        if self.target.whole {
            (self.sent, self.newest) = (u64::MAX, number);
            return;
        }
        let ahead = number.wrapping_sub(self.newest);
        if ahead < 0x8000 {
            self.sent = self.sent_before(number) & !1;
            self.newest = number;
        }
        let back = self.newest.wrapping_sub(number);
        if back < HISTORY {
            self.sent |= u64::from(sent) << back;
        }
    }

    /// Frames sent: bit n is the one n before `number`.
    fn sent_before(&self, number: u16) -> u64 {
        let ahead = number.wrapping_sub(self.newest);
        match ahead {
            0..HISTORY => self.sent << ahead,
            0x8000.. if ahead.wrapping_neg() < HISTORY => self.sent >> ahead.wrapping_neg(),
            _ => 0,
        }
    }
}
