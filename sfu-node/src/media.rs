//! The packet path. **Knows `shared` and the rtc family; never tokio, HTTP or JSON.**
//!
//! `shard` glues two pure machines to sockets: `transport` (ICE, DTLS, SRTP, SCTP: bytes to plain packets and back)
//! and `forward` (plain RTP and RTCP in, plain RTP and RTCP out).

pub mod api;
pub mod demux;
pub mod dtls;
pub mod ice;
pub mod srtp;
pub mod forward;
