//! Temporal layers: frames above a subscriber's frame rate are left out, and no decoder notices.

use shared::control::Delivery;

use super::*;
use crate::media::forward::allocation::Quality;

/// Temporal layer of each frame of a group of four, and whether it is a sync frame (as libwebrtc's three-layer pattern has
/// them in every second group).
const PATTERN: [(u8, bool); 8] =
    [(0, false), (2, true), (1, true), (2, false), (0, false), (2, false), (1, false), (2, false)];

struct Call {
    world: World,
    viewer: Viewer,
    encoder: Encoder,
    frames: usize,
}

impl Call {
    fn new() -> Self {
        let mut world = World::new();
        world.publish(vec![camera(&[], &[(1000, 1001)])]);
        let viewer = world.viewer(20, vec![watch(3000)]);
        Self { world, viewer, encoder: Encoder::new(1000, None), frames: 0 }
    }

    /// Packets of the next frame.
    fn frame(&mut self) -> Vec<Vec<u8>> {
        let (temporal, sync) = PATTERN[self.frames % PATTERN.len()];
        let keyframe = self.frames == 0;
        self.frames += 1;
        self.encoder.temporal_frame(keyframe, temporal, sync, 3)
    }

    fn run(&mut self, frames: usize) {
        for _ in 0..frames {
            for packet in self.frame() {
                self.world.rtp(ADA, &packet);
            }
            self.world.pass(Duration::from_millis(33));
        }
        self.viewer.drain(&mut self.world);
    }

    fn deliver(&mut self, delivery: Delivery) {
        let sender = Sender { delivery, ..watch(3000) };
        self.world.forwarder.set_senders(self.world.now, self.viewer.transport, vec![sender], &mut self.world.out);
    }

    fn limit(&mut self, temporal: u8) {
        let (_, subscription) = self.world.forwarder.subscriptions.iter_mut().next().unwrap();
        subscription.ceiling = Some(Quality { layer: 0, temporal });
    }
}

#[test]
fn frames_above_the_ceiling_are_left_out_without_a_gap() {
    let mut call = Call::new();
    call.run(16);
    assert_eq!(call.viewer.packets.len(), 16 * 3);
    for (ceiling, share) in [(0, 1), (1, 2), (2, 4), (1, 2), (u8::MAX, 4)] {
        call.limit(ceiling);
        call.run(16);
        let before = call.viewer.packets.len();
        call.run(80);
        assert_eq!(call.viewer.packets.len() - before, 80 / 4 * share * 3, "ceiling {ceiling}");
    }
    call.viewer.assert_decodable();
    assert_eq!(call.world.take_plis(), NONE, "no keyframe is needed for it");
}

#[test]
fn the_frame_rate_goes_up_at_a_sync_frame_only() {
    let mut call = Call::new();
    call.run(1);
    call.limit(0);
    call.run(15);
    call.limit(2);
    let before = call.viewer.packets.len();
    // The frame after the next one with layer 0 is the first that may be followed.
    call.run(1);
    assert_eq!(call.viewer.packets.len() - before, 3);
    call.run(7);
    assert_eq!(call.viewer.packets.len() - before, 8 * 3, "the sync frame follows at once");
    call.limit(0);
    call.run(4);
    call.limit(2);
    let before = call.viewer.packets.len();
    call.run(4);
    assert_eq!(call.viewer.packets.len() - before, 3, "no sync frame in the second half");
    call.viewer.assert_decodable();
}

#[test]
fn a_late_packet_finds_its_place_and_an_unwanted_one_leaves_it_empty() {
    let mut call = Call::new();
    call.run(9);
    call.limit(1);
    call.run(7);
    // Of the next frames, in layers 0, 2, 1, 2: the second packets of the first two are late.
    let mut frames: Vec<_> = (0..4).map(|_| call.frame()).collect();
    let late: Vec<_> = frames[..2].iter_mut().map(|frame| frame.remove(1)).collect();
    for packet in frames.iter().flatten().chain(&late) {
        call.world.rtp(ADA, packet);
    }
    call.viewer.drain(&mut call.world);
    let empty = call.viewer.packets.values().filter(|got| got.payload.is_empty()).count();
    assert_eq!(empty, 1);
    call.viewer.packets.retain(|_, got| !got.payload.is_empty());
    assert_eq!(call.viewer.missing().len(), 1);
}

