//! Offers, answers and announcements of a client.

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;

use super::{Client, Kit};
use crate::net::Net;
use crate::sdp::{self, Kind, Remote, Section, Sent};

impl Client {
    pub(super) fn offer(&mut self) -> Option<proto::SessionDescription> {
        let publisher = self.publisher.as_mut()?;
        let sdp = publisher.offer();
        Some(proto::SessionDescription { r#type: "offer".into(), sdp, id: self.offer_id, ..Default::default() })
    }

    /// Offers, or will when the last offer is answered; `restarts`: at once in any case.
    pub(super) fn negotiate(&mut self, net: &mut Net, restarts: bool) {
        if !self.is_in() || (self.outstanding.is_some() && !restarts) {
            self.again = true;
            return;
        }
        self.again = false;
        self.offer_id += 1;
        self.outstanding = Some(net.now);
        if let Some(offer) = self.offer() {
            self.say(net, Asked::Offer(offer));
        }
    }

    pub(super) fn answer(&mut self, net: &mut Net, offer: &proto::SessionDescription) {
        let Some(subscriber) = &mut self.subscriber else { return };
        let restarts = Remote::read(&offer.sdp).ufrag;
        if subscriber.remote_ufrag().is_some_and(|before| before != restarts) {
            subscriber.restart(net);
        }
        subscriber.take_remote(net, &offer.sdp);
        let sections = Remote::read(&offer.sdp).sections;
        subscriber.sections = sections
            .iter()
            .map(|(kind, sent)| Section { kind: *kind, sends: None, receives: sent.is_some() })
            .collect();
        let sdp = sdp::write(&subscriber.own, "active", &subscriber.sections);
        let id = if self.kit == Kit::Native { 0 } else { offer.id };
        let answer = proto::SessionDescription { r#type: "answer".into(), sdp, id, ..Default::default() };
        self.say(net, Asked::Answer(answer));
    }

    /// Announces a track and sends it.
    pub(super) fn send_track(&mut self, net: &mut Net, cid: &str) {
        let Some(track) = self.tracks.iter_mut().find(|track| track.cid == cid) else { return };
        track.asked = net.now;
        let kind = track.kind;
        let ssrc = u32::try_from(net.pick(1, u64::from(u32::MAX))).unwrap();
        if let Some(publisher) = &mut self.publisher {
            publisher.add_track(kind, Sent { cid: cid.to_owned(), ssrc });
        }
        let (source, r#type) = match kind {
            Kind::Video => (proto::TrackSource::Camera, proto::TrackType::Video),
            Kind::Audio | Kind::Data => (proto::TrackSource::Microphone, proto::TrackType::Audio),
        };
        let request = proto::AddTrackRequest {
            cid: cid.to_owned(),
            source: source.into(),
            r#type: r#type.into(),
            ..Default::default()
        };
        if self.is_in() {
            self.say(net, Asked::AddTrack(request));
        } else {
            self.queued.push(Asked::AddTrack(request));
        }
    }
}
