//! The names of a node's shards, and sets of them.

/// Most shards of a node: a [`ShardSet`] has a bit for each.
pub const MAX_SHARDS: u8 = 64;

/// A shard of this node, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(pub u8);

impl ShardIndex {
    /// All shards of a node that has `count`, at most [`MAX_SHARDS`].
    pub fn all(count: usize) -> impl Iterator<Item = Self> {
        (0..MAX_SHARDS).take(count).map(Self)
    }

    /// Its place among all.
    #[must_use]
    pub fn place(self) -> usize {
        usize::from(self.0)
    }

    fn bit(self) -> u64 {
        1_u64.checked_shl(self.0.into()).unwrap_or(0)
    }
}

/// Some of a node's shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardSet(u64);

impl ShardSet {
    /// Adds a shard.
    pub fn insert(&mut self, shard: ShardIndex) {
        self.0 |= shard.bit();
    }

    /// Takes a shard out.
    pub fn remove(&mut self, shard: ShardIndex) {
        self.0 &= !shard.bit();
    }

    /// Without one of them.
    #[must_use]
    pub fn without(mut self, shard: ShardIndex) -> Self {
        self.remove(shard);
        self
    }

    /// Whether a shard is one of them.
    #[must_use]
    pub fn contains(self, shard: ShardIndex) -> bool {
        self.0 & shard.bit() != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, the lowest first.
    pub fn iter(self) -> impl Iterator<Item = ShardIndex> {
        ShardIndex::all(MAX_SHARDS.into()).filter(move |shard| self.contains(*shard))
    }
}

impl FromIterator<ShardIndex> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardIndex>>(shards: I) -> Self {
        let mut set = Self::default();
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set: ShardSet = [ShardIndex(63), ShardIndex(0), ShardIndex(5)].into_iter().collect();
        set.remove(ShardIndex(5));
        set.insert(ShardIndex(64));
        assert_eq!(set.iter().collect::<Vec<_>>(), [ShardIndex(0), ShardIndex(63)]);
        assert!(set.contains(ShardIndex(63)) && !set.contains(ShardIndex(5)) && !set.contains(ShardIndex(64)));
        assert!(set.without(ShardIndex(0)).without(ShardIndex(63)).is_empty());
        assert_eq!(ShardIndex::all(3).last(), Some(ShardIndex(2)));
    }
}
