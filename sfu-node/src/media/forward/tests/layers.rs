//! Simulcast: the best layer goes out, and a change of layer is not seen by a decoder.

use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use shared::control::Delivery;

use super::*;

const RIDS: [&str; 3] = ["q", "h", "f"];

struct Simulcast {
    world: World,
    viewer: Viewer,
    encoders: Vec<Encoder>,
    active: [bool; 3],
}

impl Simulcast {
    fn new() -> Self {
        let mut world = World::new();
        world.publish(vec![camera(&RIDS, &[])]);
        let viewer = world.viewer(20, vec![watch(3000)]);
        let encoders = (1..).zip(RIDS).map(|(n, rid)| Encoder::new(1000 * n, Some(rid))).collect();
        Self { world, viewer, encoders, active: [false; 3] }
    }

    /// Frames of all active layers; keyframes where they were asked for.
    fn run(&mut self, frames: usize) {
        for _ in 0..frames {
            let asked = self.world.take_plis();
            for (encoder, active) in self.encoders.iter_mut().zip(self.active) {
                if active {
                    let first = encoder.sent.is_empty();
                    for packet in encoder.frame(first || asked.contains(&encoder.ssrc), 3) {
                        self.world.rtp(ADA, &packet);
                    }
                } else {
                    encoder.timestamp = encoder.timestamp.wrapping_add(3000);
                }
            }
            self.world.pass(Duration::from_millis(33));
        }
        self.viewer.drain(&mut self.world);
    }

    fn layer_now(&self) -> Option<u8> {
        self.world.forwarder.subscriptions.iter().next().unwrap().1.current()
    }

    /// Longest pause between frames, in frames of 33 ms.
    fn longest_pause(&self) -> u32 {
        let times: Vec<u32> = self.viewer.packets.values().map(|got| got.timestamp).collect();
        times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).max().unwrap() / 2970
    }
}

#[test]
fn the_best_layer_goes_out_and_changes_are_seamless() {
    let mut call = Simulcast::new();
    call.active = [true, false, false];
    call.run(10);
    assert_eq!(call.layer_now(), Some(0));
    call.active = [true, true, true];
    call.run(30);
    assert_eq!(call.layer_now(), Some(2));
    assert!(call.longest_pause() <= 2, "nothing is lost on the way up");
    call.active = [true, true, false];
    call.run(60);
    assert_eq!(call.layer_now(), Some(1), "the layer stopped");
    assert!(call.longest_pause() < 40, "{}", call.longest_pause());
    call.active = [true, true, true];
    call.run(30);
    assert_eq!(call.layer_now(), Some(2));
    call.viewer.assert_decodable();
    let layers = call.world.out.events.iter().filter(|event| matches!(event, Event::LayerSeen { .. })).count();
    assert_eq!(layers, 3, "each layer is told once");
}

#[test]
fn going_up_waits_for_a_keyframe_of_the_layer() {
    let mut call = Simulcast::new();
    call.active = [true, false, false];
    call.run(5);
    call.world.rtp(ADA, &call.encoders[2].frame(false, 1)[0]);
    assert_eq!(call.layer_now(), Some(0));
    assert_eq!(call.world.take_plis(), [3000]);
    let keyframe = call.encoders[2].frame(true, 2);
    call.world.rtp(ADA, &keyframe[0]);
    call.world.rtp(ADA, &keyframe[1]);
    assert_eq!(call.layer_now(), Some(2));
}

#[test]
fn timestamps_follow_the_sender_reports() {
    let mut call = Simulcast::new();
    call.active = [true, false, false];
    call.run(5);
    // The upper layer's clock: its frame with this timestamp is captured 40 ms after the lower layer's newest.
    let lower = call.encoders[0].timestamp;
    let ntp = 0x1234_5678_0000_0000_u64;
    let report = |ssrc, ntp, rtp| rtcp::StreamReport { ssrc, ntp, rtp, packets: 0, octets: 0 };
    let cname = bytes::Bytes::from_static(b"ada");
    let frame = call.encoders[2].frame(true, 1);
    call.world.rtp(ADA, &call.encoders[2].frame(false, 1)[0]);
    call.world.rtcp(ADA, &rtcp::sender_report(&report(1000, ntp, lower), &cname));
    let captured = call.encoders[2].timestamp + 3000;
    let later = ntp + (1 << 32) / 25;
    call.world.rtcp(ADA, &rtcp::sender_report(&report(3000, later, captured), &cname));
    drop(frame);
    call.viewer.drain(&mut call.world);
    let before = call.viewer.packets.values().next_back().unwrap().timestamp;
    call.world.pass(Duration::from_millis(200));
    call.world.rtp(ADA, &call.encoders[2].frame(true, 1)[0]);
    call.viewer.drain(&mut call.world);
    let after = call.viewer.packets.values().next_back().unwrap().timestamp;
    assert_eq!(call.layer_now(), Some(2));
    let step = i64::from(after.wrapping_sub(before));
    assert!((step - 3600).abs() <= 1, "40 ms, whenever it arrives: {step}");
}

