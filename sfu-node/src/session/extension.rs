//! RTP header extensions (RFC 8285): which the node takes where, and under which ids.

use shared::control::TrackKind;

use crate::media::api::{ExtensionIds, MAX_EXTENSION_ID};

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
const ABS_CAPTURE_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";

/// The URI, if the node takes the extension anywhere.
pub(crate) fn known(uri: &str) -> Option<&'static str> {
    let all = [
        MID,
        RID,
        REPAIRED_RID,
        TRANSPORT_CC,
        ABS_SEND_TIME,
        AUDIO_LEVEL,
        DEPENDENCY_DESCRIPTOR,
        ABS_CAPTURE_TIME,
        PLAYOUT_DELAY,
    ];
    all.into_iter().find(|known| *known == uri)
}

/// Extensions agreed on for a section, in the order of the description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Extensions(Vec<(u8, &'static str)>);

impl Extensions {
    /// Those of `offered` (id, URI) that the node takes.
    ///
    /// Libwebrtc offers in later sections only what was accepted before: rid must be taken on every video section from
    /// the first answer on, or simulcast cannot be published later. `delays`: videos are to be shown with a delay.
    pub(crate) fn accept<'a>(kind: TrackKind, delays: bool, offered: impl Iterator<Item = (u8, &'a str)>) -> Self {
        let taken: &[&'static str] = match kind {
            TrackKind::Audio => &[MID, AUDIO_LEVEL, ABS_CAPTURE_TIME],
            TrackKind::Video => &[
                MID,
                RID,
                REPAIRED_RID,
                TRANSPORT_CC,
                ABS_SEND_TIME,
                DEPENDENCY_DESCRIPTOR,
                ABS_CAPTURE_TIME,
                PLAYOUT_DELAY,
            ],
        };
        let mut accepted: Vec<(u8, &'static str)> = Vec::new();
        for (id, uri) in offered {
            let wanted = delays || uri != PLAYOUT_DELAY;
            let Some(known) = taken.iter().find(|known| **known == uri && wanted) else { continue };
            let twice = accepted.iter().any(|(other, taken)| *other == id || taken == known);
            if (1..=MAX_EXTENSION_ID).contains(&id) && !twice {
                accepted.push((id, known));
            }
        }
        Self(accepted)
    }

    /// What the node offers on a subscriber connection. Ids are the same in every section, as BUNDLE wants (RFC 9143).
    pub(crate) fn offered(kind: TrackKind, delays: bool) -> Self {
        let mut offered = match kind {
            TrackKind::Audio => return Self(vec![(2, ABS_CAPTURE_TIME)]),
            TrackKind::Video => {
                vec![(1, DEPENDENCY_DESCRIPTOR), (2, ABS_CAPTURE_TIME), (3, ABS_SEND_TIME), (4, TRANSPORT_CC)]
            }
        };
        offered.extend(delays.then_some((5, PLAYOUT_DELAY)));
        Self(offered)
    }

    /// Ids and URIs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, &'static str)> + '_ {
        self.0.iter().copied()
    }

    /// The ids by meaning.
    pub(crate) fn ids(&self) -> ExtensionIds {
        let id = |uri| self.0.iter().find(|(_, taken)| *taken == uri).map(|(id, _)| *id);
        ExtensionIds {
            mid: id(MID),
            rid: id(RID),
            repaired_rid: id(REPAIRED_RID),
            transport_cc: id(TRANSPORT_CC),
            abs_send_time: id(ABS_SEND_TIME),
            audio_level: id(AUDIO_LEVEL),
            dependency_descriptor: id(DEPENDENCY_DESCRIPTOR),
            abs_capture_time: id(ABS_CAPTURE_TIME),
            playout_delay: id(PLAYOUT_DELAY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_out_of_range_and_repeated_are_left_out() {
        let offered = [(0, MID), (15, RID), (3, TRANSPORT_CC), (3, ABS_SEND_TIME), (4, TRANSPORT_CC), (5, "urn:x")];
        let ids = Extensions::accept(TrackKind::Video, false, offered.into_iter()).ids();
        assert_eq!(ids, ExtensionIds { transport_cc: Some(3), ..ExtensionIds::default() });
    }

    #[test]
    fn only_videos_that_are_to_be_shown_with_a_delay_have_the_extension() {
        for (kind, delays) in [(TrackKind::Video, true), (TrackKind::Video, false), (TrackKind::Audio, true)] {
            let wanted = delays && kind == TrackKind::Video;
            let offered = Extensions::offered(kind, delays);
            assert_eq!(offered.ids().playout_delay.is_some(), wanted, "{kind:?} {delays}");
            let accepted = Extensions::accept(kind, delays, [(9, PLAYOUT_DELAY)].into_iter());
            assert_eq!(accepted.ids().playout_delay, wanted.then_some(9), "{kind:?} {delays}");
            assert_eq!(Extensions::accept(kind, delays, offered.iter()), offered, "as the node offers it");
        }
    }
}
