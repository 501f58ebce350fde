//! TLS for the node's HTTP. The certificate comes from files and is read again when they change, so that whoever renews
//! it restarts nothing; or from an ACME server. **A client that does not finish its handshake keeps nobody waiting.**

pub(crate) mod acme;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes at once; further clients wait in the listener's queue.
const MAX_HANDSHAKES: usize = 64;
/// Longest a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Connections that may wait for the server.
const WAITING: usize = 16;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read, or holds nothing in PEM.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: pem::Error,
    },
    /// The certificate's file holds none.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// Nothing can be kept there.
    #[error("{path}: {error}")]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Certificate and key do not belong together, or are of a kind nobody uses.
    #[error("{path}: {error}")]
    Unfit {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        error: rustls::Error,
    },
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Somebody else puts it there.
    Files(Files),
    /// The node gets it.
    Acme(acme::Order),
}

impl Source {
    /// Whether what it names can be read.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn check(&self) -> Result<(), TlsError> {
        match self {
            Self::Files(files) => files.load().map(drop),
            Self::Acme(order) => order.client().map(drop),
        }
    }
}

/// Where certificate chain and private key are, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    /// The chain, the node's own certificate first.
    pub(crate) chain: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

impl Files {
    /// Reads both.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn load(&self) -> Result<CertifiedKey, TlsError> {
        let failed = |path: &PathBuf, error| TlsError::File { path: path.clone(), error };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.chain)
            .and_then(Iterator::collect)
            .map_err(|error| failed(&self.chain, error))?;
        if chain.is_empty() {
            return Err(TlsError::Empty(self.chain.clone()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| failed(&self.key, error))?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| TlsError::Unfit { path: self.chain.clone(), error })
    }

    /// When they were last changed, where the system says.
    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.chain, &self.key].map(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
    }
}

/// The certificate in use.
#[derive(Debug)]
struct Certificate {
    files: Files,
    /// The key, and what the files' times were when it was read.
    current: RwLock<(Arc<CertifiedKey>, [Option<SystemTime>; 2])>,
}

impl Certificate {
    fn load(files: Files) -> Result<Self, TlsError> {
        let changed = files.changed();
        let key = files.load()?;
        Ok(Self { files, current: RwLock::new((Arc::new(key), changed)) })
    }

    /// Takes over what the files hold now; as long as that is no certificate, the old one stays.
    fn renew(&self) {
        let changed = self.files.changed();
        if changed == self.current.read().unwrap_or_else(PoisonError::into_inner).1 {
            return;
        }
        match self.files.load() {
            Ok(key) => {
                tracing::info!("the certificate was renewed");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(key), changed);
            }
            Err(error) => tracing::warn!(%error, "the certificate that replaces the old one cannot be used"),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone())
    }
}

/// Connections whose handshake is done. **Dropping it ends those that are not.**
pub(crate) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    _tasks: JoinSet<()>,
}

impl TlsListener {
    /// Serves what comes to `listener` with a certificate from there.
    ///
    /// # Errors
    /// [`TlsError`] when there can be none; an I/O error when the listener has no address.
    pub(crate) fn start(listener: TcpListener, source: Source) -> Result<Self, StartError> {
        let address = listener.local_addr()?;
        let mut protocols = vec![b"http/1.1".to_vec()];
        let mut tasks = JoinSet::new();
        let resolver: Arc<dyn ResolvesServerCert> = match source {
            Source::Files(files) => {
                let certificate = Arc::new(Certificate::load(files)?);
                tasks.spawn(renew(certificate.clone()));
                certificate
            }
            Source::Acme(order) => {
                let (resolver, state) = order.start()?;
                protocols.push(acme::CHALLENGE_PROTOCOL.to_vec());
                tasks.spawn(acme::keep(state));
                resolver
            }
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(StartError::Versions)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = protocols;
        let (sender, ready) = mpsc::channel(WAITING);
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), sender));
        Ok(Self { address, ready, _tasks: tasks })
    }
}

/// Looks at the files again and again.
async fn renew(certificate: Arc<Certificate>) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        certificate.renew();
    }
}

/// Why HTTPS cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// The TLS library lacks the versions.
    #[error("TLS 1.2 and 1.3: {0}")]
    Versions(rustls::Error),
    /// The listener has no address.
    #[error(transparent)]
    Io(#[from] io::Error),
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let free = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        // What has ended since the last client came.
        while handshakes.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a client that has gone: the next one may fare better.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        handshakes.spawn(async move {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                // Fails when the server is gone.
                let _ = sender.send((stream, peer)).await;
            }
            drop(permit);
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // Only when its task has panicked.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests;
