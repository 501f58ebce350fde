//! The user data that Terraform gives a machine, and the node's package: a machine that boots from them becomes a node
//! that carries a call, once an operator has admitted its address, and lets it end before it powers off. Nothing of it
//! is a secret.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use axum::Router;
use axum::routing::get;
use meridian_tests::booted::{Booted, Confinement};
use meridian_tests::client::{Client, Observed, Publish};
use meridian_tests::front::Front;
use meridian_tests::node_impostor::post;
use meridian_tests::probe::Probe;
use meridian_tests::scene::Scene;
use serde_json::{Value, json};
use shared::control::{ADMIT_PATH, AdmitRequest};

const LOOPBACK: &str = "127.0.0.1:0";
/// What the machine is to call itself, as Debian and Rust name it.
const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Serves the package, for as long as the test runs.
async fn serve(package: Vec<u8>) -> SocketAddr {
    let package: &'static [u8] = package.leak();
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/{version}/sfu-node.deb", get(move || async move { package }));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// Ports that are free now.
fn ports() -> (u16, u16) {
    let (http, media) = (TcpListener::bind(LOOPBACK).unwrap(), UdpSocket::bind(LOOPBACK).unwrap());
    (http.local_addr().unwrap().port(), media.local_addr().unwrap().port())
}

fn inputs(edge: &str, package: (SocketAddr, &str), (http, media): (u16, u16)) -> Value {
    json!({
        "name": "fra-1",
        "edge_url": edge,
        "region": "eu-central-1",
        "place": { "latitude": 50.1, "longitude": 8.7 },
        "arch": ARCH,
        "shards": 1,
        "udp_port": media,
        "drain_seconds": 3600,
        "settings": { "MERIDIAN_HTTP_ADDR": format!("127.0.0.1:{http}") },
        "release": {
            "version": "0.1.0",
            "url": format!("http://{}/{{version}}/sfu-node.deb", package.0),
            "sha256": { ARCH: package.1 },
        },
    })
}

/// Media keeps coming; gives the packets of video so far.
async fn hears_and_sees(client: &mut Client, video_so_far: u64) -> u64 {
    let flows = |o: &Observed| {
        let (audio, video) = (o.flow('A')?, o.flow('V')?);
        (audio.packets > 20 && video.packets > video_so_far + 60 && video.keyframes > 0).then_some(video.packets)
    };
    client.until("audio and video", flows).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots a machine: `cargo xtask test` does it where root may"]
async fn from_user_data_to_a_call() {
    let scene = Scene::alone(0).await.unwrap();
    let front = Front::start(scene.url()).await.unwrap();
    let directory = std::env::temp_dir().join(format!("meridian-package-{}", std::process::id()));
    let package = xtask::package::pack_dev(&directory).unwrap();
    let sum = xtask::package::sha256(&package).unwrap();
    let served = serve(fs::read(&package).unwrap()).await;
    fs::remove_dir_all(&directory).unwrap();
    let ports = ports();
    let user_data = xtask::infra::user_data(&inputs(front.url(), (served, &sum), ports)).unwrap();

    let ready = format!("http://127.0.0.1:{}/readyz", ports.0);
    let runtime = tokio::runtime::Handle::current();
    let said = move || -> Option<String> {
        let answer = async { reqwest::get(&ready).await.ok()?.text().await.ok() };
        tokio::task::block_in_place(|| runtime.block_on(answer))
    };
    let mut machine = Booted::start(&user_data).unwrap();
    machine.wait_until("asking to be admitted", || said().is_some_and(|text| text.contains("403"))).unwrap();
    let token = scene.deployment.stack().secrets().enrolment_token().unwrap();
    let admit = AdmitRequest { addresses: vec!["127.0.0.1".parse().unwrap()] };
    assert_eq!(post(scene.url(), ADMIT_PATH, Some(&token), &admit).await.unwrap().0, 200);
    machine.wait_until("ready", || said().is_some_and(|text| text == "OK")).unwrap();

    let confined = machine.confinement("/usr/bin/sfu-node").unwrap();
    assert_ne!(confined.user, 0);
    let nothing = Confinement { capabilities: 0, no_new_privileges: true, filtered: true, ..confined };
    assert_eq!(confined, nothing);

    let probe = Probe::of(&scene).args(["--region", "eu-central-1"]).run().await.unwrap();
    assert!(probe.status.success(), "{probe:?}");

    let mut clients = Vec::new();
    for name in ["ada", "bob"] {
        let tracks = vec![Publish::camera("camera"), Publish::microphone("microphone")];
        clients.push(scene.join_publishing(name, tracks).await.unwrap());
    }
    let mut seen = Vec::new();
    for client in &mut clients {
        seen.push(hears_and_sees(client, 0).await);
    }

    machine.power_off().unwrap();
    machine.wait_until("draining", || said().is_some_and(|text| text == "draining")).unwrap();
    for (client, before) in clients.iter_mut().zip(seen) {
        hears_and_sees(client, before).await;
    }
    assert!(!machine.is_off().unwrap(), "it waits for its calls");
    for client in clients {
        client.leave().await.unwrap();
    }
    let off = tokio::task::block_in_place(|| machine.wait_off()).unwrap();
    assert!(off.success(), "{off}");
}
