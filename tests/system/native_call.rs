//! Native clients in a call: media, data, mute, keyframes for who comes late, in every mode and SRTP profile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use livekit_protocol::signal_response::Message as Response;
use meridian_tests::client::{Client, ClientOptions, Observed, Publish, SrtpOffer, text};
use meridian_tests::scene::Scene;
use meridian_tests::signal::Mode;

fn with_media(mut options: ClientOptions) -> ClientOptions {
    options.publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
    options
}

/// Keyframes come because the node asks for them: these clients never do.
async fn join(mut options: ClientOptions) -> Client {
    options.asks_for_keyframes = false;
    let mut client = Client::join(options).await.unwrap();
    client.connected().await.unwrap();
    client
}

/// Audio and video arrive, and the video can be decoded. True: from its first packet on.
async fn hears_and_sees(client: &mut Client) -> bool {
    let flows = |o: &Observed| {
        let (audio, video) = (o.flow('A')?, o.flow('V')?);
        (audio.packets > 20 && video.packets > 60 && video.keyframes > 0).then_some(video.began_with_keyframe)
    };
    client.until("audio and video", flows).await.unwrap()
}

async fn call_in(ada_mode: Mode, bob_mode: Mode) {
    let scene = Scene::open().await.unwrap();
    let mut ada = with_media(scene.options("ada").unwrap());
    ada.mode = ada_mode;
    let mut bob = with_media(scene.options("bob").unwrap());
    bob.mode = bob_mode;
    let (mut ada, mut bob) = (join(ada).await, join(bob).await);
    for (client, mode) in [(&mut ada, ada_mode), (&mut bob, bob_mode)] {
        let at_once = hears_and_sees(client).await;
        // On a single connection media may come before the answer that names it, and its beginning is lost.
        assert!(at_once || mode == Mode::Single, "video must begin with a keyframe");
    }

    for label in ["_reliable", "_lossy"] {
        ada.send_data(label, text("hello")).await.unwrap();
        let heard = bob.until("a data packet", |o| o.said(label)).await.unwrap();
        assert_eq!(heard, ("ada".to_owned(), "hello".to_owned()));
    }
    bob.send_data("_reliable", text("hello back")).await.unwrap();
    let heard = ada.until("an answer", |o| o.said("_reliable")).await.unwrap();
    assert_eq!(heard, ("bob".to_owned(), "hello back".to_owned()));

    ada.mute("camera", true).await.unwrap();
    let muted = |o: &Observed| o.participants.get("ada")?.tracks.iter().find(|t| t.muted).map(|t| t.name.clone());
    assert_eq!(bob.until("mute", muted).await.unwrap(), "camera");
    ada.leave().await.unwrap();
    bob.until("leave", |o| (!o.participants.contains_key("ada")).then_some(())).await.unwrap();
}

#[tokio::test]
async fn two_single_connection_clients() {
    call_in(Mode::Single, Mode::Single).await;
}

#[tokio::test]
async fn two_dual_connection_clients() {
    call_in(Mode::Dual, Mode::Dual).await;
}

#[tokio::test]
async fn one_of_each() {
    call_in(Mode::Single, Mode::Dual).await;
}

#[tokio::test]
async fn a_client_without_gcm_ends_on_cm() {
    let scene = Scene::open().await.unwrap();
    let mut cm = with_media(scene.options("cm").unwrap());
    cm.media.srtp = SrtpOffer::CmOnly;
    let mut gcm = join(with_media(scene.options("gcm").unwrap())).await;
    let mut cm = join(cm).await;
    // It offers nothing else and cannot decrypt anything else.
    hears_and_sees(&mut cm).await;
    hears_and_sees(&mut gcm).await;
}

async fn comes_late(mode: Mode) {
    let scene = Scene::open().await.unwrap();
    let mut ada = join(with_media(scene.options("ada").unwrap())).await;
    let mut bob = join(scene.options("bob").unwrap()).await;
    hears_and_sees(&mut bob).await;
    let before = ada.observe(|o| o.keyframe_requests);
    let mut late = scene.options("late").unwrap();
    late.mode = mode;
    let mut late = join(late).await;
    assert!(hears_and_sees(&mut late).await, "video must begin with a keyframe");
    // Ada makes keyframes only when asked, so there was one more.
    ada.until("a keyframe request", |o| (o.keyframe_requests > before).then_some(())).await.unwrap();
}

