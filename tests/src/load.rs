//! Meters of the benchmarks: what subscribers got of what was sent, how late, and what the node spent on it.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};

use crate::client::{PacketSink, Stamp};

/// The time window that counts: packets sent in it, by the publisher's clock (this machine's).
#[derive(Debug)]
pub struct Window {
    from: AtomicU64,
    to: AtomicU64,
}

impl Default for Window {
    fn default() -> Self {
        Self { from: AtomicU64::new(u64::MAX), to: AtomicU64::new(u64::MAX) }
    }
}

impl Window {
    /// Counts what is sent from `now` (nanoseconds of Unix time) on.
    pub fn open(&self, now: u64) {
        self.to.store(u64::MAX, Ordering::Relaxed);
        self.from.store(now, Ordering::Relaxed);
    }

    /// Counts nothing that is sent from `now` on.
    pub fn close(&self, now: u64) {
        self.to.store(now, Ordering::Relaxed);
    }

    /// From when to when.
    #[must_use]
    pub fn bounds(&self) -> std::ops::Range<u64> {
        self.from.load(Ordering::Relaxed)..self.to.load(Ordering::Relaxed)
    }
}

/// What one subscriber got.
#[derive(Debug, Default)]
pub struct Meter {
    packets: AtomicU64,
    /// Of packets sent in the window: nanoseconds from the publisher's send call to the kernel's receive timestamp.
    delays: Mutex<Vec<u32>>,
}

impl Meter {
    /// Packets since the start, in the window or not.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Delays of the packets of the window.
    #[must_use]
    pub fn take_delays(&self) -> Vec<u32> {
        std::mem::take(&mut self.delays.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Packets of the window so far.
    #[must_use]
    pub fn in_window(&self) -> usize {
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Feeds a [`Meter`].
pub struct MeterSink {
    meter: Arc<Meter>,
    window: Arc<Window>,
}

impl MeterSink {
    /// A sink and its meter.
    #[must_use]
    pub fn new(window: Arc<Window>) -> (Box<Self>, Arc<Meter>) {
        let meter = Arc::new(Meter::default());
        (Box::new(Self { meter: Arc::clone(&meter), window }), meter)
    }
}

impl PacketSink for MeterSink {
    fn packet(&mut self, payload: &[u8], received: u64) {
        self.meter.packets.fetch_add(1, Ordering::Relaxed);
        let Some(stamp) = Stamp::read(payload) else { return };
        if self.window.bounds().contains(&stamp.sent) {
            let delay = u32::try_from(received.saturating_sub(stamp.sent)).unwrap_or(u32::MAX);
            self.meter.delays.lock().unwrap_or_else(PoisonError::into_inner).push(delay);
        }
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

/// The value below which `share` of the sorted values lie; 0 of none.
#[must_use]
pub fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

/// The middle one of some measurements; 0 of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0)), (51, 100, 100));
        assert_eq!(quantile::<u32>(&[], 0.5), 0);
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

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
    fn a_busy_cpu_is_one_that_does_not_idle() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 1000 2000 4 5 6 0 0\ncpu1 7 0 0 1 1 0 0 0 0 0\n";
        assert_eq!((busy_ticks(stat, 0), busy_ticks(stat, 1), busy_ticks(stat, 2)), (Some(21), Some(7), None));
        assert!(busy_nanos(0).unwrap() > 0);
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
