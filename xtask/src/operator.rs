//! What an operator does from a workstation: makes a deployment's secrets, lets nodes in, throws them out.
//! **The fleet secret never leaves the workstation: the edge gets tokens that are good for minutes.**

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use shared::claims::{ApiKeys, EnrolClaims, mint_enrol};
use shared::control::{ADMIT_PATH, AdmitRequest, REVOKE_PATH, RevokeRequest};
use shared::ids::NodeId;

use crate::node;
use crate::secrets::Secrets;

mod drain;
pub mod rotate;

/// Name of the secret in the file that this module writes.
const FLEET_SECRET: &str = "FLEET_SECRET";
/// Name of the API keys there.
const API_KEYS: &str = "API_KEYS";
/// Life of the token that one request shows.
const REQUEST_TTL: Duration = Duration::from_secs(5 * 60);
/// Life of the token that is given to a node.
const NODE_TTL: Duration = Duration::from_secs(60 * 60);

/// Make the secrets of a deployment: a file for `cargo xtask deploy --secrets` and `cargo xtask fleet`.
#[derive(Args)]
pub struct MakeSecrets {
    /// A file that does not exist yet, for your user alone. Keep it where you keep passwords.
    file: PathBuf,
}

impl MakeSecrets {
    /// Makes them.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written.
    pub fn run(&self) -> Result<()> {
        let secrets = Secrets::make()?.deployment()?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)
            .with_context(|| format!("creating {}", self.file.display()))?;
        file.write_all(serde_json::to_string_pretty(&secrets)?.as_bytes())?;
        println!("{}: {}", self.file.display(), secrets.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
        Ok(())
    }
}

/// Let nodes into a fleet, see them, drain them, throw them out.
#[derive(Args)]
pub struct Fleet {
    /// The file of `cargo xtask secrets`.
    #[arg(long, env = "MERIDIAN_SECRETS")]
    secrets: PathBuf,
    #[command(subcommand)]
    task: FleetTask,
}

#[derive(Subcommand)]
enum FleetTask {
    /// Lets one new node enrol from each of these addresses, within the hour.
    Admit {
        /// The edge, `https://…`.
        #[arg(long)]
        edge: String,
        /// As `terraform output -raw addresses` prints them.
        #[arg(required = true, value_delimiter = ' ')]
        addresses: Vec<IpAddr>,
    },
    /// Lists the nodes that are up.
    Nodes {
        /// The edge, `https://…`.
        #[arg(long)]
        edge: String,
    },
    /// Says how many nodes each region should have, and why.
    Needs {
        /// The edge, `https://…`.
        #[arg(long)]
        edge: String,
    },
    /// Has nodes drain before their machines are ended: they get no room any more, and their calls move to others.
    Drain {
        /// The edge, `https://…`.
        #[arg(long)]
        edge: String,
        /// Takes it back: they get rooms again.
        #[arg(long, conflicts_with = "wait")]
        undo: bool,
        /// Ends when no session is left on them.
        #[arg(long)]
        wait: bool,
        /// `ND_…`, or one of the machine's addresses.
        #[arg(required = true, value_delimiter = ' ')]
        nodes: Vec<String>,
    },
    /// Throws a node out: its key opens nothing any more.
    Revoke {
        /// The edge, `https://…`.
        #[arg(long)]
        edge: String,
        /// `ND_…`, from its log.
        node: String,
    },
    /// Looks whether a call works, with `sfu-node probe`: joins, sends and receives through the edge and a node.
    Probe {
        /// The edge, `https://…`.
        #[arg(long)]
        edge: String,
        /// Through a node of this region; through the nearest, if not given.
        #[arg(long)]
        region: Option<String>,
        /// More arguments of `sfu-node probe`, after `--`.
        #[arg(last = true)]
        more: Vec<String>,
    },
    /// Prints a token that lets a node enrol within the hour (`MERIDIAN_ENROL_TOKEN`): for nodes set up by hand.
    Token,
}

impl Fleet {
    /// Does it.
    ///
    /// # Errors
    /// When the secrets cannot be read, or the edge refuses; with its words.
    pub fn run(&self) -> Result<()> {
        let secret = secret(&self.secrets, FLEET_SECRET)?;
        match &self.task {
            FleetTask::Admit { edge, addresses } => {
                let request = AdmitRequest { addresses: addresses.clone() };
                post(edge, ADMIT_PATH, &token(&secret, REQUEST_TTL)?, &serde_json::to_string(&request)?)?;
                println!("{} addresses are admitted for an hour", addresses.len());
            }
            FleetTask::Revoke { edge, node } => {
                let node = NodeId::try_from(node.as_str())?;
                let request = serde_json::to_string(&RevokeRequest { node })?;
                post(edge, REVOKE_PATH, &token(&secret, REQUEST_TTL)?, &request)?;
                println!("revoked");
            }
            FleetTask::Nodes { edge } => drain::list(&Operated { edge, secret: &secret })?,
            FleetTask::Needs { edge } => drain::needs(&Operated { edge, secret: &secret })?,
            FleetTask::Drain { edge, undo, wait, nodes } => {
                let edge = Operated { edge, secret: &secret };
                let drained = drain::drain(&edge, nodes, !undo)?;
                if *wait {
                    drain::wait_until_empty(&edge, &drained)?;
                }
            }
            FleetTask::Probe { edge, region, more } => {
                probe(&secret_api_key(&self.secrets)?, edge, region.as_deref(), more)?;
            }
            FleetTask::Token => println!("{}", token(&secret, NODE_TTL)?),
        }
        Ok(())
    }
}

