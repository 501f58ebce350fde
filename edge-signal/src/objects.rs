//! The Durable Objects: thin shells that feed events to the pure machines and carry out their effects.

pub(crate) mod agents;
pub(crate) mod directory;
pub(crate) mod fleet;
mod layout;
pub(crate) mod room;
