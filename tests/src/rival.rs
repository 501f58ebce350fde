//! Other servers, run side by side with ours: each a process on loopback with free ports, in the setting best for it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_lc_rs::rand::fill;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xtask::process::{Output, Process};

use crate::door::Door;

/// How long a server may take until it listens.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long one look whether it listens may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Janus's program.
const JANUS: &str = "janus";
/// Where Debian's package puts Janus's plugins, for each architecture in its own directory.
const LIBRARIES: &str = "/usr/lib";
/// The only plugins Janus loads: what else it has would only add to its memory.
const JANUS_PLUGINS: [&str; 2] = ["plugins/libjanus_videoroom.so", "transports/libjanus_websockets.so"];

/// Which server.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Debian's Janus, one event loop.
    Janus,
    /// A `livekit-server`.
    LiveKit(PathBuf),
}

impl Kind {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Janus => "Janus",
            Self::LiveKit(_) => "LiveKit",
        }
    }

    /// Whether it can be run here.
    ///
    /// # Errors
    /// It cannot; what to do about that.
    pub fn installed(&self) -> Result<()> {
        match self {
            Self::Janus => janus_libraries().map(drop),
            Self::LiveKit(binary) if binary.is_file() => Ok(()),
            Self::LiveKit(binary) => bail!("there is no livekit-server at {}", binary.display()),
        }
    }
}

/// A running server. **Dropping it kills it.**
pub struct Rival {
    /// What runs.
    pub process: Process,
    /// The way in.
    pub door: Door,
}

impl Rival {
    /// Starts a server under `wrapper` (such as `taskset -c 0`) with its files in `directory`; it listens when this
    /// returns. Blocks the thread.
    ///
    /// # Errors
    /// It does not start, or does not listen in time.
    pub fn start(kind: &Kind, wrapper: &[&str], directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let port = free_tcp_port()?;
        let (words, door) = match kind {
            Kind::Janus => janus(directory, port)?,
            Kind::LiveKit(binary) => livekit(binary, directory, port)?,
        };
        let mut words = wrapper.iter().map(|word| (*word).to_owned()).chain(words);
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words);
        let log = Output::File(directory.join("log"));
        let mut process = Process::spawn(kind.name(), command, &log)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        process.wait_until("listening", READY_LIMIT, || TcpStream::connect_timeout(&address, PROBE_LIMIT).is_ok())?;
        Ok(Self { process, door })
    }
}

/// Configures Janus: VideoRoom, WebSocket API on `port`, one event loop, media where Janus
/// likes: it passes loopback interfaces over.
fn janus(directory: &Path, port: u16) -> Result<(Vec<String>, Door)> {
    let libraries = janus_libraries()?;
    for plugin in JANUS_PLUGINS {
        let (from, to) = (libraries.join(plugin), directory.join(plugin));
        fs::create_dir_all(to.parent().context("a plugin without directory")?)?;
        if !to.exists() {
            std::os::unix::fs::symlink(&from, &to).with_context(|| format!("{}", from.display()))?;
        }
    }
    let folder = directory.display();
    let core = format!(
        "general: {{\n\
         plugins_folder = \"{folder}/plugins\"\n\
         transports_folder = \"{folder}/transports\"\n\
         events_folder = \"{folder}/none\"\n\
         loggers_folder = \"{folder}/none\"\n\
         debug_level = 2\n\
         event_loops = 1\n\
         }}\n"
    );
    let websockets = format!("general: {{\nws = true\nws_ip = \"127.0.0.1\"\nws_port = {port}\nwss = false\n}}\n");
    fs::create_dir_all(directory.join("none"))?;
    fs::write(directory.join("janus.jcfg"), core)?;
    fs::write(directory.join("janus.transport.websockets.jcfg"), websockets)?;
    fs::write(directory.join("janus.plugin.videoroom.jcfg"), "general: {\n}\n")?;
    let words = vec![JANUS.to_owned(), format!("--config={folder}/janus.jcfg"), format!("--configs-folder={folder}")];
    Ok((words, Door::Janus { url: format!("ws://127.0.0.1:{port}") }))
}

/// The directory of Janus's plugins.
fn janus_libraries() -> Result<PathBuf> {
    let architectures = fs::read_dir(LIBRARIES)?.filter_map(|entry| Some(entry.ok()?.path().join(JANUS)));
    let complete = |directory: &PathBuf| JANUS_PLUGINS.iter().all(|plugin| directory.join(plugin).is_file());
    architectures.into_iter().find(complete).context("Janus is not installed: apt-get install janus")
}

/// Configures LiveKit: everything on loopback, a key of its own.
fn livekit(binary: &Path, directory: &Path, port: u16) -> Result<(Vec<String>, Door)> {
    let mut random = [0; 32];
    fill(&mut random).ok().context("no randomness")?;
    let (key, secret) = ("bench".to_owned(), URL_SAFE_NO_PAD.encode(random));
    let config = format!(
        "port: {port}\n\
         bind_addresses: [\"127.0.0.1\"]\n\
         logging: {{ level: error }}\n\
         rtc:\n  udp_port: {udp}\n  tcp_port: {tcp}\n  use_ice_lite: true\n  enable_loopback_candidate: true\n  \
         node_ip: 127.0.0.1\n\
         keys:\n  {key}: {secret}\n",
        udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port(),
        tcp = free_tcp_port()?,
    );
    let file = directory.join("livekit.yaml");
    fs::write(&file, config)?;
    let words = vec![binary.display().to_string(), "--config".to_owned(), file.display().to_string()];
    Ok((words, Door::LiveKit { url: format!("ws://127.0.0.1:{port}"), key, secret }))
}

fn free_tcp_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn livekit_is_told_its_port_and_a_key_its_clients_have() {
        let directory = std::env::temp_dir().join(format!("meridian-rival-test-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (words, door) = livekit(Path::new("/opt/livekit-server"), &directory, 4321).unwrap();
        let config = fs::read_to_string(directory.join("livekit.yaml")).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        let Door::LiveKit { url, key, secret } = door else { panic!("another protocol") };
        assert_eq!(url, "ws://127.0.0.1:4321");
        assert!(
            config.starts_with("port: 4321\n") && config.ends_with(&format!("keys:\n  {key}: {secret}\n")),
            "{config}"
        );
        assert_eq!(words[0], "/opt/livekit-server");
        assert_eq!(Path::new(&words[2]), directory.join("livekit.yaml"));
    }

    #[test]
    fn a_server_that_is_not_there_cannot_be_measured() {
        let missing = Kind::LiveKit(PathBuf::from("/nowhere/livekit-server"));
        assert!(missing.installed().unwrap_err().to_string().contains("/nowhere/livekit-server"));
    }
}
