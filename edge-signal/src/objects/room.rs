//! The room object: sockets, SQL and alarm around the room machine.
//!
//! **An event's rows are written before its effects are carried out, with no await between.** Memory is a cache: a room
//! that is not in memory is read from its rows.

use std::cell::{Cell, RefCell};
use std::panic::RefUnwindSafe;
use std::rc::Rc;

use futures_util::lock::Mutex;
use shared::ids::{NodeId, RoomName};
use worker::{
    DurableObject, Env, Request, Response, Result, State, WebSocket, WebSocketIncomingMessage, console_error,
    console_log, durable_object, wasm_bindgen,
};

use crate::objects::directory::Line;
use crate::refusal::{Reason, Refusal};
use crate::report::Report;
use crate::room::effect::Effect;
use crate::room::event::{ConnectionId, Event, UnixMs};
use crate::room::migrate::migrate;
use crate::room::snapshot::{self, RestoreError, StoredRow};
use crate::room::{Counters, Room};
use crate::runtime;

mod agents;
mod calls;
mod effects;
mod frames;
mod join;
mod link;
mod outbox;
mod service;
mod sockets;
mod storage;
mod telling;
mod transfer;
mod webhooks;
mod words;

use calls::Calls;
pub(crate) use service::Asked;
use sockets::{Attachment, Sockets};
use storage::Storage;
use telling::Telling;
use transfer::Held;
use webhooks::Deliveries;

/// Where a client's upgrade goes, its query without the token.
pub(crate) const JOIN_PATH: &str = "/join";
/// Where the same question goes without joining.
pub(crate) const VALIDATE_PATH: &str = "/validate";
/// Where a node's upgrade goes.
pub(crate) const NODE_LINK_PATH: &str = "/link";
/// Where the Worker posts what an app server asks ([`Asked`]).
pub(crate) const SERVICE_PATH: &str = "/service";
/// Where the fleet posts a revoked node (a `RevokeRequest`).
pub(crate) const NODE_REVOKED_PATH: &str = "/node-revoked";
/// Where the fleet posts the id of a node that has missed its heartbeats.
pub(crate) const NODE_SILENT_PATH: &str = "/node-silent";
/// Where the fleet posts the place of a node that may serve people who are served from afar.
pub(crate) const NODE_NEAR_PATH: &str = "/node-near";
/// Where the agents' object posts its news.
pub(crate) const AGENTS_PATH: &str = "/agents";
/// The verified claims: URL-safe base64 of JSON.
pub(crate) const CLAIMS_HEADER: &str = "x-meridian-claims";
/// Where the client is: JSON of a place, or empty.
pub(crate) const PLACE_HEADER: &str = "x-meridian-place";
/// `single` or `dual`.
pub(crate) const SIGNALING_HEADER: &str = "x-meridian-signaling";
/// The client's User-Agent.
pub(crate) const USER_AGENT_HEADER: &str = "x-meridian-user-agent";
/// The ticket of a node's upgrade.
pub(crate) const TICKET_HEADER: &str = "x-meridian-ticket";

/// Longest message on a client's socket or a room link, bytes (LiveKit's).
const MAX_MESSAGE: usize = 2 * 1024 * 1024;
/// RFC 6455 section 7.4.1.
const CLOSE_TOO_BIG: u16 = 1009;
/// Of our own: a node's message cannot be read.
const CLOSE_MALFORMED: u16 = 4400;
/// Of our own: the node's key was revoked.
const CLOSE_REVOKED: u16 = 4403;
/// Of our own: the fleet has not heard of the node for too long.
const CLOSE_SILENT: u16 = 4408;
/// How long until a line the directory did not take is sent again, milliseconds.
const DIRECTORY_RETRY_MS: u64 = 5_000;

/// What an app server is answered.
type Answered = std::result::Result<crate::room::service::Answer, crate::room::service::Error>;

#[durable_object]
struct RoomObject {
    shell: Rc<Shell>,
}

impl RefUnwindSafe for RoomObject {}

