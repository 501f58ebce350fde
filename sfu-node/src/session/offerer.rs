//! The connection the node offers: the subscriber of `/rtc` (JSEP offerer, RFC 8829 section 5.2).
//! **At most one offer is outstanding**; what changes meanwhile goes into the next.

use shared::control::{ClientTraits, Description, DescriptionKind, MidTrack, TrackKind};

use super::allocator::Allocator;
use super::codec::{CodecFormat, Feedback, offered};
use super::description::{
    DescriptionError, Direction, MAX_SECTIONS, RemoteDescription, RemoteSection, SectionCodec, SectionKind,
};
use super::extension::Extensions;
use super::subscriptions::Subscriptions;
use super::writer::{self, Endpoint, Header, LocalSection, MediaSection};
use crate::media::api::{CertificateTurn, Codec, Fingerprint, HandshakeRole, IceCredentials, TransportKey};

/// The mid of the data section, the first.
const DATA_MID: &str = "0";

/// Negotiation state of the connection.
#[derive(Debug)]
pub(crate) struct Offerer {
    pub(crate) transport: TransportKey,
    certificate: CertificateTurn,
    /// Videos are to be shown with a delay.
    delays: bool,
    pub(crate) credentials: IceCredentials,
    session_id: u64,
    version: u64,
    next_id: u32,
    /// The offer the client has not answered yet.
    outstanding: Option<Description>,
    /// The first offer is due: it has the data section only.
    is_new: bool,
    /// An offer with new credentials is due.
    restarts: bool,
    /// The client has another address, and has not shown itself there: an ICE restart is due once nothing is outstanding.
    pub(crate) has_moved: bool,
    /// Kinds of the media sections offered so far; section `n` has mid `n + 1`.
    kinds: Vec<TrackKind>,
    /// What the last offer has in which section.
    shown: Vec<MidTrack>,
    /// Sections that the client's last answer took.
    answered: Vec<MediaSection>,
    fingerprint: Option<Fingerprint>,
    /// The client's.
    ice: Option<IceCredentials>,
}

/// What an answer says that none before did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnswerNews {
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) ice: Option<IceCredentials>,
}

impl Offerer {
    /// Before the first offer.
    pub(crate) fn new(
        transport: TransportKey,
        certificate: CertificateTurn,
        delays: bool,
        allocator: &mut Allocator,
    ) -> Self {
        Self {
            transport,
            certificate,
            delays,
            credentials: allocator.ice_credentials(),
            session_id: allocator.session_id(),
            version: 0,
            next_id: allocator.first_offer_id(),
            outstanding: None,
            is_new: true,
            restarts: false,
            has_moved: false,
            kinds: Vec::new(),
            shown: Vec::new(),
            answered: Vec::new(),
            fingerprint: None,
            ice: None,
        }
    }

    /// Goes on with the connection that another node offered like this: the next offer, due at once, has its sections.
    pub(crate) fn go_on(&mut self, offer: &Description, shown: Vec<MidTrack>) -> Result<(), DescriptionError> {
        let before = RemoteDescription::parse(&offer.sdp)?;
        let kind = |section: &RemoteSection| match section.kind {
            SectionKind::Media(kind) => Some(kind),
            SectionKind::Data | SectionKind::Other => None,
        };
        self.kinds = before.sections.iter().filter_map(kind).collect();
        self.next_id = offer.id.wrapping_add(1).max(1);
        self.shown = shown;
        self.is_new = false;
        self.restarts = true;
        Ok(())
    }

    /// Makes the next offer an ICE restart, due at once: the client may not have got the last one, nor its answer come.
    pub(crate) fn restart(&mut self, allocator: &mut Allocator) {
        self.credentials = allocator.ice_credentials();
        self.outstanding = None;
        self.restarts = true;
        self.has_moved = false;
    }

    /// Whether a client that has moved can be asked now where it is.
    pub(crate) fn should_restart(&self) -> bool {
        self.has_moved && self.outstanding.is_none()
    }

    /// The offer the client has not answered yet, and what it has in which section.
    pub(crate) fn outstanding(&self) -> Option<(&Description, &[MidTrack])> {
        self.outstanding.as_ref().map(|offer| (offer, self.shown.as_slice()))
    }

    /// Media sections both sides agreed on and that carry something.
    pub(crate) fn media_sections(&self) -> Vec<&MediaSection> {
        self.answered.iter().collect()
    }

    /// The next offer, if one is due and none outstanding.
    pub(crate) fn next_offer(
        &mut self,
        endpoint: &Endpoint,
        client: &ClientTraits,
        subscriptions: &mut Subscriptions,
        allocator: &mut Allocator,
    ) -> Option<Description> {
        if self.outstanding.is_some() || !(self.is_new || self.restarts || subscriptions.has_changed()) {
            return None;
        }
        if !self.is_new {
            self.place(client, subscriptions, allocator);
            subscriptions.mark_described();
            self.shown = subscriptions.mid_to_track();
        }
        self.is_new = false;
        self.restarts = false;
        let sections: Vec<LocalSection> = std::iter::once(LocalSection::Data { mid: DATA_MID.to_owned() })
            .chain(self.kinds.iter().zip(1_usize..).map(|(kind, mid)| self.section(*kind, mid, client, subscriptions)))
            .collect();
        self.version += 1;
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        let header = Header {
            endpoint,
            certificate: self.certificate,
            credentials: &self.credentials,
            session_id: self.session_id,
            version: self.version,
            setup: "actpass",
            extmap_allow_mixed: true,
        };
        let offer = Description { kind: DescriptionKind::Offer, id, sdp: writer::write(&header, &sections) };
        self.outstanding = Some(offer.clone());
        Some(offer)
    }

