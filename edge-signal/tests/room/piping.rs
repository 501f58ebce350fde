//! Sessions on two nodes: a pipe between them, and in it what somebody at the other end is to see, once.

use edge_signal::room::event::{ConnectionId, Event};
use edge_signal::room::pipes::REOPEN_AFTER_MS;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;
use shared::control::{MediaState, NodeToRoom, PipeEnd, PipeKey, PipedStream, TrackKind};
use shared::ids::TrackSid;

use crate::virtual_node::VirtualPipe;
use crate::world::{Who, World, camera, node_id, placed, session_description};

/// Ada is at the second node already, Bob and Cyd are still at the first, that drains.
struct Apart {
    world: World,
    ada: ConnectionId,
    bob: ConnectionId,
    cyd: ConnectionId,
    camera: TrackSid,
}

fn browser(name: &str) -> Who {
    Who::named(name).browser("Chrome")
}

impl Apart {
    fn new(knows_no_pipes: bool) -> Self {
        let mut world = World::new();
        world.nodes.get_mut(&node_id(1)).unwrap().knows_no_pipes = knows_no_pipes;
        let [ada, bob, cyd] = ["ada", "bob", "cyd"].map(|name| world.join_active(&browser(name)));
        let camera = world.add_track(&ada, camera("c")).unwrap();
        world.receive_track(&ada, &camera);
        world.publish(&bob, "m");
        world.node_says(&node_id(1), NodeToRoom::Draining { draining: true });
        world.step(Event::Placed { node: Some(placed(node_id(2))) });
        world.link(&node_id(2));
        for (id, client) in (7..).zip([&ada, &bob, &cyd]) {
            world.say(client, Asked::Offer(session_description("offer", id)));
        }
        world.media(&ada, MediaState::Connected);
        Self { world, ada, bob, cyd, camera }
    }

    /// Both ends.
    fn pipes(&self) -> Vec<(PipeKey, [VirtualPipe; 2])> {
        let [first, second] = [1, 2].map(|n| &self.world.nodes[&node_id(n)].pipes);
        assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
        first.iter().map(|(key, end)| (*key, [end.clone(), second[key].clone()])).collect()
    }

    fn pipe(&self) -> (PipeKey, [VirtualPipe; 2]) {
        let [pipe] = &self.pipes()[..] else { panic!("{:?}", self.pipes()) };
        pipe.clone()
    }

    /// What the node puts in: track and highest layer.
    fn filled(&self, node: u8) -> Vec<(TrackSid, Option<u8>)> {
        let (_, ends) = self.pipe();
        ends[usize::from(node - 1)].filled.iter().map(|track| (track.track.clone(), track.max_layer)).collect()
    }

    fn show(&mut self, who: &ConnectionId, width: u32, height: u32, disabled: bool) {
        let track_sids = vec![self.camera.to_string()];
        let settings = proto::UpdateTrackSettings { track_sids, width, height, disabled, ..Default::default() };
        self.world.say(who, Asked::TrackSetting(settings));
    }
}

pub(crate) fn end(number: u32) -> PipeEnd {
    PipeEnd {
        addresses: vec!["203.0.113.1:7900".parse().unwrap()],
        number,
        ufrag: "u".into(),
        password: "p".into(),
        fingerprint: "f".into(),
    }
}

pub(crate) fn stream(track: &TrackSid) -> PipedStream {
    let (track, kind) = (track.clone(), TrackKind::Video);
    PipedStream { track, kind, backup: false, payload_types: Vec::new(), layers: Vec::new() }
}

#[test]
fn each_track_goes_once_to_where_somebody_is_served_it() {
    let apart = Apart::new(false);
    let (_, ends) = apart.pipe();
    assert_eq!(ends.each_ref().map(|end| end.dials), [false, true]);
    assert_eq!(apart.filled(2), [(apart.camera.clone(), None)], "once for both");
    let [(microphone, None)] = &apart.filled(1)[..] else { panic!("{:?}", apart.filled(1)) };
    assert!(microphone.as_str().starts_with("TR_A"));
}

