//! Two shards of two nodes, each with clients of its own, and a pipe between them.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::media::forward::rtp::RtpPacket;

/// Where the two nodes are to each other.
const ADDRESSES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 7900),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2)), 7900),
];
/// Keys of the pipe's ends: no client has them.
const PIPE: u64 = 900;
/// The SSRC of a track in the pipe, and of its retransmissions.
const SSRC: (u32, u32) = (77_000, 77_001);
/// Payload type of retransmitted Opus in the pipe.
const RTX: u8 = 120;

/// Which end.
type Side = usize;

struct Pair {
    worlds: [World; 2],
    /// What went to the node of that side, less what was lost.
    crossed: [Vec<Vec<u8>>; 2],
    /// Takes the next datagram that is to go there away.
    loses: fn(&[u8]) -> bool,
    armed: bool,
}

impl Pair {
    fn new() -> Self {
        let worlds = [World::new(), World::new()];
        Self { worlds, crossed: Default::default(), loses: |_| false, armed: false }
    }

    fn connected() -> Self {
        let mut pair = Self::new();
        let peers = [0, 1].map(|side| pair.open(side));
        pair.connect(0, peers[1].clone());
        pair.connect(1, peers[0].clone());
        pair.until("both are up", |pair| pair.worlds.iter().all(is_up));
        pair
    }

    /// Opens an end; what the other one has to know of it. The second dials.
    fn open(&mut self, side: Side) -> PipePeer {
        let number = PipeNumber::new(u32::try_from(side).unwrap() + 5).unwrap();
        let world = &mut self.worlds[side];
        let pipe = Some(PipeConfig { number, dials: side == 1 });
        let local = credentials(PIPE + side as u64);
        let speaker = speaker(PIPE);
        let handshake = HandshakeRole::of_pipe(side == 1);
        let open =
            TransportConfig { speaker, handshake, local: local.clone(), pipe, ..config(PIPE, DataRole::Pipe, None) };
        world.command(Command::Open(Box::new(open)));
        let addresses = [ADDRESSES[side]].into_iter().collect();
        PipePeer {
            number,
            addresses,
            ice: local,
            fingerprint: world.identities.of(CertificateTurn::First).fingerprint(),
        }
    }

    fn connect(&mut self, side: Side, peer: PipePeer) {
        self.worlds[side].command(Command::ConnectPipe(TransportKey(PIPE), Box::new(peer)));
    }

