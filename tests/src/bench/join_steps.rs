//! What a join of ours consists of, step by step until media flows, and what of it is the edge's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use xtask::stack::{Stack, access_token};

use crate::client::{Client, ClientOptions, Observed, Publish, Timeline, unix_nanos};
use crate::statistics::quantile;

/// Steps of joins, one client after the other. Each line is a quantile of its own over the joins: they do not add up.
#[derive(Serialize)]
pub struct Steps {
    /// Of each kind.
    pub joins: u32,
    /// Of the warm joins: how many saw video begin with a keyframe.
    pub began_with_keyframe: usize,
    /// The room exists, one publisher is in it (VP8, Opus), its node is attached: a second participant. Its first media
    /// packet is whatever arrives and decrypts first; audio comes every 20 ms: up to that is waiting.
    pub warm: Kind,
    /// Nobody has been in the room: its object is created, a node is chosen and dials the room. The joiner is alone, so
    /// the last step is its media connection.
    pub cold: Kind,
}

/// Joins of one kind.
#[derive(Serialize)]
pub struct Kind {
    /// Milliseconds, the whole first.
    pub steps_ms: Vec<Line>,
    /// Of the whole: the part until `JoinResponse`, join by join: only the edge works until then. A lower bound of its
    /// share: the answer also passes through it, as does the order to the node before.
    pub edge_share_percent: Quantiles,
}

/// One step.
#[derive(Serialize)]
pub struct Line {
    /// From and to.
    pub step: &'static str,
    /// Milliseconds.
    #[serde(flatten)]
    pub took: Quantiles,
}

/// Over all joins.
#[derive(Serialize, Debug, PartialEq)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 95 of 100 are below.
    pub p95: f64,
}

type Mark = fn(&Timeline) -> Option<Instant>;

