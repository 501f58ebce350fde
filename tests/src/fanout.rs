//! The load of `bench forward` on one server: a publisher, its subscribers, and what a window of it cost and gave.

use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{DEADLINE, Publish, unix_nanos};
use crate::door::{Caller, Door};
use crate::load::{Arrival, Meter, MeterSink, Tally, deadline, tally};
use crate::machine::{Noise, cpu_nanos, receive_drops, resident_bytes};
use crate::statistics::quantile;

/// How long packets of a window may still arrive after it.
const TAIL: Duration = Duration::from_millis(500);
/// How long traffic runs before the window: keyframes are through, bitrates level.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two looks at how far the subscribers have counted.
const POLL: Duration = Duration::from_millis(20);
/// Joins and leaves on their way at a time.
const AT_A_TIME: usize = 8;
/// The publisher's id.
const PUBLISHER: u64 = 1;

/// A server that is measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The way in.
    pub door: Door,
    /// The process that forwards.
    pub pid: u32,
    /// Where it is pinned.
    pub cpu: usize,
}

/// What a window cost and gave.
#[derive(Debug, Serialize, Clone, Copy)]
pub struct Run {
    /// Length of the window.
    pub seconds: f64,
    /// Media packets the publisher sent in it.
    pub sent: usize,
    /// How many of them arrived, over all subscribers.
    pub arrived: usize,
    /// Of these: without a usable receive time.
    pub untimed: usize,
    /// CPU time of the server.
    pub server_cpu_seconds: f64,
    /// CPU time of this process, the load.
    pub client_cpu_seconds: f64,
    /// Latency, as the next ones.
    pub p50_micros: f64,
    /// See [`Run::p50_micros`].
    pub p95_micros: f64,
    /// See [`Run::p50_micros`].
    pub p99_micros: f64,
    /// Packets that did not arrive.
    pub loss_percent: f64,
    /// Datagrams dropped at full sockets of subscribers.
    pub client_drops: u64,
    /// What the server's CPU did besides, as a share of the window.
    pub noise_percent: f64,
    /// Resident memory of the server before anybody joined.
    pub idle_bytes: u64,
    /// What it grew by from before the first subscriber to after the window, a subscriber.
    pub bytes_per_subscriber: f64,
}

/// Lets a publisher and its subscribers into a room of their own, measures one window, lets them leave.
///
/// # Errors
/// Somebody cannot join, receives nothing, or falls out.
pub async fn run(server: &Measured, subscribers: u32, length: Duration) -> Result<Run> {
    let room = unix_nanos() / 1000;
    let idle_bytes = resident_bytes(server.pid)?;
    server.door.make_room(room).await?;
    let publisher = Publisher::start(&server.door, room).await?;
    let empty_bytes = resident_bytes(server.pid)?;
    let crowd = Crowd::join(&server.door, room, subscribers).await?;
    sleep(SETTLE).await;
    let mut run = crowd.window(server, &publisher, length).await?;
    run.idle_bytes = idle_bytes;
    run.bytes_per_subscriber = bytes(resident_bytes(server.pid)?) - bytes(empty_bytes);
    run.bytes_per_subscriber /= f64::from(subscribers);
    crowd.leave().await?;
    publisher.leave().await?;
    Ok(run)
}

/// How many packets were sent in a window, and where to tell.
type Question = (Range<u64>, oneshot::Sender<usize>);

/// The publisher, in a thread of its own so that receiving does not delay its sending.
struct Publisher {
    questions: mpsc::Sender<Question>,
    ended: oneshot::Receiver<Result<()>>,
}

impl Publisher {
    async fn start(door: &Door, room: u64) -> Result<Self> {
        let door = door.clone();
        let (questions, asked) = mpsc::channel(1);
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        thread::spawn(move || {
            let sending = runtime::Builder::new_current_thread().enable_all().build();
            let result = sending.map_err(Into::into).and_then(|r| r.block_on(publish(&door, room, ready, asked)));
            // Nobody waits for the end of a measurement that failed.
            let _ = end.send(result);
        });
        let publisher = Self { questions, ended };
        match timeout(DEADLINE, is_ready).await.context("the publisher did not get ready")? {
            Ok(()) => Ok(publisher),
            Err(_) => bail!(publisher.leave().await.err().context("the publisher ended")?),
        }
    }

    async fn sent(&self, window: Range<u64>) -> Result<usize> {
        let (answer, answered) = oneshot::channel();
        self.questions.send((window, answer)).await.ok().context("the publisher ended")?;
        answered.await.context("the publisher ended")
    }

    /// Lets it leave the room; says what went wrong with it.
    async fn leave(self) -> Result<()> {
        drop(self.questions);
        self.ended.await.context("the publisher's thread panicked")?
    }
}

