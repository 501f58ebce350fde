//! What shards tell each other about a track that one receives and others forward too. A packet crosses after the
//! receiving shard found out whose and how new it is, so all shards forward the very same; holes, feedback to the
//! publisher and the throttle of keyframe requests stay with the shard that receives.

use arrayvec::ArrayVec;

use crate::media::api::{MAX_LAYERS, TrackKey};
use crate::media::forward::cache::SourcePacket;
use crate::media::forward::clock::Time;
use crate::media::forward::dependency::Template;
use crate::media::forward::header::Copied;
use crate::media::forward::layering::MAX_TARGETS;
use crate::media::forward::meter::{Meter, TargetMeter};
use crate::media::forward::reception::SenderClocks;
use crate::media::forward::scalability::Learnt;

/// Longest header extension element (RFC 8285 section 4.3), bytes.
const MAX_ELEMENT: usize = 255;
/// Longest record without a packet's payload, bytes: four extension elements and the fixed part. What was learnt of a
/// stream's layers takes less.
const MAX_HEAD: usize = 4 * MAX_ELEMENT + 64;
/// A time or number that is not there.
const NONE: u64 = u64::MAX;

const FOLLOW: u8 = 1;
const UNFOLLOW: u8 = 2;
const KEYFRAME_WANTED: u8 = 3;
const STANDING: u8 = 4;
const CLOCKS: u8 = 5;
const PACKET: u8 = 6;
const LAYERS: u8 = 7;

const FIRST: u8 = 1;
const LATE: u8 = 2;
const REPAIRED: u8 = 4;
const MARKER: u8 = 8;
const LIVE: u8 = 1;
const LAYERED: u8 = 1;
const DESCRIBED: u8 = 2;
const TIMED: u8 = 4;
const METERED: u8 = 8;

/// A record for another shard, in two parts that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// What it is.
    pub head: &'a [u8],
    /// A packet's payload.
    pub payload: &'a [u8],
    /// One of many: may be lost where there is no room.
    pub droppable: bool,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Crossing<'a> {
    /// To who receives a track: I forward it too, hand it to me.
    Follow(TrackKey),
    /// To who receives a track: not any more.
    Unfollow(TrackKey),
    /// To who receives a track: a subscriber waits for a keyframe of this layer.
    KeyframeWanted { track: TrackKey, layer: u8 },
    /// To a new follower: the track's layers as they are, and the offset of its publisher's clock.
    Standing { track: TrackKey, ntp_offset: Option<u64>, layers: ArrayVec<Standing, MAX_LAYERS> },
    /// To a new follower, before the standing: what is known of a stream's scalable structure.
    Layers { track: TrackKey, layer: u8, slot: u8, learnt: Box<Learnt> },
    /// To followers: a sender report of a layer, and the offset of its publisher's clock.
    Clocks { track: TrackKey, layer: u8, clocks: SenderClocks, ntp_offset: u64 },
    /// To followers: a packet.
    Packet(Handed<'a>),
}

/// A layer that had packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) layer: u8,
    pub(crate) epoch: u32,
    pub(crate) slot: u8,
    pub(crate) live: bool,
    pub(crate) last: Time,
    pub(crate) meter: Meter,
    pub(crate) clocks: Option<SenderClocks>,
}

/// A packet that is new to its track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Handed<'a> {
    pub(crate) track: TrackKey,
    pub(crate) layer: u8,
    pub(crate) epoch: u32,
    /// First of a run.
    pub(crate) first: bool,
    pub(crate) late: bool,
    /// Came back by RTX.
    pub(crate) repaired: bool,
    pub(crate) packet: SourcePacket<'a>,
}

