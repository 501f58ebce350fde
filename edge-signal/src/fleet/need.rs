//! How many nodes each region needs, for what starts and ends machines. Pure.

use std::collections::BTreeMap;

use shared::control::{NeedReason, RegionNeed};
use shared::ids::{NodeId, RegionName};

use super::Linked;

/// Share of what it can carry that a node should carry: what is left takes rooms that grow, and those of a node that dies.
const WANTED_USE: f64 = 0.6;

/// Every region that has a node.
pub(super) fn of_regions(nodes: &BTreeMap<NodeId, Linked>) -> Vec<RegionNeed> {
    let mut regions: BTreeMap<RegionName, Vec<&Linked>> = BTreeMap::new();
    for node in nodes.values() {
        regions.entry(node.info.region.clone()).or_default().push(node);
    }
    regions.into_iter().map(|(region, nodes)| of_region(region, &nodes)).collect()
}

fn of_region(region: RegionName, nodes: &[&Linked]) -> RegionNeed {
    let (draining, taking): (Vec<&Linked>, Vec<&Linked>) = nodes.iter().partition(|node| node.is_draining());
    let load = |nodes: &[&Linked]| nodes.iter().map(|node| node.used()).sum::<f64>();
    // What drains comes to the others.
    let kept = if taking.is_empty() { 0 } else { wanted(load(&taking)) };
    let all = wanted(load(nodes));
    let count = |nodes: &[&Linked]| u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let has = count(&taking);
    let why = match () {
        () if kept > has => NeedReason::Load,
        () if all > has => NeedReason::Draining,
        () if all < has => NeedReason::Idle,
        () => NeedReason::Fits,
    };
    let sessions = nodes.iter().map(|node| node.sessions()).fold(0, u32::saturating_add);
    RegionNeed { region, nodes: has, draining: count(&draining), sessions, load: load(nodes), wanted: all, why }
}

/// Nodes for the load of so many full ones; a region that is served keeps one.
fn wanted(load: f64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count; it saturates")]
    let nodes = (load / WANTED_USE).ceil() as u32;
    nodes.max(1)
}
