//! How late a room's subscribers show video: what its configuration wants, and how RTP says it.

use serde::{Deserialize, Serialize};

/// Bounds of a receiver's delay between receiving a video and showing it. The sender asks for it in each packet
/// (`http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`); the receiver chooses between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayoutDelay {
    min_ms: u16,
    max_ms: u16,
}

/// Why delays are none to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlayoutDelayError {
    /// Over [`PlayoutDelay::MAX_MS`].
    #[error("playout delays are at most {} ms", PlayoutDelay::MAX_MS)]
    TooLong,
    /// The bounds are the wrong way round.
    #[error("the minimum playout delay is above the maximum")]
    Reversed,
}

impl PlayoutDelay {
    /// The longest delay, milliseconds: what a receiver takes by itself where there is no maximum (LiveKit's).
    pub const MAX_MS: u16 = 10_000;
    /// Milliseconds of one unit on the wire.
    const STEP_MS: u16 = 10;

    /// LiveKit's `min_playout_delay` and `max_playout_delay`, milliseconds: both 0, and nothing is asked for; the latter 0,
    /// and it is [`Self::MAX_MS`].
    ///
    /// # Errors
    /// [`PlayoutDelayError`].
    pub fn new(min_ms: u32, max_ms: u32) -> Result<Option<Self>, PlayoutDelayError> {
        if min_ms == 0 && max_ms == 0 {
            return Ok(None);
        }
        let within = |ms: u32| u16::try_from(ms).ok().filter(|ms| *ms <= Self::MAX_MS);
        let (min_ms, max_ms) =
            (within(min_ms).ok_or(PlayoutDelayError::TooLong)?, within(max_ms).ok_or(PlayoutDelayError::TooLong)?);
        let max_ms = if max_ms == 0 { Self::MAX_MS } else { max_ms };
        if min_ms > max_ms { Err(PlayoutDelayError::Reversed) } else { Ok(Some(Self { min_ms, max_ms })) }
    }

    /// The header extension: 12 bits each, in steps of 10 ms, the minimum first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        let steps = |ms: u16| u32::from((ms / Self::STEP_MS).min(0xfff));
        let [_, bytes @ ..] = (steps(self.min_ms) << 12 | steps(self.max_ms)).to_be_bytes();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_twelve_bits_each_in_steps_of_ten_milliseconds() {
        let bytes = |min, max| PlayoutDelay::new(min, max).unwrap().unwrap().to_bytes();
        assert_eq!(bytes(400, 2_000), [0x02, 0x80, 0xc8]);
        assert_eq!(bytes(2_560, 10_000), [0x10, 0x03, 0xe8]);
        assert_eq!(bytes(0, 19), [0, 0, 1]);
        let foreign: PlayoutDelay = serde_json::from_str(r#"{"min_ms":65535,"max_ms":65535}"#).unwrap();
        assert_eq!(foreign.to_bytes(), [0xff; 3], "never into each other");
    }

    #[test]
    fn nothing_asked_is_nothing_and_no_maximum_is_the_longest() {
        assert_eq!(PlayoutDelay::new(0, 0), Ok(None));
        assert_eq!(PlayoutDelay::new(400, 0), PlayoutDelay::new(400, 10_000));
    }

    #[test]
    fn delays_out_of_range_are_refused() {
        assert_eq!(PlayoutDelay::new(10_001, 0), Err(PlayoutDelayError::TooLong));
        assert_eq!(PlayoutDelay::new(1, 10_001), Err(PlayoutDelayError::TooLong));
        assert_eq!(PlayoutDelay::new(u32::MAX, u32::MAX), Err(PlayoutDelayError::TooLong));
        assert_eq!(PlayoutDelay::new(400, 399), Err(PlayoutDelayError::Reversed));
    }
}
