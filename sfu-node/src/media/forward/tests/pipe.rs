//! Into a pipe: each layer as it is, from any packet on; keyframes are asked for only when the other node does.

use shared::control::Delivery;

use super::*;

const RIDS: [&str; 2] = ["q", "f"];

struct Piped {
    world: World,
    encoders: Vec<Encoder>,
    /// One end of a pipe for each layer, so that each stream is looked at by itself.
    ends: Vec<Viewer>,
}

fn layer(layer: u8) -> Sender {
    Sender { only: Some(layer), ..watch(3000 + 10 * u32::from(layer)) }
}

impl Piped {
    /// The camera runs for a while before anything goes into the pipe.
    fn new() -> Self {
        let mut world = World::new();
        world.publish(vec![camera(&RIDS, &[])]);
        let encoders = (1..).zip(RIDS).map(|(n, rid)| Encoder::new(1000 * n, Some(rid))).collect();
        let mut piped = Self { world, encoders, ends: Vec::new() };
        piped.run(10);
        piped.ends = (0..2).map(|n| piped.world.viewer(20 + u64::from(n), vec![layer(n)])).collect();
        piped
    }

    /// Frames of both layers, keyframes only at the very beginning. Gives the keyframes that were asked for.
    fn run(&mut self, frames: usize) -> Vec<u32> {
        for _ in 0..frames {
            for encoder in &mut self.encoders {
                let first = encoder.sent.is_empty();
                for packet in encoder.frame(first, 3) {
                    self.world.rtp(ADA, &packet);
                }
            }
            self.world.pass(Duration::from_millis(33));
        }
        self.ends.iter_mut().for_each(|end| end.drain(&mut self.world));
        self.world.take_plis()
    }

    fn set(&mut self, end: usize, delivery: Delivery) {
        let (transport, layer) = (self.ends[end].transport, layer(u8::try_from(end).unwrap()));
        let (now, out) = (self.world.now, &mut self.world.out);
        self.world.forwarder.set_senders(now, transport, vec![Sender { delivery, ..layer }], out);
    }
}

#[test]
fn each_layer_goes_in_whole_without_waiting_for_a_keyframe() {
    let mut piped = Piped::new();
    assert_eq!(piped.run(20), NONE, "nobody asked for a keyframe");
    for (end, encoder) in piped.ends.iter().zip(&piped.encoders) {
        assert_eq!((end.packets.len(), end.missing()), (60, vec![]));
        let sent = encoder.sent.iter().rev().take(60).rev();
        let sent: Vec<Vec<u8>> = sent.map(|packet| RtpPacket::parse(packet).unwrap().payload.to_vec()).collect();
        let got: Vec<Vec<u8>> = end.packets.values().map(|got| got.payload.clone()).collect();
        assert!(got == sent, "the layer and no other, unchanged");
    }
}

#[test]
fn a_keyframe_is_asked_for_when_the_other_node_does() {
    let mut piped = Piped::new();
    piped.run(5);
    let (from, ssrc) = (piped.ends[1].transport, piped.ends[1].ssrc);
    piped.world.rtcp(from, &[Box::new(rtcp::pli(1, ssrc))]);
    assert_eq!(piped.run(1), [piped.encoders[1].ssrc], "of the layer that it is about");
}

#[test]
fn a_layer_that_nobody_wants_stops_and_goes_on_in_its_numbers() {
    let mut piped = Piped::new();
    piped.run(10);
    piped.set(1, Delivery { paused: true, ..Delivery::default() });
    piped.run(10);
    assert_eq!([0, 1].map(|end: usize| piped.ends[end].packets.len()), [60, 30]);
    piped.world.pass(Duration::from_millis(200));
    piped.set(1, Delivery::default());
    piped.run(10);
    assert_eq!([0, 1].map(|end: usize| piped.ends[end].packets.len()), [90, 60]);
    assert_eq!(piped.ends[1].missing(), [] as [u16; 0]);
}

#[test]
fn streams_of_another_node_are_those_that_were_described() {
    let mut world = World::new();
    let pipe = TransportKey(30);
    world.join(pipe);
    world.forwarder.set_pipe(pipe);
    let described = Receiver { mid: String::new(), ..camera(&[], &[(5000, 5001)]) };
    world.forwarder.set_receivers(world.now, pipe, vec![described], &mut world.out);
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    let (mut known, mut unknown) = (Encoder::new(5000, None), Encoder::new(6000, None));
    for n in 0..10 {
        known.frame(n == 0, 3).iter().for_each(|packet| world.rtp(pipe, packet));
        unknown.frame(n == 0, 3).iter().for_each(|packet| world.rtp(pipe, packet));
        world.pass(Duration::from_millis(33));
    }
    viewer.drain(&mut world);
    assert_eq!(viewer.packets.len(), 30, "a stream that is not described yet takes no other's place");
    viewer.assert_decodable();
}
