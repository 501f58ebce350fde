//! x
use worker::*;

#[durable_object]
struct RoomObject {
    _state: State,
}
impl std::panic::RefUnwindSafe for RoomObject {}
impl DurableObject for RoomObject {
    fn new(state: State, _env: Env) -> Self {
        Self { _state: state }
    }
    async fn fetch(&self, _req: Request) -> Result<Response> {
        Response::ok("x")
    }
}

#[durable_object]
struct FleetObject {
    _state: State,
}
impl std::panic::RefUnwindSafe for FleetObject {}
impl DurableObject for FleetObject {
    fn new(state: State, _env: Env) -> Self {
        Self { _state: state }
    }
    async fn fetch(&self, _req: Request) -> Result<Response> {
        Response::ok("x")
    }
}

#[durable_object]
struct DirectoryObject {
    _state: State,
}
impl std::panic::RefUnwindSafe for DirectoryObject {}
impl DurableObject for DirectoryObject {
    fn new(state: State, _env: Env) -> Self {
        Self { _state: state }
    }
    async fn fetch(&self, _req: Request) -> Result<Response> {
        Response::ok("x")
    }
}
