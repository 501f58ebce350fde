//! Agents of LiveKit's Agents framework, dispatched through its server SDK into a call of browsers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::agent::AgentWorker;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::Mode;
use meridian_tests::server_sdk::ServerSdk;
use serde_json::{Value, json};

use crate::call::Call;

/// An agent may take long to start on a busy machine: a Python process that loads libwebrtc.
const AGENT_LIMIT: Duration = Duration::from_secs(120);

/// Each method of `AgentDispatchClient`, with what clients see of it.
pub(crate) async fn dispatched(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let (sdk, room, url) = (ServerSdk::start().await?, &call.scene.room, call.scene.url());
    // Rows run side by side on one deployment: each has workers of its own.
    let name = format!("parrot of {room}");
    let ask = |method: &'static str, args: Value| sdk.call_of("AgentDispatchClient", url, method, args);
    let made = ask("createDispatch", json!([room, name, { "metadata": "green" }])).await?;
    ensure!(
        made["agentName"] == name.as_str() && made["metadata"] == "green" && made["room"] == room.as_str(),
        "{made}"
    );
    let all = ask("listDispatch", json!([room])).await?;
    let names: Vec<_> = all.as_array().into_iter().flatten().map(|one| one["agentName"].as_str()).collect();
    ensure!(names == [None, Some(name.as_str())], "the automatic one, and this: {all}");

    let worker = AgentWorker::start(url, &name, "ROOM")?;
    let came = call.ada.hears_within(json!({ "event": "participantConnected" }), 0, AGENT_LIMIT).await?;
    let mut agent = came.identity.context("nobody")?;
    if agent == "bob" {
        let next = json!({ "event": "participantConnected" });
        agent = call.ada.hears_within(next, came.index + 1, AGENT_LIMIT).await?.identity.context("nobody")?;
    }
    // It hears nothing before it is there.
    call.ada.hears(json!({ "event": "trackSubscribed", "identity": agent, "kind": "audio" })).await?;
    ensure!(call.bob.picture().await?.get(&agent).is_some_and(|seen| seen.is_agent), "no agent for bob");
    call.ada.send_data("hello", true).await?;
    call.ada.hears(json!({ "event": "data", "identity": agent, "text": "hello" })).await?;
    let dispatch = ask("getDispatch", json!([made["id"], room])).await?;
    let job = &dispatch["state"]["jobs"][0]["state"];
    ensure!(job["status"] == "JS_RUNNING" && job["participantIdentity"] == agent.as_str(), "{dispatch}");

    ask("deleteDispatch", json!([made["id"], room])).await?;
    for client in [&call.ada, &call.bob] {
        client.hears(json!({ "event": "participantDisconnected", "identity": agent })).await?;
    }
    ensure!(ask("getDispatch", json!([made["id"], room])).await?.is_null(), "still there");
    let again = ask("deleteDispatch", json!([made["id"], room])).await.err().context("deleted twice")?;
    ensure!(format!("{again:#}").contains("404 not_found agent dispatch does not exist"), "{again:#}");
    drop(worker);
    Ok(())
}

/// `createRoom` with `agents`: the agent is there for whoever joins.
pub(crate) async fn of_a_room(mode: Mode) -> Result<()> {
    let scene = Scene::open().await?;
    let name = format!("parrot of {}", scene.room);
    let worker = AgentWorker::start(scene.url(), &name, "ROOM")?;
    let agents = json!([{ "agentName": name, "metadata": "green" }]);
    let call = Call::made_with(scene, mode, json!({ "agents": agents })).await?;
    let voice = json!({ "event": "trackSubscribed", "kind": "audio" });
    let agent = call.bob.hears_within(voice, 0, AGENT_LIMIT).await?.identity.context("nobody")?;
    ensure!(call.bob.picture().await?.get(&agent).is_some_and(|seen| seen.is_agent), "{agent} is no agent");
    let (sdk, url) = (ServerSdk::start().await?, call.scene.url());
    let all = sdk.call_of("AgentDispatchClient", url, "listDispatch", json!([call.scene.room])).await?;
    let made = all.as_array().into_iter().flatten().find(|one| one["agentName"] == name.as_str());
    let made = made.with_context(|| format!("not listed: {all}"))?;
    let job = &made["state"]["jobs"][0]["state"];
    ensure!(made["metadata"] == "green" && job["participantIdentity"] == agent.as_str(), "{made}");
    call.bob.send_data("hello", true).await?;
    call.bob.hears(json!({ "event": "data", "identity": agent, "text": "hello" })).await?;
    drop(worker);
    Ok(())
}
