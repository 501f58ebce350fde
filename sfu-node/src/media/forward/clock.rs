//! The forwarder's time line: microseconds from the first instant it was told, and its NTP form.

use std::time::{Duration, Instant};

/// Microseconds on the forwarder's time line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Time(pub(crate) u64);

/// The time line starts here, so that "a while before" exists from the start.
const ORIGIN: Time = Time(1_000_000_000);
/// NTP seconds of the time line's zero: 2025-01-01. Receivers expect a date after 1970, not the right one.
const NTP_EPOCH: u64 = 3_944_678_400;
const MICROS_PER_SECOND: u64 = 1_000_000;
/// Deadlines are met in whole milliseconds.
pub(crate) const TICK: u64 = 1000;

impl Time {
    /// Microseconds since `earlier`; 0 when it is later.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This much later.
    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// The next multiple of `duration` on the time line: all shards of a node have the same ones.
    pub(crate) fn next_multiple(self, duration: Duration) -> Self {
        let step = micros(duration).max(1);
        Self((self.0 / step).saturating_add(1).saturating_mul(step))
    }

    /// The whole millisecond a deadline is met in. Where it is rounded to that at once, nobody who looks a little earlier
    /// takes it for due.
    pub(crate) fn deadline(self) -> Self {
        Self(self.0.div_ceil(TICK).saturating_mul(TICK))
    }

    /// Whether it is a multiple of `duration`.
    pub(crate) fn is_multiple(self, duration: Duration) -> bool {
        self.0.is_multiple_of(micros(duration).max(1))
    }

    /// So many microseconds earlier.
    pub(crate) fn minus(self, micros: u64) -> Self {
        Self(self.0.saturating_sub(micros))
    }

    /// NTP timestamp, 32.32 fixed-point seconds (RFC 3550 section 4), counted from the forwarder's own epoch.
    pub(crate) fn ntp(self) -> u64 {
        let seconds = NTP_EPOCH + self.0 / MICROS_PER_SECOND;
        let fraction = ((self.0 % MICROS_PER_SECOND) << 32) / MICROS_PER_SECOND;
        seconds << 32 | fraction
    }

    /// 24 bits of 6.18 fixed-point seconds for the abs-send-time extension.
    pub(crate) fn abs_send_time(self) -> [u8; 3] {
        let fixed = ((self.0 % (64 * MICROS_PER_SECOND)) << 18) / MICROS_PER_SECOND;
        let [.., a, b, c] = fixed.to_be_bytes();
        [a, b, c]
    }

    /// Units of an RTP clock passed since the time line's zero.
    pub(crate) fn rtp_units(self, clock_rate: u32) -> u64 {
        rtp_units(self.0, clock_rate)
    }
}

/// Units of an RTP clock in so many microseconds.
pub(crate) fn rtp_units(micros: u64, clock_rate: u32) -> u64 {
    micros.saturating_mul(u64::from(clock_rate)) / MICROS_PER_SECOND
}

/// Units of an RTP clock in a signed difference of two NTP timestamps; wraps as RTP timestamps do.
pub(crate) fn ntp_to_rtp(difference: u64, clock_rate: u32) -> u32 {
    let units = (i128::from(difference.cast_signed()) * i128::from(clock_rate)) >> 32;
    u32::try_from(units.rem_euclid(1 << 32)).unwrap_or(0)
}

/// The low 32 bits: RTP timestamps wrap.
pub(crate) fn wrap32(units: u64) -> u32 {
    (units & 0xffff_ffff) as u32
}

/// The low 16 bits: sequence numbers wrap.
pub(crate) fn wrap16(sequence: u64) -> u16 {
    (sequence & 0xffff) as u16
}

/// The middle 32 bits of an NTP timestamp (RFC 3550 section 4).
pub(crate) fn ntp_middle(ntp: u64) -> u32 {
    wrap32(ntp >> 16)
}

/// Microseconds in a difference of two [`ntp_middle`]s: units of 1/65536 s.
pub(crate) fn middle_to_micros(difference: u32) -> u64 {
    (u64::from(difference) * MICROS_PER_SECOND) >> 16
}

/// The whole part; 0 for what is negative or no number.
#[allow(clippy::cast_possible_truncation, reason = "a float that does not fit gives the nearest number")]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Maps instants to [`Time`] and back.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    first: Option<Instant>,
}

impl Clock {
    /// Counts from `first`.
    pub(crate) fn from(first: Instant) -> Self {
        Self { first: Some(first) }
    }

    /// Where `now` lies.
    pub(crate) fn time(&mut self, now: Instant) -> Time {
        let first = *self.first.get_or_insert(now);
        ORIGIN.plus(now.saturating_duration_since(first))
    }

    /// The instant of `time`; `None` before the first instant is known.
    pub(crate) fn instant(&self, time: Time) -> Option<Instant> {
        self.first?.checked_add(Duration::from_micros(time.since(ORIGIN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_maps_there_and_back() {
        let mut clock = Clock::default();
        let start = Instant::now();
        assert_eq!(clock.time(start), ORIGIN);
        let later = start + Duration::from_micros(1_500_000);
        let time = clock.time(later);
        assert_eq!(clock.instant(time), Some(later));
        assert_eq!(time.ntp() - ORIGIN.ntp(), 3 << 31);
        assert_eq!(Time(999).next_multiple(Duration::from_millis(1)), Time(1000));
        assert_eq!(Time(1000).next_multiple(Duration::from_millis(1)), Time(2000));
        assert!(Time(2000).is_multiple(Duration::from_millis(1)) && !Time(2001).is_multiple(Duration::from_millis(1)));
        assert_eq!((Time(1001).deadline(), Time(2000).deadline()), (Time(2000), Time(2000)));
        assert_eq!(Time(1_500_000).abs_send_time(), [0x06, 0x00, 0x00]);
        assert_eq!(Time(64_000_000).abs_send_time(), [0, 0, 0]);
        assert_eq!(Time(1_000_000).rtp_units(90_000), 90_000);
        assert_eq!(ntp_to_rtp(1 << 31, 90_000), 45_000);
        assert_eq!(ntp_to_rtp(0_u64.wrapping_sub(1 << 31), 90_000), 0_u32.wrapping_sub(45_000));
    }
}
