//! CPU use of this process, for the fleet's placement.

use std::fs;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// Least time that is measured over: the kernel counts in ticks of 10 ms, and a start is nothing but work.
const SPAN: Duration = Duration::from_millis(500);

/// Measures between two readings.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    /// How many the process may use; to ask the system takes many reads.
    cores: f32,
    last: Option<(Instant, u64)>,
    share: f32,
}

impl CpuMeter {
    /// Starts measuring.
    pub(crate) fn new() -> Self {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cores: cores as f32, last: ticks().map(|ticks| (Instant::now(), ticks)), share: 0.0 }
    }

    /// Share of all cores the process may use since the last reading, 0.0 to 1.0; the one before while that is too short ago,
    /// and 0.0 where the system does not say.
    pub(crate) fn read(&mut self) -> f32 {
        ticks().map_or(0.0, |ticks| self.look(Instant::now(), ticks))
    }

    fn look(&mut self, now: Instant, ticks: u64) -> f32 {
        let (then, before) = *self.last.get_or_insert((now, ticks));
        let wall = now.saturating_duration_since(then);
        if wall >= SPAN {
            let most = wall.as_secs_f32() * self.cores * rustix::param::clock_ticks_per_second() as f32;
            self.share = (ticks.saturating_sub(before) as f32 / most).clamp(0.0, 1.0);
            self.last = Some((now, ticks));
        }
        self.share
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
        let after = ticks().expect("proc is there");
        assert!(meter.look(Instant::now() + SPAN, after) > 0.0, "{sum}");
    }

    #[test]
    fn a_moment_says_nothing() {
        let (second, start) = (rustix::param::clock_ticks_per_second(), Instant::now());
        let mut meter = CpuMeter { cores: 2.0, last: Some((start, 100)), share: 0.0 };
        assert_eq!(meter.look(start + Duration::from_millis(20), 104), 0.0, "who has just started is not busy");
        assert_eq!(meter.look(start + Duration::from_secs(1), 100 + second), 0.5);
        assert_eq!(meter.look(start + Duration::from_millis(1_010), 104 + second), 0.5);
        assert_eq!(meter.look(start + Duration::from_secs(2), 100 + 3 * second), 1.0);
    }
}
