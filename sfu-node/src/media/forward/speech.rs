//! How loud a microphone is for a while: levels of packets in (RFC 6464), steps of loudness out. **Pure.** A silent one
//! costs a comparison a packet and no timer.

use std::time::Duration;

use crate::media::api::{Event, LOUDEST_STEP, TrackKey};
use crate::media::forward::Forwarder;
use crate::media::forward::clock::{Time, micros};
use crate::media::forward::timers::Owner;

/// Time over which speech is judged (LiveKit's); its ends are the same for all microphones of a node.
pub(crate) const WINDOW: Duration = Duration::from_millis(400);
/// Speech is at least this loud, -dBov (LiveKit's).
const THRESHOLD: u8 = 35;
/// Share of a window that has to be speech, per cent (LiveKit's).
const SHARE_PERCENT: u64 = 40;
/// Weight of the newest window: smoothed over two (LiveKit's).
const WEIGHT: f32 = 2.0 / 3.0;
/// A packet tells of the time since the one before it, but of no more than this: none came in silence.
const MAX_PACKET: Duration = Duration::from_millis(60);

/// What is remembered of a microphone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Speech {
    last: Time,
    /// Microseconds of speech in this window.
    spoken: u64,
    /// Loudest packet of this window, as an amplitude below 1.
    amplitude: f32,
    /// The same over the windows.
    smoothed: f32,
    /// The step that was told last.
    told: u8,
    /// When the window ends; `None`: there is nothing to be judged.
    due: Option<Time>,
}

impl Speech {
    /// A packet says how loud it is, -dBov. When to look again, if that was not known before.
    pub(crate) fn hear(&mut self, now: Time, level: u8) -> Option<Time> {
        let covered = now.since(self.last).min(micros(MAX_PACKET));
        self.last = now;
        if level > THRESHOLD {
            return None;
        }
        self.spoken = self.spoken.saturating_add(covered);
        self.amplitude = self.amplitude.max(amplitude(level));
        if self.due.is_some() {
            return None;
        }
        self.due = Some(now.next_multiple(WINDOW));
        self.due
    }

    /// When a window ends that is to be judged.
    pub(crate) fn due(&self) -> Option<Time> {
        self.due
    }

    /// Ends the window, if it is due. The step it is told to be at from now on, if that is another one.
    pub(crate) fn close(&mut self, now: Time) -> Option<u8> {
        self.due.filter(|due| *due <= now)?;
        let window = micros(WINDOW);
        let spoke = self.spoken * 100 >= window * SHARE_PERCENT;
        let share = self.spoken.min(window) as f32 / window as f32;
        let loudness = if spoke { self.amplitude * share } else { 0.0 };
        self.smoothed += (loudness - self.smoothed) * WEIGHT;
        (self.spoken, self.amplitude) = (0, 0.0);
        let active = self.smoothed >= amplitude(THRESHOLD);
        if !active && !spoke {
            self.smoothed = 0.0;
        }
        self.due = (self.smoothed > 0.0).then(|| now.next_multiple(WINDOW));
        let step = if active { step(self.smoothed) } else { 0 };
        (std::mem::replace(&mut self.told, step) != step).then_some(step)
    }

    /// Nobody is heard any more. True if that is news.
    pub(crate) fn stop(&mut self) -> bool {
        std::mem::take(self).told > 0
    }
}

/// The amplitude of a level in -dBov.
fn amplitude(level: u8) -> f32 {
    10_f32.powf(-f32::from(level) / 20.0)
}

/// Steps that cover an amplitude, at least one.
fn step(amplitude: f32) -> u8 {
    (1..LOUDEST_STEP).find(|step| amplitude * f32::from(LOUDEST_STEP) <= f32::from(*step)).unwrap_or(LOUDEST_STEP)
}

impl Forwarder {
    /// A packet of a microphone says how loud it is, to whoever receives it from the microphone itself.
    pub(super) fn hear_speech(&mut self, now: Time, track: usize, level: u8) {
        let Some(source) = self.tracks.get_mut(track).and_then(|track| track.source.as_mut()) else { return };
        let is_ours = self.transports.get(source.transport).is_some_and(|from| from.relayed_from.is_none());
        if let Some(due) = is_ours.then(|| source.speech.hear(now, level)).flatten() {
            self.timers.arm(Owner::Track(track), due);
        }
    }