    /// Carries datagrams between the nodes until none is on the way.
    fn carry(&mut self) {
        loop {
            let mut quiet = true;
            for side in [0, 1] {
                self.worlds[side].carry();
                for (to, datagram) in std::mem::take(&mut self.worlds[side].stray) {
                    assert_eq!(to, ADDRESSES[1 - side]);
                    quiet = false;
                    if self.armed && (self.loses)(&datagram) {
                        self.armed = false;
                        continue;
                    }
                    self.crossed[1 - side].push(datagram.clone());
                    let (from, mut datagram) = (ADDRESSES[side], datagram);
                    let now = self.worlds[1 - side].now;
                    self.worlds[1 - side].shard.handle_datagram(now, from, &mut datagram);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        const TICK: Duration = Duration::from_millis(5);
        for _ in 0..span.as_millis() / TICK.as_millis() {
            self.carry();
            self.worlds.iter_mut().for_each(|world| world.pass(TICK));
        }
        self.carry();
    }

    fn until(&mut self, what: &str, over: impl Fn(&Self) -> bool) {
        for _ in 0..2000 {
            self.pass(Duration::from_millis(5));
            if over(self) {
                return;
            }
        }
        panic!("never happened: {what}");
    }

    fn join(&mut self, side: Side) -> usize {
        let at = self.worlds[side].join(DataRole::Both);
        self.worlds[side].connect(at);
        at
    }

    /// A client of the first node has a microphone, and so many of the second hear it.
    fn listen(&mut self, listeners: usize) -> (usize, Vec<usize>) {
        let ada = self.join(0);
        let listeners: Vec<usize> = (0..listeners).map(|_| self.join(1)).collect();
        let direct = self.worlds[0].audio_track(ada);
        self.worlds[0].command(Command::SetSenders(TransportKey(PIPE), vec![piped(&direct)]));
        let out = Receiver {
            track: TrackKey(500),
            kind: direct.kind,
            mid: String::new(),
            payload_types: piped(&direct).payload_types,
            extensions: ExtensionIds::default(),
            ssrcs: [SsrcPair { ssrc: SSRC.0, rtx: Some(SSRC.1) }].into_iter().collect(),
            rids: Default::default(),
            muted: false,
        };
        self.worlds[1].command(Command::SetReceivers(TransportKey(PIPE), vec![out]));
        for (n, at) in listeners.iter().enumerate() {
            let sender = Sender { source: TrackKey(500), ssrc: 9000 + u32::try_from(n).unwrap(), ..direct.clone() };
            self.worlds[1].expect_audio(*at, sender.ssrc);
            let key = self.worlds[1].clients[*at].key;
            self.worlds[1].command(Command::SetSenders(key, vec![sender]));
        }
        (ada, listeners)
    }

    fn rtp_crossed(&self) -> usize {
        self.crossed[1].iter().filter(|datagram| is_rtp(datagram)).count()
    }
}

fn is_up(world: &World) -> bool {
    world.events.iter().any(|e| matches!(e, Event::Connected { transport: TransportKey(PIPE), .. }))
}

fn is_rtp(datagram: &[u8]) -> bool {
    classify(&datagram[PipeNumber::LEN..]) == Some(Protocol::Rtp)
}

fn is_media(datagram: &[u8]) -> bool {
    is_rtp(datagram) && RtpPacket::parse(&datagram[PipeNumber::LEN..]).is_ok_and(|rtp| rtp.ssrc == SSRC.0)
}

/// The sender that puts a track into the pipe.
fn piped(direct: &Sender) -> Sender {
    let payload_types = direct.payload_types.iter().map(|pt| PayloadType { rtx_pt: Some(RTX), nack: true, ..*pt });
    Sender {
        mid: String::new(),
        ssrc: SSRC.0,
        rtx_ssrc: Some(SSRC.1),
        payload_types: payload_types.collect(),
        only: Some(0),
        ..direct.clone()
    }
}

#[test]
fn a_track_crosses_once_for_all_who_hear_it_there_and_not_at_all_for_nobody() {
    let mut pair = Pair::connected();
    let (ada, listeners) = pair.listen(3);
    for n in 0..50u8 {
        pair.worlds[0].speak(ada, &[n; 50]);
        pair.pass(Duration::from_millis(20));
    }
    for at in &listeners {
        assert_eq!(pair.worlds[1].heard(*at).len(), 50);
    }
    assert_eq!(pair.rtp_crossed(), 50, "each packet once");
    pair.worlds[0].command(Command::SetSenders(TransportKey(PIPE), Vec::new()));
    for n in 0..10u8 {
        pair.worlds[0].speak(ada, &[n; 50]);
        pair.pass(Duration::from_millis(20));
    }
    assert_eq!(pair.rtp_crossed(), 50, "nobody is there");
    let stats = [0, 1].map(|side| pair.worlds[side].shard.stats());
    assert!(stats.iter().all(|s| s.dropped_bad_srtp + s.dropped_replay + s.dropped_unknown_address == 0), "{stats:?}");
    assert_eq!(pair.worlds[0].connected_with(ada), Some(SrtpProfile::AeadAes128Gcm));
}

#[test]
fn what_is_lost_between_nodes_is_sent_again() {
    let mut pair = Pair::connected();
    let (ada, listeners) = pair.listen(1);
    for n in 0..30u8 {
        (pair.loses, pair.armed) = (is_media, n % 10 == 5);
        pair.worlds[0].speak(ada, &[n; 50]);
        pair.pass(Duration::from_millis(20));
    }
    pair.pass(Duration::from_millis(500));
    let mut heard = pair.worlds[1].heard(listeners[0]);
    heard.sort();
    heard.dedup();
    assert_eq!(heard.len(), 30);
    assert_eq!(pair.worlds[0].shard.stats().retransmissions_sent, 3);
}

#[test]
fn data_goes_one_hop_once_and_not_back() {
    let mut pair = Pair::connected();
    // The first one has the key that says: the server.
    let (bob, ada) = (pair.join(0), pair.join(0));
    let (cyd, dan) = (pair.join(1), pair.join(1));
    for at in [ada, bob] {
        pair.worlds[0].until("channels", |w| w.clients[at].channels.len() > 3);
    }
    for at in [cyd, dan] {
        pair.worlds[1].until("channels", |w| w.clients[at].channels.len() > 3);
    }
    pair.pass(Duration::from_millis(500));
    for label in ["_reliable", "_lossy"] {
        pair.worlds[0].say(ada, label, &packet(label.as_bytes()));
        pair.pass(Duration::from_millis(100));
    }
    let got = |world: &World, at: usize| -> Vec<Vec<u8>> {
        world
            .messages(at)
            .iter()
            .map(|(label, data)| {
                assert_eq!(label.as_bytes(), payload(data));
                payload(data)
            })
            .collect()
    };
    let both = vec![b"_reliable".to_vec(), b"_lossy".to_vec()];
    assert_eq!(got(&pair.worlds[0], bob), both);
    assert_eq!(got(&pair.worlds[1], cyd), both);
    assert_eq!(got(&pair.worlds[1], dan), both);
    assert_eq!(got(&pair.worlds[0], ada).len(), 0, "it does not come back");
    let (_, data) = &pair.worlds[1].messages(cyd)[0];
    assert_eq!(DataPacket::decode(&data[..]).unwrap().participant_identity, "client-1");
    assert_eq!([0, 1].map(|side| pair.worlds[side].shard.stats().data_messages_received), [2, 2]);

    let said = ServerData { room: RoomKey(1), packet: packet(b"all"), reliable: true, identities: Vec::new() };
    pair.worlds[0].command(Command::SendData(Box::new(said)));
    pair.pass(Duration::from_millis(100));
    assert_eq!(pair.worlds[0].messages(ada).len(), 1);
    assert_eq!(pair.worlds[1].messages(cyd).len(), 2, "the room tells each node itself");
}

#[test]
fn a_node_with_another_certificate_gets_nothing() {
    for side in [0, 1] {
        let mut pair = Pair::new();
        let peers = [0, 1].map(|side| pair.open(side));
        let forged = |of: Side| {
            let right = peers[of].fingerprint;
            PipePeer { fingerprint: if of == side { Fingerprint([3; 32]) } else { right }, ..peers[of].clone() }
        };
        pair.connect(0, forged(1));
        pair.connect(1, forged(0));
        pair.until("it fails", |pair| {
            let failed = |e: &Event| matches!(e, Event::Failed { reason: FailReason::FingerprintMismatch, .. });
            pair.worlds[1 - side].events.iter().any(failed)
        });
        assert!(!is_up(&pair.worlds[1 - side]));
    }
}

#[test]
fn who_knows_the_number_alone_gets_nothing() {
    let mut pair = Pair::connected();
    let (ada, listeners) = pair.listen(1);
    pair.worlds[0].speak(ada, b"hello");
    pair.pass(Duration::from_millis(20));
    let (caught, before) = (pair.crossed[1].clone(), pair.worlds[1].heard(listeners[0]).len());
    let stranger = SocketAddr::from(([198, 51, 100, 7], 666));
    let others = caught.iter().filter(|d| classify(&d[PipeNumber::LEN..]) != Some(Protocol::Stun));
    let mut tried = 0;
    for datagram in others {
        tried += 1;
        let now = pair.worlds[1].now;
        pair.worlds[1].shard.handle_datagram(now, stranger, &mut datagram.clone());
        pair.worlds[1].carry();
        assert!(pair.worlds[1].stray.is_empty(), "answered a stranger");
    }
    assert!(tried > 3);
    assert_eq!(pair.worlds[1].shard.stats().dropped_unknown_address, tried);
    assert_eq!(pair.worlds[1].heard(listeners[0]).len(), before);
    let mut unknown = [&PipeNumber::new(99).unwrap().tag()[..], &[22; 40]].concat();
    let now = pair.worlds[1].now;
    pair.worlds[1].shard.handle_datagram(now, ADDRESSES[0], &mut unknown);
    assert_eq!(pair.worlds[1].shard.stats().dropped_unknown_address, tried + 1);
}

#[test]
fn a_pipe_whose_path_breaks_says_so_and_comes_back() {
    let mut pair = Pair::connected();
    let (ada, listeners) = pair.listen(1);
    let is = |wanted: fn(&Event) -> bool| move |pair: &Pair| pair.worlds.iter().all(|w| w.events.iter().any(wanted));
    // Nothing of one end arrives at the other.
    for _ in 0..11 {
        pair.worlds.iter_mut().for_each(|world| world.pass(Duration::from_secs(1)));
        pair.worlds.iter_mut().for_each(|world| world.stray.clear());
    }
    assert!(is(|e| matches!(e, Event::Disconnected(TransportKey(PIPE))))(&pair));
    pair.until("it is back", is(|e| matches!(e, Event::Reconnected(TransportKey(PIPE)))));
    pair.worlds[0].speak(ada, b"again");
    pair.until("heard", |pair| pair.worlds[1].heard(listeners[0]) == [b"again"]);
}
