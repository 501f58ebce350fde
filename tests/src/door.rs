//! How load clients reach a server, whichever protocol it speaks, so that one load is measured on all of them.

use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context, Result};
use serde_json::json;

use crate::client::{Client, ClientOptions, JanusClient, MediaOptions, PacketSink, Publish, Role};
use crate::token::{forge, join_claims};

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
    pub async fn publish(&self, room: u64, id: u64, tracks: Vec<Publish>, media: &MediaOptions) -> Result<Caller> {
        self.join(room, id, tracks, media, None, Seen::ByAll).await
    }

    /// Joins as a subscriber of everything these publishers, who are there already, send.
    ///
    /// # Errors
    /// The server refuses, or there is no socket for media.
    pub async fn subscribe(
        &self,
        room: u64,
        id: u64,
        publishers: &[u64],
        media: &MediaOptions,
        sink: Box<dyn PacketSink>,
    ) -> Result<Caller> {
        Ok(match self {
            Self::LiveKit { .. } => self.join(room, id, Vec::new(), media, Some(sink), Seen::ByNobody).await?,
            Self::Janus { url } => {
                let role = Role::Subscriber { publishers: publishers.to_vec(), sink };
                Caller::Janus { clients: vec![JanusClient::join(url, room, media, role).await?], waiting: None }
            }
        })
    }

    /// Joins as a publisher of these tracks who also subscribes, once [`Caller::subscribe`] is called.
    ///
    /// # Errors
    /// The server refuses, or there is no socket for media.
    pub async fn attend(
        &self,
        room: u64,
        id: u64,
        tracks: Vec<Publish>,
        media: &MediaOptions,
        sink: Box<dyn PacketSink>,
    ) -> Result<Caller> {
        self.join(room, id, tracks, media, Some(sink), Seen::ByAll).await
    }

    async fn join(
        &self,
        room: u64,
        id: u64,
        mut tracks: Vec<Publish>,
        media: &MediaOptions,
        sink: Option<Box<dyn PacketSink>>,
        seen: Seen,
    ) -> Result<Caller> {
        Ok(match self {
            Self::LiveKit { url, key, secret } => {
                let options = livekit_options(url, key, secret, room, id, seen)?;
                let options = ClientOptions { publish: tracks, media: media.clone(), ..options };
                Caller::LiveKit(Client::join_with(options, sink).await?)
            }
            Self::Janus { url } => {
                if tracks.is_empty() {
                    // Janus has no connection without a track.
                    tracks.push(Publish::muted_microphone("microphone"));
                }
                let role = Role::Publisher { id, tracks };
                Caller::Janus { clients: vec![JanusClient::join(url, room, media, role).await?], waiting: sink }
            }
        })
    }
}

/// Who is told of a participant. Janus tells nobody of its subscribers, and `LiveKit`'s protocol would tell a thousand of a
/// thousand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    ByAll,
    ByNobody,
}

fn livekit_options(url: &str, key: &str, secret: &str, room: u64, id: u64, seen: Seen) -> Result<ClientOptions> {
    let mut claims = join_claims(key, &format!("bench-{room}"), &format!("participant-{id}"));
    if let Some(grant) = &mut claims.video {
        grant.hidden = seen == Seen::ByNobody;
    }
    let claims = serde_json::to_value(claims)?;
    let token = forge(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, Some(secret.as_bytes()));
    Ok(ClientOptions::new(url, &token))
}

/// A client of either protocol.
pub enum Caller {
    /// `LiveKit`'s.
    LiveKit(Client),
    /// Janus's: one connection to send, one to receive.
    Janus {
        /// The connections.
        clients: Vec<JanusClient>,
        /// Takes what will be subscribed to.
        waiting: Option<Box<dyn PacketSink>>,
    },
}

impl Caller {
    /// Subscribes to everything these publishers, who are there already, send. Of `LiveKit`'s that is what joining does.
    ///
    /// # Errors
    /// The server refuses, or there is no socket for media.
    pub async fn subscribe(&mut self, door: &Door, room: u64, publishers: &[u64], media: &MediaOptions) -> Result<()> {
        if let (Self::Janus { clients, waiting }, Door::Janus { url }) = (self, door)
            && let Some(sink) = waiting.take()
            && !publishers.is_empty()
        {
            let role = Role::Subscriber { publishers: publishers.to_vec(), sink };
            clients.push(JanusClient::join(url, room, media, role).await?);
        }
        Ok(())
    }

    /// Waits until media can flow.
    ///
    /// # Errors
    /// It cannot in time.
    pub async fn connected(&mut self) -> Result<()> {
        match self {
            Self::LiveKit(client) => client.connected().await,
            Self::Janus { clients, .. } => {
                for client in clients {
                    client.connected().await?;
                }
                Ok(())
            }
        }
    }

    /// Where its media sockets are bound.
    #[must_use]
    pub fn sockets(&self) -> Vec<SocketAddr> {
        match self {
            Self::LiveKit(client) => client.observe(|o| o.sockets.clone()),
            Self::Janus { clients, .. } => clients.iter().map(JanusClient::socket).collect(),
        }
    }

    /// How many media packets it sent in this time (nanoseconds of Unix time).
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn sent_within(&self, window: Range<u64>) -> Result<usize> {
        match self {
            Self::LiveKit(client) => client.sent_within(window).await,
            Self::Janus { clients, .. } => {
                let mut sent = 0;
                for client in clients {
                    sent += client.sent_within(window.clone()).await?;
                }
                Ok(sent)
            }
        }
    }

    /// Leaves the room.
    ///
    /// # Errors
    /// The server does not let go.
    pub async fn leave(self) -> Result<()> {
        match self {
            Self::LiveKit(client) => client.leave().await.context("leaving"),
            Self::Janus { clients, .. } => {
                for client in clients {
                    client.leave().await.context("leaving Janus")?;
                }
                Ok(())
            }
        }
    }
}
