//! A TURN server (coturn) for clients whose network lets no UDP through: TCP only, credentials of a shared secret.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use xtask::process::{Output, Process};

/// Where it is, and where what it relays comes from: a loopback address that nobody else has.
pub const TURN_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));
/// What it and the edge share.
const SECRET: &str = "turn-secret-of-this-story";
/// How long it may take until it listens.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long one look whether it listens may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// A running server. **Dropping it kills it and removes its files.**
pub struct TurnServer {
    url: String,
    directory: PathBuf,
    _process: Process,
}

impl Drop for TurnServer {
    fn drop(&mut self) {
        // What is left there hurts nobody.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl TurnServer {
    /// Starts one; it listens when this returns. Blocks the thread.
    ///
    /// # Errors
    /// It is not installed, or does not listen in time.
    pub fn start() -> Result<Self> {
        let port = TcpListener::bind((TURN_ADDRESS, 0))?.local_addr()?.port();
        let directory = std::env::temp_dir().join(format!("meridian-turn-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let mut command = Command::new("turnserver");
        command.args([
            "-n",
            "--no-udp",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--allow-loopback-peers",
            "--fingerprint",
        ]);
        command.args(["--use-auth-secret", "--static-auth-secret", SECRET, "--realm", "meridian"]);
        command.args(["--listening-ip", &TURN_ADDRESS.to_string(), "--relay-ip", &TURN_ADDRESS.to_string()]);
        command.args(["--listening-port", &port.to_string(), "--log-file", "stdout", "--simple-log"]);
        command.arg("--pidfile").arg(directory.join("turn.pid")).arg("--userdb").arg(directory.join("turn.db"));
        let mut process = Process::spawn("turnserver", command, &Output::File(directory.join("turn.log")))?;
        let address = SocketAddr::new(TURN_ADDRESS, port);
        process.wait_until("listening", READY_LIMIT, || TcpStream::connect_timeout(&address, PROBE_LIMIT).is_ok())?;
        Ok(Self { url: format!("turn:{address}?transport=tcp"), directory, _process: process })
    }

    /// The edge's variables that have clients use it.
    #[must_use]
    pub fn edge_vars(&self) -> [(String, String); 2] {
        [("TURN_URLS".to_owned(), self.url.clone()), ("TURN_SECRET".to_owned(), SECRET.to_owned())]
    }
}
