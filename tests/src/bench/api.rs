//! How many rooms app servers make, list and delete a second, how long each call takes, and how long a list of very many does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::{Value, json};
use shared::claims::VideoGrant;
use xtask::stack::Stack;

use crate::app_server::AppServer;
use crate::client::unix_nanos;
use crate::machine::cpu_nanos;
use crate::statistics::quantile;

/// App servers that call one after the other, at a time.
const AT_A_TIME: [usize; 2] = [1, 16];
/// Rooms of each of these steps.
const ROOMS: usize = 2_000;
/// Rooms in the long list.
const MANY: usize = 10_000;
/// How often it is asked for.
const LISTS: usize = 20;
/// Seconds that a room without participants is kept: longer than the measurement.
const EMPTY_TIMEOUT: u32 = 3600;

/// So many app servers, or the list of [`MANY`].
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    pub step: String,
    /// Rooms made, listed and deleted a second; of the list, rooms listed.
    pub rooms_per_second: f64,
    /// CPU time of the edge's process for one, ms.
    pub edge_cpu_ms: f64,
    /// `CreateRoom`, ms.
    pub create_p50_ms: Option<f64>,
    /// See [`Row::create_p50_ms`].
    pub create_p95_ms: Option<f64>,
    /// `ListRooms`, of one room's name; in the list's own row, of all.
    pub list_p50_ms: f64,
    /// See [`Row::list_p50_ms`].
    pub list_p95_ms: f64,
    /// `DeleteRoom`, ms.
    pub delete_p50_ms: Option<f64>,
    /// See [`Row::delete_p50_ms`].
    pub delete_p95_ms: Option<f64>,
}

/// How long each call took.
#[derive(Default)]
struct Took {
    create: Vec<Duration>,
    list: Vec<Duration>,
    delete: Vec<Duration>,
}

/// Measures and prints each row.
///
/// # Errors
/// A call fails, or does not answer what it should.
pub async fn measure(stack: &mut Stack) -> Result<Vec<Row>> {
    let edge = stack.edge().process.pid().context("the edge does not run")?;
    let grant = VideoGrant { room_create: true, room_list: true, ..VideoGrant::default() };
    let server = AppServer::at(&stack.url(), grant)?;
    let mut rows = Vec::new();
    for at_a_time in AT_A_TIME {
        let (before, begun) = (cpu_nanos(edge)?, Instant::now());
        let took = rooms(&server, at_a_time, &[Call::Create, Call::List, Call::Delete], ROOMS).await?;
        let cost = Cost { rooms: ROOMS, elapsed: begun.elapsed(), cpu: cpu_nanos(edge)?.saturating_sub(before) };
        rows.push(cost.row(format!("{at_a_time} at a time"), took));
    }
    rooms(&server, AT_A_TIME[1], &[Call::Create], MANY).await?;
    let (before, begun) = (cpu_nanos(edge)?, Instant::now());
    let mut took = Took::default();
    for _ in 0..LISTS {
        let asked = Instant::now();
        let listed = server.ask("ListRooms", json!({})).await?;
        took.list.push(asked.elapsed());
        let count = listed.pointer("/rooms").and_then(Value::as_array).map_or(0, Vec::len);
        ensure!(count == MANY, "{count} rooms are listed");
    }
    let listed = MANY * LISTS;
    let cost = Cost { rooms: listed, elapsed: begun.elapsed(), cpu: cpu_nanos(edge)?.saturating_sub(before) };
    rows.push(cost.row("a list of 10,000".to_owned(), took));
    for row in &rows {
        println!("{row:?}");
    }
    Ok(rows)
}

/// What is done to each room, in this order.
#[derive(Clone, Copy)]
enum Call {
    Create,
    List,
    Delete,
}

/// Does this to so many fresh rooms, so many at a time.
async fn rooms(server: &AppServer, at_a_time: usize, calls: &[Call], count: usize) -> Result<Took> {
    let (prefix, next) = (unix_nanos(), Arc::new(AtomicUsize::new(0)));
    let worker = || async {
        let mut took = Took::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return anyhow::Ok(took);
            }
            let room = format!("room-{prefix}-{number}");
            for call in calls {
                let (method, body) = match call {
                    Call::Create => ("CreateRoom", json!({ "name": room, "emptyTimeout": EMPTY_TIMEOUT })),
                    Call::List => ("ListRooms", json!({ "names": [room] })),
                    Call::Delete => ("DeleteRoom", json!({ "room": room })),
                };
                let asked = Instant::now();
                let answer = server.ask(method, body).await?;
                match call {
                    Call::Create => took.create.push(asked.elapsed()),
                    Call::List => {
                        let name = answer.pointer("/rooms/0/name").and_then(Value::as_str);
                        ensure!(name == Some(room.as_str()), "{room} is not listed: {answer}");
                        took.list.push(asked.elapsed());
                    }
                    Call::Delete => took.delete.push(asked.elapsed()),
                }
            }
        }
    };
    let workers = try_join_all((0..at_a_time).map(|_| worker())).await?;
    Ok(workers.into_iter().fold(Took::default(), |mut all, one| {
        all.create.extend(one.create);
        all.list.extend(one.list);
        all.delete.extend(one.delete);
        all
    }))
}

/// What a step came to.
struct Cost {
    rooms: usize,
    elapsed: Duration,
    cpu: u64,
}

impl Cost {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    fn row(&self, step: String, took: Took) -> Row {
        let rooms = self.rooms as f64;
        let (create, list, delete) = (took.create, took.list, took.delete);
        let ([create_p50_ms, create_p95_ms], [list_p50_ms, list_p95_ms]) = (millis(create), millis(list));
        let [delete_p50_ms, delete_p95_ms] = millis(delete);
        Row {
            step,
            rooms_per_second: rooms / self.elapsed.as_secs_f64(),
            edge_cpu_ms: Duration::from_nanos(self.cpu).as_secs_f64() * 1e3 / rooms,
            create_p50_ms,
            create_p95_ms,
            list_p50_ms: list_p50_ms.unwrap_or(f64::NAN),
            list_p95_ms: list_p95_ms.unwrap_or(f64::NAN),
            delete_p50_ms,
            delete_p95_ms,
        }
    }
}

/// Half, and 95 of 100, take so long at most.
fn millis(mut took: Vec<Duration>) -> [Option<f64>; 2] {
    took.sort_unstable();
    [0.5, 0.95].map(|share| quantile(&took, share).map(|took| took.as_secs_f64() * 1e3))
}
