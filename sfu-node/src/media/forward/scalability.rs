//! What is known of one received stream's layers: their structure, which are on, and what each of them costs.

use arrayvec::ArrayVec;
use shared::control::TrackKind;

use crate::media::api::Codec;
use crate::media::forward::cache::SourcePacket;
use crate::media::forward::clock::Time;
use crate::media::forward::dependency::{Extended, Mandatory, Structure, Template};
use crate::media::forward::descriptor::{self, targets as layers_of};
use crate::media::forward::layering::{Frame, Reach, Target, Targets};
use crate::media::forward::meter::TargetMeter;

/// A frame rate asked for is met by a layer that is this much slower, frames per second (LiveKit's).
const FRAME_RATE_TOLERANCE: u32 = 3;

/// Longest dependency descriptor (one length byte, RFC 8285 section 4.3), bytes.
pub(crate) const MAX_DESCRIPTOR: usize = 255;

/// What was learnt of a stream with layers, for another shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Learnt {
    /// The dependency descriptor that brought the structure; empty: there is none.
    pub(crate) descriptor: ArrayVec<u8, MAX_DESCRIPTOR>,
    /// There are layers to choose from.
    pub(crate) layered: bool,
    pub(crate) active: u32,
    pub(crate) generation: u32,
    pub(crate) described: Option<(u16, Template)>,
    pub(crate) meter: TargetMeter,
    pub(crate) seen: u32,
    pub(crate) timestamp: Option<u32>,
    pub(crate) told: (u32, u32),
}

/// A stream's layers; nothing is kept of a stream that has only one.
#[derive(Debug, Default)]
pub(crate) struct Layering {
    known: Option<Box<Known>>,
    /// Timestamp of the newest packet.
    timestamp: Option<u32>,
    /// Generation and active targets when it was last asked.
    told: (u32, u32),
}

/// Of a stream with layers.
#[derive(Debug)]
pub(crate) struct Known {
    /// What the dependency descriptor says.
    structure: Option<Structure>,
    /// The descriptor that said it.
    descriptor: ArrayVec<u8, MAX_DESCRIPTOR>,
    pub(crate) targets: Targets,
    /// Targets that are on, one bit each.
    pub(crate) active: u32,
    /// Counts structures: targets of two have nothing to do with each other.
    pub(crate) generation: u32,
    /// The last frame that was described, by number.
    described: Option<(u16, Template)>,
    meter: TargetMeter,
    /// Spatial layers seen since the last keyframe, one bit each, where there is no structure.
    seen: u32,
}

impl Layering {
    /// Another stream from now on.
    pub(crate) fn restart(&mut self) {
        self.timestamp = None;
        if let Some(known) = self.known.as_mut() {
            known.generation = known.generation.wrapping_add(1);
            (known.structure, known.described) = (None, None);
            (known.targets, known.active) = (Targets::default(), u32::MAX);
            known.meter = TargetMeter::default();
        }
    }

    /// What there is to choose from.
    pub(crate) fn known(&self) -> Option<&Known> {
        self.known.as_deref()
    }

    /// What another shard is to know of it; `None`: nothing.
    pub(crate) fn learnt(&self) -> Option<Learnt> {
        let Known { structure, descriptor, targets, active, generation, described, meter, seen } = self.known()?;
        Some(Learnt {
            descriptor: structure.as_ref().map(|_| descriptor.clone()).unwrap_or_default(),
            layered: targets.len() > 0,
            active: *active,
            generation: *generation,
            described: *described,
            meter: meter.clone(),
            seen: *seen,
            timestamp: self.timestamp,
            told: self.told,
        })
    }

    /// Takes over what another shard learnt.
    pub(crate) fn take_learnt(&mut self, codec: Codec, learnt: Learnt) {
        let Learnt { descriptor, layered, active, generation, described, meter, seen, timestamp, told } = learnt;
        let structure = Extended::read(&descriptor, None).ok().and_then(|extended| extended.structure);
        let targets = match &structure {
            Some(structure) => structure.targets(),
            None if layered => layers_of(codec),
            None => Targets::default(),
        };
        let known = Known { structure, descriptor, targets, active, generation, described, meter, seen };
        (self.known, self.timestamp, self.told) = (Some(Box::new(known)), timestamp, told);
    }

    /// What there is to choose from is something else than when this was last asked.
    pub(crate) fn take_change(&mut self) -> bool {
        let now = self.known.as_ref().map_or((0, 0), |known| (known.generation, known.active));
        std::mem::replace(&mut self.told, now) != now
    }

    /// Takes a packet's place in the layers. `late`: it fills a hole.
    pub(crate) fn read(&mut self, now: Time, codec: Codec, packet: &SourcePacket<'_>, late: bool) -> Frame {
        if codec.kind() == TrackKind::Audio {
            return Frame::default();
        }
        if !packet.copied.dependency.is_empty() {
            self.learn_structure(packet, late);
        } else {
            self.learn_layers(codec, packet.payload);
        }
        let mut frame = self.frame(codec, packet);
        if !late {
            frame.unit_start = frame.first && self.timestamp != Some(packet.timestamp);
            self.timestamp = Some(packet.timestamp);
        }
        if let Some(known) = self.known.as_mut() {
            known.meter.count(now, &frame, packet.payload.len());
        }
        frame
    }

