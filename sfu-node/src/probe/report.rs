//! What the probe found, for people, for programs and for Prometheus.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use shared::ids::RegionName;
use url::Url;

use super::media::{Kind, Quality};

/// A step of a join, in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The edge gave an access token.
    Token,
    /// The WebSocket is open: the token was checked, and the room has a node.
    Signaling,
    /// The join response came.
    Join,
    /// The node's answer came.
    Answer,
    /// ICE found a path to the node.
    Ice,
    /// The DTLS handshake is done.
    Dtls,
    /// The first packet of the other participant came.
    Media,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Signaling => "signaling",
            Self::Join => "join",
            Self::Answer => "answer",
            Self::Ice => "ice",
            Self::Dtls => "dtls",
            Self::Media => "media",
        }
    }
}

/// The steps of one participant's join that are done.
#[derive(Debug, Default)]
pub(super) struct Steps {
    last: Option<Instant>,
    done: Vec<(Step, Duration)>,
}

impl Steps {
    /// The first step begins.
    pub(super) fn start(&mut self) {
        self.last = Some(Instant::now());
    }

    /// A step was done at this time, and the next one begins. What was done before the step before it took no time.
    pub(super) fn done(&mut self, step: Step, at: Instant) {
        let last = self.last.unwrap_or(at);
        self.done.push((step, at.saturating_duration_since(last)));
        self.last = Some(at.max(last));
    }

    fn total(&self) -> Duration {
        self.done.iter().map(|(_, took)| *took).sum()
    }

