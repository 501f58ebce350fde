//! What is too much at once for a subscriber's path goes out bit by bit; nothing else waits.

use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;

use super::*;

/// What a test viewer says its path carries, bits per second.
const PATH: f32 = 1_000_000.0;
const STEP: Duration = Duration::from_millis(1);

struct Call {
    world: World,
    viewer: Viewer,
    camera: Encoder,
    microphone: Encoder,
}

impl Call {
    /// A viewer of a camera and a microphone; `limited`: it says what its path carries.
    fn new(limited: bool) -> Self {
        let mut world = World::new();
        world.publish(vec![camera(&[], &[(1000, 1001)]), microphone(vec![OPUS])]);
        let viewer = world.viewer(20, vec![watch(3000), sender(MICROPHONE, 4000, vec![OPUS_DOWN])]);
        let (camera, microphone) = (Encoder::new(1000, None), Encoder::new(2000, None));
        let mut call = Self { world, viewer, camera, microphone };
        call.frame(true, 1);
        if limited {
            let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: PATH, ssrcs: vec![call.viewer.ssrc] };
            call.world.rtcp(call.viewer.transport, &[Box::new(remb)]);
        }
        call.world.pass(Duration::from_millis(500));
        call.received();
        call
    }

    /// A frame comes, in one batch.
    fn frame(&mut self, keyframe: bool, packets: usize) {
        for packet in self.camera.frame(keyframe, packets) {
            self.world.forwarder.on_rtp(self.world.now, ADA, &packet, &mut self.world.out);
        }
        self.world.forwarder.flush(&mut self.world.out);
    }

    fn sound(&mut self) {
        let packet = self.microphone.packet(OPUS.pt, false, &[7; 80]);
        self.world.rtp(ADA, &packet);
    }

    /// Video and audio packets that the viewer got since the last call.
    fn received(&mut self) -> (usize, usize) {
        let (audio, video): (Vec<_>, Vec<_>) = self
            .world
            .take_rtp(self.viewer.transport)
            .into_iter()
            .partition(|p| RtpPacket::parse(p).unwrap().ssrc == 4000);
        video.iter().for_each(|packet| self.viewer.receive(packet));
        (video.len(), audio.len())
    }

    fn holds(&self) -> bool {
        let transports = self.world.forwarder.transports.iter();
        let due = transports.filter(|(_, transport)| transport.release_due.is_some()).count() > 0;
        let held = self.world.forwarder.subscriptions.iter().any(|(_, subscription)| subscription.held.is_some());
        assert_eq!(due, held, "a timer for what is held, and only for that");
        held
    }
}

#[test]
fn a_large_keyframe_goes_out_at_two_and_a_half_times_the_estimate() {
    let mut call = Call::new(true);
    call.frame(true, 60);
    let (at_once, _) = call.received();
    assert!((12..=15).contains(&at_once), "{at_once} at once");
    let mut milliseconds = 0;
    let (mut got, mut most) = (at_once, 0);
    while call.holds() {
        call.world.pass(STEP);
        milliseconds += 1;
        let (video, _) = call.received();
        got += video;
        most = most.max(video);
    }
    assert_eq!(got, 60);
    assert!(most <= 3, "{most} packets in a millisecond");
    // 45 packets of about 1,080 bytes at 2.5 Mbit/s.
    assert!((140..175).contains(&milliseconds), "{milliseconds} ms");
    for _ in 0..10 {
        call.world.pass(Duration::from_millis(33));
        call.frame(false, 4);
        assert_eq!(call.received().0, 4, "what the path carries never waits");
    }
    call.viewer.assert_decodable();
}

#[test]
fn frames_behind_it_keep_their_order() {
    let mut call = Call::new(true);
    for number in 0..10 {
        call.frame(number == 0, if number == 0 { 60 } else { 3 });
        assert!(call.holds() || number > 5);
        call.world.pass(Duration::from_millis(33));
    }
    assert!(!call.holds());
    call.received();
    call.viewer.assert_decodable();
    assert_eq!(call.viewer.packets.len(), 1 + 60 + 9 * 3);
}

