//! Probing: a short cluster of packets, padded with repeats, at a rate the path has not been seen to carry.

use std::time::Duration;

use super::history::Sent;
use crate::media::forward::clock::{Time, micros, whole};

/// How long a cluster lasts at least; longer where so few packets go out in it that they would tell nothing.
const LENGTH: Duration = Duration::from_millis(50);
const ENOUGH_PACKETS: u32 = 10;
/// How long it lasts at most.
const MAX_LENGTH: Duration = Duration::from_millis(500);
/// Time between two looks at how much padding is due.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// How long after its end a cluster's feedback is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long after a cluster's last packet the queue that it may have left drains: what meets it says nothing of the media's
/// rate, which would be cut although it fits.
const WAKE: Duration = Duration::from_millis(300);
/// Least packets that tell something.
const MIN_PACKETS: u32 = 5;
/// Share of a cluster's packets that must have arrived, of those that usually do.
const MIN_ARRIVED: f64 = 0.8;
/// The path's own loss is believed up to here.
const MAX_LOSS: f64 = 0.1;
/// Arriving slower than sent by more: the path's limit was met; a little less is safe.
const SLOWED: f64 = 0.9;
const SAFE: f64 = 0.95;
/// First and longest wait after a probe that did not raise the estimate.
const MIN_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(5);
/// A probe goes this far beyond the estimate at most: what overflows is lost.
const MAX_STEP: f64 = 2.0;
const MIN_STEP: f64 = 300_000.0;
/// And this far at least: of a few packets the rate is not known better.
const CLEAR_STEP: f64 = 1.25;

/// One cluster.
#[derive(Debug)]
struct Cluster {
    id: u8,
    rate: f64,
    began: Time,
    /// Sent since then, padding or not.
    bytes: u64,
    packets: u32,
    /// Sent and arrived bytes between the first and the last packet told of.
    told: Told,
    /// Packets of which it is told that they did not arrive.
    lost: u32,
}

#[derive(Debug, Default)]
struct Told {
    packets: u32,
    bytes: u64,
    first: Option<(Time, i64, u16)>,
    last: Option<(Time, i64, u16)>,
}

/// A transport's probes, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Prober {
    cluster: Option<Cluster>,
    last_id: u8,
    /// No probe before.
    next: Time,
    /// The queue that the last one left is gone then.
    wake: Time,
    wait: Option<Duration>,
}

impl Prober {
    /// The cluster that packets sent now belong to; 0: none.
    pub(crate) fn current(&self, now: Time) -> u8 {
        self.cluster.as_ref().filter(|cluster| cluster.is_open(now)).map_or(0, |cluster| cluster.id)
    }

    /// What goes out now is part of a cluster, or meets the queue that one left.
    pub(crate) fn in_wake(&self, now: Time) -> bool {
        now < self.wake || self.current(now) != 0
    }

    /// Begins a cluster towards `wanted` bits per second, if it is time. True when it began.
    pub(crate) fn begin(&mut self, now: Time, estimate: f64, wanted: f64) -> bool {
        if self.cluster.is_some() || now < self.next || wanted <= estimate {
            return false;
        }
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let rate = wanted.max(estimate * CLEAR_STEP).min((estimate * MAX_STEP).max(estimate + MIN_STEP));
        let told = Told::default();
        self.cluster = Some(Cluster { id: self.last_id, rate, began: now, bytes: 0, packets: 0, told, lost: 0 });
        true
    }

