//! Transports to other nodes: found by the number that each of their datagrams begins with. **The number only says whose
//! keys to try.**

use std::time::Instant;

use rtc::stun::message::{TRANSACTION_ID_SIZE, TransactionId};

use super::{Contact, Table};
use crate::media::api::PipeNumber;
use crate::media::batch::Route;
use crate::media::ice::roaming::Response;
use crate::media::ice::{Accepted, Refused, Request};

impl Table {
    /// The transport that is called by a number.
    pub(in super::super) fn index_of_pipe(&self, number: PipeNumber) -> Option<usize> {
        self.by_number.get(&number).copied()
    }

    /// Takes a STUN datagram of the other end of a pipe.
    pub(in super::super) fn handle_pipe_stun(
        &mut self,
        now: Instant,
        index: usize,
        route: Route,
        datagram: &[u8],
    ) -> Option<Contact> {
        let contact = self.accept_pipe_stun(now, index, route, datagram);
        if contact.is_none() {
            self.stats.dropped_bad_stun += 1;
        }
        contact
    }

    fn accept_pipe_stun(&mut self, now: Instant, index: usize, route: Route, datagram: &[u8]) -> Option<Contact> {
        let (transport, crypto) = (self.transports.get_mut(index)?, self.provider.crypto());
        let Some(request) = Request::parse(datagram) else {
            let answered = transport.ice.handle_dialed(now, route, Response::parse(datagram)?, crypto)?;
            let reconnected = answered.reconnected;
            return Some(Contact { index, reconnected, moved: false, unknowing: false });
        };
        match transport.ice.handle(now, route, request, crypto) {
            Ok(accepted) => {
                transport.push(index, route, &accepted.response, &mut self.batch);
                let Accepted { reconnected, moved, .. } = accepted;
                Some(Contact { index, reconnected, moved, unknowing: false })
            }
            Err(Refused::Rejected(response) | Refused::Unauthenticated(Some(response))) => {
                transport.push(index, route, &response, &mut self.batch);
                None
            }
            Err(Refused::Unauthenticated(None)) => None,
        }
    }

    /// Sends the checks of the other end that are due.
    pub(super) fn check_pipe(&mut self, now: Instant, index: usize) {
        let Some(transport) = self.transports.get_mut(index).filter(|transport| transport.pipe_number().is_some())
        else {
            return;
        };
        let random = || {
            let mut id = [0; TRANSACTION_ID_SIZE];
            self.provider.random().fill(&mut id).ok().map(|()| TransactionId(id))
        };
        for (to, check) in transport.ice.due_checks(now, self.provider.crypto(), random) {
            transport.push(index, to, &check, &mut self.batch);
        }
    }
}
