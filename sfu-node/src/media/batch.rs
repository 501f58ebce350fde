//! Outgoing datagrams of a receive batch, gathered per destination so that runs of equal size leave with one system
//! call (UDP generic segmentation offload). Buffers are reused.

use std::net::{IpAddr, SocketAddr};

/// Most bytes in one run: what one UDP send may carry, with room for headers.
const MAX_RUN_LEN: usize = 60_000;
/// Bytes gathered before they are sent: what is still in a core's own cache, with room for all else.
pub(super) const MAX_BYTES: usize = 128 * 1024;
/// Peers whose datagrams are gathered before they are sent; more only where nothing can be sent meanwhile.
pub(super) const MAX_QUEUES: usize = 32;
/// Room first made for a peer, bytes: a packet of video.
const QUEUE_CAPACITY: usize = 2 * 1024;
/// What grew beyond this is shrunk after use, bytes: a keyframe needs more than every other frame.
const QUEUE_KEEP: usize = 8 * 1024;
/// The same of those beyond [`MAX_QUEUES`], bytes: a report.
const RARE_QUEUE_KEEP: usize = 512;

/// Streams, one bit for all those whose SSRCs share a hash. What is of no stream that can be named is of every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Streams(u64);

impl Streams {
    const ALL: Self = Self(u64::MAX);

    /// Multiplicative hashing (Knuth) into six bits: SSRCs may be counted up.
    fn one(ssrc: u32) -> Self {
        Self(1 << (ssrc.wrapping_mul(0x9e37_79b9) >> 26))
    }
}

/// The way to a peer: its address, and which of ours it talks to. A peer takes answers only from that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The peer.
    pub to: SocketAddr,
    /// Our address; `None` if the socket is bound to one.
    pub from: Option<IpAddr>,
}

impl From<SocketAddr> for Route {
    fn from(to: SocketAddr) -> Self {
        Self { to, from: None }
    }
}

/// Datagrams for one address, back to back in the slot's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    route: Route,
    start: usize,
    end: usize,
    /// Length of every datagram but the last, which may be shorter.
    segment: usize,
    count: usize,
    streams: Streams,
}

/// What waits for one peer.
#[derive(Debug, Default)]
struct Queue {
    /// The peer's slot.
    slot: usize,
    buffer: Vec<u8>,
    runs: Vec<Run>,
}

/// Datagrams to one address, to be cut every `segment` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst<'a> {
    /// Destination.
    pub route: Route,
    /// The datagrams, back to back.
    pub bytes: &'a [u8],
    /// Length of each but the last.
    pub segment: usize,
    /// How many.
    pub count: usize,
}

/// What a shard wants to send. Buffers belong to no peer for longer than a batch: one that is sent nothing costs nothing.
#[derive(Debug)]
pub struct SendBatch {
    /// The first `used` are in use, the others wait for it.
    queues: Vec<Queue>,
    /// By slot: place of its queue plus one, 0 if it has none.
    places: Vec<u32>,
    used: usize,
    len: usize,
    max_segments: usize,
}

impl SendBatch {
    /// An empty batch; `max_segments` is what the socket takes at once, 1 without segmentation offload.
    #[must_use]
    pub fn new(max_segments: usize) -> Self {
        Self { queues: Vec::new(), places: Vec::new(), used: 0, len: 0, max_segments: max_segments.max(1) }
    }

    /// Adds a datagram for the peer at the end of `route`. `write` appends it to the buffer it gets, whose present length
    /// is where it starts.
    ///
    /// # Errors
    /// Those of `write`; nothing is added then.
    pub fn push<E>(
        &mut self,
        slot: usize,
        route: impl Into<Route>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.add(slot, route.into(), Streams::ALL, write)
    }

    /// As [`SendBatch::push`], a packet of the stream with this SSRC. It may leave behind packets of other streams that were
    /// added after it.
    ///
    /// # Errors
    /// Those of `write`; nothing is added then.
    pub fn push_of<E>(
        &mut self,
        ssrc: u32,
        slot: usize,
        route: impl Into<Route>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.add(slot, route.into(), Streams::one(ssrc), write)
    }

