//! Reads a peer's transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1): bounded by
//! its length, nothing allocated.

use crate::media::forward::rtp::Malformed;

/// Unit of the reference time, microseconds.
pub(crate) const REFERENCE_UNIT: i64 = 64_000;
/// Unit of the receive deltas, microseconds.
const DELTA_UNIT: i64 = 250;
/// Most packets read of one message: as many as are remembered. A run of thousands takes two bytes, and looking each of
/// them up takes time.
const MAX_COUNT: u16 = 8192;

/// One feedback message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feedback<'a> {
    base: u16,
    count: u16,
    ends_received: bool,
    /// 24 bits, in units of 64 ms on the peer's clock.
    pub(crate) reference: u32,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

/// What a chunk says of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    Lost,
    Small,
    Large,
}

impl<'a> Feedback<'a> {
    /// Reads what follows the two SSRCs of the RTCP packet.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let ([b0, b1, c0, c1, r0, r1, r2, _number], rest) = body.split_first_chunk::<8>().ok_or(Malformed)?;
        let count = u16::from_be_bytes([*c0, *c1]);
        let (mut covered, mut len, mut ends_received) = (0, 0, false);
        while covered < usize::from(count) {
            let chunk = rest.get(len..len + 2).ok_or(Malformed)?;
            let left = usize::from(count) - covered;
            covered += chunk_len(chunk).max(1);
            len += 2;
            if covered >= usize::from(count) {
                ends_received = symbols(chunk).nth(left - 1).is_some_and(|symbol| symbol != Symbol::Lost);
            }
        }
        let (chunks, deltas) = rest.split_at_checked(len).ok_or(Malformed)?;
        let reference = u32::from_be_bytes([0, *r0, *r1, *r2]);
        Ok(Self { base: u16::from_be_bytes([*b0, *b1]), count, ends_received, reference, chunks, deltas })
    }

    /// The last number it tells of, if that packet came: so it ends by what senders of feedback do.
    pub(crate) fn last_received(&self) -> Option<u16> {
        self.ends_received.then(|| self.base.wrapping_add(self.count - 1))
    }

    /// Number by number whether the packet came, and when: microseconds after the reference time. Ends early when the
    /// deltas do, and after as many as are ever remembered.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (u16, Option<i64>)> + use<'a> {
        let mut deltas = self.deltas;
        let mut at = 0;
        let symbols = self.chunks.chunks_exact(2).flat_map(symbols);
        let base = self.base;
        (0..self.count.min(MAX_COUNT)).zip(symbols).map_while(move |(offset, symbol): (u16, Symbol)| {
            let number = base.wrapping_add(offset);
            let delta = match symbol {
                Symbol::Lost => return Some((number, None)),
                Symbol::Small => {
                    let (delta, rest) = deltas.split_first()?;
                    deltas = rest;
                    i64::from(*delta)
                }
                Symbol::Large => {
                    let (delta, rest) = deltas.split_first_chunk::<2>()?;
                    deltas = rest;
                    i64::from(i16::from_be_bytes(*delta))
                }
            };
            at += delta * DELTA_UNIT;
            Some((number, Some(at)))
        })
    }
}

/// Packets a chunk tells of.
fn chunk_len(chunk: &[u8]) -> usize {
    match chunk {
        [high, low] if high & 0x80 == 0 => usize::from(u16::from_be_bytes([high & 0x1f, *low])),
        [high, _] if high & 0x40 == 0 => 14,
        _ => 7,
    }
}