#[test]
fn nothing_waits_for_longer_than_a_quarter_of_a_second_and_no_more_than_there_is_room_for() {
    let mut call = Call::new(true);
    call.frame(true, 110);
    call.received();
    call.world.pass(Duration::from_millis(240));
    assert!(call.holds());
    call.world.pass(Duration::from_millis(15));
    assert!(!call.holds());
    let mut call = Call::new(true);
    call.frame(true, 200);
    let (at_once, _) = call.received();
    assert!((60..75).contains(&at_once), "{at_once}");
    call.world.pass(Duration::from_millis(260));
    call.received();
    call.viewer.assert_decodable();
    assert_eq!(call.viewer.packets.len(), 201);
}

#[test]
fn audio_and_what_is_sent_again_do_not_wait() {
    let mut call = Call::new(true);
    call.frame(true, 60);
    call.received();
    call.sound();
    assert_eq!(call.received(), (0, 1));
    let lost = (call.viewer.highest.unwrap() & 0xffff) as u16;
    call.world.rtcp(call.viewer.transport, &[Box::new(rtcp::nack(1, 3000, &[lost, lost.wrapping_sub(1)]))]);
    assert_eq!(call.received(), (2, 0));
    assert!(call.holds());
    let stats = call.world.forwarder.stats();
    assert_eq!(stats.retransmissions_sent, 2);
}

#[test]
fn what_fills_a_hole_among_what_went_out_does_not_wait() {
    let mut call = Call::new(true);
    let mut packets = call.camera.frame(true, 60);
    let late = packets.remove(2);
    for packet in &packets {
        call.world.forwarder.on_rtp(call.world.now, ADA, packet, &mut call.world.out);
    }
    call.world.forwarder.flush(&mut call.world.out);
    call.received();
    assert!(call.holds());
    call.world.rtp(ADA, &late);
    assert_eq!(call.received(), (1, 0));
    call.world.pass(Duration::from_millis(260));
    call.received();
    call.viewer.assert_decodable();
}

#[test]
fn who_says_nothing_of_its_path_gets_all_at_once() {
    let mut call = Call::new(false);
    call.frame(true, 60);
    assert_eq!(call.received().0, 60);
    assert!(!call.holds());
}

#[test]
fn a_pause_drops_what_is_held_and_the_video_comes_back_with_a_keyframe() {
    let mut call = Call::new(true);
    call.frame(true, 60);
    call.received();
    assert!(call.holds());
    assert_eq!(call.world.take_plis(), NONE, "the keyframe is on its way");
    let paused = shared::control::Delivery { paused: true, ..Default::default() };
    for delivery in [paused, shared::control::Delivery::default()] {
        let senders = vec![Sender { delivery, ..watch(3000) }, sender(MICROPHONE, 4000, vec![OPUS_DOWN])];
        call.world.forwarder.set_senders(call.world.now, call.viewer.transport, senders, &mut call.world.out);
        call.world.pass(Duration::from_millis(200));
        assert_eq!(call.received().0, 0);
    }
    assert!(!call.holds());
    assert_eq!(call.world.take_plis(), [1000]);
    call.frame(true, 5);
    assert_eq!(call.received().0, 5);
}

#[test]
fn holding_allocates_once_and_not_for_each_packet() {
    let mut call = Call::new(true);
    let packets = call.camera.frame(true, 60);
    let World { forwarder, now, .. } = &mut call.world;
    let counted = allocation_counter::measure(|| {
        packets.iter().for_each(|packet| forwarder.on_rtp(*now, ADA, packet, &mut super::cost::Nowhere));
        forwarder.flush(&mut super::cost::Nowhere);
    });
    assert!(call.holds());
    assert!(counted.count_total <= 3, "{} allocations", counted.count_total);
}
