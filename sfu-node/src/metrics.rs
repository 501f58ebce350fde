//! The node's Prometheus metrics.

use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::media::api::{ROUND_TRIP_BOUNDS, RoundTrips, ShardStats};

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    /// Short name.
    pub(crate) reason: &'static str,
}

/// All metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    shards: std::sync::Arc<ShardCollector>,
    /// Sessions not opened.
    pub(crate) sessions_refused: Family<Reason, Counter>,
    /// Opened, but not new: another node was lost.
    pub(crate) sessions_moved_here: Counter,
    /// 1 while the fleet link is up.
    pub(crate) fleet_link_up: Gauge,
    /// Room links up.
    pub(crate) room_links_up: Gauge,
    /// Links of either kind that broke.
    pub(crate) links_lost: Counter,
    /// Rooms asked to leave because the node was busy.
    pub(crate) rooms_shed: Counter,
    /// Frames of the edge that do not parse.
    pub(crate) bad_messages: Counter,
    /// Rooms given up because their messages could not be delivered.
    pub(crate) room_outbox_full: Counter,
}

impl Metrics {
    /// Everything at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("meridian_node");
        let shards = std::sync::Arc::new(ShardCollector::default());
        registry.register_collector(Box::new(shards.clone()));
        let metrics = Self {
            shards,
            sessions_refused: Family::default(),
            sessions_moved_here: Counter::default(),
            fleet_link_up: Gauge::default(),
            room_links_up: Gauge::default(),
            links_lost: Counter::default(),
            rooms_shed: Counter::default(),
            bad_messages: Counter::default(),
            room_outbox_full: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("sessions_refused", "Sessions not opened, by reason", metrics.sessions_refused.clone());
        let moved = "Sessions opened that another node had before";
        registry.register("sessions_moved_here", moved, metrics.sessions_moved_here.clone());
        registry.register("fleet_link_up", "1 while the fleet link is up", metrics.fleet_link_up.clone());
        registry.register("room_links_up", "Room links up", metrics.room_links_up.clone());
        registry.register("links_lost", "Fleet and room links that broke", metrics.links_lost.clone());
        let shed = "Rooms asked to leave because the node was busy";
        registry.register("rooms_shed", shed, metrics.rooms_shed.clone());
        registry.register("bad_messages", "Frames of the edge that do not parse", metrics.bad_messages.clone());
        registry.register("room_outbox_full", "Rooms whose link could not keep up", metrics.room_outbox_full.clone());
        Self { registry, ..metrics }
    }

    /// Takes the counters of each shard and what the control task counts.
    pub(crate) fn set_shards(&self, stats: &[ShardStats], sessions: usize, tracks: usize) {
        let count = |n| i64::try_from(n).unwrap_or(i64::MAX);
        let latest = Latest { shards: stats.to_vec(), sessions: count(sessions), tracks: count(tracks) };
        *self.shards.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
    }

