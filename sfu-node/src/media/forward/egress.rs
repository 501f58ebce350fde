//! The way out to one transport: its transport-wide counter, the payload scratch, and the counters of what was sent.

use crate::media::api::{ShardStats, TransportKey};
use crate::media::forward::Sink;
use crate::media::forward::bandwidth::Bandwidth;
use crate::media::forward::clock::Time;
use crate::media::forward::picture::{PictureIds, PictureShift};
use crate::media::forward::rtp::MAX_RTP_LEN;

/// Original sequence number of an RTX payload (RFC 4588 section 4), bytes.
pub(crate) const OSN_LEN: usize = 2;

/// The longest padding there is: its last byte counts it (RFC 3550 section 5.1).
const PADDING: [u8; 255] = {
    let mut padding = [0; 255];
    padding[254] = 255;
    padding
};

/// Room for a payload that is not sent as it came.
pub(crate) type Scratch = [u8; MAX_RTP_LEN + OSN_LEN];

/// A payload and what it needs on the way out.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    pub(crate) payload: &'a [u8],
    /// Original sequence number, for the RTX stream.
    pub(crate) original: Option<u16>,
    pub(crate) pictures: &'a PictureIds,
    pub(crate) shift: PictureShift,
}

/// See the file's head.
pub(crate) struct Egress<'a, S> {
    pub(crate) now: Time,
    pub(crate) abs_send_time: [u8; 3],
    pub(crate) to: TransportKey,
    pub(crate) bandwidth: &'a mut Option<Box<Bandwidth>>,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) stats: &'a mut ShardStats,
    pub(crate) sink: &'a mut S,
}

impl<'a, S: Sink> Egress<'a, S> {
    /// The way out to a transport at `now`.
    pub(crate) fn to(
        now: Time,
        to: TransportKey,
        bandwidth: &'a mut Option<Box<Bandwidth>>,
        scratch: &'a mut Scratch,
        stats: &'a mut ShardStats,
        sink: &'a mut S,
    ) -> Self {
        Self { now, abs_send_time: now.abs_send_time(), to, bandwidth, scratch, stats, sink }
    }

    /// More may go out now.
    pub(crate) fn lets_out(&self) -> bool {
        self.bandwidth.as_ref().is_none_or(|bandwidth| bandwidth.lets_out(self.now))
    }

    /// The packet's transport-wide number, where one is sent.
    pub(crate) fn transport_cc(&mut self, id: Option<u8>) -> Option<u16> {
        id.map(|_| self.bandwidth.get_or_insert_with(|| Box::new(Bandwidth::new())).next_number())
    }

    /// Hands out a packet that is all padding, with a transport-wide number.
    pub(crate) fn pad(&mut self, header: &[u8]) {
        self.stats.packets_sent += 1;
        self.stats.padding_sent += 1;
        self.stats.bytes_sent += (header.len() + PADDING.len()) as u64;
        if let Some(bandwidth) = self.bandwidth.as_mut() {
            bandwidth.sent(self.now, header.len() + PADDING.len());
        }
        self.sink.rtp(self.to, header, &PADDING);
    }

    /// Hands a packet out; the payload is copied only when it changes. `numbered`: with a transport-wide number.
    pub(crate) fn emit(&mut self, header: &[u8], body: &Body<'_>, numbered: bool) {
        let as_is = body.original.is_none() && body.shift == PictureShift::default();
        let payload = if as_is { body.payload } else { rewritten(self.scratch, body) };
        let len = header.len() + payload.len();
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += len as u64;
        if numbered && let Some(bandwidth) = self.bandwidth.as_mut() {
            bandwidth.sent(self.now, len);
        }
        self.sink.rtp(self.to, header, payload);
    }
}

fn rewritten<'s>(scratch: &'s mut Scratch, body: &Body<'_>) -> &'s [u8] {
    let start = if body.original.is_some() { OSN_LEN } else { 0 };
    let Some(room) = scratch.get_mut(..start + body.payload.len()) else { return &[] };
    let (osn, payload) = room.split_at_mut(start);
    if let Some(original) = body.original {
        osn.copy_from_slice(&original.to_be_bytes());
    }
    payload.copy_from_slice(body.payload);
    if body.shift != PictureShift::default() {
        body.pictures.rewrite(payload, body.shift);
    }
    room
}
