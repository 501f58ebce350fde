//! The one door through which the simulation (`tests/sim`) drives a node: the conference and a shard as they are deployed,
//! without threads, sockets, links and clock. **DTLS of clients is stood in for**: see [`Node::handle_datagram`]; that of pipes
//! is the real one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use shared::claims::SessionClaims;
use shared::control::{NodeToRoom, OpenSession, PipeKey, RefusalReason, RoomToNode};
use shared::ids::{RoomName, SessionKey};

use crate::conference::Conference;
use crate::conference::placement::Fullness;
use crate::media::api::{Fingerprint, SrtpProfile};
use crate::media::dtls::Identities;
use crate::media::shard::Shard;
use crate::media::srtp::Srtp;
use crate::session::Endpoint;
use crate::session::allocator::Allocator;

/// First byte of the stand-in's messages: a DTLS handshake record's (RFC 6347 section 4.1).
pub const HANDSHAKE: u8 = 22;
/// Bytes of keying material for [`PROFILE`] (RFC 5764 section 4.2).
pub const MATERIAL_LEN: usize = 56;
/// What media is protected with.
pub const PROFILE: SrtpProfile = SrtpProfile::AeadAes128Gcm;
/// Bytes of a fingerprint.
const FINGERPRINT_LEN: usize = 32;
/// Datagrams of one destination in a batch.
const SEGMENTS: usize = 64;

/// What is the same in all nodes of all runs: making a certificate takes long.
#[derive(Clone)]
pub struct Certificate {
    identities: Identities,
    provider: Arc<dyn RTCCryptoProvider>,
}

impl Certificate {
    /// Makes one.
    ///
    /// # Panics
    /// When the crypto library makes no key.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a simulation may panic")]
    pub fn generate() -> Self {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let identities = Identities::generate(&provider).expect("a certificate");
        Self { identities, provider }
    }
}

/// A node's process.
pub struct Node {
    conference: Conference,
    shard: Shard,
    provider: Arc<dyn RTCCryptoProvider>,
    /// The keys that a client at an address has shaken hands with.
    shaken: BTreeMap<SocketAddr, (Vec<u8>, Fingerprint)>,
    /// For the rooms, in order.
    pub messages: Vec<(RoomName, NodeToRoom)>,
    /// For the network.
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

impl Node {
    /// A node that has just started. `origin`: when virtual time began.
    #[must_use]
    pub fn new(
        seed: u64,
        origin: Instant,
        address: SocketAddr,
        Certificate { identities, provider }: Certificate,
        max_sessions: usize,
    ) -> Self {
        let fingerprints = identities.fingerprints();
        let shard = Shard::new(2 * max_sessions, SEGMENTS, seed, identities, provider.clone()).counting_from(origin);
        let endpoint = Endpoint { candidates: vec![address], fingerprints };
        let full = Fullness { sessions: u32::MAX, packets_per_second: u32::MAX };
        let mut random = [0; 32];
        random[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            conference: Conference::new(vec![endpoint], full, Allocator::new(random), max_sessions),
            shard,
            provider,
            shaken: BTreeMap::new(),
            messages: Vec::new(),
            datagrams: Vec::new(),
        }
    }

    /// Opens a session whose token was verified.
    ///
    /// # Errors
    /// Why not.
    pub fn open(
        &mut self,
        now: Instant,
        room: &RoomName,
        claims: SessionClaims,
        open: OpenSession,
    ) -> Result<(), RefusalReason> {
        let opened = self.conference.open(room, claims, open);
        self.settle(now);
        opened
    }

    /// A message of a room about an open session.
    pub fn handle(&mut self, now: Instant, room: &RoomName, message: RoomToNode) {
        self.conference.handle(room, message);
        self.settle(now);
    }

    /// Closes the sessions of a room that it does not believe to be here.
    pub fn reconcile(&mut self, now: Instant, room: &RoomName, keep: &[SessionKey]) {
        self.conference.reconcile(room, keep);
        self.settle(now);
    }

    /// The link to the room is up again: what went into the one before may be lost.
    pub fn repeat(&mut self, now: Instant, room: &RoomName) {
        self.conference.repeat(room);
        self.settle(now);
    }

    /// Ends a room here, with its sessions.
    pub fn close_room(&mut self, now: Instant, room: &RoomName) {
        self.conference.close_room(room);
        self.settle(now);
    }

    /// Takes no new rooms.
    pub fn drain(&mut self) {
        self.conference.drain();
    }

    /// Tells the rooms how well media gets through.
    pub fn assess(&mut self, now: Instant) {
        self.conference.assess();
        self.settle(now);
    }

    /// Sessions of a room.
    #[must_use]
    pub fn sessions_of(&self, room: &RoomName) -> Vec<SessionKey> {
        self.conference.sessions_of(room)
    }

    /// Pipes of a room to other nodes.
    #[must_use]
    pub fn pipes_of(&self, room: &RoomName) -> Vec<PipeKey> {
        self.conference.pipes_of(room)
    }

    /// Of those, the ones that are up.
    #[must_use]
    pub fn pipes_up(&self, room: &RoomName) -> Vec<PipeKey> {
        self.conference.pipes_up(room)
    }

    /// Sessions open.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.conference.session_count()
    }

    /// Transports open.
    #[must_use]
    pub fn transport_count(&self) -> usize {
        self.shard.transport_count()
    }

    /// Takes a datagram. In place of DTLS a client sends [`HANDSHAKE`], its fingerprint and SRTP keying material, and is
    /// answered with [`HANDSHAKE`] and the node's fingerprint, where a handshake would succeed.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        if datagram.first() == Some(&HANDSHAKE) {
            self.shake_hands(now, from, datagram);
        } else {
            self.shard.handle_datagram(now, from, datagram);
        }
        self.settle(now);
    }

    /// When to call [`Node::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.shard.next_timeout()
    }

    /// Lets every timer that is due fire.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.shard.handle_timeout(now);
        self.settle(now);
    }

    fn shake_hands(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Some((fingerprint, material)) = datagram.get(1..).and_then(|rest| rest.split_at_checked(FINGERPRINT_LEN))
        else {
            return;
        };
        let Ok(fingerprint) = <[u8; FINGERPRINT_LEN]>::try_from(fingerprint) else { return };
        if self.shaken.get(&from).is_none_or(|(known, _)| known != material) {
            let Ok(srtp) = Srtp::for_server(PROFILE, material, self.provider.crypto()) else { return };
            let Some(shown) = self.shard.shake_hands(now, from, Fingerprint(fingerprint), srtp) else { return };
            self.shaken.insert(from, (material.to_vec(), shown));
        }
        if let Some((_, shown)) = self.shaken.get(&from) {
            self.datagrams.push((from, [&[HANDSHAKE], &shown.0[..]].concat()));
        }
    }

    /// Carries commands and events between conference and shard until there are none.
    fn settle(&mut self, now: Instant) {
        loop {
            let effects = self.conference.flush();
            self.messages.extend(effects.messages);
            effects.commands.into_iter().for_each(|(_, command)| self.shard.handle_command(now, command));
            while let Some(batch) = self.shard.next_batch() {
                let bursts = batch.bursts();
                let sent = bursts.flat_map(|b| b.bytes.chunks(b.segment).map(move |d| (b.route.to, d.to_vec())));
                self.datagrams.extend(sent);
                batch.clear();
            }
            let mut quiet = true;
            while let Some(event) = self.shard.poll_event() {
                quiet = false;
                self.conference.shard_event(&event);
            }
            if quiet {
                return;
            }
        }
    }
}
