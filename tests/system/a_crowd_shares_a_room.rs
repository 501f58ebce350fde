//! A hundred in one room: joins, changes, mutes and leaves reach everyone, in order, and none is lost.
//! `MERIDIAN_CROWD=1000` makes it so many and holds a mute to its bound, on a machine that does nothing else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::{LeaveRequest, UpdateParticipantMetadata};
use meridian_tests::client::Publish;
use meridian_tests::scene::Scene;
use meridian_tests::watcher::{Told, Watcher};
use tokio::task::JoinSet;

/// How many watch, unless the environment says otherwise.
const CROWD: usize = 100;
/// From so many on, a mute is held to its bound.
const JUDGED: usize = 1000;
/// Within this time 95 of 100 hear of a mute.
const MUTE_LIMIT: Duration = Duration::from_millis(500);
/// How many join at a time.
const AT_A_TIME: usize = 20;
/// How many change their metadata, and what to.
const CHANGERS: usize = 20;
const CHANGES: [&str; 3] = ["1", "2", "3"];
/// Mutes and unmutes.
const MUTES: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn everyone_hears_of_everyone_in_order() -> Result<()> {
    let count = std::env::var("MERIDIAN_CROWD").map_or(Ok(CROWD), |asked| asked.parse())?;
    let scene = Scene::open().await?;
    let star = scene.join("star").await?;
    star.publish(Publish::quiet_microphone("m")).await?;

    let began = Instant::now();
    let mut tasks = JoinSet::new();
    let mut crowd = Vec::with_capacity(count);
    while crowd.len() < count {
        let watcher = |n| Watcher::connect(scene.url(), scene.claims(&format!("watcher-{n}")));
        let some = (crowd.len()..count).take(AT_A_TIME).map(watcher);
        for (watcher, listener) in try_join_all(some).await? {
            crowd.push(watcher);
            tasks.spawn(listener);
        }
    }
    for watcher in &crowd {
        watcher.until("everyone", |told| told.present.len() == count).await?;
    }
    println!("{count} joined and know each other after {:.1} s", began.elapsed().as_secs_f64());

    let began = Instant::now();
    for change in CHANGES {
        for changer in crowd.iter().take(CHANGERS) {
            let metadata = UpdateParticipantMetadata { metadata: change.to_owned(), ..Default::default() };
            changer.requests.send(Request::UpdateMetadata(metadata)).await?;
        }
    }
    let all: Vec<&str> = std::iter::once("").chain(CHANGES).collect();
    for watcher in &crowd {
        for changer in crowd.iter().take(CHANGERS).filter(|changer| changer.identity != watcher.identity) {
            let heard = |told: &Told| told.present.get(&changer.identity).is_some_and(|had| *had == all);
            watcher.until("each change in its order", heard).await?;
        }
    }
    println!("{} changes have reached everyone after {:.1} s", CHANGERS * CHANGES.len(), began.elapsed().as_secs_f64());

    let mut waits = Vec::with_capacity(MUTES * count);
    for number in 1..=MUTES {
        let began = Instant::now();
        star.mute("m", number % 2 == 1).await?;
        for watcher in &crowd {
            watcher.until("a mute", |told| told.mutes.len() == number).await?;
            waits.push(watcher.told.borrow().mutes[number - 1] - began);
        }
    }
    waits.sort();
    let (median, p95) = (waits[waits.len() / 2], waits[waits.len() * 95 / 100]);
    println!("a mute reaches half of them in {median:.0?} and 95 of 100 in {p95:.0?}");
    ensure!(count < JUDGED || p95 < MUTE_LIMIT, "a mute takes {p95:.0?}");

    let stay = crowd.split_off(count / 2);
    for goes in &crowd {
        goes.requests.send(Request::Leave(LeaveRequest::default())).await?;
    }
    let gone: BTreeSet<&str> = crowd.iter().map(|watcher| watcher.identity.as_str()).collect();
    for watcher in &stay {
        watcher.until("those who leave", |told| told.left.len() >= gone.len()).await?;
        let told = watcher.told.borrow();
        ensure!(told.left.len() == gone.len() && told.left.iter().all(|left| gone.contains(left.as_str())), "{told:?}");
        ensure!(told.present.len() == count - gone.len(), "{told:?}");
    }
    Ok(())
}
