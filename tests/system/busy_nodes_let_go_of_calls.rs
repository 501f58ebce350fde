//! A node that is full gives some of its calls to one that comes to its help: nobody leaves, and the others stay.

use anyhow::{Context, Result, ensure};
use meridian_tests::call::Call;
use meridian_tests::native_crowd::NativeCrowd;
use meridian_tests::scene::sum_metric;

#[tokio::test(flavor = "multi_thread")]
async fn to_a_new_one_nearby() -> Result<()> {
    const FULL: usize = 4;
    // Places on one machine repeat from the fifth on: the first and the last are neighbours.
    const NODES: usize = 5;
    let call = Call::of_small_nodes(NODES, FULL).await?;
    let nodes = call.nodes().await?;
    // All are to be on the first one.
    let helper =
        nodes.iter().find(|node| node.info.region.as_str() == "local-e").context("no fifth node")?.node.clone();
    for other in nodes.iter().filter(|node| node.info.region.as_str() != "local-a") {
        call.drain(&other.node, true).await?;
    }
    let crowd = NativeCrowd::join(call.scene.url(), FULL / 2).await?;
    let busy = call.serving().await?;
    crowd.mark().await?;
    call.drain(&helper, false).await?;
    for node in [busy, NODES - 1] {
        call.has_sessions(node, 2.0).await?;
    }
    let shed = sum_metric(&call.metrics(busy).await?, "meridian_node_rooms_shed_total");
    ensure!(shed > 0.0 && shed < 2.0, "{shed} rooms were asked to leave");
    let mut stills = crowd.stills().await?;
    stills.sort_by(f64::total_cmp);
    println!("pictures stood still for {stills:.0?} ms");
    let heard = crowd.heard().await?;
    ensure!(heard.is_empty(), "somebody heard {heard:?}");
    Ok(())
}
