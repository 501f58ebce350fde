//! Peers whose address changes without their knowing: found by the keys of what they send. **What does not authenticate
//! teaches nothing; media follows only when a check is answered.**

use std::time::{Duration, Instant};

use rtc::stun::message::{TRANSACTION_ID_SIZE, TransactionId};

use super::{Contact, Table};
use crate::media::batch::Route;
use crate::media::demux::Protocol;
use crate::media::ice::roaming::Response;
use crate::media::transport::{Happening, Transport, push_plain};

/// Searches for the owner of a packet in a second: more are packets that belong to nobody.
const SEARCHES: u32 = 500;
/// What [`SEARCHES`] counts for.
const SEARCH_SPAN: Duration = Duration::from_secs(1);
/// Sessions whose keys are tried on one packet. Its SSRC leaves one, but for viewers: their reports may all have the same.
const MAX_TRIALS: usize = 16;

/// What a DTLS record begins with that holds data (RFC 5246 section 6.2.1).
const APPLICATION_DATA: u8 = 23;
/// Where the SSRC stands (RFC 3550 sections 5.1 and 6.4).
const RTP_SSRC_AT: usize = 8;
const RTCP_SSRC_AT: usize = 4;

/// Bounds what strangers can make the shard do.
#[derive(Default)]
pub(super) struct Searches {
    since: Option<Instant>,
    count: u32,
    /// A failed trial leaves nothing of the packet.
    scratch: Vec<u8>,
}

impl Searches {
    fn may_start(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SEARCH_SPAN) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= SEARCHES
    }

    /// Decrypts `datagram` in place if it authenticates with a session's keys; returns the packet's length.
    fn try_keys(&mut self, transport: &mut Transport, protocol: Protocol, datagram: &mut [u8]) -> Option<usize> {
        self.scratch.clear();
        self.scratch.extend_from_slice(datagram);
        let packet = match protocol {
            Protocol::Rtp => transport.unprotect_rtp(&mut self.scratch),
            _ => transport.unprotect_rtcp(&mut self.scratch),
        }
        .ok()?;
        datagram.get_mut(..packet.len())?.copy_from_slice(packet);
        Some(packet.len())
    }
}

/// Whether the peer was on that host: a NAT that forgets an address seldom has another one itself.
fn is_near(transport: &Transport, route: Route) -> bool {
    transport.ice.selected().is_some_and(|selected| selected.to.ip() == route.to.ip())
}

impl Table {
    /// The transport that an RTP or RTCP packet from an unknown address belongs to, and the length of the packet, which
    /// lies decrypted at the beginning of `datagram` then.
    pub(in super::super) fn owner_of(
        &mut self,
        now: Instant,
        route: Route,
        protocol: Protocol,
        datagram: &mut [u8],
    ) -> Option<(usize, usize)> {
        let at = if protocol == Protocol::Rtp { RTP_SSRC_AT } else { RTCP_SSRC_AT };
        let ssrc = datagram.get(at..).and_then(<[u8]>::first_chunk).copied().map(u32::from_be_bytes)?;
        let Self { transports, searches, .. } = self;
        if !searches.may_start(now) {
            return None;
        }
        [true, false].into_iter().find_map(|nearness| {
            let candidates = transports.iter_mut().filter(|(_, transport)| {
                transport.may_have_sent(now, protocol, ssrc) && is_near(transport, route) == nearness
            });
            candidates.take(MAX_TRIALS).find_map(|(index, t)| Some((index, searches.try_keys(t, protocol, datagram)?)))
        })
    }

    /// The transport that data from an unknown address belongs to, and what happens with it. Nothing in the clear says
    /// whose it is: only sessions of the same host are tried.
    pub(in super::super) fn owner_of_data(
        &mut self,
        now: Instant,
        route: Route,
        datagram: &[u8],
    ) -> Option<(usize, Vec<Happening>)> {
        let Self { transports, searches, provider, .. } = self;
        if datagram.first() != Some(&APPLICATION_DATA) || !searches.may_start(now) {
            return None;
        }
        let crypto = provider.crypto();
        let candidates = transports
            .iter_mut()
            .filter(|(_, transport)| transport.may_have_sent_data(now) && is_near(transport, route));
        candidates
            .take(MAX_TRIALS)
            .find_map(|(index, transport)| Some((index, transport.take_stray_data(now, datagram, crypto)?)))
    }

    /// A packet with the keys of a session came from where its media does not go to: asks whether its peer is there.
    pub(in super::super) fn look_there(&mut self, now: Instant, index: usize, route: Route) {
        // Another node's checks say where it is.
        let is_client = |transport: &&mut Transport| transport.pipe_number().is_none();
        let Some(transport) = self.transports.get_mut(index).filter(is_client) else { return };
        let former = transport.ice.take_up(route);
        let mut id = [0; TRANSACTION_ID_SIZE];
        if transport.ice.may_check(now)
            && self.provider.random().fill(&mut id).is_ok()
            && let Some(check) = transport.ice.check(now, TransactionId(id), self.provider.crypto())
        {
            push_plain(index, route, &check, &mut self.batch);
        }
        self.by_addr.entry(route.to).or_insert(index);
        if let Some(former) = former {
            self.forget_address(former, index);
        }
    }

    /// Takes an answer to a check of ours.
    pub(super) fn accept_response(&mut self, now: Instant, route: Route, datagram: &[u8]) -> Option<Contact> {
        let response = Response::parse(datagram)?;
        let index = self.index_at(route.to)?;
        let transport = self.transports.get_mut(index)?;
        let moved = transport.ice.handle_response(now, route, response, self.provider.crypto())?;
        if let Some(evicted) = moved.evicted {
            self.forget_address(evicted, index);
        }
        Some(Contact { index, reconnected: moved.reconnected, moved: true, unknowing: moved.unknowing })
    }
}
