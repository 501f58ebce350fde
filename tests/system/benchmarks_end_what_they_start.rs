//! A benchmark that fails or is ended by a signal leaves no process and no state behind.

use std::future::pending;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result, bail};
use meridian_tests::rig;
use nix::sys::signal::{Signal, raise};
use tokio::sync::Mutex;
use url::Url;
use xtask::stack::{Profile, Stack, StackConfig};

/// A signal reaches every measurement of this process.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Where edge and node were.
#[derive(Default)]
struct Places {
    edge: Option<SocketAddr>,
    media: Option<SocketAddr>,
}

impl Places {
    fn of(stack: &mut Stack) -> Result<Self> {
        let edge = Url::parse(&stack.url())?.socket_addrs(|| None)?.pop();
        Ok(Self { edge, media: stack.nodes().first().map(xtask::node::Node::udp_addr) })
    }

    /// What a living process holds cannot be bound.
    fn are_free(&self) -> Result<()> {
        TcpListener::bind(self.edge.context("there was no edge")?).context("the edge lives on")?;
        UdpSocket::bind(self.media.context("there was no node")?).context("the node lives on")?;
        Ok(())
    }
}

fn debug_builds(name: &str) -> StackConfig {
    let mut config = rig::config(&[]);
    config.profile = Profile::Dev;
    config.state_dir = config.state_dir.with_extension(name);
    config
}

fn assert_gone(state: &Path, places: &Places) -> Result<()> {
    places.are_free()?;
    assert!(!state.exists(), "its state stays behind");
    Ok(())
}

#[tokio::test]
async fn a_signal_ends_everything() -> Result<()> {
    let _alone = ALONE.lock().await;
    for (name, signal) in [("SIGINT", Signal::SIGINT), ("SIGTERM", Signal::SIGTERM), ("SIGHUP", Signal::SIGHUP)] {
        let (config, mut places) = (debug_builds(name), Places::default());
        let state = config.state_dir.clone();
        let ended = rig::measure(config, async |stack| {
            places = Places::of(stack)?;
            raise(signal)?;
            pending::<Result<()>>().await
        });
        let error = ended.await.err().context("the signal was ignored")?;
        assert_eq!(error.to_string(), format!("ended by {name}"));
        assert_gone(&state, &places)?;
    }
    Ok(())
}

#[tokio::test]
async fn so_does_a_failure() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (config, mut places) = (debug_builds("failure"), Places::default());
    let state = config.state_dir.clone();
    let ended = rig::measure(config, async |stack| {
        places = Places::of(stack)?;
        bail!("no figures") as Result<()>
    });
    assert_eq!(ended.await.unwrap_err().to_string(), "no figures");
    assert_gone(&state, &places)
}

#[tokio::test]
async fn figures_of_a_deployment_that_fell_are_none() -> Result<()> {
    let _alone = ALONE.lock().await;
    let (config, mut places) = (debug_builds("fallen"), Places::default());
    let state = config.state_dir.clone();
    let ended = rig::measure(config, async |stack| {
        places = Places::of(stack)?;
        let node = stack.nodes().first_mut().context("no node")?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(node.process.pid().context("no process")?)?);
        nix::sys::signal::kill(pid, Signal::SIGKILL)?;
        while node.process.exited()?.is_none() {
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    let error = ended.await.err().context("the figures were taken")?;
    assert!(error.to_string().contains("node-a ended"), "{error}");
    assert_gone(&state, &places)
}
