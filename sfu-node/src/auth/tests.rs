//! Every way a session token can be wrong.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use shared::claims::{PrivateJwk, SESSION_TTL_SECS, SigningKey};
use shared::control::MediaGrants;
use shared::ids::{Generation, Identity, ParticipantSid};

use super::*;

const KID: &str = "edge-1";

struct Desk {
    checks: Checks,
    edge: SigningKey,
    room: RoomName,
}

fn signing_key(kid: &str, seed: u8) -> SigningKey {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    let seed = [seed; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    SigningKey::try_from(&PrivateJwk::new(kid.to_owned(), &seed, public)).unwrap()
}

fn desk() -> Desk {
    let edge = signing_key(KID, 1);
    let keys = HashMap::from([(KID.to_owned(), edge.public_x().to_owned())]);
    let checks = Checks { node: NodeId::try_from("ND_me").unwrap(), keys, used: HashMap::new() };
    Desk { checks, edge, room: RoomName::try_from("hall").unwrap() }
}

fn claims() -> SessionClaims {
    SessionClaims {
        aud: NodeId::try_from("ND_me").unwrap(),
        room: RoomName::try_from("hall").unwrap(),
        sub: ParticipantSid::try_from("PA_ada").unwrap(),
        identity: Identity::try_from("ada").unwrap(),
        generation: Generation(1),
        grants: MediaGrants::all(),
        jti: "once".to_owned(),
        exp: unix_seconds() + SESSION_TTL_SECS,
    }
}

impl Desk {
    fn show(&mut self, token: &str) -> Result<SessionClaims, TokenRefusal> {
        self.checks.check(token, &self.room, unix_seconds())
    }

    fn show_claims(&mut self, claims: &SessionClaims) -> Result<SessionClaims, TokenRefusal> {
        let token = self.edge.sign(claims).unwrap();
        self.show(&token)
    }
}

#[test]
fn a_good_token_is_taken_once() {
    let mut desk = desk();
    assert_eq!(desk.show_claims(&claims()).unwrap().sub.as_str(), "PA_ada");
    assert_eq!(desk.show_claims(&claims()), Err(TokenRefusal::Reused));
    let another = SessionClaims { jti: "twice".to_owned(), ..claims() };
    assert!(desk.show_claims(&another).is_ok());
}

#[test]
fn tokens_for_others_are_refused() {
    let mut desk = desk();
    let node = SessionClaims { aud: NodeId::try_from("ND_other").unwrap(), ..claims() };
    assert_eq!(desk.show_claims(&node), Err(TokenError::WrongAudience.into()));
    let room = SessionClaims { room: RoomName::try_from("cellar").unwrap(), ..claims() };
    assert_eq!(desk.show_claims(&room), Err(TokenRefusal::WrongRoom));
    assert!(desk.show_claims(&claims()).is_ok(), "a refused token is not a used one");
}

#[test]
fn expired_tokens_are_refused() {
    let expired = SessionClaims { exp: unix_seconds() - INTERNAL_LEEWAY_SECS - 1, ..claims() };
    assert_eq!(desk().show_claims(&expired), Err(TokenError::Expired.into()));
}

#[test]
fn a_changed_payload_is_refused() {
    let mut desk = desk();
    let token = desk.edge.sign(&claims()).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let stronger = serde_json::to_string(&SessionClaims { generation: Generation(9), ..claims() }).unwrap();
    let tampered = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(stronger), parts[2]);
    assert_eq!(desk.show(&tampered), Err(TokenError::BadSignature.into()));
}

#[test]
fn other_keys_and_algorithms_are_refused() {
    let mut desk = desk();
    let foreign = signing_key(KID, 2).sign(&claims()).unwrap();
    assert_eq!(desk.show(&foreign), Err(TokenError::BadSignature.into()));
    let unknown = signing_key("edge-2", 2).sign(&claims()).unwrap();
    assert_eq!(desk.show(&unknown), Err(TokenRefusal::UnknownKey));

    // HS256 with the public key as the secret, in both forms an attacker has it.
    let public = URL_SAFE_NO_PAD.decode(desk.edge.public_x()).unwrap();
    for secret in [public.clone(), desk.edge.public_x().as_bytes().to_vec()] {
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::HS256) };
        let forged = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
        assert!(matches!(desk.show(&forged), Err(TokenRefusal::Invalid(_))));
    }

    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"none\",\"kid\":\"{KID}\"}}"));
    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_string(&claims()).unwrap());
    for signature in ["", "AAAA"] {
        let unsigned = format!("{header}.{payload}.{signature}");
        assert!(matches!(desk.show(&unsigned), Err(TokenRefusal::Invalid(_))));
    }
    for garbage in ["", "a.b.c", "ey", "\u{1F980}"] {
        assert!(matches!(desk.show(garbage), Err(TokenRefusal::Invalid(_))));
    }
}

