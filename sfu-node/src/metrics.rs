//! The node's Prometheus metrics.

use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::media::api::ShardStats;

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
    shard: std::sync::Arc<ShardCollector>,
    /// Sessions not opened.
    pub(crate) sessions_refused: Family<Reason, Counter>,
    /// 1 while the fleet link is up.
    pub(crate) fleet_link_up: Gauge,
    /// Room links up.
    pub(crate) room_links_up: Gauge,
    /// Links of either kind that broke.
    pub(crate) links_lost: Counter,
    /// Frames of the edge that do not parse.
    pub(crate) bad_messages: Counter,
    /// Rooms given up because their messages could not be delivered.
    pub(crate) room_outbox_full: Counter,
}

impl Metrics {
    /// Everything at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("meridian_node");
        let shard = std::sync::Arc::new(ShardCollector::default());
        registry.register_collector(Box::new(shard.clone()));
        let metrics = Self {
            shard,
            sessions_refused: Family::default(),
            fleet_link_up: Gauge::default(),
            room_links_up: Gauge::default(),
            links_lost: Counter::default(),
            bad_messages: Counter::default(),
            room_outbox_full: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("sessions_refused", "Sessions not opened, by reason", metrics.sessions_refused.clone());
        registry.register("fleet_link_up", "1 while the fleet link is up", metrics.fleet_link_up.clone());
        registry.register("room_links_up", "Room links up", metrics.room_links_up.clone());
        registry.register("links_lost", "Fleet and room links that broke", metrics.links_lost.clone());
        registry.register("bad_messages", "Frames of the edge that do not parse", metrics.bad_messages.clone());
        registry.register("room_outbox_full", "Rooms whose link could not keep up", metrics.room_outbox_full.clone());
        Self { registry, ..metrics }
    }

    /// Takes the shard's counters and what the control task counts.
    pub(crate) fn set_shard(&self, stats: ShardStats, sessions: usize, tracks: usize) {
        let count = |n| i64::try_from(n).unwrap_or(i64::MAX);
        *self.shard.latest.lock().unwrap_or_else(PoisonError::into_inner) = (stats, count(sessions), count(tracks));
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

/// The shard counts by itself; this shows what it last said.
#[derive(Debug, Default)]
struct ShardCollector {
    latest: Mutex<(ShardStats, i64, i64)>,
}

impl Collector for ShardCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (stats, sessions, tracks) = *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let gauge = |n| i64::try_from(n).unwrap_or(i64::MAX);
        let gauges = [
            ("sessions", "Sessions open", sessions),
            ("tracks", "Tracks published or subscribed to", tracks),
            ("transports", "ICE transports open", gauge(stats.transports)),
            ("receivers", "Tracks received", gauge(stats.receivers)),
            ("senders", "Subscriptions sent", gauge(stats.senders)),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                prometheus_client::metrics::MetricType::Gauge,
            )?)?;
        }
        let counters = [
            ("packets_received", "RTP and RTCP packets received", stats.packets_received),
            ("bytes_received", "Bytes received", stats.bytes_received),
            ("packets_sent", "RTP and RTCP packets sent", stats.packets_sent),
            ("bytes_sent", "Bytes sent", stats.bytes_sent),
            ("send_calls", "Send system calls", stats.send_calls),
            ("receive_calls", "Receive system calls", stats.receive_calls),
            ("dropped_unknown_address", "From an address ICE has not validated", stats.dropped_unknown_address),
            ("dropped_bad_stun", "Binding requests that do not authenticate", stats.dropped_bad_stun),
            ("dropped_bad_srtp", "SRTP or SRTCP that does not authenticate", stats.dropped_bad_srtp),
            ("dropped_replay", "SRTP or SRTCP seen before", stats.dropped_replay),
            ("dropped_malformed", "Malformed, or of no known section", stats.dropped_malformed),
            ("dropped_send", "The socket would not take it", stats.dropped_send),
            ("nacks_received", "NACKs received", stats.nacks_received),
            ("nacks_sent", "NACKs sent", stats.nacks_sent),
            ("plis_received", "Keyframe requests received", stats.plis_received),
            ("plis_sent", "Keyframe requests sent", stats.plis_sent),
            ("retransmissions_sent", "Packets sent again", stats.retransmissions_sent),
            ("padding_sent", "Packets that only probed for bandwidth", stats.padding_sent),
            ("data_messages_received", "Data channel messages received", stats.data_messages_received),
            ("data_messages_sent", "Data channel messages sent", stats.data_messages_sent),
            ("data_messages_dropped", "Not sent: the receiver does not keep up", stats.data_messages_dropped),
            ("sctp_panics", "Peers whose data channels ended in a panic of the SCTP library", stats.sctp_panics),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            let descriptor =
                encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Counter)?;
            counter.encode(descriptor)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_the_shard_is_shown() {
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
        };
        let metrics = Metrics::new();
        metrics.set_shard(stats, 26, 27);
        let text = metrics.encode().unwrap();
        let shown = |value: u64| {
            let end = format!(" {value}");
            text.lines().any(|line| line.starts_with("meridian_node_") && line.ends_with(&end))
        };
        for value in 1..=27 {
            assert!(shown(value), "{value} is missing:\n{text}");
        }
    }
}
