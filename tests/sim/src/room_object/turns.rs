//! What takes its turn in a room's object: joins that need a node, nodes that dial in, placements, the end of links.

use edge_signal::fleet::mint::REJOIN_TICKET_TTL_SECS;
use edge_signal::room::Room;
use edge_signal::room::event::Event;
use shared::control::{PlaceRequest, PlaceResponse};

use super::{NO_NODE, REFUSED, RESET, RoomObject, Task};
use crate::fleet_object::Ticket;
use crate::net::{Call, End, Net};

impl RoomObject {
    pub(super) fn begin(&mut self, net: &mut Net, task: Task) {
        self.waiting.push_back(task);
        self.go_on(net);
    }

    pub(super) fn go_on(&mut self, net: &mut Net) {
        while self.turn.is_none() {
            let Some(task) = self.waiting.pop_front() else { return };
            self.turn = self.start(net, task);
        }
    }

    /// Does what can be done at once; what waits for an answer has its turn until that comes.
    fn start(&mut self, net: &mut Net, task: Task) -> Option<Task> {
        match task {
            Task::Join { client, dial, attempt, .. } => {
                let mut admission = match self.admit(net, &attempt) {
                    Ok(admission) => Box::new(admission),
                    Err(status) => {
                        net.reply(End::Client(client), dial, Err(status));
                        return None;
                    }
                };
                let Some(request) = admission.place.take() else {
                    self.accept(net, client, dial, admission, None);
                    return None;
                };
                self.ask(net, request.clone());
                admission.place = Some(request);
                Some(Task::Join { client, dial, attempt, asked: Some(admission) })
            }
            Task::Link { node, dial, ticket } => {
                let id = self.ids.get(node).cloned();
                let shown = serde_json::from_str::<Ticket>(&ticket).ok();
                let good = shown.filter(|ticket| {
                    ticket.room == self.name
                        && Some(&ticket.node) == id.as_ref()
                        && ticket.exp >= net.unix().secs()
                        && !self.used.contains(&ticket.jti)
                });
                let is_created = self.with_room(net, |room| room.is_some_and(Room::is_created));
                let Some(good) = good.filter(|_| is_created) else {
                    net.reply(End::NodeRoom(node, self.name.clone()), dial, Err(REFUSED));
                    return None;
                };
                net.call_inside(Call::Admit { room: self.name.clone(), life: self.life, node: good.node });
                Some(Task::Link { node, dial, ticket })
            }
            Task::Place(request) => {
                self.ask(net, request.clone());
                Some(Task::Place(request))
            }
            Task::EndLinks(line) => {
                if self.with_room(net, |room| room.is_some_and(Room::is_created)) {
                    // Somebody came back. When that room ends, the links of both do.
                    self.told(&line);
                    return None;
                }
                net.call_inside(Call::RoomOver { room: self.name.clone(), life: self.life });
                Some(Task::EndLinks(line))
            }
        }
    }

    fn ask(&self, net: &mut Net, request: Box<PlaceRequest>) {
        net.call_inside(Call::Place { room: self.name.clone(), life: self.life, request });
    }

    pub(super) fn placed(&mut self, net: &mut Net, response: PlaceResponse) {
        match self.turn.take() {
            Some(Task::Join { client, dial, asked: Some(admission), .. }) => match response {
                PlaceResponse::Placed(placed) => {
                    self.accept(net, client, dial, admission, Some(placed));
                }
                // It was asked for a better one than there is.
                _ if admission.place.as_ref().is_some_and(|place| !place.serving.is_empty()) => {
                    self.accept(net, client, dial, admission, None);
                }
                PlaceResponse::NoNode | PlaceResponse::StillThere => {
                    net.reply(End::Client(client), dial, Err(NO_NODE));
                }
            },
            Some(Task::Place(request)) => {
                let node = match response {
                    PlaceResponse::StillThere => {
                        self.handle(net, Event::NodeStillThere);
                        return self.go_on(net);
                    }
                    PlaceResponse::Placed(placed) => Some(placed),
                    PlaceResponse::NoNode => None,
                };
                if let Some(node) = request.lost {
                    self.handle(net, Event::NodeLost { node });
                }
                self.handle(net, Event::Placed { node });
            }
            other => self.turn = other,
        }
        self.go_on(net);
    }

    pub(super) fn admitted(&mut self, net: &mut Net, admitted: Option<bool>) {
        let Some(Task::Link { node, dial, ticket }) = self.turn.take() else { return };
        let to = End::NodeRoom(node, self.name.clone());
        let is_created = self.with_room(net, |room| room.is_some_and(Room::is_created));
        match serde_json::from_str::<Ticket>(&ticket) {
            _ if admitted.is_none() => net.reply(to, dial, Err(RESET)),
            Ok(ticket) if admitted == Some(true) && is_created => {
                self.used.insert(ticket.jti);
                let rejoin = Ticket::mint(net, &ticket.node, &self.name, &ticket.region, REJOIN_TICKET_TTL_SECS);
                let socket = net.connect(self.end(), to.clone());
                net.reply(to, dial, Ok(socket));
                if let Some(old) = self.nodes.insert(ticket.node.clone(), socket) {
                    net.close(&self.end(), old);
                }
                let (node, region) = (ticket.node, ticket.region);
                self.handle(net, Event::NodeLinked { node, region, rejoin_ticket: rejoin });
            }
            _ => net.reply(to, dial, Err(REFUSED)),
        }
        self.go_on(net);
    }
}
