//! A run: who comes and goes, what breaks, and what has to hold in the end.

use edge_signal::room::node::RESTART_GRACE_MS;
use shared::ids::RoomName;

use crate::client::{Client, Kit};
use crate::judge;
use crate::net::{Host, Turn};
use crate::rules::Rule;
use crate::sdp::Kind;
use crate::world::{MAX_NODES, World};

/// When things stop to happen by themselves, milliseconds.
const STORY_MS: u64 = 60_000;
/// Time after which nodes that were to stop are started again.
const STOP_MS: u64 = 20_000;
/// Time after that in which all nodes have to reach each other.
const PIPES_MS: u64 = 20_000;
/// Time in which all has to be well again: a client that was cut off notices after 30 s, and tries for as long again.
const SETTLE_MS: u64 = 90_000;
/// Time after the last one left in which all has to be gone.
const EMPTY_MS: u64 = 60_000;
/// Most clients.
const MAX_CLIENTS: usize = 7;

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// What does not hold; empty: all is well.
    pub faults: Vec<String>,
    /// What happened, when that was asked for.
    pub log: String,
    /// How much happened.
    pub turns: u64,
}

/// Runs a seed, without a rule where one is named.
#[must_use]
pub fn run(seed: u64, broken: Option<Rule>, logs: bool) -> Outcome {
    let mut story = Story::new(seed, broken, logs);
    story.live();
    let mut faults = judge::pipes_are_up(&story.world);
    story.settle();
    faults.extend(judge::settled(&story.world));
    if faults.is_empty() {
        story.end();
        faults = judge::empty(&story.world);
    }
    let (log, turns) = (story.world.net.take_log(), story.world.turns);
    Outcome { seed, faults, log, turns }
}

struct Story {
    world: World,
    /// When nodes go on after a stop or death: node, when.
    returns: Vec<(usize, u64)>,
    /// When the edge does.
    edge_returns: Option<u64>,
}

impl Story {
    fn new(seed: u64, broken: Option<Rule>, logs: bool) -> Self {
        // Drawn before the world has dice of its own.
        let (nodes, rooms) = (2 + seed % (MAX_NODES as u64 - 1), 1 + seed / 3 % 3);
        let world = World::new(seed, nodes as usize, rooms as usize, broken, logs);
        Self { world, returns: Vec::new(), edge_returns: None }
    }

    /// Things happen, then they get well again.
    fn live(&mut self) {
        for node in 0..self.world.nodes.len() {
            let at = self.world.net.pick(0, 2_000);
            self.returns.push((node, at));
        }
        self.next_in(10, 500);
        while self.world.run(STORY_MS) {
            self.go_on();
        }
        self.heal();
        self.world.run(STORY_MS + STOP_MS);
        (0..self.world.nodes.len()).for_each(|node| self.revive(node));
        self.world.run(STORY_MS + STOP_MS + PIPES_MS);
    }

    /// What takes its time gets it.
    fn settle(&mut self) {
        self.world.run(STORY_MS + STOP_MS + SETTLE_MS);
    }

    fn next_in(&mut self, low: u64, high: u64) {
        let at = self.world.net.now + self.world.net.pick(low, high);
        if at < STORY_MS {
            self.world.net.at(at, Turn::Story);
        }
    }

    fn go_on(&mut self) {
        let now = self.world.net.now;
        let due: Vec<usize> = self.returns.iter().filter(|(_, at)| *at <= now).map(|(node, _)| *node).collect();
        self.returns.retain(|(_, at)| *at > now);
        due.into_iter().for_each(|node| self.revive(node));
        if self.edge_returns.is_some_and(|at| at <= now) {
            self.edge_is_back();
        }
        if now >= 1_000 {
            self.something_happens();
        }
        self.next_in(50, 2_500);
    }

    fn revive(&mut self, node: usize) {
        let World { nodes, net, origin, .. } = &mut self.world;
        if nodes[node].is_frozen() {
            net.note(|| format!("node {node} thaws"));
            nodes[node].thaw(net);
        } else if nodes[node].process.is_none() {
            net.note(|| format!("node {node} starts"));
            nodes[node].start(net, *origin);
        }
        self.world.carry(node);
    }

    fn something_happens(&mut self) {
        if self.world.is_forwarding && !self.world.net.edge_is_dead && self.world.net.dice(1, 6) {
            return self.somebody_is_forwarded();
        }
        let dice = self.world.net.pick(0, 99);
        let is_api = matches!(dice, 34 | 95..=98);
        if is_api && self.world.net.edge_is_dead {
            return;
        }
        match dice {
            0..=24 => self.somebody_comes(),
            25..=33 => self.somebody_goes(),
            34 => self.somebody_is_dismissed(),
            35..=49 => self.somebody_publishes(),
            50..=54 => self.somebody_unpublishes(),
            55..=62 => self.a_node_dies(),
            63..=68 => self.a_node_freezes(),
            69..=74 => self.a_cut(),
            75..=79 => self.two_hosts_part(),
            80..=85 => self.an_object_is_evicted(),
            86..=87 if self.world.is_spread => self.the_edge_dies(),
            86..=89 => self.an_object_is_reset(),
            90..=94 => self.a_socket_breaks(),
            95..=98 => self.a_drain(),
            _ => self.the_edge_restarts(),
        }
    }

