//! What holds of every packet a peer may send, and of every one that is written. See `crate::fuzzing`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a property that does not hold is to panic"
)]

mod room;

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;

pub use self::room::forwarder;
use crate::media::api::{Codec, ExtensionIds};
use crate::media::forward::bandwidth::feedback::Feedback;
use crate::media::forward::dependency::{Extended, Mandatory, write_active};
use crate::media::forward::header::{self, Copied, Fixed, MAX_HEADER, MAX_MID, Own};
use crate::media::forward::keyframe::starts_keyframe;
use crate::media::forward::layering::Reach;
use crate::media::forward::picture::{PictureIds, PictureShift};
use crate::media::forward::rtcp::{self, Said, StreamReport};
use crate::media::forward::rtp::{MAX_RTP_LEN, RtpPacket};
use crate::media::forward::{descriptor, red, twcc};
use crate::media::srtp::rtp_header_len;

const CODECS: [Codec; 9] =
    [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::H265, Codec::Opus, Codec::Red, Codec::Pcmu, Codec::Pcma];
/// Ids for all that is copied or written.
pub(super) const IDS: ExtensionIds = ExtensionIds {
    mid: Some(1),
    rid: Some(2),
    repaired_rid: Some(3),
    transport_cc: Some(4),
    abs_send_time: Some(5),
    audio_level: Some(6),
    dependency_descriptor: Some(7),
    abs_capture_time: Some(8),
    playout_delay: Some(9),
};

/// RTP with its header extensions: what parses lies in the packet, where SRTP sees it too, and goes out as it came.
pub fn rtp(packet: &[u8]) {
    let Ok(rtp) = RtpPacket::parse(packet) else { return };
    let header_len = rtp_header_len(packet).expect("SRTP takes what the forwarder takes");
    assert!(packet.len() <= MAX_RTP_LEN && packet[header_len..].starts_with(rtp.payload));
    let element = |id: Option<u8>| rtp.extensions.element(id).unwrap_or_default();
    let copied = Copied::read(&rtp.extensions, &IDS);
    for id in 0..=u8::MAX {
        let len = rtp.extensions.element(Some(id)).map_or(0, <[u8]>::len);
        assert!(len <= header_len);
    }
    let mid = element(IDS.mid);
    let own = Own {
        mid: &mid[..mid.len().min(MAX_MID)],
        abs_send_time: [1, 2, 3],
        transport_cc: rtp.sequence,
        playout_delay: [7, 8, 9],
        frame_delta: rtp.sequence,
    };
    let fixed = Fixed {
        marker: rtp.marker,
        payload_type: rtp.payload_type,
        sequence: rtp.sequence,
        timestamp: rtp.timestamp,
        ssrc: rtp.ssrc,
    };
    let mut buf = [0xaa; MAX_HEADER];
    let written = header::write(&mut buf, &fixed, &IDS, &own, &copied);
    let again = RtpPacket::parse(written).expect("what is written parses");
    assert_eq!(
        (again.marker, again.payload_type, again.sequence, again.timestamp, again.ssrc),
        (rtp.marker, rtp.payload_type, rtp.sequence, rtp.timestamp, rtp.ssrc)
    );
    assert!(again.payload.is_empty());
    let sent = |id: Option<u8>| again.extensions.element(id).unwrap_or_default();
    assert_eq!((sent(IDS.mid), sent(IDS.abs_send_time)), (own.mid, &own.abs_send_time[..]));
    assert_eq!(sent(IDS.transport_cc), rtp.sequence.to_be_bytes());
    // An element that does not fit is left out, never cut.
    for id in [IDS.audio_level, IDS.abs_capture_time] {
        assert!(sent(id).is_empty() || sent(id) == element(id));
    }
    let (before, after) = (copied.dependency, sent(IDS.dependency_descriptor));
    assert!(after.is_empty() || after.len() == before.len());
    if let ([first, b1, b2, rest @ ..], [kept, a1, a2, tail @ ..]) = (before, after) {
        let number = u16::from_be_bytes([*b1, *b2]).wrapping_add(own.frame_delta);
        assert_eq!((kept, number.to_be_bytes(), tail), (first, [*a1, *a2], rest));
    }
}

