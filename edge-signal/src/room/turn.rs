//! One event's time, randomness and effects.

use std::rc::Rc;

use livekit_protocol::SignalResponse;
use livekit_protocol::signal_response::Message;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use shared::control::{RoomToNode, SPREAD_KM};
use shared::geo::Place;
use shared::ids::{NodeId, RANDOM_LEN};

use super::effect::Effect;
use super::event::{ConnectionId, Context, UnixMs};

/// Collects what the handling of one event wants done.
pub(super) struct Turn {
    /// When the event happened.
    pub(super) now: UnixMs,
    rng: ChaCha8Rng,
    /// In the order they are to be carried out.
    pub(super) effects: Vec<Effect>,
    /// The fleet was asked for a node near there, and named one that the room has.
    pub(super) none_nearer: Option<Place>,
}

impl Turn {
    pub(super) fn new(context: Context) -> Self {
        Self { now: context.now, rng: ChaCha8Rng::from_seed(context.seed), effects: Vec::new(), none_nearer: None }
    }

    /// Random bytes for an id.
    pub(super) fn random(&mut self) -> [u8; RANDOM_LEN] {
        let mut bytes = [0; RANDOM_LEN];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Whether the fleet may know a node near there.
    pub(super) fn may_be_nearer(&self, place: Place) -> bool {
        self.none_nearer.is_none_or(|asked| place.distance_km(asked) > SPREAD_KM)
    }

    pub(super) fn send_client(&mut self, connection: &ConnectionId, message: Message) {
        self.send_clients([connection], message);
    }

    /// The same to several, which encodes it once.
    pub(super) fn send_clients<'a>(&mut self, to: impl IntoIterator<Item = &'a ConnectionId>, message: Message) {
        let message = Rc::new(SignalResponse { message: Some(message) });
        let send = |connection: &ConnectionId| Effect::ToClient {
            connection: connection.clone(),
            message: Rc::clone(&message),
        };
        self.effects.extend(to.into_iter().map(send));
    }

    pub(super) fn send_node(&mut self, node: &NodeId, message: RoomToNode) {
        self.effects.push(Effect::ToNode { node: node.clone(), message: Box::new(message) });
    }
}
