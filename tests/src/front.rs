//! What Cloudflare does in front of the Worker, as far as nodes see it: says on each request where it came from. And
//! what a network does to clients: it can be cut.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use shared::geo::Place;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use xtask::edge::CF_HEADER;

/// How long requests wait for an edge that is being replaced.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it is there.
const POLL: Duration = Duration::from_millis(20);
/// Longest head of a request.
const MAX_HEAD: usize = 16 * 1024;

/// Stands in front of an edge; ends with its value.
pub struct Front {
    url: String,
    connections: Connections,
    shut: watch::Sender<bool>,
    /// How often those there were fell silent.
    hushes: watch::Sender<u32>,
    _tasks: JoinSet<()>,
}

type Connections = Arc<Mutex<JoinSet<Option<()>>>>;

impl Front {
    /// In front of the edge at `http://HOST:PORT`.
    ///
    /// # Errors
    /// There is no port for it.
    pub async fn start(edge: &str) -> Result<Self> {
        Self::start_saying(edge, String::new(), Duration::ZERO).await
    }

    /// As [`Front::start`], where requests wait for an edge that is being replaced: the platform refuses nobody meanwhile.
    ///
    /// # Errors
    /// As it.
    pub async fn start_patient(edge: &str) -> Result<Self> {
        Self::start_saying(edge, String::new(), PATIENCE).await
    }

    /// As [`Front::start`], where the platform says that all clients are there.
    ///
    /// # Errors
    /// As it.
    pub async fn start_from(place: Place, edge: &str) -> Result<Self> {
        Self::start_saying(edge, format!("\r\n{CF_HEADER}: {}", cf(place)), Duration::ZERO).await
    }

    async fn start_saying(edge: &str, says: String, patience: Duration) -> Result<Self> {
        let edge = edge.strip_prefix("http://").context("the edge has no http:// address")?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let mut tasks = JoinSet::new();
        let connections = Connections::default();
        let open = Arc::clone(&connections);
        let (shut, is_shut) = watch::channel(false);
        let (hushes, hushed) = watch::channel(0);
        tasks.spawn(async move {
            while let Ok((client, from)) = listener.accept().await {
                if *is_shut.borrow() {
                    continue;
                }
                let (edge, says, mut hushed) = (edge.clone(), says.clone(), hushed.clone());
                hushed.mark_unchanged();
                // A connection that breaks is its client's to notice.
                lock(&open).spawn(async move { pass(client, from, &edge, &says, patience, hushed).await.ok() });
            }
        });
        Ok(Self { url, connections, shut, hushes, _tasks: tasks })
    }

    /// Breaks every connection there is; later ones are let through.
    pub fn cut(&self) {
        lock(&self.connections).abort_all();
    }

    /// Breaks every connection there is, and lets none through until [`Front::let_in`].
    pub fn shut(&self) {
        self.shut.send_replace(true);
        self.cut();
    }

    /// Lets connections through again.
    pub fn let_in(&self) {
        self.shut.send_replace(false);
    }

    /// Lets nothing more through on the connections there are, without closing them; later ones are let through.
    pub fn hush(&self) {
        self.hushes.send_modify(|hushes| *hushes += 1);
    }

    /// `http://…`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// What the platform says of clients there, in text as it does.
#[must_use]
pub fn cf(Place { latitude, longitude }: Place) -> String {
    json!({ "latitude": latitude.to_string(), "longitude": longitude.to_string() }).to_string()
}

fn lock(connections: &Connections) -> std::sync::MutexGuard<'_, JoinSet<Option<()>>> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection to the edge, as soon as it listens.
async fn reach(edge: &str, patience: Duration) -> io::Result<TcpStream> {
    let give_up = Instant::now() + patience;
    loop {
        match TcpStream::connect(edge).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < give_up => {
                sleep(POLL).await;
            }
            reached => return reached,
        }
    }
}

/// One request, or one WebSocket.
async fn pass(
    mut client: TcpStream,
    from: SocketAddr,
    edge: &str,
    says: &str,
    patience: Duration,
    mut hushed: watch::Receiver<u32>,
) -> Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if head.len() > MAX_HEAD || client.read_buf(&mut head).await? == 0 {
            bail!("no head of a request");
        }
    };
    let (head, body) = head.split_at_checked(end).context("no end")?;
    let mut request = String::from_utf8(head.to_vec())?;
    request.push_str(&format!("\r\nCF-Connecting-IP: {}{says}", from.ip()));
    if !request.to_ascii_lowercase().contains("\r\nupgrade:") {
        // The next request on the connection would not be looked at.
        request.push_str("\r\nConnection: close");
    }
    let mut upstream = reach(edge, patience).await?;
    upstream.write_all(request.as_bytes()).await?;
    upstream.write_all(body).await?;
    tokio::select! {
        done = copy_bidirectional(&mut client, &mut upstream) => { done?; },
        // Its ends stay open, and nobody reads them.
        Ok(()) = hushed.changed() => std::future::pending().await,
    }
    Ok(())
}
