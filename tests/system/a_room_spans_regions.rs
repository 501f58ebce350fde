//! Who is far from the others is served near to them all the same: a room is on several nodes, with pipes between them. A
//! track crosses once for a pair of nodes, whoever watches it there, and not at all when nobody does.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use meridian_tests::call::{Call, Sdk};
use meridian_tests::client::{Client, ClientOptions, Observed, Publish, text};
use meridian_tests::scene::{Deployment, PLACES, Scene, sum_metric};
use meridian_tests::sdk::Mode;
use nix::sys::signal::Signal;

const REGIONS: [&str; 3] = ["local-a", "local-b", "local-c"];
/// Packets that are counted at a time.
const COUNTED: f64 = 300.0;
/// Packets of a video that are enough to say that it flows.
pub(crate) const FLOWING: u64 = 300;
/// How often the node's counters are read.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

async fn spread() -> Result<Scene> {
    let start = || Deployment::of_nodes(PLACES.len(), Vec::new());
    Ok(Scene::on(tokio::task::spawn_blocking(start).await??))
}

/// Joins from where this node is.
pub(crate) async fn join(scene: &Scene, name: &str, node: usize, publish: Vec<Publish>) -> Result<Client> {
    let place = PLACES.get(node).copied();
    let options = scene.options(name)?;
    let bind = scene.deployment.stack().hosts().get(node).map_or(options.bind, |host| (host.gateway(), 0).into());
    let mut client = Client::join(ClientOptions { place, publish, bind, ..options }).await?;
    client.connected().await?;
    let region = client.observe(|o| o.join.as_ref().map(|join| join.server_region.clone()));
    ensure!(region.as_deref() == REGIONS.get(node).copied(), "{name} is served in {region:?}");
    Ok(client)
}

