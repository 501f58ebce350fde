//! The bitrate of one received stream, and of each choice of its layers.

use std::time::Duration;

use crate::media::forward::bandwidth::OVERHEAD;
use crate::media::forward::clock::{Time, micros};
use crate::media::forward::layering::{Frame, MAX_TARGETS};

/// Fixed RTP header and usual extensions, bytes.
const HEADER: usize = 24;
/// Time over which packets are counted: several frames, so that one does not weigh too much.
const SPAN: Duration = Duration::from_millis(500);

/// Temporal layers whose frames are counted (three bits in most codecs).
pub(crate) const TEMPORAL: usize = 8;

/// Counts bytes as they go over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meter {
    pub(crate) began: Option<Time>,
    pub(crate) bytes: u64,
    /// Of the spans before, smoothed.
    pub(crate) rate: Option<u64>,
}

impl Meter {
    /// A packet came.
    pub(crate) fn count(&mut self, now: Time, payload_len: usize) {
        let began = *self.began.get_or_insert(now);
        let elapsed = now.since(began);
        if elapsed >= micros(SPAN) {
            let measured = self.bytes.saturating_mul(8_000_000) / elapsed;
            // After a pause nothing of before holds.
            let before = self.rate.filter(|_| elapsed < 2 * micros(SPAN));
            self.rate = Some(before.map_or(measured, |before| u64::midpoint(before, measured)));
            (self.began, self.bytes) = (Some(now), 0);
        }
        self.bytes += (payload_len + HEADER + OVERHEAD) as u64;
    }

    /// Bits per second; what the first packets suggest before a span is over.
    pub(crate) fn rate(&self, now: Time) -> u64 {
        let elapsed = self.began.map_or(0, |began| now.since(began));
        match self.rate {
            Some(_) if elapsed > 4 * micros(SPAN) => 0,
            Some(rate) => rate,
            None => self.bytes.saturating_mul(8_000_000) / elapsed.max(micros(SPAN) / 5),
        }
    }
}

/// Counts what each decode target of a stream costs, and its frames by temporal layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TargetMeter {
    pub(crate) began: Option<Time>,
    pub(crate) bytes: [u32; MAX_TARGETS],
    pub(crate) frames: [u32; TEMPORAL],
    /// Bits per second and frames a minute, of the spans before, smoothed.
    pub(crate) known: Option<([u64; MAX_TARGETS], [u32; TEMPORAL])>,
}

impl TargetMeter {
    /// A packet came.
    pub(crate) fn count(&mut self, now: Time, frame: &Frame, payload_len: usize) {
        let began = *self.began.get_or_insert(now);
        let elapsed = now.since(began);
        if elapsed >= micros(SPAN) {
            self.close(elapsed);
            self.began = Some(now);
        }
        let len = u32::try_from(payload_len + HEADER + OVERHEAD).unwrap_or(0);
        for (index, bytes) in self.bytes.iter_mut().enumerate() {
            *bytes = bytes.saturating_add(len * (frame.targets >> index & 1));
        }
        if let Some(frames) = self.frames.get_mut(usize::from(frame.temporal)).filter(|_| frame.unit_start) {
            *frames += 1;
        }
    }

    /// Bits per second of a decode target.
    pub(crate) fn rate(&self, now: Time, target: u8) -> u64 {
        let elapsed = self.began.map_or(0, |began| now.since(began));
        let place = usize::from(target);
        match &self.known {
            Some(_) if elapsed > 4 * micros(SPAN) => 0,
            Some((rates, _)) => rates.get(place).copied().unwrap_or(0),
            None => {
                let bytes = self.bytes.get(place).copied().unwrap_or(0);
                u64::from(bytes).saturating_mul(8_000_000) / elapsed.max(micros(SPAN) / 5)
            }
        }
    }

    /// Frames a second up to each temporal layer; none before they were counted.
    pub(crate) fn frame_rates(&self) -> impl Iterator<Item = u32> + '_ {
        let frames = self.known.iter().flat_map(|(_, frames)| frames);
        frames.scan(0, |sum, frames| {
            *sum += frames;
            Some((*sum + 30) / 60)
        })
    }

    fn close(&mut self, elapsed: u64) {
        let recent = elapsed < 2 * micros(SPAN);
        let fresh = self.known.is_none() || !recent;
        let (rates, frames) = self.known.get_or_insert(([0; MAX_TARGETS], [0; TEMPORAL]));
        for (rate, bytes) in rates.iter_mut().zip(&mut self.bytes) {
            let measured = u64::from(*bytes).saturating_mul(8_000_000) / elapsed;
            *rate = if fresh { measured } else { u64::midpoint(*rate, measured) };
            *bytes = 0;
        }
        for (rate, count) in frames.iter_mut().zip(&mut self.frames) {
            let measured = u64::from(*count).saturating_mul(60_000_000) / elapsed;
            let measured = u32::try_from(measured).unwrap_or(u32::MAX);
            *rate = if fresh { measured } else { u32::midpoint(*rate, measured) };
            *count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_comes() {
        let mut meter = Meter::default();
        assert_eq!(meter.rate(Time(0)), 0);
        let packet = 1250 - HEADER - OVERHEAD;
        // 1 Mbit/s: 1250 bytes every 10 ms.
        (0..200_u64).for_each(|n| meter.count(Time(n * 10_000), packet));
        assert_eq!(meter.rate(Time(2_000_000)), 1_000_000);
        (0..200_u64).for_each(|n| meter.count(Time(2_000_000 + n * 20_000), packet));
        let rate = meter.rate(Time(6_000_000));
        assert!((490_000..520_000).contains(&rate), "{rate}");
        assert_eq!(meter.rate(Time(9_000_000)), 0, "it stopped");
    }
}
