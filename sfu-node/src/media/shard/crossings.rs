//! What a shard has for the others of its node: frames of bytes, staged until its thread carries them over. **Pure.**

use bytes::Bytes;

use crate::media::api::{RoomKey, ShardIndex, SpeakerKey};
use crate::media::datachannel::Label;
use crate::media::datachannel::packet::Stamped;
use crate::media::forward::Record;

/// A frame's length and flags, little endian.
const HEADER: usize = 4;
/// May be lost where there is no room.
const DROPPABLE: u32 = 1 << 31;
/// A data message; else a record of the forwarder.
const DATA: u32 = 1 << 30;
const LEN: u32 = DATA - 1;

/// Frames for each of the other shards, back to back.
#[derive(Debug, Default)]
pub struct Crossings {
    staged: Vec<Vec<u8>>,
}

impl Crossings {
    /// Takes a record of the forwarder.
    pub(super) fn push(&mut self, to: ShardIndex, record: Record<'_>) {
        let flags = if record.droppable { DROPPABLE } else { 0 };
        self.frame(to, flags, &[record.head, record.payload]);
    }

    /// Takes a data message.
    pub(super) fn push_data(&mut self, to: ShardIndex, message: &RoomMessage) {
        let flags = if message.label == Label::Reliable { DATA } else { DROPPABLE | DATA };
        self.frame(to, flags, &[&message.encode()]);
    }

    /// What waits for each shard. It is to be taken out.
    pub fn staged(&mut self) -> impl Iterator<Item = (ShardIndex, &mut Vec<u8>)> {
        let all = ShardIndex::all(self.staged.len()).zip(&mut self.staged);
        all.filter(|(_, frames)| !frames.is_empty())
    }

    fn frame(&mut self, to: ShardIndex, flags: u32, parts: &[&[u8]]) {
        if self.staged.len() <= to.place() {
            self.staged.resize_with(to.place() + 1, Vec::new);
        }
        let Some(staged) = self.staged.get_mut(to.place()) else { return };
        let len = u32::try_from(parts.iter().map(|part| part.len()).sum::<usize>()).unwrap_or(u32::MAX);
        debug_assert!(len <= LEN);
        staged.extend_from_slice(&(len & LEN | flags).to_le_bytes());
        parts.iter().for_each(|part| staged.extend_from_slice(part));
    }
}

/// One frame of another shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// With its header, to be handed on as it is.
    pub whole: &'a [u8],
    /// What is in it.
    pub(super) body: &'a [u8],
    /// May be lost where there is no room.
    pub droppable: bool,
    pub(super) is_data: bool,
}

/// Takes frames apart; what is cut short ends them.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let header = u32::from_le_bytes(*bytes.first_chunk::<HEADER>()?);
        let len = HEADER.checked_add(usize::try_from(header & LEN).ok()?)?;
        let (whole, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        let body = whole.get(HEADER..)?;
        Some(Frame { whole, body, droppable: header & DROPPABLE != 0, is_data: header & DATA != 0 })
    })
}

/// A data message for those of a room that are on another shard.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RoomMessage {
    pub(super) room: RoomKey,
    /// Whose it is; its other transports do not get it.
    pub(super) sender: SpeakerKey,
    pub(super) label: Label,
    /// It came from another node.
    pub(super) piped: bool,
    pub(super) stamped: Stamped,
}

impl RoomMessage {
    fn encode(&self) -> Vec<u8> {
        let label = match self.label {
            Label::Reliable => 0,
            Label::Lossy => 1,
            Label::DataTrack => 2,
        };
        let mut out = vec![label, u8::from(self.piped)];
        out.extend_from_slice(&self.room.0.to_le_bytes());
        out.extend_from_slice(&self.sender.0.to_le_bytes());
        out.extend_from_slice(&self.stamped.sequence.to_le_bytes());
        for names in [&self.stamped.identities, &self.stamped.sids] {
            put_len(&mut out, names.len());
            for name in names {
                put_len(&mut out, name.len());
                out.extend_from_slice(name.as_bytes());
            }
        }
        out.extend_from_slice(&self.stamped.bytes);
        out
    }

