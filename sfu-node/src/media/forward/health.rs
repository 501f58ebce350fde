//! How well a transport carries media: loss both ways, the round trip, and what of its videos does not fit, as one score
//! in a while. **Pure.** Nothing is kept of a transport that carries none.

use std::time::Duration;

use shared::control::{BEST_SCORE, EXCELLENT_SCORE, GOOD_SCORE, TrackKind};

use crate::media::forward::clock::Time;

/// Time over which it is judged (LiveKit's).
const WINDOW: Duration = Duration::from_secs(5);
/// Packets of a kind and a direction that say something about loss.
const ENOUGH: u64 = 20;
/// Score taken by a per cent of video lost (LiveKit's): what is sent again comes late, and keyframes cost sharpness.
const VIDEO_LOSS: f32 = 10.0;
/// Score taken by a per cent of audio lost (LiveKit's for Opus with in-band correction).
const AUDIO_LOSS: f32 = 4.0;
/// Score taken by each layer that does not fit; a video that is paused for it lacks all.
const LAYER: f32 = 20.0;
/// Layers that a paused video lacks.
pub(crate) const ALL_LAYERS: u8 = 3;
/// Another score by less is no news.
const NEWS: u8 = 5;

/// Packets of one kind in one direction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loss {
    pub(crate) expected: u64,
    pub(crate) lost: u64,
}

/// Packets of both kinds in one direction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    audio: Loss,
    video: Loss,
}

/// What is known of a transport's window.
#[derive(Debug)]
pub(crate) struct Health {
    received: Counted,
    sent: Counted,
    /// Microseconds, smoothed; 0: not measured.
    round_trip: u64,
    /// Layers that the video worst off lacks.
    missing: u8,
    told: u8,
    due: Time,
}

impl Counted {
    /// More of a kind.
    pub(crate) fn count(&mut self, kind: TrackKind, loss: Loss) {
        let counted = match kind {
            TrackKind::Audio => &mut self.audio,
            TrackKind::Video => &mut self.video,
        };
        counted.expected = counted.expected.saturating_add(loss.expected);
        counted.lost = counted.lost.saturating_add(loss.lost);
    }

    fn impairment(&self) -> f32 {
        (self.audio.percent() * AUDIO_LOSS).max(self.video.percent() * VIDEO_LOSS)
    }
}

impl Loss {
    fn percent(self) -> f32 {
        if self.expected < ENOUGH { 0.0 } else { self.lost.min(self.expected) as f32 * 100.0 / self.expected as f32 }
    }
}

impl Health {
    /// Nothing is wrong until something is seen to be.
    pub(crate) fn new(now: Time) -> Self {
        let counted = Counted::default();
        let due = now.next_multiple(WINDOW);
        Self { received: counted, sent: counted, round_trip: 0, missing: 0, told: BEST_SCORE, due }
    }

    /// What came of what the peer sent.
    pub(crate) fn received(&mut self, kind: TrackKind, loss: Loss) {
        self.received.count(kind, loss);
    }

    /// What the peer says came of what it was sent.
    pub(crate) fn sent(&mut self, kind: TrackKind, loss: Loss) {
        self.sent.count(kind, loss);
    }

    /// A round trip, microseconds.
    pub(crate) fn measured(&mut self, round_trip: u64) {
        self.round_trip = if self.round_trip == 0 { round_trip } else { u64::midpoint(self.round_trip, round_trip) };
    }

    /// The video worst off lacks so many layers because they do not fit.
    pub(crate) fn lacks(&mut self, layers: u8) {
        self.missing = layers;
    }

    /// Ends the window, if it is due; where nothing flows any more, at once. The score, if it is news.
    pub(crate) fn close(&mut self, now: Time, flowing: bool) -> Option<u8> {
        if flowing && now < self.due {
            return None;
        }
        let score = if flowing { self.score() } else { BEST_SCORE };
        *self = Self { round_trip: self.round_trip, missing: self.missing, told: self.told, ..Self::new(now) };
        if score.abs_diff(self.told) < NEWS && class(score) == class(self.told) {
            return None;
        }
        self.told = score;
        Some(score)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    fn score(&self) -> u8 {
        let loss = self.received.impairment().max(self.sent.impairment());
        let lack = f32::from(self.missing) * LAYER;
        let best = f32::from(BEST_SCORE);
        (best - loss - delay_impairment(self.round_trip) - lack).clamp(0.0, best).round() as u8
    }
}

fn class(score: u8) -> u8 {
    u8::from(score > GOOD_SCORE) + u8::from(score > EXCELLENT_SCORE)
}

/// What a one-way delay takes of the transmission rating factor (ITU-T G.107, as simplified by Cole and Rosenbluth 2001).
fn delay_impairment(round_trip: u64) -> f32 {
    const ECHO_LIMIT: f32 = 177.3;
    let one_way = round_trip as f32 / 2_000.0;
    0.024 * one_way + 0.11 * (one_way - ECHO_LIMIT).max(0.0)
}

/// What a subscriber last reported of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported {
    pub(crate) highest: u32,
    pub(crate) lost: u32,
}

