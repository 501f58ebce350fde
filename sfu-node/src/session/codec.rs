//! Which codecs the node forwards, and when two payload types carry the same format.

use shared::control::TrackKind;

use crate::media::api::Codec;

/// A codec with what tells its formats apart; equal on two sections: packets of one fit the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodecFormat {
    /// The codec.
    pub(crate) codec: Codec,
    /// VP9: profile. H264: packetization mode (constrained baseline only). Else 0.
    pub(crate) format: u32,
    /// RTP clock, Hz.
    pub(crate) clock_rate: u32,
}

impl CodecFormat {
    /// What an `a=rtpmap` (`name/clock[/channels]`) and its `a=fmtp` describe, if the node forwards it.
    ///
    /// H264 is taken in constrained baseline only (RFC 6184 section 8.1), the one profile every client decodes.
    pub(crate) fn parse(rtpmap: &str, fmtp: &str) -> Option<Self> {
        let mut parts = rtpmap.split('/');
        let name = parts.next()?.to_ascii_lowercase();
        let clock_rate = parts.next()?.parse().ok()?;
        let channels = parts.next();
        let profile = |key, default: u32| parameter(fmtp, key).map_or(Some(default), |value| value.parse().ok());
        let (codec, format) = match name.as_str() {
            "opus" if clock_rate == 48_000 && channels == Some("2") => (Codec::Opus, 0),
            "red" if clock_rate == 48_000 && channels == Some("2") => (Codec::Red, 0),
            "pcmu" if clock_rate == 8_000 => (Codec::Pcmu, 0),
            "pcma" if clock_rate == 8_000 => (Codec::Pcma, 0),
            _ if clock_rate != 90_000 => return None,
            "vp8" => (Codec::Vp8, 0),
            "vp9" => (Codec::Vp9, profile("profile-id", 0).filter(|profile| *profile <= 1)?),
            "h264" => (Codec::H264, h264_format(fmtp)?),
            "av1" => (Codec::Av1, profile("profile", 0).filter(|profile| *profile == 0)?),
            "h265" => (Codec::H265, profile("profile-id", 1).filter(|profile| *profile == 1).map(|_| 0)?),
            _ => return None,
        };
        Some(Self { codec, format, clock_rate })
    }
}

/// RTCP feedback on a payload type that the node takes part in: a set (RFC 4585, RFC 5104,
/// draft-holmer-rmcat-transport-wide-cc-extensions, draft-alvestrand-rmcat-remb).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Feedback(u8);

impl Feedback {
    const TEXTS: [&'static str; 5] = ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"];

    /// Generic NACK.
    pub(crate) const NACK: Self = Self(1 << 3);
    /// Picture loss indication.
    pub(crate) const PLI: Self = Self(1 << 4);
    /// All there is.
    pub(crate) const ALL: Self = Self(0b1_1111);

    /// What an `a=rtcp-fb` names; nothing for what the node does not know.
    pub(crate) fn parse(text: &str) -> Self {
        (0..).zip(Self::TEXTS).find(|(_, known)| *known == text).map_or(Self::default(), |(bit, _)| Self(1 << bit))
    }

    /// What is in either.
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is not in `other`.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// All of `other` is in it.
    pub(crate) fn has(self, other: Self) -> bool {
        self.and(other) == other
    }

    /// `a=rtcp-fb` values.
    pub(crate) fn texts(self) -> impl Iterator<Item = &'static str> {
        (0..).zip(Self::TEXTS).filter(move |(bit, _)| self.has(Self(1 << bit))).map(|(_, text)| text)
    }
}

/// Value of one format parameter; names compare without case (RFC 8866 section 6.15).
pub(crate) fn parameter<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    let pairs = fmtp.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.trim()).next()
}

/// Packetization mode of constrained baseline H264; `None` for other profiles and interleaved mode.
fn h264_format(fmtp: &str) -> Option<u32> {
    let level = u32::from_str_radix(parameter(fmtp, "profile-level-id")?, 16).ok()?;
    let (profile_idc, constraints) = (level >> 16, level >> 8 & 0xff);
    let constrained_baseline = match profile_idc {
        0x42 => constraints & 0x40 != 0,
        0x4d => constraints & 0x80 != 0,
        _ => false,
    };
    let mode = parameter(fmtp, "packetization-mode").map_or(Some(0), |mode| mode.parse().ok())?;
    (constrained_baseline && mode <= 1).then_some(mode)
}

