//! CPU use of this process, for the fleet's placement.

use std::fs;
use std::thread::available_parallelism;
use std::time::Instant;

/// Measures between two readings.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    /// How many the process may use; to ask the system takes many reads.
    cores: f32,
    last: Option<(Instant, u64)>,
}

impl CpuMeter {
    /// Starts measuring.
    pub(crate) fn new() -> Self {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cores: cores as f32, last: ticks().map(|ticks| (Instant::now(), ticks)) }
    }

    /// Share of all cores the process may use since the last reading, 0.0 to 1.0; 0.0 where the system does not say.
    pub(crate) fn read(&mut self) -> f32 {
        let Some(now) = ticks() else { return 0.0 };
        let at = Instant::now();
        let Some((then, before)) = self.last.replace((at, now)) else { return 0.0 };
        let wall = at.duration_since(then).as_secs_f32() * self.cores * rustix::param::clock_ticks_per_second() as f32;
        if wall > 0.0 { (now.saturating_sub(before) as f32 / wall).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// User and system time of the process in clock ticks (proc(5), fields 14 and 15 of `/proc/self/stat`).
fn ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name and may hold anything but ends at the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_work_shows() {
        let mut meter = CpuMeter::new();
        let before = ticks().expect("proc is there");
        let mut sum = 0_u64;
        // Works until the clock has moved, however fast the machine is.
        while ticks().expect("proc is there") < before + 5 {
            sum = (0..100_000_u64).fold(sum, u64::wrapping_add);
        }
        assert!(meter.read() > 0.0, "{sum}");
    }
}
