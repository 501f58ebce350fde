//! Workers and rooms around one registry.

use std::collections::{BTreeMap, BTreeSet};

use edge_signal::agents::Registry;
use edge_signal::agents::event::{Effect, Event, TABLES};
use edge_signal::agents::link::{Granted, News, Standing, Wishes};
use edge_signal::agents::worker::Worker;
use edge_signal::room::event::{Context, UnixMs};
use livekit_protocol as proto;
use livekit_protocol::server_message::Message as Told;
use livekit_protocol::worker_message::Message as Said;
use shared::claims::AccessClaims;
use shared::ids::{JobId, RoomName, RoomSid, WorkerId};

pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) now: UnixMs,
    /// Open sockets, and what is kept with them.
    pub(crate) sockets: BTreeMap<WorkerId, Worker>,
    /// What workers were sent since the last look.
    pub(crate) sent: BTreeMap<WorkerId, Vec<Told>>,
    pub(crate) assigned: Vec<(WorkerId, proto::Job, AccessClaims)>,
    pub(crate) closed: Vec<(WorkerId, &'static str)>,
    /// How each job stands, as its room was told.
    pub(crate) told: BTreeMap<JobId, Standing>,
    rows: BTreeMap<(&'static str, String), String>,
    answer: Option<Granted>,
    events: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            registry: Registry::default(),
            now: UnixMs(1_795_219_620_000),
            sockets: BTreeMap::new(),
            sent: BTreeMap::new(),
            assigned: Vec::new(),
            closed: Vec::new(),
            told: BTreeMap::new(),
            rows: BTreeMap::new(),
            answer: None,
            events: 0,
        }
    }

    /// A worker comes and registers.
    pub(crate) fn worker(&mut self, number: u8, name: &str, kind: proto::JobType) -> WorkerId {
        let worker = self.socket(number);
        let request =
            proto::RegisterWorkerRequest { r#type: kind.into(), agent_name: name.into(), ..Default::default() };
        self.say(&worker, Said::Register(request));
        worker
    }

    pub(crate) fn socket(&mut self, number: u8) -> WorkerId {
        let worker = WorkerId::from_random([number; 12]);
        self.sockets.insert(worker.clone(), Worker::new(self.now));
        self.step(Event::WorkerCame { worker: worker.clone() });
        worker
    }

    pub(crate) fn say(&mut self, worker: &WorkerId, said: Said) {
        let message = Box::new(proto::WorkerMessage { message: Some(said) });
        self.step(Event::WorkerSaid { worker: worker.clone(), message });
    }

    pub(crate) fn report(&mut self, worker: &WorkerId, available: bool, load: f32) {
        let status = if available { proto::WorkerStatus::WsAvailable } else { proto::WorkerStatus::WsFull };
        self.say(
            worker,
            Said::UpdateWorker(proto::UpdateWorkerStatus { status: Some(status.into()), load, ..Default::default() }),
        );
    }

    pub(crate) fn answer_offer(&mut self, worker: &WorkerId, job: &str, available: bool) {
        let answer = proto::AvailabilityResponse {
            job_id: job.into(),
            available,
            participant_identity: if available { format!("agent of {job}") } else { String::new() },
            participant_attributes: [("q".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        self.say(worker, Said::Availability(answer));
    }

    pub(crate) fn update_job(&mut self, worker: &WorkerId, job: &str, status: proto::JobStatus) {
        let update = proto::UpdateJobStatus { job_id: job.into(), status: status.into(), ..Default::default() };
        self.say(worker, Said::UpdateJob(update));
    }

    /// Its socket breaks.
    pub(crate) fn cut(&mut self, worker: &WorkerId) {
        self.sockets.remove(worker);
        self.step(Event::WorkerGone { worker: worker.clone() });
    }

    pub(crate) fn wish(&mut self, wishes: Wishes) -> Granted {
        self.step(Event::RoomWishes(Box::new(wishes)));
        self.answer.take().expect("no answer")
    }

    /// A room wants one job; its id.
    pub(crate) fn launch(&mut self, number: u8, name: &str, kind: proto::JobType) -> String {
        let job = job(number, name, kind);
        let id = job.id.clone();
        self.wish(Wishes { launch: vec![job], ..wishes() });
        id
    }

    /// The jobs a worker was offered since the last look.
    pub(crate) fn offers(&mut self, worker: &WorkerId) -> Vec<String> {
        let sent = self.sent.remove(worker).unwrap_or_default();
        let offered = sent.into_iter().filter_map(|told| match told {
            Told::Availability(request) => Some(request.job.unwrap().id),
            _ => None,
        });
        offered.collect()
    }

    /// Rooms hear their news.
    pub(crate) fn tell(&mut self) -> Vec<News> {
        let all = self.registry.news(self.now);
        for news in &all {
            self.told.extend(news.jobs.clone());
            self.step(Event::RoomTold { news: Box::new(news.clone()), known: true });
        }
        all
    }

    pub(crate) fn standing(&mut self, job: &str) -> Option<Standing> {
        self.tell();
        self.told.get(&JobId::try_from(job).unwrap()).cloned()
    }

    /// Lets time pass, with an alarm at each deadline.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while let Some(at) = self.registry.deadline(self.now).filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Event::Alarm);
            self.tell();
            assert!(self.registry.deadline(self.now).is_none_or(|next| next > self.now), "it would wake forever");
        }
        self.now = end;
    }

    /// The object and all its sockets die; rows stay.
    pub(crate) fn restart(&mut self) {
        self.sockets.clear();
        self.registry = self.restored();
        for change in self.registry.changes() {
            self.write(change.table, change.key, change.value);
        }
    }

    fn restored(&self) -> Registry {
        let rows = self.rows.iter().map(|((table, key), value)| ((*table).to_owned(), key.clone(), value.clone()));
        Registry::restore(self.context(), rows, self.sockets.clone()).unwrap()
    }

    pub(crate) fn step(&mut self, event: Event) {
        self.events += 1;
        let context = self.context();
        // What the registry counts in memory alone, a hibernation forgets: it only weighs who is offered what.
        let gone = matches!(event, Event::WorkerGone { .. } | Event::WorkerCame { .. });
        let mut twin = (!gone).then(|| self.restored());
        if let Some(twin) = &mut twin {
            twin.changes();
        }
        let effects = self.registry.handle(context, event.clone());
        let changes = self.registry.changes();
        if let Some(twin) = &mut twin {
            let others: Vec<_> = twin.handle(context, event);
            assert_eq!(kinds(&others), kinds(&effects), "a restored registry acts otherwise");
            assert_eq!(twin.changes().len(), changes.len(), "a restored registry writes otherwise");
        }
        for change in changes {
            self.write(change.table, change.key, change.value);
        }
        for effect in effects {
            self.carry_out(effect);
        }
        self.check();
    }

    fn write(&mut self, table: &'static str, key: String, value: Option<String>) {
        assert!(TABLES.contains(&table));
        match value {
            Some(value) => self.rows.insert((table, key), value),
            None => self.rows.remove(&(table, key)),
        };
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::ToWorker { worker, message } => {
                if self.sockets.contains_key(&worker) {
                    self.sent.entry(worker).or_default().push(message.message.unwrap());
                }
            }
            Effect::Assign { worker, job, claims } => self.assigned.push((worker, *job, *claims)),
            Effect::Keep { worker, known } => drop(self.sockets.insert(worker, *known)),
            Effect::Close { worker, reason } => {
                self.sockets.remove(&worker);
                self.closed.push((worker, reason));
            }
            Effect::Answer(granted) => assert!(self.answer.replace(*granted).is_none(), "answered twice"),
            Effect::Counted { .. } => {}
        }
    }

    /// What holds after every event.
    fn check(&self) {
        let mut offers: BTreeMap<String, usize> = BTreeMap::new();
        for ((_, key), row) in self.rows.iter().filter(|((table, _), _)| *table == "job") {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            assert_eq!(row["id"], key.as_str());
            if let Some(offered) = row["stage"].get("offered") {
                let worker = offered["worker"].as_str().unwrap();
                assert!(self.sockets.contains_key(&WorkerId::try_from(worker).unwrap()), "offered to nobody");
                *offers.entry(worker.to_owned()).or_default() += 1;
            }
        }
        assert!(offers.values().all(|offers| *offers <= 8), "too many offers at a time: {offers:?}");
    }

    fn context(&self) -> Context {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.events.to_be_bytes());
        Context { now: self.now, seed }
    }
}