    /// Reads a data frame. `None`: it is none.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let ([label, piped], mut rest) = body.split_first_chunk()?;
        let label = match label {
            0 => Label::Reliable,
            1 => Label::Lossy,
            2 => Label::DataTrack,
            _ => return None,
        };
        let room = RoomKey(u64::from_le_bytes(take(&mut rest)?));
        let sender = SpeakerKey(u64::from_le_bytes(take(&mut rest)?));
        let sequence = u32::from_le_bytes(take(&mut rest)?);
        let identities = take_names(&mut rest)?;
        let sids = take_names(&mut rest)?;
        let stamped = Stamped { bytes: Bytes::copy_from_slice(rest), sequence, identities, sids };
        Some(Self { room, sender, label, piped: *piped != 0, stamped })
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*taken)
}

fn take_names(rest: &mut &[u8]) -> Option<Vec<String>> {
    let count = u32::from_le_bytes(take(rest)?);
    let name = |_| {
        let len = usize::try_from(u32::from_le_bytes(take(rest)?)).ok()?;
        let (name, tail) = rest.split_at_checked(len)?;
        *rest = tail;
        String::from_utf8(name.to_vec()).ok()
    };
    (0..count).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> RoomMessage {
        RoomMessage {
            room: RoomKey(1 << 40),
            sender: SpeakerKey(2),
            label: Label::Lossy,
            piped: true,
            stamped: Stamped {
                bytes: Bytes::from_static(&[7; 300]),
                sequence: 9,
                identities: vec!["ada".to_owned(), String::new()],
                sids: vec!["PA_bob".to_owned()],
            },
        }
    }

    #[test]
    fn frames_come_out_for_each_shard_as_they_went_in() {
        let mut crossings = Crossings::default();
        let record = Record { head: &[1, 2], payload: &[3], droppable: false };
        crossings.push(ShardIndex(2), record);
        crossings.push(ShardIndex(0), Record { droppable: true, ..record });
        crossings.push_data(ShardIndex(2), &message());
        let staged: Vec<_> = crossings.staged().map(|(to, frames)| (to, std::mem::take(frames))).collect();
        assert_eq!(staged.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [ShardIndex(0), ShardIndex(2)]);
        assert_eq!(crossings.staged().count(), 0);

        let lone: Vec<Frame<'_>> = frames(&staged[0].1).collect();
        assert_eq!((lone.len(), lone[0].body, lone[0].droppable, lone[0].is_data), (1, &[1, 2, 3][..], true, false));
        let both: Vec<Frame<'_>> = frames(&staged[1].1).collect();
        assert_eq!((both[0].body, both[0].droppable), (&[1, 2, 3][..], false));
        assert!(both[1].is_data && both[1].droppable);
        assert_eq!(RoomMessage::decode(both[1].body), Some(message()));
        assert_eq!([both[0].whole, both[1].whole].concat(), staged[1].1);
    }

    #[test]
    fn a_reliable_message_waits_for_room() {
        let mut crossings = Crossings::default();
        crossings.push_data(ShardIndex(0), &RoomMessage { label: Label::Reliable, ..message() });
        let staged = crossings.staged().next().unwrap().1.clone();
        let frame = frames(&staged).next().unwrap();
        assert!(frame.is_data && !frame.droppable);
    }

    #[test]
    fn what_is_cut_short_is_dropped() {
        let mut crossings = Crossings::default();
        crossings.push_data(ShardIndex(0), &message());
        let staged = crossings.staged().next().unwrap().1.clone();
        assert_eq!(frames(&staged[..staged.len() - 1]).count(), 0);
        let body = frames(&staged).next().unwrap().body;
        for len in 0..body.len() - 300 {
            assert_eq!(RoomMessage::decode(&body[..len]), None);
        }
        let mut forged = body.to_vec();
        forged[22..26].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(RoomMessage::decode(&forged), None, "a count that cannot be");
    }
}
