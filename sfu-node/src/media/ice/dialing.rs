//! The full side of ICE, towards a lite agent of our own: another node, whose addresses are public and known. It checks all
//! of them at once, takes the first that answers, and keeps consent with it (RFC 7675). **Learns an address only from an
//! answer to a check of its own.**

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rtc::crypto::RTCCrypto;
use rtc::stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_USE_CANDIDATE};
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::TransactionId;
use shared::control::MAX_PIPE_ADDRESSES;

use super::Agent;
use super::roaming::{CHECK_PACE, Moved, Response, request};
use crate::media::batch::Route;

/// Between two checks that keep consent: several are lost before the peer misses them ([`super::DISCONNECTED_AFTER`]).
const CONSENT_PACE: Duration = Duration::from_secs(2);
/// Doublings of [`CHECK_PACE`] while no answer comes: 1.6 s.
const MAX_DOUBLINGS: u32 = 5;
/// Checks whose answer is still taken: of the last rounds.
const OUTSTANDING: usize = 4 * MAX_PIPE_ADDRESSES;

/// Checks that go out together, each with its address.
pub type Checks = ArrayVec<(Route, Vec<u8>), MAX_PIPE_ADDRESSES>;

/// Checks of the peer's addresses.
#[derive(Debug)]
pub(super) struct Dialing {
    targets: ArrayVec<SocketAddr, MAX_PIPE_ADDRESSES>,
    outstanding: ArrayVec<(TransactionId, SocketAddr), OUTSTANDING>,
    /// When the next round is due.
    next: Instant,
    /// Rounds without an answer.
    rounds: u32,
}

impl Agent {
    /// Begins to check the peer's addresses; its credentials are known.
    pub fn dial(&mut self, now: Instant, targets: ArrayVec<SocketAddr, MAX_PIPE_ADDRESSES>) {
        self.dialing = Some(Box::new(Dialing { targets, outstanding: ArrayVec::new(), next: now, rounds: 0 }));
    }

    /// When the next round of checks is due.
    pub(super) fn next_round(&self) -> Option<Instant> {
        self.dialing.as_ref().map(|dialing| dialing.next)
    }

    /// The checks that are due: of every address until one has answered, then of that one. `random` gives transaction ids.
    pub fn due_checks(
        &mut self,
        now: Instant,
        crypto: &dyn RTCCrypto,
        mut random: impl FnMut() -> Option<TransactionId>,
    ) -> Checks {
        let mut checks = Checks::new();
        let lost = self.selected.is_none() || self.disconnected;
        let (Some(dialing), Some(remote)) = (&mut self.dialing, &self.remote) else { return checks };
        if now < dialing.next {
            return checks;
        }
        let wait = if lost { CHECK_PACE * (1 << dialing.rounds.min(MAX_DOUBLINGS)) } else { CONSENT_PACE };
        dialing.next = now + wait;
        dialing.rounds = dialing.rounds.saturating_add(1);
        let selected = self.selected.filter(|_| !lost).map(|selected| selected.to);
        for to in dialing.targets.iter().copied().filter(|to| selected.is_none_or(|selected| selected == *to)) {
            let Some(transaction) = random() else { break };
            let role = [(ATTR_ICE_CONTROLLING, &[0; 8][..]), (ATTR_USE_CANDIDATE, &[][..])];
            let Some(check) = request(transaction, &self.current, remote, &role, crypto) else { break };
            if dialing.outstanding.is_full() {
                dialing.outstanding.remove(0);
            }
            dialing.outstanding.push((transaction, to));
            checks.push((Route::from(to), check));
        }
        checks
    }

    /// Takes an answer that came by `route`. `None` if it answers no check of that address, or is not signed by the peer.
    pub fn handle_dialed(
        &mut self,
        now: Instant,
        route: Route,
        mut response: Response,
        crypto: &dyn RTCCrypto,
    ) -> Option<Moved> {
        let (dialing, remote) = (self.dialing.as_mut()?, self.remote.as_ref()?);
        let answered =
            |(id, to): &(TransactionId, SocketAddr)| *id == response.message.transaction_id && *to == route.to;
        let place = dialing.outstanding.iter().position(answered)?;
        MessageIntegrity::check(&mut response.message, remote.password.as_bytes(), crypto).ok()?;
        dialing.outstanding.remove(place);
        if self.selected.is_none() || self.disconnected {
            dialing.next = now + CONSENT_PACE;
            self.selected = Some(route);
        }
        dialing.rounds = 0;
        let (_, evicted) = self.learn(now, route);
        if self.selected.is_some_and(|selected| selected.to == route.to) {
            self.consent = Some(now);
        }
        Some(Moved { evicted, reconnected: std::mem::take(&mut self.disconnected), unknowing: false })
    }
}
