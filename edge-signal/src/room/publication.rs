//! Publications: announce, become visible with the first media, mute, end.

use livekit_protocol as proto;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use shared::control::{RoomToNode, TrackMedia};
use shared::ids::{ParticipantSid, TrackSid};

use super::Room;
use super::dynacast::{Dynacast, is_video};
use super::record::signed;
use super::track_info;
use super::turn::Turn;

/// Most tracks a participant may have announced without their media (LiveKit's).
pub const MAX_PENDING_TRACKS: usize = 20;
/// Most tracks a participant may have in all.
pub const MAX_TRACKS: usize = 100;
/// Most announcements that may wait for a track of their cid to end (LiveKit's).
const MAX_QUEUED_PER_CID: usize = 3;
/// Longest announcement of a track, bytes as protobuf.
const MAX_REQUEST_LEN: usize = 16 * 1024;

/// Row `publication`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Publication {
    pub(super) publisher: ParticipantSid,
    pub(super) info: proto::TrackInfo,
    /// Its media arrives: others know of it.
    pub(super) visible: bool,
    /// App servers know of it. It may be out of sight since, until its media comes again.
    #[serde(default)]
    pub(super) hooked: bool,
    /// The publisher was told that someone is subscribed.
    pub(super) told_subscribed: bool,
    /// Video: what the publisher knows of the qualities that are wanted.
    #[serde(default)]
    pub(super) dynacast: Dynacast,
    /// The server muted it, and its publisher has not said yet that it knows.
    #[serde(default)]
    pub(super) mute_untold: bool,
}

impl Room {
    /// `add_track`, from the join request or as a message.
    pub(super) fn add_track(&mut self, turn: &mut Turn, sid: &ParticipantSid, request: proto::AddTrackRequest) {
        let Some(participant) = self.participants.get(sid) else { return };
        if !participant.may_publish(request.source()) {
            return self.refuse_track(turn, sid, request, Reason::NotAllowed, String::new());
        }
        if request.encoded_len() > MAX_REQUEST_LEN {
            let message = format!("an announcement must not exceed {MAX_REQUEST_LEN} bytes");
            return self.refuse_track(turn, sid, request, Reason::InvalidRequest, message);
        }
        if !request.sid.is_empty() {
            return self.add_backup_codec(turn, sid, request);
        }
        if self.has_track_of_cid(participant.tracks.iter(), &request.cid) {
            return self.queue_track(turn, sid, request);
        }
        let pending =
            participant.tracks.iter().filter(|t| self.publications.get(t).is_some_and(|p| !p.visible)).count();
        if pending >= MAX_PENDING_TRACKS || participant.tracks.len() >= MAX_TRACKS {
            let message = format!("too many pending tracks, rejecting new track, numPendingTracks: {pending}");
            return self.refuse_track(turn, sid, request, Reason::LimitExceeded, message);
        }
        self.announce_track(turn, sid, request);
    }

    fn announce_track(&mut self, turn: &mut Turn, sid: &ParticipantSid, request: proto::AddTrackRequest) {
        let track = TrackSid::from_random(track_info::sid_letters(&request), turn.random());
        let info = track_info::announced(&track, &request);
        let publication = Publication {
            publisher: sid.clone(),
            info: info.clone(),
            visible: false,
            told_subscribed: false,
            hooked: false,
            dynacast: Dynacast::default(),
            mute_untold: false,
        };
        if let Some(participant) = self.participant_mut(sid) {
            participant.tracks.push(track.clone());
        }
        self.put_publication(&track, publication);
        let published = proto::TrackPublishedResponse { cid: request.cid, track: Some(info) };
        self.send(turn, sid, Message::TrackPublished(published));
        self.tell_node_of_track(turn, sid, &track);
    }

