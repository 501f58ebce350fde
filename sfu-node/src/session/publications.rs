//! What a participant publishes: announced tracks, the sections they arrive in, and what is known of their layers.

use std::collections::VecDeque;

use arrayvec::ArrayVec;
use shared::control::{AnnouncedTrack, LayerMedia, PublishedTrack, TrackMedia};
use shared::ids::TrackSid;

use super::codec::mime;
use super::description::{RemoteDescription, RemoteSection, SectionKind};
use super::writer::MediaSection;
use crate::media::api::{Codec, MAX_LAYERS, Receiver, SsrcPair, TrackKey};

/// Most tracks a session announces at a time.
const MAX_PUBLICATIONS: usize = 64;
/// Rid ladders clients use, lowest layer first; native SDKs list the highest first in the description.
const LADDERS: [[&str; MAX_LAYERS]; 2] = [["q", "h", "f"], ["2", "1", "0"]];

/// A track its participant has announced.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) announced: AnnouncedTrack,
    pub(crate) key: TrackKey,
    pub(crate) muted: bool,
    /// Where it arrives.
    arrival: Option<Arrival>,
    /// Where its second codec arrives, under [`TrackKey::backup`].
    backup: Option<Arrival>,
}

#[derive(Debug)]
struct Arrival {
    mid: String,
    sdp_cid: String,
    /// Lowest first, complete; SSRC 0 until seen.
    layers: Vec<LayerMedia>,
    /// Streams of simulcast layers that another node has seen, 0 for others: a client names each only until it is
    /// received (RFC 8843 section 15.2, RFC 8852). Empty once they change.
    streams: ArrayVec<SsrcPair, MAX_LAYERS>,
    codec: Option<Codec>,
    /// Known to the room as it is now.
    reported: bool,
}

/// All of a session's.
#[derive(Debug, Default)]
pub(crate) struct Publications {
    tracks: Vec<Publication>,
    /// Sections whose publication the room ended; not to be matched again while they send the same track.
    retracted: Vec<(String, Option<String>)>,
    ended: Vec<TrackSid>,
    /// Those that ended last, the newest last: the room may not have heard of it.
    past: VecDeque<TrackSid>,
    /// Where tracks arrived on another node: goes for the first offer.
    known: Vec<PublishedTrack>,
}

impl Publications {
    /// Adds a track, or replaces what was announced of it. False: too many.
    pub(crate) fn announce(&mut self, announced: AnnouncedTrack, key: TrackKey) -> bool {
        if let Some(known) = self.tracks.iter_mut().find(|track| track.announced.sid == announced.sid) {
            known.announced = announced;
            return true;
        }
        if self.tracks.len() >= MAX_PUBLICATIONS {
            return false;
        }
        self.tracks.push(Publication { announced, key, muted: false, arrival: None, backup: None });
        true
    }

    /// The client sends these tracks in these sections already.
    pub(crate) fn expect(&mut self, known: Vec<PublishedTrack>) {
        self.known = known;
    }

    /// The room ended a publication.
    pub(crate) fn retract(&mut self, sid: &TrackSid, remote: Option<&RemoteDescription>) -> bool {
        let Some(index) = self.tracks.iter().position(|track| track.announced.sid == *sid) else { return false };
        if let Some(arrival) = self.tracks.remove(index).arrival {
            let section = remote.and_then(|remote| remote.sections.iter().find(|section| section.mid == arrival.mid));
            self.retracted.push((arrival.mid, section.and_then(|section| section.msid_track.clone())));
        }
        true
    }

    /// Marks a track muted or not; its key, if it arrives already.
    pub(crate) fn mute(&mut self, sid: &TrackSid, muted: bool) -> Option<TrackKey> {
        let track = self.tracks.iter_mut().find(|track| track.announced.sid == *sid)?;
        track.muted = muted;
        track.arrival.is_some().then_some(track.key)
    }

    /// The track that arrives in a section.
    pub(crate) fn in_section(&self, mid: &str) -> Option<&Publication> {
        self.tracks.iter().find(|track| track.arrivals().any(|(_, arrival)| arrival.mid == mid))
    }

