//! Layers follow what a subscriber's path carries: a virtual path behind the forwarder, and a viewer that reports arrivals.

use rtc::rtcp::packet::Packet;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;

use super::*;
use crate::media::forward::clock::{Time, whole};
use crate::media::forward::twcc::ArrivalRecorder;

/// Packets of a frame, lowest layer first: 0.25, 1 and 3 Mbit/s at 30 frames a second with packets of 1,000 bytes.
const PACKETS: [usize; 3] = [1, 4, 12];
const STEP: Duration = Duration::from_millis(1);

struct Call {
    world: World,
    encoders: Vec<Encoder>,
    viewer: Viewer,
    recorder: ArrivalRecorder,
    /// Bits per second the viewer's path carries.
    capacity: f64,
    /// Milliseconds since the start.
    elapsed: u64,
    free_at: f64,
    queued: std::collections::VecDeque<(f64, u16)>,
    lost: usize,
    arrived: usize,
    padding: usize,
    /// Frames go through three temporal layers.
    temporal: bool,
    frames: usize,
}

impl Call {
    fn new(capacity: f64) -> Self {
        let mut world = World::new();
        world.publish(vec![camera(&["q", "h", "f"], &[])]);
        let viewer = world.viewer(20, vec![watch(3000)]);
        let encoders = (1..).zip(["q", "h", "f"]).map(|(n, rid)| Encoder::new(1000 * n, Some(rid))).collect();
        Self {
            world,
            encoders,
            viewer,
            recorder: ArrivalRecorder::new(),
            capacity,
            elapsed: 0,
            free_at: 0.0,
            queued: std::collections::VecDeque::new(),
            lost: 0,
            arrived: 0,
            padding: 0,
            temporal: false,
            frames: 0,
        }
    }

    fn run(&mut self, seconds: u64) {
        self.run_millis(seconds * 1000);
    }

    fn run_millis(&mut self, millis: u64) {
        let end = self.elapsed + millis;
        while self.elapsed < end {
            self.elapsed += 1;
            self.world.pass(STEP);
            if self.elapsed * 1000 % 33_000 < 1000 {
                self.frames();
            }
            self.carry();
            if self.elapsed.is_multiple_of(100) {
                self.report();
            }
        }
    }

    fn frames(&mut self) {
        let asked = self.world.take_plis();
        for (encoder, packets) in self.encoders.iter_mut().zip(PACKETS) {
            let keyframe = encoder.sent.is_empty() || asked.contains(&encoder.ssrc);
            encoder.sent.truncate(1);
            let temporal = if self.temporal && !keyframe { [0, 2, 1, 2][self.frames % 4] } else { 0 };
            for packet in encoder.temporal_frame(keyframe, temporal, self.frames % 8 < 3, packets) {
                self.world.rtp(ADA, &packet);
            }
        }
        self.frames += 1;
    }

    /// A queue of 300 ms in front of the path.
    fn carry(&mut self) {
        let now = self.elapsed as f64 * 1000.0;
        for packet in self.world.take_rtp(self.viewer.transport) {
            let rtp = RtpPacket::parse(&packet).unwrap();
            let number = rtp.extensions.element(DOWN.transport_cc).unwrap();
            let number = u16::from_be_bytes([number[0], number[1]]);
            self.free_at = self.free_at.max(now);
            if self.free_at - now > 300_000.0 {
                self.lost += 1;
                continue;
            }
            self.free_at += (packet.len() + 44) as f64 * 8e6 / self.capacity;
            self.queued.push_back((self.free_at, number));
            self.arrived += 1;
            if packet[0] & 0x20 != 0 {
                self.padding += 1;
            } else {
                self.viewer.receive(&packet);
            }
        }
        while let Some((at, number)) = self.queued.pop_front_if(|(at, _)| *at <= now) {
            self.recorder.record(Time(whole(at) + 1_000_000), number);
        }
    }

    fn report(&mut self) {
        while let Some(report) = self.recorder.report(1, 3000) {
            self.world.rtcp(self.viewer.transport, &[Box::new(report)]);
        }
    }

    /// Bits per second that the viewer's path is thought to carry.
    fn estimate(&self) -> u64 {
        let transports = &self.world.forwarder.transports;
        let mut known = transports.iter().filter_map(|(_, transport)| transport.bandwidth.as_ref());
        known.next().unwrap().estimate()
    }

    fn layer(&self) -> Option<u8> {
        self.world.forwarder.subscriptions.iter().next().unwrap().1.current()
    }

