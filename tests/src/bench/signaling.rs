//! What another's join, change and leave cost each participant of a room and the edge, by how many are there; and how
//! soon all of them hear of a mute.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::{LeaveRequest, UpdateParticipantMetadata};
use serde::Serialize;
use tokio::task::JoinSet;
use xtask::stack::{API_KEY, Stack, access_token};

use crate::client::{Client, ClientOptions, Publish, unix_nanos};
use crate::machine::cpu_nanos;
use crate::statistics::quantile;
use crate::token::join_claims;
use crate::watcher::{Told, Watcher};

/// How many are there, a room each.
const CROWDS: [usize; 4] = [10, 100, 300, 1000];
/// How many join at a time while the room fills.
const AT_A_TIME: usize = 20;
/// Guests who join, change their metadata and leave, one after the other.
const GUESTS: usize = 20;
/// Mutes and unmutes.
const MUTES: usize = 20;

/// A room. *messages*, *bytes*: what each one who watches receives for each guest; *cpu*: of the edge's process, for each.
#[derive(Debug, Serialize)]
pub struct Row {
    /// How many watch.
    pub step: String,
    join_messages: f64,
    join_bytes: f64,
    join_cpu_ms: f64,
    update_messages: f64,
    update_bytes: f64,
    update_cpu_ms: f64,
    leave_messages: f64,
    leave_bytes: f64,
    leave_cpu_ms: f64,
    /// From a mute to when half of them hear of it, ms.
    pub mute_p50_ms: f64,
    /// To when 95 of 100 do.
    pub mute_p95_ms: f64,
}

/// So far.
struct Meter {
    messages: u64,
    bytes: u64,
    edge_nanos: u64,
}

/// Of one guest's step.
struct Cost {
    messages: f64,
    bytes: f64,
    cpu_ms: f64,
}

/// Measures every crowd and prints it.
///
/// # Errors
/// Somebody is not let in, or is not told.
pub async fn measure(stack: &mut Stack) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for count in CROWDS {
        let row = Crowd::gather(stack, count).await?.measure().await?;
        println!("{row:?}");
        rows.push(row);
    }
    Ok(rows)
}

/// Those who watch, and the one who is watched.
struct Crowd {
    url: String,
    room: String,
    edge: u32,
    star: Client,
    watchers: Vec<Watcher>,
    tasks: JoinSet<()>,
}

impl Crowd {
    async fn gather(stack: &mut Stack, count: usize) -> Result<Self> {
        let (url, room) = (stack.url(), format!("crowd-{count}-{}", unix_nanos()));
        let edge = stack.edge().process.pid().context("the edge does not run")?;
        let mut star = Client::join(ClientOptions::new(&url, &access_token(&room, "star")?)).await?;
        star.connected().await?;
        star.publish(Publish::quiet_microphone("m")).await?;
        let mut crowd = Self { url, room, edge, star, watchers: Vec::new(), tasks: JoinSet::new() };
        while crowd.watchers.len() < count {
            let some: Vec<String> =
                (crowd.watchers.len()..count).take(AT_A_TIME).map(|n| format!("watcher-{n}")).collect();
            let joined = try_join_all(some.iter().map(|identity| crowd.watcher(identity))).await?;
            for (watcher, listener) in joined {
                crowd.watchers.push(watcher);
                crowd.tasks.spawn(listener);
            }
        }
        crowd.all("everyone", |told| told.present.len() == count).await?;
        Ok(crowd)
    }

    async fn watcher(&self, identity: &str) -> Result<(Watcher, impl Future<Output = ()> + use<>)> {
        Watcher::connect(&self.url, join_claims(API_KEY, &self.room, identity)).await
    }

    async fn all(&self, what: &str, over: impl Fn(&Told) -> bool) -> Result<()> {
        for watcher in &self.watchers {
            watcher.until(what, &over).await?;
        }
        Ok(())
    }

    async fn measure(mut self) -> Result<Row> {
        let (count, mut guests) = (self.watchers.len(), Vec::new());
        let before = self.meter()?;
        for number in 1..=GUESTS {
            let (guest, listener) = self.watcher(&format!("guest-{number}")).await?;
            self.tasks.spawn(listener);
            guests.push(guest);
            self.all("a join", |told| told.present.len() == count + number).await?;
        }
        let join = self.cost(&before)?;

        let before = self.meter()?;
        for guest in &guests {
            let metadata = "changed".to_owned();
            let change = UpdateParticipantMetadata { metadata: metadata.clone(), ..Default::default() };
            guest.requests.send(Request::UpdateMetadata(change)).await?;
            let changed =
                |told: &Told| told.present.get(&guest.identity).is_some_and(|had| had.last() == Some(&metadata));
            self.all("a change", changed).await?;
        }
        let update = self.cost(&before)?;

        let before = self.meter()?;
        for (number, guest) in (1..).zip(&guests) {
            guest.requests.send(Request::Leave(LeaveRequest::default())).await?;
            self.all("a leave", |told| told.left.len() == number).await?;
        }
        let leave = self.cost(&before)?;

        let mut waits = Vec::with_capacity(MUTES * count);
        for number in 1..=MUTES {
            let began = Instant::now();
            self.star.mute("m", number % 2 == 1).await?;
            self.all("a mute", |told| told.mutes.len() == number).await?;
            let heard =
                |watcher: &Watcher| watcher.told.borrow().mutes.last().map(|at| (*at - began).as_secs_f64() * 1e3);
            waits.extend(self.watchers.iter().filter_map(heard));
        }
        waits.sort_by(f64::total_cmp);
        ensure!(waits.len() == MUTES * count, "somebody did not hear of a mute");
        let wait = |share| quantile(&waits, share).context("nobody watches");
        let (mute_p50_ms, mute_p95_ms) = (wait(0.5)?, wait(0.95)?);
        self.star.leave().await?;
        Ok(Row {
            step: count.to_string(),
            join_messages: join.messages,
            join_bytes: join.bytes,
            join_cpu_ms: join.cpu_ms,
            update_messages: update.messages,
            update_bytes: update.bytes,
            update_cpu_ms: update.cpu_ms,
            leave_messages: leave.messages,
            leave_bytes: leave.bytes,
            leave_cpu_ms: leave.cpu_ms,
            mute_p50_ms,
            mute_p95_ms,
        })
    }

    /// Messages and bytes of all who watch, and CPU time of the edge, so far.
    fn meter(&self) -> Result<Meter> {
        let told = self.watchers.iter().map(|watcher| {
            let told = watcher.told.borrow();
            (told.messages, told.bytes)
        });
        let (messages, bytes) = told.fold((0, 0), |(messages, bytes), told| (messages + told.0, bytes + told.1));
        Ok(Meter { messages, bytes, edge_nanos: cpu_nanos(self.edge)? })
    }

    /// Of each of [`GUESTS`] since then.
    #[expect(clippy::cast_precision_loss, reason = "a few millions")]
    fn cost(&self, before: &Meter) -> Result<Cost> {
        let now = self.meter()?;
        let since = |now: u64, before: u64| (now - before) as f64 / GUESTS as f64;
        let each = self.watchers.len() as f64;
        Ok(Cost {
            messages: since(now.messages, before.messages) / each,
            bytes: since(now.bytes, before.bytes) / each,
            cpu_ms: since(now.edge_nanos, before.edge_nanos) / 1e6,
        })
    }
}
