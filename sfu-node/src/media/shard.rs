//! One shard: all transports of one UDP socket and the forwarder between them. The machine has no socket and no clock;
//! [`thread`] gives it both. **Every call is followed by sending what [`Shard::next_batch`] gives, and draining
//! [`Shard::poll_event`].**

mod consent;
mod crossings;
mod deadlines;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gather;
mod load;
mod overload;
mod rings;
mod table;
pub mod thread;

#[cfg(feature = "sim")]
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::crypto::RTCCryptoProvider;

use self::consent::PutOff;
use self::crossings::RoomMessage;
pub use self::crossings::{Crossings, Frame, frames};
use self::gather::MIN_TRANSPORTS;
use self::overload::{Load, Overload};
use self::table::{Contact, Parting, Table};
#[cfg(feature = "sim")]
use super::api::Fingerprint;
use super::api::{Command, Event, FailReason, PipeNumber, ShardIndex, ShardStats, TransportConfig, TransportKey};
use super::batch::{MAX_BYTES, Route, SendBatch};
use super::demux::{Protocol, classify};
use super::dtls::Identities;
use super::forward::Forwarder;
use super::ice::may_be_request;
use super::socket::Sent;
#[cfg(any(test, feature = "sim"))]
use super::srtp::Srtp;
use super::srtp::SrtpError;
use super::transport::Happening;

/// Transports and forwarder.
pub struct Shard {
    table: Table,
    forwarder: Forwarder,
    overload: Overload,
    /// Datagrams dropped at full buffers when last looked.
    dropped_before: u64,
    /// Datagrams not sent because the socket's buffer was full.
    dropped_full: u64,
    /// When something last flowed; consent checks, reports and heartbeats are none of it.
    flowed: Option<Instant>,
    /// Consent checks that wait while nothing flows.
    put_off: PutOff,
}

/// Packets of video that a batch is to hold.
const MAX_WAITING: usize = MAX_BYTES / 1200;
/// Silence after which a shard is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(1);

impl Shard {
    /// A shard without transports. `max_segments`: datagrams its socket sends at once. `seed`: for what the forwarder
    /// chooses at random.
    #[must_use]
    pub fn new(
        max_transports: usize,
        max_segments: usize,
        seed: u64,
        identities: Identities,
        provider: Arc<dyn RTCCryptoProvider>,
    ) -> Self {
        Self {
            table: Table::new(max_transports, max_segments, identities, provider),
            forwarder: Forwarder::new(seed),
            overload: Overload::new(),
            dropped_before: 0,
            dropped_full: 0,
            flowed: None,
            put_off: PutOff::default(),
        }
    }

    /// Counts time from `origin`, as all shards of a node must.
    #[must_use]
    pub fn counting_from(mut self, origin: Instant) -> Self {
        self.forwarder = self.forwarder.counting_from(origin);
        self
    }

    /// Lets so many microphones of a room be heard, the loudest; all, if it is not called.
    #[must_use]
    pub fn hearing(mut self, most: usize) -> Self {
        self.forwarder = self.forwarder.hearing(most);
        self
    }

