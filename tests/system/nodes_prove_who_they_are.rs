//! The edge serves nodes that hold an enrolled key, and lets them into the rooms they were sent to, once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use meridian_tests::client::{Client, DEADLINE};
use meridian_tests::node_impostor::{Dialled, NodeImpostor, dial, enrol, fresh_key, post};
use meridian_tests::scene::Scene;
use meridian_tests::token::unix_now;
use shared::claims::{EnrolClaims, NodeClaims, TicketClaims, mint_enrol};
use shared::control::{
    ADDRESS_PATH, ADMIT_PATH, AdmitRequest, ENROL_PATH, EnrolRequest, FLEET_LINK_PATH, REVOKE_PATH, ROOM_LINK_PATH,
    RevokeRequest, SeenAddress,
};
use shared::ids::{NodeId, RoomName};

fn enrolment_token(scene: &Scene) -> String {
    scene.deployment.stack().secrets().enrolment_token().unwrap()
}

fn refusal(dialled: Dialled) -> (u16, String) {
    dialled.err().unwrap_or((101, "let in".to_owned()))
}

#[tokio::test]
async fn only_an_enrolment_token_enrols() {
    let scene = Scene::open().await.unwrap();
    let key = fresh_key("node").unwrap();
    let ask = async |token: Option<&str>| enrol(scene.url(), token, key.public_x()).await.unwrap();
    let foreign = mint_enrol(&EnrolClaims::new(unix_now() + 60), "another fleet's secret of enough length").unwrap();
    let access = scene.sign(&scene.claims("ada")).unwrap();
    for (token, why) in [
        (None, "no token"),
        (Some("nonsense"), "not a token"),
        (Some(foreign.as_str()), "another fleet's"),
        (Some(access.as_str()), "an access token"),
    ] {
        assert_eq!(ask(token).await.0, 401, "{why}");
    }
    let good = enrolment_token(&scene);
    let (first, second) = (ask(Some(&good)).await, ask(Some(&good)).await);
    assert!(first.0 < 300, "{first:?}");
    assert_eq!(first, second, "the same key is the same node");
}

/// Enrols without a token from an address; the status and text of the answer.
async fn enrol_from(scene: &Scene, address: &str, public_key: &str) -> (u16, String) {
    let request = EnrolRequest { public_key: public_key.to_owned() };
    // On Cloudflare nobody but Cloudflare sets it.
    let post = reqwest::Client::new().post(format!("{}{ENROL_PATH}", scene.url())).header("CF-Connecting-IP", address);
    let answer = post.json(&request).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn one_key_enrols_from_an_address_that_an_operator_admits() {
    let scene = Scene::open().await.unwrap();
    let (key, other) = (fresh_key("node").unwrap(), fresh_key("node").unwrap());
    let admit = AdmitRequest { addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()] };
    let ask = async |token: Option<&str>| post(scene.url(), ADMIT_PATH, token, &admit).await.unwrap().0;

    assert_eq!(enrol_from(&scene, "192.0.2.7", key.public_x()).await.0, 403, "nobody has admitted it");
    assert_eq!(ask(None).await, 401, "not everybody admits");
    assert_eq!(ask(Some(&scene.sign(&scene.claims("ada")).unwrap())).await, 401, "a participant admits no node");
    assert_eq!(enrol_from(&scene, "192.0.2.7", key.public_x()).await.0, 403, "still nobody has");
    assert_eq!(ask(Some(&enrolment_token(&scene))).await, 200);

    assert_eq!(enrol_from(&scene, "192.0.2.8", key.public_x()).await.0, 403, "it is the address of no node");
    let first = enrol_from(&scene, "192.0.2.7", key.public_x()).await;
    assert_eq!(first.0, 200, "{first:?}");
    assert_eq!(enrol_from(&scene, "192.0.2.7", key.public_x()).await, first, "the same key is the same node");
    assert_eq!(enrol_from(&scene, "192.0.2.7", other.public_x()).await.0, 403, "one key an admission");
    assert_eq!(enrol_from(&scene, "2001:db8:0::7", other.public_x()).await.0, 200, "however it is written");
    assert_eq!(ask(Some(&enrolment_token(&scene))).await, 200);
    let replaced = fresh_key("node").unwrap();
    assert_eq!(enrol_from(&scene, "192.0.2.7", replaced.public_x()).await.0, 200, "a new machine in its place");
}

