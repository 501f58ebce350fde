//! Every token: claims, minting, verifying. **Each kind pins its algorithm and checks expiry; nothing else is accepted.**
//!
//! | token | algorithm | minted by | verified by |
//! |---|---|---|---|
//! | access | HS256, API secret | app server, `POST /token` | Worker |
//! | session | EdDSA, edge key | room or fleet object | node (JWKS) |
//! | ticket | EdDSA, edge key | fleet or room object | room object |
//! | node | EdDSA, node key | node | fleet object, room object |
//! | enrolment | HS256, fleet secret | operator | fleet object |

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::control::MediaGrants;
use crate::ids::{Generation, Identity, NodeId, ParticipantSid, RoomName};

#[cfg(any(target_arch = "wasm32", test))]
mod provider;

/// Clock leeway on access tokens, seconds (LiveKit's).
pub const ACCESS_LEEWAY_SECS: u64 = 60;
/// Clock leeway on the tokens edge and nodes give each other, seconds.
pub const INTERNAL_LEEWAY_SECS: u64 = 10;
/// Life of a session token, seconds.
pub const SESSION_TTL_SECS: u64 = 60;
/// Life of an attach ticket, seconds.
pub const TICKET_TTL_SECS: u64 = 60;
/// Life of a node token, seconds.
pub const NODE_TTL_SECS: u64 = 60;

const AUDIENCE_ROOM_LINK: &str = "meridian:room-link";
const AUDIENCE_EDGE: &str = "meridian:edge";
const AUDIENCE_ENROL: &str = "meridian:enrol";

/// Why a token is refused. The texts of access-token errors are LiveKit's: clients show them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT of this kind at all.
    #[error("invalid authorization token")]
    Malformed,
    /// Signed with another key, or with an algorithm that is not this kind's.
    #[error("invalid authorization token: token signature is invalid: signature is invalid")]
    BadSignature,
    /// `exp` has passed.
    #[error("invalid authorization token: token has invalid claims: token is expired")]
    Expired,
    /// `nbf` lies ahead.
    #[error("invalid authorization token: token has invalid claims: token is not valid yet")]
    NotYetValid,
    /// There is no `exp`.
    #[error(
        "invalid authorization token: token has invalid claims: token is missing required claim: exp claim is required"
    )]
    NoExpiry,
    /// `iss` names no key this deployment has.
    #[error("invalid API key")]
    UnknownKey,
    /// `aud` is not the verifier.
    #[error("token is for another audience")]
    WrongAudience,
}

impl From<jsonwebtoken::errors::Error> for TokenError {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Self::BadSignature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => Self::NoExpiry,
            ErrorKind::InvalidAudience | ErrorKind::MissingRequiredClaim(_) => Self::WrongAudience,
            _ => Self::Malformed,
        }
    }
}

/// LiveKit's `VideoGrant`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names and meanings are LiveKit's, field by field")]
pub struct VideoGrant {
    #[serde(skip_serializing_if = "is_false")]
    pub room_join: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_record: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub ingress_admin: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination_room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub recorder: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub agent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
}

fn is_false(b: &bool) -> bool {
    !b
}

/// Participant attribute of an access token: a room that this token creates is served by nodes of this region alone. Any
/// LiveKit server SDK can set attributes; what a client says of itself does not count.
pub const REGION_ATTRIBUTE: &str = "meridian.region";

/// LiveKit's access token.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessClaims {
    /// API key.
    pub iss: String,
    /// Participant identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub: String,
    /// Token id; the identity of old tokens that have no `sub`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Expiry, Unix seconds.
    pub exp: u64,
    /// Start of validity, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Minted at, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Display name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Participant metadata.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// Participant attributes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// `ParticipantInfo.Kind`, lower case; empty: standard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// `KindDetail` names, lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kind_details: Vec<String>,
    /// What it allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoGrant>,
    /// Proto3 JSON `RoomConfiguration` for the room this join creates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_config: Option<serde_json::Value>,
    /// Name of a server-side room configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room_preset: String,
    /// Good for one join; needs a `jti`. Not LiveKit's.
    #[serde(skip_serializing_if = "is_false")]
    pub single_use: bool,
    /// Refreshed tokens repeat the identity here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity: String,
}

/// API key to API secret, in the order configured; the first one signs refreshed tokens.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<(String, String)>);

