//! The directory object: a line for each room, as the rooms tell.

use std::collections::BTreeMap;

use edge_signal::room::effect::DirectoryEntry;
use shared::ids::RoomName;

use crate::net::{Net, Reply};

/// A room's line, or its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// Which room.
    pub(crate) room: RoomName,
    /// `None`: it ended.
    pub(crate) entry: Option<DirectoryEntry>,
}

/// All rooms that there are. Its table is all that it has, so that an eviction changes nothing.
#[derive(Default)]
pub(crate) struct Directory {
    /// As told.
    pub(crate) rooms: BTreeMap<RoomName, DirectoryEntry>,
}

impl Directory {
    /// A room tells its line.
    pub(crate) fn note(&mut self, net: &mut Net, life: u64, line: Box<Line>) {
        match line.entry.clone() {
            Some(entry) => self.rooms.insert(line.room.clone(), entry),
            None => self.rooms.remove(&line.room),
        };
        net.reply_inside(Reply::Told { room: line.room.clone(), life, line });
    }
}
