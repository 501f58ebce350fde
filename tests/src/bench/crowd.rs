//! One run of a load on one server: everybody joins, a window is measured, everybody leaves.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::publisher::{Place, Publishers};
use super::scenario::Scenario;
use crate::client::{Carried, DEADLINE, Loss, MediaOptions, unix_nanos};
use crate::door::{Caller, Door};
use crate::load::{Arrival, Meter, MeterSink, Tally, deadline, tally};
use crate::machine::{Busy, Noise, cpu_nanos, receive_drops, resident_bytes};
use crate::statistics::quantile;

/// How long packets of a window may still arrive after it.
const TAIL: Duration = Duration::from_millis(500);
/// Between two looks at how far the subscribers have counted.
const POLL: Duration = Duration::from_millis(20);
/// Joins and leaves on their way at a time.
const AT_A_TIME: usize = 8;
/// Ids in a room begin here: Janus takes 0 for none.
const FIRST_ID: u64 = 1;
/// Seed of what a lossy path loses.
const LOSS_SEED: u64 = 4;

/// A server that is measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The way in.
    pub door: Door,
    /// The process that forwards.
    pub pid: u32,
    /// Where it is pinned.
    pub cpu: usize,
    /// Where the load client is pinned.
    pub load_cpu: usize,
}

/// How the load clients take part.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Of every media connection; `light` and `loss` are chosen here.
    pub media: MediaOptions,
    /// Of those who only subscribe: one in so many receives with str0m, the others the light way. 1: all with str0m.
    pub full_every: u32,
}

/// What a window cost and gave.
#[derive(Debug, Serialize, Clone, Copy)]
pub struct Run {
    /// Length of the window.
    pub seconds: f64,
    /// Media packets published in it, over all rooms.
    pub sent: usize,
    /// How many arrivals that makes when nothing is lost, over all who receive.
    pub expected: usize,
    /// How many there were.
    pub arrived: usize,
    /// Of these: without a usable receive time.
    pub untimed: usize,
    /// CPU time of the server.
    pub server_cpu_seconds: f64,
    /// CPU time of this process, the load.
    pub client_cpu_seconds: f64,
    /// How busy the load client's CPU was.
    pub load_percent: f64,
    /// Latency, as the next ones.
    pub p50_micros: f64,
    /// See [`Run::p50_micros`].
    pub p95_micros: f64,
    /// See [`Run::p50_micros`].
    pub p99_micros: f64,
    /// Packets that did not arrive.
    pub loss_percent: f64,
    /// Retransmissions on the way to those who receive, of the media packets there.
    pub resent_percent: Option<f64>,
    /// Datagrams dropped at full sockets of the load client.
    pub client_drops: u64,
    /// What the server's CPU did besides, as a share of the window.
    pub noise_percent: f64,
    /// Resident memory of the server before anybody joined.
    pub idle_bytes: u64,
    /// What it grew by from before the first who receives to after the window, for each of them.
    pub bytes_per_receiver: f64,
}

/// Lets everybody of a load in, measures one window, lets them leave.
///
/// # Errors
/// Somebody cannot join, receives nothing, or falls out.
pub async fn run(server: &Measured, scenario: &Scenario, habits: &Habits, length: Duration) -> Result<Run> {
    let idle_bytes = resident_bytes(server.pid)?;
    let first = unix_nanos() / 1000;
    let rooms: Vec<u64> = (0..u64::from(scenario.rooms)).map(|number| first + number).collect();
    for room in &rooms {
        server.door.make_room(*room).await?;
    }
    let publishers = Publishers::start(&server.door, places(&rooms, scenario), habits.media.clone()).await?;
    let empty_bytes = resident_bytes(server.pid)?;
    let mut crowd = Crowd { scenario, attendees: Vec::new(), loss: None };
    crowd.join(&server.door, &rooms, habits).await?;
    sleep(Duration::from_secs(scenario.settle_secs)).await;
    let mut run = crowd.window(server, &publishers, length).await?;
    run.idle_bytes = idle_bytes;
    run.bytes_per_receiver = bytes(resident_bytes(server.pid)?) - bytes(empty_bytes);
    run.bytes_per_receiver /= count(scenario.receivers());
    crowd.leave().await?;
    publishers.leave().await?;
    Ok(run)
}

/// Those who only publish.
fn places(rooms: &[u64], scenario: &Scenario) -> Vec<Place> {
    let of_room = |room: u64| {
        (FIRST_ID..).zip(&scenario.publishers).map(move |(number, tracks)| Place { room, id: number, tracks: *tracks })
    };
    rooms.iter().copied().flat_map(of_room).collect()
}

