//! Writes the node's session descriptions: ICE-lite, one bundled transport, every candidate inside.

use std::net::SocketAddr;

use rtc::sdp::description::common::{Address, Attribute, ConnectionInformation};
use rtc::sdp::description::media::{MediaDescription, MediaName, RangedPort};
use rtc::sdp::description::session::SessionDescription;
use shared::control::TrackKind;

use super::description::{Direction, RemoteSection, SectionCodec};
use super::extension::Extensions;
use crate::media::api::{CertificateTurn, Fingerprint, IceCredentials};

/// Largest data channel message the node takes, bytes (LiveKit's).
const MAX_MESSAGE_SIZE: &str = "65535";
/// Type preference of host candidates (RFC 8445 section 5.1.2.2).
const HOST_PREFERENCE: u32 = 126;

/// Where clients reach this node's media, the same in every description.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Addresses for the candidates, preferred first.
    pub(crate) candidates: Vec<SocketAddr>,
    /// Of the node's certificates.
    pub(crate) fingerprints: [Fingerprint; 2],
}

/// A description's parts that do not change from section to section.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) certificate: CertificateTurn,
    pub(crate) credentials: &'a IceCredentials,
    /// `o=`: the same for all descriptions of a connection.
    pub(crate) session_id: u64,
    /// `o=`: one more each time.
    pub(crate) version: u64,
    /// `a=setup` (RFC 4145 section 4).
    pub(crate) setup: &'static str,
    pub(crate) extmap_allow_mixed: bool,
}

/// What the node sends in a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// First token of `a=msid`.
    pub(crate) stream: String,
    /// Second token of `a=msid`.
    pub(crate) track: String,
    pub(crate) cname: String,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
}

/// An audio or video section as the node describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MediaSection {
    pub(crate) mid: String,
    pub(crate) kind: TrackKind,
    pub(crate) direction: Direction,
    /// Preferred first.
    pub(crate) codecs: Vec<SectionCodec>,
    pub(crate) extensions: Extensions,
    pub(crate) source: Option<Source>,
    /// Simulcast streams received, in the client's order.
    pub(crate) rids: Vec<String>,
}

/// One section of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LocalSection {
    Media(MediaSection),
    Data { mid: String },
    Rejected(Box<RemoteSection>),
}

/// The whole description, as text.
pub(crate) fn write(header: &Header<'_>, sections: &[LocalSection]) -> String {
    let mut description = SessionDescription::new_jsep_session_description(false);
    description.origin.session_id = header.session_id;
    description.origin.session_version = header.version;
    let bundle =
        sections.iter().filter_map(LocalSection::bundled_mid).fold("BUNDLE".to_owned(), |group, mid| group + " " + mid);
    description.attributes = vec![
        value("msid-semantic", " WMS *"),
        value("fingerprint", &fingerprint(*header.certificate.of(&header.endpoint.fingerprints))),
        flag("ice-lite"),
        value("group", &bundle),
    ];
    if header.extmap_allow_mixed {
        description.attributes.push(flag("extmap-allow-mixed"));
    }
    let first_bundled = sections.iter().position(|section| section.bundled_mid().is_some());
    description.media_descriptions = sections
        .iter()
        .enumerate()
        .map(|(index, section)| section.write(header, Some(index) == first_bundled))
        .collect();
    description.marshal()
}

impl LocalSection {
    fn bundled_mid(&self) -> Option<&str> {
        match self {
            Self::Media(section) => Some(&section.mid),
            Self::Data { mid } => Some(mid),
            Self::Rejected(_) => None,
        }
    }

    fn write(&self, header: &Header<'_>, with_candidates: bool) -> MediaDescription {
        let mut media = match self {
            Self::Media(section) => section.write(header),
            Self::Data { mid } => {
                let formats = vec!["webrtc-datachannel".to_owned()];
                let protos = ["UDP", "DTLS", "SCTP"].map(str::to_owned).to_vec();
                let mut media = empty("application", protos, formats, 9);
                media.attributes = transport(header, mid);
                media.attributes.push(value("sctp-port", "5000"));
                media.attributes.push(value("max-message-size", MAX_MESSAGE_SIZE));
                media
            }
            Self::Rejected(remote) => {
                let protos = remote.protos.split('/').map(str::to_owned).collect();
                let formats = remote.formats.split_ascii_whitespace().map(str::to_owned).collect();
                let mut media = empty(&remote.media, protos, formats, 0);
                media.attributes = vec![value("mid", &remote.mid), flag(Direction::Inactive.as_str())];
                media
            }
        };
        if with_candidates {
            let candidates = header.endpoint.candidates.iter().zip(1..);
            media.attributes.extend(candidates.map(|(address, n)| value("candidate", &candidate(*address, n))));
            media.attributes.push(flag("end-of-candidates"));
        }
        media
    }
}