#[test]
fn the_ends_hear_of_each_other_and_of_what_goes_in() {
    let mut apart = Apart::new(false);
    let (pipe, _) = apart.pipe();
    for node in [1, 2] {
        let opened = NodeToRoom::PipeOpened { pipe, end: end(node.into()) };
        apart.world.node_says(&node_id(node), opened);
    }
    let (streams, others) = (vec![stream(&apart.camera)], stream(&apart.filled(1)[0].0));
    let said = [&streams[..], &[others]].concat();
    apart.world.node_says(&node_id(2), NodeToRoom::PipeFilled { pipe, streams: said });
    let (_, ends) = apart.pipe();
    assert_eq!(ends.each_ref().map(|end| end.connected.as_ref().unwrap().number), [2, 1]);
    assert_eq!(ends.each_ref().map(|end| end.drawn.as_slice()), [&streams[..], &[]], "of what is its own");

    // A node that comes back hears all of it again, the others nothing.
    apart.world.unlink(&node_id(1));
    let forgets = apart.world.nodes.get_mut(&node_id(1)).unwrap().pipes.get_mut(&pipe).unwrap();
    *forgets = VirtualPipe { dials: forgets.dials, ..VirtualPipe::default() };
    apart.world.link(&node_id(1));
    assert_eq!(apart.pipe(), (pipe, ends));
}

#[test]
fn no_layer_that_nobody_there_wants_goes_in() {
    let mut apart = Apart::new(false);
    let (bob, cyd) = (apart.bob.clone(), apart.cyd.clone());
    apart.show(&bob, 320, 180, false);
    assert_eq!(apart.filled(2), [(apart.camera.clone(), None)], "the other has not said");
    apart.show(&cyd, 640, 360, false);
    assert_eq!(apart.filled(2), [(apart.camera.clone(), Some(1))]);
    apart.show(&cyd, 0, 0, true);
    assert_eq!(apart.filled(2), [(apart.camera.clone(), Some(0))]);
    apart.show(&bob, 0, 0, true);
    assert_eq!(apart.filled(2), [], "nobody watches");
    apart.show(&bob, 1280, 720, false);
    assert_eq!(apart.filled(2), [(apart.camera.clone(), Some(2))]);
    let unsubscribe = proto::UpdateSubscription {
        track_sids: vec![apart.camera.to_string()],
        subscribe: false,
        ..Default::default()
    };
    apart.world.say(&bob, Asked::Subscription(unsubscribe));
    assert_eq!(apart.filled(2), []);
}

#[test]
fn together_again_there_is_no_pipe() {
    let mut apart = Apart::new(false);
    for client in [apart.bob.clone(), apart.cyd.clone()] {
        assert_eq!(apart.pipes().len(), 1);
        apart.world.media(&client, MediaState::Connected);
    }
    assert_eq!(apart.pipes(), []);
}

#[test]
fn a_pipe_that_fails_is_opened_anew_but_not_at_once() {
    let mut apart = Apart::new(false);
    let (pipe, _) = apart.pipe();
    apart.world.nodes.get_mut(&node_id(2)).unwrap().pipes.clear();
    apart.world.node_says(&node_id(2), NodeToRoom::PipeState { pipe, state: MediaState::Failed });
    assert_eq!(apart.pipes(), []);
    apart.world.pass(REOPEN_AFTER_MS);
    let (again, _) = apart.pipe();
    assert_ne!(again, pipe);
    assert_eq!(apart.filled(2), [(apart.camera.clone(), None)]);
    apart.world.node_says(&node_id(2), NodeToRoom::PipeState { pipe, state: MediaState::Failed });
    assert_eq!(apart.pipe().0, again, "the end of what is over already");
}

#[test]
fn a_node_that_has_lost_its_end_gets_another_pipe() {
    let mut apart = Apart::new(false);
    let (pipe, _) = apart.pipe();
    apart.world.unlink(&node_id(1));
    apart.world.nodes.get_mut(&node_id(1)).unwrap().pipes.clear();
    apart.world.link(&node_id(1));
    assert_ne!(apart.pipe().0, pipe);
    assert_eq!(apart.filled(1).len(), 1);
}

#[test]
fn a_dead_node_leaves_no_pipe() {
    let mut apart = Apart::new(false);
    apart.world.kill(&node_id(1));
    apart.world.step(Event::NodeLost { node: node_id(1) });
    assert!(apart.world.nodes[&node_id(2)].pipes.is_empty());
    assert!(!apart.world.client(&apart.ada.clone()).closed);
}

#[test]
fn a_node_of_before_gets_no_pipe() {
    assert_eq!(Apart::new(true).pipes(), []);
}
