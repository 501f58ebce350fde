//! How much a transport can be sent: what left, what its transport-wide feedback says became of it, and probes for more.

#[cfg(test)]
pub(crate) mod bounds;
pub(crate) mod feedback;
mod history;
mod probe;
mod rate;
#[cfg(test)]
mod tests;
mod trend;

use self::feedback::{Feedback, REFERENCE_UNIT};
use self::history::{History, Sent};
use self::probe::Prober;
use self::rate::{Outcome, Rate};
use self::trend::{Trend, Usage};
use crate::media::forward::clock::{Time, whole};
use crate::media::forward::pacing::Pace;
use crate::media::forward::rtp::Malformed;

/// Bytes around an RTP packet on the wire: IPv4, UDP and the SRTP tag.
pub(crate) const OVERHEAD: usize = 20 + 8 + 16;
/// Span over which the rate that arrives is measured, microseconds.
const ACKNOWLEDGED_SPAN: i64 = 500_000;
const BUCKETS: usize = 10;
/// Buckets of the newest of it: where a path has become narrower, what came before says nothing.
const LATELY: usize = 4;
const BUCKET: i64 = ACKNOWLEDGED_SPAN / BUCKETS.cast_signed() as i64;
/// Reference times wrap at 24 bits.
const REFERENCE_WRAP: i64 = 1 << 24;

/// One transport's.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    history: History,
    trend: Trend,
    rate: Rate,
    prober: Prober,
    pace: Pace,
    /// What goes out now was held.
    pub(crate) releasing: bool,
    arrived: Arrived,
    /// Reference time last read, unwrapped.
    reference: Option<i64>,
    heard: bool,
    /// It said how much it takes.
    limited: bool,
}

impl Bandwidth {
    pub(crate) fn new() -> Self {
        Self {
            history: History::new(),
            trend: Trend::new(),
            rate: Rate::new(),
            prober: Prober::default(),
            pace: Pace::default(),
            releasing: false,
            arrived: Arrived::default(),
            reference: None,
            heard: false,
            limited: false,
        }
    }

    /// Transport-wide number of the next packet.
    pub(crate) fn next_number(&self) -> u16 {
        self.history.next()
    }

    /// The packet with that number went out, `len` bytes of plain RTP.
    pub(crate) fn sent(&mut self, now: Time, len: usize) {
        let size = u16::try_from(len + OVERHEAD).unwrap_or(u16::MAX);
        let (cluster, in_wake) = (self.prober.current(now), self.prober.in_wake(now));
        self.history.record(Sent { at: now, size, cluster, held: self.releasing, in_wake, ..Sent::default() });
        self.prober.sent(now, size);
        self.pace.sent(now, size, self.rate.target());
    }

    /// More may go out now, as far as is known.
    pub(crate) fn lets_out(&self, now: Time) -> bool {
        !self.is_known() || self.pace.allows(now, self.rate.target())
    }

    /// When to look whether more may go out.
    pub(crate) fn lets_out_at(&self, now: Time) -> Time {
        self.pace.next(now, self.rate.target())
    }

    /// The peer's transport-wide feedback: what follows the two SSRCs.
    pub(crate) fn heard(&mut self, now: Time, body: &[u8]) -> Result<(), Malformed> {
        let feedback = Feedback::parse(body)?;
        let start = self.unwrap(feedback.reference) * REFERENCE_UNIT;
        if let Some(received) = feedback.last_received() {
            self.history.follow(received);
        }
        let (mut lost, mut told, mut judged) = (0, 0, false);
        for (number, arrival) in feedback.statuses() {
            let Some(sent) = self.history.take(number) else { continue };
            told += 1;
            let arrival = arrival.map(|arrival| start + arrival);
            self.prober.told(&sent, arrival);
            let Some(arrival) = arrival else {
                lost += 1;
                continue;
            };
            self.arrived.add(arrival, sent.size);
            if !sent.in_wake {
                self.trend.arrived(sent.at, sent.held, arrival);
                judged = true;
            }
        }
        if told == 0 {
            return Ok(());
        }
        self.heard = true;
        // Of probes alone it is not known what media would meet: what was believed before may be long past.
        let usage = if judged { self.trend.usage() } else { Usage::Normal };
        let (acknowledged, lately) = (self.arrived.rate(BUCKETS), self.arrived.rate(LATELY));
        self.rate.heard(now, Outcome { usage, acknowledged, lately, lost, told });
        if let Some(result) =
            self.prober.take_result(now, self.rate.target(), self.rate.loss()).filter(|_| usage != Usage::Over)
        {
            self.rate.probed(result);
        }
        if usage == Usage::Over || self.rate.decreased() == Some(now) {
            self.prober.stop(now);
        }
        Ok(())
    }

