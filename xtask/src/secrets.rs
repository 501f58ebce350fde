//! The secrets of a local deployment: made once, kept beside its state, never used anywhere else.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::rand::fill;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use shared::claims::{AccessClaims, ApiKeys, EnrolClaims, PrivateJwk, VideoGrant, mint_enrol};

/// API key of every local deployment (LiveKit's quick starts use it).
pub const API_KEY: &str = "devkey";
/// Its secret.
pub const API_SECRET: &str = "secret";

const FILE: &str = "secrets.json";
const SECRET_BYTES: usize = 32;
const API_KEY_BYTES: usize = 9;
const KEY_ID_BYTES: usize = 6;
/// Life of what is minted for local use.
const LOCAL_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What a deployment keeps to itself.
#[derive(Serialize, Deserialize)]
pub struct Secrets {
    fleet_secret: String,
    signing_key: PrivateJwk,
}

impl Secrets {
    /// Those of the deployment in `state_dir`, made at its first start.
    ///
    /// # Errors
    /// When they can neither be read nor written.
    pub fn load_or_make(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join(FILE);
        if let Ok(text) = fs::read_to_string(&path) {
            let parsed = serde_json::from_str(&text);
            return parsed.with_context(|| format!("{} is damaged: delete it with its directory", path.display()));
        }
        fs::create_dir_all(state_dir).with_context(|| format!("creating {}", state_dir.display()))?;
        let made = Self::make()?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(serde_json::to_string_pretty(&made)?.as_bytes())?;
        Ok(made)
    }

    /// The Worker's variables and secrets.
    ///
    /// # Errors
    /// When the signing key cannot be written as JSON.
    pub fn vars(&self) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::from([
            ("API_KEYS".to_owned(), format!("{API_KEY}: {API_SECRET}")),
            ("FLEET_SECRET".to_owned(), self.fleet_secret.clone()),
            ("SESSION_SIGNING_KEY".to_owned(), serde_json::to_string(&self.signing_key)?),
            ("OPEN_MEETINGS".to_owned(), "true".to_owned()),
        ]))
    }

    /// An enrolment token, as an operator would give to a new node.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn enrolment_token(&self) -> Result<String> {
        mint_enrol(&EnrolClaims::new(expiry()?), &self.fleet_secret).map_err(|error| anyhow!(error))
    }

    /// Those of a deployment that others reach: with an API key and secret of its own, and closed meetings.
    ///
    /// # Errors
    /// When there is no randomness, or the signing key cannot be written as JSON.
    pub(crate) fn deployment(&self) -> Result<BTreeMap<String, String>> {
        let mut secrets = self.vars()?;
        secrets.remove("OPEN_MEETINGS");
        secrets.insert("API_KEYS".to_owned(), Self::make_api_key()?);
        Ok(secrets)
    }

    pub(crate) fn make() -> Result<Self> {
        Ok(Self { fleet_secret: random(SECRET_BYTES)?, signing_key: Self::make_signing_key()? })
    }

    /// A line of `API_KEYS`.
    pub(crate) fn make_api_key() -> Result<String> {
        Ok(format!("API{}: {}", random(API_KEY_BYTES)?, random(SECRET_BYTES)?))
    }

    /// A key that signs session tokens and tickets.
    pub(crate) fn make_signing_key() -> Result<PrivateJwk> {
        let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("no Ed25519 key"))?;
        let seed = pair.seed().and_then(|seed| seed.as_be_bytes()).map_err(|_| anyhow!("no Ed25519 seed"))?;
        let public = pair.public_key().as_ref().try_into()?;
        Ok(PrivateJwk::new(random(KEY_ID_BYTES)?, seed.as_ref().try_into()?, public))
    }
}

/// An access token of the local API key: may join `room` as `identity`.
///
/// # Errors
/// When it cannot be signed.
pub fn access_token(room: &str, identity: &str) -> Result<String> {
    let claims = AccessClaims {
        iss: API_KEY.to_owned(),
        sub: identity.to_owned(),
        exp: expiry()?,
        video: Some(VideoGrant { room_join: true, room: room.to_owned(), ..VideoGrant::default() }),
        ..AccessClaims::default()
    };
    ApiKeys::parse(&format!("{API_KEY}: {API_SECRET}")).mint(&claims).map_err(|error| anyhow!(error))
}

/// So many random bytes as text.
fn random(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    fill(&mut random).map_err(|_| anyhow!("no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

fn expiry() -> Result<u64> {
    Ok((SystemTime::now().duration_since(UNIX_EPOCH)? + LOCAL_TTL).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_keeps_its_secrets() {
        let dir = std::env::temp_dir().join(format!("meridian-secrets-test-{}", std::process::id()));
        let made = Secrets::load_or_make(&dir).unwrap().vars().unwrap();
        assert_eq!(made, Secrets::load_or_make(&dir).unwrap().vars().unwrap());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn tokens_verify() {
        let keys = ApiKeys::parse("devkey: secret");
        let claims = keys.verify(&access_token("den", "ada").unwrap()).unwrap();
        assert_eq!((claims.sub.as_str(), claims.video.unwrap().room.as_str()), ("ada", "den"));
        let secrets = Secrets::make().unwrap();
        shared::claims::verify_enrol(&secrets.enrolment_token().unwrap(), &secrets.fleet_secret).unwrap();
    }
}
