//! An own track on its way out: its sources, its clock, its packets.

use std::time::{Duration, Instant};

use str0m::format::Codec;
use str0m::media::{Mid, Pt, Rid};
use str0m::rtp::{ExtensionValues, RtpWrite};

use super::super::Publish;
use super::super::negotiation::RIDS;
use super::super::peer::Peer;
use super::super::source::{AudioSource, Stamp, VideoSource};

/// RTP clocks, Hz.
const VIDEO_CLOCK: u32 = 90_000;
const AUDIO_CLOCK: u32 = 48_000;

struct Layer {
    rid: Option<Rid>,
    source: VideoSource,
    sequence: u64,
}

enum Media {
    Audio { source: AudioSource, sequence: u64 },
    Video { layers: Vec<Layer> },
}

/// An own track.
pub(crate) struct Outgoing {
    cid: String,
    sid: String,
    mid: Option<Mid>,
    payload_type: Option<Pt>,
    muted: bool,
    media: Media,
    interval: Duration,
    ticks: u32,
    timestamp: u32,
    due: Option<Instant>,
}

impl Outgoing {
    /// A track whose section is still to be negotiated.
    pub(crate) fn new(track: &Publish) -> Self {
        let (media, interval, ticks) = match track {
            Publish::Audio { interval, .. } => {
                let ticks = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX).saturating_mul(AUDIO_CLOCK / 1000);
                (Media::Audio { source: AudioSource::new(), sequence: 1 }, *interval, ticks)
            }
            Publish::Video { layers, frames_per_second, .. } => {
                let simulcast = layers.len() > 1;
                let layers = layers.iter().zip(RIDS).map(|(rate, rid)| Layer {
                    rid: simulcast.then(|| Rid::from(rid)),
                    source: VideoSource::new(*rate, *frames_per_second),
                    sequence: 1,
                });
                let fps = (*frames_per_second).max(1);
                (Media::Video { layers: layers.collect() }, Duration::from_secs(1) / fps, VIDEO_CLOCK / fps)
            }
        };
        Self {
            cid: track.cid().to_owned(),
            sid: String::new(),
            mid: None,
            payload_type: None,
            muted: false,
            media,
            interval,
            ticks,
            timestamp: 0,
            due: None,
        }
    }

    /// The client's id of it.
    pub(crate) fn cid(&self) -> &str {
        &self.cid
    }

    /// The server's id of it; empty until it was told.
    pub(crate) fn sid(&self) -> &str {
        &self.sid
    }

    /// The server has told its id.
    pub(crate) fn set_sid(&mut self, sid: String) {
        self.sid = sid;
    }

    /// Its section, once offered.
    pub(crate) fn section(&self) -> Option<Mid> {
        self.mid
    }

    /// It was offered in this section.
    pub(crate) fn set_section(&mut self, mid: Mid) {
        self.mid = Some(mid);
    }

    /// An answer came: it may be sent if its section was accepted.
    pub(crate) fn negotiated(&mut self, peer: &Peer) {
        let codec = match self.media {
            Media::Audio { .. } => Codec::Opus,
            Media::Video { .. } => Codec::Vp8,
        };
        self.payload_type = self.mid.and_then(|mid| peer.payload_type(mid, codec));
        if self.payload_type.is_some() && !self.muted {
            self.due.get_or_insert_with(Instant::now);
        }
    }

    /// Stops or starts its packets; after a pause video begins with a keyframe.
    pub(crate) fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
        self.request_keyframe(None);
        self.due = (!muted && self.payload_type.is_some()).then(Instant::now);
    }

    /// The next frame of this layer (or of all) is a keyframe.
    pub(crate) fn request_keyframe(&mut self, rid: Option<Rid>) {
        if let Media::Video { layers } = &mut self.media {
            for layer in layers.iter_mut().filter(|l| rid.is_none() || l.rid == rid) {
                layer.source.request_keyframe();
            }
        }
    }

    /// When the next packets are due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Sends what is due, each packet on its own so that its stamp is the time of its sending; notes the stamps in `sent`.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn send_due(&mut self, now: Instant, peer: &mut Peer, sent: &mut Vec<u64>) -> anyhow::Result<()> {
        let (Some(due), Some(mid), Some(pt)) = (self.due, self.mid, self.payload_type) else { return Ok(()) };
        if due > now {
            return Ok(());
        }
        // A late loop catches up on the clock, not by a burst.
        self.due = Some((due + self.interval).max(now));
        self.timestamp = self.timestamp.wrapping_add(self.ticks);
        let timestamp = self.timestamp;
        match &mut self.media {
            Media::Audio { source, sequence } => {
                let extensions = ExtensionValues {
                    audio_level: Some(-30),
                    voice_activity: Some(true),
                    ..ExtensionValues::default()
                };
                let payload = source.packet();
                sent.extend(Stamp::read(&payload).map(|s| s.sent));
                let write = RtpWrite::new(pt, (*sequence).into(), timestamp, now, payload);
                *sequence += 1;
                send(peer, mid, None, write.marker(true).ext_vals(extensions))?;
            }
            Media::Video { layers } => {
                for layer in layers {
                    let frame = layer.source.begin_frame();
                    let packets = layer.source.packets_per_frame();
                    for index in 0..packets {
                        let payload = layer.source.packet(frame, index);
                        sent.extend(Stamp::read(&payload).map(|s| s.sent));
                        let write = RtpWrite::new(pt, layer.sequence.into(), timestamp, now, payload);
                        layer.sequence += 1;
                        send(peer, mid, layer.rid, write.marker(index + 1 == packets).nackable(true))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn send(peer: &mut Peer, mid: Mid, rid: Option<Rid>, write: RtpWrite) -> anyhow::Result<()> {
    if let Some(stream) = peer.rtc.direct_api().stream_tx_by_mid(mid, rid) {
        stream.write_rtp(write);
    }
    peer.tick()?;
    Ok(())
}
