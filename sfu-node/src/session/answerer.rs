//! The connection the client offers: the only one of `/rtc/v1`, the publisher of `/rtc` (JSEP answerer, RFC 8829 section 5.3).

use std::collections::HashSet;

use shared::control::{AnnouncedCodec, AnnouncedTrack, ClientTraits, TrackKind};

use super::allocator::Allocator;
use super::codec::{Feedback, mime, parameter};
use super::description::{
    DescriptionError, Direction, RemoteDescription, RemoteSection, SectionCodec, SectionKind, Setup,
};
use super::extension::Extensions;
use super::publications::Publications;
use super::subscriptions::Subscriptions;
use super::writer::{self, Endpoint, Header, LocalSection, MediaSection};
use crate::media::api::{CertificateTurn, Codec, Fingerprint, HandshakeRole, IceCredentials, TransportKey};

/// Opus bitrate asked of stereo publishers, bits per second (LiveKit's).
const STEREO_PARAMETERS: &str = "stereo=1;maxaveragebitrate=510000";

/// What an offer did to the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TransportChange {
    /// Nothing.
    None,
    /// The first offer: it is to be opened.
    Opened(Fingerprint),
    /// ICE restart.
    Restarted,
    /// The client shows another certificate.
    NewFingerprint(Fingerprint),
}

/// Negotiation state of the connection.
#[derive(Debug)]
pub(crate) struct Answerer {
    pub(crate) transport: TransportKey,
    certificate: CertificateTurn,
    /// Ours: it stays while the connection does.
    handshake: HandshakeRole,
    /// Videos are to be shown with a delay.
    delays: bool,
    pub(crate) credentials: IceCredentials,
    session_id: u64,
    version: u64,
    remote: Option<RemoteDescription>,
    local: Vec<LocalSection>,
    /// Sections that have carried a subscription: without one they are inactive, not merely unused.
    carried: HashSet<String>,
}

impl Answerer {
    /// Before the first offer.
    pub(crate) fn new(
        transport: TransportKey,
        certificate: CertificateTurn,
        handshake: HandshakeRole,
        delays: bool,
        allocator: &mut Allocator,
    ) -> Self {
        Self {
            transport,
            certificate,
            handshake,
            delays,
            credentials: allocator.ice_credentials(),
            session_id: allocator.session_id(),
            version: 0,
            remote: None,
            local: Vec::new(),
            carried: HashSet::new(),
        }
    }

    /// Sections that have carried subscriptions on another node.
    pub(crate) fn carried_before(&mut self, sections: Vec<String>) {
        self.carried.extend(sections);
    }

    /// The client's last offer.
    pub(crate) fn remote(&self) -> Option<&RemoteDescription> {
        self.remote.as_ref()
    }

