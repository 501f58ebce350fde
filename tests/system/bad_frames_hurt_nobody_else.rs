//! Garbage on a signal connection ends or answers that connection; the others in the room notice nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{MuteTrackRequest, SessionDescription, SignalRequest, TrickleRequest, UpdateSubscription};
use meridian_tests::client::{Client, DEADLINE, Observed, Publish};
use meridian_tests::scene::Scene;
use meridian_tests::signal::{Heard, Mode, Signal, endpoint, gzip, join_request, wrap_gzip};
use prost::Message as _;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message as Frame;

/// Two people in a call, for others to disturb.
struct Call {
    scene: Scene,
    ada: Client,
    bob: Client,
}

impl Call {
    async fn begin() -> Self {
        let scene = Scene::open().await.unwrap();
        let mut options = scene.options("ada").unwrap();
        options.publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
        let mut ada = Client::join(options).await.unwrap();
        ada.connected().await.unwrap();
        let bob = scene.join("bob").await.unwrap();
        Self { scene, ada, bob }
    }

    /// Both are still known to the server, and media still flows.
    async fn goes_on(&mut self) {
        self.ada.ping().await.unwrap();
        self.bob.ping().await.unwrap();
        for kind in ['A', 'V'] {
            let before = self.bob.observe(|o| o.flow(kind).map_or(0, |f| f.packets));
            let grows = |o: &Observed| o.flow(kind).filter(|f| f.packets > before + 10).map(|_| ());
            self.bob.until("more media", grows).await.unwrap();
        }
        assert!(self.ada.observe(|o| o.closed.is_none()) && self.bob.observe(|o| o.closed.is_none()));
    }

