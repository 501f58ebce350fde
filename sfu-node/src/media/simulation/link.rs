//! One way of a peer's path: loses, delays, reorders and repeats datagrams, as its seed says.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Up to how much later what is overtaken comes.
const OVERTAKEN: Duration = Duration::from_millis(30);

/// What waits in front of a path at most, as time it takes to go: a home router's.
const QUEUE: Duration = Duration::from_millis(300);
/// Who waits longer sees it.
const LONG_WAIT: Duration = Duration::from_millis(150);
/// Headers around a datagram, bytes.
const IP_UDP: usize = 28;

/// How bad a path is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Of a thousand datagrams.
    pub(super) lost: u32,
    /// Of a thousand datagrams.
    pub(super) repeated: u32,
    pub(super) delay: Duration,
    /// Of a thousand datagrams: overtaken by others.
    pub(super) overtaken: u32,
    /// Up to this much more, each datagram for itself.
    pub(super) jitter: Duration,
    /// Bits per second that it carries; `None`: any.
    pub(super) capacity: Option<f64>,
}

impl Weather {
    /// Nothing happens to what is sent but that it comes later.
    pub(super) fn fair(delay: Duration) -> Self {
        Self { lost: 0, repeated: 0, delay, overtaken: 0, jitter: Duration::ZERO, capacity: None }
    }
}

/// The path.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) weather: Weather,
    random: StdRng,
    /// When what waits in front of it has gone.
    free_at: Option<Instant>,
    /// Datagrams that waited long in front of it or found no room, and when.
    pub(super) congested: Vec<Instant>,
}

impl Link {
    pub(super) fn new(weather: Weather, seed: u64) -> Self {
        Self { weather, random: StdRng::seed_from_u64(seed), free_at: None, congested: Vec::new() }
    }

    /// When the copies of a datagram of `len` bytes sent at `now` arrive: none, one or two.
    pub(super) fn carry(&mut self, now: Instant, len: usize) -> ArrayVec<Instant, 2> {
        let Weather { lost, repeated, delay, overtaken, jitter, capacity } = self.weather;
        let Some(now) = capacity.map_or(Some(now), |capacity| self.queue(now, len, capacity)) else {
            return ArrayVec::new();
        };
        let copies = match self.random.random_range(0..1000) {
            dice if dice < lost => 0,
            dice if dice < lost + repeated => 2,
            _ => 1,
        };
        let mut arrival = || {
            let late = if self.random.random_range(0..1000) < overtaken { OVERTAKEN } else { Duration::ZERO };
            now + delay + (jitter + late).mul_f64(self.random.random())
        };
        (0..copies).map(|_| arrival()).collect()
    }

    /// When a datagram has passed the bottleneck; `None`: there is no room for it.
    fn queue(&mut self, now: Instant, len: usize, capacity: f64) -> Option<Instant> {
        let start = self.free_at.map_or(now, |free_at| free_at.max(now));
        if start - now > LONG_WAIT {
            self.congested.push(now);
        }
        if start - now > QUEUE {
            return None;
        }
        let sent = start + Duration::from_secs_f64(((len + IP_UDP) * 8) as f64 / capacity);
        self.free_at = Some(sent);
        Some(sent)
    }
}
