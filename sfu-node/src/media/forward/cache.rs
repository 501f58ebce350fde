//! The last packets of one received layer, shared by all its subscribers for retransmission. A preallocated byte ring.

use std::time::Duration;

use crate::media::forward::clock::{Time, micros};
use crate::media::forward::header::Copied;
use crate::media::forward::rtp::MAX_RTP_LEN;

/// Older packets are not retransmitted: no jitter buffer waits for them.
const MAX_AGE: Duration = Duration::from_secs(2);

/// A packet to forward: what of the source is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourcePacket<'a> {
    /// Extended source sequence number.
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    /// Place of its payload type in the track's list.
    pub(crate) slot: u8,
    pub(crate) copied: Copied<'a>,
    pub(crate) payload: &'a [u8],
}

/// Size of a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheSize {
    /// Most packets; a power of two.
    packets: usize,
    /// Most bytes.
    bytes: usize,
}

impl CacheSize {
    /// About 1.6 s of a 2.5 Mbit/s layer.
    pub(crate) const VIDEO: Self = Self { packets: 512, bytes: 512 * 1024 };
    /// About 2.5 s of 20 ms packets.
    pub(crate) const AUDIO: Self = Self { packets: 128, bytes: 48 * 1024 };
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    sequence: u64,
    stored: Time,
    /// Bytes written to the ring before this packet's.
    start: u64,
    timestamp: u32,
    marker: bool,
    slot: u8,
    audio_level: u16,
    dependency: u16,
    capture_time: u16,
    payload: u16,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct PacketCache {
    entries: Box<[Entry]>,
    bytes: Box<[u8]>,
    /// Bytes ever written, gaps at the ring's end included.
    written: u64,
}

impl PacketCache {
    /// Allocates all it will ever use.
    pub(crate) fn new(size: CacheSize) -> Self {
        Self {
            entries: vec![Entry::default(); size.packets].into_boxed_slice(),
            bytes: vec![0; size.bytes].into_boxed_slice(),
            written: 0,
        }
    }

    /// Keeps a copy, over the oldest.
    pub(crate) fn insert(&mut self, now: Time, packet: &SourcePacket<'_>) {
        let copied = &packet.copied;
        let parts = [copied.audio_level, copied.dependency, copied.capture_time, packet.payload];
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > MAX_RTP_LEN {
            return;
        }
        let mut at = self.offset(self.written);
        if at + len > self.bytes.len() {
            self.written += (self.bytes.len() - at) as u64;
            at = 0;
        }
        let index = self.index(packet.sequence);
        let start = self.written;
        let Some(entry) = self.entries.get_mut(index) else { return };
        let len16 = |part: &[u8]| u16::try_from(part.len()).unwrap_or(0);
        *entry = Entry {
            sequence: packet.sequence,
            stored: now,
            start,
            timestamp: packet.timestamp,
            marker: packet.marker,
            slot: packet.slot,
            audio_level: len16(copied.audio_level),
            dependency: len16(copied.dependency),
            capture_time: len16(copied.capture_time),
            payload: len16(packet.payload),
        };
        for part in parts {
            if let Some(room) = self.bytes.get_mut(at..at + part.len()) {
                room.copy_from_slice(part);
            }
            at += part.len();
        }
        self.written += len as u64;
    }

    /// The packet with this extended source number, if it is still whole and young.
    pub(crate) fn lookup(&self, now: Time, sequence: u64) -> Option<SourcePacket<'_>> {
        let entry = self.entries.get(self.index(sequence))?;
        let whole = self.written - entry.start <= self.bytes.len() as u64;
        if entry.sequence != sequence || !whole || now.since(entry.stored) > micros(MAX_AGE) {
            return None;
        }
        let rest = self.bytes.get(self.offset(entry.start)..)?;
        let (audio_level, rest) = rest.split_at_checked(entry.audio_level.into())?;
        let (dependency, rest) = rest.split_at_checked(entry.dependency.into())?;
        let (capture_time, rest) = rest.split_at_checked(entry.capture_time.into())?;
        let payload = rest.get(..entry.payload.into())?;
        Some(SourcePacket {
            sequence,
            timestamp: entry.timestamp,
            marker: entry.marker,
            slot: entry.slot,
            copied: Copied { audio_level, dependency, capture_time },
            payload,
        })
    }

    fn index(&self, sequence: u64) -> usize {
        usize::try_from(sequence % self.entries.len().max(1) as u64).unwrap_or(0)
    }

    fn offset(&self, written: u64) -> usize {
        usize::try_from(written % self.bytes.len().max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u64, payload: &[u8]) -> SourcePacket<'_> {
        let copied = Copied { audio_level: &[1], dependency: &[2, 2], capture_time: &[3] };
        SourcePacket { sequence, timestamp: 5, marker: true, slot: 1, copied, payload }
    }

    #[test]
    fn packets_come_back_whole_until_overwritten() {
        let mut cache = PacketCache::new(CacheSize { packets: 8, bytes: 64 });
        for sequence in 1..=20_u8 {
            cache.insert(Time(0), &packet(sequence.into(), &[sequence; 10]));
            let found = cache.lookup(Time(0), sequence.into()).unwrap();
            assert_eq!(found.payload, [sequence; 10]);
            assert_eq!((found.copied.audio_level, found.copied.dependency), (&[1][..], &[2, 2][..]));
            assert_eq!(found.copied.capture_time, [3]);
        }
        // 14 bytes a packet: the ring of 64 holds four.
        assert_eq!(cache.lookup(Time(0), 17).unwrap().payload, [17; 10]);
        assert!(cache.lookup(Time(0), 15).is_none(), "its bytes are overwritten");
        assert!(cache.lookup(Time(0), 11).is_none(), "its entry is overwritten");
        assert!(cache.lookup(Time(0), 21).is_none(), "never came");
    }

    #[test]
    fn old_packets_are_not_kept() {
        let mut cache = PacketCache::new(CacheSize::AUDIO);
        cache.insert(Time(0), &packet(9, &[1]));
        assert!(cache.lookup(Time(2_000_000), 9).is_some());
        assert!(cache.lookup(Time(2_000_001), 9).is_none());
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let mut cache = PacketCache::new(CacheSize::AUDIO);
        cache.insert(Time(0), &packet(9, &[1; MAX_RTP_LEN]));
        assert!(cache.lookup(Time(0), 9).is_none());
    }
}