    /// After an offer: ends what is no longer sent, then matches sections and tracks.
    pub(crate) fn follow_offer(&mut self, remote: &RemoteDescription) {
        let sending = |mid: &str| remote.sections.iter().find(|section| section.mid == mid && is_sending(section));
        self.retracted.retain(|(mid, track)| sending(mid).is_some_and(|section| section.msid_track == *track));
        for track in &mut self.tracks {
            track.backup.take_if(|backup| sending(&backup.mid).is_none());
        }
        let mut index = 0;
        while let Some(track) = self.tracks.get(index) {
            let gone = track.arrival.as_ref().is_some_and(|arrival| {
                sending(&arrival.mid).is_none_or(|section| {
                    self.is_taken_over(track, &arrival.sdp_cid, section) || was_guessed(track, arrival, remote)
                })
            });
            if !gone {
                index += 1;
            } else if remote.sections.iter().any(|section| is_sending(section) && names(section, track)) {
                // It had a section that another track was in, whose announcement was lost.
                if let Some(track) = self.tracks.get_mut(index) {
                    track.arrival = None;
                }
                index += 1;
            } else {
                self.ended.push(self.tracks.remove(index).announced.sid);
            }
        }
        self.match_by_section(remote);
        self.match_by_cid(remote);
        self.match_by_kind(remote);
    }

    /// Binds sections to the tracks that another node had them in: what a section calls its track may have changed since
    /// it was announced.
    fn match_by_section(&mut self, remote: &RemoteDescription) {
        let known = std::mem::take(&mut self.known);
        for section in self.unmatched(remote) {
            let Some(known) = known.iter().find(|known| known.mid == section.mid) else { continue };
            let pending =
                self.tracks.iter_mut().find(|track| track.arrival.is_none() && track.announced.sid == known.track);
            if let Some(track) = pending {
                track.arrival = Some(Arrival::known(section, &known.layers));
            }
        }
    }

    /// Binds sections to the tracks announced for them by name.
    pub(crate) fn match_by_cid(&mut self, remote: &RemoteDescription) {
        for section in self.unmatched(remote) {
            let Some(cid) = &section.msid_track else { continue };
            let announced = self.tracks.iter_mut().find(|track| track.arrival.is_none() && has_cid(track, cid));
            if let Some(track) = announced {
                track.arrival = Some(Arrival::new(section));
                continue;
            }
            let other = |track: &&mut Publication| track.arrival.as_ref().is_some_and(|known| known.sdp_cid != *cid);
            let second =
                self.tracks.iter_mut().filter(|track| track.backup.is_none() && has_cid(track, cid)).find(other);
            if let Some(track) = second {
                track.backup = Some(Arrival::new(section));
            }
        }
    }

    /// Some platforms rename a track when its transceiver is made: what is left goes by kind, in order.
    ///
    /// Only with a fresh offer, whose tracks were all announced before it; a track announced later has its own section.
    fn match_by_kind(&mut self, remote: &RemoteDescription) {
        for section in self.unmatched(remote) {
            // A second codec of a track that arrives already (LiveKit's backup codec).
            if section.msid_track.as_deref().is_some_and(|cid| self.tracks.iter().any(|track| has_cid(track, cid))) {
                continue;
            }
            let pending = self
                .tracks
                .iter_mut()
                .find(|track| track.arrival.is_none() && SectionKind::Media(track.announced.kind) == section.kind);
            if let Some(track) = pending {
                track.arrival = Some(Arrival::new(section));
            }
        }
    }