/// MIME type as LiveKit spells it.
pub(crate) fn mime(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "audio/opus",
        Codec::Red => "audio/red",
        Codec::Pcmu => "audio/PCMU",
        Codec::Pcma => "audio/PCMA",
        Codec::Vp8 => "video/VP8",
        Codec::Vp9 => "video/VP9",
        Codec::H264 => "video/H264",
        Codec::Av1 => "video/AV1",
        Codec::H265 => "video/H265",
    }
}

/// The codec of a MIME type; case does not matter.
pub(crate) fn codec_of_mime(text: &str) -> Option<Codec> {
    let all = [
        Codec::Opus,
        Codec::Red,
        Codec::Pcmu,
        Codec::Pcma,
        Codec::Vp8,
        Codec::Vp9,
        Codec::H264,
        Codec::Av1,
        Codec::H265,
    ];
    all.into_iter().find(|codec| mime(*codec).eq_ignore_ascii_case(text))
}

/// A codec the node offers on a subscriber connection, with LiveKit's payload types.
pub(crate) struct OfferedCodec {
    /// Payload type; its retransmission's is one more for video.
    pub(crate) pt: u8,
    /// `a=rtpmap` value.
    pub(crate) rtpmap: &'static str,
    /// `a=fmtp` value, may be empty.
    pub(crate) fmtp: &'static str,
}

/// What the node offers in sections of `kind`: every format it may have to forward, so that one section fits any track.
pub(crate) fn offered(kind: TrackKind) -> &'static [OfferedCodec] {
    match kind {
        TrackKind::Audio => &[
            OfferedCodec { pt: 111, rtpmap: "opus/48000/2", fmtp: "minptime=10;useinbandfec=1" },
            OfferedCodec { pt: 63, rtpmap: "red/48000/2", fmtp: "111/111" },
            OfferedCodec { pt: 0, rtpmap: "PCMU/8000", fmtp: "" },
            OfferedCodec { pt: 8, rtpmap: "PCMA/8000", fmtp: "" },
        ],
        TrackKind::Video => &[
            OfferedCodec { pt: 96, rtpmap: "VP8/90000", fmtp: "" },
            OfferedCodec { pt: 98, rtpmap: "VP9/90000", fmtp: "profile-id=0" },
            OfferedCodec { pt: 100, rtpmap: "VP9/90000", fmtp: "profile-id=1" },
            OfferedCodec {
                pt: 125,
                rtpmap: "H264/90000",
                fmtp: "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f",
            },
            OfferedCodec {
                pt: 108,
                rtpmap: "H264/90000",
                fmtp: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            },
            OfferedCodec { pt: 35, rtpmap: "AV1/90000", fmtp: "" },
            OfferedCodec { pt: 116, rtpmap: "H265/90000", fmtp: "" },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h264_is_constrained_baseline_only() {
        let format = |fmtp| CodecFormat::parse("H264/90000", fmtp).map(|f| f.format);
        assert_eq!(format("packetization-mode=1;profile-level-id=42e01f"), Some(1));
        assert_eq!(format("profile-level-id=42E034; packetization-mode=0"), Some(0));
        assert_eq!(format("profile-level-id=4de01f;packetization-mode=1"), Some(1));
        assert_eq!(format("profile-level-id=42001f;packetization-mode=1"), None);
        assert_eq!(format("profile-level-id=640c1f;packetization-mode=1"), None);
        assert_eq!(format("packetization-mode=1"), None);
    }

    #[test]
    fn every_offered_codec_is_understood() {
        for kind in [TrackKind::Audio, TrackKind::Video] {
            for codec in offered(kind) {
                assert!(CodecFormat::parse(codec.rtpmap, codec.fmtp).is_some(), "{}", codec.rtpmap);
            }
        }
        assert!(CodecFormat::parse("G722/8000", "").is_none());
        assert!(CodecFormat::parse("red/90000", "").is_none());
        assert!(CodecFormat::parse("rtx/90000", "apt=96").is_none());
    }
}
