//! Which node is to let go of calls, and how many: one that is busy for long while another one nearby has room. Pure.

use std::collections::BTreeMap;

use shared::ids::NodeId;

use super::Linked;
use super::placement::{BUSY, NEAR_KM};

/// Heartbeats in a row that a node is busy before it is relieved, and then before it is again: what is over sooner moves
/// nobody, and what has moved is in the load of both by then.
pub const HOT_HEARTBEATS: u32 = 10;
/// How much less of what it has another node must use to be the cooler one: less is not worth a move.
pub const MARGIN: f64 = 0.3;
/// Most that a node lets go of at once, as a share of its sessions.
pub const MAX_SHARE: f64 = 0.25;

/// How many sessions `id` is to let go of, if any: half of what it has more than the coolest node nearby.
pub(super) fn of(nodes: &BTreeMap<NodeId, Linked>, id: &NodeId) -> Option<u32> {
    let hot = nodes.get(id).filter(|node| node.hot >= HOT_HEARTBEATS)?;
    let (used, sessions) = (hot.used(), hot.sessions());
    let is_near = |node: &&Linked| hot.info.place.distance_km(node.info.place) <= NEAR_KM;
    let others = nodes.iter().filter(|(other, node)| *other != id && !node.is_draining()).map(|(_, node)| node);
    let coolest = others.filter(is_near).map(Linked::used).min_by(f64::total_cmp)?;
    if coolest + MARGIN > used {
        return None;
    }
    let share = ((used - coolest) / 2.0 / used).min(MAX_SHARE);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count; it saturates")]
    let relief = (f64::from(sessions) * share).ceil() as u32;
    // One session alone is no warmth that another node would not have too.
    (sessions > 1).then_some(relief)
}

impl Linked {
    /// Counts a heartbeat by which it is busy, or not.
    pub(super) fn feel(&mut self) {
        let is_hot = self.used() >= BUSY && !self.is_draining();
        self.hot = if is_hot { self.hot.saturating_add(1) } else { 0 };
    }
}