impl<'a> Crossing<'a> {
    /// Writes the record and shows it to `send`.
    pub(crate) fn write(&self, send: impl FnOnce(Record<'_>)) {
        let mut head = Head::default();
        let mut payload: &[u8] = &[];
        match self {
            Self::Follow(track) => head.kind(FOLLOW, *track),
            Self::Unfollow(track) => head.kind(UNFOLLOW, *track),
            Self::KeyframeWanted { track, layer } => {
                head.kind(KEYFRAME_WANTED, *track);
                head.byte(*layer);
            }
            Self::Standing { track, ntp_offset, layers } => {
                head.kind(STANDING, *track);
                head.byte(u8::from(ntp_offset.is_some()));
                head.number(ntp_offset.unwrap_or(0));
                layers.iter().for_each(|layer| head.standing(layer));
            }
            Self::Layers { track, layer, slot, learnt } => {
                head.kind(LAYERS, *track);
                head.put(&[*layer, *slot]);
                head.learnt(learnt);
            }
            Self::Clocks { track, layer, clocks, ntp_offset } => {
                head.kind(CLOCKS, *track);
                head.byte(*layer);
                head.clocks(Some(*clocks));
                head.number(*ntp_offset);
            }
            Self::Packet(handed) => {
                head.packet(handed);
                payload = handed.packet.payload;
            }
        }
        send(Record { head: &head.bytes, payload, droppable: matches!(self, Self::Packet(_)) });
    }

    /// Reads a record, head and payload together. `None`: it is none.
    pub(crate) fn read(record: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(record);
        let kind = rest.byte()?;
        let track = TrackKey(rest.number()?);
        Some(match kind {
            FOLLOW => Self::Follow(track),
            UNFOLLOW => Self::Unfollow(track),
            KEYFRAME_WANTED => Self::KeyframeWanted { track, layer: rest.byte()? },
            STANDING => {
                let ntp_offset = (rest.byte()? != 0, rest.number()?);
                let mut layers = ArrayVec::new();
                while !rest.0.is_empty() {
                    layers.try_push(rest.standing()?).ok()?;
                }
                Self::Standing { track, ntp_offset: ntp_offset.0.then_some(ntp_offset.1), layers }
            }
            CLOCKS => Self::Clocks { track, layer: rest.byte()?, clocks: rest.clocks()??, ntp_offset: rest.number()? },
            PACKET => Self::Packet(rest.packet(track)?),
            LAYERS => Self::Layers { track, layer: rest.byte()?, slot: rest.byte()?, learnt: Box::new(rest.learnt()?) },
            _ => return None,
        })
    }
}

#[derive(Default)]
struct Head {
    bytes: ArrayVec<u8, MAX_HEAD>,
}

impl Head {
    fn put(&mut self, bytes: &[u8]) {
        let fits = self.bytes.try_extend_from_slice(bytes);
        debug_assert!(fits.is_ok());
    }

    fn byte(&mut self, byte: u8) {
        self.put(&[byte]);
    }

    fn number(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    fn number32(&mut self, number: u32) {
        self.put(&number.to_le_bytes());
    }

    fn numbers32(&mut self, numbers: &[u32]) {
        numbers.iter().for_each(|number| self.number32(*number));
    }

    fn kind(&mut self, kind: u8, track: TrackKey) {
        self.byte(kind);
        self.number(track.0);
    }

    fn clocks(&mut self, clocks: Option<SenderClocks>) {
        let clocks = clocks.unwrap_or(SenderClocks { ntp: 0, rtp: 0, at: Time(NONE) });
        self.number(clocks.ntp);
        self.number32(clocks.rtp);
        self.number(clocks.at.0);
    }

    fn standing(&mut self, standing: &Standing) {
        self.put(&[standing.layer, standing.slot, if standing.live { LIVE } else { 0 }]);
        self.number32(standing.epoch);
        self.number(standing.last.0);
        self.number(standing.meter.began.map_or(NONE, |began| began.0));
        self.number(standing.meter.bytes);
        self.number(standing.meter.rate.unwrap_or(NONE));
        self.clocks(standing.clocks);
    }

    fn learnt(&mut self, learnt: &Learnt) {
        let Learnt { descriptor, layered, active, generation, described, meter, seen, timestamp, told } = learnt;
        let flags = [
            (*layered, LAYERED),
            (described.is_some(), DESCRIBED),
            (timestamp.is_some(), TIMED),
            (meter.known.is_some(), METERED),
        ];
        self.byte(flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag));
        self.numbers32(&[*active, *generation, *seen, timestamp.unwrap_or(0), told.0, told.1]);
        let (number, template) = described.unwrap_or_default();
        self.put(&number.to_le_bytes());
        self.put(&[template.spatial, template.temporal]);
        self.number32(template.targets);
        self.number32(template.switches);
        self.number(template.needs);
        self.number(meter.began.map_or(NONE, |began| began.0));
        self.numbers32(&meter.bytes);
        self.numbers32(&meter.frames);
        let (rates, frames) = meter.known.unwrap_or_default();
        rates.iter().for_each(|rate| self.number(*rate));
        self.numbers32(&frames);
        self.put(descriptor);
    }