/// One who receives.
struct Attendee {
    room: u64,
    id: u64,
    caller: Caller,
    meter: Arc<Meter>,
    media: MediaOptions,
    /// How many tracks come to it.
    tracks: usize,
    /// Publishes too.
    member: bool,
}

/// Those who receive.
struct Crowd<'a> {
    scenario: &'a Scenario,
    attendees: Vec<Attendee>,
    loss: Option<Arc<Loss>>,
}

impl Crowd<'_> {
    async fn join(&mut self, door: &Door, rooms: &[u64], habits: &Habits) -> Result<()> {
        self.loss = (self.scenario.loss > 0.0).then(|| Arc::new(Loss::new(self.scenario.loss, LOSS_SEED)));
        let first_member = FIRST_ID + u64::try_from(self.scenario.publishers.len())?;
        let first_subscriber = first_member + u64::try_from(self.scenario.members.len())?;
        let media = MediaOptions { loss: self.loss.clone(), ..habits.media.clone() };
        let mut joining = JoinSet::new();
        for room in rooms.iter().copied() {
            for (number, tracks) in self.scenario.members.iter().enumerate() {
                let (door, media, publish) = (door.clone(), media.clone(), tracks.publish());
                let (id, tracks) = (first_member + u64::try_from(number)?, self.scenario.tracks_to(Some(number)));
                self.room_for_one(&mut joining).await?;
                joining.spawn(async move {
                    let (sink, meter) = MeterSink::new();
                    let mut caller = door.attend(room, id, publish, &media, sink).await?;
                    caller.connected().await?;
                    anyhow::Ok(Attendee { room, id, caller, meter, media, tracks, member: true })
                });
            }
        }
        self.all(&mut joining).await?;
        for attendee in std::mem::take(&mut self.attendees) {
            let (door, others) = (door.clone(), (FIRST_ID..first_subscriber).filter(|id| *id != attendee.id).collect());
            self.room_for_one(&mut joining).await?;
            joining.spawn(watch(door, attendee, others));
        }
        self.all(&mut joining).await?;
        let everybody: Vec<u64> = (FIRST_ID..first_subscriber).collect();
        for room in rooms.iter().copied() {
            for number in 0..self.scenario.subscribers {
                let light = number % habits.full_every != 0 && self.loss.is_none();
                let (door, media) = (door.clone(), MediaOptions { light, ..media.clone() });
                let (id, tracks) = (first_subscriber + u64::from(number), self.scenario.tracks_to(None));
                let everybody = everybody.clone();
                self.room_for_one(&mut joining).await?;
                joining.spawn(async move {
                    let (sink, meter) = MeterSink::new();
                    let mut caller = door.subscribe(room, id, &everybody, &media, sink).await?;
                    caller.connected().await?;
                    anyhow::Ok(Attendee { room, id, caller, meter, media, tracks, member: false })
                });
            }
        }
        self.all(&mut joining).await?;
        self.until_heard().await
    }

    /// Waits until fewer than [`AT_A_TIME`] are on their way.
    async fn room_for_one(&mut self, joining: &mut JoinSet<Result<Attendee>>) -> Result<()> {
        if joining.len() == AT_A_TIME {
            self.attendees.push(joining.join_next().await.context("nobody joins")???);
        }
        Ok(())
    }

    async fn all(&mut self, joining: &mut JoinSet<Result<Attendee>>) -> Result<()> {
        while let Some(joined) = joining.join_next().await {
            self.attendees.push(joined??);
        }
        Ok(())
    }

    /// Waits until something of every track has come to everybody it should come to.
    async fn until_heard(&self) -> Result<()> {
        let heard = async {
            while self.attendees.iter().any(|a| a.meter.sources() < a.tracks) {
                sleep(POLL).await;
            }
        };
        if timeout(DEADLINE, heard).await.is_err() {
            let missing: usize = self.attendees.iter().map(|a| a.tracks.saturating_sub(a.meter.sources())).sum();
            let lacking = self.attendees.iter().filter(|a| a.meter.sources() < a.tracks).count();
            anyhow::bail!("{lacking} of {} lack {missing} tracks", self.attendees.len());
        }
        Ok(())
    }

    /// Waits until whatever the kernel received for any of them until `time` (nanoseconds of Unix time) is counted, or
    /// nothing more comes: then it is lost.
    async fn until_counted(&self, time: u64) {
        let give_up = Instant::now() + DEADLINE;
        let behind = |a: &Attendee| a.tracks > 0 && a.meter.counted_until() <= time;
        while self.attendees.iter().any(behind) && Instant::now() < give_up {
            sleep(POLL).await;
        }
    }

    async fn window(&self, server: &Measured, publishers: &Publishers, length: Duration) -> Result<Run> {
        let sockets: Vec<_> = self.attendees.iter().flat_map(|a| a.caller.sockets()).collect();
        let drops = receive_drops(&sockets)?;
        self.take().for_each(drop);
        let carried = self.carried();
        let (noise, load) = (Noise::listen([server.cpu], &[server.pid])?, Busy::watch(server.load_cpu)?);
        let (cpu, own) = (cpu_nanos(server.pid)?, cpu_nanos(std::process::id())?);
        let from = unix_nanos();
        sleep(length).await;
        let window = from..unix_nanos();
        let cpu = cpu_nanos(server.pid)?.saturating_sub(cpu);
        let own = cpu_nanos(std::process::id())?.saturating_sub(own);
        let (noise_percent, load_percent) = (noise.percent()?, load.percent()?);
        self.until_counted(deadline(&window, TAIL)).await;
        let (sent, expected) = self.expected(publishers, &window).await?;
        let resent = carried.zip(self.carried()).map(|(before, after)| resent_percent(before, after));
        let tallies: Vec<Tally> = self.take().map(|arrivals| tally(arrivals, &window, TAIL)).collect();
        let arrived = tallies.iter().map(|t| t.arrived).sum();
        let mut delays: Vec<u64> = tallies.iter().flat_map(|t| t.delays.iter().copied()).collect();
        delays.sort_unstable();
        let micros = |share| quantile(&delays, share).map_or(f64::NAN, |d| Duration::from_nanos(d).as_secs_f64() * 1e6);
        Ok(Run {
            seconds: Duration::from_nanos(window.end - window.start).as_secs_f64(),
            sent,
            expected,
            arrived,
            untimed: tallies.iter().map(|t| t.untimed).sum(),
            server_cpu_seconds: Duration::from_nanos(cpu).as_secs_f64(),
            client_cpu_seconds: Duration::from_nanos(own).as_secs_f64(),
            load_percent,
            p50_micros: micros(0.5),
            p95_micros: micros(0.95),
            p99_micros: micros(0.99),
            loss_percent: 100.0 * (count(expected) - count(arrived)) / count(expected),
            resent_percent: resent,
            client_drops: receive_drops(&sockets)?.saturating_sub(drops),
            noise_percent,
            idle_bytes: 0,
            bytes_per_receiver: f64::NAN,
        })
    }

    /// How many packets were sent in a window, and how many arrivals that should make.
    async fn expected(&self, publishers: &Publishers, window: &Range<u64>) -> Result<(usize, usize)> {
        let published: usize = publishers.sent(window.clone()).await?.iter().sum();
        let (mut sent, mut own) = (published, 0);
        for member in self.attendees.iter().filter(|a| a.member) {
            let by_it = member.caller.sent_within(window.clone()).await?;
            (sent, own) = (sent + by_it, own + by_it);
        }
        // Rooms are alike, and so is what is sent in each to those who receive there; nobody gets its own.
        let receivers = self.attendees.len() / usize::try_from(self.scenario.rooms)?.max(1);
        Ok((sent, sent * receivers - own))
    }

    fn carried(&self) -> Option<Carried> {
        self.loss.as_ref().map(|loss| loss.carried())
    }

    /// What each got since the last call.
    fn take(&self) -> impl Iterator<Item = Vec<Arrival>> {
        self.attendees.iter().map(|attendee| attendee.meter.take())
    }

    async fn leave(self) -> Result<()> {
        let mut leaving = JoinSet::new();
        for attendee in self.attendees {
            if leaving.len() == AT_A_TIME {
                leaving.join_next().await.context("nobody leaves")???;
            }
            leaving.spawn(attendee.caller.leave());
        }
        while let Some(left) = leaving.join_next().await {
            left??;
        }
        Ok(())
    }
}

/// Subscribes one who publishes.
async fn watch(door: Door, mut attendee: Attendee, others: Vec<u64>) -> Result<Attendee> {
    if attendee.tracks > 0 {
        attendee.caller.subscribe(&door, attendee.room, &others, &attendee.media).await?;
        attendee.caller.connected().await?;
    }
    Ok(attendee)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn resent_percent(before: Carried, after: Carried) -> f64 {
    100.0 * (after.resent - before.resent) as f64 / (after.media - before.media) as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "memory stays far below 2^52")]
fn bytes(value: u64) -> f64 {
    value as f64
}
