//! What a session is opened with.

use shared::control::{ClientTraits, MediaGrants, PeerConnections, PlayoutDelay};
use shared::ids::{Identity, SessionKey};

use crate::media::api::{HandshakeRole, RoomKey, ShardIndex, SrtpProfile};

/// Whose session it is and what the client is like.
#[derive(Debug, Clone)]
pub(crate) struct SessionParams {
    pub(crate) key: SessionKey,
    pub(crate) room: RoomKey,
    /// Where its transports are.
    pub(crate) shard: ShardIndex,
    pub(crate) identity: Identity,
    pub(crate) grants: MediaGrants,
    pub(crate) peer_connections: PeerConnections,
    pub(crate) client: ClientTraits,
    /// What its client and the node before protect media with.
    pub(crate) srtp: Option<SrtpProfile>,
    /// What its client is asked for with every video.
    pub(crate) playout_delay: Option<PlayoutDelay>,
}

impl SessionParams {
    /// The node's role in DTLS. Who is connected elsewhere begins at once, before it can know of a new path, and then waits
    /// longer and longer to try again: so the node begins where the client is known to change its role with the association
    /// (RFC 8842 section 5.1), as libwebrtc does.
    pub(super) fn handshake(&self) -> HandshakeRole {
        let ClientTraits { sdk, browser, .. } = &self.client;
        let changes = match sdk.as_str() {
            "js" => browser == "chrome",
            sdk => ["rust", "python", "node", "cpp", "unity"].contains(&sdk),
        };
        self.srtp.filter(|_| changes).map_or(HandshakeRole::Server, HandshakeRole::Client)
    }
}