    /// What the room has counted under this name, once it is at least `wanted` or the deadline has passed: the log comes
    /// through a pipe.
    async fn counted(&self, reason: &str, wanted: u64) -> u64 {
        let sid = self.ada.observe(|o| o.join.as_ref().unwrap().room.as_ref().unwrap().sid.clone());
        let count = |line: &str| {
            let line: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
            let mine = line["event"] == "counted" && line["reason"] == reason && line["room"] == sid.as_str();
            mine.then(|| line["count"].as_u64()).flatten()
        };
        let deadline = Instant::now() + DEADLINE;
        loop {
            let counted = self.scene.deployment.edge_log().lines().filter_map(count).sum();
            if counted >= wanted || Instant::now() > deadline {
                return counted;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// How the connection of someone who sends `frame` ends.
async fn close_code_after(call: &Call, frame: Frame) -> Option<u16> {
    let mut mallory = call.scene.join("mallory").await.unwrap();
    mallory.send_frame(frame).await.unwrap();
    mallory.until("close", |o| o.closed).await.unwrap()
}

#[tokio::test]
async fn frames_that_do_not_decode_close_their_connection() {
    let mut call = Call::begin().await;
    let garbage = Frame::Binary(vec![0xff; 64].into());
    assert_eq!(close_code_after(&call, garbage).await, Some(1000));
    assert_eq!(close_code_after(&call, Frame::Text("{ nonsense".into())).await, Some(1000));
    call.goes_on().await;
    assert_eq!(call.counted("bad_message", 2).await, 2);
}

#[tokio::test]
async fn a_flood_is_stopped_with_a_reason() {
    let mut call = Call::begin().await;
    let mut mallory = call.scene.join("mallory").await.unwrap();
    let ping = SignalRequest { message: Some(Request::Ping(1)) }.encode_to_vec();
    let mut sent = 0;
    while sent < 100_000 && mallory.send_frame(Frame::Binary(ping.clone().into())).await.is_ok() {
        sent += 1;
        if sent % 100 == 0 && mallory.observe(|o| o.closed.is_some()) {
            break;
        }
    }
    assert_eq!(mallory.until("close", |o| o.closed).await.unwrap(), Some(1008));
    let told = |o: &Observed| {
        o.heard.iter().any(|m| matches!(m, Response::RequestResponse(r) if r.reason() == Reason::LimitExceeded && r.message == "too many messages"))
    };
    assert!(mallory.observe(told));
    call.goes_on().await;
}

#[tokio::test]
async fn frames_over_two_mebibytes_close_with_1009() {
    let mut call = Call::begin().await;
    let huge = Frame::Binary(vec![0; 2 * 1024 * 1024 + 1].into());
    assert_eq!(close_code_after(&call, huge).await, Some(1009));
    call.goes_on().await;
}

#[tokio::test]
async fn a_join_request_that_inflates_beyond_a_mebibyte_is_refused() {
    let mut call = Call::begin().await;
    // An unknown field of 4 MiB: legal protobuf, 4 KiB on the wire.
    let mut padded = vec![0xfa, 0x01, 0x80, 0x80, 0x80, 0x02];
    padded.resize(padded.len() + 4 * 1024 * 1024, 0);
    let mut url = endpoint(call.scene.url(), "/rtc/v1").unwrap();
    let token = call.scene.sign(&call.scene.claims("mallory")).unwrap();
    url.query_pairs_mut().append_pair("access_token", &token).append_pair("join_request", &wrap_gzip(&gzip(&padded)));
    let refused: anyhow::Error = Signal::open(&url).await.unwrap_err().into();
    assert_eq!(Client::refusal(&refused).map(|(status, _)| status), Some(400), "{refused}");
    call.goes_on().await;
}

#[tokio::test]
async fn join_requests_that_do_not_decode_are_refused() {
    let scene = Scene::open().await.unwrap();
    let token = scene.sign(&scene.claims("mallory")).unwrap();
    for (parameter, text) in [
        (None, "join_request is required"),
        (Some("***"), "cannot base64 decode wrapped join request"),
        (Some("_____w=="), "cannot unmarshal wrapped join request"),
    ] {
        let mut url = url::Url::parse(&format!("{}/rtc/v1/validate", scene.url())).unwrap();
        url.query_pairs_mut().append_pair("access_token", &token);
        if let Some(value) = parameter {
            url.query_pairs_mut().append_pair("join_request", value);
        }
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (400, text));
    }
}

#[tokio::test]
async fn requests_about_nothing_are_answered_and_leave_the_connection_open() {
    let mut call = Call::begin().await;
    let mut mallory = call.scene.join("mallory").await.unwrap();
    let unknown = "TR_AMunknown00000".to_owned();
    let offer = SessionDescription {
        r#type: "offer".to_owned(),
        sdp: "this is not SDP".to_owned(),
        id: 77,
        ..SessionDescription::default()
    };
    let trickle = TrickleRequest { candidate_init: "not JSON".to_owned(), ..TrickleRequest::default() };
    let refused = [
        (Request::Offer(offer), None),
        (Request::Mute(MuteTrackRequest { sid: unknown.clone(), muted: true }), Some(Reason::NotFound)),
        (Request::Trickle(trickle), Some(Reason::UnclassifiedError)),
    ];
    let answers = |o: &Observed| -> Vec<Reason> {
        let reasons = o.heard.iter().filter_map(|m| match m {
            Response::RequestResponse(answer) => Some(answer.reason()),
            _ => None,
        });
        reasons.collect()
    };
    for (request, reason) in refused {
        let before = mallory.observe(|o| answers(o).len());
        mallory.request(request.clone()).await.unwrap();
        let got = mallory.until("an error", |o| answers(o).get(before).copied()).await.unwrap();
        assert!(got != Reason::Ok && reason.is_none_or(|r| r == got), "{request:?}: {got:?}");
    }
    // LiveKit says nothing about unknown tracks in a subscription.
    let subscription =
        UpdateSubscription { track_sids: vec![unknown], subscribe: true, ..UpdateSubscription::default() };
    mallory.request(Request::Subscription(subscription)).await.unwrap();
    mallory.ping().await.unwrap();
    assert!(mallory.observe(|o| o.closed.is_none() && o.connected));
    call.goes_on().await;
    // The subscription is no mistake: it is kept for a track that may still come.
    for (reason, count) in [("rejected_description", 1), ("bad_message", 1), ("unknown_track", 1)] {
        assert_eq!(call.counted(reason, count).await, count, "{reason}");
    }
}

#[tokio::test]
async fn garbage_before_the_join_response_is_no_way_in() {
    let mut call = Call::begin().await;
    let token = call.scene.sign(&call.scene.claims("mallory")).unwrap();
    let mut signal = Signal::join(call.scene.url(), &token, Mode::Single, &join_request()).await.unwrap();
    // Sent before anything was read: the room may see it before or after it has answered the join.
    signal.send_frame(Frame::Binary(vec![0xff; 16].into())).await;
    let closed = async {
        loop {
            if let Heard::Closed(code) = signal.hear().await {
                return code;
            }
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, closed).await.unwrap(), Some(1000));
    call.goes_on().await;
}
