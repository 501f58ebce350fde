//! The media port listens to addresses that ICE has authenticated, and to each packet once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use livekit_protocol::signal_response::Message as Response;
use meridian_tests::client::{Client, DEADLINE, Observed, Publish};
use meridian_tests::scene::Scene;
use tokio::net::UdpSocket;

const UNKNOWN_ADDRESS: &str = "meridian_node_dropped_unknown_address_total";
const REPLAY: &str = "meridian_node_dropped_replay_total";
const BAD_STUN: &str = "meridian_node_dropped_bad_stun_total";
/// First bytes of a DTLS 1.2 ClientHello record (RFC 6347 section 4.1).
const CLIENT_HELLO: [u8; 14] = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

/// Ada talks, Bob listens; Ada's last datagrams are known to the attacker.
struct Call {
    scene: Scene,
    ada: Client,
    bob: Client,
    node: SocketAddr,
}

impl Call {
    async fn begin() -> Self {
        // Counters are compared, so nobody else may make traffic.
        let scene = Scene::alone(1).await.unwrap();
        let mut options = scene.options("ada").unwrap();
        options.keep_datagrams = true;
        options.publish = vec![Publish::microphone("microphone")];
        let mut ada = Client::join(options).await.unwrap();
        ada.connected().await.unwrap();
        let mut bob = scene.join("bob").await.unwrap();
        bob.until("audio", |o| o.flow('A').filter(|f| f.packets > 20).map(|_| ())).await.unwrap();
        let node = scene.deployment.media_address().unwrap();
        Self { scene, ada, bob, node }
    }

    /// The user name the node gave Ada.
    fn ufrag_of_ada(&self) -> String {
        let answer = |o: &Observed| {
            o.heard.iter().find_map(|m| if let Response::Answer(a) = m { Some(a.sdp.clone()) } else { None })
        };
        let sdp = self.ada.observe(answer).unwrap();
        sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap().to_owned()
    }

    /// SRTP packets Ada has sent: not RTCP (RFC 7983, RFC 5761 section 4).
    async fn captured_srtp(&self) -> Vec<Vec<u8>> {
        let kept = self.ada.kept_datagrams().await.unwrap().into_iter().map(|(_, bytes)| bytes);
        let captured: Vec<_> = kept.filter(|b| (128..192).contains(&b[0]) && !(192..=223).contains(&b[1])).collect();
        assert!(!captured.is_empty());
        captured
    }

