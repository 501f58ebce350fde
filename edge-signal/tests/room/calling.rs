//! App servers call methods of participants.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use edge_signal::room::call::{DEFAULT_TIMEOUT_MS, Heard, MAX_PAYLOAD_LEN, MAX_TIMEOUT_MS};
use edge_signal::room::service::{Answer, Code, Request};
use livekit_protocol as proto;
use livekit_protocol::data_packet::Value;
use livekit_protocol::rpc_response::Value as Response;
use prost::Message;
use shared::control::NodeToRoom;

use crate::world::{Who, World};

fn request(identity: &str) -> proto::PerformRpcRequest {
    proto::PerformRpcRequest {
        room: "r".into(),
        destination_identity: identity.into(),
        method: "greet".into(),
        payload: "hello".into(),
        ..Default::default()
    }
}

fn call(world: &mut World, request: proto::PerformRpcRequest) -> (String, u32) {
    match world.ask(Request::PerformRpc(Box::new(request))) {
        Ok(Answer::Called(called)) => (called.id, called.timeout_ms),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_goes_to_the_participant_and_its_answer_comes_back() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let (node, session) = world.session_of(&ada);
    let (id, timeout_ms) = call(&mut world, request("ada"));
    assert_eq!(timeout_ms, DEFAULT_TIMEOUT_MS);
    let sent = world.nodes[&node].sent.last().unwrap();
    assert_eq!(sent.2.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ada"]);
    let packet = proto::DataPacket::decode(STANDARD.decode(&sent.0).unwrap().as_slice()).unwrap();
    let Some(Value::RpcRequest(called)) = packet.value else { panic!("{packet:?}") };
    assert_eq!((called.id.as_str(), called.method.as_str(), called.payload.as_str()), (id.as_str(), "greet", "hello"));
    assert_eq!((called.version, called.response_timeout_ms), (1, timeout_ms));

    let answers = [
        Value::RpcAck(proto::RpcAck { request_id: id.clone() }),
        Value::RpcResponse(proto::RpcResponse {
            request_id: id.clone(),
            value: Some(Response::Payload("hello yourself".into())),
        }),
        Value::RpcResponse(proto::RpcResponse {
            request_id: id.clone(),
            value: Some(Response::Error(proto::RpcError { code: 1400, message: "no".into(), data: String::new() })),
        }),
    ];
    for value in answers {
        let packet = proto::DataPacket { value: Some(value), ..Default::default() };
        let packet = STANDARD.encode(packet.encode_to_vec());
        world.node_says(&node, NodeToRoom::CallAnswer { session: session.clone(), packet });
    }
    let heard: Vec<_> = world.calls.drain(..).map(|(of, heard)| (of == id, heard)).collect();
    let expected =
        [Heard::Acknowledged, Heard::Answered(Ok("hello yourself".into())), Heard::Answered(Err((1400, "no".into())))];
    assert_eq!(heard, expected.map(|heard| (true, heard)));
    for packet in ["", "####", "aGVsbG8="] {
        world.node_says(&node, NodeToRoom::CallAnswer { session: session.clone(), packet: packet.into() });
    }
    assert!(world.calls.is_empty() && world.room.counters().bad_messages == 3);
}

#[test]
fn calls_are_checked() {
    let mut world = World::new();
    world.join_active(&Who::named("ada"));
    let refused = |world: &mut World, request| world.ask(Request::PerformRpc(Box::new(request))).unwrap_err();
    assert_eq!(refused(&mut world, request("eve")).code, Code::NotFound);
    let long = proto::PerformRpcRequest { payload: "x".repeat(MAX_PAYLOAD_LEN + 1), ..request("ada") };
    assert_eq!(refused(&mut world, long).text, "RpcError 1402: Request payload too large");
    let nameless = proto::PerformRpcRequest { method: String::new(), ..request("ada") };
    assert_eq!(refused(&mut world, nameless).code, Code::InvalidArgument);
    let patient = proto::PerformRpcRequest { response_timeout_ms: u32::MAX, ..request("ada") };
    assert_eq!(call(&mut world, patient).1, MAX_TIMEOUT_MS);
}