impl DurableObject for RoomObject {
    fn new(state: State, env: Env) -> Self {
        Self { shell: Rc::new(Shell::wake(state, env)) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        if let Some(refusal) = self.shell.refusal() {
            return runtime::refuse_worker(&refusal);
        }
        let response = match request.path().as_str() {
            JOIN_PATH => self.shell.join(&request).await,
            VALIDATE_PATH => self.shell.validate(&request).await,
            NODE_LINK_PATH => self.shell.link(&request).await,
            SERVICE_PATH => self.shell.serve(&mut request).await,
            AGENTS_PATH => self.shell.agents_news(&mut request).await,
            NODE_REVOKED_PATH => self.shell.node_revoked(&mut request).await,
            NODE_SILENT_PATH => self.shell.node_silent(&mut request).await,
            NODE_NEAR_PATH => self.shell.node_near(&mut request).await,
            _ => runtime::text(404, "not found"),
        };
        self.shell.settle().await?;
        response
    }

    async fn websocket_message(&self, socket: WebSocket, message: WebSocketIncomingMessage) -> Result<()> {
        match sockets::attachment(&socket) {
            Attachment::Client { connection, .. } => match self.shell.hold(&connection, message) {
                Some(message) => self.shell.client_frame(&connection, message)?,
                None => return Ok(()),
            },
            Attachment::Node { node, link } => self.shell.node_frame(&node, &link, message)?,
            Attachment::Closed => {}
        }
        self.shell.settle().await
    }

    async fn websocket_close(&self, socket: WebSocket, _code: usize, _reason: String, _clean: bool) -> Result<()> {
        self.shell.socket_gone(&socket)?;
        // Completes the closing handshake; fails when there is nobody left to tell.
        let _ = socket.close(Some(1000), Some(""));
        self.shell.settle().await
    }

    async fn websocket_error(&self, socket: WebSocket, _error: worker::Error) -> Result<()> {
        self.shell.socket_gone(&socket)?;
        self.shell.settle().await
    }

    async fn alarm(&self) -> Result<Response> {
        self.shell.alarm.set(None);
        self.shell.handle(Event::Alarm)?;
        self.shell.settle().await?;
        Response::empty()
    }
}

/// All that a room object has; shared with what it waits for in the background.
struct Shell {
    state: State,
    env: Env,
    /// Empty while an event is handled: what panics there is read from the rows again.
    room: Cell<Option<Room>>,
    sockets: Sockets,
    /// One placement at a time; a node that dials in meanwhile waits for the join that asked for it.
    placing: Mutex<()>,
    /// The alarm as last set: milliseconds, or `None` when not known.
    alarm: Cell<Option<u64>>,
    /// The rooms that there are.
    telling_directory: Telling,
    /// Wishes; what is kept is that it is to forget a room.
    telling_agents: Telling,
    /// Letters.
    telling_rooms: Telling,
    calls: Calls,
    /// One request of an app server at a time, and a transfer to its end.
    serving: Mutex<()>,
    /// Who is being transferred.
    held: RefCell<Option<Held>>,
    deliveries: Deliveries,
    /// Whether webhooks wait; `None`: not looked yet.
    outbox_used: Cell<Option<bool>>,
    /// Its rows are of a newer version: nothing is done with them but to say so.
    refused: Cell<bool>,
}

impl Shell {
    fn wake(state: State, env: Env) -> Self {
        let sockets = Sockets::restore(&state);
        let shell = Self {
            state,
            env,
            room: Cell::new(None),
            sockets,
            placing: Mutex::new(()),
            alarm: Cell::new(None),
            telling_directory: Telling::of("the directory", DIRECTORY_RETRY_MS),
            telling_agents: Telling::of("the agents' object", agents::RETRY_MS),
            telling_rooms: Telling::of("another room", words::RETRY_MS),
            calls: Calls::default(),
            serving: Mutex::new(()),
            held: RefCell::new(None),
            deliveries: Deliveries::default(),
            outbox_used: Cell::new(None),
            refused: Cell::new(false),
        };
        let room = shell.load();
        if let Some(room) = &room {
            let (clients, nodes) = shell.sockets.counts();
            console_log!("room restored: {} ({clients} clients, {nodes} nodes)", room.name());
        }
        shell.room.set(room);
        shell
    }

    fn storage(&self) -> Storage {
        Storage::new(&self.state)
    }

    /// The room in memory, else from its rows; `None`: there is no room.
    fn take_room(&self) -> Option<Room> {
        self.room.take().or_else(|| self.load())
    }

    fn load(&self) -> Option<Room> {
        if self.refused.get() {
            return None;
        }
        let rows = match self.storage().rows() {
            Ok(rows) => rows,
            Err(error) => {
                console_error!("cannot read the room's rows: {error}");
                return None;
            }
        };
        let name = snapshot::written_name(&rows);
        let (connections, nodes) = self.sockets.open();
        match self.restore(rows, &connections, &nodes) {
            Ok(room) => Some(room),
            Err(RestoreError::NoRoom) => None,
            Err(error @ RestoreError::Newer(_)) => {
                console_error!("{error}: it is left as it is");
                self.refused.set(true);
                self.sockets.close_all();
                None
            }
            Err(error) => {
                // Rows of a version that this one cannot read: the clients come again and find a new room.
                console_error!("the room cannot be restored and is given up: {error}");
                self.sockets.close_all();
                if let Err(error) = self.give_up(name) {
                    console_error!("cannot delete the room's rows: {error}");
                }
                None
            }
        }
    }