#[tokio::test]
async fn the_edge_tells_a_node_where_it_is_seen() {
    let scene = Scene::open().await.unwrap();
    let ask = async |from: Option<&str>| {
        let get = reqwest::Client::new().get(format!("{}{ADDRESS_PATH}", scene.url()));
        let get = from.into_iter().fold(get, |get, address| get.header("CF-Connecting-IP", address));
        let answer = get.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, text) = ask(Some("192.0.2.7")).await;
    let seen: SeenAddress = serde_json::from_str(&text).unwrap();
    assert_eq!((status, seen.address), (200, "192.0.2.7".parse().unwrap()));
    assert_eq!(ask(None).await.0, 404);
}

#[tokio::test]
async fn the_fleet_link_wants_an_enrolled_key() {
    let scene = Scene::open().await.unwrap();
    let node = NodeImpostor::enrol(scene.url(), &enrolment_token(&scene)).await.unwrap();
    let foreign = fresh_key("node").unwrap();
    let soon = unix_now() + 60;
    let stranger = NodeId::try_from("ND_stranger0001").unwrap();
    let cases = [
        ("no token", None, 401),
        ("not a token", Some("nonsense".to_owned()), 401),
        ("another key", Some(foreign.sign(&NodeClaims::new(node.id.clone(), soon)).unwrap()), 401),
        ("unknown node", Some(foreign.sign(&NodeClaims::new(stranger, soon)).unwrap()), 403),
        ("expired", Some(node.key.sign(&NodeClaims::new(node.id.clone(), unix_now() - 120)).unwrap()), 401),
        ("an access token", Some(scene.sign(&scene.claims("ada")).unwrap()), 401),
    ];
    for (why, token, status) in cases {
        let got = refusal(dial(scene.url(), FLEET_LINK_PATH, None, token.as_deref()).await.unwrap());
        assert_eq!(got.0, status, "{why}: {got:?}");
    }
    node.serve().await.unwrap();
}

#[tokio::test]
async fn a_revoked_key_opens_nothing() {
    let scene = Scene::open().await.unwrap();
    let token = enrolment_token(&scene);
    let node = NodeImpostor::enrol(scene.url(), &token).await.unwrap();
    let link = node.serve().await.unwrap();
    let revoke = RevokeRequest { node: node.id.clone() };
    assert_eq!(post(scene.url(), REVOKE_PATH, None, &revoke).await.unwrap().0, 401);
    let (status, text) = post(scene.url(), REVOKE_PATH, Some(&token), &revoke).await.unwrap();
    assert!(status < 300, "{status} {text}");
    drop(link);
    let got = refusal(dial(scene.url(), FLEET_LINK_PATH, None, Some(&node.token().unwrap())).await.unwrap());
    assert_eq!(got.0, 403, "{got:?}");
}

#[tokio::test]
async fn a_revoked_node_loses_its_rooms() {
    let scene = Scene::alone(0).await.unwrap();
    let enrolment = enrolment_token(&scene);
    let node = NodeImpostor::enrol(scene.url(), &enrolment).await.unwrap();
    let mut fleet_link = node.serve().await.unwrap();
    let joining = tokio::spawn(Client::join(scene.options("ada").unwrap()));
    let ticket = tokio::time::timeout(DEADLINE, fleet_link.attach_ticket()).await.unwrap().unwrap();
    let _ada = joining.await.unwrap().unwrap();
    let mut link = node.dial_room(&ticket).await.unwrap().ok().unwrap();
    let ticket = tokio::time::timeout(DEADLINE, link.rejoin_ticket()).await.unwrap().unwrap();
    // As long as its key is good it may come again, and gets the next ticket.
    let mut link = node.dial_room(&ticket).await.unwrap().ok().unwrap();
    let ticket = tokio::time::timeout(DEADLINE, link.rejoin_ticket()).await.unwrap().unwrap();

    let revoke = RevokeRequest { node: node.id.clone() };
    let (status, text) = post(scene.url(), REVOKE_PATH, Some(&enrolment), &revoke).await.unwrap();
    assert_eq!(status, 200, "{text}");
    assert_eq!(tokio::time::timeout(DEADLINE, link.close_code()).await.unwrap(), Some(4403));
    let got = refusal(node.dial_room(&ticket).await.unwrap());
    assert_eq!(got, (403, "the node's key is revoked".to_owned()));
}

