//! Data between participants, over the node's data channels.

use anyhow::{Result, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::scene::Scene;
use meridian_tests::sdk::{Mode, SdkClient};
use serde_json::json;

use crate::call::Call;

/// Larger than any one packet.
const STREAM: usize = 300_000;
/// Bytes of data that the SDK takes at once: 64,000 with what it adds.
const LARGE: usize = 63_900;
/// Bytes that it does not take.
const TOO_LARGE: usize = 64_100;
/// LiveKit's code for a method nobody has.
const UNSUPPORTED_METHOD: u32 = 1400;

fn packet(from: &str, text: &str) -> serde_json::Value {
    json!({ "event": "data", "identity": from, "text": text })
}

/// Both channels, to everyone.
pub(crate) async fn to_everyone(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    for (from, to) in [(&call.ada, &call.bob), (&call.bob, &call.ada)] {
        for reliable in [true, false] {
            let text = format!("reliable: {reliable}");
            from.send_data(&text, reliable).await?;
            to.hears(packet(from.identity(), &text)).await?;
        }
        from.send_on_topic("on a topic", "weather").await?;
        to.hears(json!({ "event": "data", "topic": "weather", "text": "on a topic" })).await?;
    }
    Ok(())
}

/// What is for some reaches those alone; what is for nobody who is there reaches nobody.
pub(crate) async fn to_some(mode: Mode) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let mut clients = Vec::new();
    for name in ["ada", "bob", "eve"] {
        let client = browser.client(name).await?;
        client.join(&scene, mode).await?;
        clients.push(client);
    }
    let [ada, bob, eve] = &clients[..] else { unreachable!("three joined") };
    ada.send_data("first, to all", true).await?;
    bob.hears(packet("ada", "first, to all")).await?;
    eve.hears(packet("ada", "first, to all")).await?;
    for reliable in [true, false] {
        ada.send_data_to("for bob", &["bob"], reliable).await?;
        ada.send_data_to("for nobody", &["nobody", "known"], reliable).await?;
    }
    ada.send_data("last, to all", true).await?;
    bob.hears(packet("ada", "for bob")).await?;
    for client in [bob, eve] {
        client.hears(packet("ada", "last, to all")).await?;
    }
    let heard = async |client: &SdkClient, text: &str| client.hears_within(packet("ada", text), 0, SOON).await.is_ok();
    ensure!(!heard(eve, "for bob").await, "eve heard what was for bob");
    for client in [bob, eve, ada] {
        ensure!(!heard(client, "for nobody").await, "{} heard what was for nobody", client.identity());
    }
    ensure!(!heard(ada, "last, to all").await, "ada heard herself");
    Ok(())
}

/// To look at what was heard already.
const SOON: std::time::Duration = std::time::Duration::from_millis(1);

/// The largest packet that the SDK takes gets through; the SDK refuses a larger one, and all goes on.
pub(crate) async fn oversized(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    for reliable in [true, false] {
        let text = "x".repeat(LARGE);
        call.ada.send_data(&text, reliable).await?;
        call.bob.hears(packet("ada", &text)).await?;
        let refused = call.ada.send_data(&"x".repeat(TOO_LARGE), reliable).await;
        ensure!(refused.is_err(), "{TOO_LARGE} bytes were taken");
        call.ada.send_data("after", reliable).await?;
        call.bob.hears(packet("ada", "after")).await?;
    }
    Ok(())
}

/// Chat messages.
pub(crate) async fn chat(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    call.ada.send_chat("hello").await?;
    call.bob.hears(json!({ "event": "chat", "identity": "ada", "text": "hello" })).await?;
    Ok(())
}

/// Remote calls, both ways, and one that fails.
pub(crate) async fn rpc(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let long = "x".repeat(14_000);
    for payload in ["short", long.as_str()] {
        ensure!(call.ada.call_echo("bob", payload).await? == format!("ada: {payload}"));
        ensure!(call.bob.call_echo("ada", payload).await? == format!("bob: {payload}"));
    }
    ensure!(call.ada.call_nothing("bob").await? == Some(UNSUPPORTED_METHOD));
    Ok(())
}

/// Text and byte streams, of many packets.
pub(crate) async fn streams(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    let text = "äöü ".repeat(10_000);
    call.ada.send_text(&text).await?;
    call.bob.hears(json!({ "event": "text", "identity": "ada", "text": text })).await?;
    let sent = call.bob.send_bytes(STREAM).await?;
    call.ada.hears(json!({ "event": "bytes", "identity": "bob", "text": sent })).await?;
    Ok(())
}

/// What was sent before, while and after the signal connections broke arrives once and in order.
pub(crate) async fn across_a_resume(mode: Mode) -> Result<()> {
    let call = Call::open(mode).await?;
    call.ada.send_data("0", true).await?;
    call.bob.hears(packet("ada", "0")).await?;
    let mark = call.ada.mark().await?;
    call.front.cut();
    for number in 1..=20 {
        call.ada.send_data(&number.to_string(), true).await?;
    }
    call.ada.hears_within(json!({ "event": "reconnected" }), mark, crate::reconnect::RESUME_LIMIT).await?;
    call.ada.send_data("21", true).await?;
    call.bob.hears(packet("ada", "21")).await?;
    let heard = call.bob.heard(0).await?.into_iter().filter(|heard| heard.event == "data");
    let heard: Vec<_> = heard.filter_map(|heard| heard.text).collect();
    ensure!(heard == (0..=21).map(|number| number.to_string()).collect::<Vec<_>>(), "{heard:?}");
    Ok(())
}
