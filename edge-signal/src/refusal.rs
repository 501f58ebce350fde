//! Refused requests: each has a reason, and each reason one status and one code that never changes.

use shared::claims::TokenError;

use crate::report::Report;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal;)*) => {
        /// Why a request is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code in logs and metrics. **Once given it stays: alerts are set on it.**
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// HTTP status: what LiveKit's clients expect, where they see it.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

reasons! {
    /// No route, no file.
    NotFound = "not_found", 404;
    /// The route wants another method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// A variable or secret of the deployment is missing, malformed or weak.
    NotConfigured = "not_configured", 500;
    /// Our fault.
    Internal = "internal_error", 500;
    /// Too many requests from one client.
    RateLimited = "rate_limited", 429;
    /// The body is over its limit.
    BodyTooLarge = "body_too_large", 413;
    /// The body is not what the route takes.
    BodyMalformed = "body_malformed", 400;
    /// A client's signaling path without a WebSocket upgrade.
    UpgradeMissing = "upgrade_missing", 404;
    /// A node's link without a WebSocket upgrade.
    UpgradeRequired = "upgrade_required", 426;

    /// No token, nor anything else that says who asks.
    TokenMissing = "token_missing", 401;
    /// The `Authorization` header is not of the scheme wanted.
    NotBearer = "authorization_not_bearer", 401;
    /// Not a JWT of the kind wanted.
    TokenMalformed = "token_malformed", 401;
    /// Another key, or another algorithm.
    TokenBadSignature = "token_bad_signature", 401;
    /// `exp` has passed.
    TokenExpired = "token_expired", 401;
    /// `nbf` lies ahead.
    TokenNotYetValid = "token_not_yet_valid", 401;
    /// There is no `exp`.
    TokenWithoutExpiry = "token_without_expiry", 401;
    /// `iss` names no API key.
    TokenUnknownKey = "token_unknown_key", 401;
    /// `aud` is somebody else.
    TokenWrongAudience = "token_wrong_audience", 401;
    /// Its holder was removed from the room after it was minted.
    TokenRevoked = "token_revoked", 401;
    /// It is for one join, which has been.
    TokenUsed = "token_used", 401;
    /// HTTP Basic with an API key and secret that do not belong together.
    CredentialsWrong = "credentials_wrong", 401;

    /// The token has no `video` grant.
    GrantMissing = "grant_missing", 401;
    /// No `roomJoin`.
    JoinNotGranted = "join_not_granted", 401;
    /// No `agent`, and a worker asks.
    AgentNotGranted = "agent_not_granted", 401;
    /// No `canPublish`, and the request is to publish only.
    PublishNotGranted = "publish_not_granted", 401;
    /// No `canUpdateOwnMetadata`, and the join brings metadata or attributes.
    MetadataNotGranted = "metadata_not_granted", 401;
    /// No `roomCreate`.
    CreateNotGranted = "create_not_granted", 403;
    /// Who asks for a token may not give what it is to grant.
    GrantNotAllowed = "grant_not_allowed", 403;

    /// The token names no room.
    RoomNameMissing = "room_name_missing", 400;
    /// The room's name is over its limit.
    RoomNameTooLong = "room_name_too_long", 400;
    /// The token names nobody.
    IdentityMissing = "identity_missing", 400;
    /// The identity is over its limit.
    IdentityTooLong = "identity_too_long", 400;
    /// The display name is over its limit.
    NameTooLong = "name_too_long", 400;
    /// `ttl` is zero, or over its limit.
    TtlOutOfRange = "ttl_out_of_range", 400;
    /// `/rtc/v1` without `join_request`.
    JoinRequestMissing = "join_request_missing", 400;
    /// `join_request` cannot be decoded.
    JoinRequestMalformed = "join_request_malformed", 400;
    /// `join_request` is over its limit, compressed or inflated.
    JoinRequestTooLarge = "join_request_too_large", 400;
    /// The join's attributes cannot be decoded.
    AttributesMalformed = "attributes_malformed", 400;
    /// The join's attributes are over their limit.
    AttributesTooLarge = "attributes_too_large", 400;
    /// The join's metadata is over its limit.
    MetadataTooLarge = "metadata_too_large", 400;
    /// A room configuration cannot be read.
    RoomConfigMalformed = "room_config_malformed", 400;
    /// A room configuration asks for what there is not: a recording.
    RoomConfigUnsupported = "room_config_unsupported", 400;
    /// The token names a region that is none.
    RegionMalformed = "region_malformed", 400;
    /// The room takes nobody more.
    RoomFull = "room_full", 403;
    /// What is stored was written by a newer version of the edge.
    RowsNewer = "rows_newer", 503;
    /// No media node is up, or all are full.
    NoNode = "no_node", 503;

    /// There are as many agent workers as there may be.
    TooManyWorkers = "too_many_workers", 503;

    /// A link of a node that is not enrolled.
    NodeUnknown = "node_unknown", 403;
    /// The node's key was revoked.
    NodeRevoked = "node_revoked", 403;
    /// A key to enrol is none.
    NodeKeyMalformed = "node_key_malformed", 400;
    /// Enrolment without a token, from an address that nobody has admitted.
    AddressNotAdmitted = "address_not_admitted", 403;
    /// The platform does not say where a request came from.
    AddressUnknown = "address_unknown", 404;
    /// A node to revoke is not enrolled.
    NodeNotFound = "node_not_found", 404;
    /// A revoked node may still be in rooms.
    RevocationUntold = "revocation_untold", 503;
    /// A room link without a ticket.
    TicketMissing = "ticket_missing", 401;
    /// Not a JWT of the kind wanted.
    TicketMalformed = "ticket_malformed", 401;
    /// Another key, or another algorithm.
    TicketBadSignature = "ticket_bad_signature", 401;
    /// `exp` has passed.
    TicketExpired = "ticket_expired", 401;
    /// `nbf` lies ahead.
    TicketNotYetValid = "ticket_not_yet_valid", 401;
    /// There is no `exp`.
    TicketWithoutExpiry = "ticket_without_expiry", 401;
    /// It is a token of another kind.
    TicketWrongAudience = "ticket_wrong_audience", 401;
    /// It is for another room.
    TicketOtherRoom = "ticket_other_room", 403;
    /// It is for another node.
    TicketOtherNode = "ticket_other_node", 403;
    /// It was used before.
    TicketUsed = "ticket_used", 403;
    /// It names no region.
    TicketWithoutRegion = "ticket_without_region", 400;
    /// The room ended before the node came.
    RoomOver = "room_over", 404;
}

impl Reason {
    /// The reason with this code, as an object passed it to the Worker.
    #[must_use]
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == code)
    }

    /// What is wrong with an access, node or enrolment token.
    #[must_use]
    pub fn of_token(error: &TokenError) -> Self {
        match error {
            TokenError::Malformed => Self::TokenMalformed,
            TokenError::BadSignature => Self::TokenBadSignature,
            TokenError::Expired => Self::TokenExpired,
            TokenError::NotYetValid => Self::TokenNotYetValid,
            TokenError::NoExpiry => Self::TokenWithoutExpiry,
            TokenError::UnknownKey => Self::TokenUnknownKey,
            TokenError::WrongAudience => Self::TokenWrongAudience,
        }
    }

    /// What is wrong with a ticket.
    #[must_use]
    pub fn of_ticket(error: &TokenError) -> Self {
        match error {
            TokenError::Malformed | TokenError::UnknownKey => Self::TicketMalformed,
            TokenError::BadSignature => Self::TicketBadSignature,
            TokenError::Expired => Self::TicketExpired,
            TokenError::NotYetValid => Self::TicketNotYetValid,
            TokenError::NoExpiry => Self::TicketWithoutExpiry,
            TokenError::WrongAudience => Self::TicketWrongAudience,
        }
    }
}

