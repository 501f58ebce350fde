//! Who may open a fleet link or a room link. Every refusal has its own reason, so that logs tell an attack from a slip.

use shared::claims::{self, TicketClaims, TokenError};
use shared::ids::{NodeId, RoomName};

use crate::refusal::{Reason, Refusal};
use crate::signing::SigningKeys;

/// Why a node is turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// No `Authorization: Bearer` header.
    #[error("a node token is required")]
    NoToken,
    /// The node token is not one, or its signature, audience or time is wrong.
    #[error("node token: {0}")]
    BadToken(TokenError),
    /// The fleet has no such node.
    #[error("unknown node")]
    UnknownNode,
    /// The node's key was revoked.
    #[error("the node's key is revoked")]
    Revoked,
    /// No ticket in the query.
    #[error("a ticket is required")]
    NoTicket,
    /// The ticket is not one, or its signature, audience or time is wrong.
    #[error("ticket: {0}")]
    BadTicket(TokenError),
    /// The ticket is for another room.
    #[error("the ticket is for another room")]
    OtherRoom,
    /// The ticket was given to another node.
    #[error("the ticket is for another node")]
    OtherNode,
    /// The ticket was used before.
    #[error("the ticket was used before")]
    UsedTicket,
}

impl GateError {
    /// Its reason: 401 for what proves nothing, 403 for what proves the wrong thing.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoToken => Reason::TokenMissing,
            Self::BadToken(error) => Reason::of_token(error),
            Self::UnknownNode => Reason::NodeUnknown,
            Self::Revoked => Reason::NodeRevoked,
            Self::NoTicket => Reason::TicketMissing,
            Self::BadTicket(error) => Reason::of_ticket(error),
            Self::OtherRoom => Reason::TicketOtherRoom,
            Self::OtherNode => Reason::TicketOtherNode,
            Self::UsedTicket => Reason::TicketUsed,
        }
    }

    /// The answer to a node that is turned away.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.reason(), &self.to_string())
    }
}

/// What the fleet keeps of an enrolled node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Its public key (JWK `x`).
    pub key: String,
    /// It may do nothing any more.
    pub revoked: bool,
}

/// Checks the node token of a fleet link against the key enrolled for the node it names.
///
/// # Errors
/// [`GateError`].
pub fn fleet_link(
    node_token: Option<&str>,
    enrolled: impl FnOnce(&NodeId) -> Option<Enrolled>,
) -> Result<NodeId, GateError> {
    let token = node_token.ok_or(GateError::NoToken)?;
    let node = claims::claimed_node(token).ok_or(GateError::BadToken(TokenError::Malformed))?;
    let enrolled = enrolled(&node).ok_or(GateError::UnknownNode)?;
    claims::verify_node(token, &enrolled.key).map_err(GateError::BadToken)?;
    if enrolled.revoked { Err(GateError::Revoked) } else { Ok(node) }
}

