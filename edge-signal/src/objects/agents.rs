//! The agents' object: workers' sockets, SQL and alarm around the registry of workers.
//!
//! **An event's rows are written before its effects are carried out, with no await between.** Sockets hibernate: a worker
//! that only pings costs nothing but its messages.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::panic::RefUnwindSafe;
use std::rc::Rc;

use livekit_protocol::server_message::Message as ToWorker;
use livekit_protocol::{JobAssignment, ServerMessage, WorkerMessage};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use shared::claims::AccessClaims;
use shared::ids::{RANDOM_LEN, RoomName, RoomSid, WorkerId};
use worker::{
    DurableObject, Env, Request, Response, Result, SqlStorageValue, State, WebSocket, WebSocketIncomingMessage,
    WebSocketPair, console_error, console_log, durable_object, wasm_bindgen,
};

use crate::agents::Registry;
use crate::agents::event::{Effect, Event, RowChange};
use crate::agents::link::{Granted, News, Wishes};
use crate::agents::worker::Worker;
use crate::flood::Allowance;
use crate::objects::layout;
use crate::objects::room::AGENTS_PATH;
use crate::refusal::{Reason, Refusal};
use crate::report::Report;
use crate::room::event::UnixMs;
use crate::runtime::{self, ROOM};

/// Where a worker's upgrade goes, its token checked.
pub(crate) const WORKER_PATH: &str = "/worker";
/// Where a room posts its [`Wishes`].
pub(crate) const WISHES_PATH: &str = "/wishes";
/// Where a room that ended posts an [`Over`].
pub(crate) const OVER_PATH: &str = "/over";

/// Longest message of a worker, bytes: metadata is most of it.
const MAX_MESSAGE: usize = 1024 * 1024;
/// RFC 6455 section 7.4.1.
const CLOSE_POLICY: u16 = 1008;
const CLOSE_TOO_BIG: u16 = 1009;
/// Rooms told at a time.
const TOLD_AT_A_TIME: usize = 16;
/// How the tables came to be what they are.
const STEPS: [&[&str]; 1] = [&[
    "CREATE TABLE IF NOT EXISTS job (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS watch (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pool (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
]];

/// A room that ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Over {
    pub(crate) room: RoomName,
    /// Which life of it.
    pub(crate) sid: RoomSid,
}

/// What a worker's socket keeps through an eviction of this object. `None`: it is being closed by us.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Attachment(Option<(WorkerId, Worker)>);

#[durable_object]
struct AgentsObject {
    shell: Rc<Shell>,
}

impl RefUnwindSafe for AgentsObject {}

impl DurableObject for AgentsObject {
    fn new(state: State, env: Env) -> Self {
        Self { shell: Rc::new(Shell::wake(state, env)) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let response = match request.path().as_str() {
            WORKER_PATH => self.shell.open(),
            WISHES_PATH => {
                let wishes: Wishes = serde_json::from_str(&request.text().await?)?;
                let granted = self.shell.handle(Event::RoomWishes(Box::new(wishes)))?.unwrap_or_default();
                runtime::text(200, &serde_json::to_string(&granted)?)
            }
            OVER_PATH => {
                let Over { room, sid } = serde_json::from_str(&request.text().await?)?;
                self.shell.handle(Event::RoomOver { room, sid })?;
                runtime::text(200, "null")
            }
            _ => runtime::text(404, "not found"),
        };
        self.shell.settle().await?;
        response
    }

    async fn websocket_message(&self, socket: WebSocket, message: WebSocketIncomingMessage) -> Result<()> {
        if let Attachment(Some((worker, _))) = attachment(&socket) {
            self.shell.frame(&worker, message)?;
        }
        self.shell.settle().await
    }

    async fn websocket_close(&self, socket: WebSocket, _code: usize, _reason: String, _clean: bool) -> Result<()> {
        self.shell.gone(&socket)?;
        // Completes the closing handshake; fails when there is nobody left to tell.
        let _ = socket.close(Some(1000), Some(""));
        self.shell.settle().await
    }

    async fn websocket_error(&self, socket: WebSocket, _error: worker::Error) -> Result<()> {
        self.shell.gone(&socket)?;
        self.shell.settle().await
    }

    async fn alarm(&self) -> Result<Response> {
        self.shell.alarm.set(None);
        self.shell.handle(Event::Alarm)?;
        self.shell.settle().await?;
        Response::empty()
    }
}

/// All that the object has; shared with what it waits for in the background.
struct Shell {
    state: State,
    env: Env,
    /// Empty while an event is handled: what panics there is read from the rows again.
    registry: Cell<Option<Registry>>,
    sockets: RefCell<HashMap<WorkerId, (WebSocket, Allowance)>>,
    /// Rooms being told.
    telling: RefCell<BTreeSet<RoomName>>,
    /// The alarm as last set: milliseconds, or `None` when not known.
    alarm: Cell<Option<u64>>,
}

/// One room is being told; **over when dropped, also by a panic**.
struct Telling {
    shell: Rc<Shell>,
    room: RoomName,
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.shell.telling.borrow_mut().remove(&self.room);
    }
}

