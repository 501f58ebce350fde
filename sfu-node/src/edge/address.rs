//! Which addresses clients reach this node at, as the edge sees them: behind a cloud's address translation, no
//! interface has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use reqwest::StatusCode;
use shared::control::{ADDRESS_PATH, SeenAddress};
use url::Url;

use super::{backoff, endpoint};

/// Longest one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why an address is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    /// The edge does not know it, or is none: asking again is no use.
    #[error("the edge does not tell this node its address ({0}): give --public-address")]
    NotTold(StatusCode),
    /// No answer, or none that is one.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

/// Asks until the edge has said for at least one of IPv4 and IPv6. A machine that just boots may have no network yet.
///
/// # Errors
/// [`AddressError::NotTold`] where the edge knows no addresses; [`AddressError::Http`] when no client can be made.
pub(crate) async fn seen_by(edge: &Url) -> Result<Vec<IpAddr>, AddressError> {
    let from = |local: IpAddr| reqwest::Client::builder().local_address(local).timeout(TIMEOUT).no_proxy().build();
    let clients = (from(Ipv4Addr::UNSPECIFIED.into())?, from(Ipv6Addr::UNSPECIFIED.into())?);
    let mut waits = backoff();
    loop {
        let (v4, v6) = tokio::join!(ask(&clients.0, edge), ask(&clients.1, edge));
        let error = match (v4, v6) {
            (Ok(v4), Ok(v6)) => return Ok(vec![v4, v6]),
            (Ok(only), Err(_)) | (Err(_), Ok(only)) => return Ok(vec![only]),
            (Err(error @ AddressError::NotTold(_)), Err(_)) | (Err(_), Err(error @ AddressError::NotTold(_))) => {
                return Err(error);
            }
            (Err(error), Err(_)) => error,
        };
        tracing::warn!(%error, "the edge has not told this node its address yet");
        tokio::time::sleep(waits.next().unwrap_or(TIMEOUT)).await;
    }
}

async fn ask(http: &reqwest::Client, edge: &Url) -> Result<IpAddr, AddressError> {
    let response = http.get(endpoint(edge, ADDRESS_PATH)).send().await?;
    if response.status().is_client_error() {
        return Err(AddressError::NotTold(response.status()));
    }
    let SeenAddress { address } = response.error_for_status()?.json().await?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::State;
    use axum::routing::get;
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    /// An edge on IPv4 that answers each question as the next of these says, and at last always so.
    async fn edge(answers: &'static [(u16, &'static str)]) -> (Url, JoinHandle<()>) {
        let answer = move |State(asked): State<Arc<AtomicUsize>>| async move {
            let turn = asked.fetch_add(1, Ordering::Relaxed);
            let (status, body) = answers[turn.min(answers.len() - 1)];
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().route(ADDRESS_PATH, get(answer)).with_state(Arc::default());
        (url, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
    }

    #[tokio::test]
    async fn the_edge_is_asked_until_it_answers() {
        let (url, server) = edge(&[(503, ""), (200, "{}"), (200, r#"{"address":"192.0.2.7"}"#)]).await;
        assert_eq!(seen_by(&url).await.unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        server.abort();
        let (url, server) = edge(&[(404, "the platform does not say")]).await;
        assert!(matches!(seen_by(&url).await, Err(AddressError::NotTold(StatusCode::NOT_FOUND))));
        server.abort();
    }
}
