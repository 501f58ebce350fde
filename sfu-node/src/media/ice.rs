//! ICE-lite responder of one transport (RFC 8445 section 2.5): answers authenticated Binding requests, follows the
//! peer's nomination, keeps consent (RFC 7675). **Learns an address only from a request whose MESSAGE-INTEGRITY checks
//! out, or an answer to its own**: see [`roaming`],
//! and [`dialing`] for the one peer that it makes the checks of: another node.

pub mod dialing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod roaming;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rtc::crypto::RTCCrypto;
use rtc::stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY, ATTR_UNKNOWN_ATTRIBUTES, ATTR_USE_CANDIDATE,
    ATTR_USERNAME, AttrType,
};
use rtc::stun::error_code::{ErrorCode, ErrorCodeAttribute};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Message, MessageType, Setter, TransactionId,
};
use rtc::stun::xoraddr::XorMappedAddress;

use self::dialing::Dialing;
use self::roaming::Unproven;
use super::api::IceCredentials;
use super::batch::Route;

/// Addresses a transport may hold: a client's interfaces times its NAT bindings, with room for a move.
pub const MAX_ADDRESSES: usize = 8;
/// Checks remembered to tell a replayed one: some two minutes of them.
const RECENT_CHECKS: usize = 48;
/// Longest Binding request looked at, bytes. Real ones are under 200; RFC 8489 section 6.1 bounds them by the MTU.
const MAX_REQUEST_LEN: usize = 576;
/// Silence after which a transport counts as disconnected.
pub const DISCONNECTED_AFTER: Duration = Duration::from_secs(10);
/// Silence after which consent to send is gone (RFC 7675 section 5.1).
pub const CONSENT_EXPIRES_AFTER: Duration = Duration::from_secs(30);
/// First comprehension-optional attribute (RFC 8489 section 14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;
/// Unknown attributes named in a 420 response.
const MAX_UNKNOWN_NAMED: usize = 4;
/// RFC 8445 section 7.3.1.1.
const ROLE_CONFLICT: ErrorCode = ErrorCode(487);
/// RFC 8489 section 6.3.1.
const UNKNOWN_ATTRIBUTE: ErrorCode = ErrorCode(420);
/// RFC 8489 section 9.1.3: no USERNAME or no MESSAGE-INTEGRITY.
const BAD_REQUEST: ErrorCode = ErrorCode(400);
/// RFC 8489 section 9.1.3: unknown user or wrong password.
const UNAUTHENTICATED: ErrorCode = ErrorCode(401);

/// A message of this type with a right FINGERPRINT.
fn parse(datagram: &[u8], typ: MessageType) -> Option<Message> {
    if datagram.len() > MAX_REQUEST_LEN {
        return None;
    }
    let mut message = Message::new();
    message.unmarshal_binary(datagram).ok()?;
    (message.typ == typ && FINGERPRINT.check(&message).is_ok()).then_some(message)
}

/// Whether [`Request::parse`] may take a datagram, as far as can be told without a look inside.
#[must_use]
pub fn may_be_request(datagram: &[u8]) -> bool {
    datagram.len() <= MAX_REQUEST_LEN && datagram.starts_with(&BINDING_REQUEST.value().to_be_bytes())
}

/// A well-formed Binding request, not yet authenticated.
pub struct Request {
    message: Message,
}

impl Request {
    /// Parses a datagram; `None` unless it is a Binding request with a right FINGERPRINT (RFC 8445 section 7.1.1).
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        Some(Self { message: parse(datagram, BINDING_REQUEST)? })
    }

    /// The part of USERNAME before the colon: the receiver's ufrag (RFC 8445 section 7.2.2).
    #[must_use]
    pub fn local_ufrag(&self) -> Option<&str> {
        let username = std::str::from_utf8(self.covered(ATTR_USERNAME)?).ok()?;
        username.split_once(':').map(|(local, _)| local)
    }

    /// The part behind it: the sender's own ufrag.
    fn peer_ufrag(&self) -> Option<&str> {
        let username = std::str::from_utf8(self.covered(ATTR_USERNAME)?).ok()?;
        username.split_once(':').map(|(_, peer)| peer)
    }

    /// An attribute that MESSAGE-INTEGRITY covers; what follows it counts for nothing (RFC 8489 section 14.5).
    fn covered(&self, wanted: AttrType) -> Option<&[u8]> {
        let attributes = self.message.attributes.0.iter();
        let mut covered = attributes.take_while(|a| a.typ != ATTR_MESSAGE_INTEGRITY);
        covered.find(|a| a.typ == wanted).map(|a| a.value.as_slice())
    }

    fn unknown_attributes(&self) -> ArrayVec<u16, MAX_UNKNOWN_NAMED> {
        let known = [ATTR_USERNAME, ATTR_PRIORITY, ATTR_USE_CANDIDATE];
        let attributes = self.message.attributes.0.iter().take_while(|a| a.typ != ATTR_MESSAGE_INTEGRITY);
        let required = attributes.filter(|a| a.typ.value() < COMPREHENSION_OPTIONAL && !known.contains(&a.typ));
        required.map(|a| a.typ.value()).take(MAX_UNKNOWN_NAMED).collect()
    }

    fn is_signed_with(&mut self, password: &str, crypto: &dyn RTCCrypto) -> bool {
        MessageIntegrity::check(&mut self.message, password.as_bytes(), crypto).is_ok()
    }
}

