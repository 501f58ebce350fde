//! How busy a shard's thread is, measured once a second by the CPU time it takes. **Pure: time and CPU time are given.**

use std::time::{Duration, Instant};

/// Time over which is measured.
const SPAN: Duration = Duration::from_secs(1);

/// Measures between two looks.
#[derive(Debug, Default)]
pub(super) struct LoadMeter {
    last: Option<(Instant, Duration)>,
}

impl LoadMeter {
    /// Share of a core taken since the last look, 0.0 to 1.0, and the CPU time taken in all, once [`SPAN`] has passed since.
    /// `cpu` tells the latter.
    pub(super) fn look(&mut self, now: Instant, cpu: impl FnOnce() -> Duration) -> Option<(f32, Duration)> {
        if self.last.is_some_and(|(at, _)| now.saturating_duration_since(at) < SPAN) {
            return None;
        }
        let cpu = cpu();
        let (at, before) = self.last.replace((now, cpu))?;
        let wall = now.saturating_duration_since(at).as_secs_f32();
        Some(((cpu.saturating_sub(before).as_secs_f32() / wall).clamp(0.0, 1.0), cpu))
    }
}

/// CPU time of the calling thread.
pub(super) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_told_once_a_second() {
        let (mut meter, start) = (LoadMeter::default(), Instant::now());
        let millis = Duration::from_millis;
        assert_eq!(meter.look(start, || millis(70)), None, "nothing to compare with");
        assert_eq!(meter.look(start + millis(999), || unreachable!()), None);
        assert_eq!(meter.look(start + millis(1000), || millis(320)), Some((0.25, millis(320))));
        assert_eq!(meter.look(start + millis(1500), || unreachable!()), None);
        assert_eq!(meter.look(start + millis(3000), || millis(2320)), Some((1.0, millis(2320))));
    }

    #[test]
    fn a_busy_thread_takes_cpu_time() {
        let (before, mut sum) = (thread_cpu(), 0_u64);
        while thread_cpu() < before + Duration::from_millis(2) {
            sum = (0..10_000_u64).fold(sum, u64::wrapping_add);
        }
        assert!(thread_cpu() > before, "{sum}");
    }
}
