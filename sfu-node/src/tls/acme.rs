//! A certificate from an ACME server (RFC 8555), proven by TLS on the very port that serves it (tls-alpn-01, RFC 8737), and
//! renewed in time. **Account and certificate are kept, so that a restart asks for nothing.**

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_acme::caches::DirCache;
use rustls_acme::{AcmeConfig, AcmeState, ResolvesServerCertAcme};
use url::Url;

use super::TlsError;

/// ALPN name of a challenge (RFC 8737 section 6.1).
pub(super) const CHALLENGE_PROTOCOL: &[u8] = b"acme-tls/1";

/// What is asked for, and of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// Names of this node.
    pub(crate) domains: Vec<String>,
    /// Whom the server may write to.
    pub(crate) contact: Option<String>,
    /// The server's directory.
    pub(crate) directory: Url,
    /// Certificates that the server's own is trusted by, PEM; the public ones, if not given.
    pub(crate) roots: Option<PathBuf>,
    /// Where account and certificate are kept.
    pub(crate) cache: PathBuf,
}

impl Order {
    /// Begins: the resolver has a certificate once [`keep`] has got one.
    ///
    /// # Errors
    /// [`TlsError`]: the roots cannot be read, or nothing can be kept.
    pub(super) fn start(&self) -> Result<(Arc<ResolvesServerCertAcme>, AcmeState<io::Error>), TlsError> {
        let unkept = |error| TlsError::Cache { path: self.cache.clone(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.cache).map_err(unkept)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = match self.client()? {
            Some(client) => AcmeConfig::new_with_client_config(&self.domains, Arc::new(client)),
            None => AcmeConfig::new_with_provider(&self.domains, provider),
        };
        let contact = self.contact.iter().map(|address| format!("mailto:{address}"));
        let config = config.contact(contact).directory(self.directory.as_str());
        let state = config.cache(DirCache::new(self.cache.clone())).state();
        Ok((state.resolver(), state))
    }

    /// How the server is spoken to, if it is not one of the public ones.
    ///
    /// # Errors
    /// [`TlsError`]: the roots cannot be read.
    pub(super) fn client(&self) -> Result<Option<ClientConfig>, TlsError> {
        let Some(path) = &self.roots else { return Ok(None) };
        let failed = |error| TlsError::File { path: path.clone(), error };
        let unfit = |error| TlsError::Unfit { path: path.clone(), error };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(path).map_err(failed)? {
            roots.add(root.map_err(failed)?).map_err(unfit)?;
        }
        if roots.is_empty() {
            return Err(TlsError::Empty(path.clone()));
        }
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let client = client.with_safe_default_protocol_versions().map_err(unfit)?;
        Ok(Some(client.with_root_certificates(roots).with_no_client_auth()))
    }
}

/// Gets the certificate and renews it, for as long as it is polled. What fails is tried again, ever more seldom.
pub(super) async fn keep(mut state: AcmeState<io::Error>) {
    while let Some(event) = state.next().await {
        match event {
            Ok(done) => tracing::info!(step = ?done, "certificate by ACME"),
            Err(error) => tracing::warn!(%error, "no certificate by ACME yet"),
        }
    }
}

#[cfg(test)]
mod tests;