    /// A packet's place in the layers, by what is known.
    pub(crate) fn frame(&self, codec: Codec, packet: &SourcePacket<'_>) -> Frame {
        if let Some(mandatory) = Mandatory::read(packet.copied.dependency) {
            let Mandatory { first, last, number, template } = mandatory;
            let plain = Frame { number, first, last, ..Frame::default() };
            let known = self.known.as_ref().and_then(|known| known.template(number, template, packet));
            let Some(Template { spatial, temporal, targets, switches, needs }) = known else { return plain };
            let generation = self.known.as_ref().map_or(0, |known| known.generation);
            return Frame { generation, spatial, temporal, targets, switches, needs, ..plain };
        }
        let Some(known) = self.known.as_ref() else { return Frame::default() };
        let frame = descriptor::frame(codec, packet.payload, packet.marker);
        frame.map(|frame| Frame { generation: known.generation, ..frame }).unwrap_or_default()
    }

    fn learn_structure(&mut self, packet: &SourcePacket<'_>, late: bool) {
        let descriptor = packet.copied.dependency;
        let before = self.known.as_ref().and_then(|known| known.structure.as_ref());
        let Some(Mandatory { number, .. }) = Mandatory::read(descriptor).filter(|_| descriptor.len() > 3) else {
            return;
        };
        let Ok(Extended { structure, active, frame }) = Extended::read(descriptor, before) else { return };
        if structure.is_none() && before.is_none() {
            return;
        }
        // What comes late may be of a structure that was replaced since.
        let newest = self.known.as_ref().and_then(|known| known.described).map(|(newest, _)| newest);
        if late && newest.is_some_and(|newest| number.wrapping_sub(newest) >= 0x8000) {
            return;
        }
        let known = self.known.get_or_insert_with(|| Box::new(Known::new(Targets::default())));
        if let Some(structure) = structure.filter(|structure| known.structure.as_ref() != Some(structure)) {
            known.replace(structure.targets());
            known.structure = Some(structure);
            known.descriptor = descriptor.iter().copied().take(MAX_DESCRIPTOR).collect();
        }
        if let Some(active) = active {
            known.active = active;
        }
        known.described = Some((number, frame));
    }

    /// VP8 and VP9 say in their payload descriptors what they have.
    fn learn_layers(&mut self, codec: Codec, payload: &[u8]) {
        let Some(frame) = descriptor::frame(codec, payload, false) else { return };
        let layered = frame.temporal > 0 || frame.spatial > 0;
        match self.known.as_mut() {
            None if !layered => {}
            None => self.known = Some(Box::new(Known::new(descriptor::targets(codec)))),
            Some(known) if known.structure.is_some() || known.targets.len() == 0 => {
                known.structure = None;
                known.replace(descriptor::targets(codec));
            }
            Some(known) => known.see(&frame),
        }
    }
}

impl Known {
    fn new(targets: Targets) -> Self {
        Self {
            structure: None,
            descriptor: ArrayVec::new(),
            targets,
            active: u32::MAX,
            generation: 1,
            described: None,
            meter: TargetMeter::default(),
            seen: 0,
        }
    }

    fn replace(&mut self, targets: Targets) {
        self.targets = targets;
        self.active = u32::MAX;
        self.generation = self.generation.wrapping_add(1);
        self.meter = TargetMeter::default();
        self.seen = 0;
    }

    /// Spatial layers that were not seen between two keyframes are off.
    fn see(&mut self, frame: &Frame) {
        if frame.first && frame.spatial == 0 && frame.switches == u32::MAX {
            if let Some(highest) = self.seen.checked_ilog2() {
                let on = self.targets.iter().filter(|target| u32::from(target.spatial) <= highest);
                self.active = on.fold(0, |active, target| active | 1 << target.index);
            }
            self.seen = 0;
        }
        self.seen |= 1 << frame.spatial.min(31);
    }

    fn template(&self, number: u16, id: u8, packet: &SourcePacket<'_>) -> Option<Template> {
        let described = self.described.filter(|(described, _)| *described == number);
        let own = || {
            let extended = packet.copied.dependency.len() > 3;
            extended.then(|| Extended::read(packet.copied.dependency, self.structure.as_ref()).ok())?
        };
        described
            .map(|(_, template)| template)
            .or_else(|| own().map(|own| own.frame))
            .or_else(|| self.structure()?.template(id))
    }

    /// What the dependency descriptor says.
    pub(crate) fn structure(&self) -> Option<&Structure> {
        self.structure.as_ref()
    }

    /// Spatial layers are chosen from inside this stream.
    pub(crate) fn is_spatial(&self) -> bool {
        self.targets.iter().any(|target| target.spatial > 0)
    }

    /// The best within reach.
    pub(crate) fn choose(&self, reach: Reach) -> Target {
        self.targets.choose(self.active, reach)
    }

    /// Temporal layers of a spatial one, the least first, with the bits per second of its active targets.
    pub(crate) fn rates(&self, now: Time, spatial: u8) -> impl Iterator<Item = (u8, u64)> + '_ {
        let here = self.targets.iter().filter(move |target| target.spatial == spatial);
        let active = here.filter(|target| self.active >> target.index & 1 == 1);
        active.map(move |target| (target.temporal, self.meter.rate(now, target.index)))
    }

    /// The lowest temporal layer with so many frames a second.
    pub(crate) fn temporal_for(&self, frames_per_second: u32) -> u8 {
        self.meter
            .frame_rates()
            .position(|rate| rate + FRAME_RATE_TOLERANCE > frames_per_second)
            .map_or(u8::MAX, |temporal| u8::try_from(temporal).unwrap_or(u8::MAX))
    }
}
