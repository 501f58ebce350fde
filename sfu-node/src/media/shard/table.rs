//! The shard's transports and the ways to find them: by key, by address, by ufrag, by room. Also the forwarder's way
//! out: it encrypts into the send batch.

mod pipes;
mod replay;
mod roaming;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::crypto::{RTCCrypto, RTCCryptoProvider};
use rustc_hash::FxBuildHasher;
use slab::Slab;

use self::replay::Replays;
use self::roaming::Searches;
use super::crossings::{Crossings, RoomMessage};
use crate::media::api::{
    Event, PipeNumber, RoomKey, ServerData, ShardIndex, ShardSet, ShardStats, Speaker, SpeakerKey, TransportConfig,
    TransportKey,
};
use crate::media::batch::{Route, SendBatch};
use crate::media::datachannel::calls::Calls;
use crate::media::datachannel::packet::{Rejected, Stamped, read_stamped, stamp};
use crate::media::datachannel::{ChannelStreams, Label, Message};
use crate::media::dtls::Identities;
use crate::media::forward::{Record, Sink};
use crate::media::ice::{Refused, Request};
use crate::media::shard::deadlines::Deadlines;
use crate::media::srtp::SrtpError;
use crate::media::transport::{Transport, push_plain};

/// Whether the client is told that a transport ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Parting {
    /// It is.
    Goodbye,
    /// It goes on elsewhere.
    Silent,
}

/// Who sends an app server's data: keys count from 1.
const NOBODY: SpeakerKey = SpeakerKey(0);
/// A client that says more often what it has received is not heard: clients come back less often than that.
const REPLAY_INTERVAL: Duration = Duration::from_secs(1);

/// A participant's session on this shard.
struct Presence {
    speaker: Speaker,
    /// Highest sequence of its reliable data packets.
    last_sequence: u32,
    /// When it last got again what it had missed.
    replayed: Option<Instant>,
    transports: usize,
}

/// A Binding request was accepted.
pub(super) struct Contact {
    pub(super) index: usize,
    /// Consent had lapsed.
    pub(super) reconnected: bool,
    /// Media went elsewhere before.
    pub(super) moved: bool,
    /// And the peer does not know.
    pub(super) unknowing: bool,
}

/// All transports of a shard.
pub(super) struct Table {
    transports: Slab<Transport>,
    by_key: HashMap<TransportKey, usize, FxBuildHasher>,
    /// Validated addresses. Keys are chosen by peers, so the hasher is keyed.
    by_addr: HashMap<SocketAddr, usize>,
    by_ufrag: HashMap<String, usize>,
    /// Transports to other nodes, in place of the two above.
    by_number: HashMap<PipeNumber, usize, FxBuildHasher>,
    rooms: HashMap<RoomKey, Vec<usize>, FxBuildHasher>,
    /// Other shards that rooms are on; most are on none.
    room_shards: HashMap<RoomKey, ShardSet, FxBuildHasher>,
    speakers: HashMap<SpeakerKey, Presence, FxBuildHasher>,
    replays: Replays,
    calls: Calls,
    deadlines: Deadlines,
    max_transports: usize,
    identities: Identities,
    provider: Arc<dyn RTCCryptoProvider>,
    searches: Searches,
    pub(super) batch: SendBatch,
    pub(super) crossings: Crossings,
    pub(super) events: VecDeque<Event>,
    pub(super) stats: ShardStats,
}

impl Table {
    pub(super) fn new(
        max_transports: usize,
        max_segments: usize,
        identities: Identities,
        provider: Arc<dyn RTCCryptoProvider>,
    ) -> Self {
        Self {
            transports: Slab::new(),
            by_key: HashMap::default(),
            by_addr: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_number: HashMap::default(),
            rooms: HashMap::default(),
            room_shards: HashMap::default(),
            speakers: HashMap::default(),
            replays: Replays::default(),
            calls: Calls::default(),
            deadlines: Deadlines::new(),
            max_transports,
            identities,
            provider,
            searches: Searches::default(),
            batch: SendBatch::new(max_segments),
            crossings: Crossings::default(),
            events: VecDeque::new(),
            stats: ShardStats::default(),
        }
    }

