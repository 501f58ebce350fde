//! The edge of Meridian. Natively: the pure room and fleet machines, for tests and the simulator.
//! On wasm32: the Worker and its Durable Objects around them.

pub mod room;
