//! A node's process around the real conference and shard, as `sfu-node/src/edge/fleet_link.rs` and `control.rs` are. It may
//! freeze: nothing is handled until it thaws, and then all that has come meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use sfu_node::simulated::{Certificate, Node as Machine};
use shared::control::{CONTROL_VERSION, FleetToNode, HEARTBEAT_SECS, NodeInfo, NodeLimits, NodeLoad, NodeToFleet};
use shared::geo::Place;
use shared::ids::{NodeId, RegionName, RoomName};

use crate::net::{Call, End, Frame, Net, Reply, Socket, Turn};
use crate::room_task::{Attach, RoomTask};

/// Waits between dials, milliseconds: short at first, then up to 5 s.
const BACKOFF: (u64, u64) = (200, 5_000);
/// A fleet link that lived this long was a good one: the next dial does not wait long.
const GOOD_LINK_MS: u64 = 10_000;
/// Longest a dial may take, milliseconds.
pub(crate) const DIAL_TIMEOUT_MS: u64 = 5_000;
/// Time between two words about connection quality, milliseconds.
const ASSESSMENT_MS: u64 = 5_000;
/// Datagrams that a frozen process's socket keeps.
const SOCKET_BUFFER: usize = 200;
/// Most sessions of a node.
const MAX_SESSIONS: usize = 50;

/// How long to wait after so many dials that failed in a row.
pub(crate) fn backoff(net: &mut Net, failures: u32) -> u64 {
    let wait = (BACKOFF.0 << failures.min(10)).min(BACKOFF.1);
    wait + net.pick(0, wait)
}

enum FleetLink {
    Waiting(u64),
    Dialing { dial: u64, until: u64 },
    Up { socket: Socket, since: u64, told_draining: bool },
}

/// The process.
pub(crate) struct Process {
    /// What the fleet sees of it.
    pub(crate) machine: Machine,
    link: FleetLink,
    failures: u32,
    heartbeat_at: u64,
    assess_at: u64,
    /// It is to end.
    pub(crate) stops: bool,
    /// An operator drains it.
    pub(crate) drained: bool,
    /// Rooms that it has a task for.
    pub(crate) rooms: BTreeMap<RoomName, RoomTask>,
    place: Option<Place>,
}

/// A machine with, mostly, a process on it.
pub(crate) struct Node {
    /// Place among the nodes.
    pub(crate) index: usize,
    /// Its name, whatever process runs.
    pub(crate) id: NodeId,
    /// Where its shard listens.
    pub(crate) address: SocketAddr,
    region: RegionName,
    certificate: Certificate,
    /// Where it is; `None`: it takes no pipes.
    pub(crate) place: Option<Place>,
    /// `None`: it is dead.
    pub(crate) process: Option<Process>,
    /// What waits for a frozen process.
    frozen: Option<VecDeque<Turn>>,
    /// Counts processes.
    life: u64,
    wake_at: Option<u64>,
}

impl Node {
    /// A machine without a process.
    #[must_use]
    pub(crate) fn new(
        index: usize,
        id: NodeId,
        address: SocketAddr,
        region: RegionName,
        certificate: Certificate,
        place: Option<Place>,
    ) -> Self {
        let (process, frozen) = (None, None);
        Self { index, id, address, region, certificate, place, process, frozen, life: 0, wake_at: None }
    }

    /// Starts a process, if none runs.
    pub(crate) fn start(&mut self, net: &mut Net, origin: std::time::Instant) {
        if self.process.is_some() {
            return;
        }
        let seed = net.pick(0, u64::MAX);
        let machine = Machine::new(seed, origin, self.address, self.certificate.clone(), MAX_SESSIONS);
        self.life += 1;
        self.frozen = None;
        self.wake_at = None;
        self.process = Some(Process {
            machine,
            link: FleetLink::Waiting(net.now),
            failures: 0,
            heartbeat_at: 0,
            assess_at: net.now + ASSESSMENT_MS,
            stops: false,
            drained: false,
            rooms: BTreeMap::new(),
            place: self.place,
        });
        self.wake(net);
    }

    /// Ends the process at once: `kill -9`.
    pub(crate) fn kill(&mut self, net: &mut Net) {
        self.process = None;
        self.frozen = None;
        let index = self.index;
        for socket in net.sockets(|end| matches!(end, End::Node(node) | End::NodeRoom(node, _) if *node == index)) {
            net.snap(socket);
        }
    }

    /// Stops it as SIGSTOP does.
    pub(crate) fn freeze(&mut self) {
        if self.process.is_some() && self.frozen.is_none() {
            self.frozen = Some(VecDeque::new());
        }
    }

