//! The dependency descriptor (AV1 RTP payload format, appendix A.8): reads it, and writes the decode targets that are on
//! into it. Bounded looks at what a peer sent; nothing is believed that does not fit.

use arrayvec::ArrayVec;

use crate::media::forward::layering::Targets;
use crate::media::forward::rtp::Malformed;

/// Most templates of a structure (6-bit ids).
const MAX_TEMPLATES: usize = 64;
/// Mandatory fields, bytes.
const MANDATORY: usize = 3;
/// First bit after the mandatory fields and the five flags.
const AFTER_FLAGS: usize = 8 * MANDATORY + 5;
/// The flag that says which decode targets are on.
const ACTIVE_FLAG: usize = 8 * MANDATORY + 1;
/// Most frames one depends on that are read; encoders name three at most.
const MAX_DIFFS: usize = 16;

/// What stands in each descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mandatory {
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) template: u8,
    pub(crate) number: u16,
}

impl Mandatory {
    /// Reads the first three bytes.
    pub(crate) fn read(descriptor: &[u8]) -> Option<Self> {
        let [flags, high, low] = *descriptor.first_chunk::<MANDATORY>()?;
        Some(Self {
            first: flags & 0x80 != 0,
            last: flags & 0x40 != 0,
            template: flags & 0x3f,
            number: u16::from_be_bytes([high, low]),
        })
    }
}

/// The kinds of frames of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Structure {
    offset: u8,
    templates: ArrayVec<Template, MAX_TEMPLATES>,
    targets: u8,
    chains: u8,
}

/// One kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Template {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// Decode targets it is part of, one bit each.
    pub(crate) targets: u32,
    /// Decode targets that can be switched to at it.
    pub(crate) switches: u32,
    /// Frames it depends on: bit n is the one n before it.
    pub(crate) needs: u64,
}

/// What a descriptor longer than the mandatory fields says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extended {
    /// A new structure, for this frame and those to come.
    pub(crate) structure: Option<Structure>,
    /// Decode targets that are on, where it says so.
    pub(crate) active: Option<u32>,
    /// The frame's template with what the frame says otherwise.
    pub(crate) frame: Template,
}

impl Structure {
    /// The template of an id; `None`: of another structure.
    pub(crate) fn template(&self, id: u8) -> Option<Template> {
        self.templates.get(usize::from(id.wrapping_sub(self.offset) & 0x3f)).copied()
    }

    /// Its decode targets.
    pub(crate) fn targets(&self) -> Targets {
        let kinds = self.templates.iter().map(|template| (template.spatial, template.temporal, template.targets));
        Targets::of(self.targets.into(), kinds)
    }

    /// All its decode targets, one bit each.
    pub(crate) fn all(&self) -> u32 {
        u32::MAX >> (32 - u32::from(self.targets.max(1)))
    }

    fn read(bits: &mut Bits<'_>) -> Result<Self, Malformed> {
        let offset = bits.byte(6)?;
        let targets = bits.byte(5)? + 1;
        let mut structure = Self { offset, templates: ArrayVec::new(), targets, chains: 0 };
        structure.read_layers(bits)?;
        for template in &mut structure.templates {
            (template.targets, template.switches) = read_indications(bits, targets)?;
        }
        for template in &mut structure.templates {
            template.needs = read_diffs(bits, |bits| Ok(if bits.read(1)? == 1 { 4 } else { 0 }))?;
        }
        structure.chains = bits.non_symmetric(targets + 1)?;
        if structure.chains > 0 {
            for _ in 0..targets {
                bits.non_symmetric(structure.chains)?;
            }
            bits.skip(4 * structure.templates.len() * usize::from(structure.chains))?;
        }
        if bits.read(1)? == 1 {
            let spatial_layers = structure.templates.last().map_or(0, |template| template.spatial) + 1;
            bits.skip(32 * usize::from(spatial_layers))?;
        }
        Ok(structure)
    }

    fn read_layers(&mut self, bits: &mut Bits<'_>) -> Result<(), Malformed> {
        let (mut spatial, mut temporal) = (0, 0);
        loop {
            let template = Template { spatial, temporal, ..Template::default() };
            self.templates.try_push(template).map_err(|_| Malformed)?;
            match bits.read(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Ok(()),
            }
        }
    }
}

impl Extended {
    /// Reads a descriptor longer than the mandatory fields; `known`: the structure that holds until it names another.
    pub(crate) fn read(descriptor: &[u8], known: Option<&Structure>) -> Result<Self, Malformed> {
        let template = Mandatory::read(descriptor).ok_or(Malformed)?.template;
        let mut bits = Bits { bytes: descriptor, at: 8 * MANDATORY };
        let [with_structure, with_active, own_indications, own_diffs] =
            [bits.read(1)?, bits.read(1)?, bits.read(1)?, bits.read(1)?].map(|flag| flag == 1);
        let own_chains = bits.read(1)? == 1;
        let structure = if with_structure { Some(Structure::read(&mut bits)?) } else { None };
        let holds = structure.as_ref().or(known).ok_or(Malformed)?;
        let active = if with_active { Some(bits.read(holds.targets)?) } else { None };
        let mut frame = holds.template(template).ok_or(Malformed)?;
        if own_indications {
            (frame.targets, frame.switches) = read_indications(&mut bits, holds.targets)?;
        }
        if own_diffs {
            frame.needs = read_diffs(&mut bits, |bits| Ok(4 * bits.byte(2)?))?;
        }
        if own_chains {
            bits.skip(8 * usize::from(holds.chains))?;
        }
        let active = active.or_else(|| structure.as_ref().map(Structure::all));
        Ok(Self { structure, active, frame })
    }
}