/// A step of a join: its name, from, to.
type Step = (&'static str, Mark, Mark);

const EDGE: Step = ("connect -> JoinResponse (edge)", |t| t.started, |t| t.joined);
const WARM: [Step; 7] = [
    ("connect -> first media packet", |t| t.started, |t| t.first_packet),
    EDGE,
    ("  connect -> upgraded", |t| t.started, |t| t.upgraded),
    ("  upgraded -> JoinResponse", |t| t.upgraded, |t| t.joined),
    ("JoinResponse -> answer", |t| t.joined, |t| t.described),
    ("answer -> ICE and DTLS up", |t| t.described, |t| t.connected),
    ("up -> first media packet", |t| t.connected, |t| t.first_packet),
];
const COLD: [Step; 6] =
    [("connect -> ICE and DTLS up", |t| t.started, |t| t.connected), EDGE, WARM[2], WARM[3], WARM[4], WARM[5]];

/// Measures `joins` of each kind and prints them.
///
/// # Errors
/// A join fails.
pub async fn measure(stack: &Stack, joins: u32) -> Result<Steps> {
    let (warm, began_with_keyframe) = warm(&stack.url(), joins).await?;
    let cold = cold(&stack.url(), joins).await?;
    let (warm, cold) = (Kind::of(&warm, &WARM)?, Kind::of(&cold, &COLD)?);
    for (name, kind) in [("warm", &warm), ("cold", &cold)] {
        println!("{name:<34} {:>9} {:>9}", "p50 ms", "p95 ms");
        for Line { step, took } in &kind.steps_ms {
            println!("  {step:<32} {:>9.1} {:>9.1}", took.p50, took.p95);
        }
        let Quantiles { p50, p95 } = kind.edge_share_percent;
        println!("  {:<32} {p50:>8.1}% {p95:>8.1}%", "edge's share of the whole");
    }
    println!("video began with a keyframe in {began_with_keyframe} of {joins} warm joins");
    Ok(Steps { joins, began_with_keyframe, warm, cold })
}

/// Second participants of a room with a publisher, and how many of them could decode the first video they got.
async fn warm(url: &str, joins: u32) -> Result<(Vec<Timeline>, usize)> {
    let room = format!("warm-{}", unix_nanos());
    let mut options = ClientOptions::new(url, &access_token(&room, "publisher")?);
    options.publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
    let mut publisher = Client::join(options).await?;
    publisher.connected().await?;
    let (mut timelines, mut decodable) = (Vec::new(), 0);
    for number in 0..joins {
        let token = access_token(&room, &format!("subscriber-{number}"))?;
        let mut client = Client::join(ClientOptions::new(url, &token)).await?;
        timelines.push(client.until("first media", |o| o.timeline.first_packet.map(|_| o.timeline)).await?);
        let began = |o: &Observed| o.flow('V').map(|flow| flow.began_with_keyframe);
        decodable += usize::from(client.until("video", began).await?);
        client.leave().await?;
    }
    publisher.leave().await?;
    Ok((timelines, decodable))
}

/// First participants of new rooms.
async fn cold(url: &str, joins: u32) -> Result<Vec<Timeline>> {
    let mut timelines = Vec::new();
    for _ in 0..joins {
        let token = access_token(&format!("cold-{}", unix_nanos()), "first")?;
        let mut client = Client::join(ClientOptions::new(url, &token)).await?;
        timelines.push(client.until("media connection", |o| o.timeline.connected.map(|_| o.timeline)).await?);
        client.leave().await?;
    }
    Ok(timelines)
}

impl Kind {
    /// The figures of these joins; the first step is the whole.
    fn of(joins: &[Timeline], steps: &[Step]) -> Result<Self> {
        let whole = *steps.first().context("no steps")?;
        let lines = steps.iter().map(|step| {
            let ms = durations(joins, *step)?.iter().map(|took| took.as_secs_f64() * 1e3).collect();
            anyhow::Ok(Line { step: step.0, took: quantiles(ms)? })
        });
        Ok(Self {
            steps_ms: lines.collect::<Result<_>>()?,
            edge_share_percent: quantiles(shares(&durations(joins, EDGE)?, &durations(joins, whole)?))?,
        })
    }
}

/// How long a step took in each join.
fn durations(joins: &[Timeline], (name, from, to): Step) -> Result<Vec<Duration>> {
    let took = joins.iter().map(|join| Some(to(join)?.duration_since(from(join)?)));
    took.collect::<Option<_>>().with_context(|| format!("a join without {name}"))
}

/// Percent of each whole that its part is.
fn shares(parts: &[Duration], wholes: &[Duration]) -> Vec<f64> {
    parts.iter().zip(wholes).map(|(part, whole)| 100.0 * part.as_secs_f64() / whole.as_secs_f64()).collect()
}

fn quantiles(mut values: Vec<f64>) -> Result<Quantiles> {
    values.sort_by(f64::total_cmp);
    let of = |share| quantile(&values, share).context("no join was measured");
    Ok(Quantiles { p50: of(0.5)?, p95: of(0.95)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks at these milliseconds after the start.
    fn join(joined: u64, first_packet: Option<u64>) -> Timeline {
        let start = Instant::now();
        let at = |ms| Some(start + Duration::from_millis(ms));
        Timeline {
            started: at(0),
            upgraded: at(1),
            joined: at(joined),
            described: at(joined),
            connected: at(joined),
            first_packet: first_packet.and_then(at),
        }
    }

    #[test]
    fn the_share_is_that_of_each_join() {
        let joins = [join(10, Some(100)), join(30, Some(40)), join(20, Some(50))];
        let kind = Kind::of(&joins, &WARM).unwrap();
        assert_eq!(kind.edge_share_percent, Quantiles { p50: 40.0, p95: 75.0 });
        assert_eq!(kind.steps_ms[0].took, Quantiles { p50: 50.0, p95: 100.0 });
        assert_eq!(kind.steps_ms[1].took, Quantiles { p50: 20.0, p95: 30.0 });
    }

    #[test]
    fn a_join_without_media_is_not_left_out() {
        assert!(Kind::of(&[join(10, Some(100)), join(10, None)], &WARM).is_err());
        assert!(Kind::of(&[], &WARM).is_err());
    }
}
