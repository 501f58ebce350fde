//! The one door through which fuzz targets reach what reads network bytes. Each function takes arbitrary bytes and
//! **panics where a promise is broken**; the seeds in `fuzz/seeds` go through them in the tests as well.

pub use crate::media::datachannel::fuzzing::{data_packet, sctp};
pub use crate::media::dtls::fuzzing::dtls;
pub use crate::media::forward::fuzzing::{dependency, forwarder, payload, rtcp, rtp};
pub use crate::media::ice::fuzzing::stun;
pub use crate::media::shard::fuzzing::shard;
pub use crate::media::srtp::fuzzing::srtp;
pub use crate::session::fuzzing::sdp;

#[cfg(test)]
mod tests;