    fn unmatched<'a>(&self, remote: &'a RemoteDescription) -> Vec<&'a RemoteSection> {
        let free = |section: &&RemoteSection| {
            is_sending(section)
                && self.in_section(&section.mid).is_none()
                && !self.retracted.iter().any(|(mid, _)| *mid == section.mid)
        };
        remote.sections.iter().filter(free).collect()
    }

    /// The section now names another announced track than the one bound to it.
    fn is_taken_over(&self, bound: &Publication, sdp_cid: &str, section: &RemoteSection) -> bool {
        let Some(cid) = section.msid_track.as_deref().filter(|cid| *cid != sdp_cid) else { return false };
        let others = self.tracks.iter().filter(|track| track.announced.sid != bound.announced.sid);
        others.filter(|track| track.arrival.is_none()).any(|track| has_cid(track, cid))
    }

    /// A track's key.
    pub(crate) fn key_of(&self, track: &TrackSid) -> Option<TrackKey> {
        self.tracks.iter().find(|known| known.announced.sid == *track).map(|known| known.key)
    }

    /// Tracks that ended since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<TrackSid> {
        let ended = std::mem::take(&mut self.ended);
        self.past.extend(ended.iter().cloned());
        let excess = self.past.len().saturating_sub(MAX_PUBLICATIONS);
        self.past.drain(..excess);
        ended
    }

    /// Tracks that ended lately. Ids are not used again.
    pub(crate) fn past(&self) -> impl Iterator<Item = &TrackSid> {
        self.past.iter()
    }

    /// The room may not know of any track.
    pub(crate) fn doubt(&mut self) {
        let arrivals = self.tracks.iter_mut().flat_map(|track| [&mut track.arrival, &mut track.backup]).flatten();
        arrivals.for_each(|arrival| arrival.reported = false);
    }

    /// What the shard is to receive, from the sections as answered.
    pub(crate) fn receivers(&self, remote: &RemoteDescription, local: &[&MediaSection]) -> Vec<Receiver> {
        let receiver = |track: &Publication, key: TrackKey, arrival: &Arrival| {
            let offered = remote.sections.iter().find(|section| section.mid == arrival.mid)?;
            let answered = local.iter().find(|section| section.mid == arrival.mid)?;
            let rids = ladder(offered);
            Some(Receiver {
                track: key,
                kind: track.announced.kind,
                mid: arrival.mid.clone(),
                payload_types: answered.codecs.iter().map(super::description::SectionCodec::payload_type).collect(),
                extensions: answered.extensions.ids(),
                ssrcs: if rids.is_empty() { offered.ssrcs.clone() } else { arrival.streams.clone() },
                rids: rids.into_iter().map(str::to_owned).take(MAX_LAYERS).collect(),
                muted: track.muted,
            })
        };
        let all =
            self.tracks.iter().flat_map(|track| track.arrivals().map(move |(key, arrival)| (track, key, arrival)));
        all.filter_map(|(track, key, arrival)| receiver(track, key, arrival)).collect()
    }

    /// Media was seen. True when that is news for the room.
    pub(crate) fn layer_seen(&mut self, key: TrackKey, layer: u8, codec: Codec, ssrc: u32, repair_ssrc: u32) -> bool {
        let Some(track) = self.tracks.iter_mut().find(|track| track.key == key.primary()) else { return false };
        let arrival = if key == track.key { track.arrival.as_mut() } else { track.backup.as_mut() };
        let Some(arrival) = arrival else { return false };
        let Some(known) = arrival.layers.iter_mut().find(|known| known.spatial_layer == layer) else { return false };
        let news = known.ssrc != ssrc || (repair_ssrc != 0 && known.repair_ssrc != repair_ssrc);
        if known.ssrc != ssrc {
            arrival.streams.clear();
        }
        known.ssrc = ssrc;
        if repair_ssrc != 0 {
            known.repair_ssrc = repair_ssrc;
        }
        arrival.codec = Some(codec);
        arrival.reported &= !news;
        news
    }

    /// Tracks of which the room does not know all yet, with what is known.
    pub(crate) fn take_news(&mut self, local: &[&MediaSection]) -> Vec<(TrackSid, TrackMedia)> {
        let mut news = Vec::new();
        let arrivals = self.tracks.iter_mut().flat_map(|track| {
            let sid = &track.announced.sid;
            [&mut track.arrival, &mut track.backup].into_iter().flatten().map(move |arrival| (sid, arrival))
        });
        for (sid, arrival) in arrivals.filter(|(_, arrival)| !arrival.reported) {
            let Some(answered) = local.iter().find(|section| section.mid == arrival.mid) else { continue };
            if arrival.layers.iter().all(|layer| layer.ssrc == 0) {
                continue;
            }
            let negotiated = answered.codecs.first().map(|codec| codec.format.codec);
            // Redundancy comes and goes packet by packet; what was agreed on says what the track is.
            let codec = arrival.codec.filter(|codec| !matches!(codec, Codec::Opus | Codec::Red)).or(negotiated);
            let Some(codec) = codec else { continue };
            arrival.reported = true;
            let media = TrackMedia {
                mid: arrival.mid.clone(),
                mime: mime(codec).to_owned(),
                sdp_cid: arrival.sdp_cid.clone(),
                layers: arrival.layers.clone(),
            };
            news.push((sid.clone(), media));
        }
        news
    }
}