/// Sends until nobody can ask any more.
async fn publish(
    door: &Door,
    room: u64,
    ready: oneshot::Sender<()>,
    mut asked: mpsc::Receiver<Question>,
) -> Result<()> {
    let tracks = vec![Publish::camera("camera"), Publish::microphone("microphone")];
    let mut client = door.publish(room, PUBLISHER, tracks).await?;
    client.connected().await?;
    // Whoever waited for it or asked may have failed meanwhile.
    let _ = ready.send(());
    while let Some((window, answer)) = asked.recv().await {
        let _ = answer.send(client.sent_within(window).await?);
    }
    client.leave().await
}

/// The subscribers.
struct Crowd {
    clients: Vec<Caller>,
    meters: Vec<Arc<Meter>>,
}

impl Crowd {
    async fn join(door: &Door, room: u64, size: u32) -> Result<Self> {
        let mut crowd = Self { clients: Vec::new(), meters: Vec::new() };
        let mut joining = JoinSet::new();
        for number in 0..size {
            if joining.len() == AT_A_TIME {
                crowd.admit(joining.join_next().await.context("nobody joins")??)?;
            }
            let door = door.clone();
            let (sink, meter) = MeterSink::new();
            joining.spawn(async move {
                let mut client = door.subscribe(room, number.into(), &[PUBLISHER], sink).await?;
                client.connected().await?;
                anyhow::Ok((client, meter))
            });
        }
        while let Some(joined) = joining.join_next().await {
            crowd.admit(joined?)?;
        }
        crowd.until_counted(0).await?;
        Ok(crowd)
    }

    fn admit(&mut self, joined: Result<(Caller, Arc<Meter>)>) -> Result<()> {
        let (client, meter) = joined?;
        self.clients.push(client);
        self.meters.push(meter);
        Ok(())
    }

    /// Waits until whatever the kernel received for any of them until `time` (nanoseconds of Unix time) is counted.
    async fn until_counted(&self, time: u64) -> Result<()> {
        let counted = async {
            while self.meters.iter().any(|m| m.counted_until() <= time) {
                sleep(POLL).await;
            }
        };
        timeout(DEADLINE, counted).await.context("not every subscriber receives media")
    }

    async fn window(&self, server: &Measured, publisher: &Publisher, length: Duration) -> Result<Run> {
        let sockets: Vec<_> = self.clients.iter().flat_map(Caller::sockets).collect();
        let drops = receive_drops(&sockets)?;
        self.take().for_each(drop);
        let noise = Noise::listen([server.cpu], &[server.pid])?;
        let (cpu, own) = (cpu_nanos(server.pid)?, cpu_nanos(std::process::id())?);
        let from = unix_nanos();
        sleep(length).await;
        let window = from..unix_nanos();
        let cpu = cpu_nanos(server.pid)?.saturating_sub(cpu);
        let own = cpu_nanos(std::process::id())?.saturating_sub(own);
        let noise_percent = noise.percent()?;
        self.until_counted(deadline(&window, TAIL)).await?;
        let sent = publisher.sent(window.clone()).await?;
        let tallies: Vec<Tally> = self.take().map(|arrivals| tally(arrivals, &window, TAIL)).collect();
        let arrived = tallies.iter().map(|t| t.arrived).sum();
        let mut delays: Vec<u64> = tallies.iter().flat_map(|t| t.delays.iter().copied()).collect();
        delays.sort_unstable();
        let micros = |share| quantile(&delays, share).map_or(f64::NAN, |d| Duration::from_nanos(d).as_secs_f64() * 1e6);
        let expected = count(sent * self.meters.len());
        Ok(Run {
            seconds: Duration::from_nanos(window.end - window.start).as_secs_f64(),
            sent,
            arrived,
            untimed: tallies.iter().map(|t| t.untimed).sum(),
            server_cpu_seconds: Duration::from_nanos(cpu).as_secs_f64(),
            client_cpu_seconds: Duration::from_nanos(own).as_secs_f64(),
            p50_micros: micros(0.5),
            p95_micros: micros(0.95),
            p99_micros: micros(0.99),
            loss_percent: 100.0 * (expected - count(arrived)) / expected,
            client_drops: receive_drops(&sockets)? - drops,
            noise_percent,
            idle_bytes: 0,
            bytes_per_subscriber: f64::NAN,
        })
    }

    /// What each got since the last call.
    fn take(&self) -> impl Iterator<Item = Vec<Arrival>> {
        self.meters.iter().map(|meter| meter.take())
    }

    async fn leave(self) -> Result<()> {
        let mut leaving = JoinSet::new();
        for client in self.clients {
            if leaving.len() == AT_A_TIME {
                leaving.join_next().await.context("nobody leaves")???;
            }
            leaving.spawn(client.leave());
        }
        while let Some(left) = leaving.join_next().await {
            left??;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "memory stays far below 2^52")]
fn bytes(value: u64) -> f64 {
    value as f64
}