/// Payload descriptors, by a codec in the first byte, and redundant audio.
pub fn payload(input: &[u8]) {
    let Some(([codec, picture, low, tl0], payload)) = input.split_first_chunk::<4>() else { return };
    let codec = CODECS[usize::from(*codec) % CODECS.len()];
    starts_keyframe(codec, payload);
    if let Some(frame) = descriptor::frame(codec, payload, false) {
        assert!(frame.spatial < 3 && frame.temporal < 4 && frame.targets != 0);
    }
    if let Some((pt, block)) = red::primary(payload) {
        assert!(pt < 128 && payload.ends_with(block) && block.len() < payload.len());
    }
    let ids = PictureIds::read(codec, payload);
    let shift = PictureShift { picture: u16::from_be_bytes([*picture, *low]), tl0: *tl0 };
    let mut shifted = payload.to_vec();
    ids.rewrite(&mut shifted, shift);
    let again = PictureIds::read(codec, &shifted);
    // The descriptor keeps its form, so a way back exists: nothing but ids was written.
    assert_eq!((again.picture().is_some(), again.tl0().is_some()), (ids.picture().is_some(), ids.tl0().is_some()));
    assert_eq!(again.tl0(), ids.tl0().map(|read| read.wrapping_add(shift.tl0)));
    if let (Some(before), Some(after)) = (ids.picture(), again.picture()) {
        let difference = after.wrapping_sub(before).wrapping_sub(shift.picture);
        assert_eq!(difference & 0x7f, 0, "7 or 15 bits");
    }
    let back = PictureShift { picture: shift.picture.wrapping_neg(), tl0: shift.tl0.wrapping_neg() };
    again.rewrite(&mut shifted, back);
    assert_eq!(shifted, payload);
    assert_eq!(starts_keyframe(codec, &shifted), starts_keyframe(codec, payload));
}

/// Two dependency descriptors, the first of which may bring a structure: one that is told which targets are on says the
/// same as before.
pub fn dependency(input: &[u8]) {
    let Some(([len, active], descriptors)) = input.split_first_chunk::<2>() else { return };
    let (first, second) = descriptors.split_at(descriptors.len().min((*len).into()));
    let Some(structure) = Extended::read(first, None).ok().and_then(|extended| extended.structure) else { return };
    let (targets, active) = (structure.targets(), u32::from(*active) & structure.all());
    for reach in (0..4).flat_map(|spatial| (0..4).map(move |temporal| Reach { spatial, temporal })) {
        let chosen = targets.choose(structure.all(), reach);
        assert!(targets.includes(chosen, chosen) || targets.len() == 0);
    }
    for descriptor in [first, second] {
        let mut room = [0; 255];
        let Some(len) = write_active(descriptor, &structure, active, &mut room) else { continue };
        assert_eq!(Mandatory::read(&room[..len]), Mandatory::read(descriptor));
        let Ok(before) = Extended::read(descriptor, Some(&structure)) else { continue };
        let after = Extended { active: Some(active), ..before };
        assert_eq!(Extended::read(&room[..len], Some(&structure)), Ok(after));
    }
}

/// RTCP of a peer: what is heard is bounded by what was sent.
pub fn rtcp(compound: &[u8]) {
    let mut heard = 0;
    let read = rtcp::read(compound, |said| {
        heard += 1;
        if let Said::Arrivals(body) = said {
            feedback(body);
        }
    });
    assert!(heard <= compound.len() / 4);
    if read.is_ok() {
        assert_eq!(compound.len() % 4, 0);
    }
    let _ = written_is_heard(&mut Unstructured::new(compound));
}

