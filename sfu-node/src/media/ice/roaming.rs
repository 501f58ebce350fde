//! The one check that this lite agent makes: of an address that packets of the peer come from, with the session's keys,
//! before the peer has checked it. Its NAT has given it another one, and it does not know. **Nothing but checks goes to
//! such an address until one is answered.**

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtc::crypto::RTCCrypto;
use rtc::stun::attributes::{ATTR_ICE_CONTROLLED, ATTR_PRIORITY, ATTR_USERNAME, AttrType};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};

use super::{Agent, parse};
use crate::media::api::IceCredentials;
use crate::media::batch::Route;

/// Between two checks of one transport: the pace of an agent's checks (Ta of RFC 8445 section 14.2).
pub const CHECK_PACE: Duration = Duration::from_millis(50);
/// Doublings of [`CHECK_PACE`] while no answer comes: 1.6 s, where a peer does not answer a lite agent's checks.
const MAX_DOUBLINGS: u32 = 5;
/// Priority of a host candidate (RFC 8445 section 5.1.2.1).
const PRIORITY: u32 = 2_130_706_431;

/// A well-formed answer to a check, not yet authenticated.
pub struct Response {
    pub(super) message: Message,
}

impl Response {
    /// Parses a datagram; `None` unless it is a success response with a right FINGERPRINT.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        Some(Self { message: parse(datagram, BINDING_SUCCESS)? })
    }
}

/// An address that the peer sends from and has not proved to receive at.
#[derive(Debug)]
pub(super) struct Unproven {
    pub(super) route: Route,
    check: Option<Check>,
}

#[derive(Debug)]
struct Check {
    transaction: TransactionId,
    first: Instant,
    sent: u32,
}

/// The peer is where it was only heard from before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// An address that made room for the new one.
    pub evicted: Option<SocketAddr>,
    /// Consent had lapsed and is back.
    pub reconnected: bool,
    /// The peer has not checked the address itself: it does not know that it has another one.
    pub unknowing: bool,
}

impl Agent {
    /// The peer's credentials, for those of ours that were made last.
    pub fn set_remote(&mut self, credentials: IceCredentials) {
        match &mut self.next {
            Some((_, remote)) => *remote = Some(credentials),
            None => self.remote = Some(credentials),
        }
    }

    /// Whether the peer's credentials are known.
    #[must_use]
    pub fn has_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Notes that a packet with the session's keys came from `from`. True: that is not where media goes to.
    pub fn hears(&mut self, now: Instant, from: SocketAddr) -> bool {
        let elsewhere = self.selected.is_some_and(|selected| selected.to != from);
        if !elsewhere {
            self.heard = Some(now);
        }
        elsewhere
    }

    /// Whether nothing with the session's keys has come from where media goes to for so long.
    #[must_use]
    pub fn is_unheard(&self, now: Instant, span: Duration) -> bool {
        self.heard.is_none_or(|heard| now.saturating_duration_since(heard) >= span)
    }

    /// Whether the peer has proved that it receives at `addr`.
    #[must_use]
    pub fn is_validated(&self, addr: SocketAddr) -> bool {
        self.addresses.iter().any(|a| a.route.to == addr)
    }

    /// Whether a check may be made.
    #[must_use]
    pub fn may_check(&self, now: Instant) -> bool {
        self.remote.is_some() && self.next_check.is_none_or(|at| now >= at)
    }

    /// Takes up an address that the peer sends from; returns one given up for it.
    pub fn take_up(&mut self, route: Route) -> Option<SocketAddr> {
        if self.unproven.as_ref().is_some_and(|unproven| unproven.route == route) {
            return None;
        }
        let former = self.unproven.replace(Unproven { route, check: None }).map(|former| former.route.to);
        former.filter(|former| *former != route.to && !self.is_validated(*former))
    }

    /// A check of the address taken up, if it is time for one. `transaction`: random, for a new check.
    pub fn check(&mut self, now: Instant, transaction: TransactionId, crypto: &dyn RTCCrypto) -> Option<Vec<u8>> {
        if !self.may_check(now) {
            return None;
        }
        let (remote, unproven) = (self.remote.as_ref()?, self.unproven.as_mut()?);
        let check = unproven.check.get_or_insert(Check { transaction, first: now, sent: 0 });
        self.next_check = Some(now + CHECK_PACE * (1 << check.sent.min(MAX_DOUBLINGS)));
        check.sent = check.sent.saturating_add(1);
        // The tie-breaker breaks no tie: the peer of a lite agent controls.
        request(check.transaction, &self.current, remote, &[(ATTR_ICE_CONTROLLED, &[0; 8])], crypto)
    }

    /// Takes an answer that came by `route`. `None` if it answers no check of that address, or if the peer is still
    /// heard where it was: then another has caught its packets and sends them on.
    pub fn handle_response(
        &mut self,
        now: Instant,
        route: Route,
        mut response: Response,
        crypto: &dyn RTCCrypto,
    ) -> Option<Moved> {
        let remote = self.remote.as_ref()?;
        let check = self.unproven.as_ref().filter(|unproven| unproven.route == route)?.check.as_ref()?;
        if check.transaction != response.message.transaction_id
            || MessageIntegrity::check(&mut response.message, remote.password.as_bytes(), crypto).is_err()
        {
            return None;
        }
        if self.heard.is_some_and(|heard| heard >= check.first) {
            // Asked anew when more comes from there.
            self.unproven = Some(Unproven { route, check: None });
            return None;
        }
        self.unproven = None;
        let (unknowing, evicted) = self.learn(now, route);
        self.selected = Some(route);
        (self.consent, self.heard) = (Some(now), Some(now));
        Some(Moved { evicted, reconnected: std::mem::take(&mut self.disconnected), unknowing })
    }
}

/// A Binding request to the peer (RFC 8445 section 7.2.2), with what says our role; `None` only if the provider has no HMAC-SHA1.
pub(super) fn request(
    transaction: TransactionId,
    local: &IceCredentials,
    remote: &IceCredentials,
    role: &[(AttrType, &[u8])],
    crypto: &dyn RTCCrypto,
) -> Option<Vec<u8>> {
    let mut message = Message::new();
    message.set_type(BINDING_REQUEST);
    message.transaction_id = transaction;
    message.write_header();
    message.add(ATTR_USERNAME, format!("{}:{}", remote.ufrag, local.ufrag).as_bytes());
    message.add(ATTR_PRIORITY, &PRIORITY.to_be_bytes());
    role.iter().for_each(|(attribute, value)| message.add(*attribute, value));
    let integrity = MessageIntegrity::new_short_term_integrity_with_provider(remote.password.clone(), crypto);
    integrity.add_to(&mut message).ok()?;
    FINGERPRINT.add_to(&mut message).ok()?;
    Some(message.raw)
}
