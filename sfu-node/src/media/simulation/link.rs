//! One way of a peer's path: loses, delays, reorders and repeats datagrams, as its seed says.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Up to how much later what is overtaken comes.
const OVERTAKEN: Duration = Duration::from_millis(30);

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
}

/// The path.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) weather: Weather,
    random: StdRng,
}

impl Link {
    pub(super) fn new(weather: Weather, seed: u64) -> Self {
        Self { weather, random: StdRng::seed_from_u64(seed) }
    }

    /// When the copies of a datagram sent at `now` arrive: none, one or two.
    pub(super) fn carry(&mut self, now: Instant) -> ArrayVec<Instant, 2> {
        let Weather { lost, repeated, delay, overtaken, jitter } = self.weather;
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
}
