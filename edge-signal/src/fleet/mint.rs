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
    open_session_with(node, room, session, jti, now_secs, |claims| key.sign(claims))
}

/// The same with a token that somebody else makes of its claims.
///
/// # Errors
/// The maker's.
pub fn open_session_with<E>(
    node: &NodeId,
    room: &RoomName,
    session: FirstSession,
    jti: String,
    now_secs: u64,
    token: impl FnOnce(&SessionClaims) -> Result<String, E>,
) -> Result<OpenSession, E> {
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
    Ok(OpenSession { token: token(&claims)?, ..session.open })
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

#[cfg(test)]
mod tests {
    use shared::claims::{verify_session, verify_ticket};
    use shared::control::{ClientTraits, MediaGrants, PeerConnections};
    use shared::ids::{Generation, Identity, ParticipantSid};

    use super::*;

    /// RFC 8037 appendix A.1.
    const EDGE: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"e","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// Year 2100.
    const NOW: u64 = 4_102_444_800;

    fn node() -> NodeId {
        NodeId::try_from("ND_a").unwrap()
    }

    fn den() -> RoomName {
        RoomName::try_from("den").unwrap()
    }

    #[test]
    fn a_session_token_is_a_minute_long_and_names_all_it_is_for() {
        let key = SigningKey::from_jwk(EDGE).unwrap();
        let grants = MediaGrants {
            can_publish: false,
            can_subscribe: true,
            can_publish_data: false,
            hidden: true,
            agent: false,
        };
        let session = FirstSession {
            participant: ParticipantSid::try_from("PA_ada").unwrap(),
            identity: Identity::try_from("ada").unwrap(),
            generation: Generation(3),
            grants,
            open: OpenSession {
                token: String::new(),
                peer_connections: PeerConnections::Single,
                client: ClientTraits::default(),
                offer: None,
                tracks: Vec::new(),
                subscriptions: Vec::new(),
                established: None,
                playout_delay: None,
            },
        };
        let open = open_session(&key, &node(), &den(), session, "once".into(), NOW).unwrap();
        let claims = SessionClaims {
            aud: node(),
            room: den(),
            sub: ParticipantSid::try_from("PA_ada").unwrap(),
            identity: Identity::try_from("ada").unwrap(),
            generation: Generation(3),
            grants,
            jti: "once".into(),
            exp: NOW + 60,
        };
        assert_eq!(verify_session(&open.token, key.public_x(), &node()), Ok(claims));
    }

    #[test]
    fn a_ticket_is_a_minute_long_to_come_and_a_day_to_come_again() {
        let key = SigningKey::from_jwk(EDGE).unwrap();
        let bound = NodeKey { x: "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw".into() };
        for (use_, life) in [(TicketUse::Attach, 60), (TicketUse::Rejoin, 24 * 60 * 60)] {
            let ticket = ticket(&key, &node(), &bound, &den(), "local-a", use_, "once".into(), NOW).unwrap();
            let claims = TicketClaims::new(node(), den(), bound.clone(), "local-a".into(), "once".into(), NOW + life);
            assert_eq!(verify_ticket(&ticket, key.public_x()), Ok(claims), "{use_:?}");
        }
    }
}
