//! Of many microphones in a room the loudest few are heard. **Pure: levels in (RFC 6464), choice out.** Who is loud for a
//! moment takes nobody's place, and who pauses between words keeps it.

use std::collections::HashMap;
use std::time::Duration;

use rustc_hash::FxBuildHasher;
use shared::control::TrackKind;

use crate::media::api::RoomKey;
use crate::media::forward::Forwarder;
use crate::media::forward::clock::{Time, micros};

/// The level of silence, -dBov (RFC 6464 section 3).
const SILENCE: u8 = 127;
/// How fast loudness is believed, decibels a packet: speech within 200 ms, a click not at all.
const RISE: f64 = 6.0;
/// How fast it is forgotten, decibels a second.
const FALL: f64 = 20.0;
/// Who takes a place is louder by so much, decibels.
const MARGIN: f64 = 6.0;
/// A place is kept at least this long.
const KEEP: Duration = Duration::from_secs(2);

/// One microphone.
#[derive(Debug, Clone, Copy)]
struct Speaking {
    /// Decibels above silence, at `at`.
    loudness: f64,
    at: Time,
    /// Has a place since then.
    since: Option<Time>,
}

/// What one packet changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The track of the packet is heard.
    pub(crate) heard: bool,
    /// The track that is not heard any more.
    pub(crate) replaced: Option<usize>,
}

/// The microphones of a room, by the slots of their tracks.
#[derive(Debug)]
pub(crate) struct Loudest {
    /// How many are heard.
    most: usize,
    tracks: HashMap<usize, Speaking, FxBuildHasher>,
    heard: Vec<usize>,
}

impl Loudest {
    /// Nobody yet; `most` are heard.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, tracks: HashMap::default(), heard: Vec::new() }
    }

    /// A packet of a track came; its level is in -dBov.
    pub(crate) fn take(&mut self, now: Time, track: usize, level: u8) -> Verdict {
        let told = f64::from(SILENCE.saturating_sub(level));
        let speaking = self.tracks.entry(track).or_insert(Speaking { loudness: 0.0, at: now, since: None });
        let before = speaking.loudness_at(now);
        (speaking.loudness, speaking.at) = (told.min(before + RISE).max(before), now);
        let loudness = speaking.loudness;
        if speaking.since.is_some() {
            return Verdict { heard: true, replaced: None };
        }
        if self.heard.len() < self.most {
            self.admit(now, track);
            return Verdict { heard: true, replaced: None };
        }
        let loudness_of = |known: &usize| Some((self.tracks.get(known)?.weakness(now)?, *known));
        let quietest = self.heard.iter().filter_map(loudness_of).min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, quietest)) = quietest.filter(|(quiet, _)| loudness > quiet + MARGIN) else {
            return Verdict { heard: false, replaced: None };
        };
        self.dismiss(quietest);
        self.admit(now, track);
        Verdict { heard: true, replaced: Some(quietest) }
    }

    /// A track is gone. Gives the one that is heard in its place.
    pub(crate) fn forget(&mut self, now: Time, track: usize) -> Option<usize> {
        let gone = self.tracks.remove(&track)?;
        gone.since?;
        self.heard.retain(|known| *known != track);
        let waiting = self.tracks.iter().filter(|(_, speaking)| speaking.since.is_none());
        // Of two that are as loud the first: what a map gives first is not the same everywhere.
        let rank = |(known, speaking): (&usize, &Speaking)| (speaking.loudness_at(now), *known);
        let loudest = waiting.map(rank).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let (_, next) = loudest?;
        self.admit(now, next);
        Some(next)
    }

    /// No track is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    fn admit(&mut self, now: Time, track: usize) {
        if let Some(speaking) = self.tracks.get_mut(&track) {
            speaking.since = Some(now);
            self.heard.push(track);
        }
    }

    fn dismiss(&mut self, track: usize) {
        if let Some(speaking) = self.tracks.get_mut(&track) {
            speaking.since = None;
        }
        self.heard.retain(|known| *known != track);
    }
}

impl Speaking {
    fn loudness_at(&self, now: Time) -> f64 {
        (self.loudness - now.since(self.at) as f64 * FALL / 1e6).max(0.0)
    }

    /// Loudness of one that may lose its place; `None`: not yet.
    fn weakness(&self, now: Time) -> Option<f64> {
        let since = self.since?;
        let loudness = self.loudness_at(now);
        (now.since(since) >= micros(KEEP) || loudness <= 0.0).then_some(loudness)
    }
}