    fn json(&self) -> Value {
        let steps: Map<String, Value> =
            self.done.iter().map(|(step, took)| (step.name().to_owned(), json!(took.as_secs_f64()))).collect();
        json!({ "seconds": self.total().as_secs_f64(), "steps": steps })
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Report {
    edge: String,
    wanted: Option<String>,
    /// Where the node is.
    pub(super) region: String,
    /// Its id.
    pub(super) node: String,
    /// How the sender joined.
    pub(super) publisher: Steps,
    /// How the receiver joined.
    pub(super) subscriber: Steps,
    /// How media came through.
    pub(super) media: Vec<(Kind, Quality)>,
    /// Why the call did not come about.
    pub(super) failure: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    participant: &'static str,
    step: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ParticipantLabels {
    participant: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabels {
    region: String,
    node: String,
}

type Seconds = Gauge<f64, AtomicU64>;

impl Report {
    /// Nothing was tried yet.
    pub(super) fn new(edge: &Url, wanted: Option<&RegionName>) -> Self {
        Self {
            edge: edge.to_string(),
            wanted: wanted.map(ToString::to_string),
            region: String::new(),
            node: String::new(),
            publisher: Steps::default(),
            subscriber: Steps::default(),
            media: Vec::new(),
            failure: None,
        }
    }

    fn participants(&self) -> [(&'static str, &Steps); 2] {
        [("publisher", &self.publisher), ("subscriber", &self.subscriber)]
    }

    /// The greater share lost, of audio or of video.
    pub(super) fn worst_loss(&self) -> f64 {
        self.media.iter().map(|(_, quality)| quality.loss()).fold(0.0, f64::max)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "edge {}", self.edge);
        if let Some(wanted) = &self.wanted {
            let _ = writeln!(text, "region asked for: {wanted}");
        }
        if !self.node.is_empty() {
            let _ = writeln!(text, "node {} in region {}", self.node, self.region);
        }
        for (name, steps) in self.participants().into_iter().filter(|(_, steps)| !steps.done.is_empty()) {
            let each: Vec<String> =
                steps.done.iter().map(|(step, took)| format!("{} {}", step.name(), millis(*took))).collect();
            let _ = writeln!(text, "{name} joined in {}: {}", millis(steps.total()), each.join(", "));
        }
        for (kind, quality) in &self.media {
            let trip = |seconds| millis(Duration::from_secs_f64(seconds));
            let _ = writeln!(
                text,
                "{}: {} of {} packets lost ({:.2} %), round trip {} (95 %: {}), jitter {}",
                kind.name(),
                quality.sent.saturating_sub(quality.received),
                quality.sent,
                quality.loss() * 100.0,
                trip(quality.round_trip),
                trip(quality.round_trip_95),
                trip(quality.jitter),
            );
        }
        match &self.failure {
            Some(failure) => {
                let _ = writeln!(text, "FAILED after {}: {failure}", self.last_step());
            }
            None => text.push_str("the call works\n"),
        }
        text
    }

    fn last_step(&self) -> String {
        let last = self.participants().into_iter().rev().find_map(|(name, steps)| {
            let (step, _) = steps.done.last()?;
            Some(format!("{name}'s step {}", step.name()))
        });
        last.unwrap_or_else(|| "no step".to_owned())
    }

    /// For programs. Times are seconds.
    pub(super) fn json(&self) -> String {
        let media: Map<String, Value> = self
            .media
            .iter()
            .map(|(kind, quality)| {
                let mut fields = json!(quality);
                if let Some(fields) = fields.as_object_mut() {
                    fields.insert("loss".to_owned(), json!(quality.loss()));
                }
                (kind.name().to_owned(), fields)
            })
            .collect();
        let value = json!({
            "ok": self.failure.is_none(),
            "failure": self.failure,
            "edge": self.edge,
            "region_wanted": self.wanted,
            "region": self.region,
            "node": self.node,
            "publisher": self.publisher.json(),
            "subscriber": self.subscriber.json(),
            "media": media,
        });
        format!("{value}\n")
    }

    /// For Prometheus.
    pub(super) fn prometheus(&self) -> String {
        let mut registry = Registry::with_prefix("meridian_probe");
        let success = Gauge::<i64>::default();
        success.set(i64::from(self.failure.is_none()));
        registry.register("success", "1 if media came through", success);
        let place = Family::<PlaceLabels, Gauge>::default();
        if !self.node.is_empty() {
            place.get_or_create(&PlaceLabels { region: self.region.clone(), node: self.node.clone() }).set(1);
        }
        registry.register("node_info", "Which node served the room", place);
        let (steps, joins) =
            (Family::<StepLabels, Seconds>::default(), Family::<ParticipantLabels, Seconds>::default());
        for (participant, of) in self.participants() {
            for (step, took) in &of.done {
                steps.get_or_create(&StepLabels { participant, step: step.name() }).set(took.as_secs_f64());
            }
            if !of.done.is_empty() {
                joins.get_or_create(&ParticipantLabels { participant }).set(of.total().as_secs_f64());
            }
        }
        registry.register("step_seconds", "How long a step of the join took", steps);
        registry.register("join_seconds", "How long all steps done took", joins);
        type Shown = (&'static str, &'static str, fn(&Quality) -> f64);
        let shown: [Shown; 6] = [
            ("packets_sent", "Packets sent while media was measured", |quality| quality.sent.into()),
            ("packets_received", "Of these, packets received", |quality| quality.received.into()),
            ("loss_ratio", "Share of the packets that was lost", Quality::loss),
            ("round_trip_seconds", "From here through the node and back, median", |quality| quality.round_trip),
            ("round_trip_95_seconds", "The same, 95th percentile", |quality| quality.round_trip_95),
            ("jitter_seconds", "Interarrival jitter (RFC 3550)", |quality| quality.jitter),
        ];
        for (name, help, value) in shown {
            let family = Family::<KindLabels, Seconds>::default();
            for (kind, quality) in &self.media {
                family.get_or_create(&KindLabels { kind: kind.name() }).set(value(quality));
            }
            registry.register(name, help, family);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

fn millis(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let region = RegionName::try_from("fra").unwrap();
        let mut report = Report::new(&Url::parse("https://edge.example").unwrap(), Some(&region));
        (report.region, report.node) = ("fra".to_owned(), "ND_1".to_owned());
        report.publisher.start();
        let start = report.publisher.last.unwrap();
        report.publisher.done(Step::Token, start + Duration::from_millis(20));
        report.publisher.done(Step::Signaling, start + Duration::from_millis(50));
        let quality = Quality { sent: 100, received: 98, jitter: 0.001, round_trip: 0.03, round_trip_95: 0.04 };
        report.media = vec![(Kind::Audio, quality)];
        report
    }

    #[test]
    fn each_form_says_the_same() {
        let report = report();
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["ok"], true);
        assert_eq!(json["publisher"]["steps"]["signaling"], 0.03);
        assert_eq!(json["media"]["audio"]["loss"], 0.02);
        let text = report.prometheus();
        for line in [
            "meridian_probe_success 1",
            "meridian_probe_node_info{region=\"fra\",node=\"ND_1\"} 1",
            "meridian_probe_step_seconds{participant=\"publisher\",step=\"signaling\"} 0.03",
            "meridian_probe_join_seconds{participant=\"publisher\"} 0.05",
            "meridian_probe_loss_ratio{kind=\"audio\"} 0.02",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        assert!(report.text().contains("2 of 100 packets lost (2.00 %)"), "{}", report.text());
        assert!((report.worst_loss() - 0.02).abs() < 1e-9);
    }

    #[test]
    fn a_failure_says_after_which_step() {
        let mut report = report();
        report.failure = Some("not within 20 seconds".to_owned());
        report.subscriber.start();
        assert!(report.text().ends_with("FAILED after publisher's step signaling: not within 20 seconds\n"));
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&json["ok"], &json["failure"]), (&json!(false), &json!("not within 20 seconds")));
        assert!(report.prometheus().contains("meridian_probe_success 0\n"));
    }
}
