//! What a participant is subscribed to, and the sections that carry it.

use std::collections::HashSet;

use shared::control::{MidTrack, PlayoutDelay, Subscription, TrackKind};
use shared::ids::TrackSid;

use super::allocator::Allocator;
use super::codec::mime;
use super::writer::{MediaSection, Source};
use crate::media::api::{Sender, TrackKey};

/// Most subscriptions of a session.
const MAX_SUBSCRIPTIONS: usize = 256;

/// The first codec of a track.
const PRIMARY: u8 = 0;

/// One subscription.
#[derive(Debug)]
pub(crate) struct Downtrack {
    pub(crate) subscription: Subscription,
    pub(crate) source: TrackKey,
    /// The section it has.
    pub(crate) place: Option<Placement>,
    /// Which of its codecs the room knows to be taken; `None`: who knows what it knows.
    told: Option<Option<u8>>,
}

/// A section given to a subscription.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) mid: String,
    ssrc: u32,
    rtx_ssrc: Option<u32>,
    /// The client has a description that names the streams.
    described: bool,
    /// The room was told that packets flow.
    bound: bool,
}

/// All of a session's.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    downtracks: Vec<Downtrack>,
    /// A section was freed, or a subscription waits, since the last description of ours.
    changed: bool,
}

impl Subscriptions {
    /// Adds a subscription. False: too many.
    pub(crate) fn add(&mut self, subscription: Subscription, source: TrackKey) -> bool {
        if let Some(known) = self.downtracks.iter_mut().find(|known| known.subscription.track == subscription.track) {
            known.subscription.delivery = subscription.delivery;
            known.subscription.codecs = subscription.codecs;
            return true;
        }
        if self.downtracks.len() >= MAX_SUBSCRIPTIONS {
            return false;
        }
        self.downtracks.push(Downtrack { subscription, source, place: None, told: Some(Some(PRIMARY)) });
        self.changed = true;
        true
    }

    /// Ends a subscription.
    pub(crate) fn remove(&mut self, track: &TrackSid, allocator: &mut Allocator) {
        let Some(index) = self.downtracks.iter().position(|downtrack| downtrack.subscription.track == *track) else {
            return;
        };
        if let Some(place) = self.downtracks.remove(index).place {
            place.release(allocator);
            self.changed = true;
        }
    }

    /// One of them is to this track.
    pub(crate) fn has(&self, source: TrackKey) -> bool {
        self.sources().any(|known| known == source)
    }

    /// The tracks they are to.
    pub(crate) fn sources(&self) -> impl Iterator<Item = TrackKey> {
        self.downtracks.iter().map(|downtrack| downtrack.source)
    }

    /// Gives back what was allocated.
    pub(crate) fn close(&mut self, allocator: &mut Allocator) {
        for place in self.downtracks.drain(..).filter_map(|downtrack| downtrack.place) {
            place.release(allocator);
        }
    }

    /// Something is to be negotiated.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    /// A description of ours has it all, or all that found a section.
    pub(crate) fn mark_described(&mut self) {
        self.changed = false;
    }

    /// A description of ours has what found a section; the rest needs another one.
    pub(crate) fn mark_placed(&mut self) {
        self.changed = self.downtracks.iter().any(|downtrack| downtrack.place.is_none());
    }

    /// The client has what names the streams of all that found a section.
    pub(crate) fn mark_received(&mut self) {
        self.downtracks.iter_mut().filter_map(|downtrack| downtrack.place.as_mut()).for_each(|p| p.described = true);
    }

    /// Takes away sections that cannot carry anything any more.
    pub(crate) fn displace(&mut self, usable: impl Fn(&str, TrackKind) -> bool, allocator: &mut Allocator) {
        for downtrack in &mut self.downtracks {
            let kind = downtrack.subscription.kind;
            if let Some(place) = downtrack.place.take_if(|place| !usable(&place.mid, kind)) {
                place.release(allocator);
                self.changed = true;
            }
        }
    }