impl Shell {
    fn wake(state: State, env: Env) -> Self {
        let mut sockets = HashMap::new();
        for socket in state.get_websockets() {
            if let Attachment(Some((worker, _))) = attachment(&socket) {
                sockets.insert(worker, (socket, Allowance::new(runtime::now())));
            }
        }
        Self {
            state,
            env,
            registry: Cell::new(None),
            sockets: RefCell::new(sockets),
            telling: RefCell::default(),
            alarm: Cell::new(None),
        }
    }

    /// The registry in memory, else from its rows and sockets.
    fn take(&self) -> Result<Registry> {
        if let Some(registry) = self.registry.take() {
            return Ok(registry);
        }
        let sql = self.state.storage().sql();
        layout::open(&sql, &STEPS)?;
        let mut rows = Vec::new();
        for table in crate::agents::event::TABLES {
            #[derive(Deserialize)]
            struct Row {
                key: String,
                value: String,
            }
            let found: Vec<Row> = sql.exec(&format!("SELECT key, value FROM {table}"), None)?.to_array()?;
            rows.extend(found.into_iter().map(|row| (table.to_owned(), row.key, row.value)));
        }
        let sockets = self.sockets.borrow();
        let workers = sockets.values().filter_map(|(socket, _)| attachment(socket).0);
        let registry = Registry::restore(runtime::context()?, rows, workers);
        registry.map_err(|error| worker::Error::RustError(error.to_string()))
    }

    /// Handles an event; what a room is answered, if it asks something.
    fn handle(self: &Rc<Self>, event: Event) -> Result<Option<Granted>> {
        let mut registry = self.take()?;
        let effects = registry.handle(runtime::context()?, event);
        self.write(&registry.changes())?;
        self.registry.set(Some(registry));
        self.carry_out(effects)
    }

    fn write(&self, changes: &[RowChange]) -> Result<()> {
        let sql = self.state.storage().sql();
        for change in changes {
            let (table, key) = (change.table, SqlStorageValue::from(change.key.clone()));
            match &change.value {
                Some(value) => {
                    let values = vec![key, SqlStorageValue::from(value.clone())];
                    sql.exec(&format!("INSERT OR REPLACE INTO {table} (key, value) VALUES (?, ?)"), values)?
                }
                None => sql.exec(&format!("DELETE FROM {table} WHERE key = ?"), vec![key])?,
            };
        }
        Ok(())
    }

    fn carry_out(&self, effects: Vec<Effect>) -> Result<Option<Granted>> {
        let mut answer = None;
        let mut reports = Vec::new();
        for effect in effects {
            match effect {
                Effect::ToWorker { worker, message } => self.send(&worker, &message),
                Effect::Assign { worker, job, claims } => {
                    let Some(token) = self.mint(*claims)? else { continue };
                    let assignment = JobAssignment { job: Some(*job), url: None, token };
                    self.send(&worker, &ServerMessage { message: Some(ToWorker::Assignment(assignment)) });
                }
                Effect::Keep { worker, known } => {
                    if let Some((socket, _)) = self.sockets.borrow().get(&worker) {
                        attach(socket, &Attachment(Some((worker.clone(), *known))))?;
                    }
                }
                Effect::Close { worker, reason } => self.close(&worker, CLOSE_POLICY, reason),
                Effect::Answer(granted) => answer = Some(*granted),
                Effect::Counted { reason } => reports.push(Report::Agents { reason }),
            }
        }
        runtime::report(&self.env, &reports);
        Ok(answer)
    }

    fn mint(&self, mut claims: AccessClaims) -> Result<Option<String>> {
        let deployment = runtime::deployment(&self.env);
        let deployment = deployment.map_err(|refusal| worker::Error::RustError(refusal.text))?;
        let Some((key, _)) = deployment.keys.first() else { return Ok(None) };
        key.clone_into(&mut claims.iss);
        let minted = deployment.keys.mint(&claims);
        Ok(minted.map_err(|error| console_error!("cannot mint an agent's token: {error}")).ok())
    }

    fn open(self: &Rc<Self>) -> Result<Response> {
        let registry = self.take()?;
        let has_place = registry.has_place();
        self.registry.set(Some(registry));
        if !has_place {
            return runtime::refuse_worker(&Refusal::new(Reason::TooManyWorkers, "too many agent workers"));
        }
        let pair = WebSocketPair::new()?;
        let id = WorkerId::from_random(runtime::random::<RANDOM_LEN>()?);
        self.state.accept_web_socket(&pair.server);
        let now = runtime::now();
        attach(&pair.server, &Attachment(Some((id.clone(), Worker::new(now)))))?;
        self.sockets.borrow_mut().insert(id.clone(), (pair.server, Allowance::new(now)));
        self.handle(Event::WorkerCame { worker: id })?;
        Response::from_websocket(pair.client)
    }

