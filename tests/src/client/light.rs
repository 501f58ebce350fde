//! The light way to receive: SRTP packets are opened here and not in str0m, and a socket is looked at now and then, not at
//! each arrival. Every packet is still authenticated, and its arrival is the kernel's timestamp.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rtc::crypto::default_provider;
use rtc::srtp::context::Context;

use super::PacketSink;
use super::profile::Keys;

/// Between two looks at a socket. What comes meanwhile (some 60 KiB of 1.5 Mb/s with the kernel's bookkeeping) is far
/// from filling it; answers to the server's own checks wait as long.
const LOOK: Duration = Duration::from_millis(50);

/// What receives.
pub(crate) struct Light {
    srtp: Context,
    sink: Box<dyn PacketSink>,
    next_look: Instant,
}

impl Light {
    /// Opens what is protected with the server's keys.
    ///
    /// # Errors
    /// They do not fit their profile.
    pub(crate) fn new(keys: &Keys, sink: Box<dyn PacketSink>) -> Result<Self> {
        let provider = default_provider()?;
        let (key, salt) = keys.of_server().context("keying material of another length")?;
        let srtp = Context::new(key, salt, keys.profile, None, None, provider.crypto())?;
        Ok(Self { srtp, sink, next_look: Instant::now() })
    }

    /// Takes an RTP packet; one that does not authenticate never arrived.
    pub(crate) fn packet(&mut self, datagram: &[u8], received: Option<u64>) {
        if let Ok(packet) = self.srtp.decrypt_rtp(datagram) {
            // The header stays: a stamp is at the end.
            self.sink.packet(&packet, received);
        }
    }

    /// When to look at the socket.
    pub(crate) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// It has been looked at.
    pub(crate) fn looked(&mut self) {
        self.next_look = Instant::now() + LOOK;
    }
}