/// A refused request. **The text is for the one who asked and may repeat what was sent; logs get the reason only.**
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why; gives the HTTP status too.
    pub reason: Reason,
    /// `text/plain` body, LiveKit's text where it has one.
    pub text: String,
}

impl Refusal {
    /// A refusal for this reason, in these words.
    #[must_use]
    pub fn new(reason: Reason, text: &str) -> Self {
        Self { reason, text: text.to_owned() }
    }

    /// A refused access, node or enrolment token.
    #[must_use]
    pub fn token(error: &TokenError) -> Self {
        Self::new(Reason::of_token(error), &error.to_string())
    }

    /// What is told of it: which route, which status, which reason; **nothing that the request brought**.
    #[must_use]
    pub fn report(&self, route: &'static str) -> Report<'static> {
        Report::Refused { route, status: self.reason.status(), reason: self.reason.as_str() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_snake_case_and_each_is_one_reasons_own() {
        let codes: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let code = reason.as_str();
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code}");
            assert_eq!(Reason::of_code(code), Some(*reason));
            assert!((400..600).contains(&reason.status()), "{code}");
        }
        assert_eq!(Reason::of_code("because"), None);
    }

    #[test]
    fn tokens_and_tickets_are_told_apart() {
        assert_eq!(Reason::of_token(&TokenError::Expired).as_str(), "token_expired");
        assert_eq!(Reason::of_ticket(&TokenError::Expired).as_str(), "ticket_expired");
        let all = [
            TokenError::Malformed,
            TokenError::BadSignature,
            TokenError::Expired,
            TokenError::NotYetValid,
            TokenError::NoExpiry,
            TokenError::UnknownKey,
            TokenError::WrongAudience,
        ];
        let codes: BTreeSet<&str> = all.iter().map(|error| Reason::of_token(error).as_str()).collect();
        assert_eq!(codes.len(), all.len());
        assert!(codes.iter().all(|code| code.starts_with("token_")), "{codes:?}");
        assert!(all.iter().all(|error| Reason::of_ticket(error).as_str().starts_with("ticket_")));
        assert!(all.iter().all(|error| Reason::of_token(error).status() == 401));
        assert!(all.iter().all(|error| Reason::of_ticket(error).status() == 401));
    }

    #[test]
    fn the_log_line_has_the_reason_and_nothing_of_the_request() {
        let refusal = Refusal::new(Reason::BodyMalformed, "malformed request: invalid type: string \"my-secret\"");
        let line: serde_json::Value = serde_json::from_str(&refusal.report("token").log_line()).unwrap();
        let expected = serde_json::json!(
            { "event": "refused", "route": "token", "status": 400, "reason": "body_malformed" }
        );
        assert_eq!(line, expected);
    }
}
