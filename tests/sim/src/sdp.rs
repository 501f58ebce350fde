//! Session descriptions as a client writes and reads them: no more than a node looks at.

use std::fmt::Write as _;

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Data channels.
    Data,
    /// Audio.
    Audio,
    /// Video.
    Video,
}

/// A track that a section sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The client's id of it.
    pub(crate) cid: String,
    /// Its stream.
    pub(crate) ssrc: u32,
}

/// One section of a client's description; its mid is its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// What for.
    pub(crate) kind: Kind,
    /// It sends this; `None`: it receives, or does neither.
    pub(crate) sends: Option<Sent>,
    /// It receives.
    pub(crate) receives: bool,
}

/// Who describes.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// ICE.
    pub(crate) ufrag: String,
    /// ICE.
    pub(crate) password: String,
    /// Of the certificate.
    pub(crate) fingerprint: [u8; 32],
}

/// Writes a description; `setup` as in RFC 8842.
#[must_use]
pub(crate) fn write(own: &Own, setup: &str, sections: &[Section]) -> String {
    let mids: Vec<String> = (0..sections.len()).map(|mid| mid.to_string()).collect();
    let mut text = format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "));
    for (mid, section) in mids.iter().zip(sections) {
        text.push_str(match section.kind {
            Kind::Data => "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\n",
            Kind::Audio => "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n",
            Kind::Video => {
                "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n\
                 a=fmtp:97 apt=96\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n"
            }
        });
        let fingerprint: Vec<String> = own.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        let _ = write!(
            text,
            "c=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\n\
             a=setup:{setup}\r\na=rtcp-mux\r\n",
            own.ufrag,
            own.password,
            fingerprint.join(":"),
        );
        if section.kind == Kind::Data {
            continue;
        }
        let _ = match &section.sends {
            Some(Sent { cid, ssrc }) => {
                write!(text, "a=sendonly\r\na=msid:stream {cid}\r\na=ssrc:{ssrc} cname:client\r\n")
            }
            None if section.receives => write!(text, "a=recvonly\r\n"),
            None => write!(text, "a=inactive\r\n"),
        };
    }
    text
}

/// What a client reads of a node's description.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remote {
    /// ICE.
    pub(crate) ufrag: String,
    /// ICE.
    pub(crate) password: String,
    /// As written.
    pub(crate) fingerprint: String,
    /// `address port` of the first candidate.
    pub(crate) candidate: Option<std::net::SocketAddr>,
    /// Kind of each section, and what it sends: stream and track.
    pub(crate) sections: Vec<(Kind, Option<(u32, String)>)>,
}

impl Remote {
    /// Reads one.
    #[must_use]
    pub(crate) fn read(text: &str) -> Self {
        let mut remote = Self::default();
        let (mut ssrc, mut track): (Option<u32>, Option<String>) = (None, None);
        for line in text.lines() {
            if let Some(media) = line.strip_prefix("m=") {
                let kind = match media.split(' ').next() {
                    Some("audio") => Kind::Audio,
                    Some("video") => Kind::Video,
                    _ => Kind::Data,
                };
                remote.sections.push((kind, None));
                (ssrc, track) = (None, None);
            }
            let Some((key, value)) = line.strip_prefix("a=").and_then(|rest| rest.split_once(':')) else { continue };
            match key {
                "ice-ufrag" => value.clone_into(&mut remote.ufrag),
                "ice-pwd" => value.clone_into(&mut remote.password),
                "fingerprint" => value.clone_into(&mut remote.fingerprint),
                "candidate" if remote.candidate.is_none() => {
                    let words: Vec<&str> = value.split(' ').collect();
                    let address = words.get(4).zip(words.get(5)).map(|(host, port)| format!("{host}:{port}"));
                    remote.candidate = address.and_then(|address| address.parse().ok());
                }
                "msid" => track = value.split(' ').nth(1).map(str::to_owned),
                "ssrc" if ssrc.is_none() => ssrc = value.split(' ').next().and_then(|ssrc| ssrc.parse().ok()),
                _ => {}
            }
            if let (Some(section), Some(ssrc), Some(track)) = (remote.sections.last_mut(), ssrc, &track) {
                section.1 = Some((ssrc, track.clone()));
            }
        }
        remote
    }
}