    /// Whether it is frozen.
    #[must_use]
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// SIGCONT: what has come meanwhile is handled now.
    pub(crate) fn thaw(&mut self, net: &mut Net) {
        for turn in self.frozen.take().unwrap_or_default() {
            self.take(net, turn);
        }
        self.wake_at = None;
        self.wake(net);
    }

    /// SIGTERM: it goes when its calls have gone.
    pub(crate) fn terminate(&mut self, net: &mut Net) {
        if let Some(process) = &mut self.process {
            process.stops = true;
            process.machine.drain();
            self.wake(net);
        }
    }

    /// Something arrives at the machine.
    pub(crate) fn take(&mut self, net: &mut Net, turn: Turn) {
        if let Some(waiting) = &mut self.frozen {
            let datagrams = waiting.iter().filter(|turn| matches!(turn, Turn::Datagram { .. })).count();
            if !matches!(turn, Turn::WakeNode { .. })
                && (datagrams < SOCKET_BUFFER || !matches!(turn, Turn::Datagram { .. }))
            {
                waiting.push_back(turn);
            }
            return;
        }
        let Some(process) = &mut self.process else {
            // Nobody listens: a socket that opens now is closed.
            if let Turn::Reply(Reply::Dialed { to, result: Ok(socket), .. }) = turn {
                net.close(&to, socket);
            }
            return;
        };
        let index = self.index;
        match turn {
            Turn::Frame { socket, to: End::Node(_), frame } => process.fleet_frame(net, index, socket, frame),
            Turn::Frame { socket, to: End::NodeRoom(_, room), frame } => {
                if let Some(task) = process.rooms.get_mut(&room) {
                    task.frame(net, &self.id, &mut process.machine, socket, frame);
                }
            }
            Turn::Reply(Reply::Dialed { to: End::Node(_), dial, result }) => {
                process.fleet_dialed(net, &self.region, index, dial, result);
            }
            Turn::Reply(Reply::Dialed { to: End::NodeRoom(node, room), dial, result }) => {
                let leaving = process.stops || process.drained;
                match process.rooms.get_mut(&room) {
                    Some(task) => task.dialed(net, &mut process.machine, leaving, dial, result),
                    None => {
                        if let Ok(socket) = result {
                            net.close(&End::NodeRoom(node, room), socket);
                        }
                    }
                }
            }
            Turn::Datagram { from, mut bytes, .. } => {
                process.machine.handle_datagram(net.instant(), from, &mut bytes);
            }
            Turn::WakeNode { life, .. } if life == self.life && self.wake_at == Some(net.now) => {
                self.wake_at = None;
            }
            _ => return,
        }
        self.wake(net);
    }

    /// Does what is due, and sees to it that it is woken for what is due next.
    fn wake(&mut self, net: &mut Net) {
        if self.frozen.is_some() {
            return;
        }
        let Some(process) = &mut self.process else { return };
        process.go_on(net, self.index, &self.id);
        if process.stops && process.machine.session_count() == 0 {
            net.note(|| format!("{}: bye", self.id));
            return self.kill(net);
        }
        let due = process.due(net).max(net.now);
        // What arrives at the same moment is handled first.
        let due = if due == net.now { due + 1 } else { due };
        if self.wake_at.is_none_or(|at| at > due) {
            self.wake_at = Some(due);
            net.at(due, Turn::WakeNode { node: self.index, life: self.life });
        }
    }

    /// Datagrams that its shard sends.
    pub(crate) fn take_datagrams(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.process.as_mut().map(|process| std::mem::take(&mut process.machine.datagrams)).unwrap_or_default()
    }
}

impl Process {
    fn go_on(&mut self, net: &mut Net, index: usize, id: &NodeId) {
        if self.machine.next_timeout().is_some_and(|at| net.millis(at) <= net.now) {
            self.machine.handle_timeout(net.instant());
        }
        if self.assess_at <= net.now {
            self.assess_at = net.now + ASSESSMENT_MS;
            self.machine.assess(net.instant());
        }
        self.fleet_goes_on(net, index);
        let leaving = self.stops || self.drained;
        // What the conference says to rooms that have no task is for nobody.
        for (room, message) in std::mem::take(&mut self.machine.messages) {
            if let Some(task) = self.rooms.get_mut(&room) {
                task.outbox.push_back(message);
            }
        }
        let mut ended = Vec::new();
        for (room, task) in &mut self.rooms {
            if task.go_on(net, id, &mut self.machine, leaving) {
                ended.push(room.clone());
            }
        }
        for room in ended {
            let attaches = self.rooms.remove(&room).map(|task| task.attaches).unwrap_or_default();
            self.machine.close_room(net.instant(), &room);
            net.note(|| format!("{id}: room task of {room} ended"));
            attaches.into_iter().for_each(|attach| self.attach(net, index, &room, attach));
        }
    }

