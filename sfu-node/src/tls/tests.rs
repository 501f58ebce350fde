use std::fs;
use std::path::Path;

use axum::Router;
use axum::routing::get;
use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

use super::*;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("meridian-tls-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Files {
        Files { chain: self.0.join("chain.pem"), key: self.0.join("key.pem") }
    }

    /// Writes a new certificate and key for localhost; gives the certificate.
    fn renew(&self) -> String {
        let Made { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(self.files().key, signing_key.serialize_pem()).unwrap();
        fs::write(self.files().chain, cert.pem()).unwrap();
        cert.pem()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The time of a file that was written a while ago.
fn age(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

#[tokio::test]
async fn https_is_served_and_a_silent_client_keeps_nobody_waiting() {
    let directory = Directory::new("serve");
    let trusted = reqwest::Certificate::from_pem(directory.renew().as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = TlsListener::start(listener, Source::Files(directory.files())).unwrap();
    let router = Router::new().route("/healthz", get(|| async { "OK" }));
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
    let local = client.get(format!("https://localhost:{port}/healthz"));
    assert_eq!(local.send().await.unwrap().text().await.unwrap(), "OK");
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(format!("http://localhost:{port}/healthz")).send().await.is_err(), "TLS only");
    server.abort();
}

#[test]
fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let directory = Directory::new("renew");
    directory.renew();
    age(&directory.files().chain);
    let certificate = Certificate::load(directory.files()).unwrap();
    let current = || certificate.current.read().unwrap().0.cert.clone();
    let first = current();
    certificate.renew();
    assert_eq!(current(), first, "nothing has changed");
    fs::write(directory.files().chain, "half a certif").unwrap();
    certificate.renew();
    assert_eq!(current(), first, "what cannot be read replaces nothing");
    directory.renew();
    certificate.renew();
    assert_ne!(current(), first);
}

#[test]
fn what_is_wrong_is_said() {
    let directory = Directory::new("wrong");
    let files = directory.files();
    assert!(matches!(files.load(), Err(TlsError::File { path, .. }) if path == files.chain));
    directory.renew();
    let chain = fs::read(&files.chain).unwrap();
    directory.renew();
    fs::write(&files.chain, chain).unwrap();
    assert!(matches!(files.load(), Err(TlsError::Unfit { .. })), "a key of another certificate");
    fs::write(&files.chain, "").unwrap();
    assert!(matches!(files.load(), Err(TlsError::Empty(_))));
}
