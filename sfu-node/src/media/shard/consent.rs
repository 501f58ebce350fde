//! Consent checks of peers who are where they were, put off while nothing flows and answered together. One that is answered
//! alone finds nothing of what that takes in a core's caches, and costs three times as much. **Pure: the time is given.**

use std::time::{Duration, Instant};

use crate::media::batch::Route;

/// Longest time a check waits for its answer. Peers doubt a path after seconds.
const LONGEST: Duration = Duration::from_millis(100);
/// Most checks that wait.
const MOST: usize = 64;

/// The checks that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct PutOff {
    /// Back to back.
    bytes: Vec<u8>,
    /// Where each came from, and where it ends.
    checks: Vec<(Route, usize)>,
    /// When the first one came.
    since: Option<Instant>,
}

impl PutOff {
    /// Adds a check. True: they are to be answered before more is added.
    pub(super) fn add(&mut self, now: Instant, route: Route, check: &[u8]) -> bool {
        self.bytes.extend_from_slice(check);
        self.checks.push((route, self.bytes.len()));
        self.since.get_or_insert(now);
        self.checks.len() >= MOST
    }

    /// When they are to be answered.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + LONGEST)
    }

    /// The checks.
    pub(super) fn checks(&self) -> impl Iterator<Item = (Route, &[u8])> {
        let starts = std::iter::once(0).chain(self.checks.iter().map(|(_, end)| *end));
        self.checks.iter().zip(starts).filter_map(|((route, end), start)| Some((*route, self.bytes.get(start..*end)?)))
    }

    /// Without any; the buffers stay.
    pub(super) fn emptied(mut self) -> Self {
        self.bytes.clear();
        self.checks.clear();
        Self { since: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn checks_wait_for_others_but_not_for_long_nor_many() {
        let (mut put_off, start) = (PutOff::default(), Instant::now());
        let from = |port: usize| Route::from(SocketAddr::from(([192, 0, 2, 1], u16::try_from(port).unwrap())));
        assert_eq!(put_off.due(), None);
        assert!(!put_off.add(start, from(1), b"first"));
        assert!(!put_off.add(start + LONGEST / 2, from(2), b"2nd"));
        assert_eq!(put_off.due(), Some(start + LONGEST), "of the one that waits longest");
        assert_eq!(put_off.checks().collect::<Vec<_>>(), [(from(1), &b"first"[..]), (from(2), &b"2nd"[..])]);

        put_off = put_off.emptied();
        assert!(put_off.due().is_none() && put_off.checks().next().is_none());
        let full: Vec<bool> = (0..MOST).map(|n| put_off.add(start, from(n), b"check")).collect();
        assert_eq!(full.iter().position(|full| *full), Some(MOST - 1));
    }
}