    /// OpenMetrics text.
    ///
    /// # Errors
    /// When a metric cannot be formatted.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The shards count by themselves; this shows what they last said.
#[derive(Debug, Default)]
struct ShardCollector {
    latest: Mutex<Latest>,
}

#[derive(Debug, Default)]
struct Latest {
    shards: Vec<ShardStats>,
    sessions: i64,
    tracks: i64,
}

/// A counter or gauge of a shard: name, help, value.
type Shown = (&'static str, &'static str, fn(&ShardStats) -> u64);

const SHARD_GAUGES: [Shown; 5] = [
    ("transports", "ICE transports open", |stats| stats.transports),
    ("receivers", "Tracks received", |stats| stats.receivers),
    ("senders", "Subscriptions sent", |stats| stats.senders),
    ("busy_percent", "Share of a core taken in the last second", |stats| stats.busy_percent),
    ("relief", "Steps by which video is left out for want of CPU", |stats| stats.relief),
];

const SHARD_COUNTERS: [Shown; 28] = [
    ("packets_received", "RTP and RTCP packets received", |stats| stats.packets_received),
    ("bytes_received", "Bytes received", |stats| stats.bytes_received),
    ("packets_sent", "RTP and RTCP packets sent", |stats| stats.packets_sent),
    ("bytes_sent", "Bytes sent", |stats| stats.bytes_sent),
    ("send_calls", "Send system calls", |stats| stats.send_calls),
    ("receive_calls", "Receive system calls", |stats| stats.receive_calls),
    ("dropped_unknown_address", "From an address ICE has not validated", |stats| stats.dropped_unknown_address),
    ("dropped_bad_stun", "Binding requests that do not authenticate", |stats| stats.dropped_bad_stun),
    ("dropped_bad_srtp", "SRTP or SRTCP that does not authenticate", |stats| stats.dropped_bad_srtp),
    ("dropped_replay", "SRTP or SRTCP seen before", |stats| stats.dropped_replay),
    ("dropped_malformed", "Malformed, or of no known section", |stats| stats.dropped_malformed),
    ("dropped_send", "The socket would not take it", |stats| stats.dropped_send),
    ("dropped_receive", "The socket's receive buffer was full", |stats| stats.dropped_receive),
    ("sent_lost", "RTP packets sent that receivers report lost", |stats| stats.sent_lost),
    ("received_lost", "RTP packets of publishers that had not come when reported on", |stats| stats.received_lost),
    ("nacks_received", "NACKs received", |stats| stats.nacks_received),
    ("nacks_sent", "NACKs sent", |stats| stats.nacks_sent),
    ("plis_received", "Keyframe requests received", |stats| stats.plis_received),
    ("plis_sent", "Keyframe requests sent", |stats| stats.plis_sent),
    ("retransmissions_sent", "Packets sent again", |stats| stats.retransmissions_sent),
    ("padding_sent", "Packets that only probed for bandwidth", |stats| stats.padding_sent),
    ("data_messages_received", "Data channel messages received", |stats| stats.data_messages_received),
    ("data_messages_sent", "Data channel messages sent", |stats| stats.data_messages_sent),
    ("data_messages_dropped", "Not sent: the receiver does not keep up", |stats| stats.data_messages_dropped),
    ("crossings_sent", "Packets and messages handed to other shards", |stats| stats.crossings_sent),
    ("crossings_received", "Packets and messages other shards handed over", |stats| stats.crossings_received),
    ("crossings_dropped", "Not handed over: the other shard does not keep up", |stats| stats.crossings_dropped),
    ("sctp_panics", "Peers whose data channels ended in a panic of the SCTP library", |stats| stats.sctp_panics),
];

impl Collector for ShardCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let of_node = [
            ("sessions", "Sessions open", latest.sessions),
            ("tracks", "Tracks published or subscribed to", latest.tracks),
        ];
        for (name, help, value) in of_node {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let shards = || (0_u8..).zip(&latest.shards).map(|(shard, stats)| ([("shard", shard.to_string())], stats));
        for (name, help, value) in SHARD_GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, stats) in shards() {
                let gauge = ConstGauge::new(i64::try_from(value(stats)).unwrap_or(i64::MAX));
                gauge.encode(metric.encode_family(&labels)?)?;
            }
        }
        for (name, help, value) in SHARD_COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, stats) in shards() {
                ConstCounter::new(value(stats)).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "CPU time of the shard's thread";
        let mut metric = encoder.encode_descriptor("cpu_seconds", help, None, MetricType::Counter)?;
        for (labels, stats) in shards() {
            ConstCounter::new(seconds(stats.cpu_micros)).encode(metric.encode_family(&labels)?)?;
        }
        let help = "From the node to its clients and back, by their receiver reports";
        let mut metric = encoder.encode_descriptor("round_trip_seconds", help, None, MetricType::Histogram)?;
        for (labels, stats) in shards() {
            let RoundTrips { counts, micros } = stats.round_trips;
            let bounds = ROUND_TRIP_BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let histogram = (seconds(micros), counts.iter().sum());
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(histogram.0, histogram.1, &buckets, None)?;
        }
        Ok(())
    }
}

