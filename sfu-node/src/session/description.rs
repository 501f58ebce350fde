//! Reads a client's session description (RFC 8866, RFC 8829) into what negotiation needs; text that breaks a rule is refused.

use std::collections::HashSet;
use std::io::Cursor;
use std::sync::Arc;

use arrayvec::ArrayVec;
use rtc::sdp::description::media::MediaDescription;
use rtc::sdp::description::session::SessionDescription;
use shared::control::{MAX_SDP_LEN, TrackKind};

use super::codec::{CodecFormat, Feedback, parameter};
use super::extension;
use crate::media::api::{Fingerprint, HandshakeRole, IceCredentials, MAX_LAYERS, PayloadType, SsrcPair};

/// Most sections of a description the node takes or makes.
pub(crate) const MAX_SECTIONS: usize = 256;
/// Longest mid and rid, characters: what a one-byte header extension holds (RFC 8285 section 4.2).
const MAX_ID_LEN: usize = 16;
/// Longest ICE username fragment and password, characters (RFC 8839 section 5.4).
const MAX_ICE_LEN: usize = 256;
/// Most payload types read of a section; a payload type has 7 bits.
const MAX_FORMATS: usize = 128;

/// Why a description is refused. Never holds the description's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DescriptionError {
    #[error("longer than {MAX_SDP_LEN} bytes")]
    TooLong,
    #[error("does not parse as SDP")]
    Syntax,
    #[error("more than {MAX_SECTIONS} media sections")]
    TooManySections,
    #[error("a media section has no usable mid, or two have the same")]
    BadMid,
    #[error("no ICE credentials")]
    NoIceCredentials,
    #[error("no sha-256 fingerprint")]
    NoFingerprint,
    #[error("the client insists on the node's own role in DTLS")]
    BadSetup,
    #[error("fewer media sections than before, or in another order")]
    SectionsChanged,
    #[error("no such offer is outstanding")]
    NoOffer,
}

/// What a media section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SectionKind {
    /// Audio or video.
    Media(TrackKind),
    /// Data channels (RFC 8841).
    Data,
    /// Nothing the node can do.
    Other,
}

/// Which way a section runs, seen from its describer (RFC 8866 section 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the RFC's")]
pub(crate) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// The describer sends.
    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// The describer receives.
    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The attribute.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// Who begins DTLS, as a description says it (RFC 8842 section 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setup {
    /// The describer does.
    Active,
    /// The other side does.
    Passive,
    /// The other side says.
    Either,
}

impl Setup {
    /// # Errors
    /// [`DescriptionError::BadSetup`] if a peer that says this leaves us another role.
    pub(crate) fn allows(self, ours: HandshakeRole) -> Result<(), DescriptionError> {
        match (self, ours) {
            (Self::Active, HandshakeRole::Client(_)) | (Self::Passive, HandshakeRole::Server) => {
                Err(DescriptionError::BadSetup)
            }
            _ => Ok(()),
        }
    }

    /// The attribute of our answers.
    pub(crate) fn answered(ours: HandshakeRole) -> &'static str {
        match ours {
            HandshakeRole::Server => "passive",
            HandshakeRole::Client(_) => "active",
        }
    }
}

/// A payload type the node can forward, as a section describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SectionCodec {
    /// 0 to 127.
    pub(crate) pt: u8,
    /// What it carries.
    pub(crate) format: CodecFormat,
    /// `a=rtpmap` value.
    pub(crate) rtpmap: String,
    /// `a=fmtp` value, may be empty.
    pub(crate) fmtp: String,
    /// `a=rtcp-fb` values.
    pub(crate) feedback: Feedback,
    /// Payload type of its retransmissions (RFC 4588).
    pub(crate) rtx: Option<u8>,
}

impl SectionCodec {
    /// What the packet path must know of it.
    pub(crate) fn payload_type(&self) -> PayloadType {
        PayloadType {
            pt: self.pt,
            codec: self.format.codec,
            format: self.format.format,
            clock_rate: self.format.clock_rate,
            rtx_pt: self.rtx,
            nack: self.feedback.has(Feedback::NACK),
            pli: self.feedback.has(Feedback::PLI),
        }
    }
}

/// One media section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteSection {
    pub(crate) kind: SectionKind,
    pub(crate) mid: String,
    pub(crate) direction: Direction,
    /// Rejected or stopped by the client, or outside the BUNDLE group.
    pub(crate) unusable: bool,
    /// As in `m=`: media, protocols and formats, for a rejection.
    pub(crate) media: String,
    pub(crate) protos: String,
    pub(crate) formats: String,
    /// Codecs the node knows, in the client's order; sections with the same ones share them.
    pub(crate) codecs: Arc<[SectionCodec]>,
    /// Header extensions the node knows.
    pub(crate) extensions: Vec<(u8, &'static str)>,
    /// Track id: second token of `a=msid` (RFC 8830).
    pub(crate) msid_track: Option<String>,
    /// Streams named by SSRC.
    pub(crate) ssrcs: ArrayVec<SsrcPair, MAX_LAYERS>,
    /// Simulcast rids in the client's order (RFC 8853), the first alternative of each, with its `~` where paused.
    pub(crate) rids: ArrayVec<String, MAX_LAYERS>,
}