    fn add<E>(
        &mut self,
        slot: usize,
        route: Route,
        streams: Streams,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let max_segments = self.max_segments;
        let Some(Queue { buffer, runs, .. }) = self.queue(slot) else { return Ok(()) };
        let start = buffer.len();
        let written = write(buffer);
        if written.is_err() {
            buffer.truncate(start);
        }
        let end = buffer.len();
        let len = end.saturating_sub(start);
        if len == 0 {
            return written;
        }
        match runs.last_mut() {
            Some(run) if run.takes(route, len, max_segments) => {
                run.end = end;
                run.count += 1;
                run.streams.0 |= streams.0;
            }
            _ => runs.push(Run { route, start, end, segment: len, count: 1, streams }),
        }
        self.len += len;
        written
    }

    /// The queue of a slot, with room for a packet.
    fn queue(&mut self, slot: usize) -> Option<&mut Queue> {
        if self.places.len() <= slot {
            self.places.resize(slot + 1, 0);
        }
        let place = self.places.get_mut(slot)?;
        if *place == 0 {
            if self.used == self.queues.len() {
                self.queues.push(Queue::default());
            }
            self.used += 1;
            *place = u32::try_from(self.used).ok()?;
            let queue = self.queues.get_mut(self.used - 1)?;
            queue.slot = slot;
            queue.buffer.reserve(if self.used <= MAX_QUEUES { QUEUE_CAPACITY } else { RARE_QUEUE_KEEP });
            return Some(queue);
        }
        self.queues.get_mut(usize::try_from(*place).ok()?.checked_sub(1)?)
    }

    /// Bytes waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether to send before more is added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len >= MAX_BYTES || self.used >= MAX_QUEUES
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes fewer runs of what waits: a packet of audio that came just before a video frame becomes its end.
    pub fn join(&mut self) {
        let max_segments = self.max_segments;
        self.queues.iter_mut().take(self.used).for_each(|queue| queue.join(max_segments));
    }

    /// What waits; for each destination in order, but for [`SendBatch::join`].
    pub fn bursts(&self) -> impl Iterator<Item = Burst<'_>> {
        self.queues.iter().take(self.used).flat_map(|queue| {
            queue.runs.iter().filter_map(|run| {
                let bytes = queue.buffer.get(run.start..run.end)?;
                Some(Burst { route: run.route, bytes, segment: run.segment, count: run.count })
            })
        })
    }

    /// Forgets everything that waits; keeps the buffers.
    pub fn clear(&mut self) {
        for (queue, place) in self.queues.iter_mut().take(self.used).zip(0..) {
            queue.buffer.clear();
            queue.buffer.shrink_to(if place < MAX_QUEUES { QUEUE_KEEP } else { RARE_QUEUE_KEEP });
            queue.runs.clear();
            if let Some(place) = self.places.get_mut(queue.slot) {
                *place = 0;
            }
        }
        self.used = 0;
        self.len = 0;
    }
}

impl Queue {
    /// Puts a packet that is a run by itself at the end of the last run, where only a shorter one may stand.
    fn join(&mut self, max_segments: usize) {
        let Self { buffer, runs, .. } = self;
        let Some((last, before)) = runs.split_last_mut() else { return };
        // Nothing is overtaken by what is of its own stream.
        let mut overtakes = last.streams.0;
        let fitting = before.iter().rposition(|run| {
            let len = run.end - run.start;
            let fits = run.count == 1 && run.streams.0 & overtakes == 0 && last.takes(run.route, len, max_segments);
            overtakes |= run.streams.0;
            fits
        });
        let Some(Run { start, end, streams, .. }) = fitting.and_then(|place| before.get(place)).copied() else {
            return;
        };
        buffer.extend_from_within(start..end);
        last.end = buffer.len();
        last.count += 1;
        last.streams.0 |= streams.0;
        fitting.map(|place| runs.remove(place));
    }
}