/// Checks ticket and node token of a room link. The caller then marks the ticket's `jti` as used.
///
/// # Errors
/// [`GateError`].
pub fn room_link(
    ticket: Option<&str>,
    node_token: Option<&str>,
    edge_keys: &SigningKeys,
    room: &RoomName,
    used: impl FnOnce(&str) -> bool,
) -> Result<TicketClaims, GateError> {
    let ticket = edge_keys.verify_ticket(ticket.ok_or(GateError::NoTicket)?).map_err(GateError::BadTicket)?;
    if ticket.room != *room {
        return Err(GateError::OtherRoom);
    }
    let token = node_token.ok_or(GateError::NoToken)?;
    let shown = claims::verify_node(token, &ticket.cnf.x).map_err(GateError::BadToken)?;
    if shown.sub != ticket.sub {
        return Err(GateError::OtherNode);
    }
    if used(&ticket.jti) { Err(GateError::UsedTicket) } else { Ok(ticket) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use shared::claims::{NodeClaims, NodeKey, SigningKey};

    use super::*;

    /// RFC 8037 appendix A.1.
    const EDGE: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"e","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// RFC 8032 section 7.1, tests 2 and 3.
    const NODE: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"n","d":"TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs","x":"PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"}"#;
    const OTHER: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"o","d":"xaqN9D-fg3vtt0QvMdy3sWbThTUHbwlLhc46LgtEWPc","x":"_FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU"}"#;
    /// Year 2100.
    const LATER: u64 = 4_102_444_800;

    fn key(jwk: &str) -> SigningKey {
        SigningKey::from_jwk(jwk).unwrap()
    }

    fn id(name: &str) -> NodeId {
        NodeId::try_from(format!("ND_{name}")).unwrap()
    }

    fn den() -> RoomName {
        RoomName::try_from("den").unwrap()
    }

    fn node_token(jwk: &str, node: &str, exp: u64) -> String {
        key(jwk).sign(&NodeClaims::new(id(node), exp)).unwrap()
    }

    fn ticket(signer: &str, node: &str, bound_to: &str, room: &str, exp: u64) -> String {
        let bound = NodeKey { x: key(bound_to).public_x().to_owned() };
        let room = RoomName::try_from(room).unwrap();
        key(signer).sign(&TicketClaims::new(id(node), room, bound, "r".into(), "once".into(), exp)).unwrap()
    }

    fn enrolled(revoked: bool) -> impl Fn(&NodeId) -> Option<Enrolled> {
        move |node| (*node == id("a")).then(|| Enrolled { key: key(NODE).public_x().to_owned(), revoked })
    }

    #[test]
    fn fleet_link_table() {
        let check = |token: Option<&str>, revoked| fleet_link(token, enrolled(revoked));
        assert_eq!(check(Some(&node_token(NODE, "a", LATER)), false), Ok(id("a")));
        assert_eq!(check(None, false), Err(GateError::NoToken));
        assert_eq!(check(Some("abc"), false), Err(GateError::BadToken(TokenError::Malformed)));
        assert_eq!(check(Some(&node_token(NODE, "b", LATER)), false), Err(GateError::UnknownNode));
        let foreign = node_token(OTHER, "a", LATER);
        assert_eq!(check(Some(&foreign), false), Err(GateError::BadToken(TokenError::BadSignature)));
        let old = node_token(NODE, "a", 1_000);
        assert_eq!(check(Some(&old), false), Err(GateError::BadToken(TokenError::Expired)));
        assert_eq!(check(Some(&node_token(NODE, "a", LATER)), true), Err(GateError::Revoked));
        // Only the holder of the key learns that it is revoked.
        assert_eq!(check(Some(&foreign), true), Err(GateError::BadToken(TokenError::BadSignature)));
    }

    #[test]
    fn every_refusal_has_its_own_reason() {
        let token = [TokenError::Malformed, TokenError::BadSignature, TokenError::Expired];
        let mut all: Vec<GateError> = token.iter().cloned().map(GateError::BadToken).collect();
        all.extend(token.into_iter().map(GateError::BadTicket));
        all.extend([GateError::NoToken, GateError::UnknownNode, GateError::Revoked, GateError::NoTicket]);
        all.extend([GateError::OtherRoom, GateError::OtherNode, GateError::UsedTicket]);
        let reasons: BTreeSet<&str> = all.iter().map(|error| error.reason().as_str()).collect();
        assert_eq!(reasons.len(), all.len());
        // 401 for what proves nothing, 403 for what proves the wrong thing.
        for error in &all {
            let proves_nothing = matches!(
                error,
                GateError::BadToken(_) | GateError::BadTicket(_) | GateError::NoToken | GateError::NoTicket
            );
            assert_eq!(error.reason().status(), if proves_nothing { 401 } else { 403 }, "{error}");
        }
        let refusal = GateError::OtherRoom.refusal();
        assert_eq!((refusal.reason.status(), refusal.text.as_str()), (403, "the ticket is for another room"));
    }

    #[test]
    fn room_link_table() {
        let edge = SigningKeys::parse(EDGE).unwrap();
        let good = ticket(EDGE, "a", NODE, "den", LATER);
        let token = node_token(NODE, "a", LATER);
        let check = |ticket: Option<&str>, token: Option<&str>, used: bool| {
            room_link(ticket, token, &edge, &den(), |_| used).map(|claims| claims.sub)
        };
        assert_eq!(check(Some(&good), Some(&token), false), Ok(id("a")));
        assert_eq!(check(None, Some(&token), false), Err(GateError::NoTicket));
        assert_eq!(check(Some(&good), None, false), Err(GateError::NoToken));
        assert_eq!(check(Some(&good), Some(&token), true), Err(GateError::UsedTicket));

        let bad = |ticket: &str| check(Some(ticket), Some(&token), false);
        let forged = ticket(NODE, "a", NODE, "den", LATER);
        assert_eq!(bad(&forged), Err(GateError::BadTicket(TokenError::BadSignature)), "a node cannot mint tickets");
        assert_eq!(bad(&ticket(EDGE, "a", NODE, "attic", LATER)), Err(GateError::OtherRoom));
        assert_eq!(bad(&ticket(EDGE, "a", NODE, "den", 1_000)), Err(GateError::BadTicket(TokenError::Expired)));
        assert_eq!(bad(&token), Err(GateError::BadTicket(TokenError::BadSignature)), "a node token is no ticket");

        // A stolen ticket: the thief has its own key, enrolled or not.
        let thief = node_token(OTHER, "a", LATER);
        assert_eq!(check(Some(&good), Some(&thief), false), Err(GateError::BadToken(TokenError::BadSignature)));
        let misnamed = node_token(NODE, "b", LATER);
        assert_eq!(check(Some(&good), Some(&misnamed), false), Err(GateError::OtherNode));
    }
}