/// The edge of an operator.
struct Operated<'a> {
    edge: &'a str,
    secret: &'a str,
}

impl drain::Edge for Operated<'_> {
    fn ask(&self, path: &str, body: &str) -> Result<String> {
        post(self.edge, path, &token(self.secret, REQUEST_TTL)?, body)
    }
}

/// Runs the probe, with the key where only this user's processes can read it.
fn probe((key, secret): &(String, String), edge: &str, region: Option<&str>, more: &[String]) -> Result<()> {
    let mut probe = Command::new(node::build(node::Profile::Dev)?);
    probe.args(["probe", "--edge-url", edge]).args(more);
    if let Some(region) = region {
        probe.args(["--region", region]);
    }
    let status = probe.env("MERIDIAN_API_KEY", key).env("MERIDIAN_API_SECRET", secret).status()?;
    if status.success() { Ok(()) } else { bail!("the probe says no: {status}") }
}

/// The first API key and its secret.
fn secret_api_key(file: &Path) -> Result<(String, String)> {
    let keys = ApiKeys::parse(&secret(file, API_KEYS)?);
    let (key, secret) = keys.first().with_context(|| format!("{API_KEYS} of {} holds no key", file.display()))?;
    Ok((key.to_owned(), secret.to_owned()))
}

fn read_secrets(file: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no file of secrets", file.display()))
}

fn secret(file: &Path, name: &str) -> Result<String> {
    read_secrets(file)?.get(name).cloned().with_context(|| format!("{} has no {name}", file.display()))
}

fn token(secret: &str, life: Duration) -> Result<String> {
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH)? + life;
    mint_enrol(&EnrolClaims::new(expiry.as_secs()), secret).map_err(|error| anyhow!(error))
}

/// Posts JSON with curl and gives the answer. The token goes through curl's stdin: every user of a machine can read arguments.
fn post(edge: &str, path: &str, token: &str, body: &str) -> Result<String> {
    let url = format!("{}{path}", edge.trim_end_matches('/'));
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30", "--header", "@-", "--write-out", "\n%{http_code}"]);
    curl.args(["--header", "Content-Type: application/json", "--data", body, &url]);
    let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run curl")?;
    let mut stdin = child.stdin.take().context("curl has no stdin")?;
    writeln!(stdin, "Authorization: Bearer {token}")?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (said, status) = text.rsplit_once('\n').unwrap_or_default();
    if !output.status.success() || status != "200" {
        bail!("{url}: {status} {said}");
    }
    Ok(said.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::net::TcpListener;
    use std::thread;

    use shared::claims::{SigningKey, verify_enrol};

    use super::*;

    #[test]
    fn secrets_are_made_once_and_fit_the_edge() {
        let file = std::env::temp_dir().join(format!("meridian-operator-test-{}", std::process::id()));
        let _ = fs::remove_file(&file);
        let make = MakeSecrets { file: file.clone() };
        make.run().unwrap();
        assert!(make.run().is_err(), "it overwrites nothing");
        let secrets: BTreeMap<String, String> = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let fleet_secret = secret(&file, FLEET_SECRET).unwrap();
        let (_, api_secret) = secret_api_key(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(api_secret.len() >= 32 && fleet_secret.len() >= 32);
        SigningKey::from_jwk(&secrets["SESSION_SIGNING_KEY"]).ok().unwrap();
        assert_eq!(secrets.len(), 3, "nobody but its users gets into a new deployment");
        verify_enrol(&token(&fleet_secret, REQUEST_TTL).unwrap(), &fleet_secret).unwrap();
    }

    #[test]
    fn the_edge_gets_the_token_and_its_refusal_is_shown() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let edge = format!("http://{}/", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let head: Vec<String> =
                reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo late";
            reader.get_mut().write_all(answer).unwrap();
            head
        });
        let request = AdmitRequest { addresses: vec!["192.0.2.7".parse().unwrap()] };
        let request = serde_json::to_string(&request).unwrap();
        let error = post(&edge, ADMIT_PATH, "a.b.c", &request).unwrap_err().to_string();
        let head = server.join().unwrap();
        assert_eq!(head[0], format!("POST {ADMIT_PATH} HTTP/1.1"));
        assert!(head.iter().any(|line| line == "Authorization: Bearer a.b.c"), "{head:?}");
        assert!(error.ends_with("401 too late"), "{error}");
    }
}
