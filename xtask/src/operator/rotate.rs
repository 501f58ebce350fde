//! `cargo xtask rotate`: the steps that replace an API key or the session signing key of a deployment under its calls.
//! **A key is known everywhere before it signs, and good until nothing that it signed is.**

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{API_KEYS, read_secrets};
use crate::secrets::Secrets;

/// Name of the secret with the key, or keys, that sign what nodes believe.
const SESSION_SIGNING_KEY: &str = "SESSION_SIGNING_KEY";

/// Replace a key of a deployment in three steps, without a join refused or a call dropped.
#[derive(Args)]
pub struct Rotate {
    /// The file of `cargo xtask secrets`; it is changed.
    #[arg(long, env = "MERIDIAN_SECRETS")]
    secrets: PathBuf,
    /// Which key.
    #[arg(value_enum)]
    key: Rotated,
    /// Which step.
    #[arg(value_enum)]
    step: Step,
}

/// A key that can be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rotated {
    /// What app servers sign access tokens with.
    ApiKey,
    /// What the edge signs session tokens and tickets with.
    SigningKey,
}

/// A step of a rotation; the edge is deployed after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// A new key is good, the old one signs.
    Add,
    /// The new one signs, the old one is still good. Once more takes it back.
    Switch,
    /// The old one is no longer good.
    Retire,
}

impl Rotate {
    /// Does the step.
    ///
    /// # Errors
    /// When the file cannot be read or written, or it is not this step's turn.
    pub fn run(&self) -> Result<()> {
        let mut secrets = read_secrets(&self.secrets)?;
        rotate(&mut secrets, self.key, self.step)?;
        // Beside it first: half a file would be a deployment without keys.
        let fresh = self.secrets.with_extension("new.json");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh);
        let file = file.as_mut().map_err(|error| anyhow::anyhow!("creating {}: {error}", fresh.display()))?;
        file.write_all(serde_json::to_string_pretty(&secrets)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &self.secrets).with_context(|| format!("writing {}", self.secrets.display()))?;
        println!("now deploy the edge with {}; then: {}", self.secrets.display(), next(self.key, self.step));
        Ok(())
    }
}

/// What to do when the edge has been deployed.
fn next(key: Rotated, step: Step) -> &'static str {
    match (key, step) {
        (Rotated::ApiKey, Step::Add) => "give the new key to app servers and receivers of webhooks, and switch",
        (Rotated::ApiKey, Step::Switch) => "when no token of the old key is good any more, retire it",
        (Rotated::SigningKey, Step::Add) => "wait a minute, and switch",
        (Rotated::SigningKey, Step::Switch) => "wait a day, as long as tickets are good, and retire the old key",
        (_, Step::Retire) => "it is done",
    }
}

/// Does a step to the secrets of a deployment.
///
/// # Errors
/// When it is not this step's turn, or a secret is not what it must be.
pub fn rotate(secrets: &mut BTreeMap<String, String>, key: Rotated, step: Step) -> Result<()> {
    let name = match key {
        Rotated::ApiKey => API_KEYS,
        Rotated::SigningKey => SESSION_SIGNING_KEY,
    };
    let old = secrets.get(name).with_context(|| format!("no {name}"))?;
    let new = match key {
        Rotated::ApiKey => {
            let lines = old.split(['\n', ',']).map(str::trim).filter(|line| !line.is_empty());
            let keys = stepped(lines.map(str::to_owned).collect(), step, Secrets::make_api_key)?;
            keys.join("\n")
        }
        Rotated::SigningKey => {
            let make = || Ok(serde_json::to_value(Secrets::make_signing_key()?)?);
            let mut keys = stepped(signing_keys(old)?, step, make)?;
            let only = keys.len() == 1;
            let one = if only { keys.pop() } else { None };
            one.map_or_else(|| serde_json::to_string(&KeySet { keys }), |one| serde_json::to_string(&one))?
        }
    };
    secrets.insert(name.to_owned(), new);
    Ok(())
}

