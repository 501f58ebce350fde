//! What holds at the end of every run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared::geo::Place;

use crate::client::Client;
use crate::room_object::RoomObject;
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
        let guests = guests(world, room, &mut faults);
        for client in &present {
            knows_everyone(client, &present, &guests, &mut faults);
            gets_everything(world, client, &present, &mut faults);
            let forwarded: Vec<&Client> =
                guests.iter().filter(|guest| guest.is_piped).map(|guest| guest.client).collect();
            if world.takes_pipes(room, client) {
                gets_everything(world, client, &forwarded, &mut faults);
            }
        }
        let own: BTreeSet<&str> = present.iter().map(|client| client.sid.as_str()).collect();
        let expected: BTreeSet<&str> = own.iter().copied().chain(guests.iter().map(|guest| guest.sid)).collect();
        let in_rows: BTreeSet<&str> =
            room.rows.keys().filter(|(table, _)| table == "participant").map(|(_, key)| key.as_str()).collect();
        if in_rows != expected {
            faults.push(format!("{}: participants {in_rows:?}, clients {expected:?}", room.name));
        }
        let told = world.directory.rooms.get(&room.name).map(|entry| entry.participants as usize);
        // Without anybody it may be on its way out.
        if !expected.is_empty() && told != Some(expected.len()) {
            faults.push(format!("{}: the directory says {told:?}, there are {}", room.name, expected.len()));
        }
        sessions_are(world, room, &own, &mut faults);
        pipes_are(world, room, &mut faults);
        all_are_near(world, room, &present, &mut faults);
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
    for (room, _) in world.fleet.afar.keys() {
        faults.push(format!("the fleet still has somebody of {room} served from afar"));
    }
    for room in &world.rooms {
        if !room.rows.is_empty() || room.line.is_some() || !room.has_told_all() {
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

fn knows_everyone(client: &Client, present: &[&Client], guests: &[Guest<'_>], faults: &mut Vec<String>) {
    if !client.is_in() {
        return faults.push(format!("{} is not in", client.state()));
    }
    let expected: BTreeSet<&str> =
        present.iter().filter(|other| other.index != client.index).map(|other| other.sid.as_str()).collect();
    let expected: BTreeSet<&str> = expected.into_iter().chain(guests.iter().map(|guest| guest.sid)).collect();
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

/// A participant of another room.
struct Guest<'a> {
    /// Who it is here.
    sid: &'a str,
    client: &'a Client,
    /// Its node takes pipes.
    is_piped: bool,
}

/// Who is forwarded here: both rooms say so.
fn guests<'a>(world: &'a World, room: &'a RoomObject, faults: &mut Vec<String>) -> Vec<Guest<'a>> {
    let mut guests = Vec::new();
    for ((_, sid), row) in room.rows.iter().filter(|((table, _), _)| table == "forwarded") {
        let row: Value = serde_json::from_str(row).unwrap_or_default();
        let (from, participant) = (row["from"].as_str().unwrap_or_default(), row["participant"].as_str());
        let client = world.clients.iter().find(|client| client.wanted && Some(client.sid.as_str()) == participant);
        let key = ("forward".to_owned(), format!("{}/{}", participant.unwrap_or_default(), room.name));
        let source = world.rooms.iter().find(|other| other.name.as_str() == from);
        match client.filter(|_| source.is_some_and(|source| source.rows.contains_key(&key))) {
            Some(client) => {
                let is_piped = source.is_some_and(|source| world.takes_pipes(source, client));
                guests.push(Guest { sid, client, is_piped });
            }
            None => faults.push(format!("{}: {sid} is forwarded by nobody: {row}", room.name)),
        }
    }
    guests
}

/// Ends of pipes to other rooms that a room has at a node.
fn ends_at(room: &RoomObject, node: &str) -> usize {
    let rows = |table: &'static str| {
        let rows = room.rows.iter().filter(move |((of, _), _)| of == table);
        rows.map(|(_, row)| serde_json::from_str::<Value>(row).unwrap_or_default())
    };
    let outlets = rows("forward").flat_map(|row| row["ends"].as_object().cloned().unwrap_or_default());
    let inlets =
        rows("forwarded").filter(|row| row["ends"][node]["reopen_at"].is_null() && row["ends"][node].is_object());
    outlets.filter(|(_, end)| end["node"] == node).count() + inlets.count()
}

/// Each two nodes with sessions of a room that take pipes have one, and no node has another.
fn pipes_are(world: &World, of: &RoomObject, faults: &mut Vec<String>) {
    let room = &of.name;
    let machines = || world.nodes.iter().filter_map(|node| Some((node, &node.process.as_ref()?.machine)));
    let serving: BTreeSet<usize> = machines()
        .filter(|(node, machine)| node.place.is_some() && !machine.sessions_of(room).is_empty())
        .map(|(node, _)| node.index)
        .collect();
    for (node, machine) in machines() {
        let expected =
            if serving.contains(&node.index) { serving.len() - 1 } else { 0 } + ends_at(of, node.id.as_str());
        let pipes = machine.pipes_of(room).len();
        if pipes != expected {
            faults.push(format!("{room}: {} has {pipes} pipes, sessions are on {serving:?}", node.id));
        }
    }
}

/// Nodes that reach each other do so through every pipe that they have.
pub(crate) fn pipes_are_up(world: &World) -> Vec<String> {
    let mut faults = Vec::new();
    if world.is_forwarding {
        // A room opens pipes to those who are on nodes without any, too.
        return faults;
    }
    for node in &world.nodes {
        let Some(process) = &node.process else { continue };
        for room in process.rooms.keys() {
            let up = process.machine.pipes_up(room);
            let down = process.machine.pipes_of(room).into_iter().filter(|pipe| !up.contains(pipe));
            faults.extend(down.map(|pipe| format!("{room}: {pipe:?} of {} is not up", node.id)));
        }
    }
    faults
}

/// Everybody is served from nearby, where pipes can be had. **Nodes are where clients are, or on the other side of the Earth.**
fn all_are_near(world: &World, room: &RoomObject, present: &[&Client], faults: &mut Vec<String>) {
    let record = room.rows.get(&("room".to_owned(), "room".to_owned()));
    let record: Value = record.and_then(|row| serde_json::from_str(row).ok()).unwrap_or_default();
    if record["gathered"] == true {
        return;
    }
    let is_there = |client: &Client, place: Place| client.place == Some(place);
    let places = || world.nodes.iter().filter(|node| node.process.is_some()).filter_map(|node| node.place);
    for client in present {
        let serving = world.nodes.iter().find(|node| {
            let sessions = node.process.as_ref().map(|process| process.machine.sessions_of(&room.name));
            sessions.is_some_and(|all| all.iter().any(|session| session.participant.as_str() == client.sid))
        });
        let Some((serving, there)) = serving.and_then(|node| Some((node, node.place?))) else { continue };
        if client.place.is_some() && !is_there(client, there) && places().any(|place| is_there(client, place)) {
            faults.push(format!("{} is served from afar by {}", client.state(), serving.id));
        }
    }
}

/// Each has one session, and nobody else has any.
fn sessions_are(world: &World, room: &RoomObject, expected: &BTreeSet<&str>, faults: &mut Vec<String>) {
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