/// What the first node sends for each packet that it receives, from now on.
async fn sent_for_each(scene: &Scene) -> Result<f64> {
    let mut before = None;
    loop {
        let text = scene.deployment.metrics_of(0).await?;
        let sum = |name: &str| sum_metric(&text, &format!("meridian_node_packets_{name}_total"));
        let (received, sent) = (sum("received"), sum("sent"));
        let (received_before, sent_before) = *before.get_or_insert((received, sent));
        if received - received_before >= COUNTED {
            return Ok((sent - sent_before) / (received - received_before));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Packets of videos that have come.
fn seen(observed: &Observed) -> u64 {
    let videos = observed.flows.iter().filter(|(sid, _)| sid.starts_with("TR_V"));
    videos.map(|(_, flow)| flow.packets).sum()
}

pub(crate) async fn sees_more(client: &mut Client, packets: u64) -> Result<()> {
    let before = client.observe(seen);
    client.until("more video", |o| (seen(o) >= before + packets).then_some(())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn and_everyone_sees_and_hears_everyone() -> Result<()> {
    let scene = spread().await?;
    let mut clients = Vec::new();
    for (node, name) in ["ada", "bob", "cyd"].into_iter().enumerate() {
        let publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
        clients.push(join(&scene, name, node, publish).await?);
    }
    for client in &mut clients {
        let flows = |o: &Observed| {
            let of =
                |kind: &'static str| o.flows.iter().filter(move |(sid, _)| sid.starts_with(kind)).map(|(_, flow)| flow);
            let heard = of("TR_A").filter(|flow| flow.packets > 20).count();
            let seen = of("TR_V").filter(|flow| flow.packets > 60 && flow.keyframes > 0).count();
            (heard == 2 && seen == 2).then_some(())
        };
        client.until("audio and video of two others", flows).await?;
    }
    let [ada, bob, cyd] = &mut clients[..] else { bail!("three joined") };
    // Not all of what may be lost is.
    for (label, times) in [("_reliable", 1), ("_lossy", 20)] {
        for _ in 0..times {
            ada.send_data(label, text("hello")).await?;
        }
        for other in [&mut *bob, &mut *cyd] {
            let heard = other.until("a data packet", |o| o.said(label)).await?;
            ensure!(heard == ("ada".to_owned(), "hello".to_owned()), "{heard:?}");
        }
    }
    // The others go on without the node between them.
    scene.deployment.stack().nodes().get_mut(1).context("no such node")?.process.kill();
    for client in [ada, cyd] {
        sees_more(client, FLOWING).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn and_a_track_crosses_once_for_all_who_watch_it_there() -> Result<()> {
    let scene = spread().await?;
    let _ada = join(&scene, "ada", 0, vec![Publish::camera("camera")]).await?;
    let mut viewers = Vec::new();
    for name in ["bob", "cyd", "dan"] {
        viewers.push(join(&scene, name, 1, Vec::new()).await?);
    }
    for viewer in &mut viewers {
        sees_more(viewer, FLOWING).await?;
    }
    let share = sent_for_each(&scene).await?;
    println!("watched by three: {share:.2} packets sent for each received");
    // Three, if it were sent for each of them; what goes back to the publisher comes on top.
    ensure!((0.9..2.0).contains(&share), "{share:.2} packets sent for each received");
    for viewer in viewers {
        viewer.leave().await?;
    }
    while sent_for_each(&scene).await? > 0.5 {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn and_browsers_of_a_node_that_dies_go_on_at_another_one() -> Result<()> {
    outlives_the_node_between(Mode::Single).await
}

#[tokio::test(flavor = "multi_thread")]
async fn and_browsers_of_a_node_that_dies_go_on_at_another_one_with_two_connections() -> Result<()> {
    outlives_the_node_between(Mode::Dual).await
}

/// A browser on each node.
async fn outlives_the_node_between(mode: Mode) -> Result<()> {
    let call = Call::open_from(&PLACES, mode, &["ada", "bob", "cyd"].map(|name| (name, Sdk::Browser))).await?;
    each_has_one(&call).await?;
    call.data_gets_through("before").await?;
    let moved_before = moved_elsewhere(&call).await?;
    let since = call.marks().await?;
    call.stillness().await?;
    call.scene.deployment.stack().nodes().get_mut(1).context("no such node")?.process.kill();
    call.data_gets_through("after").await?;
    call.goes_on().await?;
    println!("the pictures stood still for {:.0} ms", call.stillness().await?);
    let moved = moved_elsewhere(&call).await? - moved_before;
    ensure!((moved - 1.0).abs() < f64::EPSILON, "{moved} sessions were moved");
    call.heard_of_no_end(&since).await
}

/// Waits until each is served near to them: who comes while the node of whoever came before still dials in is taken there
/// a moment later.
pub(crate) async fn each_has_one(call: &Call) -> Result<()> {
    for (node, region) in REGIONS.iter().enumerate() {
        call.has_sessions(node, 1.0).await.with_context(|| format!("in {region}"))?;
    }
    Ok(())
}

/// Sessions that were ever moved to the first or the last node.
async fn moved_elsewhere(call: &Call) -> Result<f64> {
    let mut moved = 0.0;
    for node in [0, 2] {
        moved += sum_metric(&call.metrics(node).await?, "meridian_node_sessions_moved_here_total");
    }
    Ok(moved)
}

#[tokio::test(flavor = "multi_thread")]
async fn and_who_had_to_go_far_comes_back() -> Result<()> {
    goes_far_and_comes_back(Mode::Single).await
}

#[tokio::test(flavor = "multi_thread")]
async fn and_who_had_to_go_far_comes_back_with_two_connections() -> Result<()> {
    goes_far_and_comes_back(Mode::Dual).await
}

/// An operator drains the node near Bob and takes that back; then it is replaced.
async fn goes_far_and_comes_back(mode: Mode) -> Result<()> {
    let call = Call::open_from(&PLACES[..2], mode, &["ada", "bob"].map(|name| (name, Sdk::Browser))).await?;
    let all = call.nodes().await?;
    let near_bob = all.iter().find(|node| node.info.region.as_str() == REGIONS[1]).context("no such region")?;
    let since = call.marks().await?;
    for is_replaced in [false, true] {
        call.has_sessions(1, 1.0).await?;
        call.stillness().await?;
        if is_replaced {
            call.signal(1, Signal::SIGTERM)?;
            call.ended(1).await?;
        } else {
            call.drain(&near_bob.node, true).await?;
            call.is_left(1).await?;
        }
        call.has_sessions(0, 2.0).await?;
        call.goes_on().await?;
        if is_replaced {
            call.restart(1).await?;
        } else {
            call.drain(&near_bob.node, false).await?;
        }
        call.has_sessions(1, 1.0).await.context("nobody comes back")?;
        call.has_sessions(0, 1.0).await?;
        call.goes_on().await?;
        call.data_gets_through(&format!("replaced: {is_replaced}")).await?;
        println!("there and back, the pictures stood still for {:.0} ms", call.stillness().await?);
    }
    call.heard_of_no_end(&since).await?;
    call.nobody_resumed(&since).await
}
