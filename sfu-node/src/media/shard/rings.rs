//! The ways between the shards' threads: a bounded ring of bytes for each ordered pair, one writer, one reader, no locks.
//! A batch is one write, and one wake only where the reader sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use mio::Waker;
use rtrb::{Consumer, Producer, RingBuffer};

use super::crossings::frames;
use crate::media::api::ShardIndex;

/// Bytes a ring holds: tens of milliseconds of the tracks of a large room. Pages are touched as they are used.
const RING_LEN: usize = 1024 * 1024;
/// Bytes kept that must not be lost, while a ring is full. A thread that leaves more unread has stopped.
const MAX_LATE: usize = 1024 * 1024;

/// Wakes a shard's thread.
#[derive(Debug)]
pub(super) struct Bell {
    waker: Waker,
    sleeping: AtomicBool,
}

impl Bell {
    pub(super) fn new(waker: Waker) -> Self {
        Self { waker, sleeping: AtomicBool::new(false) }
    }

    /// Wakes it in any case.
    pub(super) fn ring(&self) {
        // A failing waker means the poll is gone, and with it the thread.
        let _ = self.waker.wake();
    }

    fn ring_if_asleep(&self) {
        // What was written must be visible before the flag is read: the other side does it the other way round.
        fence(Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::Relaxed) {
            self.ring();
        }
    }
}

struct Outgoing {
    ring: Producer<u8>,
    /// Frames that must not be lost and found no room.
    late: Vec<u8>,
    bell: Arc<Bell>,
}

/// One shard's ends of all rings.
pub(super) struct Rings {
    bell: Arc<Bell>,
    /// To each shard; `None`: itself.
    outgoing: Vec<Option<Outgoing>>,
    incoming: Vec<(ShardIndex, Consumer<u8>)>,
    scratch: Vec<u8>,
}

/// Rings between all of these.
pub(super) fn mesh(bells: &[Arc<Bell>]) -> Vec<Rings> {
    let own = |bell: &Arc<Bell>| Rings {
        bell: bell.clone(),
        outgoing: Vec::new(),
        incoming: Vec::new(),
        scratch: Vec::new(),
    };
    let mut all: Vec<Rings> = bells.iter().map(own).collect();
    for from in ShardIndex::all(bells.len()) {
        for (to, bell) in ShardIndex::all(bells.len()).zip(bells) {
            let mut outgoing = None;
            if from != to {
                let (producer, consumer) = RingBuffer::new(RING_LEN);
                outgoing = Some(Outgoing { ring: producer, late: Vec::new(), bell: bell.clone() });
                if let Some(rings) = all.get_mut(to.place()) {
                    rings.incoming.push((from, consumer));
                }
            }
            if let Some(rings) = all.get_mut(from.place()) {
                rings.outgoing.push(outgoing);
            }
        }
    }
    all
}

impl Rings {
    /// Hands staged frames over and empties `staged`. Returns how many were dropped: the ring is full.
    pub(super) fn send(&mut self, to: ShardIndex, staged: &mut Vec<u8>) -> u64 {
        let Some(Some(out)) = self.outgoing.get_mut(to.place()) else {
            staged.clear();
            return 0;
        };
        let dropped = out.send(staged);
        staged.clear();
        dropped
    }

    /// Tries again what found no room. True: some of it is still here.
    pub(super) fn retry(&mut self) -> bool {
        let late = self.outgoing.iter_mut().flatten().filter(|out| !out.late.is_empty());
        late.fold(false, |left, out| {
            out.send(&[]);
            left | !out.late.is_empty()
        })
    }

    /// Takes what the others have sent by now, one batch of each at a time.
    pub(super) fn receive(&mut self, mut take: impl FnMut(ShardIndex, &[u8])) {
        for (from, ring) in &mut self.incoming {
            let len = ring.slots();
            if len == 0 {
                continue;
            }
            self.scratch.resize(len, 0);
            if ring.pop_entire_slice(&mut self.scratch).is_ok() {
                take(*from, &self.scratch);
            }
        }
    }

    /// Before the poll sleeps: whether it may. From then on others wake it.
    pub(super) fn may_sleep(&self) -> bool {
        if self.incoming.is_empty() {
            return true;
        }
        self.bell.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let quiet = !self.hold_something();
        if !quiet {
            self.awake();
        }
        quiet
    }

    /// Others have sent something.
    pub(super) fn hold_something(&self) -> bool {
        self.incoming.iter().any(|(_, ring)| !ring.is_empty())
    }