    /// A packet went out in the open cluster.
    pub(crate) fn sent(&mut self, now: Time, size: u16) {
        if let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_open(now)) {
            cluster.bytes += u64::from(size);
            cluster.packets += 1;
            self.wake = now.plus(WAKE);
        }
    }

    /// Bytes of padding due now.
    pub(crate) fn padding_due(&self, now: Time) -> u64 {
        let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.is_open(now)) else { return 0 };
        // A tick ahead: the first packets leave at once.
        let elapsed = now.since(cluster.began) + micros(TICK);
        let wanted = cluster.rate / 8.0 * elapsed as f64 / 1e6;
        whole(wanted).saturating_sub(cluster.bytes)
    }

    /// When padding is to be looked at again, or an unanswered cluster given up.
    pub(crate) fn next_due(&self, now: Time) -> Option<Time> {
        let cluster = self.cluster.as_ref()?;
        Some(if cluster.is_open(now) { now.plus(TICK) } else { cluster.began.plus(MAX_LENGTH + PATIENCE) })
    }

    /// Feedback told of one of the cluster's packets when it arrived, or that it did not.
    pub(crate) fn told(&mut self, sent: &Sent, arrival: Option<i64>) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.id == sent.cluster) else { return };
        match arrival {
            Some(arrival) => cluster.told.add(sent, arrival),
            None => cluster.lost += 1,
        }
    }

    /// The cluster's result in bits per second, when enough of it is told of. Done with it then; also, without a
    /// result, when too little came in time. `loss`: share of packets that the path loses anyway, not counted against it.
    pub(crate) fn take_result(&mut self, now: Time, estimate: f64, loss: f64) -> Option<f64> {
        let cluster = self.cluster.as_ref().filter(|cluster| !cluster.is_open(now))?;
        let usual = 1.0 - loss.min(MAX_LOSS);
        let enough = (f64::from(cluster.packets) * MIN_ARRIVED * usual).max(f64::from(MIN_PACKETS));
        let result = if f64::from(cluster.told.packets) >= enough { cluster.told.rate() } else { None };
        let result = result.map(|rate| rate / usual);
        if result.is_none() && now < cluster.began.plus(MAX_LENGTH + PATIENCE) {
            return None;
        }
        // Feedback was lost: that says nothing of the path to the peer.
        let unheard = result.is_none() && cluster.is_unheard();
        self.cluster = None;
        if unheard {
            self.next = now.plus(MIN_WAIT);
            return None;
        }
        let raised = result.is_some_and(|rate| rate > 1.05 * estimate);
        self.wait = (!raised).then(|| self.wait.map_or(MIN_WAIT, |wait| (2 * wait).min(MAX_WAIT)));
        self.next = self.wait.map_or(now, |wait| now.plus(wait));
        result
    }

    /// Overuse: the running cluster has shown enough, and the next waits.
    pub(crate) fn stop(&mut self, now: Time) {
        self.cluster = None;
        self.next = self.next.max(now.plus(self.wait.unwrap_or(MIN_WAIT)));
    }
}

impl Cluster {
    /// What became of many of its packets was never said.
    fn is_unheard(&self) -> bool {
        f64::from(self.told.packets + self.lost) < MIN_ARRIVED * f64::from(self.packets)
    }

    fn is_open(&self, now: Time) -> bool {
        let open = now.since(self.began);
        open < micros(LENGTH) || (self.packets < ENOUGH_PACKETS && open < micros(MAX_LENGTH))
    }
}

impl Told {
    fn add(&mut self, sent: &Sent, arrival: i64) {
        self.packets += 1;
        self.bytes += u64::from(sent.size);
        let seen = (sent.at, arrival, sent.size);
        if self.first.is_none_or(|first| arrival < first.1) {
            self.first = Some(seen);
        }
        if self.last.is_none_or(|last| arrival >= last.1) {
            self.last = Some(seen);
        }
    }