    /// Takes a command, all but [`Command::Stop`], which is the thread's.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        if !matches!(command, Command::ReadStats) {
            self.flowed = Some(now);
        }
        match command {
            Command::Open(config) => self.open(now, &config),
            Command::TakeOverChannels(key, channels) => self.table.take_over_channels(key, channels),
            Command::SetFingerprint(key, fingerprint) => {
                let Some(index) = self.table.index_of(key) else { return };
                let Some((transport, crypto)) = self.table.transport(index) else { return };
                let happenings = transport.expect(now, fingerprint, crypto);
                self.carry_out(now, index, happenings);
            }
            Command::RestartIce(key, credentials) => self.table.restart_ice(key, credentials),
            Command::SetRemoteIce(key, credentials) => self.table.set_remote_ice(key, credentials),
            Command::ConnectPipe(key, peer) => {
                let Some(index) = self.table.index_of(key) else { return };
                let Some((transport, crypto)) = self.table.transport(index) else { return };
                let happenings = transport.connect_pipe(now, *peer, crypto);
                self.carry_out(now, index, happenings);
            }
            Command::SetReceivers(key, receivers) => {
                self.forwarder.set_receivers(now, key, receivers, &mut self.table);
            }
            Command::SetSenders(key, senders) => self.forwarder.set_senders(now, key, senders, &mut self.table),
            Command::SetRelayed { transport, room, from, receivers } => {
                self.forwarder.set_relayed(now, transport, room, from, receivers, &mut self.table);
            }
            Command::SetRoomShards(room, others) => self.table.set_room_shards(room, others),
            Command::ReplayData(key, received) => self.table.replay_data(now, key, &received),
            Command::SendData(data) => self.table.deliver_server_data(now, *data),
            Command::SetMuted(track, muted) => self.forwarder.set_muted(now, track, muted, &mut self.table),
            Command::SetSpeaker(speaker) => self.table.set_speaker(speaker),
            Command::Close(key) => self.end(now, key, Parting::Goodbye),
            Command::Forget(key) => self.end(now, key, Parting::Silent),
            Command::ReadStats => {
                let stats = Box::new(self.stats());
                self.table.events.push_back(Event::Stats(stats));
            }
            Command::Stop => {}
        }
    }

    /// Takes a datagram from the socket; it is decrypted in place.
    pub fn handle_datagram(&mut self, now: Instant, route: impl Into<Route>, datagram: &mut [u8]) {
        let route = route.into();
        self.table.stats.packets_received += 1;
        self.table.stats.bytes_received += datagram.len() as u64;
        let protocol = classify(datagram);
        if protocol == Some(Protocol::Stun) {
            if !self.may_wait(now, route, datagram) {
                // What waits came before it.
                self.answer_put_off(now);
                self.handle_stun(now, route, datagram);
            } else if self.put_off.add(now, route, datagram) {
                self.answer_put_off(now);
            }
            return;
        }
        if protocol == Some(Protocol::Pipe) {
            return self.handle_piped(now, route, datagram);
        }
        let Some(index) = self.table.index_at(route.to) else { return self.handle_stray(now, route, datagram) };
        self.handle_inside(now, index, route, protocol, datagram);
    }

    /// Takes a datagram of another node.
    fn handle_piped(&mut self, now: Instant, route: Route, datagram: &mut [u8]) {
        let Some((number, inner)) = PipeNumber::read(datagram) else { return };
        let Some(index) = self.table.index_of_pipe(number) else {
            self.table.stats.dropped_unknown_address += 1;
            return;
        };
        let protocol = classify(inner);
        if protocol == Some(Protocol::Stun) {
            if let Some(contact) = self.table.handle_pipe_stun(now, index, route, inner) {
                self.note_contact(now, &contact);
            }
            return;
        }
        let Some((transport, _)) = self.table.transport(index) else { return };
        if !transport.ice.is_validated(route.to) {
            self.table.stats.dropped_unknown_address += 1;
            return;
        }
        self.handle_inside(now, index, route, protocol, inner);
    }

    /// Takes what is no check, of a transport.
    fn handle_inside(
        &mut self,
        now: Instant,
        index: usize,
        route: Route,
        protocol: Option<Protocol>,
        datagram: &mut [u8],
    ) {
        let Some((transport, crypto)) = self.table.transport(index) else { return };
        let key = transport.key;
        match protocol {
            Some(Protocol::Rtp) => match transport.unprotect_rtp(datagram) {
                Ok(packet) => {
                    let elsewhere = transport.ice.hears(now, route.to);
                    self.flowed = Some(now);
                    self.forwarder.on_rtp(now, key, packet, &mut self.table);
                    if elsewhere {
                        self.table.look_there(now, index, route);
                    }
                }
                Err(error) => self.refuse(now, index, route, error),
            },
            Some(Protocol::Rtcp) => match transport.unprotect_rtcp(datagram) {
                Ok(compound) => {
                    let elsewhere = transport.ice.hears(now, route.to);
                    self.forwarder.on_rtcp(now, key, compound, &mut self.table);
                    if elsewhere {
                        self.table.look_there(now, index, route);
                    }
                }
                Err(error) => self.refuse(now, index, route, error),
            },
            // Anybody can write a handshake message; it waits for a check.
            Some(Protocol::Dtls) if !transport.ice.is_validated(route.to) => {
                self.table.stats.dropped_unknown_address += 1;
            }
            Some(Protocol::Dtls) => {
                let connecting = !transport.is_connected();
                let happenings = transport.handle_dtls(now, datagram, crypto);
                if connecting || !happenings.is_empty() {
                    self.flowed = Some(now);
                }
                self.carry_out(now, index, happenings);
            }
            Some(Protocol::Stun | Protocol::Pipe) | None => self.table.stats.dropped_malformed += 1,
        }
    }

    /// Transports open.
    #[must_use]
    pub fn transport_count(&self) -> usize {
        self.table.len()
    }

    /// Nothing has flowed for a while, and nobody is connecting: who is waited for can wait for others.
    #[must_use]
    pub fn is_quiet(&self, now: Instant) -> bool {
        self.flowed.is_none_or(|at| now.saturating_duration_since(at) > QUIET_AFTER)
    }

    /// Takes a frame that another shard staged for this one.
    pub fn handle_crossing(&mut self, now: Instant, from: ShardIndex, frame: Frame<'_>) {
        self.flowed = Some(now);
        if !frame.is_data {
            self.table.stats.crossings_received += u64::from(frame.droppable);
            return self.forwarder.on_crossing(now, from, frame.body, &mut self.table);
        }
        self.table.stats.crossings_received += 1;
        match RoomMessage::decode(frame.body) {
            Some(message) => self.table.deliver_data(now, &message),
            None => self.table.stats.dropped_malformed += 1,
        }
    }

    /// What other shards are to get.
    pub fn crossings(&mut self) -> &mut Crossings {
        &mut self.table.crossings
    }

    /// Counts frames that did not reach another shard.
    pub fn note_dropped_crossings(&mut self, dropped: u64) {
        self.table.stats.crossings_dropped += dropped;
    }

    /// When to call [`Shard::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.table.next_timeout(), self.forwarder.next_timeout(), self.put_off.due()].into_iter().flatten().min()
    }

    /// Lets every timer that is due fire.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(index) = self.table.next_due(now) {
            if let Some((transport, crypto)) = self.table.transport(index) {
                let happenings = transport.handle_timeout(now, crypto);
                self.carry_out(now, index, happenings);
            }
        }
        if self.forwarder.next_timeout().is_some_and(|at| at <= now) {
            self.forwarder.on_timeout(now, &mut self.table);
        }
        if self.put_off.due().is_some_and(|at| at <= now) {
            self.answer_put_off(now);
        }
    }

    /// What is to be sent is best sent before more comes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.table.batch.is_full()
    }

    /// More waits than a batch is to hold, and this datagram would have all of it go into one.
    #[must_use]
    pub fn is_overfilled_by(&self, datagram: &mut [u8]) -> bool {
        let is_report = match classify(datagram) {
            Some(Protocol::Pipe) => {
                PipeNumber::read(datagram).is_some_and(|(_, inner)| classify(inner) == Some(Protocol::Rtcp))
            }
            protocol => protocol == Some(Protocol::Rtcp),
        };
        is_report && self.overfills()
    }

    /// More waits than a batch is to hold.
    #[must_use]
    pub fn overfills(&self) -> bool {
        self.forwarder.waiting() > MAX_WAITING
    }

    /// What is to be sent so far. Packets of a frame that may be followed by more are not in it.
    pub fn batch(&mut self) -> &mut SendBatch {
        &mut self.table.batch
    }

    /// What is to be sent when no more datagrams are at hand, a part that a core's cache holds; `None` when that was all.
    /// **The caller clears each.**
    pub fn next_batch(&mut self) -> Option<&mut SendBatch> {
        self.forwarder.flush_some(&mut self.table);
        Some(&mut self.table.batch).filter(|batch| !batch.is_empty())
    }

    /// Counts what became of the batch.
    pub fn note_sent(&mut self, sent: Sent) {
        let stats = &mut self.table.stats;
        stats.packets_sent += sent.packets;
        stats.bytes_sent += sent.bytes;
        stats.send_calls += sent.calls;
        stats.dropped_send += sent.dropped;
        self.dropped_full += sent.full;
    }

    /// Takes how busy the thread was in about the last second, 0.0 to 1.0, the CPU time it has taken in all, and how many
    /// datagrams the kernel has dropped because nobody took them. A shard that cannot keep up leaves out video.
    pub fn note_load(&mut self, now: Instant, (busy, cpu): (f32, Duration), dropped_receive: u64) {
        let stats = &mut self.table.stats;
        stats.dropped_receive = dropped_receive;
        stats.cpu_micros = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
        let dropped = dropped_receive + self.dropped_full;
        let dropping = dropped > std::mem::replace(&mut self.dropped_before, dropped);
        let before = self.overload.relief();
        let relief = self.overload.observe(now, Load { busy, dropping });
        (stats.busy_percent, stats.relief) = (percent(busy), relief.steps().into());
        if relief != before {
            let (busy_percent, steps) = (stats.busy_percent, relief.steps());
            if relief > before {
                tracing::warn!(busy_percent, steps, "too much load: video left out");
            } else {
                tracing::info!(busy_percent, steps, "load fell: video comes back");
            }
            self.forwarder.relieve(now, relief, &mut self.table);
        }
    }

    /// Counts a receive call.
    pub fn note_receive_call(&mut self) {
        self.table.stats.receive_calls += 1;
    }

    /// The next event for the control thread.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.table.events.pop_front()
    }

    /// Counters of this machine and its forwarder.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        let mut stats = self.table.stats;
        stats.transports = self.table.len() as u64;
        let forwarded = self.forwarder.stats();
        stats.dropped_malformed += forwarded.dropped_malformed;
        ShardStats {
            receivers: forwarded.receivers,
            senders: forwarded.senders,
            sent_lost: forwarded.sent_lost,
            received_lost: forwarded.received_lost,
            nacks_received: forwarded.nacks_received,
            nacks_sent: forwarded.nacks_sent,
            plis_received: forwarded.plis_received,
            plis_sent: forwarded.plis_sent,
            retransmissions_sent: forwarded.retransmissions_sent,
            padding_sent: forwarded.padding_sent,
            round_trips: forwarded.round_trips,
            ..stats
        }
    }

    /// As if DTLS had come up with these keys.
    #[cfg(test)]
    pub(crate) fn skip_dtls(&mut self, now: Instant, key: TransportKey, srtp: Srtp) {
        let Some(index) = self.table.index_of(key) else { return };
        let Some((transport, _)) = self.table.transport(index) else { return };
        let connected = transport.skip_dtls(srtp);
        self.carry_out(now, index, vec![connected]);
    }

    /// As if a client with this certificate had finished DTLS from there: the certificate it saw. `None`: it would not have.
    #[cfg(feature = "sim")]
    pub(crate) fn shake_hands(
        &mut self,
        now: Instant,
        from: SocketAddr,
        peer: Fingerprint,
        srtp: Srtp,
    ) -> Option<Fingerprint> {
        let index = self.table.index_at(from)?;
        let (transport, _) = self.table.transport(index)?;
        if transport.is_connected() || !transport.expects(peer) {
            return None;
        }
        let shown = transport.shows();
        let connected = transport.skip_dtls(srtp);
        self.carry_out(now, index, vec![connected]);
        Some(shown)
    }

    /// A packet that comes from where nobody is known to be: dropped unless it has the keys of a session.
    fn handle_stray(&mut self, now: Instant, route: Route, datagram: &mut [u8]) {
        let protocol = classify(datagram);
        if protocol == Some(Protocol::Dtls)
            && let Some((index, happenings)) = self.table.owner_of_data(now, route, datagram)
        {
            self.flowed = Some(now);
            self.table.look_there(now, index, route);
            return self.carry_out(now, index, happenings);
        }
        let protocol = protocol.filter(|protocol| matches!(protocol, Protocol::Rtp | Protocol::Rtcp));
        let owner = protocol.and_then(|p| Some((p, self.table.owner_of(now, route, p, datagram)?)));
        let Some((protocol, (index, len))) = owner else {
            self.table.stats.dropped_unknown_address += 1;
            return;
        };
        let Some((transport, _)) = self.table.transport(index) else { return };
        let (key, packet) = (transport.key, datagram.get(..len).unwrap_or_default());
        if protocol == Protocol::Rtp {
            self.flowed = Some(now);
            self.forwarder.on_rtp(now, key, packet, &mut self.table);
        } else {
            self.forwarder.on_rtcp(now, key, packet, &mut self.table);
        }
        self.table.look_there(now, index, route);
    }

    /// Counts a packet that is not forwarded.
    fn refuse(&mut self, now: Instant, index: usize, route: Route, error: SrtpError) {
        self.table.count_srtp_error(error);
        // Who sends copies of a peer's packets from elsewhere is ahead of them; the peer is where they come from.
        if error == SrtpError::Replayed
            && let Some((transport, _)) = self.table.transport(index)
        {
            transport.ice.hears(now, route.to);
        }
    }

    fn open(&mut self, now: Instant, config: &TransportConfig) {
        if self.table.open(now, config) {
            self.forwarder.open(config.key, config.room);
            if config.pipe.is_some() {
                self.forwarder.set_pipe(config.key);
            }
        } else {
            self.table.events.push_back(Event::Failed { transport: config.key, reason: FailReason::Refused });
        }
    }

    fn end(&mut self, now: Instant, key: TransportKey, parting: Parting) {
        if let Some(index) = self.table.index_of(key) {
            self.close(now, index, parting);
        }
    }

    fn close(&mut self, now: Instant, index: usize, parting: Parting) {
        let Some((transport, _)) = self.table.transport(index) else { return };
        let key = transport.key;
        self.forwarder.close(now, key, &mut self.table);
        self.table.remove(now, index, parting);
    }

    /// Whether a datagram can be answered later with others like it: a check from where its peer is known to be, while
    /// nothing flows.
    fn may_wait(&self, now: Instant, route: Route, datagram: &[u8]) -> bool {
        self.transport_count() >= MIN_TRANSPORTS
            && self.is_quiet(now)
            && may_be_request(datagram)
            && self.table.is_settled_at(route.to)
    }

    fn answer_put_off(&mut self, now: Instant) {
        let put_off = std::mem::take(&mut self.put_off);
        for (route, check) in put_off.checks() {
            self.handle_stun(now, route, check);
        }
        self.put_off = put_off.emptied();
    }

    fn handle_stun(&mut self, now: Instant, route: Route, datagram: &[u8]) {
        if let Some(contact) = self.table.handle_stun(now, route, datagram) {
            self.note_contact(now, &contact);
        }
    }

    /// A check was answered.
    fn note_contact(&mut self, now: Instant, contact: &Contact) {
        let Some((transport, _)) = self.table.transport(contact.index) else { return };
        let (key, connected) = (transport.key, transport.is_connected());
        transport.shake_hands(now);
        if contact.moved {
            self.forwarder.path_changed(now, key, &mut self.table);
        }
        if connected && contact.unknowing {
            self.table.events.push_back(Event::Readdressed(key));
        }
        if connected && !contact.reconnected {
            // Nothing waited for this, and a deadline that is later now is set anew when it passes.
            return;
        }
        self.flowed = Some(now);
        if connected {
            self.table.events.push_back(Event::Reconnected(key));
            self.forwarder.connected(now, key, true, &mut self.table);
        }
        self.table.settle(now, contact.index);
    }

    fn carry_out(&mut self, now: Instant, index: usize, happenings: Vec<Happening>) {
        let Some((transport, _)) = self.table.transport(index) else { return };
        let key = transport.key;
        for happening in happenings {
            match happening {
                Happening::Connected(profile) => {
                    self.table.events.push_back(Event::Connected { transport: key, profile });
                    self.forwarder.connected(now, key, true, &mut self.table);
                }
                Happening::Disconnected => {
                    self.table.events.push_back(Event::Disconnected(key));
                    self.forwarder.connected(now, key, false, &mut self.table);
                }
                Happening::Failed(reason) => {
                    self.table.events.push_back(Event::Failed { transport: key, reason });
                    return self.close(now, index, Parting::Goodbye);
                }
                Happening::ChannelsOpened(channels) => {
                    self.table.events.push_back(Event::ChannelsOpened(key, channels));
                }
                Happening::Data(message) => self.table.forward_data(now, index, &message),
            }
        }
        self.table.settle(now, index);
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
fn percent(share: f32) -> u64 {
    (share.clamp(0.0, 1.0) * 100.0) as u64
}

#[cfg(test)]
mod tests;
