//! `/metrics`: what the whole deployment has and needs, for Prometheus. Each node's own figures are at its own `/metrics`.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use shared::control::RegionNeed;
use subtle::ConstantTimeEq;

use crate::refusal::{Reason, Refusal};
use crate::report::why_of;

/// Media type of [`encode`]'s text (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many rooms there are, and people in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Rooms.
    pub rooms: u32,
    /// Participants that count: no agents, no recorders.
    pub participants: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Region {
    region: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Nodes {
    region: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Wanted {
    region: String,
    why: &'static str,
}

/// Whether this bearer token is the deployment's for metrics. Without one nobody is told.
///
/// # Errors
/// 401, or 404 where metrics are off.
pub fn check(expected: Option<&str>, given: Option<&str>) -> Result<(), Refusal> {
    let Some(expected) = expected else {
        return Err(Refusal::new(Reason::NotFound, "metrics are off: set the secret METRICS_TOKEN"));
    };
    let Some(given) = given else {
        return Err(Refusal::new(Reason::TokenMissing, "a bearer token is required"));
    };
    if bool::from(given.as_bytes().ct_eq(expected.as_bytes())) {
        Ok(())
    } else {
        Err(Refusal::new(Reason::CredentialsWrong, "this is not METRICS_TOKEN"))
    }
}

/// The text that Prometheus reads.
///
/// # Errors
/// None in practice: writing to memory does not fail.
pub fn encode(needs: &[RegionNeed], tally: Tally) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("meridian_edge");
    let nodes = Family::<Nodes, Gauge>::default();
    let wanted = Family::<Wanted, Gauge>::default();
    let sessions = Family::<Region, Gauge>::default();
    let load = Family::<Region, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for need in needs {
        let region = || need.region.to_string();
        for (state, count) in [("taking", need.nodes), ("draining", need.draining)] {
            nodes.get_or_create(&Nodes { region: region(), state }).set(count.into());
        }
        wanted.get_or_create(&Wanted { region: region(), why: why_of(need.why) }).set(need.wanted.into());
        sessions.get_or_create(&Region { region: region() }).set(need.sessions.into());
        load.get_or_create(&Region { region: region() }).set(need.load);
    }
    registry.register("nodes", "Nodes with a link to the edge: those that take rooms, and those that drain", nodes);
    registry.register("nodes_wanted", "Nodes that should take rooms, and why so many", wanted);
    registry.register("sessions", "Sessions on all nodes", sessions);
    registry.register("load_nodes", "Load, in nodes that are full with it", load);
    for (name, help, count) in
        [("rooms", "Rooms", tally.rooms), ("participants", "Participants in rooms", tally.participants)]
    {
        let gauge = Gauge::<i64>::default();
        gauge.set(count.into());
        registry.register(name, help, gauge);
    }
    let mut encoded = String::new();
    text::encode(&mut encoded, &registry)?;
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use shared::control::NeedReason;
    use shared::ids::RegionName;

    use super::*;

    #[test]
    fn it_says_what_each_region_has_and_needs() {
        let need = |region: &str, why| RegionNeed {
            region: RegionName::try_from(region).unwrap(),
            nodes: 2,
            draining: 1,
            sessions: 90,
            load: 1.5,
            wanted: 3,
            why,
        };
        let needs = [need("fra", NeedReason::Draining), need("sin", NeedReason::Idle)];
        let text = encode(&needs, Tally { rooms: 7, participants: 20 }).unwrap();
        for line in [
            "meridian_edge_nodes{region=\"fra\",state=\"taking\"} 2",
            "meridian_edge_nodes{region=\"sin\",state=\"draining\"} 1",
            "meridian_edge_nodes_wanted{region=\"fra\",why=\"draining\"} 3",
            "meridian_edge_nodes_wanted{region=\"sin\",why=\"idle\"} 3",
            "meridian_edge_sessions{region=\"fra\"} 90",
            "meridian_edge_load_nodes{region=\"fra\"} 1.5",
            "meridian_edge_rooms 7",
            "meridian_edge_participants 20",
        ] {
            assert!(text.lines().any(|has| has == line), "{line}: {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn alerts_look_only_at_what_there_is() {
        let need = RegionNeed {
            region: RegionName::try_from("fra").unwrap(),
            nodes: 1,
            draining: 0,
            sessions: 0,
            load: 0.0,
            wanted: 1,
            why: NeedReason::Fits,
        };
        let text = encode(&[need], Tally::default()).unwrap();
        let ops = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops");
        let mut seen = 0;
        for file in ["alerts.yml", "alerts.test.yml", "dashboard.json"] {
            let used = std::fs::read_to_string(format!("{ops}/{file}")).unwrap();
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            for name in used.split(|c| !is_name(c)).filter(|word| word.starts_with("meridian_edge_")) {
                seen += 1;
                assert!(text.contains(&format!("# TYPE {name} gauge\n")), "{file}: no {name}");
            }
        }
        assert!(seen > 1, "{seen}");
    }

    #[test]
    fn only_who_has_the_token_is_told() {
        let status = |expected, given| check(expected, given).map_err(|refusal| refusal.reason.status());
        assert_eq!(status(Some("secret"), Some("secret")), Ok(()));
        for wrong in [Some("secre"), Some("secrets"), Some(""), None] {
            assert_eq!(status(Some("secret"), wrong), Err(401), "{wrong:?}");
        }
        assert_eq!(status(None, Some("")), Err(404));
    }
}