    /// The slower of sending and arriving.
    fn rate(&self) -> Option<f64> {
        let (first, last) = (self.first?, self.last?);
        let seconds = |micros: u64| (micros > 0).then_some(micros as f64 / 1e6);
        let between = |own: u16| self.bytes.saturating_sub(u64::from(own)) as f64 * 8.0;
        let sending = between(last.2) / seconds(last.0.since(first.0))?;
        let arriving = between(first.2) / seconds(u64::try_from(last.1 - first.1).ok()?)?;
        Some(if arriving < SLOWED * sending { SAFE * arriving } else { sending.min(arriving) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a cluster over a path that delivers at most `capacity` bits per second; gives the result.
    fn probe(prober: &mut Prober, start: u64, estimate: f64, wanted: f64, capacity: f64) -> Option<f64> {
        probe_with(prober, start, (estimate, wanted), (capacity, u64::MAX), 1000)
    }

    /// The same with packets of so many bytes; one of so many is lost.
    fn probe_with(
        prober: &mut Prober,
        start: u64,
        (estimate, wanted): (f64, f64),
        (capacity, one_lost_of): (f64, u64),
        size: u16,
    ) -> Option<f64> {
        let mut now = Time(start);
        assert!(prober.begin(now, estimate, wanted));
        let (mut packets, mut free) = (vec![], 0.0_f64);
        while prober.current(now) != 0 {
            while prober.padding_due(now) > 0 {
                prober.sent(now, size);
                let sent = Sent { at: now, size, cluster: prober.current(now), ..Sent::default() };
                free = free.max(now.0 as f64) + f64::from(size) * 8e6 / capacity;
                packets.push((sent, whole(free).cast_signed() + 20_000));
            }
            now = now.plus(TICK);
        }
        let arrives = |place: &u64| !(place + 5).is_multiple_of(one_lost_of);
        let arrived = (0..).zip(&packets).filter(|(place, _)| arrives(place));
        arrived.for_each(|(_, (sent, arrival))| prober.told(sent, Some(*arrival)));
        let loss = if one_lost_of == u64::MAX { 0.0 } else { 1.0 / one_lost_of as f64 };
        prober.take_result(now, estimate, loss)
    }

    #[test]
    fn a_probe_of_little_lasts_until_it_tells_something() {
        let result = probe_with(&mut Prober::default(), 0, (60e3, 130e3), (1e9, u64::MAX), 320).unwrap();
        assert!((110e3..160e3).contains(&result), "{result}");
    }

    #[test]
    fn what_the_path_loses_anyway_is_not_held_against_a_probe() {
        let result = probe_with(&mut Prober::default(), 0, (1e6, 2e6), (1e9, 10), 320).unwrap();
        assert!((2.0e6..2.3e6).contains(&result), "{result}");
    }

    #[test]
    fn a_path_that_carries_it_shows_the_rate_wanted() {
        let mut prober = Prober::default();
        let result = probe(&mut prober, 1_000_000, 1e6, 1.8e6, 1e9).unwrap();
        assert!((1.6e6..2.3e6).contains(&result), "{result}");
        assert!(prober.begin(Time(2_000_000), 1.8e6, 3e6), "and the next may follow");
    }

    #[test]
    fn a_path_that_does_not_shows_less_than_its_limit_and_the_next_waits() {
        let mut prober = Prober::default();
        let result = probe(&mut prober, 1_000_000, 1e6, 2e6, 1.05e6).unwrap();
        assert!((0.9e6..1.05e6).contains(&result), "{result}");
        assert!(!prober.begin(Time(2_000_000), 1e6, 2e6));
        assert!(prober.begin(Time(2_100_000), 1e6, 2e6));
    }

    #[test]
    fn what_follows_a_probe_is_in_its_wake_until_the_queue_is_gone() {
        let mut prober = Prober::default();
        assert!(!prober.in_wake(Time(1_000_000)));
        probe(&mut prober, 1_000_000, 1e6, 2e6, 1.05e6).unwrap();
        assert_eq!(prober.current(Time(1_050_000)), 0);
        assert!(prober.in_wake(Time(1_050_000)) && prober.in_wake(Time(1_340_000)));
        assert!(!prober.in_wake(Time(1_350_000)));
    }

    #[test]
    fn what_is_never_told_of_is_given_up() {
        let mut prober = Prober::default();
        assert!(prober.begin(Time(0), 1e6, 2e6));
        prober.sent(Time(0), 1000);
        assert_eq!(prober.take_result(Time(600_000), 1e6, 0.0), None);
        assert!(!prober.begin(Time(600_000), 1e6, 2e6), "still waiting");
        assert_eq!(prober.take_result(Time(1_500_000), 1e6, 0.0), None);
        assert!(prober.begin(Time(2_500_000), 1e6, 2e6));
    }

    /// Probes five times, each time once it is time, and is told of every packet that none arrived, or nothing. Seconds
    /// between the last two.
    fn wait_after_probes_in_vain(is_told: bool) -> f64 {
        let mut prober = Prober::default();
        let mut began = vec![];
        for now in (0_u64..).step_by(10_000).map(Time) {
            if prober.begin(now, 1e6, 2e6) {
                began.push(now);
                let sent = Sent { at: now, size: 1000, cluster: prober.current(now), ..Sent::default() };
                for _ in 0..ENOUGH_PACKETS {
                    prober.sent(now, sent.size);
                    if is_told {
                        prober.told(&sent, None);
                    }
                }
            }
            if let [.., before, last] = began[..]
                && began.len() == 5
            {
                return last.since(before) as f64 / 1e6;
            }
            assert_eq!(prober.take_result(now, 1e6, 0.0), None);
        }
        unreachable!()
    }

    #[test]
    fn lost_feedback_does_not_make_the_next_probe_wait_longer() {
        let (lost, unheard) = (wait_after_probes_in_vain(true), wait_after_probes_in_vain(false));
        assert!((6.0..7.0).contains(&lost), "the longest wait, and that for feedback: {lost}");
        assert!((2.0..3.0).contains(&unheard), "{unheard}");
    }
}
