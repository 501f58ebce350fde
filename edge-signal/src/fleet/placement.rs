//! The placement policy: near and cheap first, two of those compared by load, none that is nearly full while there is
//! another. Pure; what looks like chance comes from the names of room and node, so that a question has one answer.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use shared::control::{PlaceRequest, SPREAD_KM};
use shared::ids::NodeId;

use super::Linked;

/// Share of its sessions, CPU, bandwidth or packets from which a node only gets rooms that nobody else can take.
pub const BUSY: f64 = 0.85;
/// Nodes that are farther than the best one by less count as near as that, km: about 5 ms of round trip in fibre.
pub const NEAR_KM: f64 = 500.0;
/// How much farther a node may be for each unit that its bandwidth costs less, km: `egress_cost` is in US cents a gigabyte.
pub const KM_PER_CENT: f64 = 100.0;

/// The best node for a room, if any may take it.
///
/// Of the nodes that are about as near (and as cheap) as the best one, two are picked by the room's name, and the less
/// loaded one gets it: rooms that are placed on the same old news about load do not all go to one node.
pub(super) fn choose(nodes: &BTreeMap<NodeId, Linked>, request: &PlaceRequest) -> Option<NodeId> {
    if let Some(wanted) = &request.node
        && let Some(node) = nodes.get(wanted)
        && is_able(wanted, node, request)
    {
        return Some(wanted.clone());
    }
    let best = best(nodes, request);
    if request.serving.is_empty() {
        return best;
    }
    let far_km = |id: &NodeId| Some(weigh(id, nodes.get(id)?, request).far_km);
    let serving = request.serving.iter().filter_map(|id| Some((id, far_km(id)?)));
    let Some((serving, there_km)) = serving.min_by(|(_, a), (_, b)| a.total_cmp(b)) else { return best };
    let is_worth_it = |best: &NodeId| far_km(best).is_some_and(|far_km| far_km + SPREAD_KM < there_km);
    best.filter(is_worth_it).or_else(|| Some(serving.clone()))
}

fn best(nodes: &BTreeMap<NodeId, Linked>, request: &PlaceRequest) -> Option<NodeId> {
    let able: Vec<Candidate<'_>> = nodes
        .iter()
        .filter(|(id, node)| is_able(id, node, request))
        .map(|(id, node)| weigh(id, node, request))
        .collect();
    let idle = able.iter().filter(|candidate| candidate.used < BUSY);
    let Some(best) = idle.clone().map(|candidate| candidate.far_km).min_by(f64::total_cmp) else {
        return able.iter().min_by(|a, b| a.used.total_cmp(&b.used)).map(|candidate| candidate.id.clone());
    };
    let near = idle.filter(|candidate| candidate.far_km <= best + NEAR_KM);
    let mut two: [Option<(u64, &Candidate<'_>)>; 2] = [None, None];
    for candidate in near {
        let mut hasher = DefaultHasher::new();
        (request.room.as_str(), candidate.id.as_str()).hash(&mut hasher);
        let drawn = Some((hasher.finish(), candidate));
        let is_higher = |than: &Option<(u64, &Candidate<'_>)>| {
            than.as_ref().is_none_or(|(lot, _)| drawn.as_ref().is_some_and(|(mine, _)| mine > lot))
        };
        match &two {
            [first, _] if is_higher(first) => two = [drawn, two[0].take()],
            [_, second] if is_higher(second) => two[1] = drawn,
            _ => {}
        }
    }
    two.iter().flatten().min_by(|(_, a), (_, b)| a.used.total_cmp(&b.used)).map(|(_, candidate)| candidate.id.clone())
}

struct Candidate<'a> {
    id: &'a NodeId,
    used: f64,
    /// With what its bandwidth costs.
    far_km: f64,
}

fn is_able(id: &NodeId, node: &Linked, request: &PlaceRequest) -> bool {
    let wanted = request.region.as_ref().is_none_or(|region| *region == node.info.region);
    wanted
        && (node.info.pipes || request.serving.is_empty())
        && !node.is_draining()
        && !request.exclude.contains(id)
        && node.sessions().saturating_add(request.sessions.max(1)) <= node.info.max_sessions
        && node.strain() < 1.0
}

fn weigh<'a>(id: &'a NodeId, node: &Linked, request: &PlaceRequest) -> Candidate<'a> {
    let distance = request.client.map_or(0.0, |client| client.distance_km(node.info.place));
    let cost = f64::from(node.info.limits.egress_cost.unwrap_or_default()) * KM_PER_CENT;
    Candidate { id, used: node.used(), far_km: distance + cost }
}
