//! What holds at the end of every run.

use std::collections::{BTreeMap, BTreeSet};

use shared::ids::RoomName;

use crate::client::Client;
use crate::world::World;

/// Packets of a track come far more often, milliseconds.
const FRESH_MS: u64 = 3_000;

/// All is well with those who are in: everyone is known to everyone, sees and hears everyone, and has one session.
pub(crate) fn settled(world: &World) -> Vec<String> {
    let mut faults: Vec<String> = world.clients.iter().flat_map(|client| client.faults.clone()).collect();
    faults.extend(world.rooms.iter().flat_map(|room| room.faults.clone()));
    for room in &world.rooms {
        let present: Vec<&Client> =
            world.clients.iter().filter(|client| client.wanted && client.room == room.name).collect();
        for client in &present {
            knows_everyone(client, &present, &mut faults);
            gets_everything(world, client, &present, &mut faults);
        }
        let expected: BTreeSet<&str> = present.iter().map(|client| client.sid.as_str()).collect();
        let in_rows: BTreeSet<&str> =
            room.rows.keys().filter(|(table, _)| table == "participant").map(|(_, key)| key.as_str()).collect();
        if in_rows != expected {
            faults.push(format!("{}: participants {in_rows:?}, clients {expected:?}", room.name));
        }
        let told = world.directory.rooms.get(&room.name).map(|entry| entry.participants as usize);
        // Without anybody it may be on its way out.
        if !present.is_empty() && told != Some(present.len()) {
            faults.push(format!("{}: the directory says {told:?}, there are {}", room.name, present.len()));
        }
        sessions_are(world, room, &expected, &mut faults);
        pipes_are(world, &room.name, &mut faults);
    }
    for node in &world.nodes {
        let Some(process) = &node.process else { continue };
        let machine = &process.machine;
        let pipes: usize = process.rooms.keys().map(|room| machine.pipes_of(room).len()).sum();
        let (transports, sessions) = (machine.transport_count() - pipes, machine.session_count());
        if !(sessions..=2 * sessions).contains(&transports) {
            faults.push(format!("{}: {transports} transports of {sessions} sessions", node.id));
        }
    }
    faults
}

/// Nobody is in, and nothing is left of anybody.
pub(crate) fn empty(world: &World) -> Vec<String> {
    let mut faults = Vec::new();
    for room in world.directory.rooms.keys() {
        faults.push(format!("the directory still has {room}"));
    }
    for (room, node) in &world.fleet.room_links {
        faults.push(format!("the fleet still has {node} in {room}"));
    }
    for room in &world.rooms {
        if !room.rows.is_empty() || room.line.is_some() {
            faults.push(format!("{} is not over: {} rows, line {:?}", room.name, room.rows.len(), room.line));
        }
    }
    for node in &world.nodes {
        let Some(process) = &node.process else { continue };
        let (sessions, transports) = (process.machine.session_count(), process.machine.transport_count());
        if sessions > 0 || transports > 0 || !process.rooms.is_empty() {
            let tasks = process.rooms.len();
            faults.push(format!("{} has {sessions} sessions, {transports} transports, {tasks} room tasks", node.id));
        }
    }
    faults
}

fn knows_everyone(client: &Client, present: &[&Client], faults: &mut Vec<String>) {
    if !client.is_in() {
        return faults.push(format!("{} is not in", client.state()));
    }
    let expected: BTreeSet<&str> =
        present.iter().filter(|other| other.index != client.index).map(|other| other.sid.as_str()).collect();
    let known: BTreeSet<&str> = client.roster.keys().map(String::as_str).filter(|sid| *sid != client.sid).collect();
    if known != expected {
        faults.push(format!("{} knows {known:?}, there are {expected:?}", client.state()));
    }
}

fn gets_everything(world: &World, client: &Client, present: &[&Client], faults: &mut Vec<String>) {
    let Some(receiving) = client.receiving() else { return };
    if !client.is_connected(world.net.now) {
        faults.push(format!("{}: media is not up", client.state()));
    }
    for other in present.iter().filter(|other| other.index != client.index) {
        for track in &other.tracks {
            let Some(sid) = &track.sid else {
                faults.push(format!("{}: {} is not published", other.state(), track.cid));
                continue;
            };
            let heard = receiving.heard.get(sid);
            if heard.is_none_or(|(at, _)| world.net.now > at + FRESH_MS) {
                let last = heard.map(|(at, _)| *at);
                faults.push(format!("{} does not get {} ({sid}), last at {last:?}", client.state(), track.cid));
            } else if heard.is_some_and(|(_, source)| *source != track.cid) {
                faults.push(format!("{} gets {heard:?} as {}", client.state(), track.cid));
            }
        }
    }
}

/// Each two nodes with sessions of a room that take pipes have one, and no node has another.
fn pipes_are(world: &World, room: &RoomName, faults: &mut Vec<String>) {
    let machines = || world.nodes.iter().filter_map(|node| Some((node, &node.process.as_ref()?.machine)));
    let serving: BTreeSet<usize> = machines()
        .filter(|(node, machine)| node.place.is_some() && !machine.sessions_of(room).is_empty())
        .map(|(node, _)| node.index)
        .collect();
    for (node, machine) in machines() {
        let expected = if serving.contains(&node.index) { serving.len() - 1 } else { 0 };
        let pipes = machine.pipes_of(room).len();
        if pipes != expected {
            faults.push(format!("{room}: {} has {pipes} pipes, sessions are on {serving:?}", node.id));
        }
    }
}

/// Each has one session, and nobody else has any.
fn sessions_are(
    world: &World,
    room: &crate::room_object::RoomObject,
    expected: &BTreeSet<&str>,
    faults: &mut Vec<String>,
) {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for process in world.nodes.iter().filter_map(|node| node.process.as_ref()) {
        for session in process.machine.sessions_of(&room.name) {
            *found.entry(session.participant.to_string()).or_default() += 1;
        }
    }
    let owners: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    if owners != *expected || found.values().any(|count| *count != 1) {
        faults.push(format!("{}: sessions {found:?}, participants {expected:?}", room.name));
    }
}
