//! The packet path. **Knows `shared` and the rtc family; never tokio, HTTP or JSON.**
//!
//! `shard` glues two pure machines to sockets: `transport` (ICE, DTLS, SRTP, SCTP: bytes to plain packets and back)
//! and `forward` (plain RTP and RTCP in, plain RTP and RTCP out).

pub mod api;
pub mod batch;
pub mod datachannel;
pub mod demux;
pub mod dtls;
pub mod forward;
pub mod ice;
mod receive_drops;
mod relief;
pub mod shard;
#[cfg(test)]
mod simulation;
pub mod socket;
pub mod srtp;
pub mod transport;
mod wheel;