impl Publication {
    fn arrivals(&self) -> impl Iterator<Item = (TrackKey, &Arrival)> {
        let backup = self.backup.as_ref().map(|backup| (self.key.backup(), backup));
        self.arrival.as_ref().map(|arrival| (self.key, arrival)).into_iter().chain(backup)
    }
}

impl Arrival {
    fn new(section: &RemoteSection) -> Self {
        let layer = |rid: &str, spatial_layer, ssrc, repair_ssrc| LayerMedia {
            rid: rid.to_owned(),
            spatial_layer,
            ssrc,
            repair_ssrc,
        };
        let rids = ladder(section);
        let layers = if rids.is_empty() {
            let pair = section.ssrcs.first();
            vec![layer("", 0, pair.map_or(0, |pair| pair.ssrc), pair.and_then(|pair| pair.rtx).unwrap_or(0))]
        } else {
            rids.iter().zip(0..).map(|(rid, place)| layer(rid, place, 0, 0)).collect()
        };
        Self {
            mid: section.mid.clone(),
            sdp_cid: section.msid_track.clone().unwrap_or_default(),
            layers,
            streams: ArrayVec::new(),
            codec: None,
            reported: false,
        }
    }

    /// Of a section whose streams another node has seen.
    fn known(section: &RemoteSection, seen: &[LayerMedia]) -> Self {
        let mut arrival = Self::new(section);
        let simulcast = arrival.layers.iter_mut().filter(|layer| !layer.rid.is_empty());
        for layer in simulcast.take(MAX_LAYERS) {
            if let Some(seen) = seen.iter().find(|seen| seen.rid == layer.rid) {
                (layer.ssrc, layer.repair_ssrc) = (seen.ssrc, seen.repair_ssrc);
            }
            let rtx = Some(layer.repair_ssrc).filter(|ssrc| *ssrc != 0);
            arrival.streams.push(SsrcPair { ssrc: layer.ssrc, rtx });
        }
        arrival
    }
}

fn is_sending(section: &RemoteSection) -> bool {
    matches!(section.kind, SectionKind::Media(_)) && !section.unusable && section.direction.sends()
}

/// The section calls what it sends as the track was announced.
fn names(section: &RemoteSection, track: &Publication) -> bool {
    section.msid_track.as_deref().is_some_and(|cid| has_cid(track, cid))
}

/// It was bound by its kind alone, and now another section has its name.
fn was_guessed(track: &Publication, arrival: &Arrival, remote: &RemoteDescription) -> bool {
    let primary = track.announced.codecs.first().map(|codec| codec.cid.as_str());
    let is_own = |section: &RemoteSection| is_sending(section) && section.msid_track.as_deref() == primary;
    primary.is_some() && !has_cid(track, &arrival.sdp_cid) && remote.sections.iter().any(is_own)
}

fn has_cid(track: &Publication, cid: &str) -> bool {
    track.announced.codecs.iter().any(|codec| codec.cid == cid)
}

/// A section's rids, lowest layer first.
fn ladder(section: &RemoteSection) -> Vec<&str> {
    let mut rids: Vec<&str> = section.rids.iter().map(|rid| rid.trim_start_matches('~')).collect();
    let place = |ladder: &[&str; MAX_LAYERS], rid: &str| ladder.iter().position(|known| *known == rid);
    if let Some(known) = LADDERS.iter().find(|ladder| rids.iter().all(|rid| place(ladder, rid).is_some())) {
        rids.sort_by_key(|rid| place(known, rid));
    }
    rids
}
