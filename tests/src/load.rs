//! Meters of the load clients: what a subscriber got of what was sent in a window, and how late.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::client::{PacketSink, Stamp};

/// A packet that reached a subscriber. Times are nanoseconds of Unix time, by one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// The publisher's send call; tells packets apart.
    pub sent: u64,
    /// The kernel's receive timestamp, if it gave one.
    pub received: Option<u64>,
}

/// What became of a window's packets at one subscriber.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that arrived in time; copies of a packet count once.
    pub arrived: usize,
    /// Of these: without a receive time, or with one before they were sent.
    pub untimed: usize,
    /// Of the others: nanoseconds from send call to receive timestamp.
    pub delays: Vec<u64>,
}

/// Counts packets sent in `window` and received until `tail` after its end, **whenever they were looked at**.
#[must_use]
pub fn tally(mut arrivals: Vec<Arrival>, window: &Range<u64>, tail: Duration) -> Tally {
    let deadline = deadline(window, tail);
    arrivals.retain(|arrival| window.contains(&arrival.sent));
    arrivals.sort_unstable();
    arrivals.dedup_by_key(|arrival| arrival.sent);
    arrivals.retain(|arrival| arrival.received.is_none_or(|at| at <= deadline));
    let delays: Vec<u64> = arrivals.iter().filter_map(|a| a.received?.checked_sub(a.sent)).collect();
    Tally { arrived: arrivals.len(), untimed: arrivals.len() - delays.len(), delays }
}

/// Until when packets of a window may arrive, nanoseconds of Unix time.
#[must_use]
pub fn deadline(window: &Range<u64>, tail: Duration) -> u64 {
    window.end.saturating_add(u64::try_from(tail.as_nanos()).unwrap_or(u64::MAX))
}

/// What one subscriber got.
#[derive(Debug, Default)]
pub struct Meter {
    arrivals: Mutex<Vec<Arrival>>,
    sources: Mutex<Vec<u32>>,
    counted_until: AtomicU64,
}

impl Meter {
    /// Whatever the kernel received for this subscriber before this time (nanoseconds of Unix time) has been counted:
    /// its socket is a queue. 0 before the first packet.
    #[must_use]
    pub fn counted_until(&self) -> u64 {
        self.counted_until.load(Ordering::Acquire)
    }

    /// What arrived since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From how many tracks something arrived so far.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn arrived(&self, source: u32, arrival: Arrival) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if !sources.contains(&source) {
            sources.push(source);
        }
        drop(sources);
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
        // Nothing is received before it is sent.
        self.counted_until.fetch_max(arrival.received.unwrap_or(arrival.sent), Ordering::Release);
    }
}

/// Feeds a [`Meter`].
pub struct MeterSink(Arc<Meter>);

impl MeterSink {
    /// A sink and its meter.
    #[must_use]
    pub fn new() -> (Box<Self>, Arc<Meter>) {
        let meter = Arc::new(Meter::default());
        (Box::new(Self(Arc::clone(&meter))), meter)
    }
}

impl PacketSink for MeterSink {
    fn packet(&mut self, payload: &[u8], received: Option<u64>) {
        if let Some(stamp) = Stamp::read(payload) {
            self.0.arrived(stamp.source, Arrival { sent: stamp.sent, received });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: Duration = Duration::from_nanos(50);

    fn arrivals(times: &[(u64, Option<u64>)]) -> Vec<Arrival> {
        times.iter().map(|(sent, received)| Arrival { sent: *sent, received: *received }).collect()
    }

    #[test]
    fn the_receive_time_decides_what_is_lost() {
        let came = arrivals(&[(100, Some(110)), (199, Some(250)), (198, Some(251)), (150, Some(9_999))]);
        let tally = tally(came, &(100..200), TAIL);
        assert_eq!(tally, Tally { arrived: 2, untimed: 0, delays: vec![10, 51] });
    }

    #[test]
    fn only_packets_sent_in_the_window_count() {
        let came = arrivals(&[(99, Some(120)), (100, Some(101)), (200, Some(201))]);
        assert_eq!(tally(came, &(100..200), TAIL), Tally { arrived: 1, untimed: 0, delays: vec![1] });
    }

    #[test]
    fn a_packet_without_a_usable_time_has_arrived_but_has_no_delay() {
        let came = arrivals(&[(110, None), (120, Some(119)), (130, Some(135))]);
        assert_eq!(tally(came, &(100..200), TAIL), Tally { arrived: 3, untimed: 2, delays: vec![5] });
    }

    #[test]
    fn copies_of_a_packet_do_not_make_up_for_another() {
        let came = arrivals(&[(110, Some(115)), (110, Some(112)), (110, Some(400))]);
        assert_eq!(tally(came, &(100..200), TAIL), Tally { arrived: 1, untimed: 0, delays: vec![2] });
    }

    #[test]
    fn a_meter_says_how_far_it_has_counted() {
        let (mut sink, meter) = MeterSink::new();
        assert_eq!(meter.counted_until(), 0);
        sink.packet(b"no packet of ours", Some(u64::MAX));
        assert_eq!((meter.counted_until(), meter.take()), (0, Vec::new()));

        let mut payload = Vec::new();
        Stamp { source: 1, counter: 1, sent: 1_000 }.write(&mut payload);
        sink.packet(&payload, None);
        assert_eq!(meter.counted_until(), 1_000);
        sink.packet(&payload, Some(1_007));
        assert_eq!(meter.counted_until(), 1_007);
        assert_eq!(meter.take(), arrivals(&[(1_000, None), (1_000, Some(1_007))]));
        assert_eq!((meter.take(), meter.sources()), (Vec::new(), 1));
    }
}