impl Reported {
    /// What happened since an earlier report; `None`: they do not fit together.
    pub(crate) fn since(self, earlier: Self) -> Option<Loss> {
        /// Packets between two reports, at most: more are a new stream.
        const MOST: u32 = 1 << 16;
        let expected = self.highest.wrapping_sub(earlier.highest);
        // Duplicates make the loss go down.
        let lost = u32::try_from(self.lost.wrapping_sub(earlier.lost).cast_signed().max(0)).unwrap_or(0);
        (expected < MOST).then(|| Loss { expected: expected.into(), lost: lost.min(expected).into() })
    }
}

/// The time a window takes, for those who wait for its end.
#[cfg(test)]
pub(crate) const fn window() -> Duration {
    WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::forward::clock::micros;

    const START: Time = Time(1_000_000_000);

    fn after(windows: u64) -> Time {
        Time(START.0 + windows * micros(WINDOW))
    }

    /// Score of a window in which so many of a thousand packets were lost each way.
    fn scored(kind: TrackKind, received: u64, sent: u64, round_trip: u64) -> u8 {
        let mut health = Health::new(START);
        health.received(kind, Loss { expected: 1000, lost: received });
        health.sent(kind, Loss { expected: 1000, lost: sent });
        health.measured(round_trip);
        health.score()
    }

    #[test]
    fn loss_either_way_and_delay_lower_the_score() {
        use TrackKind::{Audio, Video};
        assert_eq!(scored(Video, 0, 0, 0), 100);
        assert_eq!(scored(Video, 10, 0, 0), 90, "1 %");
        assert_eq!((scored(Video, 0, 30, 0), scored(Audio, 0, 30, 0)), (70, 88));
        assert_eq!(scored(Video, 200, 0, 0), 0);
        assert!(scored(Video, 0, 0, 50_000) > 98, "a good path");
        assert!((GOOD_SCORE..EXCELLENT_SCORE).contains(&scored(Audio, 0, 0, 700_000)), "too long to talk well");
    }

    #[test]
    fn only_news_is_told_at_the_end_of_a_window() {
        let mut health = Health::new(START);
        let bad = Loss { expected: 1000, lost: 60 };
        health.received(TrackKind::Video, bad);
        assert_eq!(health.close(Time(START.0 + 1), true), None, "not yet");
        assert_eq!(health.close(after(1), true), Some(40));
        health.received(TrackKind::Video, Loss { lost: 58, ..bad });
        assert_eq!(health.close(after(2), true), Some(42), "another class");
        health.received(TrackKind::Video, Loss { lost: 55, ..bad });
        assert_eq!(health.close(after(3), true), None);
        assert_eq!(health.close(Time(after(3).0 + 1), false), Some(100), "nothing is wrong with silence");
        assert_eq!(health.close(after(4), false), None);
    }

    #[test]
    fn few_packets_say_nothing_and_videos_that_do_not_fit_do() {
        let mut health = Health::new(START);
        health.sent(TrackKind::Audio, Loss { expected: ENOUGH - 1, lost: 10 });
        assert_eq!(health.close(after(1), true), None);
        for (layers, score) in [(1, 80), (2, 60), (ALL_LAYERS, 40)] {
            health.lacks(layers);
            assert_eq!(health.close(after(1 + u64::from(layers)), true), Some(score));
        }
    }

    #[test]
    fn reports_are_compared_across_wraps_and_nonsense_is_left_out() {
        let at = |highest, lost| Reported { highest, lost };
        let since = |a: Reported, b: Reported| a.since(b).map(|loss| (loss.expected, loss.lost));
        assert_eq!(since(at(9, 3), at(u32::MAX, 1)), Some((10, 2)));
        assert_eq!(since(at(100, 1), at(90, 3)), Some((10, 0)), "duplicates came");
        assert_eq!(since(at(100, 99), at(90, 0)), Some((10, 10)));
        assert_eq!(since(at(90, 0), at(100, 0)), None);
    }
}
