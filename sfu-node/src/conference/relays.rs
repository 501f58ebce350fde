//! Which tracks of a room cross between shards: those one shard receives and a sender on another one needs. **Pure**: it
//! reads the commands for the shards as they pass and adds its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::media::api::{Command, Receiver, RoomKey, Sender, ShardIndex, ShardSet, TrackKey, TransportKey};

#[derive(Debug)]
struct Transport {
    shard: ShardIndex,
    room: RoomKey,
    receivers: Vec<Receiver>,
    /// Tracks its senders need.
    sources: Vec<TrackKey>,
    /// What each other shard was told to forward of its receivers.
    relayed: BTreeMap<ShardIndex, Vec<Receiver>>,
}

/// What is received and sent where.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    shards: usize,
    transports: HashMap<TransportKey, Transport>,
    publishers: HashMap<TrackKey, TransportKey>,
    /// Senders of a track on a shard.
    wanted: HashMap<(TrackKey, ShardIndex), usize>,
    /// Transports of a room on a shard.
    present: HashMap<(RoomKey, ShardIndex), usize>,
    /// The shards of each room as they were told.
    told: HashMap<RoomKey, ShardSet>,
    /// Transports whose tracks other shards may have to be told of.
    changed: BTreeSet<u64>,
    changed_rooms: BTreeSet<u64>,
    out: Vec<(ShardIndex, Command)>,
}

impl Relays {
    /// Between so many shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self { shards, ..Self::default() }
    }

    /// Takes note of a command that goes to a shard.
    pub(crate) fn note(&mut self, shard: ShardIndex, command: &Command) {
        if self.shards < 2 {
            return;
        }
        match command {
            Command::Open(config) => {
                let (receivers, sources, relayed) = (Vec::new(), Vec::new(), BTreeMap::new());
                let transport = Transport { shard, room: config.room, receivers, sources, relayed };
                self.transports.insert(config.key, transport);
                *self.present.entry((config.room, shard)).or_default() += 1;
                self.changed_rooms.insert(config.room.0);
            }
            Command::SetReceivers(key, receivers) => self.set_receivers(*key, receivers.clone()),
            Command::SetSenders(key, senders) => self.set_senders(*key, senders),
            Command::SetMuted(track, muted) => self.set_muted(*track, *muted),
            Command::Close(key) | Command::Forget(key) => self.close(*key),
            _ => {}
        }
    }

    /// The commands that follow from what was noted.
    pub(crate) fn take_commands(&mut self) -> Vec<(ShardIndex, Command)> {
        for room in std::mem::take(&mut self.changed_rooms) {
            self.tell_room(RoomKey(room));
        }
        for key in std::mem::take(&mut self.changed) {
            self.tell_tracks(TransportKey(key));
        }
        std::mem::take(&mut self.out)
    }

    fn set_receivers(&mut self, key: TransportKey, receivers: Vec<Receiver>) {
        let Some(transport) = self.transports.get_mut(&key) else { return };
        let before = std::mem::replace(&mut transport.receivers, receivers);
        for gone in before.iter().filter(|gone| transport.receivers.iter().all(|known| known.track != gone.track)) {
            // Another transport may have taken it over.
            if self.publishers.get(&gone.track) == Some(&key) {
                self.publishers.remove(&gone.track);
            }
        }
        for receiver in &transport.receivers {
            let former = self.publishers.insert(receiver.track, key).filter(|former| *former != key);
            self.changed.extend(former.map(|former| former.0));
        }
        self.changed.insert(key.0);
    }

    fn set_senders(&mut self, key: TransportKey, senders: &[Sender]) {
        let Some(transport) = self.transports.get_mut(&key) else { return };
        let shard = transport.shard;
        let sources = senders.iter().map(|sender| sender.source).collect();
        let before = std::mem::replace(&mut transport.sources, sources);
        for track in &transport.sources {
            let count = self.wanted.entry((*track, shard)).or_default();
            *count += 1;
            if *count == 1 {
                self.changed.extend(self.publishers.get(track).map(|publisher| publisher.0));
            }
        }
        for track in before {
            let Some(count) = self.wanted.get_mut(&(track, shard)) else { continue };
            *count -= 1;
            if *count == 0 {
                self.wanted.remove(&(track, shard));
                self.changed.extend(self.publishers.get(&track).map(|publisher| publisher.0));
            }
        }
    }

    fn set_muted(&mut self, track: TrackKey, muted: bool) {
        let publisher = self.publishers.get(&track);
        let Some(transport) = publisher.and_then(|publisher| self.transports.get_mut(publisher)) else { return };
        let mute = |receivers: &mut Vec<Receiver>| {
            let known = receivers.iter_mut().find(|receiver| receiver.track == track);
            known.map(|receiver| receiver.muted = muted).is_some()
        };
        mute(&mut transport.receivers);
        for (shard, receivers) in &mut transport.relayed {
            if mute(receivers) {
                self.out.push((*shard, Command::SetMuted(track, muted)));
            }
        }
    }

    fn close(&mut self, key: TransportKey) {
        self.set_senders(key, &[]);
        self.set_receivers(key, Vec::new());
        let Some(transport) = self.transports.remove(&key) else { return };
        let Transport { shard, room, relayed, .. } = transport;
        let end = |to| (to, Command::SetRelayed { transport: key, room, from: shard, receivers: Vec::new() });
        self.out.extend(relayed.into_keys().map(end));
        if let Some(count) = self.present.get_mut(&(room, shard)) {
            *count -= 1;
            if *count == 0 {
                self.present.remove(&(room, shard));
            }
        }
        self.changed_rooms.insert(room.0);
    }

    /// Tells each shard of a room which others it is on.
    fn tell_room(&mut self, room: RoomKey) {
        let on = |(_, shard): &(RoomKey, ShardIndex)| *shard;
        let now: ShardSet = self.present.keys().filter(|(known, _)| *known == room).map(on).collect();
        let before = self.told.insert(room, now).unwrap_or_default();
        if before != now {
            let mut concerned = before;
            now.iter().for_each(|shard| concerned.insert(shard));
            for shard in concerned.iter() {
                let others = |set: ShardSet| if set.contains(shard) { set.without(shard) } else { ShardSet::default() };
                if others(now) != others(before) {
                    self.out.push((shard, Command::SetRoomShards(room, others(now))));
                }
            }
        }
        if now.is_empty() {
            self.told.remove(&room);
        }
    }

    /// Tells the other shards what they are to forward of a transport.
    fn tell_tracks(&mut self, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(&key) else { return };
        let (room, from) = (transport.room, transport.shard);
        for to in ShardIndex::all(self.shards).filter(|to| *to != from) {
            let wanted = |receiver: &&Receiver| {
                self.publishers.get(&receiver.track) == Some(&key) && self.wanted.contains_key(&(receiver.track, to))
            };
            let receivers: Vec<Receiver> = transport.receivers.iter().filter(wanted).cloned().collect();
            if transport.relayed.get(&to).map(Vec::as_slice).unwrap_or_default() == receivers {
                continue;
            }
            if receivers.is_empty() {
                transport.relayed.remove(&to);
            } else {
                transport.relayed.insert(to, receivers.clone());
            }
            self.out.push((to, Command::SetRelayed { transport: key, room, from, receivers }));
        }
    }
}

#[cfg(test)]
mod tests;
