//! The way out to one transport: its transport-wide counter, the payload scratch, and the counters of what was sent.

use crate::media::api::{ShardStats, TransportKey};
use crate::media::forward::Sink;
use crate::media::forward::clock::Time;
use crate::media::forward::picture::{PictureIds, PictureShift};
use crate::media::forward::rtp::MAX_RTP_LEN;

/// Original sequence number of an RTX payload (RFC 4588 section 4), bytes.
const OSN_LEN: usize = 2;

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
    pub(crate) transport_cc: &'a mut u16,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) stats: &'a mut ShardStats,
    pub(crate) sink: &'a mut S,
}

impl<S: Sink> Egress<'_, S> {
    /// The next transport-wide number, counted only where it is sent.
    pub(crate) fn next_transport_cc(&mut self, id: Option<u8>) -> u16 {
        let next = *self.transport_cc;
        if id.is_some() {
            *self.transport_cc = next.wrapping_add(1);
        }
        next
    }

    /// Hands a packet out; the payload is copied only when it changes.
    pub(crate) fn emit(&mut self, header: &[u8], body: &Body<'_>) {
        let as_is = body.original.is_none() && body.shift == PictureShift::default();
        let payload = if as_is { body.payload } else { rewritten(self.scratch, body) };
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += (header.len() + payload.len()) as u64;
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