/// The descriptor may bring a new structure, or say which decode targets are on.
pub(crate) fn brings_layers(descriptor: &[u8]) -> bool {
    descriptor.get(MANDATORY).is_some_and(|flags| flags & 0xc0 != 0)
}

/// Writes a descriptor that says which decode targets are on into `out`; gives its length. `None`: it does not fit,
/// or is of another structure than `known`.
pub(crate) fn write_active(descriptor: &[u8], known: &Structure, active: u32, out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer { out, at: 0 };
    let mut reader = Bits { bytes: descriptor, at: 0 };
    if descriptor.len() <= MANDATORY {
        writer.copy(&mut reader, 8 * MANDATORY)?;
        writer.write(0b01000, 5)?;
        writer.write(active, known.targets)?;
        return Some(writer.at.div_ceil(8));
    }
    writer.copy(&mut reader, ACTIVE_FLAG)?;
    let had = reader.read(1).ok()? == 1;
    writer.write(1, 1)?;
    writer.copy(&mut reader, 3)?;
    let mut structure = Bits { bytes: descriptor, at: AFTER_FLAGS };
    if descriptor.get(MANDATORY)? & 0x80 != 0 && Structure::read(&mut structure).ok().as_ref() != Some(known) {
        return None;
    }
    writer.copy(&mut reader, structure.at - AFTER_FLAGS)?;
    writer.write(active, known.targets)?;
    if had {
        reader.skip(known.targets.into()).ok()?;
    }
    // The zero padding comes along: what its bits mean ends before them.
    let rest = 8 * descriptor.len() - reader.at;
    writer.copy(&mut reader, rest)?;
    Some(writer.at.div_ceil(8))
}

fn read_indications(bits: &mut Bits<'_>, targets: u8) -> Result<(u32, u32), Malformed> {
    const NOT_PRESENT: u32 = 0;
    const SWITCH: u32 = 2;
    let (mut present, mut switches) = (0, 0);
    for target in 0..targets {
        let indication = bits.read(2)?;
        present |= u32::from(indication != NOT_PRESENT) << target;
        switches |= u32::from(indication == SWITCH) << target;
    }
    Ok((present, switches))
}

/// Frame differences, each behind its size in bits; size 0 ends them. What lies too far back sets bit 0, which no frame
/// that went out ever has.
fn read_diffs(bits: &mut Bits<'_>, size: impl Fn(&mut Bits<'_>) -> Result<u8, Malformed>) -> Result<u64, Malformed> {
    let mut needs = 0;
    for _ in 0..=MAX_DIFFS {
        let size = size(bits)?;
        if size == 0 {
            return Ok(needs);
        }
        let back = bits.read(size)? + 1;
        needs |= 1_u64.checked_shl(back).unwrap_or(1);
    }
    Err(Malformed)
}

/// Bits of a descriptor, the highest of each byte first.
#[derive(Debug)]
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: u8) -> Result<u32, Malformed> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or(Malformed)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    /// At most eight bits.
    fn byte(&mut self, count: u8) -> Result<u8, Malformed> {
        u8::try_from(self.read(count)?).map_err(|_| Malformed)
    }

    /// A value below `limit` in as few bits as it takes: `ns(n)`.
    fn non_symmetric(&mut self, limit: u8) -> Result<u8, Malformed> {
        let width = 8 - u8::try_from(limit.leading_zeros()).map_err(|_| Malformed)?;
        let short = (1_u16 << width) - u16::from(limit);
        let value = self.byte(width.saturating_sub(1))?;
        if u16::from(value) < short {
            return Ok(value);
        }
        let low = self.byte(1)?;
        u8::try_from((u16::from(value) << 1 | u16::from(low)) - short).map_err(|_| Malformed)
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.at += count;
        if self.at <= 8 * self.bytes.len() { Ok(()) } else { Err(Malformed) }
    }
}

#[derive(Debug)]
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn write(&mut self, value: u32, count: u8) -> Option<()> {
        for bit in (0..count).rev() {
            let byte = self.out.get_mut(self.at / 8)?;
            if self.at.is_multiple_of(8) {
                *byte = 0;
            }
            *byte |= u8::try_from(value >> bit & 1).ok()? << (7 - self.at % 8);
            self.at += 1;
        }
        Some(())
    }

    fn copy(&mut self, from: &mut Bits<'_>, count: usize) -> Option<()> {
        for _ in 0..count {
            self.write(from.read(1).ok()?, 1)?;
        }
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
