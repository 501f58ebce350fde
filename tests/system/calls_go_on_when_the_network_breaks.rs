//! A publisher's WebSocket is killed, its UDP address changes, or both, many times in a call: it goes on each time with
//! the same tracks, nobody sees it leave, no reliable data is lost or comes twice, and the pictures go on.
//! `MERIDIAN_BREAKS=50` measures how long they stand still, on a machine that does nothing else, and holds them to a bound.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meridian_tests::browser::Browser;
use meridian_tests::front::Front;
use meridian_tests::relay::Relay;
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::sdk::{Mode, SdkClient, Seen};
use serde_json::json;
use tokio::sync::Mutex;

/// How often the network breaks in one call, unless the environment says otherwise.
const BREAKS: usize = 5;
/// From so many on, how long pictures stand still is judged too.
const JUDGED: usize = 50;
/// Calls that are judged are held one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
/// Longest that a picture may stand still more than it does in the same call while nothing breaks.
const STILL_MS: f64 = 500.0;
/// Longest that the SDK takes: it tries after up to 0.5 s and waits 2 s for its transport, on a busy machine.
const RESUME_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Break {
    Signaling,
    Address,
    Both,
}

/// Ada publishes, Bob watches and publishes too; only her network breaks.
struct Call {
    ada: SdkClient,
    bob: SdkClient,
    /// Hers.
    front: Front,
    relay: Relay,
    /// Bob's sockets.
    his: Vec<SocketAddr>,
    _browsers: [Browser; 2],
    _scene: Scene,
}

impl Call {
    async fn open(mode: Mode) -> Result<Self> {
        let (deployment, relay) = Deployment::behind_relay().await?;
        let scene = Scene::on(deployment);
        let front = Front::start(scene.url()).await?;
        // The pages of one browser share its fake camera.
        let browsers = [Browser::launch().await?, Browser::launch().await?];
        let (ada, bob) = (browsers[0].client("ada").await?, browsers[1].client("bob").await?);
        bob.join(&scene, mode).await?;
        let his = relay.clients();
        ada.join_room(front.url(), &scene.room, mode).await?;
        tokio::try_join!(ada.publish(), bob.publish())?;
        tokio::try_join!(ada.sees_and_hears("bob"), bob.sees_and_hears("ada"))?;
        Ok(Self { ada, bob, front, relay, his, _browsers: browsers, _scene: scene })
    }

    /// The longest that either picture stood still since the last look, ms.
    async fn stillness(&self) -> Result<f64> {
        let (hers, his) = tokio::try_join!(self.bob.stillness("ada"), self.ada.stillness("bob"))?;
        Ok(hers.max(his))
    }

    /// Both send this as reliable data.
    async fn tell(&self, told: &mut Vec<String>, text: String) -> Result<()> {
        tokio::try_join!(self.ada.send_data(&text, true), self.bob.send_data(&text, true))?;
        told.push(text);
        Ok(())
    }

    /// All that was told has arrived, once and in order.
    async fn lost_nothing(&self, told: &[String]) -> Result<()> {
        let last = told.last().context("nothing was told")?;
        for (from, to) in [(&self.ada, &self.bob), (&self.bob, &self.ada)] {
            to.hears(json!({ "event": "data", "identity": from.identity(), "text": last })).await?;
            let data = to.heard(0).await?.into_iter().filter(|heard| heard.event == "data");
            let heard: Vec<String> = data.filter_map(|heard| heard.text).collect();
            ensure!(heard == told, "{} heard {heard:?}", to.identity());
        }
        Ok(())
    }

    async fn goes_on(&self) -> Result<()> {
        tokio::try_join!(self.ada.sees_and_hears("bob"), self.bob.sees_and_hears("ada"))?;
        Ok(())
    }
}

fn sids(seen: &Seen) -> Vec<&str> {
    std::iter::once(seen.sid.as_str()).chain(seen.tracks.iter().map(|track| track.sid.as_str())).collect()
}

async fn goes_on_through(kind: Break, mode: Mode) -> Result<()> {
    let breaks = std::env::var("MERIDIAN_BREAKS").map_or(Ok(BREAKS), |asked| asked.parse())?;
    let _alone = if breaks < JUDGED { None } else { Some(ONE_AT_A_TIME.lock().await) };
    let call = Call::open(mode).await?;
    // What the machine itself does to pictures.
    call.stillness().await?;
    for _ in 0..breaks.div_ceil(10) {
        call.goes_on().await?;
    }
    let quiet = call.stillness().await?;
    let before = call.bob.picture().await?;
    let since = [call.ada.mark().await?, call.bob.mark().await?];
    let (mut stills, mut told) = (Vec::new(), Vec::new());
    for number in 0..breaks {
        let mark = call.ada.mark().await?;
        call.tell(&mut told, format!("{number}, before")).await?;
        if kind != Break::Signaling {
            let hers = call.relay.clients().into_iter().filter(|client| !call.his.contains(client));
            call.relay.readdress(&hers.collect::<Vec<_>>());
        }
        if kind != Break::Address {
            call.front.cut();
            call.tell(&mut told, format!("{number}, meanwhile")).await?;
            call.ada.hears_within(json!({ "event": "reconnected" }), mark, RESUME_LIMIT).await?;
        }
        call.tell(&mut told, format!("{number}, after")).await?;
        call.goes_on().await?;
        stills.push(call.stillness().await?);
    }
    call.lost_nothing(&told).await?;
    let after = call.bob.picture().await?;
    let (before, after) = (before.get("ada").context("no Ada")?, after.get("ada").context("Ada has left")?);
    ensure!(sids(before) == sids(after), "other ids: {before:?} {after:?}");
    for (client, since) in [(&call.ada, since[0]), (&call.bob, since[1])] {
        client.heard_of_no_end(since).await?;
    }
    stills.sort_by(f64::total_cmp);
    let worst = stills.last().copied().unwrap_or_default();
    let median = stills.get(stills.len() / 2).copied().unwrap_or_default();
    println!(
        "{breaks} breaks: pictures stood still for {median:.0} ms (median), {worst:.0} ms (worst); {quiet:.0} ms while nothing broke"
    );
    if breaks >= JUDGED {
        ensure!(worst <= quiet + STILL_MS, "a picture stood still for {worst:.0} ms");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_connection_when_signaling_breaks() -> Result<()> {
    goes_on_through(Break::Signaling, Mode::Single).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_connections_when_signaling_breaks() -> Result<()> {
    goes_on_through(Break::Signaling, Mode::Dual).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_connections_when_the_address_changes() -> Result<()> {
    goes_on_through(Break::Address, Mode::Dual).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_connections_when_both_happen() -> Result<()> {
    goes_on_through(Break::Both, Mode::Dual).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_connection_when_the_address_changes() -> Result<()> {
    goes_on_through(Break::Address, Mode::Single).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_connection_when_both_happen() -> Result<()> {
    goes_on_through(Break::Both, Mode::Single).await
}