    fn packet(&mut self, handed: &Handed<'_>) {
        let Handed { track, layer, epoch, first, late, repaired, packet } = handed;
        let SourcePacket { sequence, timestamp, marker, slot, copied, payload: _ } = packet;
        self.kind(PACKET, *track);
        let flags = [(*first, FIRST), (*late, LATE), (*repaired, REPAIRED), (*marker, MARKER)];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag);
        self.put(&[*layer, *slot, flags]);
        self.number32(*epoch);
        self.number(*sequence);
        self.number32(*timestamp);
        let elements = [copied.audio_level, copied.dependency, copied.capture_time];
        for element in elements {
            match u8::try_from(element.len()) {
                Ok(len) => {
                    self.byte(len);
                    self.put(element);
                }
                Err(_) => self.byte(0),
            }
        }
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn number32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn element(&mut self) -> Option<&'a [u8]> {
        let len = self.byte()?;
        let (element, rest) = self.0.split_at_checked(len.into())?;
        self.0 = rest;
        Some(element)
    }

    /// The inner `None`: written as absent.
    fn clocks(&mut self) -> Option<Option<SenderClocks>> {
        let clocks = SenderClocks { ntp: self.number()?, rtp: self.number32()?, at: Time(self.number()?) };
        Some(Some(clocks).filter(|clocks| clocks.at != Time(NONE)))
    }

    fn standing(&mut self) -> Option<Standing> {
        let [layer, slot, flags] = self.take()?;
        let epoch = self.number32()?;
        let last = Time(self.number()?);
        let present = |number: u64| Some(number).filter(|number| *number != NONE);
        let meter =
            Meter { began: present(self.number()?).map(Time), bytes: self.number()?, rate: present(self.number()?) };
        Some(Standing { layer, epoch, slot, live: flags & LIVE != 0, last, meter, clocks: self.clocks()? })
    }

    fn learnt(&mut self) -> Option<Learnt> {
        let flags = self.byte()?;
        let has = |flag: u8| flags & flag != 0;
        let (active, generation, seen) = (self.number32()?, self.number32()?, self.number32()?);
        let timestamp = self.number32()?;
        let told = (self.number32()?, self.number32()?);
        let number = self.take().map(u16::from_le_bytes)?;
        let [spatial, temporal] = self.take()?;
        let (targets, switches, needs) = (self.number32()?, self.number32()?, self.number()?);
        let described = has(DESCRIBED).then_some((number, Template { spatial, temporal, targets, switches, needs }));
        let began = Some(self.number()?).filter(|began| *began != NONE).map(Time);
        let (bytes, frames) = (self.numbers32()?, self.numbers32()?);
        let rates = (0..MAX_TARGETS).map(|_| self.number()).collect::<Option<ArrayVec<u64, MAX_TARGETS>>>()?;
        let known = (rates.into_inner().ok()?, self.numbers32()?);
        let meter = TargetMeter { began, bytes, frames, known: has(METERED).then_some(known) };
        let mut descriptor = ArrayVec::new();
        descriptor.try_extend_from_slice(std::mem::take(&mut self.0)).ok()?;
        let timestamp = has(TIMED).then_some(timestamp);
        Some(Learnt { descriptor, layered: has(LAYERED), active, generation, described, meter, seen, timestamp, told })
    }