    /// Adds a transport; `false` if there is no room or its key or ufrag is taken.
    pub(super) fn open(&mut self, now: Instant, config: &TransportConfig) -> bool {
        if self.transports.len() >= self.max_transports
            || self.by_key.contains_key(&config.key)
            || self.by_ufrag.contains_key(&config.local.ufrag)
            || config.pipe.is_some_and(|pipe| self.by_number.contains_key(&pipe.number))
        {
            return false;
        }
        let index = self.transports.insert(Transport::new(now, config, self.identities.of(config.certificate).clone()));
        self.by_key.insert(config.key, index);
        match config.pipe {
            Some(pipe) => drop(self.by_number.insert(pipe.number, index)),
            None => drop(self.by_ufrag.insert(config.local.ufrag.clone(), index)),
        }
        self.rooms.entry(config.room).or_default().push(index);
        let presence = self.speakers.entry(config.speaker.key).or_insert_with(|| Presence {
            speaker: config.speaker.clone(),
            last_sequence: 0,
            replayed: None,
            transports: 0,
        });
        presence.transports += 1;
        self.settle(now, index);
        true
    }

    /// Ends a transport.
    pub(super) fn remove(&mut self, now: Instant, index: usize, parting: Parting) {
        let Some(mut transport) = self.transports.try_remove(index) else { return };
        self.deadlines.set(now, index, None);
        match parting {
            Parting::Goodbye => transport.close(now, index, &mut self.batch),
            Parting::Silent => {}
        }
        self.stats.sctp_panics += u64::from(transport.data.take_panic());
        self.by_key.remove(&transport.key);
        if let Some(number) = transport.pipe_number() {
            self.by_number.remove(&number);
        }
        for ufrag in transport.ice.ufrags() {
            self.by_ufrag.remove(ufrag);
        }
        for addr in transport.ice.addresses() {
            self.forget_address(addr, index);
        }
        if let Some(room) = self.rooms.get_mut(&transport.room) {
            room.retain(|i| *i != index);
            if room.is_empty() {
                self.rooms.remove(&transport.room);
                self.replays.forget(transport.room);
            }
        }
        if let Some(presence) = self.speakers.get_mut(&transport.speaker) {
            presence.transports -= 1;
            if presence.transports == 0 {
                self.speakers.remove(&transport.speaker);
            }
        }
    }