    /// A peer without transport-wide feedback says what it takes (REMB), bits per second.
    pub(crate) fn told_limit(&mut self, bits_per_second: u64) {
        if !self.heard {
            self.limited = true;
            self.rate.told_limit(bits_per_second as f64);
        }
    }

    /// The round trip, microseconds.
    pub(crate) fn measured(&mut self, round_trip: u64) {
        self.rate.measured(round_trip);
    }

    /// The peer has said something of it.
    pub(crate) fn is_known(&self) -> bool {
        self.heard || self.limited
    }

    /// Bits per second.
    pub(crate) fn estimate(&self) -> u64 {
        whole(self.rate.target())
    }

    /// What is sent goes to another address from now on. What went to the former one says nothing of the path, whether it
    /// came or not; the rate stays until this one says otherwise.
    pub(crate) fn path_changed(&mut self, now: Time) {
        self.history.forget();
        self.trend = Trend::new();
        self.arrived = Arrived::default();
        self.rate.path_changed();
        self.prober.stop(now);
    }

    /// More would be of use: begins a probe, if it is time.
    pub(crate) fn probe_for(&mut self, now: Time, bits_per_second: u64) -> bool {
        let settled = self.rate.decreased().is_none_or(|at| now.since(at) > 1_000_000);
        self.heard && settled && self.prober.begin(now, self.rate.target(), bits_per_second as f64)
    }

    /// Bytes of padding due now.
    pub(crate) fn padding_due(&self, now: Time) -> u64 {
        self.prober.padding_due(now)
    }

    /// When padding is to be looked at again.
    pub(crate) fn next_due(&mut self, now: Time) -> Option<Time> {
        // A cluster nobody answers for is done with here.
        self.prober.take_result(now, self.rate.target(), self.rate.loss());
        self.prober.next_due(now)
    }

    /// The reference time nearest to the last.
    fn unwrap(&mut self, reference: u32) -> i64 {
        let read = i64::from(reference);
        let last = self.reference.unwrap_or(read);
        let delta = (read - last).rem_euclid(REFERENCE_WRAP);
        let delta = if delta > REFERENCE_WRAP / 2 { delta - REFERENCE_WRAP } else { delta };
        *self.reference.insert(last + delta)
    }
}

/// Bytes that arrived lately, on the peer's clock.
#[derive(Debug, Default)]
struct Arrived {
    buckets: [u64; BUCKETS],
    newest: Option<i64>,
    /// Buckets filled since the start or the last pause.
    filled: i64,
}

impl Arrived {
    fn add(&mut self, arrival: i64, size: u16) {
        let bucket = arrival.div_euclid(BUCKET);
        let newest = *self.newest.get_or_insert(bucket);
        let step = bucket - newest;
        if step.abs() > BUCKETS.cast_signed() as i64 {
            *self = Self { newest: Some(bucket), ..Self::default() };
        } else if step > 0 {
            for skipped in newest + 1..=bucket {
                if let Some(bytes) = self.buckets.get_mut(place(skipped)) {
                    *bytes = 0;
                }
            }
            self.newest = Some(bucket);
            self.filled = (self.filled + step).min(BUCKETS.cast_signed() as i64 - 1);
        }
        if let Some(bytes) = self.buckets.get_mut(place(bucket)) {
            *bytes += u64::from(size);
        }
    }

    /// Bits per second over the last `most` buckets that are full; `None` before there are some.
    fn rate(&self, most: usize) -> Option<f64> {
        let newest = self.newest?;
        let filled = self.filled.min(most.cast_signed() as i64);
        if filled < 2 {
            return None;
        }
        let full = (1..=filled).filter_map(|back| self.buckets.get(place(newest - back)));
        let bytes: u64 = full.sum();
        Some(bytes as f64 * 8.0 * 1e6 / (filled * BUCKET) as f64)
    }
}

fn place(bucket: i64) -> usize {
    usize::try_from(bucket.rem_euclid(BUCKETS.cast_signed() as i64)).unwrap_or(0)
}