    fn numbers32<const N: usize>(&mut self) -> Option<[u32; N]> {
        let numbers = (0..N).map(|_| self.number32()).collect::<Option<ArrayVec<u32, N>>>()?;
        numbers.into_inner().ok()
    }

    fn packet(&mut self, track: TrackKey) -> Option<Handed<'a>> {
        let [layer, slot, flags] = self.take()?;
        let epoch = self.number32()?;
        let sequence = self.number()?;
        let timestamp = self.number32()?;
        let copied =
            Copied { audio_level: self.element()?, dependency: self.element()?, capture_time: self.element()? };
        let marker = flags & MARKER != 0;
        let packet = SourcePacket { sequence, timestamp, marker, slot, copied, payload: self.0 };
        let (first, late, repaired) = (flags & FIRST != 0, flags & LATE != 0, flags & REPAIRED != 0);
        Some(Handed { track, layer, epoch, first, late, repaired, packet })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(crossing: &Crossing<'_>) -> (Vec<u8>, bool) {
        let mut out = None;
        crossing.write(|record| out = Some(([record.head, record.payload].concat(), record.droppable)));
        out.unwrap()
    }

    fn examples() -> Vec<Crossing<'static>> {
        let track = TrackKey(7 << 40);
        let clocks = SenderClocks { ntp: 1 << 63, rtp: 9, at: Time(77) };
        let meter = Meter { began: Some(Time(5)), bytes: 6, rate: None };
        let standing = Standing { layer: 1, epoch: 2, slot: 3, live: true, last: Time(4), meter, clocks: Some(clocks) };
        let silent = Standing { layer: 2, live: false, clocks: None, ..standing };
        let copied = Copied { audio_level: &[1], dependency: &[9; 255], capture_time: &[] };
        let template = Template { spatial: 1, temporal: 2, targets: 3, switches: 4, needs: 5 };
        let meter_known = Some(([6; 32], [7; 8]));
        let targets = TargetMeter { began: Some(Time(1)), bytes: [2; 32], frames: [3; 8], known: meter_known };
        let learnt = Learnt {
            descriptor: [9; 255].into_iter().collect(),
            layered: true,
            active: 7,
            generation: 8,
            described: Some((10, template)),
            meter: targets,
            seen: 11,
            timestamp: Some(12),
            told: (13, 14),
        };
        let packet =
            SourcePacket { sequence: 1 << 40, timestamp: u32::MAX, marker: true, slot: 1, copied, payload: &[5; 1000] };
        let handed = Handed { track, layer: 2, epoch: 3, first: true, late: false, repaired: true, packet };
        vec![
            Crossing::Follow(track),
            Crossing::Unfollow(track),
            Crossing::KeyframeWanted { track, layer: 2 },
            Crossing::Standing { track, ntp_offset: Some(0), layers: [standing, silent].into_iter().collect() },
            Crossing::Standing { track, ntp_offset: None, layers: ArrayVec::new() },
            Crossing::Layers { track, layer: 2, slot: 1, learnt: Box::new(learnt) },
            Crossing::Layers { track, layer: 0, slot: 0, learnt: Box::default() },
            Crossing::Clocks { track, layer: 1, clocks, ntp_offset: u64::MAX },
            Crossing::Packet(handed),
        ]
    }

    #[test]
    fn records_are_read_as_they_were_written_and_only_packets_may_be_lost() {
        for crossing in examples() {
            let (record, droppable) = written(&crossing);
            assert_eq!(Crossing::read(&record).as_ref(), Some(&crossing));
            assert_eq!(droppable, matches!(crossing, Crossing::Packet(_)));
        }
    }

    #[test]
    fn records_cut_short_do_not_panic() {
        for crossing in examples() {
            let (record, _) = written(&crossing);
            for len in 0..record.len() {
                let read = Crossing::read(&record[..len]);
                assert_ne!(read.as_ref(), Some(&crossing), "cut to {len}");
            }
        }
        assert_eq!(Crossing::read(&[99, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
