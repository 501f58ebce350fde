//! Health and metrics over HTTP. Nothing here changes anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::control::Pulse;
use crate::edge::Leaving;
use crate::edge::fleet_link::FleetState;
use crate::metrics::Metrics;

/// A shard that has not answered for this long is taken for stuck.
const SHARD_SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// What is shown.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fleet: watch::Receiver<FleetState>,
    pub(crate) pulse: watch::Receiver<Pulse>,
    pub(crate) leaving: watch::Receiver<Leaving>,
}

impl Status {
    /// Why the node is not ready, if it is not.
    fn not_ready(&self) -> Option<String> {
        if self.leaving.borrow().stops {
            return Some("draining".to_owned());
        }
        let answered = self.pulse.borrow().shard_answered;
        if answered.is_none_or(|answered| answered.elapsed() > SHARD_SILENCE_LIMIT) {
            return Some("the media shard does not answer".to_owned());
        }
        match &*self.fleet.borrow() {
            FleetState::Up => None,
            FleetState::Down(reason) => Some(format!("the fleet link is down: {reason}")),
        }
    }
}

/// The routes.
pub(crate) fn router(status: Status) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "OK" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(status)
}

async fn ready(State(status): State<Status>) -> Response {
    match status.not_ready() {
        None => "OK".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn metrics(State(status): State<Status>) -> Response {
    match status.metrics.encode() {
        Ok(text) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn readiness_says_what_is_missing_and_health_does_not_care() {
        let (fleet, fleet_seen) = watch::channel(FleetState::Down("no answer".to_owned()));
        let (pulse, pulse_seen) = watch::channel(Pulse::default());
        let leaving = watch::Sender::new(Leaving::default());
        let metrics = Arc::new(Metrics::new());
        let status = Status { metrics, fleet: fleet_seen, pulse: pulse_seen, leaving: leaving.subscribe() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router(status)).await.unwrap() });
        let get = |path: &'static str| async move {
            let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        let not_ready = |reason: &str| (503, reason.to_owned());

        assert_eq!(get("/readyz").await, not_ready("the media shard does not answer"));
        pulse.send_replace(Pulse { shard_answered: Some(Instant::now()), ..Pulse::default() });
        assert_eq!(get("/readyz").await, not_ready("the fleet link is down: no answer"));
        fleet.send_replace(FleetState::Up);
        assert_eq!(get("/readyz").await, (200, "OK".to_owned()));
        let long_ago = Instant::now().checked_sub(SHARD_SILENCE_LIMIT + Duration::from_secs(1));
        pulse.send_replace(Pulse { shard_answered: long_ago, ..Pulse::default() });
        assert_eq!(get("/readyz").await, not_ready("the media shard does not answer"));
        leaving.send_modify(|leaving| leaving.stops = true);
        assert_eq!(get("/readyz").await, not_ready("draining"));
        assert_eq!(get("/healthz").await, (200, "OK".to_owned()));
        let (status, text) = get("/metrics").await;
        assert!(status == 200 && text.contains("meridian_node_sessions 0") && text.ends_with("# EOF\n"), "{text}");
        server.abort();
    }
}