impl Run {
    /// Only equal datagrams may follow one another, and after a shorter one none.
    fn takes(&self, route: Route, len: usize, max_segments: usize) -> bool {
        let whole = self.end - self.start == self.segment * self.count;
        self.route == route
            && whole
            && len <= self.segment
            && self.count < max_segments
            && self.end - self.start + len <= MAX_RUN_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn push(batch: &mut SendBatch, slot: usize, port: u16, len: usize) {
        let write = |buffer: &mut Vec<u8>| {
            buffer.resize(buffer.len() + len, 1);
            Ok::<_, ()>(())
        };
        batch.push(slot, at(port), write).unwrap();
    }

    fn shapes(batch: &SendBatch) -> Vec<(u16, usize, usize, usize)> {
        batch.bursts().map(|b| (b.route.to.port(), b.segment, b.count, b.bytes.len())).collect()
    }

    #[test]
    fn equal_datagrams_run_together_and_a_shorter_one_ends_the_run() {
        let mut batch = SendBatch::new(64);
        for len in [100, 100, 60, 60, 100] {
            push(&mut batch, 3, 1, len);
        }
        assert_eq!(shapes(&batch), [(1, 100, 3, 260), (1, 60, 1, 60), (1, 100, 1, 100)]);
        assert_eq!(batch.len(), 420);
        batch.clear();
        assert!(batch.is_empty() && batch.bursts().next().is_none());
    }

    #[test]
    fn runs_end_at_the_limits_of_a_send() {
        let mut batch = SendBatch::new(4);
        (0..6).for_each(|_| push(&mut batch, 0, 1, 10));
        assert_eq!(shapes(&batch), [(1, 10, 4, 40), (1, 10, 2, 20)]);
        let mut batch = SendBatch::new(64);
        (0..64).for_each(|_| push(&mut batch, 0, 1, 1200));
        assert_eq!(shapes(&batch), [(1, 1200, 50, 60_000), (1, 1200, 14, 16_800)]);
    }

    #[test]
    fn a_new_address_starts_a_new_run() {
        let mut batch = SendBatch::new(64);
        for (slot, port) in [(0, 1), (0, 2), (1, 9), (0, 2)] {
            push(&mut batch, slot, port, 50);
        }
        assert_eq!(shapes(&batch), [(1, 50, 1, 50), (2, 50, 2, 100), (9, 50, 1, 50)]);
    }

    fn push_of(batch: &mut SendBatch, ssrc: u32, len: usize) {
        let write = |buffer: &mut Vec<u8>| {
            buffer.resize(buffer.len() + len, ssrc.to_le_bytes()[0]);
            Ok::<_, ()>(())
        };
        batch.push_of(ssrc, 0, at(1), write).unwrap();
    }

    /// Stream and length of each datagram of each burst.
    fn joined(batch: &mut SendBatch) -> Vec<Vec<(u8, usize)>> {
        batch.join();
        let datagrams = |b: Burst<'_>| b.bytes.chunks(b.segment).map(|d| (d[0], d.len())).collect::<Vec<_>>();
        let bursts: Vec<_> = batch.bursts().map(datagrams).collect();
        assert!(batch.bursts().zip(&bursts).all(|(burst, datagrams)| burst.count == datagrams.len()));
        batch.clear();
        bursts
    }

    const VIDEO: u32 = 1;
    const AUDIO: u32 = 2;
    const OTHER: u32 = 3;

    #[test]
    fn a_packet_of_another_stream_leaves_at_the_end_of_a_frame_that_came_after_it() {
        let mut batch = SendBatch::new(64);
        push_of(&mut batch, AUDIO, 130);
        (0..3).for_each(|_| push_of(&mut batch, VIDEO, 1100));
        assert_eq!(joined(&mut batch), [[(1, 1100), (1, 1100), (1, 1100), (2, 130)]]);

        // The frame has an end already.
        push_of(&mut batch, AUDIO, 130);
        [1100, 700].into_iter().for_each(|len| push_of(&mut batch, VIDEO, len));
        assert_eq!(joined(&mut batch), [vec![(2, 130)], vec![(1, 1100), (1, 700)]]);

        // One at most, of those before it the last.
        [(AUDIO, 120), (OTHER, 130)].into_iter().for_each(|(ssrc, len)| push_of(&mut batch, ssrc, len));
        (0..2).for_each(|_| push_of(&mut batch, VIDEO, 1100));
        assert_eq!(joined(&mut batch), [vec![(2, 120)], vec![(1, 1100), (1, 1100), (3, 130)]]);
    }

    #[test]
    fn nothing_overtakes_its_own_stream_or_what_is_of_none() {
        let mut batch = SendBatch::new(64);
        [100, 130].into_iter().for_each(|len| push_of(&mut batch, AUDIO, len));
        assert_eq!(joined(&mut batch), [[(2, 100)], [(2, 130)]]);

        // Behind a packet of its stream, which stays where it is.
        [(AUDIO, 100), (OTHER, 130), (AUDIO, 140)].into_iter().for_each(|(ssrc, len)| push_of(&mut batch, ssrc, len));
        (0..2).for_each(|_| push_of(&mut batch, VIDEO, 1100));
        assert_eq!(joined(&mut batch), [vec![(2, 100)], vec![(3, 130)], vec![(1, 1100), (1, 1100), (2, 140)]]);

        // Not past packets of its stream that cannot go with it.
        [100, 130, 130].into_iter().for_each(|len| push_of(&mut batch, AUDIO, len));
        push_of(&mut batch, VIDEO, 1100);
        assert_eq!(joined(&mut batch), [vec![(2, 100)], vec![(2, 130), (2, 130)], vec![(1, 1100)]]);

        push(&mut batch, 0, 1, 130);
        push_of(&mut batch, VIDEO, 1100);
        assert_eq!(joined(&mut batch), [[(1, 130)], [(1, 1100)]]);
    }

    #[test]
    fn joined_runs_keep_the_limits_of_a_send_and_their_address() {
        let mut batch = SendBatch::new(4);
        push_of(&mut batch, AUDIO, 130);
        (0..4).for_each(|_| push_of(&mut batch, VIDEO, 1100));
        assert_eq!(joined(&mut batch), [vec![(2, 130)], vec![(1, 1100); 4]]);

        let mut batch = SendBatch::new(64);
        let write = |buffer: &mut Vec<u8>| {
            buffer.resize(130, 2);
            Ok::<_, ()>(())
        };
        batch.push_of(AUDIO, 0, at(2), write).unwrap();
        push_of(&mut batch, VIDEO, 1100);
        assert_eq!(joined(&mut batch), [[(2, 130)], [(1, 1100)]]);
    }

    #[test]
    fn buffers_are_handed_on_from_peer_to_peer() {
        let mut batch = SendBatch::new(64);
        (0..100).for_each(|slot| push(&mut batch, slot, 1, 50));
        batch.clear();
        for slot in 1000..5000 {
            push(&mut batch, slot, 2, 50);
            push(&mut batch, slot, 2, 50);
            assert_eq!((shapes(&batch), batch.used), (vec![(2, 50, 2, 100)], 1));
            batch.clear();
        }
        assert_eq!(batch.queues.len(), 100, "no more than were needed at once");
        (0..100).for_each(|slot| push(&mut batch, slot, 1, 40_000));
        batch.clear();
        let kept: usize = batch.queues.iter().map(|queue| queue.buffer.capacity()).sum();
        assert!(kept <= MAX_QUEUES * QUEUE_KEEP + (100 - MAX_QUEUES) * RARE_QUEUE_KEEP, "{kept}");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let mut batch = SendBatch::new(64);
        push(&mut batch, 0, 1, 50);
        let failed = batch.push(0, at(1), |buffer| {
            buffer.extend([0; 20]);
            Err(())
        });
        assert!(failed.is_err());
        assert_eq!(shapes(&batch), [(1, 50, 1, 50)]);
    }
}