/// Of microseconds. A double is exact enough for ages of them.
#[allow(clippy::cast_precision_loss)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboard_and_alerts_show_only_what_there_is() {
        let metrics = Metrics::new();
        // A family is shown from its first member on.
        metrics.sessions_refused.get_or_create(&Reason { reason: "no_capacity" }).inc();
        let text = metrics.encode().unwrap();
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops");
        let mut shown = 0;
        for file in ["dashboard.json", "alerts.yml", "alerts.test.yml"] {
            let ops = std::fs::read_to_string(format!("{directory}/{file}")).unwrap();
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            let names = ops.split(|c| !is_name(c)).filter(|word| word.starts_with("meridian_node_"));
            for name in names {
                shown += 1;
                let kinds = [("_total", "counter"), ("_bucket", "histogram")];
                let kind = kinds.into_iter().find_map(|(end, kind)| Some((name.strip_suffix(end)?, kind)));
                let (name, kind) = kind.unwrap_or((name, "gauge"));
                assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{file}: no {kind} {name}");
            }
        }
        assert!(shown > 50, "{shown}");
    }

    #[test]
    fn round_trips_are_a_histogram() {
        let mut stats = ShardStats::default();
        for micros in [9_000, 10_000, 30_000, 30_000, 2_000_000] {
            stats.round_trips.take(micros);
        }
        let metrics = Metrics::new();
        metrics.set_shards(&[stats], 0, 0);
        let text = metrics.encode().unwrap();
        for line in ["bucket{le=\"0.01\",shard=\"0\"} 2", "bucket{le=\"0.05\",shard=\"0\"} 4", "sum{shard=\"0\"} 2.079"]
        {
            assert!(text.contains(&format!("meridian_node_round_trip_seconds_{line}\n")), "{line}:\n{text}");
        }
        for line in ["bucket{le=\"1.0\",shard=\"0\"} 4", "bucket{le=\"+Inf\",shard=\"0\"} 5", "count{shard=\"0\"} 5"] {
            assert!(text.contains(&format!("meridian_node_round_trip_seconds_{line}\n")), "{line}:\n{text}");
        }
    }

    #[test]
    fn every_counter_of_each_shard_is_shown() {
        // No `..`: a new counter must be added here too.
        let stats = ShardStats {
            transports: 1,
            receivers: 2,
            senders: 3,
            packets_received: 4,
            bytes_received: 5,
            packets_sent: 6,
            bytes_sent: 7,
            send_calls: 8,
            receive_calls: 9,
            dropped_unknown_address: 10,
            dropped_bad_stun: 11,
            dropped_bad_srtp: 12,
            dropped_replay: 13,
            dropped_malformed: 14,
            dropped_send: 15,
            nacks_received: 16,
            nacks_sent: 17,
            plis_received: 18,
            plis_sent: 19,
            retransmissions_sent: 20,
            padding_sent: 21,
            data_messages_received: 22,
            data_messages_sent: 23,
            data_messages_dropped: 24,
            sctp_panics: 25,
            crossings_sent: 28,
            crossings_received: 29,
            crossings_dropped: 30,
            dropped_receive: 31,
            busy_percent: 32,
            relief: 33,
            sent_lost: 34,
            received_lost: 35,
            cpu_micros: 36_500_000,
            round_trips: RoundTrips::default(),
        };
        let metrics = Metrics::new();
        let other = ShardStats { packets_sent: 1_000, ..ShardStats::default() };
        metrics.set_shards(&[stats, other], 26, 27);
        let text = metrics.encode().unwrap();
        let shown = |value: u64| {
            let end = format!(" {value}");
            text.lines().any(|line| line.starts_with("meridian_node_") && line.ends_with(&end))
        };
        for value in 1..=35 {
            assert!(shown(value), "{value} is missing:\n{text}");
        }
        for line in ["packets_sent_total{shard=\"1\"} 1000", "cpu_seconds_total{shard=\"0\"} 36.5"] {
            assert!(text.contains(&format!("meridian_node_{line}\n")), "{line} is missing:\n{text}");
        }
    }
}