    fn add_backup_codec(&mut self, turn: &mut Turn, sid: &ParticipantSid, request: proto::AddTrackRequest) {
        let Some(track) = self.own_track(sid, &request.sid) else {
            return self.refuse_track(turn, sid, request, Reason::NotFound, String::new());
        };
        let Some(publication) = self.publication_mut(&track) else { return };
        track_info::add_codecs(&mut publication.info, &request);
        let published = proto::TrackPublishedResponse { cid: request.cid, track: Some(publication.info.clone()) };
        self.send(turn, sid, Message::TrackPublished(published));
        self.tell_node_of_track(turn, sid, &track);
    }

    fn queue_track(&mut self, turn: &mut Turn, sid: &ParticipantSid, request: proto::AddTrackRequest) {
        let Some(participant) = self.participant_mut(sid) else { return };
        let queued = participant.queued.iter().filter(|waiting| waiting.cid == request.cid).count();
        if queued >= MAX_QUEUED_PER_CID || participant.queued.len() >= MAX_PENDING_TRACKS {
            return self.refuse_track(turn, sid, request, Reason::LimitExceeded, String::new());
        }
        participant.queued.push(request.clone());
        self.refuse_track(turn, sid, request, Reason::Queued, String::new());
    }

    fn refuse_track(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        request: proto::AddTrackRequest,
        reason: Reason,
        message: String,
    ) {
        self.respond(turn, sid, 0, reason, message, Some(Request::AddTrack(request)));
    }

    /// The node sees the track's media: publish it, or tell what more is known.
    pub(super) fn track_received(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        track: &TrackSid,
        media: &TrackMedia,
    ) {
        let now = turn.now;
        let Some(publication) = self.publication_mut(track).filter(|p| p.publisher == *sid) else {
            self.counters.unknown_track += 1;
            return;
        };
        let is_news = track_info::learn(&mut publication.info, media);
        let is_new = !publication.visible;
        if is_new {
            publication.visible = true;
            if is_video(publication) {
                publication.dynacast.begin(now);
            }
            let unix_micro = signed(now.0).saturating_mul(1000);
            publication.info.version = Some(proto::TimedVersion { unix_micro, ticks: 0 });
        }
        if is_new && let Some(participant) = self.participant_mut(sid) {
            participant.is_publisher = true;
        }
        if is_new {
            self.hook_published(turn, track);
            self.call_agents(turn);
        }
        if is_new || is_news {
            self.publish_update(turn, sid);
        }
        if is_new {
            self.settle_everyone(turn, std::slice::from_ref(track));
        }
    }

    /// Ends publications: others see an update without them, then their subscriptions go.
    pub(super) fn end_tracks(&mut self, turn: &mut Turn, sid: &ParticipantSid, tracks: &[TrackSid]) {
        let mut was_visible = false;
        let mut cids = Vec::new();
        for track in tracks {
            if self.publications.get(track).is_none_or(|p| p.publisher != *sid) {
                self.counters.unknown_track += 1;
                continue;
            }
            if let Some(ended) = self.remove_publication(track) {
                if let Some(identity) = self.participants.get(sid).map(|publisher| publisher.identity.to_string()) {
                    self.hook_unpublished(turn, &ended, &identity);
                }
                was_visible |= ended.visible;
                cids.extend(ended.info.codecs.into_iter().map(|codec| codec.cid));
            }
            if let Some(participant) = self.participant_mut(sid) {
                participant.tracks.retain(|t| t != track);
            }
        }
        if was_visible {
            self.publish_update(turn, sid);
        }
        self.drop_subscriptions_to(turn, tracks);
        self.announce_queued(turn, sid, &cids);
    }

    fn announce_queued(&mut self, turn: &mut Turn, sid: &ParticipantSid, freed: &[String]) {
        for cid in freed {
            let Some(participant) = self.participants.get(sid) else { return };
            let Some(position) = participant.queued.iter().position(|waiting| waiting.cid == *cid) else { continue };
            if self.has_track_of_cid(participant.tracks.iter(), cid) {
                continue;
            }
            let Some(participant) = self.participant_mut(sid) else { return };
            let request = participant.queued.remove(position);
            self.add_track(turn, sid, request);
        }
    }