impl Forwarder {
    /// A packet of a microphone says how loud it is (RFC 6464): a byte with the level in the lower seven bits.
    pub(super) fn hear_level(&mut self, now: Time, track: usize, level: u8) {
        let source = self.tracks.get(track).and_then(|track| track.source.as_ref());
        let Some(room) = source.filter(|source| source.receiver.kind == TrackKind::Audio).map(|source| source.room)
        else {
            return;
        };
        self.hear_speech(now, track, level & 0x7f);
        if self.audible == usize::MAX {
            return;
        }
        let most = self.audible;
        let verdict = self.rooms.entry(room).or_insert_with(|| Loudest::new(most)).take(now, track, level & 0x7f);
        self.set_audible(track, verdict.heard);
        verdict.replaced.into_iter().for_each(|replaced| self.set_audible(replaced, false));
    }

    /// A microphone of a room is gone, or another one.
    pub(super) fn forget_level(&mut self, now: Time, track: usize, room: Option<RoomKey>) {
        let Some((room, loudest)) = room.and_then(|room| Some((room, self.rooms.get_mut(&room)?))) else { return };
        let next = loudest.forget(now, track);
        if loudest.is_empty() {
            self.rooms.remove(&room);
        }
        next.into_iter().for_each(|next| self.set_audible(next, true));
    }

    fn set_audible(&mut self, track: usize, audible: bool) {
        if let Some(source) = self.tracks.get_mut(track).and_then(|track| track.source.as_mut()) {
            source.audible = audible;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 20 ms of each track, with the level that `level` gives for track and time in milliseconds.
    fn run(
        room: &mut Loudest,
        from: u64,
        to: u64,
        tracks: usize,
        level: impl Fn(usize, u64) -> u8,
    ) -> Vec<(u64, usize)> {
        let mut changes = vec![];
        for at in (from..to).step_by(20) {
            for track in 0..tracks {
                let verdict = room.take(Time(1_000_000 + at * 1_000), track, level(track, at));
                changes.extend(verdict.replaced.map(|_| (at, track)));
            }
        }
        changes
    }

    fn heard(room: &Loudest) -> Vec<usize> {
        let mut heard = room.heard.clone();
        heard.sort_unstable();
        heard
    }

    #[test]
    fn all_are_heard_while_they_are_few() {
        let mut room = Loudest::new(3);
        for track in 0..3 {
            assert_eq!(room.take(Time(0), track, 127), Verdict { heard: true, replaced: None });
        }
        assert_eq!(room.take(Time(0), 3, 127), Verdict { heard: false, replaced: None });
        assert!(run(&mut room, 0, 10_000, 4, |_, _| 127).is_empty());
    }

    #[test]
    fn who_speaks_is_heard_at_once_where_others_are_silent() {
        let mut room = Loudest::new(3);
        run(&mut room, 0, 1_000, 20, |_, _| 127);
        let changes = run(&mut room, 1_000, 3_000, 20, |track, _| if track == 17 { 30 } else { 127 });
        assert_eq!(changes, [(1_020, 17)]);
    }

    #[test]
    fn pauses_between_words_clicks_and_equal_voices_change_nothing() {
        let mut room = Loudest::new(2);
        // Two speak, in words of 400 ms with pauses of 600 ms.
        let words = |track: usize, at: u64| if track < 2 && at % 1_000 < 400 { 30 } else { 110 };
        run(&mut room, 0, 3_000, 6, words);
        assert_eq!(heard(&room), [0, 1]);
        let clicks = |track: usize, at: u64| if track > 1 && at % 500 < 40 { 10 } else { words(track, at) };
        assert!(run(&mut room, 3_000, 20_000, 6, clicks).is_empty());
        // A third speaks just as loud.
        let equal = |track: usize, at: u64| if track == 2 { 28 } else { words(track, at).min(31) };
        assert!(run(&mut room, 20_000, 40_000, 6, equal).is_empty());
    }

    #[test]
    fn a_place_is_kept_for_two_seconds_however_many_shout() {
        let mut room = Loudest::new(1);
        // Each shouts for 300 ms in turn.
        let turns = |track: usize, at: u64| if at / 300 % 5 == track as u64 { 5 } else { 100 };
        let changes = run(&mut room, 0, 60_000, 5, turns);
        assert!((5..=30).contains(&changes.len()), "{} changes in a minute", changes.len());
        assert!(changes.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 2_000));
    }

    #[test]
    fn the_place_of_one_who_leaves_goes_to_the_loudest() {
        let mut room = Loudest::new(2);
        run(&mut room, 0, 1_000, 5, |track, _| if track < 2 { 20 } else { 90 - u8::try_from(track).unwrap() });
        assert_eq!(room.forget(Time(2_000_000), 0), Some(4));
        assert_eq!(room.forget(Time(2_000_000), 2), None, "it had none");
        assert_eq!(heard(&room), [1, 4]);
        assert_eq!([1, 3, 4].map(|track| room.forget(Time(2_000_000), track)), [Some(3), None, None]);
        assert!(room.is_empty());
    }
}