    fn any_client(&mut self) -> Option<usize> {
        let there: Vec<usize> = self.world.clients.iter().filter(|c| c.wanted).map(|c| c.index).collect();
        self.world.net.choose(&there).copied()
    }

    fn any_node(&mut self) -> usize {
        self.world.net.pick(0, self.world.nodes.len() as u64 - 1) as usize
    }

    fn somebody_comes(&mut self) {
        let away: Vec<usize> = self.world.clients.iter().filter(|c| !c.wanted).map(|c| c.index).collect();
        let again = self.world.net.choose(&away).copied();
        let index = match again {
            Some(index) if self.world.clients.len() >= MAX_CLIENTS || self.world.net.dice(1, 3) => index,
            _ if self.world.clients.len() < MAX_CLIENTS => {
                let rooms: Vec<RoomName> = self.world.rooms.iter().map(|room| room.name.clone()).collect();
                let room = self.world.net.choose(&rooms).cloned().unwrap();
                let kits = [Kit::Chromium, Kit::Chromium, Kit::Firefox, Kit::Native];
                let kit = *self.world.net.choose(&kits).unwrap();
                let single = self.world.net.dice(2, 3);
                let index = self.world.clients.len();
                let place = self.world.any_place();
                self.world.clients.push(Client::new(index, room, kit, single, place));
                index
            }
            _ => return,
        };
        let World { clients, net, .. } = &mut self.world;
        let client = &mut clients[index];
        net.note(|| format!("c{index} comes to {}", client.room));
        client.enter(net);
        if net.dice(3, 4) {
            client.publish(net, Kind::Audio);
        }
    }

    fn somebody_goes(&mut self) {
        let Some(client) = self.any_client() else { return };
        let World { clients, net, .. } = &mut self.world;
        let says_goodbye = net.dice(2, 3);
        net.note(|| format!("c{client} goes (goodbye: {says_goodbye})"));
        clients[client].exit(net, says_goodbye);
    }

    fn somebody_is_dismissed(&mut self) {
        let Some(client) = self.any_client() else { return };
        let World { clients, rooms, net, .. } = &mut self.world;
        let client = &clients[client];
        net.note(|| format!("{} is dismissed", client.identity));
        if let Some(room) = rooms.iter_mut().find(|room| room.name == client.room) {
            room.dismiss(net, &client.identity);
        }
    }

    /// Or is so no more: it is dismissed there.
    fn somebody_is_forwarded(&mut self) {
        let Some(client) = self.any_client() else { return };
        let World { clients, rooms, net, .. } = &mut self.world;
        let client = &clients[client];
        let others: Vec<RoomName> =
            rooms.iter().map(|room| room.name.clone()).filter(|room| *room != client.room).collect();
        let Some(to) = net.choose(&others).cloned() else { return };
        let ends = net.dice(1, 3);
        net.note(|| format!("{} is forwarded to {to} ({})", client.identity, if ends { "no more" } else { "now" }));
        let at = if ends { &to } else { &client.room };
        let Some(room) = rooms.iter_mut().find(|room| room.name == *at) else { return };
        if ends {
            room.dismiss(net, &client.identity);
        } else {
            room.forward(net, &client.identity, to);
        }
    }

    fn somebody_publishes(&mut self) {
        let Some(client) = self.any_client() else { return };
        let World { clients, net, .. } = &mut self.world;
        if clients[client].tracks.len() < 3 {
            let kind = if net.dice(1, 2) { Kind::Audio } else { Kind::Video };
            net.note(|| format!("c{client} publishes {kind:?}"));
            clients[client].publish(net, kind);
        }
    }

    fn somebody_unpublishes(&mut self) {
        let Some(client) = self.any_client() else { return };
        let World { clients, net, .. } = &mut self.world;
        net.note(|| format!("c{client} unpublishes"));
        clients[client].unpublish(net);
    }

    fn returns_in(&mut self, node: usize, low: u64, high: u64) {
        let at = self.world.net.now + self.world.net.pick(low, high);
        self.returns.push((node, at));
    }

    fn a_node_dies(&mut self) {
        let node = self.any_node();
        let World { nodes, net, .. } = &mut self.world;
        if nodes[node].process.is_some() {
            net.note(|| format!("node {node} is killed"));
            nodes[node].kill(net);
            self.returns_in(node, 100, 20_000);
        }
    }