/// A JWK Set with private keys (RFC 7517 section 5).
#[derive(Serialize, Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

fn signing_keys(secret: &str) -> Result<Vec<Value>> {
    let parsed: Value = serde_json::from_str(secret).context("the signing key is no JSON")?;
    if parsed.get("keys").is_none() {
        return Ok(vec![parsed]);
    }
    Ok(serde_json::from_value::<KeySet>(parsed)?.keys)
}

fn stepped<T>(mut keys: Vec<T>, step: Step, make: impl FnOnce() -> Result<T>) -> Result<Vec<T>> {
    match (step, keys.len()) {
        (Step::Add, 1) => keys.push(make()?),
        (Step::Add, many) => bail!("there are {many} keys: this rotation is not over (switch, retire)"),
        (Step::Switch, 2) => keys.swap(0, 1),
        (Step::Retire, 2) => keys.truncate(1),
        (_, one) => bail!("{one} keys: one that has a successor is needed (add)"),
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use shared::claims::ApiKeys;

    use super::*;

    fn api_keys(secrets: &BTreeMap<String, String>) -> Vec<String> {
        secrets[API_KEYS].lines().map(str::to_owned).collect()
    }

    #[test]
    fn three_steps_replace_a_key() {
        let mut secrets = Secrets::make().unwrap().deployment().unwrap();
        let before = (api_keys(&secrets).remove(0), signing_keys(&secrets[SESSION_SIGNING_KEY]).unwrap().remove(0));
        for key in [Rotated::ApiKey, Rotated::SigningKey] {
            for wrong in [Step::Switch, Step::Retire] {
                assert!(rotate(&mut secrets.clone(), key, wrong).is_err(), "{key:?}: there is nothing to {wrong:?} to");
            }
            rotate(&mut secrets, key, Step::Add).unwrap();
            assert!(rotate(&mut secrets.clone(), key, Step::Add).is_err());
        }
        let keys = signing_keys(&secrets[SESSION_SIGNING_KEY]).unwrap();
        assert_eq!((&api_keys(&secrets)[0], &keys[0]), (&before.0, &before.1), "the old ones sign");
        let (api, signing) = (api_keys(&secrets).remove(1), keys[1].clone());
        for key in [Rotated::ApiKey, Rotated::SigningKey] {
            rotate(&mut secrets, key, Step::Switch).unwrap();
        }
        assert_eq!(api_keys(&secrets), [api.clone(), before.0]);
        assert_eq!(signing_keys(&secrets[SESSION_SIGNING_KEY]).unwrap(), [signing.clone(), before.1]);
        for key in [Rotated::ApiKey, Rotated::SigningKey] {
            rotate(&mut secrets, key, Step::Retire).unwrap();
        }
        assert_eq!(api_keys(&secrets), [api]);
        assert_eq!(serde_json::from_str::<Value>(&secrets[SESSION_SIGNING_KEY]).unwrap(), signing);
        assert!(ApiKeys::parse(&secrets[API_KEYS]).first().is_some_and(|(_, secret)| secret.len() >= 32));
    }

    #[test]
    fn the_file_is_changed_as_a_whole_and_stays_its_owners() {
        use std::os::unix::fs::PermissionsExt;
        let file = std::env::temp_dir().join(format!("meridian-rotate-test-{}.json", std::process::id()));
        let _ = fs::remove_file(&file);
        super::super::MakeSecrets { file: file.clone() }.run().unwrap();
        let before = read_secrets(&file).unwrap();
        Rotate { secrets: file.clone(), key: Rotated::ApiKey, step: Step::Add }.run().unwrap();
        let after = read_secrets(&file).unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        fs::remove_file(&file).unwrap();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!((after[API_KEYS].lines().count(), after.len()), (2, before.len()));
        assert!(after[API_KEYS].starts_with(&before[API_KEYS]));
    }
}
