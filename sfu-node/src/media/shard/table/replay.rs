//! Reliable data that was lately sent in each room, for receivers that come back and have missed some of it. **Pure.**

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rustc_hash::FxBuildHasher;

use crate::media::api::{RoomKey, SpeakerKey};
use crate::media::datachannel::packet::Stamped;

/// How long a packet is kept: as long as livekit-client remembers what it has received.
pub(super) const KEEP: Duration = Duration::from_secs(30);
/// Bytes kept of one sender. The newest packet is kept whatever its size.
pub(super) const MAX_SENDER_BYTES: usize = 256 * 1024;
/// Bytes kept by a shard; when it has so many, only room that is freed is filled again.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Between two looks at what is too old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

type BySender = HashMap<SpeakerKey, Sent, FxBuildHasher>;

/// What one sender sent, in order.
#[derive(Default)]
struct Sent {
    packets: VecDeque<(Instant, Stamped)>,
    bytes: usize,
}

impl Sent {
    fn drop_oldest(&mut self) {
        if let Some((_, packet)) = self.packets.pop_front() {
            self.bytes -= packet.bytes.len();
        }
    }

    fn drop_older_than(&mut self, oldest: Option<Instant>) {
        while self.packets.front().is_some_and(|(at, _)| oldest.is_some_and(|oldest| *at < oldest)) {
            self.drop_oldest();
        }
    }
}

/// The packets of all rooms of a shard.
#[derive(Default)]
pub(super) struct Replays {
    rooms: HashMap<RoomKey, BySender, FxBuildHasher>,
    bytes: usize,
    swept: Option<Instant>,
}

impl Replays {
    /// Takes a packet that goes out now. One without a sequence cannot be asked for.
    pub(super) fn keep(&mut self, now: Instant, room: RoomKey, sender: SpeakerKey, packet: &Stamped) {
        self.sweep(now);
        if packet.sequence == 0 || self.bytes >= MAX_BYTES {
            return;
        }
        let sent = self.rooms.entry(room).or_default().entry(sender).or_default();
        let before = sent.bytes;
        while !sent.packets.is_empty() && sent.bytes + packet.bytes.len() > MAX_SENDER_BYTES {
            sent.drop_oldest();
        }
        sent.bytes += packet.bytes.len();
        sent.packets.push_back((now, packet.clone()));
        self.bytes = self.bytes - before + sent.bytes;
    }

    /// What is kept of a sender after this sequence, in order.
    pub(super) fn after(&self, room: RoomKey, sender: SpeakerKey, sequence: u32) -> impl Iterator<Item = &Stamped> {
        let sent = self.rooms.get(&room).and_then(|senders| senders.get(&sender));
        let packets = sent.into_iter().flat_map(|sent| &sent.packets).map(|(_, packet)| packet);
        packets.filter(move |packet| packet.sequence > sequence)
    }

    /// Nobody of this room is here any more.
    pub(super) fn forget(&mut self, room: RoomKey) {
        let freed = self.rooms.remove(&room).into_iter().flatten().map(|(_, sent)| sent.bytes).sum::<usize>();
        self.bytes -= freed;
    }

    fn sweep(&mut self, now: Instant) {
        let since = *self.swept.get_or_insert(now);
        if now.saturating_duration_since(since) < SWEEP_INTERVAL {
            return;
        }
        self.swept = Some(now);
        let oldest = now.checked_sub(KEEP);
        let mut bytes = 0;
        self.rooms.retain(|_, senders| {
            senders.retain(|_, sent| {
                sent.drop_older_than(oldest);
                bytes += sent.bytes;
                !sent.packets.is_empty()
            });
            !senders.is_empty()
        });
        self.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const ROOM: RoomKey = RoomKey(1);
    const ADA: SpeakerKey = SpeakerKey(1);
    const BOB: SpeakerKey = SpeakerKey(2);

    fn packet(sequence: u32, len: usize) -> Stamped {
        Stamped { bytes: Bytes::from(vec![7; len]), sequence, identities: Vec::new(), sids: Vec::new() }
    }

    fn sequences(replays: &Replays, sender: SpeakerKey, after: u32) -> Vec<u32> {
        replays.after(ROOM, sender, after).map(|packet| packet.sequence).collect()
    }

    #[test]
    fn what_came_after_is_given_in_order_and_of_that_sender_alone() {
        let (mut replays, now) = (Replays::default(), Instant::now());
        for sequence in [1, 2, 5] {
            replays.keep(now, ROOM, ADA, &packet(sequence, 10));
        }
        replays.keep(now, ROOM, BOB, &packet(9, 10));
        replays.keep(now, ROOM, BOB, &packet(0, 10));
        assert_eq!((sequences(&replays, ADA, 1), sequences(&replays, ADA, 5)), (vec![2, 5], vec![]));
        assert_eq!(sequences(&replays, BOB, 0), [9], "what has no number is not kept");
        assert_eq!(replays.after(RoomKey(2), ADA, 0).count(), 0);
    }

    #[test]
    fn one_sender_takes_no_room_from_another() {
        let (mut replays, now) = (Replays::default(), Instant::now());
        replays.keep(now, ROOM, BOB, &packet(1, 10));
        for sequence in 1..=100 {
            replays.keep(now, ROOM, ADA, &packet(sequence, MAX_SENDER_BYTES / 4));
        }
        assert_eq!((sequences(&replays, ADA, 0), sequences(&replays, BOB, 0)), (vec![97, 98, 99, 100], vec![1]));
        assert_eq!(replays.bytes, MAX_SENDER_BYTES + 10);
        replays.forget(ROOM);
        assert!(replays.bytes == 0 && replays.rooms.is_empty());
    }

    #[test]
    fn what_is_old_goes_and_a_shard_keeps_so_much() {
        let (mut replays, start) = (Replays::default(), Instant::now());
        for sender in 0..1_000 {
            replays.keep(start, ROOM, SpeakerKey(sender), &packet(1, MAX_SENDER_BYTES));
        }
        assert_eq!(replays.bytes, MAX_BYTES);
        replays.keep(start + KEEP, ROOM, ADA, &packet(2, 10));
        assert_eq!(sequences(&replays, ADA, 0), [1], "there is no room");
        replays.keep(start + KEEP + SWEEP_INTERVAL, ROOM, ADA, &packet(3, 10));
        assert_eq!((sequences(&replays, ADA, 0), replays.bytes), (vec![3], 10));
        assert_eq!(replays.rooms.values().map(HashMap::len).sum::<usize>(), 1, "senders that are gone, too");
    }
}