    /// Audio and video sections as last answered.
    pub(crate) fn media_sections<'a>(&'a self) -> Vec<&'a MediaSection> {
        let media = |section: &'a LocalSection| match section {
            LocalSection::Media(media) => Some(media),
            LocalSection::Data { .. } | LocalSection::Rejected(_) => None,
        };
        self.local.iter().filter_map(media).collect()
    }

    /// Takes an offer; nothing changes when it is refused.
    pub(crate) fn follow_offer(
        &mut self,
        sdp: &str,
        publications: &mut Publications,
        allocator: &mut Allocator,
    ) -> Result<TransportChange, DescriptionError> {
        let remote = RemoteDescription::parse(sdp)?;
        let known = self.remote.as_ref().map_or(&[][..], |known| &known.sections[..]);
        let same = |(old, new): (&RemoteSection, &RemoteSection)| old.mid == new.mid || old.unusable;
        if remote.sections.len() < known.len() || !known.iter().zip(&remote.sections).all(same) {
            return Err(DescriptionError::SectionsChanged);
        }
        remote.setup.allows(self.handshake)?;
        let change = match &self.remote {
            None => TransportChange::Opened(remote.fingerprint),
            Some(known) if known.fingerprint != remote.fingerprint => {
                TransportChange::NewFingerprint(remote.fingerprint)
            }
            Some(known) if known.ice.ufrag != remote.ice.ufrag => {
                self.credentials = allocator.ice_credentials();
                TransportChange::Restarted
            }
            Some(_) => TransportChange::None,
        };
        publications.follow_offer(&remote);
        self.remote = Some(remote);
        Ok(change)
    }

    /// Puts waiting subscriptions into free sections (single connection).
    pub(crate) fn place(
        &mut self,
        client: &ClientTraits,
        subscriptions: &mut Subscriptions,
        allocator: &mut Allocator,
    ) {
        let Some(remote) = &self.remote else { return };
        let usable = |mid: &str, kind| {
            remote.sections.iter().any(|section| section.mid == mid && can_carry(section, kind, client))
        };
        subscriptions.displace(usable, allocator);
        for kind in [TrackKind::Audio, TrackKind::Video] {
            let mut free = free_sections(remote, kind, client, subscriptions);
            // A track that comes back then has one at once.
            free.sort_by_key(|mid| self.carried.contains(*mid));
            for section in free {
                if subscriptions.place(section, kind, shown_in(&self.local, section), allocator) {
                    self.carried.insert(section.to_owned());
                }
            }
        }
    }

    /// Sections of `kind` free in the last offer, and all that receive.
    pub(crate) fn sections_for(
        &self,
        kind: TrackKind,
        client: &ClientTraits,
        subscriptions: &Subscriptions,
    ) -> (usize, usize) {
        let Some(remote) = &self.remote else { return (0, 0) };
        let all = remote.sections.iter().filter(|section| can_carry(section, kind, client)).count();
        (free_sections(remote, kind, client, subscriptions).len(), all)
    }

    /// The answer to the last offer.
    pub(crate) fn answer(
        &mut self,
        endpoint: &Endpoint,
        client: &ClientTraits,
        publications: &Publications,
        subscriptions: &Subscriptions,
    ) -> String {
        let Some(remote) = &self.remote else { return String::new() };
        let answer = |section| self.answer_section(section, client, publications, subscriptions);
        self.local = remote.sections.iter().map(answer).collect();
        self.version += 1;
        let header = Header {
            endpoint,
            certificate: self.certificate,
            credentials: &self.credentials,
            session_id: self.session_id,
            version: self.version,
            setup: Setup::answered(self.handshake),
            extmap_allow_mixed: remote.extmap_allow_mixed,
        };
        writer::write(&header, &self.local)
    }

    fn answer_section(
        &self,
        section: &RemoteSection,
        client: &ClientTraits,
        publications: &Publications,
        subscriptions: &Subscriptions,
    ) -> LocalSection {
        let kind = match section.kind {
            _ if section.unusable => return LocalSection::Rejected(Box::new(section.clone())),
            SectionKind::Other => return LocalSection::Rejected(Box::new(section.clone())),
            SectionKind::Data => return LocalSection::Data { mid: section.mid.clone() },
            SectionKind::Media(kind) => kind,
        };
        let carried = subscriptions.in_section(&section.mid);
        let announced = publications.in_section(&section.mid).map(|track| &track.announced);
        let sends = section.direction.sends();
        let codecs = match (sends, carried) {
            (true, _) => published_codecs(section, kind, announced, client),
            (false, Some(_)) => subscribed_codecs(section, kind, client),
            (false, None) => unused_codecs(section, kind),
        };
        if codecs.is_empty() {
            return LocalSection::Rejected(Box::new(section.clone()));
        }
        let has_rtx = codecs.iter().any(|codec| codec.rtx.is_some());
        let direction = match section.direction {
            _ if sends => Direction::RecvOnly,
            Direction::Inactive => Direction::Inactive,
            _ if carried.is_none() && self.carried.contains(&section.mid) => Direction::Inactive,
            _ => Direction::SendOnly,
        };
        LocalSection::Media(MediaSection {
            mid: section.mid.clone(),
            kind,
            direction,
            codecs,
            extensions: Extensions::accept(kind, self.delays, section.extensions.iter().copied()),
            source: carried.filter(|_| !sends).map(|(downtrack, place)| downtrack.source(place, has_rtx)),
            rids: if sends { section.rids.to_vec() } else { Vec::new() },
        })
    }
}

/// The section can carry a subscription.
fn can_carry(section: &RemoteSection, kind: TrackKind, client: &ClientTraits) -> bool {
    !section.unusable
        && section.kind == SectionKind::Media(kind)
        && section.direction == Direction::RecvOnly
        && !subscribed_codecs(section, kind, client).is_empty()
}

/// The stream that the last answer showed in a section.
fn shown_in<'a>(local: &'a [LocalSection], mid: &str) -> Option<&'a str> {
    local.iter().find_map(|section| match section {
        LocalSection::Media(media) if media.mid == mid => media.source.as_ref().map(|source| source.stream.as_str()),
        _ => None,
    })
}

