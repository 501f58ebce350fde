//! Hosts of their own for nodes: network namespaces around one that this process has to itself, each behind a link that can
//! be cut. **Linux, with iproute2 and util-linux; not root, where users may make namespaces.**

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::setup;

/// What is run here.
const PROGRAMS: [&str; 4] = ["unshare", "mount", "ip", "nsenter"];
/// Makes the namespace in which hosts can be made, and becomes the program. `/run` is where `ip` keeps the names of others;
/// hosts reach each other through it.
const SCRIPT: &str =
    "mount -t tmpfs none /run && ip link set lo up && echo 1 > /proc/sys/net/ipv4/ip_forward && exec \"$@\"";
/// Set for what runs there.
const WITHIN: &str = "MERIDIAN_WITHIN_HOSTS";

/// A program as it runs where hosts can be made. It ends with its caller.
#[must_use]
pub fn within(program: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sh"]);
    command.arg(program.get_program()).args(program.get_args()).env(WITHIN, "1");
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(directory) = program.get_current_dir() {
        command.current_dir(directory);
    }
    command
}

/// Whether this process can make hosts.
#[must_use]
pub fn are_here() -> bool {
    std::env::var_os(WITHIN).is_some()
}

/// Why [`within`] runs nothing on this machine, if so.
///
/// # Errors
/// The probe cannot be started.
pub fn impossible() -> Result<Option<String>> {
    if let Some(program) = PROGRAMS.into_iter().find(|program| !setup::on_path(program)) {
        return Ok(Some(format!("{program} is not installed")));
    }
    let tried = within(&Command::new("true")).output().context("cannot run unshare")?;
    let said = String::from_utf8_lossy(&tried.stderr);
    Ok((!tried.status.success()).then(|| format!("this machine gives no namespaces: {}", said.trim())))
}

/// A network namespace and its link to this process's. Both end with this process.
#[derive(Debug, Clone)]
pub struct Host {
    number: u8,
}

impl Host {
    /// Makes so many, once in a process.
    ///
    /// # Errors
    /// This process is not [`within`] a namespace of its own, or has made some.
    pub fn make_all(count: u8) -> Result<Vec<Self>> {
        (1..=count).map(Self::make).collect()
    }

    fn make(number: u8) -> Result<Self> {
        ensure!(are_here(), "hosts are made in a network namespace of one's own: `cargo xtask test` makes it");
        let host = Self { number };
        let (name, link, mac) = (host.name(), host.link(), host.mac());
        ip(&["netns", "add", &name])?;
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", &name])?;
        ip(&["address", "add", &format!("{}/24", host.gateway()), "dev", &link])?;
        ip(&["link", "set", &link, "up"])?;
        // Whoever sends to a host that is cut off is not told that nobody answers for its address.
        ip(&["neighbour", "replace", &host.address().to_string(), "lladdr", &mac, "dev", &link, "nud", "permanent"])?;
        ip(&["-n", &name, "address", "add", &format!("{}/24", host.address()), "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        host.join()?;
        Ok(host)
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, self.number, 2).into()
    }

    /// This process's address for it.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, self.number, 1).into()
    }

    /// A program in front of one that is to run there.
    #[must_use]
    pub fn wrapper(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.name())]
    }

    /// From now on what is sent to it and by it vanishes; nobody is told.
    ///
    /// # Errors
    /// The system refuses.
    pub fn cut(&self) -> Result<()> {
        ip(&["-n", &self.name(), "link", "set", "eth0", "down"]).map(drop)
    }

    /// Undoes [`Host::cut`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn join(&self) -> Result<()> {
        ip(&["-n", &self.name(), "link", "set", "eth0", "up"])?;
        ip(&["-n", &self.name(), "route", "replace", "default", "via", &self.gateway().to_string()]).map(drop)
    }

    /// Bytes on its link so far, to it and by it.
    ///
    /// # Errors
    /// The system does not say.
    pub fn carried(&self) -> Result<(u64, u64)> {
        let said = ip(&["-n", &self.name(), "-json", "-statistics", "link", "show", "eth0"])?;
        let links: serde_json::Value = serde_json::from_str(&said)?;
        let bytes = |way: &str| links.pointer(&format!("/0/stats64/{way}/bytes")).and_then(serde_json::Value::as_u64);
        Ok((bytes("rx").context("no count")?, bytes("tx").context("no count")?))
    }

    fn name(&self) -> String {
        format!("host-{}", self.number)
    }

    fn link(&self) -> String {
        format!("to-host-{}", self.number)
    }

    /// Locally administered (IEEE 802, 8.2.2).
    fn mac(&self) -> String {
        format!("02:00:00:00:00:{:02x}", self.number)
    }
}

/// What it says.
fn ip(words: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(words).output().context("ip (package iproute2)")?;
    if !output.status.success() {
        bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
