//! What the edge signs for nodes: session tokens and tickets.

use shared::claims::{NodeKey, SESSION_TTL_SECS, SessionClaims, SigningKey, TICKET_TTL_SECS, TicketClaims, TokenError};
use shared::control::{FirstSession, OpenSession};
use shared::ids::{NodeId, RoomName};

/// Life of the ticket a node gets for dialing in again after its room link broke, seconds.
pub const REJOIN_TICKET_TTL_SECS: u64 = 24 * 60 * 60;

/// What a ticket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketUse {
    /// Dialing in now.
    Attach,
    /// Dialing in again, some time in the room's life.
    Rejoin,
}

/// Fills in a session's token.
///
/// # Errors
/// When the key cannot sign.
pub fn open_session(
    key: &SigningKey,
    node: &NodeId,
    room: &RoomName,
    session: FirstSession,
    jti: String,
    now_secs: u64,
) -> Result<OpenSession, TokenError> {
    let claims = SessionClaims {
        aud: node.clone(),
        room: room.clone(),
        sub: session.participant,
        identity: session.identity,
        generation: session.generation,
        grants: session.grants,
        jti,
        exp: now_secs.saturating_add(SESSION_TTL_SECS),
    };
    Ok(OpenSession { token: key.sign(&claims)?, ..session.open })
}

/// A ticket into `room` for `node`, whose key is `node_key`.
///
/// # Errors
/// When the key cannot sign.
#[allow(clippy::too_many_arguments, reason = "each is a claim")]
pub fn ticket(
    key: &SigningKey,
    node: &NodeId,
    node_key: &NodeKey,
    room: &RoomName,
    region: &str,
    use_: TicketUse,
    jti: String,
    now_secs: u64,
) -> Result<String, TokenError> {
    let life = match use_ {
        TicketUse::Attach => TICKET_TTL_SECS,
        TicketUse::Rejoin => REJOIN_TICKET_TTL_SECS,
    };
    let exp = now_secs.saturating_add(life);
    let claims = TicketClaims::new(node.clone(), room.clone(), node_key.clone(), region.to_owned(), jti, exp);
    key.sign(&claims)
}