impl ApiKeys {
    /// Parses `key: secret` pairs, one a line or comma-separated (LiveKit's `LIVEKIT_KEYS` form).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.split(['\n', ',']).filter_map(|line| line.split_once(':'));
        Self(
            pairs
                .map(|(key, secret)| (key.trim().to_owned(), secret.trim().to_owned()))
                .filter(|(key, secret)| !key.is_empty() && !secret.is_empty())
                .collect(),
        )
    }

    /// The secret of an API key.
    #[must_use]
    pub fn secret(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, secret)| secret.as_str())
    }

    /// The pair that signs what the edge itself mints.
    #[must_use]
    pub fn first(&self) -> Option<(&str, &str)> {
        self.0.first().map(|(key, secret)| (key.as_str(), secret.as_str()))
    }

    /// Verifies an access token (HS256).
    ///
    /// # Errors
    /// [`TokenError`], with LiveKit's texts.
    pub fn verify(&self, token: &str) -> Result<AccessClaims, TokenError> {
        let issuer = jsonwebtoken::dangerous::insecure_decode::<Issuer>(token)?.claims.iss;
        let secret = self.secret(&issuer).ok_or(TokenError::UnknownKey)?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = ACCESS_LEEWAY_SECS;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp"]);
        decode(token, &DecodingKey::from_secret(secret.as_bytes()), &validation)
    }

    /// Mints an access token with the key named in `claims.iss`.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] when there is no such key.
    pub fn mint(&self, claims: &AccessClaims) -> Result<String, TokenError> {
        self.sign(&claims.iss, claims)
    }

    /// Signs what is no access token (HS256). **Claims without a grant let nobody in.**
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] when there is no such key.
    pub fn sign(&self, key: &str, claims: &impl Serialize) -> Result<String, TokenError> {
        let secret = self.secret(key).ok_or(TokenError::UnknownKey)?;
        encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))
    }
}

#[derive(Deserialize)]
struct Issuer {
    #[serde(default)]
    iss: String,
}

/// One session on one node, once. Audience: the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionClaims {
    /// The node.
    pub aud: NodeId,
    /// The room.
    pub room: RoomName,
    /// The participant.
    pub sub: ParticipantSid,
    /// Its identity, for stamping data packets.
    pub identity: Identity,
    /// Which of its sessions.
    pub generation: Generation,
    /// What the node enforces.
    pub grants: MediaGrants,
    /// Used once.
    pub jti: String,
    /// Unix seconds.
    pub exp: u64,
}

/// Lets one node into one room's object, once. Bound to the node's key (RFC 7800 `cnf`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketClaims {
    /// Always the room link.
    pub aud: String,
    /// The node.
    pub sub: NodeId,
    /// The room.
    pub room: RoomName,
    /// The node's public key; the node token beside the ticket must be signed with it.
    pub cnf: NodeKey,
    /// Region of the node, for the room's records.
    pub region: String,
    /// Used once.
    pub jti: String,
    /// Unix seconds.
    pub exp: u64,
}

impl TicketClaims {
    /// A ticket for `node` into `room`.
    #[must_use]
    pub fn new(node: NodeId, room: RoomName, key: NodeKey, region: String, jti: String, exp: u64) -> Self {
        Self { aud: AUDIENCE_ROOM_LINK.to_owned(), sub: node, room, cnf: key, region, jti, exp }
    }
}

/// A node's Ed25519 public key as URL-safe base64 (JWK `x`, RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKey {
    /// 32 bytes, base64url without padding.
    pub x: String,
}

/// Shows that the bearer holds a node's key. Fleet link and room link both want one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeClaims {
    /// Always the edge.
    pub aud: String,
    /// The node.
    pub sub: NodeId,
    /// Unix seconds.
    pub exp: u64,
}

impl NodeKey {
    /// Whether it can be a key at all.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        decode_key(&self.x).is_ok()
    }
}

impl NodeClaims {
    /// A node token's claims.
    #[must_use]
    pub fn new(node: NodeId, exp: u64) -> Self {
        Self { aud: AUDIENCE_EDGE.to_owned(), sub: node, exp }
    }
}

/// Lets a new node enrol its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolClaims {
    /// Always enrolment.
    pub aud: String,
    /// Unix seconds.
    pub exp: u64,
}