    /// The room of these rows, which an older version may have written: they are written anew then, with no await between.
    fn restore(
        &self,
        mut rows: Vec<StoredRow>,
        connections: &[ConnectionId],
        nodes: &[NodeId],
    ) -> std::result::Result<Room, RestoreError> {
        let changes = migrate(&rows)?;
        if !changes.is_empty() {
            // What cannot be written now is migrated again by the next one to wake.
            match self.storage().write(&changes).and_then(|()| self.storage().rows()) {
                Ok(migrated) => rows = migrated,
                Err(error) => console_error!("cannot write migrated rows: {error}"),
            }
            runtime::report(&self.env, &[Report::Migrated { rows: changes.len() }]);
        }
        Room::restore(runtime::now(), rows, connections, nodes)
    }

    /// The answer to everybody while the rows are of a newer version.
    fn refusal(&self) -> Option<Refusal> {
        let text = "the room was written by a newer version of the edge than this one: deploy that again";
        self.refused.get().then(|| Refusal::new(Reason::RowsNewer, text))
    }

    /// Deletes a room that cannot be restored. Directory and fleet are told by the next [`Shell::settle`].
    fn give_up(&self, name: Option<RoomName>) -> Result<()> {
        self.storage().wipe_room()?;
        match name {
            Some(room) => self.storage().keep_line(&Line { room, entry: None }),
            None => Ok(()),
        }
    }

    /// Handles an event of a room that exists.
    fn handle(self: &Rc<Self>, event: Event) -> Result<()> {
        match self.take_room() {
            Some(room) => self.handle_in(room, event).map(drop),
            None => Ok(()),
        }
    }

    /// Handles an event; what it is answered with, if it asks something.
    fn handle_in(self: &Rc<Self>, mut room: Room, event: Event) -> Result<Option<Answered>> {
        let before = room.counters();
        let context = runtime::context()?;
        let effects = room.handle(context, event);
        self.report(&room, context.now, before, &effects);
        self.storage().write(&room.changes())?;
        let over = room.is_over();
        let answer = self.carry_out(room.name(), effects)?;
        if over {
            self.storage().wipe_room()?;
            self.sockets.close_all();
        } else {
            self.room.set(Some(room));
        }
        Ok(answer)
    }

    /// Tells the operator what an event brought.
    fn report(&self, room: &Room, now: UnixMs, before: Counters, effects: &[Effect]) {
        let sid = room.sid();
        let counted = room.counters().since(before).map(|(reason, count)| Report::Counted { room: sid, reason, count });
        let mut reports: Vec<Report<'_>> = counted.collect();
        reports.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Left { participant, reason, seconds } => {
                let (participant, reason, seconds) = (participant.clone(), *reason, *seconds);
                Some(Report::Left { room: sid, participant, reason, seconds })
            }
            _ => None,
        }));
        if room.is_over() {
            reports.push(Report::RoomOver { room: sid, seconds: room.age_secs(now) });
        }
        runtime::report(&self.env, &reports);
    }

    fn socket_gone(self: &Rc<Self>, socket: &WebSocket) -> Result<()> {
        match sockets::attachment(socket) {
            Attachment::Client { connection, .. } => {
                self.sockets.forget_client(&connection);
                self.handle(Event::ClientGone { connection })
            }
            Attachment::Node { node, link } if self.sockets.forget_node(&node, &link) => {
                self.handle(Event::NodeGone { node })
            }
            Attachment::Node { .. } | Attachment::Closed => Ok(()),
        }
    }

    /// Sets the alarm to what is due next; last thing of every handler.
    async fn settle(self: &Rc<Self>) -> Result<()> {
        if self.refused.get() {
            // The alarm is the newer version's.
            return Ok(());
        }
        let room = self.take_room();
        let deadline = room.as_ref().and_then(Room::deadline);
        let exists = room.is_some();
        self.room.set(room);
        let directory = self.tell_directory()?;
        let webhooks = self.deliver_webhooks()?;
        let agents = self.tell_agents()?;
        let rooms = self.tell_rooms()?;
        let Some(UnixMs(due)) = [deadline, directory, webhooks, agents, rooms].into_iter().flatten().min() else {
            if !exists && self.alarm.replace(None).is_some() {
                self.state.storage().delete_alarm().await?;
            }
            return Ok(());
        };
        if self.alarm.replace(Some(due)) != Some(due) {
            runtime::set_alarm(&self.state, UnixMs(due)).await?;
        }
        Ok(())
    }

    fn new_connection() -> Result<ConnectionId> {
        Ok(ConnectionId(runtime::random_name()?))
    }
}
