//! `cargo xtask dev`: the whole deployment on this machine, until Ctrl-C.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::stack::{API_KEY, API_SECRET, Build, MAX_NODES, Mode, Ports, Profile, Stack, StackConfig, access_token};
use crate::{repo, setup};

/// LiveKit's: its quick starts work as they are.
const DEFAULT_PORT: u16 = 7880;
/// Between two looks at whether every child still runs.
const WATCH: Duration = Duration::from_millis(250);

/// Run the edge and its nodes locally, until Ctrl-C.
#[derive(Args)]
pub struct Dev {
    /// Optimised builds, for measuring.
    #[arg(long)]
    release: bool,
    /// Bare workerd instead of `wrangler dev`: faster, the same bundle.
    #[arg(long)]
    workerd: bool,
    /// How many nodes, in regions local-a, local-b, …
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=i64::from(MAX_NODES)))]
    nodes: u16,
    /// The edge's port; nodes take UDP from 20 above it and HTTP from 100 above it. Each port has a state of its own.
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    port: u16,
}

impl Dev {
    /// Runs until a signal or until a child ends.
    ///
    /// # Errors
    /// When something does not build, start, or stay up.
    pub fn run(&self) -> Result<()> {
        let started = Instant::now();
        if self.workerd {
            setup::for_build()?
        } else {
            setup::for_wrangler()?
        }
        if TcpListener::bind(("127.0.0.1", self.port)).is_err() {
            bail!("port {0} is taken: stop what listens there or use --port", self.port);
        }
        let profile = if self.release { Profile::Release } else { Profile::Dev };
        // Signals are watched from here on: until something runs that must be stopped, they may end us as they do.
        let build = Build::make(profile)?;
        let (sender, signals) = channel();
        let mut incoming = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch signals")?;
        // Ends with the process.
        thread::spawn(move || incoming.forever().try_for_each(|signal| sender.send(signal)));
        let config = StackConfig {
            nodes: usize::from(self.nodes),
            shards: 1,
            node_args: Vec::new(),
            edge_vars: BTreeMap::new(),
            mode: if self.workerd { Mode::Workerd } else { Mode::Wrangler },
            profile,
            ports: Ports::From(self.port),
            state_dir: repo::state_dir().join(match self.port {
                DEFAULT_PORT => "dev".to_owned(),
                port => format!("dev-{port}"),
            }),
            show_logs: true,
            node_wrapper: Vec::new(),
            public_address: None,
            hosts: Vec::new(),
        };
        let mut stack = Stack::start_built(build, config)?;
        self.greet(started)?;
        let fallen = loop {
            match signals.recv_timeout(WATCH) {
                Ok(_) | Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(fallen) = stack.fallen()? {
                break Some(fallen);
            }
        };
        println!("\nstopping …");
        stack.stop();
        fallen.map_or(Ok(()), |fallen| bail!("{fallen}"))
    }

    fn greet(&self, started: Instant) -> Result<()> {
        let (port, seconds) = (self.port, started.elapsed().as_secs_f32());
        let token = access_token("demo", "sdk-user")?;
        println!(
            "
  Ready after {seconds:.1} s.

  Meeting     http://localhost:{port}/#room=demo    (open it twice)
  LiveKit     url ws://localhost:{port}   key {API_KEY}   secret {API_SECRET}
  A token     (room demo, identity sdk-user, one day)
              {token}

  Ctrl-C stops everything.
"
        );
        Ok(())
    }
}
