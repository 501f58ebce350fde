//! A path between clients and a node that can be made bad: a UDP relay that shapes what the node sends to each client,
//! and that can give a client another address, as a NAT does that forgets it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Where clients reach a node behind a relay: another loopback address, the same port.
pub const RELAY_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// What the queue in front of the path holds; what comes when it is full is lost.
const QUEUE: Duration = Duration::from_millis(300);
/// Packets that may be on their way to one client.
const MAX_FLYING: usize = 4096;
/// Longest datagram.
const MAX_DATAGRAM: usize = 2048;
/// IPv4 and UDP, bytes.
const OVERHEAD: usize = 28;
/// What loss is counted of.
const MILLION: u32 = 1_000_000;

/// First bytes of STUN messages (RFC 7983 section 7).
const STUN: std::ops::RangeInclusive<u8> = 0..=3;
/// Seed of what a path loses.
const SEED: u64 = 7;

/// A running relay; ends with its value.
pub struct Relay {
    path: Arc<Path>,
    clients: Clients,
    _tasks: JoinSet<()>,
}

/// By their own addresses.
type Clients = Arc<Mutex<HashMap<SocketAddr, Client>>>;

/// A client as the node sees it.
struct Client {
    inside: Arc<UdpSocket>,
    back: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.back.abort();
    }
}

/// What the way to each client is like.
#[derive(Default)]
struct Path {
    /// Bits per second; 0: unlimited.
    rate: AtomicU64,
    /// Beyond what the rate takes, microseconds.
    delay: AtomicU64,
    /// Packets lost of a million.
    loss: AtomicU32,
    firewall: RwLock<Option<Firewall>>,
}

/// What of clients gets through.
#[derive(Debug, Clone, Copy)]
pub struct Firewall {
    /// Everything of this address.
    pub friend: IpAddr,
    /// Of others STUN alone: what inspects packets and does not know DTLS. Else nothing.
    pub stun: bool,
}

impl Path {
    /// Whether a client's datagram gets through.
    fn lets_in(&self, client: SocketAddr, datagram: &[u8]) -> bool {
        let firewall = self.firewall.read().unwrap_or_else(PoisonError::into_inner);
        firewall.is_none_or(|firewall| {
            let is_stun = datagram.first().is_some_and(|first| STUN.contains(first));
            client.ip() == firewall.friend || (firewall.stun && is_stun)
        })
    }
}

impl Relay {
    /// Stands in front of the node that takes media at `node`.
    ///
    /// # Errors
    /// Its address is taken.
    pub async fn start(node: SocketAddr) -> Result<Self> {
        let outside = UdpSocket::bind((RELAY_ADDRESS, node.port())).await.context("the relay's address")?;
        let path = Arc::new(Path::default());
        let mut tasks = JoinSet::new();
        let clients = Clients::default();
        tasks.spawn(serve(Arc::new(outside), node, Arc::clone(&path), Arc::clone(&clients)));
        Ok(Self { path, clients, _tasks: tasks })
    }

    /// The sockets of clients that have sent something.
    #[must_use]
    pub fn clients(&self) -> Vec<SocketAddr> {
        lock(&self.clients).keys().copied().collect()
    }

    /// Has these clients come from other addresses from now on; what goes to the old ones is lost.
    pub fn readdress(&self, clients: &[SocketAddr]) {
        lock(&self.clients).retain(|client, _| !clients.contains(client));
    }

    /// Limits what goes to each client, bits per second; `None`: not at all.
    pub fn limit(&self, bits_per_second: Option<u64>) {
        self.path.rate.store(bits_per_second.unwrap_or(0), Ordering::Relaxed);
    }

    /// Delays what goes to each client.
    pub fn delay(&self, by: Duration) {
        self.path.delay.store(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Puts a firewall in front of the node.
    pub fn wall(&self, firewall: Firewall) {
        *self.path.firewall.write().unwrap_or_else(PoisonError::into_inner) = Some(firewall);
    }

    /// Loses this share of what goes to each client, each packet by itself.
    pub fn lose(&self, share: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a million")]
        let of_a_million = (share.clamp(0.0, 1.0) * f64::from(MILLION)) as u32;
        self.path.loss.store(of_a_million, Ordering::Relaxed);
    }
}

fn lock(clients: &Clients) -> MutexGuard<'_, HashMap<SocketAddr, Client>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes from clients, each through a socket of its own, so that the node tells them apart.
async fn serve(outside: Arc<UdpSocket>, node: SocketAddr, path: Arc<Path>, clients: Clients) {
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        let Ok((len, client)) = outside.recv_from(&mut buffer).await else { continue };
        if !buffer.get(..len).is_some_and(|datagram| path.lets_in(client, datagram)) {
            continue;
        }
        let known = lock(&clients).get(&client).map(|known| Arc::clone(&known.inside));
        let inside = match known {
            Some(inside) => inside,
            None => {
                let Ok(inside) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { continue };
                if inside.connect(node).await.is_err() {
                    continue;
                }
                let inside = Arc::new(inside);
                let back = tokio::spawn(shape(Arc::clone(&inside), Arc::clone(&outside), client, Arc::clone(&path)));
                lock(&clients).insert(client, Client { inside: Arc::clone(&inside), back });
                inside
            }
        };
        if let Some(datagram) = buffer.get(..len) {
            // What a socket does not take is lost, as on any path.
            let _ = inside.send(datagram).await;
        }
    }
}

/// Brings what the node sends to one client, at the path's pace.
async fn shape(inside: Arc<UdpSocket>, outside: Arc<UdpSocket>, client: SocketAddr, path: Arc<Path>) {
    let (flying, mut landing) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_FLYING);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some((at, datagram)) = landing.recv().await {
            tokio::time::sleep_until(at).await;
            let _ = outside.send_to(&datagram, client).await;
        }
    });
    let mut random = SmallRng::seed_from_u64(SEED);
    let mut free_at = Instant::now();
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        let Ok(len) = inside.recv(&mut buffer).await else { continue };
        let now = Instant::now();
        let bits = 8 * (len + OVERHEAD) as u64;
        if random.random_ratio(path.loss.load(Ordering::Relaxed), MILLION) {
            continue;
        }
        let takes = match path.rate.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            rate => Duration::from_micros(bits * 1_000_000 / rate),
        };
        let start = free_at.max(now);
        if start - now > QUEUE {
            continue;
        }
        free_at = start + takes;
        if let Some(datagram) = buffer.get(..len) {
            let delay = Duration::from_micros(path.delay.load(Ordering::Relaxed));
            let _ = flying.try_send((free_at + delay, datagram.to_vec()));
        }
    }
}