    /// Takes the client's answer; its fingerprint and credentials, where they are the first or others than before.
    ///
    /// Native clients answer with id 0.
    pub(crate) fn follow_answer(
        &mut self,
        id: u32,
        sdp: &str,
        client: &ClientTraits,
        subscriptions: &Subscriptions,
    ) -> Result<AnswerNews, DescriptionError> {
        if !self.outstanding.as_ref().is_some_and(|outstanding| id == 0 || id == outstanding.id) {
            return Err(DescriptionError::NoOffer);
        }
        let parsed = RemoteDescription::parse(sdp);
        if parsed.as_ref().is_ok_and(|remote| remote.sections.len() != self.kinds.len() + 1) {
            // Native clients do not say which offer they answer: it was the one before, and the other answer is to come.
            return Err(DescriptionError::SectionsChanged);
        }
        // Also when it cannot be used: the next change makes a new offer.
        self.outstanding = None;
        let remote = parsed?;
        remote.setup.allows(HandshakeRole::Server)?;
        let agreed = |(kind, mid): (&TrackKind, usize)| {
            let LocalSection::Media(mut section) = self.section(*kind, mid, client, subscriptions) else {
                return None;
            };
            let answer = remote.sections.iter().find(|answer| answer.mid == section.mid)?;
            if section.source.is_none() || answer.unusable || !answer.direction.receives() {
                return None;
            }
            let offered = std::mem::take(&mut section.codecs);
            let feedback_of = |taken: &SectionCodec| {
                let same = offered.iter().find(|codec| codec.format == taken.format);
                same.map(|codec| codec.feedback).unwrap_or_default()
            };
            // The client's payload types, with the feedback both sides named.
            section.codecs =
                answer.codecs.iter().filter(|c| offered.iter().any(|o| o.format == c.format)).cloned().collect();
            for codec in &mut section.codecs {
                codec.feedback = codec.feedback.and(feedback_of(codec));
            }
            section.extensions = Extensions::accept(*kind, self.delays, answer.extensions.iter().copied());
            (!section.codecs.is_empty()).then_some(section)
        };
        self.answered = self.kinds.iter().zip(1_usize..).filter_map(agreed).collect();
        let fingerprint = Some(remote.fingerprint).filter(|_| self.fingerprint != Some(remote.fingerprint));
        self.fingerprint = Some(remote.fingerprint);
        let ice = Some(&remote.ice).filter(|ice| self.ice.as_ref() != Some(ice)).cloned();
        self.ice = Some(remote.ice);
        Ok(AnswerNews { fingerprint, ice })
    }

    /// Gives every waiting subscription a section: a free one of its kind, or a new one.
    fn place(&mut self, client: &ClientTraits, subscriptions: &mut Subscriptions, allocator: &mut Allocator) {
        while let Some(waiting) = subscriptions.first_waiting() {
            let kind = waiting.kind;
            // Safari shows nothing in a section that changes its track. And clients take a track that its stream does not
            // name for the first one that was in its section.
            let reuses = client.browser != "safari" && waiting.stream.is_none();
            let occupied = subscriptions.occupied();
            // Nor does any browser in one whose track comes back before its end was described.
            let is_shown = |mid: &str| self.shown.iter().any(|shown| shown.mid == mid && shown.track == waiting.track);
            let is_free = |mid: &str| reuses && !occupied.contains(mid) && !is_shown(mid);
            let mut of_kind = self.kinds.iter().zip(1_usize..).filter(|(other, _)| **other == kind);
            let mid = match of_kind.find(|(_, mid)| is_free(&mid.to_string())) {
                Some((_, mid)) => mid,
                None if self.kinds.len() + 1 < MAX_SECTIONS => {
                    self.kinds.push(kind);
                    self.kinds.len()
                }
                None => return,
            };
            subscriptions.place(&mid.to_string(), kind, None, allocator);
        }
    }

    /// A section as it is offered.
    fn section(
        &self,
        kind: TrackKind,
        mid: usize,
        client: &ClientTraits,
        subscriptions: &Subscriptions,
    ) -> LocalSection {
        let mid = mid.to_string();
        let source = subscriptions.in_section(&mid).map(|(downtrack, place)| downtrack.source(place, true));
        LocalSection::Media(MediaSection {
            kind,
            direction: if source.is_some() { Direction::SendOnly } else { Direction::Inactive },
            codecs: offered_codecs(kind, client),
            extensions: Extensions::offered(kind, self.delays),
            source,
            rids: Vec::new(),
            mid,
        })
    }
}

fn offered_codecs(kind: TrackKind, client: &ClientTraits) -> Vec<SectionCodec> {
    let no_red = matches!(client.browser.as_str(), "firefox" | "safari");
    let described = |codec: &super::codec::OfferedCodec| {
        let format = CodecFormat::parse(codec.rtpmap, codec.fmtp)?;
        let feedback = match kind {
            TrackKind::Video => Feedback::ALL,
            // The node sends nothing again but on an RTX stream.
            TrackKind::Audio => Feedback::default(),
        };
        (!(no_red && format.codec == Codec::Red)).then(|| SectionCodec {
            pt: codec.pt,
            format,
            rtpmap: codec.rtpmap.to_owned(),
            fmtp: codec.fmtp.to_owned(),
            feedback,
            rtx: (kind == TrackKind::Video).then_some(codec.pt + 1),
        })
    };
    offered(kind).iter().filter_map(described).collect()
}