/// A client's offer or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteDescription {
    /// Others mean an ICE restart.
    pub(crate) ice: IceCredentials,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) setup: Setup,
    pub(crate) extmap_allow_mixed: bool,
    pub(crate) sections: Vec<RemoteSection>,
}

impl RemoteDescription {
    /// Reads `sdp`.
    pub(crate) fn parse(sdp: &str) -> Result<Self, DescriptionError> {
        if sdp.len() > MAX_SDP_LEN {
            return Err(DescriptionError::TooLong);
        }
        // What is copied into the answer must not be able to end a line.
        let text = sdp.replace("\r\n", "\n");
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(DescriptionError::Syntax);
        }
        if text.matches("\nm=").count() > MAX_SECTIONS {
            return Err(DescriptionError::TooManySections);
        }
        let parsed =
            SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes())).map_err(|_| DescriptionError::Syntax)?;
        Self::from_parsed(&parsed)
    }

    fn from_parsed(parsed: &SessionDescription) -> Result<Self, DescriptionError> {
        let bundled: Option<HashSet<&str>> = parsed
            .attributes
            .iter()
            .filter(|a| a.key == "group")
            .find_map(|a| a.value.as_deref()?.strip_prefix("BUNDLE"))
            .map(|mids| mids.split_ascii_whitespace().collect());
        let mut sections: Vec<RemoteSection> = Vec::with_capacity(parsed.media_descriptions.len());
        let mut mids = HashSet::new();
        for media in &parsed.media_descriptions {
            let mut section = section(media, bundled.as_ref())?;
            if !mids.insert(section.mid.clone()) {
                return Err(DescriptionError::BadMid);
            }
            if let Some(known) = sections.iter().find(|known| known.codecs == section.codecs) {
                section.codecs = Arc::clone(&known.codecs);
            }
            sections.push(section);
        }
        // One section without a group is a bundle of itself; more of them would need a transport each.
        if bundled.is_none() {
            sections.iter_mut().skip(1).for_each(|section| section.unusable = true);
        }
        let first = sections.iter().position(|section| !section.unusable).unwrap_or(0);
        let transport = parsed.media_descriptions.get(first);
        let shared = |key: &str| {
            let own = transport.and_then(|media| media.attribute(key).flatten());
            own.or_else(|| parsed.attribute(key).map(String::as_str))
        };
        let ice_text = |key| {
            let text = shared(key).filter(|text| (1..=MAX_ICE_LEN).contains(&text.len()));
            text.map(str::to_owned).ok_or(DescriptionError::NoIceCredentials)
        };
        Ok(Self {
            ice: IceCredentials { ufrag: ice_text("ice-ufrag")?, password: ice_text("ice-pwd")? },
            fingerprint: shared("fingerprint").and_then(fingerprint).ok_or(DescriptionError::NoFingerprint)?,
            setup: match shared("setup") {
                Some("active") => Setup::Active,
                Some("passive") => Setup::Passive,
                _ => Setup::Either,
            },
            extmap_allow_mixed: parsed.has_attribute("extmap-allow-mixed"),
            sections,
        })
    }
}

fn section(media: &MediaDescription, bundled: Option<&HashSet<&str>>) -> Result<RemoteSection, DescriptionError> {
    let mid = media.attribute("mid").flatten().filter(|mid| is_token(mid)).ok_or(DescriptionError::BadMid)?;
    let name = &media.media_name;
    let kind = match name.media.as_str() {
        "audio" => SectionKind::Media(TrackKind::Audio),
        "video" => SectionKind::Media(TrackKind::Video),
        "application" if name.formats.iter().any(|format| format == "webrtc-datachannel") => SectionKind::Data,
        _ => SectionKind::Other,
    };
    let stopped = name.port.value == 0 && !media.has_attribute("bundle-only");
    let direction = [Direction::SendOnly, Direction::RecvOnly, Direction::Inactive]
        .into_iter()
        .find(|direction| media.has_attribute(direction.as_str()));
    Ok(RemoteSection {
        kind,
        mid: mid.to_owned(),
        direction: direction.unwrap_or(Direction::SendRecv),
        unusable: stopped || bundled.is_some_and(|mids| !mids.contains(mid)),
        media: name.media.clone(),
        protos: name.protos.join("/"),
        formats: name.formats.iter().take(MAX_FORMATS).map(String::as_str).collect::<Vec<_>>().join(" "),
        codecs: codecs(media, kind),
        extensions: values(media, "extmap").filter_map(extension).collect(),
        msid_track: values(media, "msid").find_map(|msid| Some(msid.split_ascii_whitespace().nth(1)?.to_owned())),
        ssrcs: ssrcs(media),
        rids: rids(media),
    })
}

/// Values of all attributes `key`.
fn values<'a>(media: &'a MediaDescription, key: &'a str) -> impl Iterator<Item = &'a str> {
    media.attributes.iter().filter(move |a| a.key == key).filter_map(|a| a.value.as_deref())
}

fn is_token(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&b);
    !text.is_empty() && text.len() <= MAX_ID_LEN && text.bytes().all(legal)
}