impl MediaSection {
    fn write(&self, header: &Header<'_>) -> MediaDescription {
        let name = match self.kind {
            TrackKind::Audio => "audio",
            TrackKind::Video => "video",
        };
        let payload_types = self.codecs.iter().flat_map(|codec| std::iter::once(codec.pt).chain(codec.rtx));
        let protos = ["UDP", "TLS", "RTP", "SAVPF"].map(str::to_owned).to_vec();
        let mut media = empty(name, protos, payload_types.map(|pt| pt.to_string()).collect(), 9);
        media.attributes = transport(header, &self.mid);
        media.attributes.extend([flag("rtcp-mux"), flag("rtcp-rsize")]);
        media.attributes.extend(self.codecs.iter().flat_map(codec_lines));
        media.attributes.extend(self.extensions.iter().map(|(id, uri)| value("extmap", &format!("{id} {uri}"))));
        media.attributes.extend(self.source.iter().flat_map(Source::lines));
        media
            .attributes
            .extend(self.rids.iter().map(|rid| value("rid", &format!("{} recv", rid.trim_start_matches('~')))));
        if !self.rids.is_empty() {
            media.attributes.push(value("simulcast", &format!("recv {}", self.rids.join(";"))));
        }
        media.attributes.push(flag(self.direction.as_str()));
        media
    }
}

impl Source {
    fn lines(&self) -> Vec<Attribute> {
        let mut lines = Vec::new();
        if let Some(rtx) = self.rtx_ssrc {
            lines.push(value("ssrc-group", &format!("FID {} {rtx}", self.ssrc)));
        }
        for ssrc in std::iter::once(self.ssrc).chain(self.rtx_ssrc) {
            lines.push(value("ssrc", &format!("{ssrc} cname:{}", self.cname)));
            lines.push(value("ssrc", &format!("{ssrc} msid:{} {}", self.stream, self.track)));
        }
        lines.push(value("msid", &format!("{} {}", self.stream, self.track)));
        lines
    }
}

fn codec_lines(codec: &SectionCodec) -> Vec<Attribute> {
    let pt = codec.pt;
    let mut lines = vec![value("rtpmap", &format!("{pt} {}", codec.rtpmap))];
    if !codec.fmtp.is_empty() {
        lines.push(value("fmtp", &format!("{pt} {}", codec.fmtp)));
    }
    lines.extend(codec.feedback.texts().map(|feedback| value("rtcp-fb", &format!("{pt} {feedback}"))));
    if let Some(rtx) = codec.rtx {
        lines.push(value("rtpmap", &format!("{rtx} rtx/{}", codec.format.clock_rate)));
        lines.push(value("fmtp", &format!("{rtx} apt={pt}")));
    }
    lines
}

/// Attributes of a bundled section's transport: the same in all of them (RFC 9143 section 7.1.3).
fn transport(header: &Header<'_>, mid: &str) -> Vec<Attribute> {
    vec![
        value("setup", header.setup),
        value("mid", mid),
        value("ice-ufrag", &header.credentials.ufrag),
        value("ice-pwd", &header.credentials.password),
    ]
}

/// `sha-256 AB:CD:…` (RFC 8122 section 5).
fn fingerprint(Fingerprint(digest): Fingerprint) -> String {
    let bytes: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("sha-256 {}", bytes.join(":"))
}

/// A host candidate (RFC 8839 section 5.1); component 1 only, since RTCP is multiplexed.
fn candidate(address: SocketAddr, foundation: u32) -> String {
    let local_preference = 65_536_u32.saturating_sub(foundation) & 0xffff;
    let priority = HOST_PREFERENCE << 24 | local_preference << 8 | 255;
    format!("{foundation} 1 udp {priority} {} {} typ host", address.ip(), address.port())
}

fn empty(media: &str, protos: Vec<String>, formats: Vec<String>, port: isize) -> MediaDescription {
    MediaDescription {
        media_name: MediaName {
            media: media.to_owned(),
            port: RangedPort { value: port, range: None },
            protos,
            formats,
        },
        connection_information: Some(ConnectionInformation {
            network_type: "IN".to_owned(),
            address_type: "IP4".to_owned(),
            address: Some(Address { address: "0.0.0.0".to_owned(), ttl: None, range: None }),
        }),
        ..MediaDescription::default()
    }
}

fn flag(key: &str) -> Attribute {
    Attribute::new(key.to_owned(), None)
}

fn value(key: &str, value: &str) -> Attribute {
    Attribute::new(key.to_owned(), Some(value.to_owned()))
}
