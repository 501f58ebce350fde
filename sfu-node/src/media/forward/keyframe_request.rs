//! When a layer's publisher is asked for a keyframe: at once, and once more soon after, then throttled; repeated with backoff
//! until it comes.

use std::time::Duration;

use crate::media::forward::clock::Time;

/// Time in which a layer's publisher is asked twice at most.
const WINDOW: Duration = Duration::from_secs(1);
/// Least time between two requests: libwebrtc passes over one that comes within 300 ms of the last.
const SPACING: Duration = Duration::from_millis(330);
/// Wait before the first repetition.
const REPEAT_AFTER: Duration = Duration::from_millis(500);
/// Longest wait between repeated requests.
const MAX_INTERVAL: Duration = Duration::from_secs(4);

/// One layer's outstanding request.
#[derive(Debug, Default)]
pub(crate) struct KeyframeRequest {
    last: Option<Time>,
    last_but_one: Option<Time>,
    next: Option<Time>,
    repeats: u32,
}

impl KeyframeRequest {
    /// Somebody needs a keyframe. The request is due at once, or when the throttle allows.
    pub(crate) fn want(&mut self, now: Time) {
        // What was asked at this instant serves this one too, whichever shard it comes from.
        if self.next.is_some() && self.last == Some(now) {
            return;
        }
        let earliest = self.earliest(now);
        self.next = Some(self.next.map_or(earliest, |next| next.min(earliest)));
    }

    /// A keyframe came, or nobody waits any more.
    pub(crate) fn settle(&mut self) {
        self.next = None;
        self.repeats = 0;
    }

    /// True when somebody needs one, for a shard that only passes it on.
    pub(crate) fn take_wanted(&mut self) -> bool {
        self.next.take().is_some()
    }

    /// When to send.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.next
    }

    /// True when a request is to be sent now; schedules its repetition.
    pub(crate) fn take_due(&mut self, now: Time) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        let wait = REPEAT_AFTER.saturating_mul(1 << self.repeats.min(3)).min(MAX_INTERVAL);
        self.repeats = self.repeats.saturating_add(1);
        self.last_but_one = self.last.replace(now);
        self.next = Some(self.earliest(now.plus(wait).deadline()));
        true
    }

    /// When the throttle allows another one, from then on.
    fn earliest(&self, from: Time) -> Time {
        let spaced = self.last.map(|last| last.plus(SPACING).deadline());
        let in_window = self.last_but_one.map(|before| before.plus(WINDOW).deadline());
        [spaced, in_window].into_iter().flatten().fold(from, Time::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_throttled_and_back_off() {
        let mut request = KeyframeRequest::default();
        request.want(Time(0));
        assert!(request.take_due(Time(0)), "at once");
        request.want(Time(1));
        assert!(!request.take_due(Time(329_999)));
        assert!(request.take_due(Time(330_000)), "one more soon");
        request.settle();
        request.want(Time(400_000));
        assert!(!request.take_due(Time(999_999)), "but no third in the second");
        assert!(request.take_due(Time(1_000_000)));
        request.settle();
        request.want(Time(1_000_001));
        assert!(!request.take_due(Time(1_329_999)));
        assert!(request.take_due(Time(1_330_000)));
        assert_eq!(request.next_due(), Some(Time(2_000_000)), "nor is it repeated too soon");
        request.settle();

        let mut request = KeyframeRequest::default();
        request.want(Time(0));
        assert!(request.take_due(Time(0)));
        let mut sent = vec![];
        for _ in 0..6 {
            let due = request.next_due().unwrap();
            assert!(request.take_due(due));
            sent.push(due.0);
        }
        assert_eq!(sent, [500_000, 1_500_000, 3_500_000, 7_500_000, 11_500_000, 15_500_000]);
        request.want(Time(15_500_000));
        assert_eq!(request.next_due(), Some(Time(19_500_000)), "asked at this instant already");
        request.settle();
        assert_eq!(request.next_due(), None);
        request.want(Time(15_500_001));
        assert!(!request.take_due(Time(15_829_999)), "the throttle holds over a keyframe");
        assert!(request.take_due(Time(15_830_000)));
    }
}