    /// Waits until a counter of the node has grown by at least this much.
    async fn counted(&self, name: &str, from: f64, by: usize) {
        let wanted = from + f64::from(u32::try_from(by).unwrap());
        let grown = async {
            while self.metric(name).await < wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let done = tokio::time::timeout(DEADLINE, grown).await;
        assert!(done.is_ok(), "{name} is {}, was {from}, should have grown by {by}", self.metric(name).await);
    }

    async fn metric(&self, name: &str) -> f64 {
        self.scene.deployment.metric(name).await.unwrap()
    }

    /// Bob still hears Ada, and has heard nothing twice.
    async fn goes_on(&mut self) {
        let before = self.bob.observe(|o| o.flow('A').unwrap().packets);
        let more = |o: &Observed| o.flow('A').filter(|f| f.packets > before + 20).map(|_| ());
        self.bob.until("more audio", more).await.unwrap();
        assert_eq!(self.bob.observe(|o| o.flow('A').unwrap().repeated_stamps), 0);
        assert!(self.ada.observe(|o| o.connected) && self.bob.observe(|o| o.connected));
    }
}

#[tokio::test]
async fn packets_from_another_address_are_dropped() {
    let mut call = Call::begin().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let before = call.metric(UNKNOWN_ADDRESS).await;
    let mut sent = call.captured_srtp().await;
    sent.push(CLIENT_HELLO.to_vec());
    for datagram in &sent {
        stranger.send_to(datagram, call.node).await.unwrap();
    }
    call.counted(UNKNOWN_ADDRESS, before, sent.len()).await;
    call.goes_on().await;
    // Nothing is ever sent to an address that was not validated: neither a DTLS flight nor an alert.
    assert!(stranger.try_recv(&mut [0; 2048]).is_err());
}

#[tokio::test]
async fn a_replayed_packet_is_dropped() {
    let mut call = Call::begin().await;
    let before = call.metric(REPLAY).await;
    let captured = call.captured_srtp().await;
    for datagram in &captured {
        call.ada.send_datagram(call.node, datagram.clone()).await.unwrap();
    }
    call.counted(REPLAY, before, captured.len()).await;
    call.goes_on().await;
}

#[tokio::test]
async fn a_binding_request_without_the_password_opens_nothing() {
    let mut call = Call::begin().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (bad_stun, unknown) = (call.metric(BAD_STUN).await, call.metric(UNKNOWN_ADDRESS).await);
    // The last one is right but for the password.
    let usernames = [String::new(), "abcd:efgh".to_owned(), format!("{}:efgh", call.ufrag_of_ada())];
    for username in &usernames {
        stranger.send_to(&binding_request(username, 1), call.node).await.unwrap();
    }
    call.counted(BAD_STUN, bad_stun, usernames.len()).await;
    let captured = call.captured_srtp().await;
    for datagram in &captured {
        stranger.send_to(datagram, call.node).await.unwrap();
    }
    call.counted(UNKNOWN_ADDRESS, unknown, captured.len()).await;
    call.goes_on().await;
}

#[tokio::test]
async fn spoofed_bindings_do_not_grow_memory() {
    const SOCKETS: usize = 64;
    const ROUNDS: usize = 512;
    /// An entry of 64 bytes for each request of a pass would be twice that.
    const SLACK: u64 = 1024 * 1024;
    let mut call = Call::begin().await;
    let pid = call.scene.deployment.stack().nodes()[0].process.pid().unwrap();
    let mut strangers = Vec::new();
    for _ in 0..SOCKETS {
        strangers.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    }
    let mut resident = 0;
    // The first pass lets buffers reach their size; the second is the one that counts.
    for pass in 0..2_usize {
        resident = resident_bytes(pid);
        let before = call.metric(BAD_STUN).await;
        for round in 0..ROUNDS {
            for (number, stranger) in strangers.iter().enumerate() {
                let transaction = u64::try_from((pass * ROUNDS + round) * SOCKETS + number).unwrap();
                stranger.send_to(&binding_request(&format!("u{transaction}:x"), transaction), call.node).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
        // The kernel may drop some when the node is slower than this loop.
        call.counted(BAD_STUN, before, SOCKETS * ROUNDS / 2).await;
    }
    let grown = resident_bytes(pid).saturating_sub(resident);
    assert!(grown < SLACK, "{grown} bytes more after {} spoofed bindings", SOCKETS * ROUNDS);
    call.goes_on().await;
}

/// A STUN binding request (RFC 8489) in which all is right but MESSAGE-INTEGRITY and, perhaps, the username.
fn binding_request(username: &str, transaction: u64) -> Vec<u8> {
    let mut attributes = Vec::new();
    if !username.is_empty() {
        let mut name = username.as_bytes().to_vec();
        attributes.extend_from_slice(&[0, 6]);
        attributes.extend_from_slice(&u16::try_from(name.len()).unwrap().to_be_bytes());
        name.resize(name.len().next_multiple_of(4), 0);
        attributes.extend_from_slice(&name);
    }
    attributes.extend_from_slice(&[0, 8, 0, 20]);
    attributes.extend_from_slice(&[0x5a; 20]);
    let mut message = vec![0, 1];
    // FINGERPRINT, 8 bytes, is counted too.
    message.extend_from_slice(&u16::try_from(attributes.len() + 8).unwrap().to_be_bytes());
    message.extend_from_slice(&[0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0]);
    message.extend_from_slice(&transaction.to_be_bytes());
    message.extend_from_slice(&attributes);
    let fingerprint = crc32(&message) ^ 0x5354_554e;
    message.extend_from_slice(&[0x80, 0x28, 0, 4]);
    message.extend_from_slice(&fingerprint.to_be_bytes());
    message
}

/// CRC-32 of ITU-T V.42 (RFC 8489 section 14.7), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
