//! A hundred in one room: joins, changes, mutes and leaves reach everyone, in order, and none is lost.
//! `MERIDIAN_CROWD=1000` makes it so many and holds a mute to its bound, on a machine that does nothing else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{
    ConnectionSettings, JoinRequest, LeaveRequest, ParticipantInfo, UpdateParticipantMetadata, participant_info,
};
use meridian_tests::client::Publish;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::PATIENCE;
use meridian_tests::signal::{Heard, Mode, Signal, join_request};
use tokio::sync::{mpsc, watch};
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

/// What one was told.
#[derive(Debug, Default)]
struct Told {
    versions: BTreeMap<String, u32>,
    /// Who is there, by identity, and each metadata it had.
    present: BTreeMap<String, Vec<String>>,
    left: Vec<String>,
    /// The star's track.
    muted: bool,
    mutes: Vec<Instant>,
    /// What should not be.
    faults: Vec<String>,
}

impl Told {
    fn take(&mut self, info: &ParticipantInfo) {
        let version = self.versions.entry(info.sid.clone()).or_default();
        if info.version < *version {
            self.faults.push(format!("{} went back from {version} to {}", info.identity, info.version));
        }
        *version = info.version;
        if info.state() == participant_info::State::Disconnected {
            self.present.remove(&info.identity);
            self.left.push(info.identity.clone());
            return;
        }
        let known = self.present.entry(info.identity.clone()).or_default();
        if known.last() != Some(&info.metadata) {
            known.push(info.metadata.clone());
        }
        if let Some(track) = info.tracks.first()
            && track.muted != self.muted
        {
            self.muted = track.muted;
            self.mutes.push(Instant::now());
        }
    }
}

/// A participant that only watches, and has not opened a media connection yet.
struct Watcher {
    identity: String,
    requests: mpsc::Sender<Request>,
    told: watch::Receiver<Told>,
}

impl Watcher {
    /// Joins; what comes with it listens.
    async fn connect(scene: &Scene, identity: String) -> Result<(Self, impl Future<Output = ()> + use<>)> {
        let mut claims = scene.claims(&identity);
        if let Some(video) = claims.video.as_mut() {
            (video.can_publish, video.can_update_own_metadata) = (Some(false), Some(true));
        }
        let settings = ConnectionSettings { auto_subscribe: false, ..ConnectionSettings::default() };
        let request = JoinRequest { connection_settings: Some(settings), ..join_request() };
        let signal = Signal::join(scene.url(), &scene.sign(&claims)?, Mode::Single, &request).await?;
        let (requests, asked) = mpsc::channel(8);
        let (tell, told) = watch::channel(Told::default());
        let listener = listen(signal, identity.clone(), asked, tell);
        Ok((Self { identity, requests, told }, listener))
    }

    async fn until(&self, what: &str, over: impl Fn(&Told) -> bool) -> Result<()> {
        let mut told = self.told.clone();
        let waited = tokio::time::timeout(PATIENCE, told.wait_for(over)).await;
        if !matches!(waited, Ok(Ok(_))) {
            let told = self.told.borrow();
            let (present, left) = (told.present.len(), told.left.len());
            anyhow::bail!("{} waits for {what}: {present} are there, {left} have left", self.identity);
        }
        ensure!(self.told.borrow().faults.is_empty(), "{}: {:?}", self.identity, self.told.borrow().faults);
        Ok(())
    }
}

async fn listen(mut signal: Signal, identity: String, mut asked: mpsc::Receiver<Request>, tell: watch::Sender<Told>) {
    loop {
        tokio::select! {
            request = asked.recv() => match request {
                Some(request) => signal.send(request).await,
                None => return,
            },
            heard = signal.hear() => match heard {
                Heard::Message(message) => tell.send_modify(|told| match *message {
                    Response::Join(join) => join.other_participants.iter().for_each(|info| told.take(info)),
                    Response::Update(update) => {
                        let others = update.participants.iter().filter(|info| info.identity != identity);
                        others.for_each(|info| told.take(info));
                    }
                    _ => {}
                }),
                Heard::Closed(_) => return,
            },
        }
    }
}

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
        let some = (crowd.len()..count).take(AT_A_TIME).map(|n| Watcher::connect(&scene, format!("watcher-{n}")));
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