#[test]
fn stragglers_of_a_layer_left_find_their_place_or_are_dropped() {
    let mut call = Simulcast::new();
    call.active = [true, false, false];
    call.run(3);
    let late = call.encoders[0].frame(false, 3);
    call.world.rtp(ADA, &late[0]);
    call.world.rtp(ADA, &late[2]);
    let keyframe = call.encoders[2].frame(true, 2);
    call.world.rtp(ADA, &keyframe[0]);
    assert_eq!(call.layer_now(), Some(2));
    call.world.rtp(ADA, &late[1]);
    let beyond = call.encoders[0].frame(false, 2);
    call.world.rtp(ADA, &beyond[0]);
    call.world.rtp(ADA, &keyframe[1]);
    call.viewer.drain(&mut call.world);
    assert_eq!(call.viewer.packets.len(), 9 + 3 + 2);
    call.viewer.assert_decodable();
}

fn wanting(delivery: Delivery) -> Sender {
    Sender { delivery, ..watch(3000) }
}

#[test]
fn a_subscriber_gets_no_more_than_it_wants() {
    let mut call = Simulcast::new();
    call.active = [true; 3];
    call.run(30);
    assert_eq!(call.layer_now(), Some(2));
    let set = |call: &mut Simulcast, delivery| {
        let to = call.viewer.transport;
        call.world.forwarder.set_senders(call.world.now, to, vec![wanting(delivery)], &mut call.world.out);
        call.run(30);
    };
    set(&mut call, Delivery { max_layer: Some(0), ..Delivery::default() });
    assert_eq!(call.layer_now(), Some(0));
    set(&mut call, Delivery { max_layer: Some(1), ..Delivery::default() });
    assert_eq!(call.layer_now(), Some(1));
    set(&mut call, Delivery { paused: true, ..Delivery::default() });
    let before = call.viewer.packets.len();
    call.run(30);
    assert_eq!((call.layer_now(), call.viewer.packets.len()), (None, before));
    set(&mut call, Delivery::default());
    assert_eq!(call.layer_now(), Some(2));
    call.viewer.assert_decodable();
}

#[test]
fn who_is_to_get_another_layer_asks_for_it_although_packets_of_the_last_wait() {
    let mut call = Simulcast::new();
    call.active = [true; 3];
    call.run(30);
    let to = call.viewer.transport;
    let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: 1_000_000.0, ssrcs: vec![3000] };
    call.world.rtcp(to, &[Box::new(remb)]);
    for packet in call.encoders[2].frame(false, 60) {
        call.world.rtp(ADA, &packet);
    }
    let is_held = |call: &Simulcast| call.world.forwarder.subscriptions.iter().any(|(_, known)| known.held.is_some());
    assert!(is_held(&call) && call.world.take_plis().is_empty());
    let less = wanting(Delivery { max_layer: Some(0), ..Delivery::default() });
    call.world.forwarder.set_senders(call.world.now, to, vec![less], &mut call.world.out);
    assert_eq!((call.layer_now(), call.world.take_plis()), (Some(2), vec![1000]));

    call.world.rtcp(to, &[Box::new(rtcp::pli(1, 3000))]);
    call.world.pass(Duration::from_millis(340));
    assert_eq!(call.world.take_plis(), [1000], "a keyframe of the layer that is left would help nobody");
    call.active = [false; 3];
    for packet in call.encoders[0].frame(true, 3) {
        call.world.rtp(ADA, &packet);
    }
    call.world.pass(Duration::from_millis(260));
    assert_eq!((call.layer_now(), is_held(&call), call.world.take_plis()), (Some(0), false, vec![]));
    call.viewer.drain(&mut call.world);
    call.viewer.assert_decodable();
}

#[test]
fn of_a_burst_of_sizes_the_last_is_served_and_few_keyframes_are_asked_for() {
    let mut call = Simulcast::new();
    call.active = [true; 3];
    call.run(30);
    let to = call.viewer.transport;
    let mut seen = vec![];
    for step in 0..50 {
        let delivery = Delivery { max_layer: Some(2 - step % 3), ..Delivery::default() };
        call.world.forwarder.set_senders(call.world.now, to, vec![wanting(delivery)], &mut call.world.out);
        seen.push(call.world.forwarder.subscriptions.iter().next().unwrap().1.delivery());
        call.world.pass(Duration::from_millis(5));
    }
    seen.dedup();
    assert!((2..=4).contains(&seen.len()), "in 250 ms: {seen:?}");
    call.run(30);
    assert_eq!(call.layer_now(), Some(1), "what was asked for last");
    call.viewer.assert_decodable();
}