/// What an authenticated request changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// To send back to where the request came from.
    pub response: Vec<u8>,
    /// The address is new to the transport.
    pub learned: bool,
    /// An address that made room for it.
    pub evicted: Option<SocketAddr>,
    /// A ufrag that is not valid any more: the peer uses the one of the restart.
    pub retired: Option<String>,
    /// Consent had lapsed and is back.
    pub reconnected: bool,
    /// Media went elsewhere before.
    pub moved: bool,
}

/// Why a request changed nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not authenticated. The response, if any, may go out only because the address was validated before.
    Unauthenticated(Option<Vec<u8>>),
    /// Authenticated, but a role conflict or an attribute we must understand and do not.
    Rejected(Vec<u8>),
}

/// A deadline of the agent that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// [`DISCONNECTED_AFTER`].
    Disconnected,
    /// [`CONSENT_EXPIRES_AFTER`].
    Expired,
}

#[derive(Debug, Clone, Copy)]
struct Address {
    route: Route,
    seen: Instant,
}

/// Which credentials a request is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    Current,
    /// Of a restart.
    Next,
}

/// Accepted checks and where they came from, oldest first. A peer repeats a check only from where it made it; somebody who
/// caught one would move its media elsewhere. Every check is compared with all of them: ids lie together, and
/// eight of their twelve random bytes tell them apart.
struct RecentChecks {
    ids: VecDeque<u64>,
    origins: VecDeque<SocketAddr>,
}

impl Default for RecentChecks {
    fn default() -> Self {
        Self { ids: VecDeque::with_capacity(RECENT_CHECKS), origins: VecDeque::with_capacity(RECENT_CHECKS) }
    }
}

impl RecentChecks {
    /// Where the check came from before; if it did not, it is remembered.
    fn origin(&mut self, TransactionId(id): TransactionId, from: SocketAddr) -> Option<SocketAddr> {
        let id = id.first_chunk().copied().map_or(0, u64::from_ne_bytes);
        let (older, newer) = self.ids.as_slices();
        let known = older.iter().chain(newer).position(|known| *known == id);
        if let Some(origin) = known.and_then(|place| self.origins.get(place)) {
            return Some(*origin);
        }
        if self.ids.len() == RECENT_CHECKS {
            self.ids.pop_front();
            self.origins.pop_front();
        }
        self.ids.push_back(id);
        self.origins.push_back(from);
        None
    }
}

/// ICE state of one transport.
pub struct Agent {
    current: IceCredentials,
    /// The peer's, once known.
    remote: Option<IceCredentials>,
    /// Both of a restart.
    next: Option<(IceCredentials, Option<IceCredentials>)>,
    addresses: ArrayVec<Address, MAX_ADDRESSES>,
    selected: Option<Route>,
    recent: RecentChecks,
    /// Last request from the selected address.
    consent: Option<Instant>,
    disconnected: bool,
    /// Last packet with the session's keys from the selected address.
    heard: Option<Instant>,
    unproven: Option<Unproven>,
    /// Not before: the next check of our own.
    next_check: Option<Instant>,
    /// It makes the checks, and the peer answers.
    dialing: Option<Box<Dialing>>,
}

impl Agent {
    /// An agent that answers to `credentials`.
    #[must_use]
    pub fn new(credentials: IceCredentials) -> Self {
        Self {
            current: credentials,
            remote: None,
            next: None,
            addresses: ArrayVec::new(),
            selected: None,
            recent: RecentChecks::default(),
            consent: None,
            disconnected: false,
            heard: None,
            unproven: None,
            next_check: None,
            dialing: None,
        }
    }

