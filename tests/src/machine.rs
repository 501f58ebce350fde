//! What the kernel says of this machine (Linux): what processes cost, what else ran, what sockets dropped.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// What some CPUs do besides the processes that are measured: other programs, interrupts, time stolen by the hypervisor.
pub struct Noise {
    cpus: Vec<usize>,
    measured: Vec<u32>,
    since: Instant,
    busy: u64,
    own: u64,
}

impl Noise {
    /// Begins to listen on these CPUs, where these processes are what is measured.
    ///
    /// # Errors
    /// As [`busy_nanos`] and [`cpu_nanos`].
    pub fn listen(cpus: impl IntoIterator<Item = usize>, measured: &[u32]) -> anyhow::Result<Self> {
        let (cpus, measured) = (cpus.into_iter().collect(), measured.to_vec());
        let mut noise = Self { cpus, measured, since: Instant::now(), busy: 0, own: 0 };
        (noise.busy, noise.own) = noise.now()?;
        Ok(noise)
    }

    /// The share of these CPUs' time that it took since [`Noise::listen`], percent.
    ///
    /// # Errors
    /// As [`busy_nanos`] and [`cpu_nanos`].
    pub fn percent(&self) -> anyhow::Result<f64> {
        let (busy, own) = self.now()?;
        let spent = self.since.elapsed() * u32::try_from(self.cpus.len())?;
        Ok(noise_percent(busy.saturating_sub(self.busy), own.saturating_sub(self.own), spent))
    }

    /// Busy time of the CPUs, CPU time of the measured processes.
    fn now(&self) -> anyhow::Result<(u64, u64)> {
        let busy = self.cpus.iter().map(|cpu| busy_nanos(*cpu)).sum::<anyhow::Result<u64>>()?;
        let own = self.measured.iter().map(|pid| cpu_nanos(*pid)).sum::<anyhow::Result<u64>>()?;
        Ok((busy, own))
    }
}

/// Of `spent` time: how much was neither idle nor `own`. Ticks are coarser than the own time, so that may come out higher.
fn noise_percent(busy: u64, own: u64, spent: Duration) -> f64 {
    100.0 * Duration::from_nanos(busy.saturating_sub(own)).as_secs_f64() / spent.as_secs_f64()
}

/// How busy a CPU is, with anything at all.
pub struct Busy {
    cpu: usize,
    since: Instant,
    nanos: u64,
}

impl Busy {
    /// Watches from now on.
    ///
    /// # Errors
    /// As [`busy_nanos`].
    pub fn watch(cpu: usize) -> anyhow::Result<Self> {
        Ok(Self { cpu, since: Instant::now(), nanos: busy_nanos(cpu)? })
    }

    /// Its share of the time since [`Busy::watch`], percent.
    ///
    /// # Errors
    /// As [`busy_nanos`].
    pub fn percent(&self) -> anyhow::Result<f64> {
        let busy = Duration::from_nanos(busy_nanos(self.cpu)?.saturating_sub(self.nanos));
        Ok(100.0 * busy.as_secs_f64() / self.since.elapsed().as_secs_f64())
    }
}

/// CPU time of all threads of a process so far, nanoseconds (`/proc/PID/task/*/schedstat`: user and system time without
/// the rounding to ticks that `/proc/PID/stat` has).
///
/// # Errors
/// There is no such process, or the kernel keeps no such statistics.
pub fn cpu_nanos(pid: u32) -> anyhow::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))? {
        let path = task?.path().join("schedstat");
        // A thread may end between the listing and here.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        total += text.split_whitespace().next().context("empty schedstat")?.parse::<u64>()?;
    }
    if total == 0 {
        bail!("the kernel keeps no schedstat");
    }
    Ok(total)
}

/// Resident memory of a process, bytes (`VmRSS` of `/proc/PID/status`).
///
/// # Errors
/// There is no such process.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.split_whitespace().next().context("empty VmRSS")?.parse()?;
    Ok(kibibytes * 1024)
}

/// Time a CPU has spent on anything at all so far, nanoseconds (`/proc/stat`, in ticks of 10 ms; time stolen by the
/// hypervisor included). What exceeds the measured process is noise of the machine.
///
/// # Errors
/// There is no such CPU.
pub fn busy_nanos(cpu: usize) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    busy_ticks(&text, cpu).map(|ticks| ticks * TICK_NANOS).with_context(|| format!("/proc/stat has no cpu{cpu}"))
}

/// Length of a tick in `/proc/stat`, nanoseconds: `USER_HZ` is 100 on every architecture Rust runs Linux on but Alpha.
const TICK_NANOS: u64 = 10_000_000;

/// user, nice, system, irq, softirq and steal of a CPU's line (proc(5)).
fn busy_ticks(stat: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let of = |column: usize| ticks.get(column).copied();
    [0, 1, 2, 5, 6, 7].into_iter().map(of).sum()
}

/// The machine's load average over the last minute: how many tasks wanted a CPU.
///
/// # Errors
/// `/proc/loadavg` cannot be read.
pub fn load_average() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(text.split_whitespace().next().context("empty loadavg")?.parse()?)
}

/// Datagrams the kernel dropped because one of these sockets was full: the load client's fault, not the node's.
///
/// # Errors
/// `/proc/net/udp` cannot be read.
pub fn receive_drops(sockets: &[SocketAddr]) -> anyhow::Result<u64> {
    let ports: HashSet<u16> = sockets.iter().map(SocketAddr::port).collect();
    let table = fs::read_to_string("/proc/net/udp").context("/proc/net/udp")?;
    let drops = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(columns.get(1)?.split(':').nth(1)?, 16).ok()?;
        ports.contains(&port).then(|| columns.last()?.parse::<u64>().ok())?
    });
    Ok(drops.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_grows() {
        let before = cpu_nanos(std::process::id()).unwrap();
        let mut work = 0_u64;
        while cpu_nanos(std::process::id()).unwrap() == before {
            work = work.wrapping_add(1);
        }
        assert!(cpu_nanos(std::process::id()).unwrap() > before);
    }

    #[test]
    fn memory_in_use_is_resident() {
        let before = resident_bytes(std::process::id()).unwrap();
        let used = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident_bytes(std::process::id()).unwrap() > before + (32 << 20), "{} bytes used", used.len());
    }

    #[test]
    fn a_busy_cpu_is_one_that_does_not_idle() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 1000 2000 4 5 6 0 0\ncpu1 7 0 0 1 1 0 0 0 0 0\n";
        assert_eq!((busy_ticks(stat, 0), busy_ticks(stat, 1), busy_ticks(stat, 2)), (Some(21), Some(7), None));
        assert!(busy_nanos(0).unwrap() > 0);
    }

    #[test]
    fn noise_is_what_neither_idles_nor_is_measured() {
        let second = Duration::from_secs(1);
        assert!((noise_percent(500_000_000, 400_000_000, second) - 10.0).abs() < 1e-9);
        assert!(noise_percent(400_000_000, 405_000_000, second).abs() < 1e-9);
    }

    #[test]
    fn drops_of_a_full_socket_are_seen() {
        let full = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = full.local_addr().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(receive_drops(&[address]).unwrap(), 0);
        // Far more than any default receive buffer holds.
        for _ in 0..5_000 {
            sender.send_to(&[0; 1200], address).unwrap();
        }
        assert!(receive_drops(&[address]).unwrap() > 0);
    }
}