#[tokio::test]
async fn who_comes_late_begins_with_a_keyframe() {
    comes_late(Mode::Single).await;
}

#[tokio::test]
async fn who_comes_late_with_two_connections_does_too() {
    comes_late(Mode::Dual).await;
}

#[tokio::test]
async fn a_keyframe_that_outran_its_answer_comes_again() {
    let scene = Scene::open().await.unwrap();
    let mut bob = scene.options("bob").unwrap();
    // Two frames of the camera: the keyframe is among them.
    bob.packets_before_answer = 12;
    let mut bob = join(bob).await;
    let mut ada = scene.options("ada").unwrap();
    ada.publish = vec![Publish::camera("camera")];
    let _ada = join(ada).await;
    let seen = |o: &Observed| o.flow('V').filter(|video| video.keyframes > 0).map(|video| video.began_with_keyframe);
    assert!(!bob.until("a keyframe", seen).await.unwrap(), "the first one came before the answer");
}

#[tokio::test]
async fn simulcast_is_forwarded_at_its_best() {
    let scene = Scene::open().await.unwrap();
    let mut ada = scene.options("ada").unwrap();
    let layers = vec![100_000, 300_000, 900_000];
    ada.publish = vec![Publish::Video { cid: "camera".to_owned(), layers, frames_per_second: 30 }];
    let mut ada = join(ada).await;
    let mut bob = join(scene.options("bob").unwrap()).await;
    // At 900 kb/s a packet has over 900 bytes; on the lower layers a frame is one small packet.
    let big = |f: &meridian_tests::client::Flow| (f.packets, f.bytes);
    let start = bob.until("video", |o| o.flow('V').map(big)).await.unwrap();
    let full = |o: &Observed| {
        let (packets, bytes) = o.flow('V').map(big)?;
        (packets > start.0 + 300 && (bytes - start.1) / (packets - start.0) > 700).then_some(())
    };
    bob.until("the highest layer", full).await.unwrap();
    let layers = |o: &Observed| {
        let codecs = o.participants.get("ada")?.tracks.iter().flat_map(|t| &t.codecs);
        codecs.map(|c| c.layers.iter().filter(|l| l.ssrc != 0).count()).max().filter(|known| *known == 3)
    };
    bob.until("all three layers in an update", layers).await.unwrap();
    ada.ping().await.unwrap();
}

#[tokio::test]
async fn more_tracks_than_placeholders_get_sections() {
    let scene = Scene::open().await.unwrap();
    let mut speakers = Vec::new();
    for number in 0..5 {
        let mut options = scene.options(&format!("speaker-{number}")).unwrap();
        options.publish = vec![Publish::microphone("microphone")];
        speakers.push(join(options).await);
    }
    let mut listener = scene.join("listener").await.unwrap();
    let all = |o: &Observed| (o.flows.values().filter(|f| f.packets > 10).count() == 5).then_some(());
    listener.until("five voices", all).await.unwrap();
    // The first speaker had its three placeholders taken before the others came.
    let others = |o: &Observed| (o.flows.values().filter(|f| f.packets > 10).count() == 4).then_some(());
    speakers[0].until("four voices", others).await.unwrap();
    let asked = |o: &Observed| o.heard.iter().any(|m| matches!(m, Response::MediaSectionsRequirement(_)));
    assert!(speakers[0].observe(asked));
}

#[tokio::test]
async fn an_unpublished_track_is_gone_for_everyone() {
    let scene = Scene::open().await.unwrap();
    let ada = join(with_media(scene.options("ada").unwrap())).await;
    let mut bob = join(scene.options("bob").unwrap()).await;
    hears_and_sees(&mut bob).await;
    ada.unpublish("camera").await.unwrap();
    let names = |o: &Observed| o.participants["ada"].tracks.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    bob.until("the update", |o| (names(o) == ["microphone"]).then_some(())).await.unwrap();
    let before = bob.observe(|o| o.flow('A').unwrap().packets);
    bob.until("audio still", |o| o.flow('A').filter(|f| f.packets > before + 20).map(|_| ())).await.unwrap();
}