#[tokio::test]
async fn a_room_link_wants_the_ticket_of_this_node_once() {
    // No other node: the room is placed on the impostors.
    let scene = Scene::alone(0).await.unwrap();
    let enrolment = enrolment_token(&scene);
    let node = NodeImpostor::enrol(scene.url(), &enrolment).await.unwrap();
    let other = NodeImpostor::enrol(scene.url(), &enrolment).await.unwrap();
    let mut fleet_link = node.serve().await.unwrap();
    let joining = tokio::spawn(Client::join(scene.options("ada").unwrap()));
    let ticket = tokio::time::timeout(DEADLINE, fleet_link.attach_ticket()).await.unwrap().unwrap();
    let ada = joining.await.unwrap().unwrap();

    let room = RoomName::try_from(scene.room.as_str()).unwrap();
    let cnf = shared::claims::NodeKey { x: node.key.public_x().to_owned() };
    let claims = TicketClaims::new(node.id.clone(), room, cnf, "local-a".to_owned(), "j".to_owned(), unix_now() + 60);
    let forged = node.key.sign(&claims).unwrap();
    let (head, signature) = ticket.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
    let tampered = format!("{head}.{flipped}{}", &signature[1..]);
    let own = node.token().unwrap();
    let cases = [
        ("no ticket", None, Some(own.clone()), 401),
        ("no node token", Some(ticket.clone()), None, 401),
        ("a ticket signed by the node", Some(forged), Some(own.clone()), 401),
        ("a tampered ticket", Some(tampered), Some(own.clone()), 401),
        ("a session token is no ticket", Some(own.clone()), Some(own.clone()), 401),
    ];
    for (why, ticket, token, status) in cases {
        let got = refusal(dial(scene.url(), ROOM_LINK_PATH, ticket.as_deref(), token.as_deref()).await.unwrap());
        assert_eq!(got.0, status, "{why}: {got:?}");
    }
    // Another enrolled node has its own key, which is not the one the ticket is bound to.
    let stolen = refusal(other.dial_room(&ticket).await.unwrap());
    assert!(matches!(stolen.0, 401 | 403), "{stolen:?}");
    // The rightful node with the same ticket: in, and not twice.
    let link = node.dial_room(&ticket).await.unwrap();
    assert!(link.is_ok(), "{:?}", link.err());
    let again = refusal(node.dial_room(&ticket).await.unwrap());
    assert_eq!(again.0, 403, "{again:?}");
    assert!(ada.observe(|o| o.closed.is_none()));
}

#[tokio::test]
async fn a_node_that_falls_silent_gets_no_rooms() {
    let scene = Scene::alone(0).await.unwrap();
    let node = NodeImpostor::enrol(scene.url(), &enrolment_token(&scene)).await.unwrap();
    // It says hello and never a heartbeat again; the link stays open.
    let _link = node.serve().await.unwrap();
    let refused = async {
        loop {
            // A room that was placed stays placed: each try is another room.
            let room = Scene::on(scene.deployment.clone());
            match Client::join(room.options("ada").unwrap()).await {
                Err(error) if Client::refusal(&error).is_some_and(|(status, _)| status == 503) => return,
                Err(error) => panic!("{error:#}"),
                Ok(client) => drop(client),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
}
