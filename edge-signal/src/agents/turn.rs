//! One event's time, randomness and effects.

use livekit_protocol::ServerMessage;
use livekit_protocol::server_message::Message;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use shared::ids::WorkerId;

use super::event::Effect;
use super::worker::Worker;
use crate::room::event::{Context, UnixMs};

/// Collects what the handling of one event wants done.
pub(super) struct Turn {
    pub(super) now: UnixMs,
    rng: ChaCha8Rng,
    /// In the order they are to be carried out.
    pub(super) effects: Vec<Effect>,
}

impl Turn {
    pub(super) fn new(context: Context) -> Self {
        Self { now: context.now, rng: ChaCha8Rng::from_seed(context.seed), effects: Vec::new() }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.rng.next_u64()
    }

    pub(super) fn send(&mut self, worker: &WorkerId, message: Message) {
        let message = Box::new(ServerMessage { message: Some(message) });
        self.effects.push(Effect::ToWorker { worker: worker.clone(), message });
    }

    pub(super) fn keep(&mut self, worker: &WorkerId, known: &Worker) {
        self.effects.push(Effect::Keep { worker: worker.clone(), known: Box::new(known.clone()) });
    }

    pub(super) fn count(&mut self, reason: &'static str) {
        self.effects.push(Effect::Counted { reason });
    }
}
