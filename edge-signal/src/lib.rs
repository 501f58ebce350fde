//! The edge of Meridian. Natively: the pure room and fleet machines, for tests and the simulator.
//! On wasm32: the Worker and its Durable Objects around them.

pub mod room;

#[cfg(target_arch = "wasm32")]
mod objects;

#[cfg(target_arch = "wasm32")]
#[worker::event(fetch)]
async fn fetch(
    request: worker::Request,
    env: worker::Env,
    _context: worker::Context,
) -> worker::Result<worker::Response> {
    let _ = (request, env);
    worker::Response::ok("OK")
}