    pub(super) fn mute_track(&mut self, turn: &mut Turn, sid: &ParticipantSid, request: proto::MuteTrackRequest) {
        let Some(track) = self.own_track(sid, &request.sid) else {
            return self.respond(turn, sid, 0, Reason::NotFound, String::new(), Some(Request::Mute(request)));
        };
        if self.publications.get(&track).is_some_and(|publication| publication.mute_untold)
            && let Some(publication) = self.publication_mut(&track)
        {
            publication.mute_untold = false;
        }
        self.set_muted(turn, sid, &track, request.muted);
    }

    /// Tells everyone and the node, if that is news.
    pub(super) fn set_muted(&mut self, turn: &mut Turn, sid: &ParticipantSid, track: &TrackSid, muted: bool) {
        let Some(publication) = self.publications.get(track).filter(|p| p.info.muted != muted) else { return };
        let visible = publication.visible;
        if let Some(publication) = self.publication_mut(track) {
            publication.info.muted = muted;
        }
        if visible {
            self.publish_update(turn, sid);
        }
        if let Some((node, session)) = self.open_session_of(sid) {
            turn.send_node(&node, RoomToNode::MuteTrack { session, track: track.clone(), muted });
        }
        if visible && !muted {
            self.repeat_quality(turn, track);
        }
    }

    pub(super) fn update_audio_track(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        request: proto::UpdateLocalAudioTrack,
    ) {
        let features = track_info::known_features(&request.features);
        let change = move |info: &mut proto::TrackInfo| info.audio_features = features;
        if !self.change_track(turn, sid, &request.track_sid, change) {
            self.respond(turn, sid, 0, Reason::NotFound, String::new(), Some(Request::UpdateAudioTrack(request)));
        }
    }

    pub(super) fn update_video_track(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        request: proto::UpdateLocalVideoTrack,
    ) {
        let (width, height) = (request.width, request.height);
        let change = move |info: &mut proto::TrackInfo| {
            info.width = width;
            info.height = height;
        };
        if !self.change_track(turn, sid, &request.track_sid, change) {
            self.respond(turn, sid, 0, Reason::NotFound, String::new(), Some(Request::UpdateVideoTrack(request)));
        }
    }

    /// False: not a track of this participant.
    fn change_track(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        track: &str,
        change: impl FnOnce(&mut proto::TrackInfo),
    ) -> bool {
        let Some(track) = self.own_track(sid, track) else { return false };
        let Some(publication) = self.publication_mut(&track) else { return false };
        let before = publication.info.clone();
        change(&mut publication.info);
        if publication.visible && publication.info != before {
            self.publish_update(turn, sid);
        }
        true
    }

    /// A track of this participant, pending or visible.
    fn own_track(&mut self, sid: &ParticipantSid, track: &str) -> Option<TrackSid> {
        let known = TrackSid::try_from(track).ok();
        let own = known.filter(|track| self.publications.get(track).is_some_and(|p| p.publisher == *sid));
        if own.is_none() {
            self.counters.unknown_track += 1;
        }
        own
    }

    fn has_track_of_cid<'a>(&self, mut tracks: impl Iterator<Item = &'a TrackSid>, cid: &str) -> bool {
        tracks.any(|track| self.publications.get(track).is_some_and(|p| track_info::has_cid(&p.info, cid)))
    }

    fn tell_node_of_track(&mut self, turn: &mut Turn, sid: &ParticipantSid, track: &TrackSid) {
        let Some((node, session)) = self.open_session_of(sid) else { return };
        let Some(publication) = self.publications.get(track) else { return };
        let track = track_info::announcement(track, &publication.info);
        turn.send_node(&node, RoomToNode::AnnounceTrack { session, track });
    }
}
