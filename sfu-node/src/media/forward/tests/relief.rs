//! A shard that cannot keep up leaves out layers, then videos, and takes them back; audio goes on.

use super::*;
use crate::media::forward::Subscription;
use crate::media::relief::Relief;

struct Room {
    world: World,
    encoders: Vec<Encoder>,
    microphone: Encoder,
    viewers: Vec<Viewer>,
    heard: usize,
}

impl Room {
    /// Eight viewers, the last of whom calls the video important.
    fn new() -> Self {
        let mut world = World::new();
        world.publish(vec![camera(&["q", "h", "f"], &[]), microphone(vec![OPUS])]);
        let encoders = (1..).zip(["q", "h", "f"]).map(|(n, rid)| Encoder::new(5000 + n, Some(rid))).collect();
        let mut room = Self { world, encoders, microphone: Encoder::new(2000, None), viewers: vec![], heard: 0 };
        (0..8).for_each(|n| room.join(n));
        room
    }

    fn join(&mut self, n: u32) {
        let priority = u8::from(n == 7);
        let delivery = shared::control::Delivery { priority, ..Default::default() };
        let video = Sender { delivery, ..watch(3000 + 10 * n) };
        let viewer = self.world.viewer(20 + u64::from(n), vec![video, sender(MICROPHONE, 4000 + n, vec![OPUS_DOWN])]);
        self.viewers.push(viewer);
    }

    /// A second of audio and video; the camera answers keyframe requests.
    fn second(&mut self) {
        for _ in 0..30 {
            let asked = self.world.take_plis();
            for encoder in &mut self.encoders {
                let keyframe = encoder.sent.is_empty() || asked.contains(&encoder.ssrc);
                encoder.sent.truncate(1);
                encoder.frame(keyframe, 2).iter().for_each(|packet| self.world.rtp(ADA, packet));
            }
            let sound = self.microphone.packet(OPUS.pt, false, &[7; 80]);
            self.world.rtp(ADA, &sound);
            self.world.pass(Duration::from_millis(33));
            for viewer in &mut self.viewers {
                for packet in self.world.take_rtp(viewer.transport) {
                    if RtpPacket::parse(&packet).unwrap().ssrc >= 4000 {
                        self.heard += 1;
                    } else {
                        viewer.receive(&packet);
                    }
                }
            }
        }
    }

    fn relieve(&mut self, relief: Relief) {
        self.world.forwarder.relieve(self.world.now, relief, &mut self.world.out);
        self.second();
        self.second();
    }

    /// Layer that goes out to each viewer.
    fn layers(&self) -> Vec<Option<u8>> {
        let subscriptions = self.world.forwarder.subscriptions.iter().map(|(_, subscription)| subscription);
        subscriptions.filter(|s| s.kind == TrackKind::Video).map(Subscription::current).collect()
    }

    fn take_pauses(&mut self) -> Vec<bool> {
        let paused = |event| if let Event::Paused { paused, .. } = event { Some(paused) } else { None };
        std::mem::take(&mut self.world.out.events).into_iter().filter_map(paused).collect()
    }
}

#[test]
fn layers_then_videos_are_left_out_and_come_back_and_audio_goes_on() {
    let at = |phases: u8| Relief::NONE.more(phases * Relief::PHASE);
    let mut room = Room::new();
    room.second();
    assert_eq!(room.layers(), [Some(2); 8]);
    room.relieve(at(1));
    assert_eq!((&room.layers()[..7], room.layers()[7]), (&[Some(1); 7][..], Some(2)));
    room.relieve(at(4));
    assert_eq!(room.layers(), [Some(0); 8]);
    assert!(room.take_pauses().is_empty(), "nobody is without a picture");
    room.relieve(at(5));
    assert_eq!((&room.layers()[..7], room.layers()[7]), (&[None; 7][..], Some(0)));
    assert_eq!(room.take_pauses(), [true; 7]);
    room.relieve(Relief::MOST);
    assert_eq!(room.take_pauses(), [true]);
    room.join(8);
    room.second();
    assert_eq!((room.layers(), room.take_pauses()), (vec![None; 9], vec![true]), "a new one too");

    let heard = room.heard;
    room.second();
    assert_eq!(room.heard, heard + 9 * 30);
    room.relieve(Relief::NONE);
    assert_eq!(room.layers(), [Some(2); 9]);
    assert_eq!(room.take_pauses(), [false; 9]);
    room.viewers.iter().for_each(Viewer::assert_decodable);
}
