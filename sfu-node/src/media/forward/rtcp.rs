//! RTCP (RFC 3550 section 6, RFC 4585): what peers say, as a bounded view; what we say, by the rtc family's types.

use bytes::Bytes;
use rtc::rtcp::packet::{Packet, marshal};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};

use crate::media::forward::rtp::Malformed;

/// Most reception reports in one packet (five bits, RFC 3550 section 6.4.1).
pub(crate) const MAX_REPORTS: usize = 31;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// One thing a peer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// Sender report: its stream's two clocks.
    Clocks { ssrc: u32, ntp: u64, rtp: u32 },
    /// Reception report about one of our streams.
    Reception { ssrc: u32, lost: u32, highest: u32, last_sender_report: u32, delay: u32 },
    /// Generic NACK: one number and the 16 after it.
    Nack { ssrc: u32, first: u16, following: u16 },
    /// Picture loss indication or full intra request.
    KeyframeNeeded { ssrc: u32 },
    /// Transport-wide feedback: what follows the two SSRCs.
    Arrivals(&'a [u8]),
    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03), bits per second.
    Limit(u64),
}

/// Calls `hear` for all a compound packet says; what we do not use is passed over.
pub(crate) fn read<'a>(compound: &'a [u8], mut hear: impl FnMut(Said<'a>)) -> Result<(), Malformed> {
    let mut rest = compound;
    while !rest.is_empty() {
        let ([first, kind, l0, l1], tail) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
        if first >> 6 != 2 {
            return Err(Malformed);
        }
        let len = 4 * usize::from(u16::from_be_bytes([*l0, *l1]));
        let (body, tail) = tail.split_at_checked(len).ok_or(Malformed)?;
        read_one(*kind, first & 0x1f, body, &mut hear)?;
        rest = tail;
    }
    Ok(())
}

fn read_one<'a>(kind: u8, count: u8, body: &'a [u8], hear: &mut impl FnMut(Said<'a>)) -> Result<(), Malformed> {
    let mut words = body.chunks_exact(4).map(|w| w.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)));
    let mut word = || words.next().ok_or(Malformed);
    match (kind, count) {
        (SENDER_REPORT | RECEIVER_REPORT, reports) => {
            let ssrc = word()?;
            if kind == SENDER_REPORT {
                let ntp = u64::from(word()?) << 32 | u64::from(word()?);
                let rtp = word()?;
                let (_packets, _octets) = (word()?, word()?);
                hear(Said::Clocks { ssrc, ntp, rtp });
            }
            for _ in 0..reports {
                let ssrc = word()?;
                // A signed number of 24 bits, after the fraction.
                let lost = ((word()? << 8).cast_signed() >> 8).cast_unsigned();
                let (highest, _jitter) = (word()?, word()?);
                hear(Said::Reception { ssrc, lost, highest, last_sender_report: word()?, delay: word()? });
            }
        }
        (TRANSPORT_FEEDBACK, 1) => {
            let (_sender, ssrc) = (word()?, word()?);
            while let Ok(pair) = word() {
                let [f0, f1, b0, b1] = pair.to_be_bytes();
                let (first, following) = (u16::from_be_bytes([f0, f1]), u16::from_be_bytes([b0, b1]));
                hear(Said::Nack { ssrc, first, following });
            }
        }
        (TRANSPORT_FEEDBACK, 15) => hear(Said::Arrivals(body.get(8..).ok_or(Malformed)?)),
        (PAYLOAD_FEEDBACK, 15) => {
            // Other application layer feedback is passed over.
            if let Some([b'R', b'E', b'M', b'B', _count, high, middle, low]) = body.get(8..16) {
                let mantissa = u64::from(high & 3) << 16 | u64::from(*middle) << 8 | u64::from(*low);
                let exponent = u32::from(high >> 2);
                hear(Said::Limit(if exponent > 40 { u64::MAX } else { mantissa << exponent }));
            }
        }
        (PAYLOAD_FEEDBACK, 1) => {
            let (_sender, ssrc) = (word()?, word()?);
            hear(Said::KeyframeNeeded { ssrc });
        }
        // RFC 5104 section 4.3.1: the streams stand in the entries.
        (PAYLOAD_FEEDBACK, 4) => {
            let (_sender, _media) = (word()?, word()?);
            while let Ok(ssrc) = word() {
                word()?;
                hear(Said::KeyframeNeeded { ssrc });
            }
        }
        _ => {}
    }
    Ok(())
}

