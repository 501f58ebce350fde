//! Loads, described: who is in the rooms, and what each of them sends and receives.

use serde::Serialize;

use crate::client::Publish;

/// What a participant sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tracks {
    /// Nothing at all.
    Nothing,
    /// VP8 of 1.5 Mb/s, 30 frames/s.
    Camera,
    /// Opus of 48 kb/s, 50 packets/s.
    Microphone,
    /// Opus without speech, 2.5 packets/s.
    QuietMicrophone,
    /// [`Tracks::Camera`] and [`Tracks::Microphone`].
    CameraAndMicrophone,
}

impl Tracks {
    /// The same to a client.
    #[must_use]
    pub fn publish(self) -> Vec<Publish> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Camera => vec![Publish::camera("camera")],
            Self::Microphone => vec![Publish::microphone("microphone")],
            Self::QuietMicrophone => vec![Publish::quiet_microphone("microphone")],
            Self::CameraAndMicrophone => vec![Publish::camera("camera"), Publish::microphone("microphone")],
        }
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Camera | Self::Microphone | Self::QuietMicrophone => 1,
            Self::CameraAndMicrophone => 2,
        }
    }
}

/// A load. Its rooms are alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    /// How many rooms.
    pub rooms: u32,
    /// What those send in each room who receive nothing.
    pub publishers: Vec<Tracks>,
    /// What those send in each room who receive everything of everybody else there.
    pub members: Vec<Tracks>,
    /// How many in each room only receive, everything.
    pub subscribers: u32,
    /// Share of the packets lost on the way to each who receives.
    pub loss: f64,
    /// Between the last join and the window, seconds.
    pub settle_secs: u64,
}

/// Traffic runs for so long before a window, seconds: keyframes are through, bitrates level.
const SETTLE_SECS: u64 = 2;
/// Idle sessions have to be so for as long, seconds: joins, and what follows them, are no part of it.
const IDLE_SETTLE_SECS: u64 = 10;

impl Scenario {
    /// One publisher, many subscribers.
    #[must_use]
    pub fn fan_out(tracks: Tracks, subscribers: u32) -> Self {
        Self {
            rooms: 1,
            publishers: vec![tracks],
            members: Vec::new(),
            subscribers,
            loss: 0.0,
            settle_secs: SETTLE_SECS,
        }
    }

    /// Everybody sends to everybody.
    #[must_use]
    pub fn meeting(rooms: u32, members: Vec<Tracks>) -> Self {
        Self { rooms, publishers: Vec::new(), members, subscribers: 0, loss: 0.0, settle_secs: SETTLE_SECS }
    }

    /// So many who do nothing in each of so many rooms.
    #[must_use]
    pub fn idle(rooms: u32, members: usize) -> Self {
        Self { settle_secs: IDLE_SETTLE_SECS, ..Self::meeting(rooms, vec![Tracks::Nothing; members]) }
    }

    /// The same with loss on the way to those who receive.
    #[must_use]
    pub fn lossy(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// How many receive, in all rooms.
    #[must_use]
    pub fn receivers(&self) -> usize {
        let rooms = usize::try_from(self.rooms).unwrap_or(usize::MAX);
        rooms * (self.members.len() + usize::try_from(self.subscribers).unwrap_or(usize::MAX))
    }

    /// How many tracks come to a member, or to one who only receives (`None`).
    #[must_use]
    pub fn tracks_to(&self, member: Option<usize>) -> usize {
        let own = member.and_then(|number| self.members.get(number)).map_or(0, |own| own.count());
        self.publishers.iter().chain(&self.members).map(|tracks| tracks.count()).sum::<usize>() - own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_receives_what_it_sends() {
        let meeting = Scenario::meeting(8, vec![Tracks::CameraAndMicrophone; 4]);
        assert_eq!((meeting.receivers(), meeting.tracks_to(Some(0)), meeting.tracks_to(None)), (32, 6, 8));
        let fan_out = Scenario::fan_out(Tracks::Microphone, 500);
        assert_eq!((fan_out.receivers(), fan_out.tracks_to(None)), (500, 1));
    }

    #[test]
    fn tracks_are_as_many_as_they_say() {
        let all =
            [Tracks::Nothing, Tracks::Camera, Tracks::Microphone, Tracks::QuietMicrophone, Tracks::CameraAndMicrophone];
        assert!(all.into_iter().all(|tracks| tracks.publish().len() == tracks.count()));
    }
}
