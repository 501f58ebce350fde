//! Who speaks is told once a window, and nothing else is.

use super::*;

/// Where the level stands in an encoder's packet; its highest bit says that it is speech.
const LEVEL: usize = 22;

/// Two seconds of 20 ms packets at this level.
fn talk(world: &mut World, encoder: &mut Encoder, level: u8) {
    for _ in 0..100 {
        encoder.timestamp = encoder.timestamp.wrapping_add(960);
        let mut packet = encoder.packet(OPUS.pt, false, &[7; 80]);
        packet[LEVEL] = 0x80 | level;
        world.rtp(ADA, &packet);
        world.pass(Duration::from_millis(20));
    }
}

fn steps(world: &mut World) -> Vec<u8> {
    let step = |event| match event {
        Event::Loudness { track: MICROPHONE, step } => Some(step),
        _ => None,
    };
    std::mem::take(&mut world.out.events).into_iter().filter_map(step).collect()
}

#[test]
fn loudness_is_told_as_it_changes_and_when_the_microphone_goes() {
    let mut world = World::new();
    world.publish(vec![microphone(vec![OPUS])]);
    let mut encoder = Encoder::new(2000, None);
    talk(&mut world, &mut encoder, 110);
    assert_eq!(steps(&mut world), [] as [u8; 0]);
    talk(&mut world, &mut encoder, 12);
    let rising = steps(&mut world);
    assert!(rising.is_sorted() && rising.last() == Some(&3), "{rising:?}");
    talk(&mut world, &mut encoder, 12);
    assert_eq!(steps(&mut world), [] as [u8; 0], "steady");
    world.pass(Duration::from_secs(3));
    let falling = steps(&mut world);
    assert_eq!(falling.last(), Some(&0), "discontinuous transmission: {falling:?}");
    talk(&mut world, &mut encoder, 12);
    steps(&mut world);
    world.forwarder.set_muted(world.now, MICROPHONE, true, &mut world.out);
    assert_eq!(steps(&mut world), [0], "muted");
    talk(&mut world, &mut encoder, 12);
    assert_eq!(steps(&mut world), [] as [u8; 0]);
    world.forwarder.set_muted(world.now, MICROPHONE, false, &mut world.out);
    talk(&mut world, &mut encoder, 12);
    steps(&mut world);
    world.publish(vec![]);
    assert_eq!(steps(&mut world), [0]);
    world.pass(Duration::from_secs(3));
    assert_eq!(steps(&mut world), [] as [u8; 0]);
}

#[test]
fn silent_microphones_wake_nobody() {
    let mut world = World::new();
    world.publish(vec![microphone(vec![OPUS])]);
    let mut encoder = Encoder::new(2000, None);
    talk(&mut world, &mut encoder, 110);
    // Reports and feedback about what came are due once more each.
    world.pass(Duration::from_secs(10));
    assert_eq!(world.forwarder.next_timeout(), None);
}

#[test]
fn only_the_shard_that_receives_a_microphone_tells_of_it() {
    let mut world = World::new();
    let publisher = TransportKey(50);
    let receivers = vec![microphone(vec![OPUS])];
    world.forwarder.set_relayed(world.now, publisher, ROOM, ShardIndex(1), receivers, &mut world.out);
    let track = world.forwarder.track_slots[&MICROPHONE];
    for _ in 0..100 {
        let now = world.forwarder.clock.time(world.now);
        world.forwarder.hear_level(now, track, 10);
        world.pass(Duration::from_millis(20));
    }
    assert_eq!(steps(&mut world), [] as [u8; 0]);
}