    /// Prepares an ICE restart (RFC 8445 section 9); returns a ufrag that never came into use and is void now.
    pub fn restart(&mut self, credentials: IceCredentials) -> Option<String> {
        self.next.replace((credentials, None)).map(|(unused, _)| unused.ufrag)
    }

    /// Ufrags that are valid now.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.local().map(|credentials| credentials.ufrag.as_str())
    }

    /// Where media goes: the nominated address, or the first one until the peer nominates.
    #[must_use]
    pub fn selected(&self) -> Option<Route> {
        self.selected
    }

    /// All validated addresses, and one it sends from.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let unproven = self.unproven.as_ref().map(|unproven| unproven.route).filter(|r| !self.is_validated(r.to));
        self.addresses.iter().map(|a| a.route).chain(unproven).map(|route| route.to)
    }

    /// Whether the peer proved lately that it is at `addr`.
    #[must_use]
    pub fn is_fresh(&self, now: Instant, addr: SocketAddr) -> bool {
        self.addresses.iter().any(|a| a.route.to == addr && now.saturating_duration_since(a.seen) < DISCONNECTED_AFTER)
    }

    /// Whether media goes to `addr`, the peer's consent is there, and no restart is under way.
    #[must_use]
    pub fn is_settled_at(&self, addr: SocketAddr) -> bool {
        !self.disconnected && self.next.is_none() && self.selected.is_some_and(|selected| selected.to == addr)
    }

    /// Takes a request that came by `route`.
    ///
    /// # Errors
    /// [`Refused`] if it does not authenticate or must not be followed; nothing is learned from it then.
    pub fn handle(
        &mut self,
        now: Instant,
        route: impl Into<Route>,
        mut request: Request,
        crypto: &dyn RTCCrypto,
    ) -> Result<Accepted, Refused> {
        let route = route.into();
        let from = route.to;
        let Some(generation) = self.generation_of(&request) else {
            return Err(self.unauthenticated(from, &request, BAD_REQUEST));
        };
        if !request.is_signed_with(&self.of(generation).password, crypto) {
            return Err(self.unauthenticated(from, &request, UNAUTHENTICATED));
        }
        if self.recent.origin(request.message.transaction_id, from).is_some_and(|before| before != from) {
            return Err(Refused::Unauthenticated(None));
        }
        let signed = Some((self.of(generation), crypto));
        // A lite agent is always controlled; a full one that thinks the same must switch.
        if request.covered(ATTR_ICE_CONTROLLED).is_some() {
            return Err(Refused::Rejected(error(&request, ROLE_CONFLICT, &[], signed)));
        }
        let unknown = request.unknown_attributes();
        if !unknown.is_empty() {
            return Err(Refused::Rejected(error(&request, UNKNOWN_ATTRIBUTE, &unknown, signed)));
        }

        let mut accepted = Accepted { response: success(&request, from, signed), ..Accepted::default() };
        self.follow_peer(&request);
        if let Some((local, remote)) = self.next.take_if(|_| generation == Generation::Next) {
            accepted.retired = Some(std::mem::replace(&mut self.current, local).ufrag);
            self.remote = remote.or(self.remote.take());
        }
        self.unproven.take_if(|unproven| unproven.route.to == from);
        (accepted.learned, accepted.evicted) = self.learn(now, route);
        // Of a restart the first address, as of the first checks: the former one may be dead, and the nomination comes late.
        let is_first = self.selected.is_none() || accepted.retired.is_some();
        if is_first || request.covered(ATTR_USE_CANDIDATE).is_some() {
            let former = self.selected.replace(route);
            accepted.moved = former.is_some_and(|former| former.to != from);
        }
        if self.selected.is_some_and(|selected| selected.to == from) {
            self.consent = Some(now);
            accepted.reconnected = std::mem::take(&mut self.disconnected);
        }
        Ok(accepted)
    }

    /// Of a restart a peer uses its own credentials as soon as it has offered it, and ours when it has the answer. One
    /// that checks from a new port before that may stay with our former ones (libwebrtc does).
    fn follow_peer(&mut self, request: &Request) {
        if let Some((_, Some(remote))) = &self.next
            && request.peer_ufrag() == Some(remote.ufrag.as_str())
        {
            self.remote = Some(remote.clone());
        }
    }

    /// Gives up an address that another transport has proved to own.
    pub fn forget(&mut self, addr: SocketAddr) {
        self.addresses.retain(|a| a.route.to != addr);
        self.unproven.take_if(|unproven| unproven.route.to == addr);
        self.selected.take_if(|selected| selected.to == addr);
    }

    /// When [`Agent::handle_timeout`] has something to say; `None` before the first request.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let after = if self.disconnected { CONSENT_EXPIRES_AFTER } else { DISCONNECTED_AFTER };
        let silence = self.consent.map(|seen| seen + after);
        [silence, self.next_round()].into_iter().flatten().min()
    }

    /// Tells what silence has led to.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Silence> {
        let silent = now.saturating_duration_since(self.consent?);
        if silent >= CONSENT_EXPIRES_AFTER {
            return Some(Silence::Expired);
        }
        if silent >= DISCONNECTED_AFTER && !self.disconnected {
            self.disconnected = true;
            return Some(Silence::Disconnected);
        }
        None
    }

    fn local(&self) -> impl Iterator<Item = &IceCredentials> {
        std::iter::once(&self.current).chain(self.next.as_ref().map(|(local, _)| local))
    }

    fn generation_of(&self, request: &Request) -> Option<Generation> {
        let ufrag = request.local_ufrag()?;
        let is_of = |generation: &Generation| self.of(*generation).ufrag == ufrag;
        [Generation::Current, Generation::Next].into_iter().find(is_of)
    }

    /// Without a restart there is one generation.
    fn of(&self, generation: Generation) -> &IceCredentials {
        match (generation, &self.next) {
            (Generation::Next, Some((next, _))) => next,
            _ => &self.current,
        }
    }

    fn unauthenticated(&self, from: SocketAddr, request: &Request, code: ErrorCode) -> Refused {
        let known = self.addresses.iter().any(|a| a.route.to == from);
        Refused::Unauthenticated(known.then(|| error(request, code, &[], None)))
    }

    fn learn(&mut self, now: Instant, route: Route) -> (bool, Option<SocketAddr>) {
        if let Some(known) = self.addresses.iter_mut().find(|a| a.route.to == route.to) {
            *known = Address { route, seen: now };
            return (false, None);
        }
        let mut evicted = None;
        if self.addresses.is_full() {
            let selected = self.selected.map(|selected| selected.to);
            let candidates = self.addresses.iter().enumerate().filter(|(_, a)| Some(a.route.to) != selected);
            let oldest = candidates.min_by_key(|(_, a)| a.seen).map(|(i, _)| i);
            evicted = oldest.and_then(|i| self.addresses.swap_pop(i)).map(|a| a.route.to);
        }
        self.addresses.push(Address { route, seen: now });
        (true, evicted)
    }
}

