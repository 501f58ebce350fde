//! The placement policy: near first, but not onto a node that is nearly full.

use std::collections::BTreeMap;

use shared::control::PlaceRequest;
use shared::ids::NodeId;

use super::Linked;

/// Share of its sessions or CPU from which a node only gets rooms that nobody else can take.
const BUSY: f64 = 0.85;
/// Distances that differ by less count as the same, km: about 5 ms of round trip in fibre.
const NEAR_KM: f64 = 500.0;

/// The best node for a room, if any may take it.
pub(super) fn choose(nodes: &BTreeMap<NodeId, Linked>, request: &PlaceRequest) -> Option<NodeId> {
    let able = nodes.iter().filter(|(id, node)| {
        let wanted = request.region.as_ref().is_none_or(|region| *region == node.info.region);
        wanted
            && !node.draining
            && !node.drained
            && !request.exclude.contains(id)
            && node.sessions().saturating_add(request.sessions.max(1)) <= node.info.max_sessions
    });
    able.min_by(|(_, a), (_, b)| cost(a, request).total_cmp(&cost(b, request))).map(|(id, _)| id.clone())
}

/// Lower is better. Busy nodes come after all others, then distance counts in steps, then load.
fn cost(node: &Linked, request: &PlaceRequest) -> f64 {
    /// More steps than the Earth has.
    const BUSY_COST: f64 = 1000.0;
    let used = (f64::from(node.sessions()) / f64::from(node.info.max_sessions.max(1))).max(f64::from(node.load().cpu));
    let used = used.clamp(0.0, 1.0);
    let steps = request.client.map_or(0.0, |client| (client.distance_km(node.info.place) / NEAR_KM).floor());
    let busy = if used >= BUSY { BUSY_COST } else { 0.0 };
    busy + steps + used * 0.99
}
