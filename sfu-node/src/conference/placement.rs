//! Which shard a session lives on. A room stays on its home shard until that is full; then its further sessions go to
//! others. **Pure.**

use crate::media::api::ShardIndex;

/// When a shard is full, so that rooms leave it. It goes on taking sessions where all are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fullness {
    /// Sessions. They count at once; packets only when they flow and were measured.
    pub(crate) sessions: u32,
    /// Packets received and sent per second.
    pub(crate) packets_per_second: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    sessions: u32,
    packets_per_second: u32,
    overloaded: bool,
}

/// The shards and their load.
#[derive(Debug)]
pub(crate) struct Placement {
    full: Fullness,
    loads: Vec<Load>,
}

impl Placement {
    /// `shards` that carry nothing yet.
    pub(crate) fn new(shards: usize, full: Fullness) -> Self {
        Self { full, loads: vec![Load::default(); shards] }
    }

    /// The shard for a session of a room that is on `present`, in the order in which the room came to them; empty: the
    /// room begins. A shard more costs a copy of each packet, so it is taken only when those before are full.
    pub(crate) fn place(&self, present: &[ShardIndex]) -> ShardIndex {
        let free = |shard: &ShardIndex| self.fill(*shard) < 1.0;
        present.iter().copied().find(free).unwrap_or_else(|| self.least_loaded())
    }

    /// A session was placed on a shard.
    pub(crate) fn opened(&mut self, shard: ShardIndex) {
        if let Some(load) = self.loads.get_mut(shard.place()) {
            load.sessions += 1;
        }
    }

    /// A session of a shard ended.
    pub(crate) fn closed(&mut self, shard: ShardIndex) {
        if let Some(load) = self.loads.get_mut(shard.place()) {
            load.sessions = load.sessions.saturating_sub(1);
        }
    }

    /// What a shard was measured to carry.
    pub(crate) fn measured(&mut self, shard: ShardIndex, packets_per_second: u32) {
        if let Some(load) = self.loads.get_mut(shard.place()) {
            load.packets_per_second = packets_per_second;
        }
    }

    /// A shard cannot keep up, or can again.
    pub(crate) fn set_overloaded(&mut self, shard: ShardIndex, overloaded: bool) {
        if let Some(load) = self.loads.get_mut(shard.place()) {
            load.overloaded = overloaded;
        }
    }

    /// No shard can take more.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.loads.iter().all(|load| load.overloaded)
    }

    fn least_loaded(&self) -> ShardIndex {
        let all = ShardIndex::all(self.loads.len());
        all.min_by(|a, b| self.fill(*a).total_cmp(&self.fill(*b))).unwrap_or(ShardIndex(0))
    }

    /// Share of what makes a shard full; 1.0 and above: it is.
    fn fill(&self, shard: ShardIndex) -> f64 {
        let Some(load) = self.loads.get(shard.place()).filter(|load| !load.overloaded) else { return f64::INFINITY };
        let share = |is: u32, full: u32| f64::from(is) / f64::from(full.max(1));
        share(load.sessions, self.full.sessions).max(share(load.packets_per_second, self.full.packets_per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardIndex = ShardIndex(0);
    const B: ShardIndex = ShardIndex(1);
    const C: ShardIndex = ShardIndex(2);

    fn three_shards() -> Placement {
        Placement::new(3, Fullness { sessions: 2, packets_per_second: 100 })
    }

    #[test]
    fn rooms_begin_where_the_load_is_least() {
        let mut placement = three_shards();
        for expected in [A, B, C, A] {
            assert_eq!(placement.place(&[]), expected);
            placement.opened(expected);
        }
        placement.closed(A);
        placement.closed(A);
        assert_eq!(placement.place(&[]), A);
        placement.measured(A, 60);
        assert_eq!(placement.place(&[]), B, "half full of sessions is less than full of packets");
    }

    #[test]
    fn a_room_stays_until_its_shards_are_full() {
        let mut placement = three_shards();
        placement.opened(B);
        assert_eq!(placement.place(&[B]), B, "though others are empty");
        placement.opened(B);
        assert_eq!(placement.place(&[B]), A);
        placement.opened(A);
        assert_eq!(placement.place(&[B, A]), A, "not to a third while there is room on the second");
        placement.measured(A, 100);
        assert_eq!(placement.place(&[B, A]), C);
        placement.closed(B);
        assert_eq!(placement.place(&[B, A]), B, "home again");
    }

    #[test]
    fn where_all_are_full_the_least_full_takes_it() {
        let mut placement = three_shards();
        for shard in [A, A, B, B, C, C] {
            placement.opened(shard);
        }
        placement.measured(A, 300);
        placement.measured(B, 120);
        placement.measured(C, 110);
        assert_eq!(placement.place(&[A]), C);
    }
}