impl EnrolClaims {
    /// An enrolment token's claims.
    #[must_use]
    pub fn new(exp: u64) -> Self {
        Self { aud: AUDIENCE_ENROL.to_owned(), exp }
    }
}

/// Public half of the edge's signing key, as one key of `/.well-known/jwks.json` (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// Key id, as in the tokens' headers.
    pub kid: String,
    /// The key.
    pub x: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub use_: String,
}

impl Jwk {
    /// A key of the set.
    #[must_use]
    pub fn new(kid: String, x: String) -> Self {
        let [kty, crv, alg, use_] = ["OKP", "Ed25519", "EdDSA", "sig"].map(str::to_owned);
        Self { kty, crv, kid, x, alg, use_ }
    }
}

/// `/.well-known/jwks.json` (RFC 7517 section 5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JwkSet {
    /// Newest first.
    pub keys: Vec<Jwk>,
}

/// PKCS #8 version 1 header of an Ed25519 private key (RFC 8410 section 7); the 32-byte seed follows.
const ED25519_PKCS8_HEADER: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Bytes of an Ed25519 seed and of a public key (RFC 8032).
pub const ED25519_KEY_LEN: usize = 32;

/// An Ed25519 private key as a JWK (RFC 8037 section 2): how `SESSION_SIGNING_KEY` and a node's key file look.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateJwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// Key id.
    pub kid: String,
    /// Public key, base64url without padding.
    pub x: String,
    /// Seed, base64url without padding.
    pub d: String,
}

impl PrivateJwk {
    /// From raw key bytes.
    #[must_use]
    pub fn new(kid: String, seed: &[u8; ED25519_KEY_LEN], public: &[u8; ED25519_KEY_LEN]) -> Self {
        let [kty, crv] = ["OKP", "Ed25519"].map(str::to_owned);
        Self { kty, crv, kid, x: URL_SAFE_NO_PAD.encode(public), d: URL_SAFE_NO_PAD.encode(seed) }
    }
}

/// An Ed25519 key that signs session tokens and tickets (edge) or node tokens (node).
pub struct SigningKey {
    kid: String,
    x: String,
    key: EncodingKey,
}

impl SigningKey {
    /// From a private JWK in JSON.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] when it is not one, or when `x` is not the public half of `d`.
    pub fn from_jwk(json: &str) -> Result<Self, TokenError> {
        let jwk: PrivateJwk = serde_json::from_str(json).map_err(|_| TokenError::Malformed)?;
        Self::try_from(&jwk)
    }

    /// The public half, as `/.well-known/jwks.json` shows it.
    #[must_use]
    pub fn public_jwk(&self) -> Jwk {
        Jwk::new(self.kid.clone(), self.x.clone())
    }

    /// The public half alone (JWK `x`).
    #[must_use]
    pub fn public_x(&self) -> &str {
        &self.x
    }

    /// Signs and verifies once: a pair whose halves do not match would mint tokens that nobody accepts.
    fn check(&self) -> Result<(), TokenError> {
        let probe = EnrolClaims { aud: AUDIENCE_EDGE.to_owned(), exp: u64::MAX };
        let mut validation = internal_validation(Algorithm::EdDSA, AUDIENCE_EDGE);
        validation.validate_exp = false;
        let key = DecodingKey::from_ed_der(&decode_key(&self.x)?);
        decode::<EnrolClaims>(&self.sign(&probe)?, &key, &validation).map(drop).map_err(|_| TokenError::Malformed)
    }

    /// Signs any of the EdDSA claims of this module.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] when the key cannot sign.
    pub fn sign<T: Serialize>(&self, claims: &T) -> Result<String, TokenError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        encode(&header, claims, &self.key)
    }
}

impl TryFrom<&PrivateJwk> for SigningKey {
    type Error = TokenError;

    fn try_from(jwk: &PrivateJwk) -> Result<Self, TokenError> {
        if jwk.kty != "OKP" || jwk.crv != "Ed25519" || jwk.kid.is_empty() {
            return Err(TokenError::Malformed);
        }
        let seed = decode_key(&jwk.d)?;
        let der = [ED25519_PKCS8_HEADER.as_slice(), seed.as_slice()].concat();
        let key = Self { kid: jwk.kid.clone(), x: jwk.x.clone(), key: EncodingKey::from_ed_der(&der) };
        key.check()?;
        Ok(key)
    }
}

