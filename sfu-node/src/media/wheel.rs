//! Deadlines of many owners in a hierarchical timing wheel (Varghese and Lauck 1987). **Pure: ticks are given.** Setting,
//! moving and taking away a deadline costs the same however many there are, and allocates nothing.

/// Bits of a deadline that one level tells apart.
const LEVEL_BITS: u32 = 6;
/// Slots of a level: one bit each in a word.
const SLOTS: usize = 1 << LEVEL_BITS;
/// Reaching, with ticks of a millisecond, 64 ms, 4 s, 4 min, 4.6 h.
const LEVELS: u32 = 4;
/// Furthest ahead that a deadline is put: into the last slot of the highest level. It moves on from there when it is
/// further away.
const REACH: u64 = (SLOTS as u64 - 1) << (LEVEL_BITS * (LEVELS - 1));
/// End of a list.
const NONE: u32 = u32::MAX;

/// An owner's deadline and its place in a slot's list.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// `u64::MAX`: none.
    at: u64,
    next: u32,
    previous: u32,
    /// Level times [`SLOTS`] plus slot.
    place: u16,
}

const UNSET: Entry = Entry { at: u64::MAX, next: NONE, previous: NONE, place: 0 };

#[derive(Debug)]
struct Level {
    /// Slots with something in them.
    occupied: u64,
    /// First of each slot's list.
    heads: [u32; SLOTS],
}

/// The deadlines. Owners are small numbers, such as places in a slab.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// Everything due until here was taken.
    now: u64,
    entries: Vec<Entry>,
    levels: [Level; LEVELS as usize],
}

impl Wheel {
    /// A wheel without deadlines.
    pub(crate) fn new() -> Self {
        let levels = std::array::from_fn(|_| Level { occupied: 0, heads: [NONE; SLOTS] });
        Self { now: 0, entries: Vec::new(), levels }
    }

    /// Sets the owner's deadline, in place of the one it has. What is past is due at once.
    pub(crate) fn set(&mut self, owner: usize, at: u64) {
        let Ok(key) = u32::try_from(owner) else { return };
        self.clear(owner);
        if self.entries.len() <= owner {
            self.entries.resize(owner + 1, UNSET);
        }
        self.link(key, at.min(u64::MAX - 1));
    }

    /// Takes the owner's deadline away.
    pub(crate) fn clear(&mut self, owner: usize) {
        if self.deadline(owner).is_some()
            && let Ok(key) = u32::try_from(owner)
        {
            self.unlink(key);
        }
    }

    /// The owner's deadline.
    pub(crate) fn deadline(&self, owner: usize) -> Option<u64> {
        self.entries.get(owner).map(|entry| entry.at).filter(|at| *at != u64::MAX)
    }

    /// When to call [`Wheel::take_due`]: never later than the first deadline, but it may be that nothing is due then.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, at)| at)
    }

    /// A deadline that is not after `now`, and whose; it is taken away. Those of an earlier tick come first.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<(u64, usize)> {
        while let Some((level, slot, at)) = self.next_slot().filter(|(.., at)| *at <= now) {
            self.now = self.now.max(at);
            let first = self.levels.get(level)?.heads.get(slot).copied()?;
            if level == 0 {
                return Some((self.unlink(first)?, usize::try_from(first).ok()?));
            }
            // Their time has come near: each moves to where it belongs now.
            let mut key = first;
            while let Some(entry) = self.entries.get(usize::try_from(key).ok()?).copied() {
                self.unlink(key);
                self.link(key, entry.at);
                key = entry.next;
            }
        }
        self.now = self.now.max(now);
        None
    }

    /// The slot whose time comes first: level, slot, the tick it begins at.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        // Lower levels lie within what is left of the present slot of the ones above.
        let mut levels = (0_u32..).zip(&self.levels).filter(|(_, level)| level.occupied != 0);
        let (number, level) = levels.next()?;
        let shift = LEVEL_BITS * number;
        let present = self.now >> shift;
        let ahead = level.occupied.rotate_right(u32::try_from(slot_of(present)).ok()?).trailing_zeros();
        let begin = present + u64::from(ahead);
        Some((usize::try_from(number).ok()?, slot_of(begin), (begin << shift).max(self.now)))
    }

    fn link(&mut self, key: u32, at: u64) {
        let due = at.clamp(self.now, self.now.saturating_add(REACH));
        // The highest bits that differ from now tell the level.
        let differing = (due ^ self.now) | (SLOTS as u64 - 1);
        let number = (differing.ilog2() / LEVEL_BITS).min(LEVELS - 1);
        let slot = slot_of(due >> (LEVEL_BITS * number));
        let level = usize::try_from(number).unwrap_or(0);
        let Some(wheel) = self.levels.get_mut(level) else { return };
        let Some(head) = wheel.heads.get_mut(slot) else { return };
        let next = std::mem::replace(head, key);
        wheel.occupied |= 1 << slot;
        let place = u16::try_from(level * SLOTS + slot).unwrap_or(0);
        if let Some(after) = self.entry_mut(next) {
            after.previous = key;
        }
        if let Some(entry) = self.entry_mut(key) {
            *entry = Entry { at, next, previous: NONE, place };
        }
    }

    /// Takes it out of its list; gives its deadline.
    fn unlink(&mut self, key: u32) -> Option<u64> {
        let Entry { at, next, previous, place } = std::mem::replace(self.entry_mut(key)?, UNSET);
        if let Some(after) = self.entry_mut(next) {
            after.previous = previous;
        }
        if let Some(before) = self.entry_mut(previous) {
            before.next = next;
            return Some(at);
        }
        let (level, slot) = (usize::from(place) / SLOTS, usize::from(place) % SLOTS);
        let level = self.levels.get_mut(level)?;
        *level.heads.get_mut(slot)? = next;
        if next == NONE {
            level.occupied &= !(1 << slot);
        }
        Some(at)
    }

    fn entry_mut(&mut self, key: u32) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(key).ok()?)
    }
}

/// The slot of a level for a time in units of its slots.
fn slot_of(time: u64) -> usize {
    usize::try_from(time % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests;
