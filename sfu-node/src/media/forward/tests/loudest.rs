//! In a room with many microphones the loudest few are forwarded, and no subscriber sees a gap.

use super::*;

const MICROPHONES: u16 = 8;
const HEARD: usize = 3;
/// Where the level stands in an encoder's packet; its highest bit says that it is speech.
const LEVEL: usize = 22;

struct Room {
    world: World,
    encoders: Vec<Encoder>,
    /// One for each microphone, of the same listener.
    streams: Vec<Viewer>,
}

fn key(n: u16) -> TrackKey {
    TrackKey(200 + u64::from(n))
}

impl Room {
    /// `levels`: the microphones say how loud they are.
    fn new(heard: usize, levels: bool) -> Self {
        let mut world = World::new();
        world.forwarder = Forwarder::new(7).hearing(heard);
        world.join(ADA);
        let ssrc = |n: u16| 2000 + 10 * u32::from(n);
        let extensions = if levels { UP } else { ExtensionIds { audio_level: None, ..UP } };
        let receiver = |n: u16| Receiver {
            track: key(n),
            extensions,
            ssrcs: ArrayVec::from_iter([SsrcPair { ssrc: ssrc(n), rtx: None }]),
            ..microphone(vec![OPUS])
        };
        world.publish((0..MICROPHONES).map(receiver).collect());
        let down = |n: u16| sender(key(n), 2000 + ssrc(n), vec![OPUS_DOWN]);
        let listener = world.viewer(20, (0..MICROPHONES).map(down).collect());
        let stream = |n: u16| Viewer {
            transport: listener.transport,
            ssrc: 2000 + ssrc(n),
            rtx: None,
            packets: BTreeMap::new(),
            highest: None,
        };
        let encoders = (0..MICROPHONES).map(|n| Encoder::new(ssrc(n), None)).collect();
        Self { world, encoders, streams: (0..MICROPHONES).map(stream).collect() }
    }

    /// So many packets of each microphone, `loud` ones among them; gives how many of each went out.
    fn talk(&mut self, packets: usize, loud: &[usize]) -> Vec<usize> {
        let before: Vec<usize> = self.streams.iter().map(|stream| stream.packets.len()).collect();
        for _ in 0..packets {
            for (n, encoder) in self.encoders.iter_mut().enumerate() {
                encoder.timestamp = encoder.timestamp.wrapping_add(960);
                let mut packet = encoder.packet(OPUS.pt, false, &[7; 80]);
                packet[LEVEL] = 0x80 | if loud.contains(&n) { 20 } else { 100 };
                self.world.rtp(ADA, &packet);
            }
            self.world.pass(Duration::from_millis(20));
        }
        for packet in self.world.take_rtp(TransportKey(20)) {
            let ssrc = RtpPacket::parse(&packet).unwrap().ssrc;
            self.streams.iter_mut().find(|stream| stream.ssrc == ssrc).unwrap().receive(&packet);
        }
        self.streams.iter().zip(before).map(|(stream, before)| stream.packets.len() - before).collect()
    }
}

#[test]
fn the_loudest_few_go_out_and_nobody_sees_a_gap() {
    let mut room = Room::new(HEARD, true);
    assert_eq!(room.talk(100, &[]), [100, 100, 100, 0, 0, 0, 0, 0], "the first, while nobody speaks");
    let heard = room.talk(100, &[1, 5]);
    assert!(heard[1] == 100 && heard[5] >= 90, "{heard:?}");
    // Who is replaced may have been heard in the very 20 ms.
    assert!((100 * HEARD..=100 * HEARD + 2).contains(&heard.iter().sum()), "{heard:?}");
    let heard = room.talk(200, &[6, 7]);
    assert!(heard[6] >= 190 && heard[7] >= 80, "{heard:?}");
    assert!(heard[6] + heard[7] < 400, "who just spoke keeps the place for a while");
    let heard = room.talk(50, &[1, 6, 7]);
    assert!(heard[6] == 50 && heard[7] == 50 && heard[1] >= 40, "{heard:?}");
    for stream in &room.streams {
        assert_eq!(stream.missing(), NONE.map(|_| 0_u16), "gap-free");
        let times: Vec<u32> = stream.packets.values().map(|got| got.timestamp).collect();
        assert!(times.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]).cast_signed() > 0), "time goes on");
    }
}

#[test]
fn small_rooms_and_microphones_that_do_not_say_how_loud_they_are_are_heard_whole() {
    for (heard, levels) in [(usize::from(MICROPHONES), true), (HEARD, false)] {
        let mut room = Room::new(heard, levels);
        assert_eq!(room.talk(100, &[1, 5]), [100; MICROPHONES as usize]);
    }
}

#[test]
fn the_place_of_a_microphone_that_goes_is_taken() {
    let mut room = Room::new(HEARD, true);
    room.talk(100, &[0, 1, 2]);
    let world = &mut room.world;
    world.forwarder.set_receivers(world.now, ADA, Vec::new(), &mut world.out);
    assert!(world.forwarder.rooms.is_empty());
}

#[test]
fn choosing_allocates_nothing() {
    let mut room = Room::new(HEARD, true);
    // Each was left out before, and what is remembered of packets sent has grown.
    for loud in [[3, 4, 5], [0, 6, 7], [1, 2, 3]] {
        room.talk(200, &loud);
    }
    let mut packets = vec![];
    for n in 0..200 {
        let encoder = &mut room.encoders[n % usize::from(MICROPHONES)];
        let mut packet = encoder.packet(OPUS.pt, false, &[7; 1000]);
        packet[LEVEL] = if n % 3 == 0 { 10 } else { 90 };
        packets.push(packet);
    }
    let World { forwarder, now, .. } = &mut room.world;
    let counted = allocation_counter::measure(|| {
        packets.iter().for_each(|packet| forwarder.on_rtp(*now, ADA, packet, &mut super::cost::Nowhere));
        forwarder.flush(&mut super::cost::Nowhere);
    });
    assert_eq!(counted.count_total, 0);
}