/// 32 bytes of base64url.
fn decode_key(text: &str) -> Result<[u8; ED25519_KEY_LEN], TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
    bytes.try_into().map_err(|_| TokenError::Malformed)
}

/// `kid` of a token, unverified: which key to look up.
#[must_use]
pub fn key_id(token: &str) -> Option<String> {
    jsonwebtoken::decode_header(token).ok()?.kid
}

/// Verifies a session token for this node. The caller checks room, generation and single use (`jti`).
///
/// # Errors
/// [`TokenError`].
pub fn verify_session(token: &str, key_x: &str, node: &NodeId) -> Result<SessionClaims, TokenError> {
    decode_eddsa(token, key_x, node.as_str())
}

/// Verifies a ticket with the edge's own key. The caller checks room and single use (`jti`).
///
/// # Errors
/// [`TokenError`].
pub fn verify_ticket(token: &str, key_x: &str) -> Result<TicketClaims, TokenError> {
    decode_eddsa(token, key_x, AUDIENCE_ROOM_LINK)
}

/// Verifies a node token with the node's enrolled key.
///
/// # Errors
/// [`TokenError`].
pub fn verify_node(token: &str, key_x: &str) -> Result<NodeClaims, TokenError> {
    decode_eddsa(token, key_x, AUDIENCE_EDGE)
}

/// Node id a node token claims, unverified: which key to look up.
#[must_use]
pub fn claimed_node(token: &str) -> Option<NodeId> {
    #[derive(Deserialize)]
    struct Subject {
        sub: NodeId,
    }
    Some(jsonwebtoken::dangerous::insecure_decode::<Subject>(token).ok()?.claims.sub)
}

/// Room a ticket claims to be for, unverified: which object to ask.
#[must_use]
pub fn claimed_room(ticket: &str) -> Option<RoomName> {
    #[derive(Deserialize)]
    struct Room {
        room: RoomName,
    }
    Some(jsonwebtoken::dangerous::insecure_decode::<Room>(ticket).ok()?.claims.room)
}

/// Verifies an enrolment token (HS256, fleet secret).
///
/// # Errors
/// [`TokenError`].
pub fn verify_enrol(token: &str, fleet_secret: &str) -> Result<EnrolClaims, TokenError> {
    let validation = internal_validation(Algorithm::HS256, AUDIENCE_ENROL);
    decode(token, &DecodingKey::from_secret(fleet_secret.as_bytes()), &validation)
}

/// Mints an enrolment token (HS256, fleet secret).
///
/// # Errors
/// [`TokenError::Malformed`] when it cannot be signed.
pub fn mint_enrol(claims: &EnrolClaims, fleet_secret: &str) -> Result<String, TokenError> {
    let key = EncodingKey::from_secret(fleet_secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key)
}

fn internal_validation(algorithm: Algorithm, audience: &str) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = INTERNAL_LEEWAY_SECS;
    validation.validate_nbf = true;
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "aud"]);
    validation
}

fn decode_eddsa<T: DeserializeOwned>(token: &str, key_x: &str, audience: &str) -> Result<T, TokenError> {
    let key = DecodingKey::from_ed_der(&decode_key(key_x)?);
    decode(token, &key, &internal_validation(Algorithm::EdDSA, audience))
}

fn encode<T: Serialize>(header: &Header, claims: &T, key: &EncodingKey) -> Result<String, TokenError> {
    choose_backend();
    Ok(jsonwebtoken::encode(header, claims, key)?)
}

/// Validates before it reads the claims, so that a missing claim is named as such.
fn decode<T: DeserializeOwned>(token: &str, key: &DecodingKey, validation: &Validation) -> Result<T, TokenError> {
    choose_backend();
    jsonwebtoken::decode::<IgnoredAny>(token, key, validation)?;
    // From text, as rows and messages are: reading them otherwise takes code of its own for each kind of token.
    let claims = token.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims = claims.and_then(|claims| String::from_utf8(claims).ok()).ok_or(TokenError::Malformed)?;
    serde_json::from_str(&claims).map_err(|_| TokenError::Malformed)
}

/// jsonwebtoken asks for it at the first signature; native builds have one backend, which needs no choice.
fn choose_backend() {
    // The error says that it is chosen already.
    #[cfg(target_arch = "wasm32")]
    let _ = provider::PROVIDER.install_default();
}

#[cfg(test)]
mod tests;