fn codecs(media: &MediaDescription, kind: SectionKind) -> Arc<[SectionCodec]> {
    let SectionKind::Media(kind) = kind else { return Arc::default() };
    let of_payload_type = |key, pt: u8| {
        values(media, key).find_map(move |value| {
            let (number, rest) = value.split_once(' ')?;
            (number.parse() == Ok(pt)).then(|| rest.trim())
        })
    };
    let payload_types: Vec<u8> = media
        .media_name
        .formats
        .iter()
        .take(MAX_FORMATS)
        .filter_map(|f| f.parse().ok())
        .filter(|pt| *pt < 128)
        .collect();
    let rtpmap = |pt| of_payload_type("rtpmap", pt).or_else(|| static_rtpmap(kind, pt));
    let rtx_of = |media_pt: u8| {
        payload_types.iter().find_map(|pt| {
            rtpmap(*pt).filter(|map| map.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("rtx/")))?;
            let apt = parameter(of_payload_type("fmtp", *pt)?, "apt")?;
            (apt.parse() == Ok(media_pt)).then_some(*pt)
        })
    };
    let mut codecs: Vec<SectionCodec> = Vec::new();
    for pt in &payload_types {
        let Some(map) = rtpmap(*pt) else { continue };
        let fmtp = of_payload_type("fmtp", *pt).unwrap_or_default();
        let Some(format) = CodecFormat::parse(map, fmtp) else { continue };
        if codecs.iter().any(|codec| codec.pt == *pt) {
            continue;
        }
        let feedback = values(media, "rtcp-fb").filter_map(|value| {
            let (number, rest) = value.split_once(' ')?;
            (number == "*" || number.parse() == Ok(*pt)).then(|| Feedback::parse(rest.trim()))
        });
        codecs.push(SectionCodec {
            pt: *pt,
            format,
            rtpmap: map.to_owned(),
            fmtp: fmtp.to_owned(),
            feedback: feedback.fold(Feedback::default(), Feedback::or),
            rtx: rtx_of(*pt),
        });
    }
    codecs.into()
}

/// Payload types that need no rtpmap (RFC 3551 table 4).
fn static_rtpmap(kind: TrackKind, pt: u8) -> Option<&'static str> {
    match (kind, pt) {
        (TrackKind::Audio, 0) => Some("PCMU/8000"),
        (TrackKind::Audio, 8) => Some("PCMA/8000"),
        _ => None,
    }
}

/// `id[/direction] uri [attributes]` (RFC 8285 section 5).
fn extension(value: &str) -> Option<(u8, &'static str)> {
    let mut parts = value.split_ascii_whitespace();
    let id = parts.next()?.split('/').next()?.parse().ok()?;
    Some((id, extension::known(parts.next()?)?))
}

/// `sha-256 AB:CD:…` (RFC 8122).
fn fingerprint(value: &str) -> Option<Fingerprint> {
    let (algorithm, digest) = value.split_once(' ')?;
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    digest.trim().parse().ok()
}

/// Media streams with their retransmission streams (RFC 5576; RFC 4588 section 8.8).
fn ssrcs(media: &MediaDescription) -> ArrayVec<SsrcPair, MAX_LAYERS> {
    let pairs: Vec<(u32, u32)> = values(media, "ssrc-group")
        .filter_map(|group| {
            let mut ssrcs = group.strip_prefix("FID ")?.split_ascii_whitespace().map(str::parse);
            Some((ssrcs.next()?.ok()?, ssrcs.next()?.ok()?))
        })
        .collect();
    let mut found: ArrayVec<SsrcPair, MAX_LAYERS> = ArrayVec::new();
    for value in values(media, "ssrc") {
        let Some(Ok(ssrc)) = value.split_ascii_whitespace().next().map(str::parse::<u32>) else { continue };
        let known =
            ssrc == 0 || found.iter().any(|pair| pair.ssrc == ssrc) || pairs.iter().any(|(_, rtx)| *rtx == ssrc);
        if !known {
            let rtx = pairs.iter().find(|(media, _)| *media == ssrc).map(|(_, rtx)| *rtx);
            if found.try_push(SsrcPair { ssrc, rtx }).is_err() {
                break;
            }
        }
    }
    found
}

/// The send streams of `a=simulcast`.
fn rids(media: &MediaDescription) -> ArrayVec<String, MAX_LAYERS> {
    let Some(simulcast) = media.attribute("simulcast").flatten() else { return ArrayVec::new() };
    let mut words = simulcast.split_ascii_whitespace();
    let streams = loop {
        match (words.next(), words.next()) {
            (Some("send"), Some(streams)) => break streams,
            (Some(_), Some(_)) => {}
            _ => return ArrayVec::new(),
        }
    };
    let first_alternatives = streams.split(';').filter_map(|stream| stream.split(',').next());
    first_alternatives
        .filter(|rid| {
            let name = rid.trim_start_matches('~');
            name.bytes().all(|b| b.is_ascii_alphanumeric()) && is_token(name)
        })
        .take(MAX_LAYERS)
        .map(str::to_owned)
        .collect()
}