fn symbols(chunk: &[u8]) -> impl Iterator<Item = Symbol> + use<> {
    let word = match chunk {
        [high, low] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    let len = chunk_len(chunk);
    (0..len).map(move |place| {
        let two_bits = match (word & 0x8000 != 0, word & 0x4000 != 0) {
            (false, _) => word >> 13 & 3,
            (true, false) => word >> (13_usize.saturating_sub(place)) & 1,
            (true, true) => word >> (12_usize.saturating_sub(2 * place)) & 3,
        };
        match two_bits {
            1 => Symbol::Small,
            2 => Symbol::Large,
            _ => Symbol::Lost,
        }
    })
}

#[cfg(test)]
mod tests {
    use rtc::rtcp::packet::Packet;

    use super::*;
    use crate::media::forward::clock::Time;
    use crate::media::forward::rtcp;
    use crate::media::forward::twcc::ArrivalRecorder;

    fn read(arrivals: &[(u16, u64)]) -> (u32, Vec<(u16, Option<i64>)>) {
        let mut recorder = ArrivalRecorder::new();
        arrivals.iter().for_each(|(number, at)| recorder.record(Time(*at), *number));
        let report: Box<dyn Packet> = Box::new(recorder.report(1, 2).unwrap());
        let packet = rtcp::compound(&[report]).unwrap();
        let feedback = Feedback::parse(&packet[12..]).unwrap();
        (feedback.reference, feedback.statuses().collect())
    }

    #[test]
    fn what_our_own_recorder_says_is_read() {
        let start = 100 * 64_000;
        let (reference, statuses) =
            read(&[(65_534, start), (65_535, start + 1_000), (2, start + 90_000), (1, start + 91_000)]);
        assert_eq!(reference, 100);
        let expected = [(65_534, Some(0)), (65_535, Some(1_000)), (0, None), (1, Some(91_000)), (2, Some(90_000))];
        assert_eq!(statuses, expected);
    }

    #[test]
    fn runs_and_vectors_are_read() {
        let run: Vec<(u16, u64)> = (0..300).map(|n| (n, 64_000 + u64::from(n) * 250)).collect();
        let (_, statuses) = read(&run);
        assert_eq!(statuses.len(), 300);
        assert_eq!(statuses[299], (299, Some(299 * 250)));
        // Twenty thousand lost, and one that came.
        let body = [0, 5, 0x4e, 0x21, 0, 0, 1, 0, 0x1f, 0xff, 0x1f, 0xff, 0x0e, 0x22, 0x20, 1, 4];
        assert_eq!(Feedback::parse(&body).unwrap().last_received(), Some(20_005));
        // One-bit vector: received, lost, received.
        let body = [0, 5, 0, 3, 0, 0, 1, 0, 0b1010_1000, 0, 4, 8];
        let feedback = Feedback::parse(&body).unwrap();
        assert_eq!(feedback.statuses().collect::<Vec<_>>(), [(5, Some(1_000)), (6, None), (7, Some(3_000))]);
    }

    #[test]
    fn no_more_is_read_than_can_be_remembered() {
        let all_lost = |count: u16| {
            let [high, low] = count.to_be_bytes();
            [&[0, 0, high, low, 0, 0, 1, 0][..], &[0x1f, 0xff].repeat(9)].concat()
        };
        for count in [MAX_COUNT, MAX_COUNT + 1, u16::MAX] {
            let told = all_lost(count);
            let feedback = Feedback::parse(&told).unwrap();
            assert_eq!(feedback.statuses().last(), Some((MAX_COUNT - 1, None)));
            assert_eq!(feedback.last_received(), None);
        }
    }

    #[test]
    fn what_is_cut_off_is_refused_or_ends_early() {
        assert!(Feedback::parse(&[0; 7]).is_err());
        assert!(Feedback::parse(&[0, 5, 0, 3, 0, 0, 1, 0]).is_err(), "no chunk");
        assert!(Feedback::parse(&[0, 5, 0xff, 0xff, 0, 0, 1, 0, 0x00, 0x00]).is_err(), "empty runs do not count");
        let body = [0, 5, 0, 3, 0, 0, 1, 0, 0x20, 3, 4];
        assert_eq!(Feedback::parse(&body).unwrap().statuses().count(), 1);
    }
}