    fn a_node_freezes(&mut self) {
        let node = self.any_node();
        let World { nodes, net, .. } = &mut self.world;
        if nodes[node].process.is_some() && !nodes[node].is_frozen() {
            net.note(|| format!("node {node} freezes"));
            nodes[node].freeze();
            self.returns_in(node, 100, 25_000);
        }
    }

    fn a_cut(&mut self) {
        let client = self.any_client();
        let node = self.any_node();
        let net = &mut self.world.net;
        let host = match client {
            Some(client) if net.dice(1, 2) => Host::Client(client),
            _ => Host::Node(node),
        };
        let until = net.now + net.pick(200, 20_000);
        net.note(|| format!("{host:?} is cut off until {until}"));
        net.cut(host, until);
    }

    /// A client and a node, or two nodes.
    fn two_hosts_part(&mut self) {
        let (Some(client), node) = (self.any_client(), self.any_node()) else { return };
        let (mut other, mut longest) = (Host::Client(client), 40_000);
        if self.world.is_spread && self.world.net.dice(2, 3) {
            let others: Vec<usize> = (0..self.world.nodes.len()).filter(|other| *other != node).collect();
            let Some(one) = self.world.net.choose(&others).copied() else { return };
            // Pipes fail after 30 s.
            (other, longest) = (Host::Node(one), 90_000);
        }
        let net = &mut self.world.net;
        let until = net.now + net.pick(200, longest);
        net.note(|| format!("no datagram passes between {other:?} and node {node} until {until}"));
        net.part([other, Host::Node(node)], until);
    }

    fn an_object_is_evicted(&mut self) {
        let World { rooms, fleet, net, .. } = &mut self.world;
        match net.pick(0, rooms.len() as u64) as usize {
            0 => fleet.evict(net),
            room => rooms[room - 1].evict(),
        }
    }

    fn an_object_is_reset(&mut self) {
        let World { rooms, fleet, net, .. } = &mut self.world;
        let object = net.pick(0, rooms.len() as u64) as usize;
        net.note(|| format!("object {object} is reset (0: the fleet's)"));
        match object {
            0 => fleet.reset(net),
            room => rooms[room - 1].reset(net),
        }
    }

    fn the_edge_restarts(&mut self) {
        self.world.net.note(|| "the edge restarts".to_owned());
        self.world.reset_edge();
    }

    /// For a while; a node may stand still until the time is over in which nodes are to come back to it.
    fn the_edge_dies(&mut self) {
        if self.world.net.edge_is_dead {
            return;
        }
        let node = self.any_node();
        self.world.net.note(|| "the edge dies".to_owned());
        let pause = self.world.net.pick(100, 6_000);
        self.edge_returns = Some(self.world.net.now + pause);
        if self.world.net.dice(1, 2) && self.world.nodes[node].process.is_some() {
            self.world.net.note(|| format!("node {node} freezes"));
            self.world.nodes[node].freeze();
            self.returns_in(node, pause, pause + RESTART_GRACE_MS + 1_000);
        }
        self.world.kill_edge();
    }

    fn edge_is_back(&mut self) {
        self.edge_returns = None;
        if self.world.net.edge_is_dead {
            self.world.net.note(|| "the edge is back".to_owned());
            self.world.start_edge();
        }
    }

    fn a_socket_breaks(&mut self) {
        let net = &mut self.world.net;
        let all = net.sockets(|_| true);
        if let Some(socket) = net.choose(&all).copied() {
            net.note(|| format!("{socket:?} breaks"));
            net.snap(socket);
        }
    }

    fn a_drain(&mut self) {
        let node = self.any_node();
        let World { nodes, fleet, net, .. } = &mut self.world;
        if net.dice(1, 3) {
            net.note(|| format!("node {node} gets SIGTERM"));
            nodes[node].terminate(net);
            self.world.carry(node);
            self.returns_in(node, 5_000, 20_000);
        } else {
            let (id, draining) = (nodes[node].id.clone(), net.dice(2, 3));
            net.note(|| format!("an operator: node {node} drains: {draining}"));
            fleet.drain(net, &id, draining);
        }
    }

    /// Nothing is broken any more.
    fn heal(&mut self) {
        self.world.net.note(|| "--- from here on nothing breaks".to_owned());
        self.world.net.heal();
        self.edge_is_back();
        for node in 0..self.world.nodes.len() {
            self.revive(node);
            let World { nodes, fleet, net, .. } = &mut self.world;
            let id = nodes[node].id.clone();
            fleet.drain(net, &id, false);
        }
        self.returns.clear();
    }

    /// All go.
    fn end(&mut self) {
        self.world.net.note(|| "--- all go".to_owned());
        for client in 0..self.world.clients.len() {
            let World { clients, net, .. } = &mut self.world;
            if clients[client].wanted {
                let says_goodbye = net.dice(1, 2);
                clients[client].exit(net, says_goodbye);
            }
        }
        let until = self.world.net.now + EMPTY_MS;
        self.world.run(until);
    }
}
