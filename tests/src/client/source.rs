//! Synthetic media: packets whose payload says when they were sent, in descriptors an SFU has to understand.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Opus: one packet every 20 ms (RFC 7587 section 4.2).
pub(crate) const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// Largest RTP payload made here, bytes: what libwebrtc sends on an Ethernet path.
const MAX_PAYLOAD: usize = 1150;
/// Payload of an Opus packet, bytes: 48 kb/s.
const AUDIO_PAYLOAD: usize = 120;
/// Marks a stamp.
const MAGIC: [u8; 4] = *b"MRDN";
/// Length of a stamp: magic, source, counter, send time.
const STAMP_LEN: usize = 20;
/// Payload descriptor with 15-bit picture id, TL0PICIDX and temporal layer (RFC 7741 section 4.2), as for simulcast.
const DESCRIPTOR_LEN: usize = 6;

/// What a packet's payload says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which track (and layer) it is of; chosen at random.
    pub source: u32,
    /// Counts the packets of one track.
    pub counter: u32,
    /// When it was made, nanoseconds of Unix time.
    pub sent: u64,
}

impl Stamp {
    /// Reads the stamp at the end of a payload.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let stamp = payload.last_chunk::<STAMP_LEN>()?;
        let (magic, rest) = stamp.split_first_chunk::<4>()?;
        let (source, rest) = rest.split_first_chunk::<4>()?;
        let (counter, sent) = rest.split_first_chunk::<4>()?;
        (*magic == MAGIC).then_some(Self {
            source: u32::from_be_bytes(*source),
            counter: u32::from_be_bytes(*counter),
            sent: u64::from_be_bytes(*sent.first_chunk::<8>()?),
        })
    }

    /// Appends it to a payload.
    pub(crate) fn write(self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(&MAGIC);
        payload.extend_from_slice(&self.source.to_be_bytes());
        payload.extend_from_slice(&self.counter.to_be_bytes());
        payload.extend_from_slice(&self.sent.to_be_bytes());
    }
}

/// Nanoseconds of Unix time.
#[must_use]
pub fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Whether a payload begins a VP8 keyframe (RFC 7741 section 4.3).
#[must_use]
pub(crate) fn begins_vp8_keyframe(payload: &[u8]) -> bool {
    let Some((&first, rest)) = payload.split_first() else { return false };
    let starts_frame = first & 0x10 != 0 && first & 0x07 == 0;
    let mut skip = 0;
    if first & 0x80 != 0 {
        let extension = rest.first().copied().unwrap_or(0);
        let long_id = rest.get(1).is_some_and(|b| b & 0x80 != 0);
        skip =
            1 + match extension & 0x80 {
                0 => 0,
                _ if long_id => 2,
                _ => 1,
            } + usize::from(extension & 0x40 != 0)
                + usize::from(extension & 0x30 != 0);
    }
    starts_frame && rest.get(skip).is_some_and(|tag| tag & 0x01 == 0)
}

/// A VP8 stream (one simulcast layer, or the only one).
#[derive(Debug)]
pub(crate) struct VideoSource {
    source: u32,
    frame_len: usize,
    picture: u16,
    keyframe_wanted: bool,
    counter: u32,
}

impl VideoSource {
    /// Frames of `bits_per_second / frames_per_second`, whether key or not, so that the rate is what was asked for.
    #[must_use]
    pub(crate) fn new(bits_per_second: u32, frames_per_second: u32) -> Self {
        let frame_len = usize::try_from(bits_per_second / 8 / frames_per_second.max(1)).unwrap_or(usize::MAX);
        Self { source: rand::random(), frame_len, picture: 0, keyframe_wanted: true, counter: 0 }
    }

    /// The next frame will be a keyframe.
    pub(crate) fn request_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Packets of a frame.
    #[must_use]
    pub(crate) fn packets_per_frame(&self) -> usize {
        self.frame_len.div_ceil(MAX_PAYLOAD).max(1)
    }

    /// Begins a frame; then [`VideoSource::packet`] as often as [`VideoSource::packets_per_frame`] says.
    pub(crate) fn begin_frame(&mut self) -> Frame {
        self.picture = self.picture.wrapping_add(1) & 0x7fff;
        Frame { key: std::mem::take(&mut self.keyframe_wanted), picture: self.picture }
    }

    /// Packet `index` of a frame, stamped now.
    pub(crate) fn packet(&mut self, frame: Frame, index: usize) -> Vec<u8> {
        let len = (self.frame_len / self.packets_per_frame()).clamp(DESCRIPTOR_LEN + 10 + STAMP_LEN, MAX_PAYLOAD);
        let mut payload = Vec::with_capacity(len);
        let [high, low] = (frame.picture | 0x8000).to_be_bytes();
        payload.extend_from_slice(&[if index == 0 { 0x90 } else { 0x80 }, 0xe0, high, low, low, 0]);
        if index == 0 {
            payload.push(u8::from(!frame.key));
            payload.extend_from_slice(&[0, 0]);
            if frame.key {
                // Start code, then 640x360 (RFC 6386 section 9.1).
                payload.extend_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
            }
        }
        payload.resize(len - STAMP_LEN, 0x5a);
        Stamp { source: self.source, counter: self.counter, sent: unix_nanos() }.write(&mut payload);
        self.counter = self.counter.wrapping_add(1);
        payload
    }
}

/// A frame being cut into packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Decodable by itself.
    pub(crate) key: bool,
    picture: u16,
}

/// An Opus stream.
#[derive(Debug)]
pub(crate) struct AudioSource {
    source: u32,
    counter: u32,
}

impl AudioSource {
    /// A stream of its own.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { source: rand::random(), counter: 0 }
    }

    /// The next packet, stamped now.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(AUDIO_PAYLOAD);
        // CELT, fullband, 20 ms, mono, one frame (RFC 6716 section 3.1).
        payload.push(31 << 3);
        payload.resize(AUDIO_PAYLOAD - STAMP_LEN, 0x5a);
        Stamp { source: self.source, counter: self.counter, sent: unix_nanos() }.write(&mut payload);
        self.counter = self.counter.wrapping_add(1);
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn video_has_its_rate_and_keyframes_on_request() {
        let mut source = VideoSource::new(1_500_000, 30);
        let mut sizes = 0;
        for number in 0..30 {
            if number == 20 {
                source.request_keyframe();
            }
            let frame = source.begin_frame();
            assert_eq!(frame.key, number == 0 || number == 20);
            for index in 0..source.packets_per_frame() {
                let packet = source.packet(frame, index);
                assert_eq!(begins_vp8_keyframe(&packet), frame.key && index == 0);
                assert!(Stamp::read(&packet).is_some());
                sizes += packet.len();
            }
        }
        assert!((180_000..=187_500).contains(&sizes), "{sizes} bytes in a second");
    }

    #[test]
    fn stamps_count() {
        let mut source = AudioSource::new();
        let counters: Vec<u32> = (0..3).map(|_| Stamp::read(&source.packet()).unwrap().counter).collect();
        assert_eq!(counters, [0, 1, 2]);
        assert_eq!(Stamp::read(b"short"), None);
    }
}
