//! Against Pebble, the ACME server that Let's Encrypt tests with.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::{Source, TlsListener};
use super::*;

const DOMAIN: &str = "fra-1.media.example";
/// Far more than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A program. **Dropping it kills it.**
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command) -> Running {
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// A port that is free now.
fn port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Pebble, which looks at our port for the challenge, and a name server that sends it there.
struct Pebble {
    directory: Url,
    management: u16,
    root: PathBuf,
    _programs: [Running; 2],
}

impl Pebble {
    async fn start(at: &std::path::Path, tls_port: u16) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (root, key) = (at.join("pebble.pem"), at.join("pebble-key.pem"));
        fs::write(&root, cert.pem()).unwrap();
        fs::write(&key, signing_key.serialize_pem()).unwrap();
        let names = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (acme, management) = (port(), port());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{acme}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": root, "privateKey": key,
            "httpPort": port(), "tlsPort": tls_port,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        let file = at.join("pebble.json");
        fs::write(&file, config.to_string()).unwrap();
        let mut server = Command::new("pebble-challtestsrv");
        server.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        server.args(["-dns01", &format!("127.0.0.1:{names}"), "-management", &format!("127.0.0.1:{}", port())]);
        let mut pebble = Command::new("pebble");
        pebble.args(["-dnsserver", &format!("127.0.0.1:{names}"), "-config"]).arg(&file);
        // It would wait, and refuse some good nonces, to teach patience.
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        let programs = [run(&mut server), run(&mut pebble)];
        let directory = Url::parse(&format!("https://localhost:{acme}/dir")).unwrap();
        let pebble = Self { directory, management, root, _programs: programs };
        pebble.wait().await;
        pebble
    }

    fn client(&self) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(&fs::read(&self.root).unwrap()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
    }

    async fn wait(&self) {
        let deadline = Instant::now() + LIMIT;
        while self.client().get(self.directory.clone()).send().await.is_err() {
            assert!(Instant::now() < deadline, "Pebble does not answer");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What certificates of it are trusted by.
    async fn issuer(&self) -> reqwest::Certificate {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let pem = self.client().get(url).send().await.unwrap().bytes().await.unwrap();
        reqwest::Certificate::from_pem(&pem).unwrap()
    }
}

async fn serve(order: &Order, port: u16) -> JoinHandle<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let listener = TlsListener::start(listener, Source::Acme(order.clone())).unwrap();
    let router = Router::new().route("/healthz", get(|| async { "OK" }));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

/// Asks by the domain's name until there is a certificate that this issuer vouches for.
async fn trusted(issuer: &reqwest::Certificate, port: u16) {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([issuer.clone()]);
    let client = client.resolve(DOMAIN, SocketAddr::from(([127, 0, 0, 1], port))).build().unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        match client.get(format!("https://{DOMAIN}:{port}/healthz")).send().await {
            Ok(answer) => return assert_eq!(answer.text().await.unwrap(), "OK"),
            Err(error) => assert!(Instant::now() < deadline, "no certificate: {error:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs Pebble: `cargo xtask test` runs it where that is installed"]
async fn a_certificate_is_got_proven_by_tls_and_kept() {
    let at = std::env::temp_dir().join(format!("meridian-acme-{}", std::process::id()));
    let _ = fs::remove_dir_all(&at);
    fs::create_dir_all(&at).unwrap();
    let port = port();
    let pebble = Pebble::start(&at, port).await;
    let order = Order {
        domains: vec![DOMAIN.to_owned()],
        contact: Some("ops@media.example".to_owned()),
        directory: pebble.directory.clone(),
        roots: Some(pebble.root.clone()),
        cache: at.join("acme"),
    };
    let issuer = pebble.issuer().await;
    let serving = serve(&order, port).await;
    trusted(&issuer, port).await;
    serving.abort();
    let _ = serving.await;

    // Nobody is there to ask any more: it was kept.
    drop(pebble);
    let kept = fs::metadata(&order.cache).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&kept.permissions()) & 0o777, 0o700, "the key is in it");
    let serving = serve(&order, port).await;
    trusted(&issuer, port).await;
    serving.abort();
    fs::remove_dir_all(&at).unwrap();
}
