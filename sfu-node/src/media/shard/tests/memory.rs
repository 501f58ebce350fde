//! What a subscriber costs in memory.

use super::*;

/// Bytes on the heap of a transport with open data channels that receives a track with transport-wide feedback: what
/// it takes now and a tenth more. The crypto library's own memory, about 4 KiB, is not seen here.
const MOST: i64 = 33 * 1024;

#[test]
fn a_subscriber_is_small() {
    const SUBSCRIBERS: i64 = 200;
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