    /// After the poll.
    pub(super) fn awake(&self) {
        self.bell.sleeping.store(false, Ordering::Relaxed);
    }
}

impl Outgoing {
    fn send(&mut self, staged: &[u8]) -> u64 {
        let mut dropped = 0;
        if !self.late.is_empty() && self.ring.push_entire_slice(&self.late).is_ok() {
            self.late.clear();
        }
        if !self.late.is_empty() || self.ring.push_entire_slice(staged).is_err() {
            dropped = frames(staged).map(|frame| u64::from(!self.send_one(frame.whole, frame.droppable))).sum();
        }
        self.bell.ring_if_asleep();
        dropped
    }

    /// False: dropped.
    fn send_one(&mut self, frame: &[u8], droppable: bool) -> bool {
        // What must not be lost stays in order.
        if (droppable || self.late.is_empty()) && self.ring.push_entire_slice(frame).is_ok() {
            return true;
        }
        if droppable || self.late.len() + frame.len() > MAX_LATE {
            return false;
        }
        self.late.extend_from_slice(frame);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;
    use crate::media::forward::Record;
    use crate::media::shard::crossings::Crossings;

    fn bell() -> (Poll, Arc<Bell>) {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        (poll, Arc::new(Bell::new(waker)))
    }

    fn pair() -> (Rings, Rings, Poll) {
        let ((_, a), (poll, b)) = (bell(), bell());
        let [a, b] = <[Rings; 2]>::try_from(mesh(&[a, b])).ok().unwrap();
        (a, b, poll)
    }

    fn staged(count: u32, payload: &[u8], droppable: bool) -> Vec<u8> {
        let mut crossings = Crossings::default();
        for n in 0..count {
            crossings.push(ShardIndex(1), Record { head: &n.to_le_bytes(), payload, droppable });
        }
        crossings.staged().next().map(|(_, frames)| frames.clone()).unwrap_or_default()
    }

    #[test]
    fn a_full_ring_drops_packets_and_keeps_the_rest_in_order() {
        let (mut a, mut b, _) = pair();
        let many = staged(1000, &[0; 1100], true);
        let dropped = a.send(ShardIndex(1), &mut many.clone());
        assert_eq!(dropped, 1000 - (RING_LEN / 1108) as u64);
        assert_eq!(a.send(ShardIndex(1), &mut staged(3, &[1; 1100], false)), 0);
        assert_eq!(a.send(ShardIndex(1), &mut staged(3, &[2; 1100], false)), 0);
        assert!(a.retry(), "no room yet");
        let mut got = Vec::new();
        b.receive(|from, bytes| {
            assert_eq!(from, ShardIndex(0));
            got.extend(frames(bytes).map(|frame| frame.whole.to_vec()));
        });
        assert_eq!(got.len() as u64, 1000 - dropped);
        assert!(!a.retry());
        let mut late = Vec::new();
        b.receive(|_, bytes| late.extend(frames(bytes).map(|frame| (frame.whole[4], frame.whole[8]))));
        assert_eq!(late, [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]);
    }

    #[test]
    fn only_a_sleeper_is_woken() {
        let (mut a, b, mut poll) = pair();
        let mut events = Events::with_capacity(1);
        a.send(ShardIndex(1), &mut staged(1, &[], true));
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty(), "it is awake");
        assert!(!b.may_sleep(), "something waits for it");
        let (mut a, b, mut poll) = pair();
        assert!(b.may_sleep());
        a.send(ShardIndex(1), &mut staged(1, &[], true));
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert!(!events.is_empty());
    }

    #[test]
    fn nothing_is_lost_between_threads_that_sleep() {
        let (mut a, mut b, mut poll) = pair();
        let reader = thread::spawn(move || {
            let (mut events, mut next) = (Events::with_capacity(1), 0_u32);
            while next < 20_000 {
                if b.may_sleep() {
                    poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
                    assert!(!events.is_empty(), "nobody woke it at {next}");
                }
                b.awake();
                b.receive(|_, bytes| {
                    for frame in frames(bytes) {
                        assert_eq!(frame.whole[4..], next.to_le_bytes());
                        next += 1;
                    }
                });
            }
        });
        let mut crossings = Crossings::default();
        for n in 0..20_000_u32 {
            crossings.push(ShardIndex(1), Record { head: &n.to_le_bytes(), payload: &[], droppable: false });
            crossings.staged().for_each(|(to, frames)| assert_eq!(a.send(to, frames), 0));
            if n % 64 == 0 {
                thread::yield_now();
            }
        }
        reader.join().unwrap();
    }
}