/// A NACK for these packets.
pub(crate) fn nack(sender_ssrc: u32, media_ssrc: u32, sequences: &[u16]) -> TransportLayerNack {
    TransportLayerNack { sender_ssrc, media_ssrc, nacks: nack_pairs_from_sequence_numbers(sequences) }
}

/// A picture loss indication.
pub(crate) fn pli(sender_ssrc: u32, media_ssrc: u32) -> PictureLossIndication {
    PictureLossIndication { sender_ssrc, media_ssrc }
}

/// A receiver report.
pub(crate) fn receiver_report(ssrc: u32, reports: Vec<ReceptionReport>) -> ReceiverReport {
    ReceiverReport { ssrc, reports, profile_extensions: Bytes::new() }
}

/// What a sender report says of our stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamReport {
    pub(crate) ssrc: u32,
    pub(crate) ntp: u64,
    pub(crate) rtp: u32,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
}

/// A sender report and the stream's canonical name.
pub(crate) fn sender_report(report: &StreamReport, cname: &Bytes) -> [Box<dyn Packet>; 2] {
    let sender = SenderReport {
        ssrc: report.ssrc,
        ntp_time: report.ntp,
        rtp_time: report.rtp,
        packet_count: report.packets,
        octet_count: report.octets,
        reports: vec![],
        profile_extensions: Bytes::new(),
    };
    let name = SourceDescriptionItem { sdes_type: SdesType::SdesCname, text: cname.clone() };
    let chunk = SourceDescriptionChunk { source: report.ssrc, items: vec![name] };
    [Box::new(sender), Box::new(SourceDescription { chunks: vec![chunk] })]
}

/// The bytes of a compound packet; `None` when a part does not fit its fields.
pub(crate) fn compound(packets: &[Box<dyn Packet>]) -> Option<Bytes> {
    marshal(packets).ok().map(bytes::BytesMut::freeze)
}

#[cfg(test)]
mod tests {
    use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};

    use super::*;

    #[test]
    fn what_the_family_writes_is_heard() {
        let report = StreamReport { ssrc: 1, ntp: 0x0102_0304_0506_0708, rtp: 9, packets: 2, octets: 3 };
        let [sender, names] = sender_report(&report, &Bytes::from_static(b"ada"));
        let reception = ReceptionReport {
            ssrc: 5,
            fraction_lost: 200,
            total_lost: 0x8001,
            last_sequence_number: 3,
            jitter: 1,
            last_sender_report: 6,
            delay: 7,
        };
        let fir =
            FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir: vec![FirEntry { ssrc: 11, sequence_number: 1 }] };
        let packets: [Box<dyn Packet>; 6] = [
            sender,
            names,
            Box::new(receiver_report(4, vec![reception])),
            Box::new(nack(1, 8, &[65535, 3, 4, 6])),
            Box::new(pli(1, 10)),
            Box::new(fir),
        ];
        let mut heard = vec![];
        let compound = compound(&packets).unwrap();
        read(&compound, |said| heard.push(said)).unwrap();
        let expected = [
            Said::Clocks { ssrc: 1, ntp: 0x0102_0304_0506_0708, rtp: 9 },
            Said::Reception { ssrc: 5, lost: 0x8001, highest: 3, last_sender_report: 6, delay: 7 },
            Said::Nack { ssrc: 8, first: 65535, following: 0 },
            Said::Nack { ssrc: 8, first: 3, following: 0b101 },
            Said::KeyframeNeeded { ssrc: 10 },
            Said::KeyframeNeeded { ssrc: 11 },
        ];
        assert_eq!(heard, expected);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let none = |compound: &[u8]| read(compound, |said| panic!("{said:?}"));
        assert!(none(&[0x80, 200, 0]).is_err(), "no header");
        assert!(none(&[0x40, 200, 0, 0]).is_err(), "version 1");
        assert!(none(&[0x80, 200, 0, 9, 0, 0, 0, 0]).is_err(), "longer than the datagram");
        assert!(none(&[0x80, 200, 0, 1, 0, 0, 0, 0]).is_err(), "sender report cut off");
        assert!(none(&[0x81, 201, 0, 1, 0, 0, 0, 0]).is_err(), "report announced, not there");
        assert!(none(&[0x84, 206, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).is_err(), "entry cut off");
        assert!(none(&[0x80, 99, 0, 0]).is_ok(), "unknown: passed over");
    }
}
