//! The edge's own keys: one signs session tokens and tickets, those before and after it in a rotation still verify.

use serde::Deserialize;
use serde_json::Value;
use shared::claims::{self, Jwk, JwkSet, NodeKey, PrivateJwk, SigningKey, TicketClaims, TokenError};

/// Most keys of a deployment: far more than a rotation has at a time. Nodes take 16 of a set.
pub const MAX_KEYS: usize = 8;

/// The keys. **Only the first one signs; what any of them signed is good, and the key set shows them all.**
pub struct SigningKeys {
    signer: SigningKey,
    published: Vec<Jwk>,
}

/// How they are configured: one JWK, or a set of them (RFC 7517 section 5).
#[derive(Deserialize)]
#[serde(untagged)]
enum Configured {
    Set { keys: Vec<Value> },
    One(Value),
}

/// What a key must have that verifies (RFC 8037 section 2).
#[derive(Deserialize)]
struct Public {
    kty: String,
    crv: String,
    kid: String,
    x: String,
    /// The private half. One that has been replaced, or belongs to another edge, may come without.
    d: Option<String>,
}

impl SigningKeys {
    /// Reads a private JWK, or a set whose first key is one.
    ///
    /// # Errors
    /// [`TokenError::Malformed`]: no JSON, no key, too many, one that is none, or two with one id.
    pub fn parse(json: &str) -> Result<Self, TokenError> {
        let keys = match serde_json::from_str(json).map_err(|_| TokenError::Malformed)? {
            Configured::Set { keys } => keys,
            Configured::One(key) => vec![key],
        };
        let first = keys.first().filter(|_| keys.len() <= MAX_KEYS).ok_or(TokenError::Malformed)?;
        let signer = private(first)?;
        let mut published: Vec<Jwk> = Vec::new();
        for key in keys {
            let key = public(key)?;
            if published.iter().any(|known| known.kid == key.kid) {
                return Err(TokenError::Malformed);
            }
            published.push(key);
        }
        Ok(Self { signer, published })
    }

    /// The key that signs.
    #[must_use]
    pub fn signer(&self) -> &SigningKey {
        &self.signer
    }

    /// The public halves, the signer's first.
    #[must_use]
    pub fn key_set(&self) -> JwkSet {
        JwkSet { keys: self.published.clone() }
    }

    /// Verifies a ticket that any of the keys signed. The caller checks room and single use (`jti`).
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify_ticket(&self, ticket: &str) -> Result<TicketClaims, TokenError> {
        let kid = claims::key_id(ticket).ok_or(TokenError::Malformed)?;
        let key = self.published.iter().find(|key| key.kid == kid).ok_or(TokenError::BadSignature)?;
        claims::verify_ticket(ticket, &key.x)
    }
}

fn private(key: &Value) -> Result<SigningKey, TokenError> {
    SigningKey::try_from(&PrivateJwk::deserialize(key).map_err(|_| TokenError::Malformed)?)
}

/// A key with a private half is checked as if it signed: it may be the next one that does.
fn public(key: Value) -> Result<Jwk, TokenError> {
    let parsed = Public::deserialize(&key).map_err(|_| TokenError::Malformed)?;
    if parsed.d.is_some() {
        return private(&key).map(|key| key.public_jwk());
    }
    let is_legal = NodeKey { x: parsed.x.clone() }.is_legal();
    if parsed.kty != "OKP" || parsed.crv != "Ed25519" || parsed.kid.is_empty() || !is_legal {
        return Err(TokenError::Malformed);
    }
    Ok(Jwk::new(parsed.kid, parsed.x))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::ids::{NodeId, RoomName};

    use super::*;

    /// RFC 8037 appendix A.1.
    const OLD: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"old","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// RFC 8032 section 7.1, test 2.
    const NEW: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"new","d":"TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs","x":"PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"}"#;
    /// Year 2100.
    const LATER: u64 = 4_102_444_800;

    fn set(keys: &[&str]) -> String {
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    fn without_private_half(key: &str) -> String {
        let mut key: Value = serde_json::from_str(key).unwrap();
        key.as_object_mut().unwrap().remove("d");
        key.to_string()
    }

    fn ticket(keys: &SigningKeys) -> String {
        let (node, room) = (NodeId::try_from("ND_a").unwrap(), RoomName::try_from("den").unwrap());
        let bound = NodeKey { x: keys.signer().public_x().to_owned() };
        keys.signer().sign(&TicketClaims::new(node, room, bound, "r".into(), "once".into(), LATER)).unwrap()
    }

    #[test]
    fn each_step_of_a_rotation_believes_the_steps_beside_it() {
        // Old and new edges run side by side while a deployment goes round the world.
        let (one, added) = (OLD.to_owned(), set(&[OLD, NEW]));
        let steps = [one, added, set(&[NEW, OLD]), set(&[NEW, &without_private_half(OLD)]), NEW.to_owned()];
        let steps = steps.map(|step| SigningKeys::parse(&step).unwrap());
        for beside in steps.windows(2) {
            for (signs, verifies) in [(&beside[0], &beside[1]), (&beside[1], &beside[0])] {
                assert!(verifies.verify_ticket(&ticket(signs)).is_ok());
                let shown = verifies.key_set().keys;
                assert!(shown.iter().any(|key| *key == signs.signer().public_jwk()), "nodes find it in every key set");
            }
        }
        let forgotten = steps[4].verify_ticket(&ticket(&steps[0]));
        assert_eq!(forgotten.unwrap_err(), TokenError::BadSignature);
        let order: Vec<String> = steps[2].key_set().keys.into_iter().map(|key| key.kid).collect();
        assert_eq!(order, ["new", "old"]);
    }

    #[test]
    fn the_key_set_shows_no_private_half() {
        let shown = serde_json::to_value(SigningKeys::parse(&set(&[NEW, OLD])).unwrap().key_set()).unwrap();
        assert!(shown["keys"].as_array().unwrap().iter().all(|key| key.get("d").is_none()), "{shown}");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let torn = NEW.replace("TM0", "TM1");
        let old_public = without_private_half(OLD);
        let many = vec![NEW; MAX_KEYS + 1];
        for wrong in [
            "",
            "{}",
            "[]",
            &set(&[]),
            &set(&[&old_public, NEW]),
            &set(&[NEW, NEW]),
            &set(&[OLD, &torn]),
            &set(&[NEW, r#"{"kty":"OKP","crv":"Ed25519","kid":"x","x":"short"}"#]),
            &set(&[NEW, r#"{"kty":"EC","crv":"P-256","kid":"x","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#]),
            &set(&many),
        ] {
            assert_eq!(SigningKeys::parse(wrong).err(), Some(TokenError::Malformed), "{wrong}");
        }
        let nameless =
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        assert!(SigningKeys::parse(&set(&[NEW, &nameless.to_string()])).is_err());
    }
}
