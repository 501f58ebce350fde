//! How loud a participant is: as its loudest microphone.

use crate::media::api::TrackKey;

/// The microphones of a session that are not silent.
#[derive(Debug, Default)]
pub(crate) struct Loudness {
    tracks: Vec<(TrackKey, u8)>,
    /// What the room knows.
    told: u8,
}

impl Loudness {
    /// A microphone is at this step now; 0: silent, or gone.
    pub(crate) fn set(&mut self, track: TrackKey, step: u8) {
        self.tracks.retain(|(known, _)| *known != track);
        if step > 0 {
            self.tracks.push((track, step));
        }
    }

    /// The step the room is to be told.
    pub(crate) fn take_news(&mut self) -> Option<u8> {
        let step = self.tracks.iter().map(|(_, step)| *step).max().unwrap_or(0);
        (std::mem::replace(&mut self.told, step) != step).then_some(step)
    }

    /// The step the room was told last.
    pub(crate) fn told(&self) -> u8 {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loudest_microphone_counts_and_each_step_is_told_once() {
        let (one, two) = (TrackKey(1), TrackKey(2));
        let mut loudness = Loudness::default();
        assert_eq!(loudness.take_news(), None);
        loudness.set(one, 3);
        loudness.set(two, 2);
        assert_eq!(loudness.told(), 0);
        assert_eq!((loudness.take_news(), loudness.take_news()), (Some(3), None));
        assert_eq!(loudness.told(), 3);
        loudness.set(two, 1);
        assert_eq!(loudness.take_news(), None);
        loudness.set(one, 0);
        assert_eq!(loudness.take_news(), Some(1));
        loudness.set(two, 0);
        assert_eq!((loudness.take_news(), loudness.take_news()), (Some(0), None));
    }
}
