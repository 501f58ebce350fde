//! The fleet link against a WebSocket server that plays the fleet's object and the rooms'.

use shared::control::{CONTROL_VERSION, FLEET_LINK_PATH, NodeLimits, NodeToRoom};
use shared::geo::Place;
use shared::ids::RegionName;

use super::super::room_link::tests::{LIMIT, RoomSide, Story, hall, node};
use super::*;

/// A node with its fleet link, and the edge.
struct Node {
    story: Story,
    state: watch::Receiver<FleetState>,
    link: tokio::task::JoinHandle<String>,
    leaving: watch::Sender<Leaving>,
}

impl Node {
    async fn start(name: &str) -> Self {
        let story = Story::begin(name).await;
        let leaving = watch::Sender::new(Leaving::default());
        let (state, state_seen) = watch::channel(FleetState::Down(String::new()));
        let (_, pulse) = watch::channel(Pulse::default());
        let info = NodeInfo {
            version: "test".to_owned(),
            control_version: CONTROL_VERSION,
            region: RegionName::try_from("here").unwrap(),
            place: Place { latitude: 0.0, longitude: 0.0 },
            max_sessions: 10,
            limits: NodeLimits::default(),
            pipes: false,
        };
        let context = RoomContext { leaving: leaving.subscribe(), ..story.context.clone() };
        let mut link = FleetLink { info, context, pulse, leaving: leaving.clone(), state };
        let link = tokio::spawn(async move { link.run().await });
        Self { story, state: state_seen, link, leaving }
    }

    /// Takes the node's dial and welcomes it.
    async fn accept(&mut self) -> RoomSide {
        let mut fleet = self.story.accept_at(FLEET_LINK_PATH).await;
        assert!(matches!(fleet.next().await, NodeToFleet::Hello(info) if info.region.as_str() == "here"));
        fleet.say(&FleetToNode::Welcome { node: node(), draining: false }).await;
        self.reaches(|state| *state == FleetState::Up).await;
        fleet
    }

    async fn reaches(&mut self, wanted: impl Fn(&FleetState) -> bool) {
        tokio::time::timeout(LIMIT, self.state.wait_for(wanted)).await.expect("the state changes").unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.link.abort();
    }
}

fn attach(ticket: &str) -> FleetToNode {
    FleetToNode::Attach { room: hall(), ticket: ticket.to_owned(), first: None }
}

async fn heartbeat(fleet: &mut RoomSide) {
    while !matches!(fleet.next().await, NodeToFleet::Heartbeat(_)) {}
}

#[tokio::test]
async fn says_hello_and_heartbeats_and_dials_rooms() {
    let mut node = Node::start("fleet").await;
    let mut fleet = node.accept().await;
    heartbeat(&mut fleet).await;
    fleet.say(&attach("T1")).await;
    assert!(node.story.accept("T1").await.hello().await.is_empty());
}

#[tokio::test]
async fn garbage_of_the_fleet_is_counted_and_the_link_goes_on() {
    let mut node = Node::start("fleet-garbage").await;
    let mut fleet = node.accept().await;
    for garbage in ["", "{}", "[1", "{\"attach\":{\"room\":7}}"] {
        fleet.say(&garbage).await;
    }
    fleet.say(&attach("T1")).await;
    assert!(node.story.accept("T1").await.hello().await.is_empty());
    assert!(node.story.context.metrics.encode().unwrap().contains("bad_messages_total 4"));
}

#[tokio::test]
async fn an_attach_that_came_while_an_earlier_one_failed_is_not_lost() {
    let mut node = Node::start("fleet-queued").await;
    let mut fleet = node.accept().await;
    fleet.say(&attach("T1")).await;
    fleet.say(&attach("T2")).await;
    // By the second of these the node has read both.
    heartbeat(&mut fleet).await;
    heartbeat(&mut fleet).await;
    node.story.refuse().await;
    assert!(node.story.accept("T2").await.hello().await.is_empty());
}

#[tokio::test]
async fn rooms_are_told_that_calls_are_to_leave_and_on_each_link_again() {
    let mut node = Node::start("fleet-leaving").await;
    let mut fleet = node.accept().await;
    fleet.say(&attach("T1")).await;
    let mut room = node.story.accept("T1").await;
    room.hello().await;
    for draining in [true, false, true] {
        fleet.say(&FleetToNode::Drain { draining }).await;
        assert_eq!(room.next::<NodeToRoom>().await, NodeToRoom::Draining { draining });
    }
    node.leaving.send_modify(|leaving| leaving.stops = true);
    while fleet.next::<NodeToFleet>().await != NodeToFleet::Draining {}
    // An operator's second thoughts do not keep a process.
    fleet.say(&FleetToNode::Drain { draining: false }).await;
    fleet.say(&attach("T2")).await;
    let mut room = node.story.accept("T2").await;
    room.hello().await;
    assert_eq!(room.next::<NodeToRoom>().await, NodeToRoom::Draining { draining: true });
}

#[tokio::test]
async fn a_lost_link_is_dialed_again() {
    let mut node = Node::start("fleet-lost").await;
    drop(node.accept().await);
    node.reaches(|state| matches!(state, FleetState::Down(_))).await;
    node.accept().await;
}

#[tokio::test]
async fn a_refusal_is_final_for_this_identity() {
    let mut node = Node::start("fleet-refused").await;
    node.story.refuse().await;
    let reason = tokio::time::timeout(LIMIT, &mut node.link).await.expect("it gives up").unwrap();
    assert!(reason.contains("403") && reason.contains("ticket used"), "{reason}");
}

#[tokio::test]
async fn a_busy_node_asks_a_room_to_leave_for_a_while() {
    let mut node = Node::start("fleet-busy").await;
    let mut fleet = node.accept().await;
    let first = Some(Box::new(node.story.open("ada", "hall", "1")));
    fleet.say(&FleetToNode::Attach { room: hall(), ticket: "T1".to_owned(), first }).await;
    let mut room = node.story.accept("T1").await;
    room.hello().await;
    while !matches!(room.next().await, NodeToRoom::Answer { .. }) {}
    fleet.say(&FleetToNode::Shed { sessions: 1 }).await;
    for draining in [true, false] {
        while room.next::<NodeToRoom>().await != (NodeToRoom::Draining { draining }) {}
    }
    assert!(node.story.context.metrics.encode().unwrap().contains("rooms_shed_total 1"));
}