fn free_sections<'a>(
    remote: &'a RemoteDescription,
    kind: TrackKind,
    client: &ClientTraits,
    subscriptions: &Subscriptions,
) -> Vec<&'a str> {
    let occupied = subscriptions.occupied();
    let free = |section: &&RemoteSection| can_carry(section, kind, client) && !occupied.contains(section.mid.as_str());
    remote.sections.iter().filter(free).map(|section| section.mid.as_str()).collect()
}

/// RTCP feedback the node takes on a section.
fn feedback(kind: TrackKind) -> Feedback {
    match kind {
        TrackKind::Audio => Feedback::NACK,
        TrackKind::Video => Feedback::ALL,
    }
}

/// Codecs of a section that carries nothing yet.
fn unused_codecs(section: &RemoteSection, kind: TrackKind) -> Vec<SectionCodec> {
    let answer = |codec: &SectionCodec| SectionCodec {
        fmtp: without_stereo(codec),
        feedback: codec.feedback.and(feedback(kind)),
        ..codec.clone()
    };
    section.codecs.iter().map(answer).collect()
}

/// Codecs of a section that carries a subscription.
fn subscribed_codecs(section: &RemoteSection, kind: TrackKind, client: &ClientTraits) -> Vec<SectionCodec> {
    // Redundant audio reaches these browsers broken or not at all.
    let no_red = matches!(client.browser.as_str(), "firefox" | "safari");
    let mut codecs = unused_codecs(section, kind);
    codecs.retain(|codec| !(no_red && codec.format.codec == Codec::Red));
    // The node sends nothing again but on an RTX stream.
    for codec in codecs.iter_mut().filter(|codec| codec.rtx.is_none()) {
        codec.feedback = codec.feedback.without(Feedback::NACK);
    }
    codecs
}

/// Codecs of a section the client publishes in, what it announced for it first.
fn published_codecs(
    section: &RemoteSection,
    kind: TrackKind,
    announced: Option<&AnnouncedTrack>,
    client: &ClientTraits,
) -> Vec<SectionCodec> {
    let mut codecs = unused_codecs(section, kind);
    // A track's second codec comes in a section of its own.
    let named = |codec: &&AnnouncedCodec| section.msid_track.as_ref().is_some_and(|cid| codec.cid == *cid);
    let wanted = announced.and_then(|track| track.codecs.iter().find(named).or(track.codecs.first()));
    let wanted = wanted.map(|codec| codec.mime.as_str()).unwrap_or_default();
    let is_wanted = |codec: &SectionCodec| mime(codec.format.codec).eq_ignore_ascii_case(wanted);
    match kind {
        TrackKind::Audio => {
            codecs.retain(|codec| codec.format.codec != Codec::Red || announced.is_none_or(|track| !track.disable_red));
            codecs.sort_by_key(|codec| (!is_wanted(codec), codec.format.codec != Codec::Red));
            for codec in codecs.iter_mut().filter(|codec| codec.format.codec == Codec::Opus) {
                codec.fmtp = opus_parameters(&codec.fmtp, announced);
            }
        }
        TrackKind::Video => {
            // Firefox without a platform encoder for the rest sends the first it finds, announced or not.
            let only_wanted = client.browser == "firefox" && matches!(client.os.as_str(), "linux" | "android");
            if only_wanted && codecs.iter().any(is_wanted) {
                codecs.retain(is_wanted);
            }
            codecs.sort_by_key(|codec| !is_wanted(codec));
        }
    }
    codecs
}

/// An opus section's parameters less those that speak of the client's own decoder.
fn without_stereo(codec: &SectionCodec) -> String {
    if codec.format.codec != Codec::Opus {
        return codec.fmtp.clone();
    }
    let stays = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default().trim();
        !["stereo", "sprop-stereo", "maxaveragebitrate", "usedtx"].iter().any(|own| name.eq_ignore_ascii_case(own))
    };
    codec.fmtp.split(';').map(str::trim).filter(|pair| !pair.is_empty()).filter(stays).collect::<Vec<_>>().join(";")
}

/// What the node wants of an opus publisher (RFC 7587 section 6.1).
fn opus_parameters(fmtp: &str, announced: Option<&AnnouncedTrack>) -> String {
    let dtx = announced.is_none_or(|track| !track.disable_dtx);
    let stereo = announced.is_some_and(|track| track.stereo);
    let wanted = [(!fmtp.is_empty(), fmtp), (dtx, "usedtx=1"), (stereo, STEREO_PARAMETERS)];
    debug_assert!(parameter(fmtp, "usedtx").is_none(), "the client's own is taken out before");
    wanted.iter().filter(|(on, _)| *on).map(|(_, text)| *text).collect::<Vec<_>>().join(";")
}