    /// Gives the section `mid` to the first of `kind` that waits. `shown`: the stream that the client last saw in it; one
    /// that comes back there before its end was described is no news to the client, which shows nothing then.
    pub(crate) fn place(&mut self, mid: &str, kind: TrackKind, shown: Option<&str>, allocator: &mut Allocator) -> bool {
        let waits = |downtrack: &&mut Downtrack| {
            let its = downtrack.subscription.kind;
            downtrack.place.is_none() && its == kind && shown.is_none_or(|shown| shown != downtrack.stream())
        };
        let Some(downtrack) = self.downtracks.iter_mut().find(waits) else { return false };
        downtrack.place = Some(Placement::new(mid, kind, allocator));
        true
    }

    /// Gives a track the section in which the client has it already.
    pub(crate) fn place_again(&mut self, known: &MidTrack, allocator: &mut Allocator) {
        let waits =
            |downtrack: &&mut Downtrack| downtrack.place.is_none() && downtrack.subscription.track == known.track;
        if let Some(downtrack) = self.downtracks.iter_mut().find(waits) {
            downtrack.place = Some(Placement::new(&known.mid, downtrack.subscription.kind, allocator));
        }
    }

    /// The subscription that has waited longest for a section.
    pub(crate) fn first_waiting(&self) -> Option<&Subscription> {
        self.downtracks.iter().find(|downtrack| downtrack.place.is_none()).map(|downtrack| &downtrack.subscription)
    }

    /// How many of `kind` wait for a section.
    pub(crate) fn waiting(&self, kind: TrackKind) -> usize {
        let waits = |downtrack: &&Downtrack| downtrack.place.is_none() && downtrack.subscription.kind == kind;
        self.downtracks.iter().filter(waits).count()
    }

    /// Sections that carry something.
    pub(crate) fn occupied(&self) -> HashSet<&str> {
        self.downtracks.iter().filter_map(|downtrack| Some(downtrack.place.as_ref()?.mid.as_str())).collect()
    }

    /// What the section carries.
    pub(crate) fn in_section(&self, mid: &str) -> Option<(&Downtrack, &Placement)> {
        let mut placed = self.downtracks.iter().filter_map(|downtrack| Some((downtrack, downtrack.place.as_ref()?)));
        placed.find(|(_, place)| place.mid == mid)
    }

    /// Section by section what is carried, complete.
    pub(crate) fn mid_to_track(&self) -> Vec<MidTrack> {
        let entry = |downtrack: &Downtrack| {
            Some(MidTrack { mid: downtrack.place.as_ref()?.mid.clone(), track: downtrack.subscription.track.clone() })
        };
        self.downtracks.iter().filter_map(entry).collect()
    }

    /// What the shard is to send in the sections negotiated.
    pub(crate) fn senders(&self, negotiated: &[&MediaSection], delay: Option<PlayoutDelay>) -> Vec<Sender> {
        let sender = |downtrack: &Downtrack| {
            let place = downtrack.place.as_ref()?;
            let section = negotiated.iter().find(|section| place.is_in(section))?;
            let payload_types: Vec<_> =
                section.codecs.iter().map(super::description::SectionCodec::payload_type).collect();
            let has_rtx = payload_types.iter().any(|payload_type| payload_type.rtx_pt.is_some());
            Some(Sender {
                source: downtrack.source_in(section),
                kind: downtrack.subscription.kind,
                mid: place.mid.clone(),
                ssrc: place.ssrc,
                rtx_ssrc: place.rtx_ssrc.filter(|_| has_rtx),
                described: place.described,
                payload_types,
                extensions: section.extensions.ids(),
                playout_delay: delay.map_or([0; 3], PlayoutDelay::to_bytes),
                cname: downtrack.subscription.publisher.as_str().to_owned(),
                delivery: downtrack.subscription.delivery,
                only: None,
            })
        };
        self.downtracks.iter().filter_map(sender).collect()
    }

