//! A pipe: the transport between two nodes that serve one room. Tracks and data of one are relayed to the other's
//! subscribers through it.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use arrayvec::ArrayVec;
use shared::control::MAX_PIPE_ADDRESSES;
use shared::ids::ParticipantSid;

use super::{Fingerprint, IceCredentials, SpeakerKey};

/// What an end of a pipe wants to be called by. Every datagram of a pipe begins with it, because all pipes between two
/// nodes share their addresses. It says nothing about who sends: that is for ICE and DTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PipeNumber(u32);

impl PipeNumber {
    /// Bytes that a datagram of a pipe begins with.
    pub const LEN: usize = 4;
    /// First bits of a datagram of a pipe: the range of TURN channels (RFC 7983 section 7), which come to no port of ours.
    const MARK: u32 = 0x4000_0000;
    /// Bits that are the number.
    const BITS: u32 = 0x0fff_ffff;

    /// `None`: it is too great.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number <= Self::BITS).then_some(Self(number))
    }

    /// From any number; those 2^28 apart give the same.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the low bits are what is meant")]
    pub const fn wrapping(number: u64) -> Self {
        Self(number as u32 & Self::BITS)
    }

    /// As a plain number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// What a datagram for this end begins with.
    #[must_use]
    pub fn tag(self) -> [u8; Self::LEN] {
        (Self::MARK | self.0).to_be_bytes()
    }

    /// Reads a datagram of [`crate::media::demux::Protocol::Pipe`]: for whom it is, and what is in it.
    #[must_use]
    pub fn read(datagram: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let (tag, inner) = datagram.split_first_chunk_mut::<{ Self::LEN }>()?;
        Some((Self(u32::from_be_bytes(*tag) & Self::BITS), inner))
    }
}

impl fmt::Display for PipeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// This end of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeConfig {
    /// What it is called by.
    pub number: PipeNumber,
    /// It makes the checks and begins the handshakes; the other end answers.
    pub dials: bool,
}

/// The other end of a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipePeer {
    /// What it is called by.
    pub number: PipeNumber,
    /// Where it may be, preferred first.
    pub addresses: ArrayVec<SocketAddr, MAX_PIPE_ADDRESSES>,
    /// It answers to these.
    pub ice: IceCredentials,
    /// Of its certificate.
    pub fingerprint: Fingerprint,
}

impl SpeakerKey {
    /// Of participants of other nodes: those of this one are counted.
    const ELSEWHERE: u64 = 1 << 63;

    /// Of somebody on another node. It is the same on each shard, whoever heard of the participant first.
    #[must_use]
    pub fn elsewhere(participant: &ParticipantSid) -> Self {
        let mut hasher = DefaultHasher::new();
        participant.as_str().hash(&mut hasher);
        Self(hasher.finish() | Self::ELSEWHERE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::demux::{Protocol, classify};

    #[test]
    fn a_tagged_datagram_is_told_from_all_others_and_read_back() {
        for number in [0, 1, 0x0fff_ffff] {
            let number = PipeNumber::new(number).unwrap();
            let mut datagram = [&number.tag()[..], &[0x80; 20]].concat();
            assert_eq!(classify(&datagram), Some(Protocol::Pipe));
            assert_eq!(PipeNumber::read(&mut datagram), Some((number, &mut [0x80; 20][..])));
        }
        assert_eq!(PipeNumber::new(1 << 28), None);
        assert_eq!(PipeNumber::wrapping((1 << 28) + 3), PipeNumber(3));
        assert_eq!(PipeNumber::read(&mut [0x40, 0, 0]), None);
    }
}