    /// What a track's window, if it is over, gives to tell.
    pub(super) fn judge_speech(&mut self, now: Time, track: usize) -> Option<Event> {
        let track = self.tracks.get_mut(track)?;
        let step = track.source.as_mut()?.speech.close(now)?;
        Some(loudness(track.key, step))
    }
}

/// The news about a microphone.
pub(super) fn loudness(track: TrackKey, step: u8) -> Event {
    Event::Loudness { track, step }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000_000;

    /// The level at each millisecond, if a packet comes then.
    type Levels = fn(u64) -> Option<u8>;

    /// Packets of 20 ms with the level that `level` gives for the millisecond; what was told, and at which.
    fn run(speech: &mut Speech, from: u64, to: u64, level: impl Fn(u64) -> Option<u8>) -> Vec<(u64, u8)> {
        let mut told = vec![];
        for at in (from..to).step_by(20) {
            let now = Time(START + at * 1_000);
            if speech.due().is_some_and(|due| due <= now) {
                told.extend(speech.close(now).map(|step| (at, step)));
            }
            if let Some(level) = level(at) {
                speech.hear(now, level);
            }
        }
        told
    }

    #[test]
    fn a_voice_is_told_within_two_windows_and_its_end_within_five() {
        let mut speech = Speech::default();
        let told = run(&mut speech, 0, 8_000, |at| (at >= 1_000).then_some(if at < 4_000 { 12 } else { 127 }));
        let (first, last) = (told.first().unwrap(), told.last().unwrap());
        assert!((1_001..=1_800).contains(&first.0) && first.1 > 0, "{told:?}");
        assert!((4_001..=6_000).contains(&last.0) && last.1 == 0, "{told:?}");
        // -12 dBov is a quarter of full scale: two steps of eight or, as it is just more, three.
        assert_eq!(told.iter().map(|(_, step)| *step).max(), Some(3), "{told:?}");
        assert_eq!(speech.due(), None, "nothing more to look at");
    }

    #[test]
    fn silence_and_what_is_too_quiet_too_short_or_too_rare_is_nobody_speaking() {
        let never: [(&str, Levels); 4] = [
            ("silence", |_| Some(127)),
            ("too quiet", |_| Some(36)),
            ("a click", |at| Some(if at % 400 < 100 { 5 } else { 127 })),
            ("nothing but a click in discontinuous transmission", |at| (at % 400 < 40).then_some(5)),
        ];
        for (what, level) in never {
            let mut speech = Speech::default();
            assert_eq!(run(&mut speech, 0, 10_000, level), [], "{what}");
        }
        let mut speech = Speech::default();
        run(&mut speech, 0, 2_000, |_| Some(36));
        assert_eq!(speech.due(), None, "no timer for silence");
    }

    #[test]
    fn a_steady_voice_is_told_once_it_is_steady() {
        for level in [0, 6, 20, 34] {
            let mut speech = Speech::default();
            run(&mut speech, 0, 3_000, |_| Some(level));
            assert_eq!(run(&mut speech, 3_000, 20_000, |_| Some(level)), [], "level {level}");
        }
    }

    #[test]
    fn packets_of_any_length_count_for_the_time_they_cover() {
        for every in [20, 40, 60] {
            let mut speech = Speech::default();
            let told = run(&mut speech, 0, 2_000, |at| at.is_multiple_of(every).then_some(10));
            assert!(!told.is_empty(), "every {every} ms");
        }
    }

    #[test]
    fn steps_go_from_one_to_eight() {
        assert_eq!([0.001, 0.124, 0.126, 0.5, 0.51, 1.0].map(step), [1, 1, 2, 4, 5, 8]);
    }

    #[test]
    fn who_stops_is_told_only_if_it_was_heard() {
        let mut speech = Speech::default();
        run(&mut speech, 0, 300, |_| Some(5));
        assert!(!speech.stop(), "not told yet");
        run(&mut speech, 400, 2_000, |_| Some(5));
        assert!(speech.stop());
        assert_eq!(speech.due(), None);
    }
}