    fn due(&self, net: &Net) -> u64 {
        let link = match self.link {
            FleetLink::Waiting(until) | FleetLink::Dialing { until, .. } => until,
            FleetLink::Up { .. } => self.heartbeat_at,
        };
        let shard = self.machine.next_timeout().map(|at| net.millis(at));
        let rooms = self.rooms.values().filter_map(RoomTask::due);
        rooms.chain(shard).chain([link, self.assess_at]).min().unwrap_or(link)
    }

    fn fleet_goes_on(&mut self, net: &mut Net, index: usize) {
        match &mut self.link {
            FleetLink::Waiting(until) if *until <= net.now => {
                let dial = net.pick(0, u64::MAX);
                self.link = FleetLink::Dialing { dial, until: net.now + DIAL_TIMEOUT_MS };
                net.call(Call::FleetLink { node: index, dial });
            }
            FleetLink::Dialing { until, .. } if *until <= net.now => self.fleet_down(net),
            FleetLink::Up { socket, told_draining, .. } => {
                let (socket, tells) = (*socket, self.stops && !*told_draining);
                *told_draining |= tells;
                let mut send = |message| net.send(&End::Node(index), socket, Frame::ToFleet(Box::new(message)));
                if tells {
                    send(NodeToFleet::Draining);
                }
                if self.heartbeat_at <= net.now {
                    let sessions = u32::try_from(self.machine.session_count()).unwrap_or(u32::MAX);
                    let load = NodeLoad { sessions, ..NodeLoad::default() };
                    net.send(&End::Node(index), socket, Frame::ToFleet(Box::new(NodeToFleet::Heartbeat(load))));
                    self.heartbeat_at = net.now + HEARTBEAT_SECS * 1000;
                }
            }
            FleetLink::Waiting(_) | FleetLink::Dialing { .. } => {}
        }
    }

    fn fleet_down(&mut self, net: &mut Net) {
        if let FleetLink::Up { since, .. } = self.link
            && net.now > since + GOOD_LINK_MS
        {
            self.failures = 0;
        }
        let wait = backoff(net, self.failures);
        self.failures += 1;
        self.link = FleetLink::Waiting(net.now + wait);
    }

    fn fleet_dialed(
        &mut self,
        net: &mut Net,
        region: &RegionName,
        index: usize,
        dial: u64,
        result: Result<Socket, u16>,
    ) {
        let expected = matches!(self.link, FleetLink::Dialing { dial: known, .. } if known == dial);
        match result {
            Ok(socket) if expected => {
                let info = NodeInfo {
                    version: "0".into(),
                    control_version: CONTROL_VERSION,
                    region: region.clone(),
                    place: self.place.unwrap_or(Place { latitude: 0.0, longitude: 0.0 }),
                    max_sessions: u32::try_from(MAX_SESSIONS).unwrap_or(u32::MAX),
                    limits: NodeLimits::default(),
                    pipes: self.place.is_some(),
                };
                net.send(&End::Node(index), socket, Frame::ToFleet(Box::new(NodeToFleet::Hello(info))));
                self.link = FleetLink::Up { socket, since: net.now, told_draining: false };
                self.heartbeat_at = net.now;
            }
            Ok(socket) => net.close(&End::Node(index), socket),
            Err(_) if expected => self.fleet_down(net),
            Err(_) => {}
        }
    }

    fn fleet_frame(&mut self, net: &mut Net, index: usize, socket: Socket, frame: Frame) {
        if !matches!(self.link, FleetLink::Up { socket: known, .. } if known == socket) {
            return;
        }
        match frame {
            Frame::FromFleet(message) => match *message {
                FleetToNode::Welcome { draining, .. } | FleetToNode::Drain { draining } => self.drained = draining,
                // No node is busy in a simulation; what a room does when it is to leave is what it does in a drain.
                FleetToNode::Shed { .. } => {}
                FleetToNode::Attach { room, ticket, first } => {
                    self.attach(net, index, &room, Attach { ticket, first });
                }
            },
            Frame::Closed => self.fleet_down(net),
            _ => {}
        }
    }

    fn attach(&mut self, net: &mut Net, index: usize, room: &RoomName, attach: Attach) {
        let task = self.rooms.entry(room.clone()).or_insert_with(|| RoomTask::new(index, room.clone(), self.place));
        task.attaches.push_back(attach);
        net.note(|| format!("node {index}: attach to {room}"));
    }
}