    fn paused(&mut self) -> Vec<bool> {
        let events = std::mem::take(&mut self.world.out.events);
        let paused = |event| match event {
            Event::Paused { transport, source, paused } => {
                assert_eq!((transport, source), (self.viewer.transport, CAMERA));
                Some(paused)
            }
            _ => None,
        };
        events.into_iter().filter_map(paused).collect()
    }
}

#[test]
fn a_wide_path_carries_the_best_layer() {
    let mut call = Call::new(50e6);
    call.run(20);
    assert_eq!((call.layer(), call.lost), (Some(2), 0));
    assert!(call.paused().is_empty());
    call.viewer.assert_decodable();
}

#[test]
fn layers_follow_the_path_down_and_up_and_no_decoder_notices() {
    let mut call = Call::new(8e6);
    call.run(5);
    assert_eq!(call.layer(), Some(2));
    call.capacity = 1.8e6;
    call.run(5);
    assert_eq!(call.layer(), Some(1));
    call.lost = 0;
    call.run(20);
    assert_eq!(call.layer(), Some(1));
    assert!(call.lost * 50 < call.arrived, "{} lost", call.lost);
    call.capacity = 8e6;
    call.run(20);
    assert_eq!(call.layer(), Some(2));
    assert!(call.padding > 0, "room was found by probing");
    assert!(call.paused().is_empty());
}

#[test]
fn half_the_frames_of_a_layer_go_out_where_all_do_not_fit() {
    let mut call = Call::new(8e6);
    call.temporal = true;
    call.run(5);
    let selected = |call: &Call| call.world.forwarder.subscriptions.iter().next().unwrap().1.selected().temporal;
    assert_eq!((call.layer(), selected(&call)), (Some(2), 3));
    // All frames of the best layer are 3 Mbit/s, those of two of its three temporal layers half of it.
    call.capacity = 2.4e6;
    call.run(20);
    assert_eq!((call.layer(), selected(&call)), (Some(2), 1));
    call.lost = 0;
    call.run(20);
    assert!(call.lost * 50 < call.arrived, "{} lost", call.lost);
    call.capacity = 8e6;
    call.run(20);
    assert_eq!((call.layer(), selected(&call)), (Some(2), 3));
    call.viewer.assert_decodable();
}

#[test]
fn a_path_that_carries_nothing_pauses_the_video_and_it_comes_back() {
    let mut call = Call::new(8e6);
    call.run(5);
    call.capacity = 100_000.0;
    call.run(15);
    assert_eq!((call.layer(), call.paused()), (None, vec![true]));
    call.capacity = 8e6;
    call.run(30);
    assert_eq!((call.layer(), call.paused()), (Some(2), vec![false]));
}

#[test]
fn a_path_that_is_narrow_for_a_moment_pauses_nothing_and_one_that_stays_so_does() {
    let mut call = Call::new(8e6);
    // 0.25 Mbit/s: what an overuse leaves of the estimate never carries it.
    call.encoders.truncate(1);
    call.run(5);
    call.capacity = 150_000.0;
    call.run_millis(500);
    call.capacity = 8e6;
    let mut least = u64::MAX;
    for _ in 0..100 {
        call.run_millis(50);
        least = least.min(call.estimate());
    }
    assert!(least < 250_000, "no overuse was seen: {least}");
    assert_eq!((call.layer(), call.paused()), (Some(0), vec![]));
    call.capacity = 180_000.0;
    call.run(10);
    assert_eq!((call.layer(), call.paused()), (None, vec![true]));
}

#[test]
fn a_viewer_that_only_names_a_limit_gets_what_fits_it() {
    let mut call = Call::new(50e6);
    let limit = |bits_per_second: f32| {
        let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: bits_per_second, ssrcs: vec![3000] };
        Box::new(remb) as Box<dyn Packet>
    };
    call.run(1);
    let mut silent = Call::new(50e6);
    silent.recorder = ArrivalRecorder::new();
    for _ in 0..5 {
        for _ in 0..30 {
            silent.world.pass(Duration::from_millis(33));
            silent.frames();
        }
        silent.world.rtcp(silent.viewer.transport, &[limit(1_500_000.0)]);
    }
    assert_eq!(silent.layer(), Some(1));
    call.world.rtcp(call.viewer.transport, &[limit(100_000.0)]);
    call.run(2);
    assert_eq!(call.layer(), Some(2), "feedback on arrivals tells more");
}