#[test]
fn a_picture_that_is_late_keeps_its_id_over_a_new_start() {
    let mut call = Call::new();
    call.run(9);
    call.limit(1);
    call.run(8);
    // In layers 2, 1, 2, the one wanted late.
    let [_, late, _] = [0, 1, 2].map(|place| {
        let frame = call.frame();
        let arrives: &[Vec<u8>] = if place == 1 { &[] } else { &frame };
        arrives.iter().for_each(|packet| call.world.rtp(ADA, packet));
        call.world.pass(Duration::from_millis(33));
        frame
    });
    call.deliver(Delivery { paused: true, ..Delivery::default() });
    call.world.pass(Duration::from_millis(200));
    call.deliver(Delivery::default());
    call.frames = 0;
    call.run(4);
    late.iter().for_each(|packet| call.world.rtp(ADA, packet));
    call.viewer.drain(&mut call.world);
    call.viewer.assert_decodable();
}

#[test]
fn what_was_sent_is_found_again_however_much_was_left_out() {
    let mut call = Call::new();
    call.run(9);
    call.limit(0);
    call.run(111);
    let highest = call.viewer.highest.unwrap();
    let lost: Vec<u16> = (0..16).map(|back| ((highest - 2 * back) & 0xffff) as u16).collect();
    call.world.rtcp(call.viewer.transport, &[Box::new(rtcp::nack(1, 3000, &lost))]);
    let before = call.viewer.packets.clone();
    call.viewer.drain(&mut call.world);
    assert_eq!(call.world.forwarder.stats().retransmissions_sent, 16);
    assert_eq!(call.viewer.packets, before, "the same packets, under the same numbers");
}

#[test]
fn streams_with_temporal_layers_are_whole_after_nack() {
    for (seed, ceiling) in (0..10).zip([0, 1, 1, 0, 2, 1, 1, 0, 1, 2]) {
        let mut call = Call::new();
        let mut random = SplitMix(seed);
        call.run(1);
        call.limit(ceiling);
        let mut lost = vec![];
        for _ in 0..300 {
            for packet in call.frame() {
                if random.next().is_multiple_of(20) { lost.push(packet) } else { call.world.rtp(ADA, &packet) }
            }
            call.world.pass(Duration::from_millis(33));
            for packet in std::mem::take(&mut lost) {
                call.world.rtp(ADA, &packet);
            }
        }
        call.viewer.drain(&mut call.world);
        assert_eq!(call.viewer.missing(), [] as [u16; 0]);
        let mut pictures: Vec<u16> =
            call.viewer.packets.values().filter(|got| !got.payload.is_empty()).map(picture).collect();
        pictures.dedup();
        let steps: Vec<u16> = pictures.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]) & 0x7fff).collect();
        // Only a picture that was lost whole, and is not wanted when it comes, has an id of its own.
        assert!(steps.iter().all(|step| (1..=2).contains(step)), "{steps:?}");
        assert!(steps.iter().filter(|step| **step == 2).count() <= 3, "{steps:?}");
    }
}

#[test]
fn a_delivery_of_another_frame_rate_is_kept_over_a_keyframe() {
    let mut call = Call::new();
    call.run(9);
    call.limit(0);
    call.run(7);
    call.frames = 0;
    call.run(8);
    let before = call.viewer.packets.len();
    call.run(80);
    assert_eq!(call.viewer.packets.len() - before, 80 / 4 * 3);
    call.viewer.assert_decodable();
    call.deliver(Delivery { paused: true, ..Delivery::default() });
    call.run(8);
    call.deliver(Delivery::default());
    call.frames = 0;
    call.run(80);
    call.viewer.assert_decodable();
}

#[test]
fn the_lowest_layer_with_the_frame_rate_asked_for_goes_out() {
    let mut call = Call::new();
    call.run(64);
    for (wanted, share) in [(7, 1), (10, 1), (14, 2), (15, 2), (20, 4), (30, 4), (60, 4)] {
        call.deliver(Delivery { max_frame_rate: Some(wanted), ..Delivery::default() });
        call.run(16);
        let before = call.viewer.packets.len();
        call.run(80);
        assert_eq!(call.viewer.packets.len() - before, 80 / 4 * share * 3, "{wanted} frames a second");
    }
    call.viewer.assert_decodable();
}
