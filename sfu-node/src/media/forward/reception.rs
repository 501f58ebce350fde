//! Statistics of one received stream for reception reports (RFC 3550 sections 6.4.1, A.3 and A.8).

use rtc::rtcp::reception_report::ReceptionReport;

use crate::media::forward::clock::{Time, ntp_middle, wrap32};
use crate::media::forward::health::Loss;

/// Units of DLSR a second (RFC 3550 section 6.4.1).
const DELAY_UNITS: u64 = 65_536;
/// Cumulative loss is a 24-bit signed field.
const MAX_LOST: u64 = 0x7f_ffff;

/// A publisher's sender report: what its two clocks said at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SenderClocks {
    pub(crate) ntp: u64,
    pub(crate) rtp: u32,
    /// When the report came.
    pub(crate) at: Time,
}

/// Counters of one run of a stream.
#[derive(Debug, Default)]
pub(crate) struct Reception {
    first: Option<u64>,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    /// Between the last two reports.
    pub(crate) interval: Loss,
    transit: Option<u32>,
    /// Sixteenths of a timestamp unit.
    jitter: u64,
}

impl Reception {
    /// Counts a packet of the stream itself. `reported` is the highest number so far.
    pub(crate) fn count(&mut self, now: Time, timestamp: u32, clock_rate: u32, reported: u64) {
        self.first.get_or_insert(reported);
        self.received += 1;
        let transit = wrap32(now.rtp_units(clock_rate)).wrapping_sub(timestamp);
        let previous = self.transit.replace(transit).unwrap_or(transit);
        let difference = transit.wrapping_sub(previous).cast_signed().unsigned_abs();
        // RFC 3550 appendix A.8, the integer form.
        self.jitter = self.jitter + u64::from(difference) - ((self.jitter + 8) >> 4);
    }

    /// The report since the last; `None` when nothing came since.
    pub(crate) fn report(
        &mut self,
        now: Time,
        ssrc: u32,
        reported: u64,
        clocks: Option<SenderClocks>,
    ) -> Option<ReceptionReport> {
        let received = self.received - self.received_prior;
        if received == 0 {
            return None;
        }
        let expected = reported + 1 - self.first?;
        let expected_interval = expected.saturating_sub(self.expected_prior);
        let lost_interval = expected_interval.saturating_sub(received);
        let fraction = (lost_interval << 8).checked_div(expected_interval).unwrap_or(0);
        self.interval = Loss { expected: expected_interval, lost: lost_interval };
        self.expected_prior = expected;
        self.received_prior = self.received;
        let (last_sender_report, delay) = clocks.map_or((0, 0), |clocks| {
            (ntp_middle(clocks.ntp), wrap32(now.since(clocks.at).saturating_mul(DELAY_UNITS) / 1_000_000))
        });
        Some(ReceptionReport {
            ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            total_lost: wrap32(expected.saturating_sub(self.received).min(MAX_LOST)),
            last_sequence_number: wrap32(reported),
            jitter: wrap32(self.jitter >> 4),
            last_sender_report,
            delay,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_jitter_and_delay_are_reported() {
        let mut reception = Reception::default();
        for (sequence, millis) in [(100, 1000), (101, 1020), (103, 1060), (104, 1080)] {
            reception.count(Time(millis * 1000), u32::try_from(millis).unwrap() * 48, 48_000, sequence);
        }
        let clocks = SenderClocks { ntp: 0x1111_2222_3333_4444, rtp: 0, at: Time(1_000_000) };
        let report = reception.report(Time(1_500_000), 7, 104, Some(clocks)).unwrap();
        assert_eq!((report.ssrc, report.fraction_lost, report.total_lost), (7, 51, 1), "1 of 5 lost");
        assert_eq!((report.last_sequence_number, report.jitter), (104, 0));
        assert_eq!((report.last_sender_report, report.delay), (0x2222_3333, 32_768));
        assert!(reception.report(Time(2_000_000), 7, 104, None).is_none(), "nothing new");
        reception.count(Time(1_110_000), 1100 * 48, 48_000, 105);
        let report = reception.report(Time(2_000_000), 7, 105, None).unwrap();
        assert_eq!((report.fraction_lost, report.total_lost), (0, 1));
        assert_eq!(report.jitter, 480 / 16);
    }
}