fn success(request: &Request, from: SocketAddr, signed: Option<(&IceCredentials, &dyn RTCCrypto)>) -> Vec<u8> {
    // A dual-stack socket names IPv4 peers in mapped form; they know themselves by the plain one.
    let mapped = XorMappedAddress { ip: from.ip().to_canonical(), port: from.port() };
    respond(request, BINDING_SUCCESS, &mapped, signed)
}

fn error(
    request: &Request,
    code: ErrorCode,
    unknown: &[u16],
    signed: Option<(&IceCredentials, &dyn RTCCrypto)>,
) -> Vec<u8> {
    struct Body<'a>(ErrorCode, &'a [u16]);
    impl Setter for Body<'_> {
        fn add_to(&self, message: &mut Message) -> rtc::shared::error::Result<()> {
            ErrorCodeAttribute { code: self.0, reason: Vec::new() }.add_to(message)?;
            if !self.1.is_empty() {
                let named: Vec<u8> = self.1.iter().flat_map(|t| t.to_be_bytes()).collect();
                message.add(ATTR_UNKNOWN_ATTRIBUTES, &named);
            }
            Ok(())
        }
    }
    respond(request, BINDING_ERROR, &Body(code, unknown), signed)
}

/// A response to `request`; empty (and so never sent) only if the provider has no HMAC-SHA1.
fn respond(
    request: &Request,
    typ: MessageType,
    body: &dyn Setter,
    signed: Option<(&IceCredentials, &dyn RTCCrypto)>,
) -> Vec<u8> {
    let build = || {
        let mut message = Message::new();
        message.set_type(typ);
        message.transaction_id = request.message.transaction_id;
        message.write_header();
        body.add_to(&mut message)?;
        if let Some((credentials, crypto)) = signed {
            MessageIntegrity::new_short_term_integrity_with_provider(credentials.password.clone(), crypto)
                .add_to(&mut message)?;
        }
        FINGERPRINT.add_to(&mut message)?;
        rtc::shared::error::Result::Ok(message.raw)
    };
    build().unwrap_or_default()
}

#[cfg(test)]
mod tests;
