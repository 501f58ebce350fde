//! A node of several shards without threads and sockets: what crosses between them does so at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;

use super::peer::Peer;
use crate::conference::relays::Relays;
use crate::media::api::{Command, Event, ShardIndex, ShardStats};
use crate::media::dtls::Identities;
use crate::media::shard::{Shard, frames};

pub(super) struct Node {
    shards: Vec<Shard>,
    relays: Relays,
    pub(super) events: Vec<Event>,
}

impl Node {
    pub(super) fn new(origin: Instant, shards: usize) -> Self {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let identities = Identities::generate(&provider).unwrap();
        let shard = |_| Shard::new(100, 64, 7, identities.clone(), provider.clone()).counting_from(origin);
        Self { shards: (0..shards).map(shard).collect(), relays: Relays::new(shards), events: Vec::new() }
    }

    /// A place for a peer among the shards there are.
    pub(super) fn shard(&self, number: usize) -> ShardIndex {
        ShardIndex(u8::try_from(number % self.shards.len()).unwrap())
    }

    /// Opens a peer's transport, up to where media may flow.
    pub(super) fn connect(&mut self, now: Instant, at: ShardIndex, peer: &mut Peer) {
        self.command(now, at, Command::Open(Box::new(peer.config())));
        let binding = peer.binding(now).unwrap();
        self.datagram(now, at, peer.addr, binding);
        self.shards[at.place()].skip_dtls(now, peer.key, peer.node_srtp());
        self.settle(now);
    }

    pub(super) fn command(&mut self, now: Instant, at: ShardIndex, command: Command) {
        self.relays.note(at, &command);
        self.shards[at.place()].handle_command(now, command);
        for (at, command) in self.relays.take_commands() {
            self.shards[at.place()].handle_command(now, command);
        }
        self.settle(now);
    }

    pub(super) fn datagram(&mut self, now: Instant, at: ShardIndex, from: SocketAddr, mut datagram: Vec<u8>) {
        self.shards[at.place()].handle_datagram(now, from, &mut datagram);
        self.settle(now);
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.shards.iter().filter_map(Shard::next_timeout).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for at in 0..self.shards.len() {
            self.shards[at].handle_timeout(now);
            self.settle(now);
        }
    }

    /// What is to be sent, in order for each destination.
    pub(super) fn take_output(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut output = Vec::new();
        for shard in &mut self.shards {
            while let Some(batch) = shard.next_batch() {
                let bursts = batch.bursts();
                output.extend(bursts.flat_map(|b| b.bytes.chunks(b.segment).map(move |d| (b.route.to, d.to_vec()))));
                batch.clear();
            }
        }
        output
    }

    pub(super) fn stats(&self) -> Vec<ShardStats> {
        self.shards.iter().map(Shard::stats).collect()
    }

    /// Carries what crosses until nothing does.
    fn settle(&mut self, now: Instant) {
        loop {
            let mut carried = false;
            for from in ShardIndex::all(self.shards.len()) {
                let staged = self.shards[from.place()].crossings().staged();
                let staged: Vec<_> = staged.map(|(to, bytes)| (to, std::mem::take(bytes))).collect();
                for (to, bytes) in staged {
                    carried = true;
                    for frame in frames(&bytes) {
                        self.shards[to.place()].handle_crossing(now, from, frame);
                    }
                }
            }
            for shard in &mut self.shards {
                self.events.extend(std::iter::from_fn(|| shard.poll_event()));
            }
            if !carried {
                return;
            }
        }
    }
}
