//! Reports and feedback: lip sync over rewriting, reception, transport-wide arrivals, keyframe requests.

use rtc::rtcp::packet::unmarshal;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::SourceDescription;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;

use super::*;
use crate::media::forward::clock::ntp_middle;

fn parse(compounds: Vec<Vec<u8>>) -> Vec<Box<dyn rtc::rtcp::packet::Packet>> {
    compounds.into_iter().flat_map(|c| unmarshal(&mut bytes::Bytes::from(c)).unwrap()).collect()
}

fn of_kind<T: Clone + 'static>(packets: &[Box<dyn rtc::rtcp::packet::Packet>]) -> Vec<T> {
    packets.iter().filter_map(|packet| packet.as_any().downcast_ref::<T>().cloned()).collect()
}

#[test]
fn sender_reports_keep_lip_sync() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)]), microphone(vec![OPUS])]);
    let senders = vec![watch(3000), sender(MICROPHONE, 4000, vec![OPUS_DOWN])];
    let viewer = world.viewer(20, senders);
    let (mut video, mut audio) = (Encoder::new(1000, None), Encoder::new(2000, None));
    // Her clocks: at this NTP time the video clock says a, the audio clock b.
    let ntp = 0x8877_6655_0000_0000_u64;
    let (a, b) = (video.timestamp, audio.timestamp);
    let cname = bytes::Bytes::from_static(b"x");
    let report = |ssrc, ntp, rtp| rtcp::StreamReport { ssrc, ntp, rtp, packets: 0, octets: 0 };
    world.rtp(ADA, &video.frame(true, 1)[0]);
    world.rtp(ADA, &audio.packet(111, false, &[1]));
    world.rtcp(ADA, &rtcp::sender_report(&report(1000, ntp, a), &cname));
    world.pass(Duration::from_millis(70));
    // Sent 500 ms later by her clocks, but it took another way and came sooner.
    let half = 1 << 31;
    world.rtcp(ADA, &rtcp::sender_report(&report(2000, ntp + half, b + 24_000), &cname));
    let sent = world.take_rtp(viewer.transport);
    let shift = |ssrc: u32, read: u32| {
        let packets = sent.iter().map(|packet| RtpPacket::parse(packet).unwrap());
        packets.filter(|rtp| rtp.ssrc == ssrc).map(|rtp| rtp.timestamp.wrapping_sub(read)).next().unwrap()
    };
    let (video_shift, audio_shift) = (shift(3000, video.timestamp), shift(4000, audio.timestamp));
    world.out.rtcp.clear();
    world.pass(Duration::from_secs(1));
    let packets = parse(take(&mut world.out.rtcp, viewer.transport));
    let reports: Vec<SenderReport> = of_kind(&packets);
    let by_ssrc = |ssrc| reports.iter().find(|report| report.ssrc == ssrc).unwrap();
    let (video_report, audio_report) = (by_ssrc(3000), by_ssrc(4000));
    assert_eq!((video_report.packet_count, video_report.octet_count), (1, 1000));
    // Her capture time of what each report names must be equal when their NTP times are.
    assert_eq!(video_report.ntp_time, audio_report.ntp_time);
    let video_seconds = f64::from(video_report.rtp_time.wrapping_sub(video_shift).wrapping_sub(a).cast_signed()) / 9e4;
    let audio_seconds = f64::from(audio_report.rtp_time.wrapping_sub(audio_shift).wrapping_sub(b).cast_signed()) / 48e3;
    assert!((video_seconds - audio_seconds).abs() < 0.001, "{video_seconds} {audio_seconds}");
    let names: Vec<SourceDescription> = of_kind(&packets);
    assert_eq!(&names[0].chunks[0].items[0].text[..], b"PA_ada");
    world.pass(Duration::from_secs(3));
    let later: Vec<SenderReport> = of_kind(&parse(take(&mut world.out.rtcp, viewer.transport)));
    assert!(later.is_empty(), "nothing was sent since");
}

#[test]
fn publishers_hear_of_loss_and_arrivals() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let mut encoder = Encoder::new(1000, None);
    for frame in 0..30 {
        for (index, packet) in encoder.frame(frame == 0, 2).iter().enumerate() {
            if (frame, index) != (7, 1) {
                world.rtp(ADA, packet);
            }
        }
        world.pass(Duration::from_millis(33));
    }
    world.pass(Duration::from_millis(300));
    let packets = parse(take(&mut world.out.rtcp, ADA));
    let reports: Vec<ReceiverReport> = of_kind(&packets);
    assert_eq!(reports.len(), 1);
    let report = &reports[0].reports[0];
    assert_eq!((report.ssrc, report.total_lost), (1000, 1));
    assert_eq!((report.last_sequence_number & 0xffff) as u16, encoder.sequence);
    let feedback: Vec<TransportLayerCc> = of_kind(&packets);
    assert!((8..=12).contains(&feedback.len()), "about each 100 ms: {}", feedback.len());
    assert!(feedback.iter().all(|report| report.media_ssrc == 1000));
    let told: usize = feedback.iter().map(|report| usize::from(report.packet_status_count)).sum();
    let arrived: usize = feedback.iter().map(|report| report.recv_deltas.len()).sum();
    assert_eq!((told, arrived), (60, 59));
}

