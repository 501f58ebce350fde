//! Offers of the publisher (or only) connection, with the shape libwebrtc's have: recvonly placeholders, one offer at a
//! time, what comes up meanwhile goes into the next one.

use livekit_protocol::SessionDescription;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::media::{Direction, MediaKind, Mid, Simulcast, SimulcastLayer};

use super::peer::Peer;

/// Placeholders of each kind in the first offer: livekit-client's.
const PLACEHOLDERS: usize = 3;
/// LiveKit's data channels and whether they are reliable.
const CHANNELS: [(&str, bool); 3] = [("_reliable", true), ("_lossy", false), ("_data_track", false)];
/// Names of simulcast layers, lowest first.
pub(crate) const RIDS: [&str; 3] = ["q", "h", "f"];

/// A section to be added.
pub(crate) struct NewSection {
    /// The client's id of the track: second token of `a=msid`.
    pub(crate) cid: String,
    /// Audio or video.
    pub(crate) kind: MediaKind,
    /// Simulcast layers; 1: no simulcast.
    pub(crate) layers: usize,
}

/// An offer to be sent.
pub(crate) struct Offer {
    /// What goes to the server.
    pub(crate) description: SessionDescription,
    /// Sections added for tracks.
    pub(crate) sections: Vec<(String, Mid)>,
}

/// Negotiation of one connection on which this client offers.
#[derive(Default)]
pub(crate) struct Negotiation {
    last_id: u32,
    pending: Option<(u32, SdpPendingOffer)>,
    due: bool,
    receiving: Vec<Mid>,
    missing: (usize, usize),
    publish: Vec<NewSection>,
    unpublish: Vec<Mid>,
    channels: Vec<(ChannelId, &'static str)>,
    /// Begins the DTLS handshake whatever the server would rather.
    pub(crate) active: bool,
}

impl Negotiation {
    /// A connection that has offered nothing yet; with `receives`, it begins with placeholders.
    pub(crate) fn new(receives: bool) -> Self {
        let missing = if receives { (PLACEHOLDERS, PLACEHOLDERS) } else { (0, 0) };
        Self { missing, due: true, ..Self::default() }
    }

    /// Adds a section that sends.
    pub(crate) fn add(&mut self, section: NewSection) {
        self.publish.push(section);
        self.due = true;
    }

    /// Stops a section.
    pub(crate) fn stop(&mut self, mid: Mid) {
        self.unpublish.push(mid);
        self.due = true;
    }

    /// The server wants an offer with this many more recvonly sections.
    pub(crate) fn require(&mut self, audios: usize, videos: usize) {
        self.missing = (self.missing.0 + audios, self.missing.1 + videos);
        self.due = true;
    }

    /// The channel of this label.
    pub(crate) fn channel(&self, label: &str) -> Option<ChannelId> {
        self.channels.iter().find(|(_, l)| *l == label).map(|(id, _)| *id)
    }

    /// The next offer, when one is due and none is on its way.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn offer(&mut self, peer: &mut Peer) -> anyhow::Result<Option<Offer>> {
        if !self.due || self.pending.is_some() {
            return Ok(None);
        }
        self.due = false;
        let mut changes = peer.rtc.sdp_api();
        // str0m takes over the direction of an answer (`inactive` for an unused placeholder); libwebrtc offers it again.
        for mid in &self.receiving {
            changes.set_direction(*mid, Direction::RecvOnly);
        }
        let (audios, videos) = std::mem::take(&mut self.missing);
        for kind in [(MediaKind::Audio, audios), (MediaKind::Video, videos)] {
            let added = (0..kind.1).map(|_| changes.add_media(kind.0, Direction::RecvOnly, None, None, None));
            self.receiving.extend(added);
        }
        if self.channels.is_empty() {
            for (label, reliable) in CHANNELS {
                let reliability =
                    if reliable { Reliability::Reliable } else { Reliability::MaxRetransmits { retransmits: 0 } };
                let config = ChannelConfig {
                    label: label.to_owned(),
                    ordered: reliable,
                    reliability,
                    ..ChannelConfig::default()
                };
                self.channels.push((changes.add_channel_with_config(config), label));
            }
        }
        let mut sections = Vec::new();
        for NewSection { cid, kind, layers } in self.publish.drain(..) {
            let simulcast = (layers > 1).then(|| Simulcast {
                send: RIDS.iter().take(layers).map(|rid| SimulcastLayer::new(rid)).collect(),
                recv: Vec::new(),
            });
            let mid = changes.add_media(kind, Direction::SendOnly, None, Some(cid.clone()), simulcast);
            sections.push((cid, mid));
        }
        for mid in self.unpublish.drain(..) {
            changes.set_direction(mid, Direction::Inactive);
        }
        if !changes.has_changes() {
            // str0m makes an offer only of a change; there and back is one.
            if let Some(mid) = self.receiving.first() {
                changes.set_direction(*mid, Direction::Inactive);
                changes.set_direction(*mid, Direction::RecvOnly);
            }
        }
        let Some((offer, pending)) = changes.apply() else { return Ok(None) };
        peer.drain(None)?;
        self.last_id += 1;
        self.pending = Some((self.last_id, pending));
        let mut sdp = as_libwebrtc(&offer.to_sdp_string());
        if self.active {
            sdp = sdp.replace("a=setup:actpass", "a=setup:active");
        }
        let description =
            SessionDescription { r#type: "offer".to_owned(), sdp, id: self.last_id, ..SessionDescription::default() };
        Ok(Some(Offer { description, sections }))
    }

