//! How load clients reach a server, whichever protocol it speaks, so that one load is measured on all of them.

use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context, Result};
use serde_json::json;

use crate::client::{Client, ClientOptions, JanusClient, PacketSink, Publish, Role, SrtpOffer};
use crate::token::{forge, join_claims};

/// Profile of every media connection through a door: servers have different favourites among those a browser offers.
const SRTP: SrtpOffer = SrtpOffer::Gcm128Only;

/// Where a server is and how it is spoken to.
#[derive(Debug, Clone)]
pub enum Door {
    /// `LiveKit`'s protocol.
    LiveKit {
        /// `http` or `ws`.
        url: String,
        /// Its API key.
        key: String,
        /// The key's secret.
        secret: String,
    },
    /// Janus's `VideoRoom`.
    Janus {
        /// Of its WebSocket API.
        url: String,
    },
}

impl Door {
    /// Makes a room where there is none before somebody makes it.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn make_room(&self, room: u64) -> Result<()> {
        match self {
            Self::LiveKit { .. } => Ok(()),
            Self::Janus { url } => JanusClient::make_room(url, room).await,
        }
    }

    /// Joins as a publisher of these tracks.
    ///
    /// # Errors
    /// The server refuses, or there is no socket for media.
    pub async fn publish(&self, room: u64, id: u64, tracks: Vec<Publish>) -> Result<Caller> {
        Ok(match self {
            Self::LiveKit { url, key, secret } => {
                let options = livekit_options(url, key, secret, room, &format!("publisher-{id}"));
                Caller::LiveKit(Client::join(ClientOptions { publish: tracks, ..options? }).await?)
            }
            Self::Janus { url } => {
                Caller::Janus(JanusClient::join(url, room, SRTP, Role::Publisher { id, tracks }).await?)
            }
        })
    }

    /// Joins as a subscriber of everything these publishers, who are there already, send.
    ///
    /// # Errors
    /// The server refuses, or there is no socket for media.
    pub async fn subscribe(&self, room: u64, id: u64, publishers: &[u64], sink: Box<dyn PacketSink>) -> Result<Caller> {
        Ok(match self {
            Self::LiveKit { url, key, secret } => {
                let options = livekit_options(url, key, secret, room, &format!("subscriber-{id}"))?;
                Caller::LiveKit(Client::join_with(options, Some(sink)).await?)
            }
            Self::Janus { url } => {
                let role = Role::Subscriber { publishers: publishers.to_vec(), sink };
                Caller::Janus(JanusClient::join(url, room, SRTP, role).await?)
            }
        })
    }
}

fn livekit_options(url: &str, key: &str, secret: &str, room: u64, identity: &str) -> Result<ClientOptions> {
    let claims = serde_json::to_value(join_claims(key, &format!("bench-{room}"), identity))?;
    let token = forge(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, Some(secret.as_bytes()));
    Ok(ClientOptions { srtp: SrtpOffer::Gcm, ..ClientOptions::new(url, &token) })
}

/// A client of either protocol.
pub enum Caller {
    /// `LiveKit`'s.
    LiveKit(Client),
    /// Janus's.
    Janus(JanusClient),
}

impl Caller {
    /// Waits until media can flow.
    ///
    /// # Errors
    /// It cannot in time.
    pub async fn connected(&mut self) -> Result<()> {
        match self {
            Self::LiveKit(client) => client.connected().await,
            Self::Janus(client) => client.connected().await,
        }
    }

    /// Where its media sockets are bound.
    #[must_use]
    pub fn sockets(&self) -> Vec<SocketAddr> {
        match self {
            Self::LiveKit(client) => client.observe(|o| o.sockets.clone()),
            Self::Janus(client) => vec![client.socket()],
        }
    }

    /// How many media packets it sent in this time (nanoseconds of Unix time).
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn sent_within(&self, window: Range<u64>) -> Result<usize> {
        match self {
            Self::LiveKit(client) => client.sent_within(window).await,
            Self::Janus(client) => client.sent_within(window).await,
        }
    }

    /// Leaves the room.
    ///
    /// # Errors
    /// The server does not let go.
    pub async fn leave(self) -> Result<()> {
        match self {
            Self::LiveKit(client) => client.leave().await.context("leaving"),
            Self::Janus(client) => client.leave().await.context("leaving Janus"),
        }
    }
}
