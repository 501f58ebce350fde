//! A session without packets costs nothing.

use super::*;

struct Room {
    world: World,
    encoders: [Encoder; 2],
    viewer: Viewer,
}

impl Room {
    fn new() -> Self {
        let mut world = World::new();
        world.publish(vec![camera(&["q", "f"], &[])]);
        let viewer = world.viewer(20, vec![watch(3000)]);
        Self { world, encoders: [Encoder::new(1000, Some("q")), Encoder::new(2000, Some("f"))], viewer }
    }

    /// Three seconds of video; gives how many reports the viewer got.
    fn video(&mut self) -> usize {
        for frame in 0..90 {
            for encoder in &mut self.encoders {
                encoder.frame(frame % 30 == 0, 2).iter().for_each(|packet| self.world.rtp(ADA, packet));
            }
            self.world.pass(Duration::from_millis(33));
            self.viewer.drain(&mut self.world);
        }
        let said = self.world.take_said(self.viewer.transport);
        said.iter().filter(|said| matches!(said, Said::Clocks { ssrc: 3000, .. })).count()
    }
}

#[test]
fn nothing_is_due_while_nothing_flows() {
    let mut room = Room::new();
    assert_eq!(room.world.forwarder.next_timeout(), None, "connected, nothing sent yet");
    assert_eq!(room.video(), 2);
    room.world.pass(Duration::from_secs(3));
    assert_eq!(room.world.forwarder.next_timeout(), None);
    room.world.take_said(ADA);
    room.world.take_said(room.viewer.transport);
    assert_eq!(room.video(), 2, "reports go on with the packets");
    room.viewer.assert_decodable();
}

#[test]
fn a_layer_that_stops_after_a_silence_is_noticed() {
    let mut room = Room::new();
    room.video();
    room.world.pass(Duration::from_secs(10));
    room.video();
    // Only the lower one goes on.
    let before = room.viewer.packets.len();
    for _ in 0..60 {
        let asked = room.world.take_plis().contains(&1000);
        room.encoders[0].frame(asked, 1).iter().for_each(|packet| room.world.rtp(ADA, packet));
        room.world.pass(Duration::from_millis(33));
        room.viewer.drain(&mut room.world);
    }
    assert!(room.viewer.packets.len() > before + 20, "{before}, {}", room.viewer.packets.len());
}