    /// Applies an answer; one that answers no offer on its way is ignored, as clients do.
    ///
    /// # Errors
    /// The answer does not parse or does not fit.
    pub(crate) fn answered(&mut self, peer: &mut Peer, answer: &SessionDescription) -> anyhow::Result<bool> {
        let Some((_, pending)) = self.pending.take_if(|(id, _)| *id == answer.id) else { return Ok(false) };
        peer.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer.sdp)?)?;
        peer.drain(None)?;
        Ok(true)
    }
}

/// str0m names SSRCs in every section; libwebrtc only in those that send, and not with rids.
fn as_libwebrtc(sdp: &str) -> String {
    let mut out = String::with_capacity(sdp.len());
    let mut rest = sdp;
    while !rest.is_empty() {
        let end = rest.get(1..).and_then(|r| r.find("\r\nm=")).map_or(rest.len(), |at| at + 3);
        let (section, tail) = rest.split_at(end);
        let silent = section.starts_with("m=")
            && !section.starts_with("m=application")
            && (section.contains("\r\na=recvonly") || section.contains("\r\na=simulcast:"));
        let sends = section.contains("\r\na=sendonly");
        for line in section.split_inclusive("\r\n") {
            let named = line.starts_with("a=ssrc") || (line.starts_with("a=msid:") && !sends);
            if !(silent && named) {
                out.push_str(line);
            }
        }
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::MediaOptions;
    use super::*;

    #[tokio::test]
    async fn the_first_offer_has_livekits_shape() {
        let bind = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let mut peer = Peer::new(bind, &MediaOptions::default(), false).await.unwrap();
        let mut negotiation = Negotiation::new(true);
        negotiation.add(NewSection { cid: "cam".to_owned(), kind: MediaKind::Video, layers: 3 });
        negotiation.add(NewSection { cid: "mic".to_owned(), kind: MediaKind::Audio, layers: 1 });
        let offer = negotiation.offer(&mut peer).unwrap().unwrap();
        let sections: Vec<&str> = offer.description.sdp.split("\r\nm=").skip(1).collect();
        let receiving = sections.iter().filter(|s| s.contains("a=recvonly")).collect::<Vec<_>>();
        assert_eq!(receiving.len(), 6);
        assert!(receiving.iter().all(|s| !s.contains("a=ssrc") && !s.contains("a=msid")), "{}", offer.description.sdp);
        let camera = sections.iter().find(|s| s.contains(" cam\r\n")).unwrap();
        assert!(camera.contains("a=simulcast:send q;h;f") && !camera.contains("a=ssrc"), "{camera}");
        let microphone = sections.iter().find(|s| s.contains(" mic\r\n")).unwrap();
        assert!(microphone.contains("a=ssrc") && microphone.contains("a=sendonly"), "{microphone}");
        assert_eq!(sections.iter().filter(|s| s.starts_with("application")).count(), 1);
        assert!(negotiation.offer(&mut peer).unwrap().is_none(), "one offer at a time");
    }
}