    fn frame(self: &Rc<Self>, worker: &WorkerId, frame: WebSocketIncomingMessage) -> Result<()> {
        let WebSocketIncomingMessage::Binary(bytes) = frame else {
            return self.turn_away(worker, CLOSE_POLICY, "message_malformed");
        };
        if bytes.len() > MAX_MESSAGE {
            return self.turn_away(worker, CLOSE_TOO_BIG, "message_too_large");
        }
        let allowed = self.sockets.borrow_mut().get_mut(worker).map(|(_, a)| a.take(runtime::now(), bytes.len()));
        if allowed == Some(false) {
            return self.turn_away(worker, CLOSE_POLICY, "too_many_messages");
        }
        match WorkerMessage::decode(bytes.as_slice()) {
            Ok(message) => {
                let message = Box::new(message);
                self.handle(Event::WorkerSaid { worker: worker.clone(), message }).map(drop)
            }
            Err(_) => self.turn_away(worker, CLOSE_POLICY, "message_malformed"),
        }
    }

    fn turn_away(self: &Rc<Self>, worker: &WorkerId, code: u16, reason: &'static str) -> Result<()> {
        runtime::report(&self.env, &[Report::Closed { socket: "agent", code, reason }]);
        self.close(worker, code, reason);
        self.handle(Event::WorkerGone { worker: worker.clone() }).map(drop)
    }

    fn gone(self: &Rc<Self>, socket: &WebSocket) -> Result<()> {
        let Attachment(Some((worker, _))) = attachment(socket) else { return Ok(()) };
        self.sockets.borrow_mut().remove(&worker);
        self.handle(Event::WorkerGone { worker }).map(drop)
    }

    fn send(&self, worker: &WorkerId, message: &ServerMessage) {
        if let Some((socket, _)) = self.sockets.borrow().get(worker) {
            // A socket that cannot be written to is about to be reported closed.
            let sent = socket.send_with_bytes(message.encode_to_vec());
            sent.unwrap_or_else(|error| console_log!("cannot send to worker {worker}: {error}"));
        }
    }

    fn close(&self, worker: &WorkerId, code: u16, reason: &str) {
        if let Some((socket, _)) = self.sockets.borrow_mut().remove(worker) {
            // Both fail on a socket that is closed already.
            let _ = attach(&socket, &Attachment(None));
            let _ = socket.close(Some(code), Some(reason));
        }
    }

    /// Tells rooms what they do not know, and sets the alarm to what is due next; last thing of every handler.
    async fn settle(self: &Rc<Self>) -> Result<()> {
        let now = runtime::now();
        let registry = self.take()?;
        let (news, deadline) = (registry.news(now), registry.deadline(now));
        self.registry.set(Some(registry));
        for news in news {
            if self.telling.borrow().len() >= TOLD_AT_A_TIME {
                break;
            }
            self.tell(news);
        }
        let Some(UnixMs(due)) = deadline else { return Ok(()) };
        if self.alarm.replace(Some(due)) != Some(due) {
            runtime::set_alarm(&self.state, UnixMs(due)).await?;
        }
        Ok(())
    }

    /// Tells a room in the background, unless somebody does.
    fn tell(self: &Rc<Self>, news: News) {
        if !self.telling.borrow_mut().insert(news.room.clone()) {
            return;
        }
        let telling = Telling { shell: Rc::clone(self), room: news.room.clone() };
        self.state.wait_until(async move {
            let shell = Rc::clone(&telling.shell);
            let told = async {
                let room = runtime::object(&shell.env, ROOM, news.room.as_str())?;
                runtime::call::<bool>(&room, AGENTS_PATH, &news).await
            };
            let event = match told.await {
                Ok(known) => Event::RoomTold { news: Box::new(news), known },
                Err(error) => {
                    console_log!("a room is not told of its agents yet: {error}");
                    Event::RoomDeaf { room: news.room }
                }
            };
            let handled = shell.handle(event);
            drop(telling);
            // What came meanwhile.
            if let Err(error) = handled.map(drop).and(shell.settle().await) {
                console_error!("agents: {error}");
            }
        });
    }
}

fn attachment(socket: &WebSocket) -> Attachment {
    let text = socket.deserialize_attachment::<String>().ok().flatten();
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Attachment(None))
}

fn attach(socket: &WebSocket, attachment: &Attachment) -> Result<()> {
    socket.serialize_attachment(serde_json::to_string(attachment)?)
}