    /// Nothing stays that no transport needs.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn assert_bounded(&self, most: usize) {
        let count = self.transports.len();
        assert!(count <= most && self.by_key.len() == count && self.speakers.len() <= count);
        let addresses = crate::media::ice::MAX_ADDRESSES + 1;
        assert!(self.by_addr.len() <= count * addresses && self.by_ufrag.len() <= 2 * count);
        assert!(self.by_addr.values().chain(self.by_ufrag.values()).all(|index| self.transports.contains(*index)));
        assert_eq!(self.rooms.values().map(Vec::len).sum::<usize>(), count);
    }

    pub(super) fn len(&self) -> usize {
        self.transports.len()
    }

    pub(super) fn index_of(&self, key: TransportKey) -> Option<usize> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn index_at(&self, addr: SocketAddr) -> Option<usize> {
        self.by_addr.get(&addr).copied()
    }

    /// Whether a connected peer is there, and nothing is about to change.
    pub(super) fn is_settled_at(&self, addr: SocketAddr) -> bool {
        let transport = self.index_at(addr).and_then(|index| self.transports.get(index));
        transport.is_some_and(|transport| transport.is_connected() && transport.ice.is_settled_at(addr))
    }

    /// A transport, and the crypto library it needs.
    pub(super) fn transport(&mut self, index: usize) -> Option<(&mut Transport, &dyn RTCCrypto)> {
        Some((self.transports.get_mut(index)?, self.provider.crypto()))
    }

    pub(super) fn set_speaker(&mut self, speaker: Speaker) {
        if let Some(presence) = self.speakers.get_mut(&speaker.key) {
            presence.speaker = speaker;
        }
    }

    /// The other shards a room is on.
    pub(super) fn set_room_shards(&mut self, room: RoomKey, others: ShardSet) {
        if others.is_empty() {
            self.room_shards.remove(&room);
        } else {
            self.room_shards.insert(room, others);
        }
    }

    /// The client of a transport that was just opened has these channels already.
    pub(super) fn take_over_channels(&mut self, key: TransportKey, channels: ChannelStreams) {
        if let Some(transport) = self.index_of(key).and_then(|index| self.transports.get_mut(index)) {
            transport.data.take_over(channels);
        }
    }

    /// Makes new credentials valid; a ufrag that is taken changes nothing.
    pub(super) fn restart_ice(&mut self, key: TransportKey, credentials: crate::media::api::IceCredentials) {
        let Some(index) = self.index_of(key) else { return };
        if self.by_ufrag.contains_key(&credentials.ufrag) {
            return;
        }
        self.by_ufrag.insert(credentials.ufrag.clone(), index);
        let unused = self.transports.get_mut(index).and_then(|t| t.ice.restart(credentials));
        if let Some(ufrag) = unused {
            self.by_ufrag.remove(&ufrag);
        }
    }

    /// Names the peer's credentials.
    pub(super) fn set_remote_ice(&mut self, key: TransportKey, credentials: crate::media::api::IceCredentials) {
        let Some(index) = self.index_of(key) else { return };
        if let Some(transport) = self.transports.get_mut(index) {
            transport.ice.set_remote(credentials);
        }
    }

    /// Takes a STUN datagram from anywhere.
    pub(super) fn handle_stun(&mut self, now: Instant, route: Route, datagram: &[u8]) -> Option<Contact> {
        let contact = self.accept_stun(now, route, datagram);
        if contact.is_none() {
            self.stats.dropped_bad_stun += 1;
        }
        contact
    }

    fn accept_stun(&mut self, now: Instant, route: Route, datagram: &[u8]) -> Option<Contact> {
        let from = route.to;
        let Some(request) = Request::parse(datagram) else { return self.accept_response(now, route, datagram) };
        let index = *self.by_ufrag.get(request.local_ufrag()?)?;
        // Nobody takes an address away from a transport whose peer is there.
        let owner = self.index_at(from).filter(|owner| *owner != index);
        if owner.and_then(|i| self.transports.get(i)).is_some_and(|t| t.ice.is_fresh(now, from)) {
            return None;
        }
        let transport = self.transports.get_mut(index)?;
        let accepted = match transport.ice.handle(now, route, request, self.provider.crypto()) {
            Ok(accepted) => accepted,
            Err(Refused::Rejected(response) | Refused::Unauthenticated(Some(response))) => {
                push_plain(index, route, &response, &mut self.batch);
                return None;
            }
            Err(Refused::Unauthenticated(None)) => return None,
        };
        push_plain(index, route, &accepted.response, &mut self.batch);
        let former = accepted.learned.then(|| self.by_addr.insert(from, index)).flatten().filter(|i| *i != index);
        if let Some(former) = former.and_then(|i| self.transports.get_mut(i)) {
            former.ice.forget(from);
        }
        if let Some(evicted) = accepted.evicted {
            self.forget_address(evicted, index);
        }
        if let Some(ufrag) = accepted.retired {
            self.by_ufrag.remove(&ufrag);
        }
        Some(Contact { index, reconnected: accepted.reconnected, moved: accepted.moved, unknowing: false })
    }

    fn forget_address(&mut self, addr: SocketAddr, index: usize) {
        if self.by_addr.get(&addr) == Some(&index) {
            self.by_addr.remove(&addr);
        }
    }

    /// Forwards a data-channel message to the others of its room, as far as it is for them.
    pub(super) fn forward_data(&mut self, now: Instant, from: usize, message: &Message) {
        // Data tracks are not part of what this node does yet; their channel is open, their packets go nowhere.
        if message.label == Label::DataTrack {
            return;
        }
        let Some(transport) = self.transports.get(from) else { return };
        let (room, sender) = (transport.room, transport.speaker);
        if transport.pipe_number().is_some() {
            return self.deliver_piped(now, room, message);
        }
        let Some(presence) = self.speakers.get_mut(&sender) else { return };
        self.stats.data_messages_received += 1;
        let stamped = match stamp(&presence.speaker, message.label, &message.data, &mut presence.last_sequence) {
            Ok(stamped) => stamped,
            Err(Rejected::Malformed) => {
                self.stats.dropped_malformed += 1;
                return;
            }
            Err(Rejected::NotPermitted | Rejected::Repeated) => return,
        };
        // What is for nobody by name is for the server, if it asked.
        if matches!(&stamped.identities[..], [nobody] if nobody.is_empty()) {
            if self.calls.is_answer(now, &presence.speaker.identity, &stamped.bytes)
                && let Some(transport) = self.transports.get(from)
            {
                self.events.push_back(Event::CallAnswered(transport.key, stamped.bytes));
            }
            return;
        }
        self.spread(now, &RoomMessage { room, sender, label: message.label, piped: false, stamped });
    }

    /// Data that another node's participant sent: it was checked and stamped there.
    fn deliver_piped(&mut self, now: Instant, room: RoomKey, message: &Message) {
        self.stats.data_messages_received += 1;
        let Some((sender, stamped)) = read_stamped(message.label, &message.data) else {
            self.stats.dropped_malformed += 1;
            return;
        };
        let sender = SpeakerKey::elsewhere(&sender);
        self.spread(now, &RoomMessage { room, sender, label: message.label, piped: true, stamped });
    }

    /// Sends a data message to those of its room that are on this node, as far as it is for them.
    fn spread(&mut self, now: Instant, message: &RoomMessage) {
        let room = message.room;
        for shard in self.room_shards.get(&room).copied().unwrap_or_default().iter() {
            self.stats.crossings_sent += 1;
            self.crossings.push_data(shard, message);
        }
        self.deliver_data(now, message);
    }

    /// Sends data that comes from nobody in the room. Each shard gets it from the control thread.
    pub(super) fn deliver_server_data(&mut self, now: Instant, data: ServerData) {
        self.calls.note(now, &data.packet, &data.identities);
        let identities = data.identities.into_iter().map(String::from).collect();
        let label = if data.reliable { Label::Reliable } else { Label::Lossy };
        let stamped = Stamped { bytes: data.packet.into(), sequence: 0, identities, sids: Vec::new() };
        self.deliver_data(now, &RoomMessage { room: data.room, sender: NOBODY, label, piped: false, stamped });
    }

    /// Sends a data message to those of its room that are here, as far as it is for them.
    pub(super) fn deliver_data(&mut self, now: Instant, message: &RoomMessage) {
        let RoomMessage { room, sender, label, piped, stamped } = message;
        let members = self.rooms.get(room).map_or(0, Vec::len);
        if members > 0 && *label == Label::Reliable {
            self.replays.keep(now, *room, *sender, stamped);
        }
        for member in 0..members {
            let Some(index) = self.rooms.get(room).and_then(|m| m.get(member)).copied() else { break };
            let Some(transport) = self.transports.get_mut(index) else { continue };
            let is_for = || self.speakers.get(&transport.speaker).is_some_and(|p| stamped.is_for(&p.speaker));
            let wanted = match transport.pipe_number() {
                // One hop and no more: what came from a node is for those who are here, and each is told by the server itself.
                Some(_) => !piped && *sender != NOBODY,
                None => transport.speaker != *sender && transport.data.is_downstream() && is_for(),
            };
            if !wanted {
                continue;
            }
            match transport.data.send(now, *label, &stamped.bytes) {
                Ok(()) => self.stats.data_messages_sent += 1,
                Err(_) => self.stats.data_messages_dropped += 1,
            }
            self.settle(now, index);
        }
    }

    /// Sends a receiver again what it has not of these senders' reliable data, as far as that is kept. What it gets twice
    /// it tells by the sequence.
    pub(super) fn replay_data(&mut self, now: Instant, to: TransportKey, received: &[(SpeakerKey, u32)]) {
        let Some(index) = self.index_of(to) else { return };
        let Some(transport) = self.transports.get_mut(index) else { return };
        let Some(presence) = self.speakers.get_mut(&transport.speaker) else { return };
        let again = presence.replayed.is_some_and(|at| now.saturating_duration_since(at) < REPLAY_INTERVAL);
        if again || !transport.data.is_downstream() {
            return;
        }
        presence.replayed = Some(now);
        let kept = |(sender, sequence): &(SpeakerKey, u32)| self.replays.after(transport.room, *sender, *sequence);
        for stamped in received.iter().flat_map(kept).filter(|stamped| stamped.is_for(&presence.speaker)) {
            match transport.data.send(now, Label::Reliable, &stamped.bytes) {
                Ok(()) => self.stats.data_messages_sent += 1,
                Err(_) => self.stats.data_messages_dropped += 1,
            }
        }
        self.settle(now, index);
    }

    /// After anything happened to a transport: moves its output into the batch and sets its timer.
    pub(super) fn settle(&mut self, now: Instant, index: usize) {
        let Some(transport) = self.transports.get_mut(index) else { return };
        transport.flush(now, index, &mut self.batch);
        self.check_pipe(now, index);
        let Some(transport) = self.transports.get_mut(index) else { return };
        self.stats.sctp_panics += u64::from(transport.data.take_panic());
        self.deadlines.set(now, index, transport.next_timeout());
    }

    /// When [`Table::next_due`] has something.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// A transport whose timer is due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<usize> {
        self.deadlines.take_due(now)
    }

    pub(super) fn count_srtp_error(&mut self, error: SrtpError) {
        match error {
            SrtpError::Malformed => self.stats.dropped_malformed += 1,
            SrtpError::Replayed => self.stats.dropped_replay += 1,
            SrtpError::Unauthentic | SrtpError::TooManySsrcs | SrtpError::Crypto => self.stats.dropped_bad_srtp += 1,
        }
    }

    fn send_with(
        &mut self,
        to: TransportKey,
        send: impl FnOnce(&mut Transport, usize, &mut SendBatch) -> Result<(), SrtpError>,
    ) {
        let Some(index) = self.index_of(to) else { return };
        let Some(transport) = self.transports.get_mut(index) else { return };
        if send(transport, index, &mut self.batch).is_err() {
            self.stats.dropped_send += 1;
        }
    }
}

impl Sink for Table {
    fn rtp(&mut self, to: TransportKey, header: &[u8], payload: &[u8]) {
        self.send_with(to, |transport, slot, batch| transport.send_rtp(slot, header, payload, batch));
    }

    fn rtcp(&mut self, to: TransportKey, compound: &[u8]) {
        self.send_with(to, |transport, slot, batch| transport.send_rtcp(slot, compound, batch));
    }

    fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    fn cross(&mut self, to: ShardIndex, record: Record<'_>) {
        self.stats.crossings_sent += u64::from(record.droppable);
        self.crossings.push(to, record);
    }

    fn expect_rtp(&self, to: TransportKey) {
        if let Some(transport) = self.index_of(to).and_then(|index| self.transports.get(index)) {
            transport.expect_rtp();
        }
    }

    fn is_full(&self) -> bool {
        self.batch.is_full()
    }
}
