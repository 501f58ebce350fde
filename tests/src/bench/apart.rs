//! A network namespace in which what is sent over loopback is delivered on the load client's CPU, not within the sender's
//! system call: as a network card takes it off a server's hands. **Linux, as root.**

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::servers::LOAD_CPU;

/// Sets the namespace up and becomes the program. `$0`: the CPUs that take what loopback receives, a mask (receive packet
/// steering). The pair of devices is for servers that pass loopback addresses over; a local address is reached over
/// loopback all the same.
const SCRIPT: &str = "mount -t sysfs sysfs /sys && ip link set lo up \
    && echo $0 > /sys/class/net/lo/queues/rx-0/rps_cpus \
    && ip link add media type veth peer name media-peer \
    && ip address add 198.51.100.1/24 dev media \
    && ip link set media up && ip link set media-peer up \
    && ip route add default dev media \
    && exec \"$@\"";

/// Runs this program there with other words.
///
/// # Errors
/// There can be no namespace here, or the program fails.
pub(super) fn run(words: &[String]) -> Result<()> {
    let program = std::env::current_exe().context("this program has no path")?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", SCRIPT, &format!("{:x}", 1 << LOAD_CPU)]).arg(program).args(words);
    let status = command.status().context("unshare (package util-linux)")?;
    if !status.success() {
        bail!("measuring in a network namespace needs root, veth and the package iproute2: {status}");
    }
    Ok(())
}
