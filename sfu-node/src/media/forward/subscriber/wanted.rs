//! What of its track a subscription is to get: as much as is wanted and as its path and the shard carry.

use std::time::Duration;

use shared::control::TrackKind;

use crate::media::forward::allocation::Quality;
use crate::media::forward::clock::{Time, micros};
use crate::media::forward::layering::{Reach, Target};
use crate::media::forward::publisher::Source;
use crate::media::forward::scalability::Known;
use crate::media::forward::subscriber::Subscription;
use crate::media::relief::{Relief, Share};

/// How long a video goes on whose least no longer fits. After an overuse that was none, what arrives has raised the estimate
/// again by then ([`Rate`](crate::media::forward::bandwidth)).
const PATIENCE: Duration = Duration::from_secs(2);

impl Subscription {
    /// Takes what the shard leaves out. True if that changes what goes out.
    pub(crate) fn relieve(&mut self, relief: Relief) -> bool {
        let before = self.share();
        self.relief = relief;
        let share = self.share();
        if share == Share::Nothing {
            self.pause();
        }
        share != before
    }

    fn share(&self) -> Share {
        match self.kind {
            TrackKind::Audio => Share::Whole,
            TrackKind::Video => self.relief.share(self.delivery().priority > 0, self.ssrc),
        }
    }

    /// Neither its path nor the shard carries any of it.
    pub(crate) fn is_paused(&self) -> bool {
        self.ceiling.is_none() || self.share() == Share::Nothing
    }

    /// Takes whether the least of it fits. True if it goes on although it does not: only what goes out already, and not for
    /// long.
    pub(crate) fn bears(&mut self, now: Time, fits: bool) -> bool {
        if fits {
            self.starved = None;
            return false;
        }
        self.current.is_some() && now.since(*self.starved.get_or_insert(now)) < micros(PATIENCE)
    }

    /// The layer that is to go out, when it waits for a keyframe of it.
    pub(crate) fn awaits(&self, source: &Source) -> Option<u8> {
        let target = self.target(source)?;
        let is_held = self.held.as_ref().is_some_and(|held| held.begins(target));
        let waits = self.kind == TrackKind::Video
            && !is_held
            && (self.current != Some(target) || self.is_stuck(source, target));
        (waits && self.routes.iter().any(Option::is_some)).then_some(target)
    }

    /// Whatever layer comes first is to go out.
    pub(crate) fn awaits_anything(&self) -> bool {
        self.kind == TrackKind::Video && !self.is_piped() && self.allowed().is_some()
    }

    /// The layer that is to go out: the highest live one that is allowed.
    pub(super) fn target(&self, source: &Source) -> Option<u8> {
        let ceiling = self.allowed()?.layer;
        match self.only {
            Some(only) => (only <= ceiling && source.lives(only)).then_some(only),
            None => source.live_up_to(ceiling),
        }
    }

    /// The most that its path carries and that is wanted; `None`: nothing.
    pub(super) fn allowed(&self) -> Option<Quality> {
        let ceiling = self.ceiling.filter(|_| !self.delivery().paused)?;
        let ceiling = match self.share() {
            Share::Whole => ceiling,
            Share::UpTo(layer) => ceiling.up_to(layer),
            Share::Nothing => return None,
        };
        Some(self.delivery().max_layer.map_or(ceiling, |wanted| ceiling.up_to(wanted)))
    }

    /// What is to go out of a layer.
    pub(super) fn wanted_of<'a>(&self, source: &'a Source, layer: u8) -> Option<(Target, &'a Known)> {
        let known = source.layer(layer)?.layering.known()?;
        let allowed = self.allowed().unwrap_or(Quality::BEST);
        let (inside, spatial) =
            if known.is_spatial() { (true, allowed.layer) } else { (allowed.layer == layer, u8::MAX) };
        let temporal = source.temporal_for(self.delivery().max_frame_rate);
        let temporal = if inside { temporal.min(allowed.temporal) } else { temporal };
        Some((known.choose(Reach { spatial, temporal }), known))
    }

    /// What is to go out of the layer cannot without a keyframe.
    fn is_stuck(&self, source: &Source, layer: u8) -> bool {
        self.wanted_of(source, layer)
            .is_some_and(|(wanted, known)| self.selection.stuck(&known.targets, known.generation, wanted))
    }
}