#[test]
fn used_tokens_are_remembered_until_they_expire_and_no_more_than_the_limit() {
    let mut desk = desk();
    let now = unix_seconds();
    desk.checks.used = (0..MAX_USED_TOKENS).map(|n| (n.to_string(), now + 30)).collect();
    assert_eq!(desk.show_claims(&claims()), Err(TokenRefusal::Overloaded), "never forgets one that is still good");
    desk.checks.used.values_mut().for_each(|expiry| *expiry = now - INTERNAL_LEEWAY_SECS - 1);
    assert!(desk.show_claims(&claims()).is_ok());
    assert_eq!(desk.checks.used.len(), 1);
}

#[test]
fn a_refused_token_still_says_whose_it_claims_to_be() {
    let token = signing_key("other", 3).sign(&claims()).unwrap();
    let claimed = claimed_session(&token).unwrap();
    assert_eq!((claimed.participant.as_str(), claimed.generation), ("PA_ada", Generation(1)));
    assert_eq!(claimed_session("garbage"), None);
}

/// An edge that publishes a key set, 503 while there is none, and counts how often it is asked.
#[derive(Clone, Default)]
struct Edge {
    keys: std::sync::Arc<std::sync::Mutex<Option<JwkSet>>>,
    asked: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Edge {
    /// A verifier of the edge's tokens.
    async fn verifier(&self) -> Verifier {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap()).parse().unwrap();
        let edge = self.clone();
        let answer = move || async move {
            edge.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let keys = edge.keys.lock().unwrap().clone();
            keys.map(axum::Json).ok_or(axum::http::StatusCode::SERVICE_UNAVAILABLE)
        };
        let router = axum::Router::new().route("/jwks.json", axum::routing::get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Verifier::new(NodeId::try_from("ND_me").unwrap(), url, reqwest::Client::new())
    }

    fn publish(&self, key: &SigningKey) {
        self.publish_after(0, key);
    }

    /// Publishes a key behind so many others.
    fn publish_after(&self, others: usize, key: &SigningKey) {
        let other = |n: usize| signing_key(&format!("other-{n}"), 9).public_jwk();
        let keys = (0..others).map(other).chain([key.public_jwk()]).collect();
        *self.keys.lock().unwrap() = Some(JwkSet { keys });
    }

    fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::SeqCst)
    }
}

fn token(key: &SigningKey, jti: &str) -> String {
    key.sign(&SessionClaims { jti: jti.to_owned(), ..claims() }).unwrap()
}

#[tokio::test]
async fn an_unknown_key_makes_it_look_for_new_ones_but_not_all_the_time() {
    let (edge, hall) = (Edge::default(), desk().room);
    let (old, new) = (signing_key("old", 1), signing_key("new", 2));
    let verifier = edge.verifier().await;
    edge.publish(&old);
    assert!(verifier.verify(&token(&old, "1"), &hall).await.is_ok());
    assert!(verifier.verify(&token(&old, "2"), &hall).await.is_ok());
    assert_eq!(edge.asked(), 1, "the keys are kept");
    edge.publish(&new);
    for n in 0..20 {
        let stranger = signing_key(&format!("stranger-{n}"), 3);
        assert_eq!(verifier.verify(&token(&stranger, "3"), &hall).await, Err(TokenRefusal::UnknownKey));
    }
    assert_eq!(edge.asked(), 1, "strangers do not make it ask");
    verifier.state.lock().await.fetch_from = None;
    assert!(verifier.verify(&token(&new, "4"), &hall).await.is_ok());
    assert_eq!(edge.asked(), 2);
    assert_eq!(verifier.verify(&token(&old, "5"), &hall).await, Err(TokenRefusal::UnknownKey), "withdrawn");
}

#[tokio::test]
async fn an_edge_that_was_down_a_moment_ago_is_asked_again() {
    let (edge, hall, key) = (Edge::default(), desk().room, signing_key("edge", 1));
    let verifier = edge.verifier().await;
    verifier.prefetch().await;
    assert_eq!(verifier.verify(&token(&key, "1"), &hall).await, Err(TokenRefusal::UnknownKey));
    edge.publish(&key);
    tokio::time::sleep(RETRY_INTERVAL).await;
    assert!(verifier.verify(&token(&key, "1"), &hall).await.is_ok());
}

#[tokio::test]
async fn a_key_set_is_read_as_far_as_its_limits() {
    let (hall, key) = (desk().room, signing_key(KID, 1));
    let longest = MAX_JWKS_LEN / serde_json::to_string(&key.public_jwk()).unwrap().len() + 1;
    for (others, good) in [(0, true), (MAX_KEYS - 1, true), (MAX_KEYS, false)] {
        let edge = Edge::default();
        edge.publish_after(others, &key);
        assert_eq!(edge.verifier().await.verify(&token(&key, "1"), &hall).await.is_ok(), good, "{others} before it");
    }
    let edge = Edge::default();
    // The good one first: only the length is wrong.
    edge.publish(&key);
    edge.keys.lock().unwrap().as_mut().unwrap().keys.extend((0..longest).map(|_| key.public_jwk()));
    let refused = edge.verifier().await.verify(&token(&key, "1"), &hall).await;
    assert_eq!(refused, Err(TokenRefusal::UnknownKey));
}