/// Transport-wide feedback: as many packets as announced, each once, in order.
fn feedback(body: &[u8]) {
    let Ok(feedback) = Feedback::parse(body) else { return };
    let mut last: Option<u16> = None;
    let mut told = 0_usize;
    for (number, _) in feedback.statuses() {
        assert!(last.is_none_or(|last| number == last.wrapping_add(1)));
        last = Some(number);
        told += 1;
    }
    // As many as are remembered; a run of 8191 takes two bytes.
    assert!(told <= 8192.min(8191 * (body.len() / 2)));
}

/// What we write of reports, losses and keyframe requests is what a peer of our kind hears.
fn written_is_heard(input: &mut Unstructured<'_>) -> Result<()> {
    let ssrc = u32::arbitrary(input)?;
    let report =
        StreamReport { ssrc, ntp: u64::arbitrary(input)?, rtp: u32::arbitrary(input)?, packets: ssrc, octets: ssrc };
    let [sender, names] = rtcp::sender_report(&report, &Bytes::from_static(b"PA_ada"));
    let mut lost: Vec<u16> = (0..input.int_in_range(1..=64)?).map(|_| u16::arbitrary(input)).collect::<Result<_>>()?;
    lost.sort_unstable();
    lost.dedup();
    let packets = [sender, names, Box::new(rtcp::nack(1, ssrc, &lost)), Box::new(rtcp::pli(1, ssrc))];
    let compound = rtcp::compound(&packets).expect("it fits");
    let (mut clocks, mut asked, mut keyframes) = (None, Vec::new(), 0);
    rtcp::read(&compound, |said| match said {
        Said::Clocks { ssrc, ntp, rtp } => clocks = Some((ssrc, ntp, rtp)),
        Said::Nack { ssrc: stream, first, following } => {
            assert_eq!(stream, ssrc);
            asked.push(first);
            let bits = (0..16).filter(|bit| following >> bit & 1 == 1);
            asked.extend(bits.map(|bit| first.wrapping_add(bit + 1)));
        }
        Said::KeyframeNeeded { ssrc: stream } => keyframes += u32::from(stream == ssrc),
        said => panic!("{said:?}"),
    })
    .expect("what is written parses");
    asked.sort_unstable();
    assert_eq!((clocks, keyframes), (Some((report.ssrc, report.ntp, report.rtp)), 1));
    assert_eq!(asked, lost);
    arrivals_are_told(input)
}

/// Feedback we write tells a sender of our kind what arrived.
fn arrivals_are_told(input: &mut Unstructured<'_>) -> Result<()> {
    let mut recorder = twcc::ArrivalRecorder::new();
    let mut now = crate::media::forward::clock::Time(1_000_000_000);
    while !input.is_empty() {
        now.0 += u64::from(u16::arbitrary(input)?) * 16;
        recorder.record(now, u16::arbitrary(input)?);
        if bool::arbitrary(input)? {
            continue;
        }
        let mut reports = 0;
        while let Some(report) = recorder.report(1, 2) {
            let (base, count) = (report.base_sequence_number, report.packet_status_count);
            let arrived = report.recv_deltas.len();
            let compound = rtcp::compound(&[Box::new(report)]).expect("it fits");
            assert!(compound.len() < 1200, "in a datagram");
            let mut told = Vec::new();
            rtcp::read(&compound, |said| {
                let Said::Arrivals(body) = said else { panic!("{said:?}") };
                told.extend(Feedback::parse(body).expect("it parses").statuses());
            })
            .expect("it parses");
            assert_eq!((told.len(), told.first().map(|(number, _)| *number)), (count.into(), Some(base)));
            assert_eq!(told.iter().filter(|(_, at)| at.is_some()).count(), arrived);
            reports += 1;
            assert!(reports <= 1024, "each tells of something");
        }
    }
    Ok(())
}
