//! What a subscriber costs in memory, and what is gathered for many.

use super::*;
use crate::media::batch::MAX_QUEUES;

/// Bytes on the heap of a transport with open data channels that receives a track with transport-wide feedback: what
/// it takes now and a tenth more. The crypto library's own memory, about 4 KiB, is not seen here.
const MOST: i64 = 33 * 1024;
const SUBSCRIBERS: i64 = 200;

/// Ada, and those who hear her; what the heap was before they came.
fn audience() -> (World, usize, Vec<usize>, i64) {
    let mut world = World::with_room_for(300);
    let ada = world.join(DataRole::Both);
    world.connect(ada);
    let track = world.audio_track(ada);
    let before = world.heap;
    let subscribers: Vec<usize> = (0..SUBSCRIBERS).map(|_| world.join(DataRole::Both)).collect();
    for at in &subscribers {
        world.connect(*at);
    }
    world.until("channels", |w| subscribers.iter().all(|at| w.clients[*at].channels.len() >= 3));
    for at in &subscribers {
        let ssrc = 9000 + u32::try_from(*at).unwrap();
        world.expect_audio(*at, ssrc);
        let extensions = ExtensionIds { transport_cc: Some(4), ..ExtensionIds::default() };
        let sender = Sender { ssrc, extensions, ..track.clone() };
        world.command(Command::SetSenders(world.clients[*at].key, vec![sender]));
    }
    (world, ada, subscribers, before)
}

#[test]
fn a_subscriber_is_small() {
    let (mut world, ada, subscribers, before) = audience();
    for n in 0..10_u8 {
        world.speak(ada, &[n; 100]);
        world.pass(Duration::from_millis(20));
    }
    assert!(subscribers.iter().all(|at| world.heard(*at).len() == 10));
    let each = (world.heap - before) / SUBSCRIBERS;
    assert!(each < MOST, "{each} bytes a subscriber");

    for at in subscribers {
        world.command(Command::Close(world.clients[at].key));
    }
    let left = (world.heap - before) / SUBSCRIBERS;
    assert!(left < each / 4, "{left} of {each} bytes stay when it is gone");
}

#[test]
fn what_waits_for_many_is_sealed_in_parts() {
    let (mut world, ada, subscribers, _) = audience();
    world.speak(ada, b"first");
    let said = world.datagrams_of(ada, b"second");
    assert!(!world.shard.overfills());
    let (now, from) = (world.now, world.clients[ada].addr);
    said.into_iter().for_each(|mut datagram| world.shard.handle_datagram(now, from, &mut datagram));
    assert!(world.shard.overfills(), "each of them is to get a packet");

    let (report, media) = ([0x80, 201, 0, 1, 0, 0, 0, 1], [0x80; 20]);
    let piped = |datagram: &[u8]| [&[64, 0, 0, 9], datagram].concat();
    assert!(world.shard.is_overfilled_by(&mut report.clone()) && world.shard.is_overfilled_by(&mut piped(&report)));
    assert!(!world.shard.is_overfilled_by(&mut media.clone()) && !world.shard.is_overfilled_by(&mut piped(&media)));

    let mut parts = Vec::new();
    while let Some(batch) = world.shard.next_batch() {
        parts.push(batch.bursts().count());
        batch.clear();
    }
    assert!(parts.iter().all(|part| *part <= MAX_QUEUES), "{parts:?}");
    assert_eq!(parts.iter().sum::<usize>(), subscribers.len());
    assert!(!world.shard.overfills() && !world.shard.is_overfilled_by(&mut report.clone()));
}