#[test]
fn keyframe_requests_are_throttled_repeated_and_muted() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let viewer = world.viewer(20, vec![watch(3000)]);
    let mut encoder = Encoder::new(1000, None);
    world.rtp(ADA, &encoder.frame(false, 1)[0]);
    assert_eq!(world.take_plis(), [1000], "a stream that does not begin with a keyframe");
    for _ in 0..49 {
        world.rtcp(viewer.transport, &[Box::new(rtcp::pli(1, 3000))]);
        world.pass(Duration::from_millis(10));
    }
    assert_eq!(world.take_plis(), [1000], "one more soon");
    world.pass(Duration::from_millis(500));
    assert_eq!(world.take_plis(), NONE, "no third within a second");
    world.pass(Duration::from_millis(20));
    assert_eq!(world.take_plis(), [1000]);
    world.pass(Duration::from_secs(10));
    let repeated = world.take_plis().len();
    assert!((2..=5).contains(&repeated), "repeated with backoff: {repeated}");
    world.rtp(ADA, &encoder.frame(true, 1)[0]);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.take_plis(), NONE, "settled by the keyframe");
    world.forwarder.set_muted(world.now, CAMERA, true, &mut world.out);
    world.rtcp(viewer.transport, &[Box::new(rtcp::pli(1, 3000))]);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.take_plis(), NONE, "muted");
    let other = world.viewer(21, vec![watch(3100)]);
    assert_eq!(world.take_plis(), NONE);
    world.forwarder.set_muted(world.now, CAMERA, false, &mut world.out);
    assert_eq!(world.take_plis(), [1000], "asked for on unmuting");
    assert_eq!(world.forwarder.stats().plis_received, 50);
    drop(other);
}

/// A viewer that was sent a keyframe, which it may have dropped.
struct Uncertain {
    world: World,
    viewer: Viewer,
    encoder: Encoder,
}

impl Uncertain {
    fn new(described: bool) -> Self {
        let mut world = World::new();
        world.publish(vec![camera(&[], &[(1000, 1001)])]);
        let viewer = world.viewer(20, vec![Sender { described, ..watch(3000) }]);
        let mut call = Self { world, viewer, encoder: Encoder::new(1000, None) };
        call.send(true);
        assert!(!call.world.take_rtp(call.viewer.transport).is_empty());
        call
    }

    fn send(&mut self, keyframe: bool) {
        self.encoder.frame(keyframe, 2).iter().for_each(|packet| self.world.rtp(ADA, packet));
    }

    /// The viewer reports; how often Ada is asked for a keyframe then.
    fn report(&mut self, last_sender_report: u32) -> usize {
        self.world.take_plis();
        let report = ReceptionReport { ssrc: 3000, last_sender_report, ..ReceptionReport::default() };
        self.world.rtcp(self.viewer.transport, &[Box::new(rtcp::receiver_report(1, vec![report]))]);
        self.world.take_plis().len()
    }

    /// A second with a sender report in it; the middle of its NTP time.
    fn hear_sender_report(&mut self) -> u32 {
        self.world.out.rtcp.clear();
        self.world.pass(Duration::from_secs(1));
        let sent: Vec<SenderReport> = of_kind(&parse(take(&mut self.world.out.rtcp, self.viewer.transport)));
        ntp_middle(sent[0].ntp_time)
    }
}

#[test]
fn a_keyframe_dropped_before_the_ssrc_was_known_comes_again() {
    let mut call = Uncertain::new(false);
    call.world.pass(Duration::from_millis(700));
    assert_eq!(call.report(0), 1, "it may have been dropped");
    call.send(true);
    call.world.pass(Duration::from_secs(1));
    assert_eq!(call.report(0), 0, "once a sender");
    call.world.pass(Duration::from_secs(10));
    assert_eq!(call.world.take_plis(), NONE);
}

#[test]
fn no_keyframe_is_asked_for_that_is_not_needed() {
    let mut described = Uncertain::new(true);
    described.world.pass(Duration::from_millis(700));
    assert_eq!(described.report(0), 0, "the SSRC was known before");

    let mut asks = Uncertain::new(false);
    asks.world.pass(Duration::from_millis(700));
    asks.world.rtcp(asks.viewer.transport, &[Box::new(rtcp::pli(1, 3000))]);
    assert_eq!(asks.world.take_plis(), [1000]);
    asks.send(true);
    asks.world.pass(Duration::from_millis(700));
    assert_eq!(asks.report(0), 0, "it has asked by itself");

    let mut heard = Uncertain::new(false);
    let known = heard.hear_sender_report();
    heard.world.pass(Duration::from_millis(100));
    heard.send(true);
    heard.world.pass(Duration::from_millis(700));
    assert_eq!(heard.report(known), 0, "one went out since");

    let mut heard = Uncertain::new(false);
    let known = heard.hear_sender_report();
    heard.send(false);
    heard.world.pass(Duration::from_millis(700));
    assert_eq!(heard.report(known), 1, "none went out since");
}
