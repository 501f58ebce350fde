//! Three nodes on hosts of their own, each a region: what crosses from one to the others is counted on its link. A track goes to
//! each of the others once, whoever watches it there, and not at all when nobody does; and when the node between dies, everyone
//! goes on.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use meridian_tests::call::{Call, Sdk};
use meridian_tests::client::Publish;
use meridian_tests::scene::{Deployment, PLACES, Scene, host};
use meridian_tests::sdk::Mode;

use crate::a_room_spans_regions::{FLOWING, each_has_one, join, sees_more};

/// Bytes that are counted at a time: some seconds of a camera.
const COUNTED: u64 = 200_000;
/// Between two looks at a link.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// One near each node.
const PEOPLE: [(&str, Sdk); 3] = [("ada", Sdk::Native), ("bob", Sdk::Native), ("cyd", Sdk::Native)];

/// What the first host sends for each byte that comes to it, from now on.
async fn sent_for_each(deployment: &Deployment) -> Result<f64> {
    let carried = || host(&deployment.stack(), 0)?.carried();
    let (received, sent) = carried()?;
    loop {
        let now = carried()?;
        if now.0 >= received + COUNTED {
            let (received, sent) = (u32::try_from(now.0 - received)?, u32::try_from(now.1 - sent)?);
            return Ok(f64::from(sent) / f64::from(received));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn a_track_crosses_once_for_each_node(deployment: &Arc<Deployment>) -> Result<()> {
    let scene = Scene::on(Arc::clone(deployment));
    let ada = join(&scene, "ada", 0, vec![Publish::camera("camera")]).await?;
    let mut viewers = Vec::new();
    // Of three at one other node, and then of two more at the third one.
    for (node, names, share) in [(1, &["bob", "cyd", "dan"][..], 0.8..1.6), (2, &["eve", "fay"][..], 1.7..2.6)] {
        for name in names {
            viewers.push(join(&scene, name, node, Vec::new()).await?);
        }
        for viewer in &mut viewers {
            sees_more(viewer, FLOWING).await?;
        }
        let sent = sent_for_each(deployment).await?;
        println!("{} watch at {node} other nodes: {sent:.2} bytes sent for each received", viewers.len());
        ensure!(share.contains(&sent), "{sent:.2} bytes sent for each received, not {share:?}");
    }
    for viewer in viewers {
        viewer.leave().await?;
    }
    while sent_for_each(deployment).await? > 0.3 {}
    ada.leave().await
}

async fn the_node_between_dies(deployment: Arc<Deployment>) -> Result<()> {
    let call = Call::open_in(deployment, &PLACES, Mode::Single, &PEOPLE).await?;
    each_has_one(&call).await?;
    let since = call.marks().await?;
    if let Some(node) = call.scene.deployment.stack().nodes().get_mut(1) {
        node.process.kill();
    }
    call.goes_on().await?;
    call.data_gets_through("after").await?;
    call.heard_of_no_end(&since).await
}

/// One story: hosts are made once in a process.
#[tokio::test(flavor = "multi_thread")]
async fn and_the_node_between_may_die() -> Result<()> {
    let hosts = u8::try_from(PLACES.len())?;
    let deployment = tokio::task::spawn_blocking(move || Deployment::on_hosts(hosts, Vec::new())).await??;
    a_track_crosses_once_for_each_node(&deployment).await?;
    the_node_between_dies(deployment).await
}