    /// Tracks of several codecs of which another one is taken than the room knows; `None`: none of them.
    pub(crate) fn take_codecs(&mut self, negotiated: &[&MediaSection]) -> Vec<(TrackSid, Option<u8>)> {
        let mut news = Vec::new();
        for downtrack in &mut self.downtracks {
            let place = downtrack.place.as_ref();
            let section = negotiated.iter().find(|section| place.is_some_and(|place| place.is_in(section)));
            let Some(codec) = section.map(|section| downtrack.codec_in(section)) else { continue };
            if downtrack.told.replace(codec) != Some(codec) {
                news.push((downtrack.subscription.track.clone(), codec));
            }
        }
        news
    }

    /// The room may not know which tracks flow, and in which codec those do that have several.
    pub(crate) fn doubt(&mut self) {
        for downtrack in &mut self.downtracks {
            if downtrack.subscription.codecs.len() > 1 {
                downtrack.told = None;
            }
            if let Some(place) = &mut downtrack.place {
                place.bound = false;
            }
        }
    }

    /// Tracks whose packets flow now in `negotiated`, each once for each section it gets.
    pub(crate) fn take_bound(&mut self, negotiated: &[&MediaSection]) -> Vec<TrackSid> {
        let mut bound = Vec::new();
        for downtrack in &mut self.downtracks {
            let Some(place) = downtrack.place.as_mut().filter(|place| !place.bound) else { continue };
            if negotiated.iter().any(|section| place.is_in(section)) {
                place.bound = true;
                bound.push(downtrack.subscription.track.clone());
            }
        }
        bound
    }
}

impl Placement {
    fn new(mid: &str, kind: TrackKind, allocator: &mut Allocator) -> Self {
        Self {
            mid: mid.to_owned(),
            ssrc: allocator.ssrc(),
            rtx_ssrc: (kind == TrackKind::Video).then(|| allocator.ssrc()),
            described: false,
            bound: false,
        }
    }

    /// The section was described with this very stream in it, not with one it carried before.
    fn is_in(&self, section: &MediaSection) -> bool {
        section.mid == self.mid && section.source.as_ref().is_some_and(|source| source.ssrc == self.ssrc)
    }

    fn release(self, allocator: &mut Allocator) {
        allocator.release_ssrc(self.ssrc);
        if let Some(rtx) = self.rtx_ssrc {
            allocator.release_ssrc(rtx);
        }
    }
}

impl Downtrack {
    /// The first of its codecs that the section takes. A track of one codec is sent as it is, or not at all.
    fn codec_in(&self, section: &MediaSection) -> Option<u8> {
        let takes =
            |wanted: &String| section.codecs.iter().any(|codec| mime(codec.format.codec).eq_ignore_ascii_case(wanted));
        let codecs = &self.subscription.codecs;
        if codecs.len() < 2 {
            Some(PRIMARY)
        } else {
            codecs.iter().position(takes).and_then(|place| u8::try_from(place).ok())
        }
    }

    fn source_in(&self, section: &MediaSection) -> TrackKey {
        match self.codec_in(section) {
            Some(PRIMARY) | None => self.source,
            Some(_) => self.source.backup(),
        }
    }

    /// The stream it comes in (`a=msid`, RFC 8830): clients know by it whose it is, and that a reused section is another
    /// track.
    pub(crate) fn stream(&self) -> String {
        let Subscription { publisher, track, stream, .. } = &self.subscription;
        format!("{publisher}|{}", stream.as_deref().unwrap_or(track.as_str()))
    }

    /// How a description names it.
    pub(crate) fn source(&self, place: &Placement, has_rtx: bool) -> Source {
        Source {
            stream: self.stream(),
            track: self.subscription.track.to_string(),
            cname: self.subscription.publisher.to_string(),
            ssrc: place.ssrc,
            rtx_ssrc: place.rtx_ssrc.filter(|_| has_rtx),
        }
    }
}