/// What effects are, less which worker was chosen by chance.
fn kinds(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::ToWorker { message, .. } => match message.message.as_ref().unwrap() {
                Told::Availability(request) => format!("offer {}", request.job.as_ref().unwrap().id),
                other => format!("{other:?}"),
            },
            other => format!("{other:?}").split_whitespace().next().unwrap().to_owned(),
        })
        .collect()
}

pub(crate) fn sid() -> RoomSid {
    RoomSid::from_random([1; 12])
}

/// A room that wants nothing.
pub(crate) fn wishes() -> Wishes {
    let room = RoomName::try_from("r").unwrap();
    Wishes { room, sid: sid(), watch: None, automatic: false, launch: Vec::new(), end: Vec::new() }
}

pub(crate) fn watching(names: &[&str]) -> Wishes {
    let names: BTreeSet<_> = names.iter().map(|name| (*name).try_into().unwrap()).collect();
    Wishes { watch: Some(names), ..wishes() }
}

pub(crate) fn job(number: u8, name: &str, kind: proto::JobType) -> proto::Job {
    let id = JobId::from_random([number; 12]).to_string();
    let room = Some(proto::Room { name: "r".into(), sid: sid().to_string(), ..Default::default() });
    proto::Job { id, agent_name: name.into(), r#type: kind.into(), room, ..Default::default() }
}
