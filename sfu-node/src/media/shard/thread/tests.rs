//! The real thread and the real socket, with a str0m client on loopback.

use std::net::UdpSocket;

use crossbeam_channel::unbounded;
use shared::ids::{Identity as Name, ParticipantSid};
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::ice::IceCreds;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Input, Output, Rtc};

use super::*;
use crate::media::api::*;

/// Real time after which a client that is not done has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    deadline: Instant,
    channel: Option<ChannelId>,
    got: Vec<Vec<u8>>,
}

impl Client {
    fn join(shard: &ShardHandle, n: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut rtc =
            Rtc::builder().set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags())).build(Instant::now());
        rtc.add_local_candidate(Candidate::host(socket.local_addr().unwrap(), "udp").unwrap());
        rtc.add_remote_candidate(Candidate::host(shard.local_addr(), "udp").unwrap());
        let local = IceCredentials { ufrag: format!("u{n}"), password: format!("password-of-client-{n}-long") };
        let mut direct = rtc.direct_api();
        let fingerprint = Fingerprint(direct.local_dtls_fingerprint().bytes.clone().try_into().unwrap());
        direct.set_remote_ice_credentials(IceCreds { ufrag: local.ufrag.clone(), pass: local.password.clone() });
        direct.set_remote_fingerprint(str0m::crypto::Fingerprint {
            hash_func: "sha-256".to_owned(),
            bytes: shard.fingerprints()[0].0.to_vec(),
        });
        direct.set_ice_controlling(true);
        direct.start_dtls(true).unwrap();
        direct.start_sctp(true);
        direct.create_data_channel(ChannelConfig { label: "_reliable".to_owned(), ..ChannelConfig::default() });
        shard.send(Command::Open(Box::new(TransportConfig {
            key: TransportKey(n),
            room: RoomKey(1),
            speaker: Speaker {
                key: SpeakerKey(n),
                participant: ParticipantSid::try_from(format!("PA_22222222222{n}")).unwrap(),
                identity: Name::try_from(format!("client-{n}")).unwrap(),
                can_publish_data: true,
                hidden: false,
                agent: false,
            },
            local,
            fingerprint: Some(fingerprint),
            certificate: CertificateTurn::First,
            handshake: HandshakeRole::Server,
            data: DataRole::Both,
            pipe: None,
        })));
        Self { rtc, socket, deadline: Instant::now(), channel: None, got: Vec::new() }
    }

    /// Sends what is to be sent, then waits a little for a datagram or the next deadline.
    fn turn(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.deadline = at;
                    break;
                }
                Output::Transmit(transmit) => {
                    self.socket.send_to(&transmit.contents, transmit.destination).unwrap();
                }
                Output::Event(str0m::Event::ChannelOpen(id, _)) => self.channel = Some(id),
                Output::Event(str0m::Event::ChannelData(data)) => self.got.push(data.data),
                Output::Event(_) => {}
            }
        }
        let wait = self.deadline.saturating_duration_since(Instant::now());
        self.socket.set_read_timeout(Some(wait.clamp(Duration::from_millis(1), Duration::from_millis(5)))).unwrap();
        let mut buffer = [0; 2048];
        let received = self.socket.recv_from(&mut buffer);
        let now = Instant::now();
        if let Ok((len, from)) = received {
            let to = self.socket.local_addr().unwrap();
            let receive = Receive::new(Protocol::Udp, from, to, &buffer[..len]).unwrap();
            self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
    }
}

fn until(clients: &mut [Client], what: &str, over: impl Fn(&[Client]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !over(clients) {
        assert!(Instant::now() < deadline, "never happened: {what}");
        clients.iter_mut().for_each(Client::turn);
    }
}

#[test]
fn clients_connect_and_talk_over_a_real_socket() {
    let (events, heard) = unbounded();
    let bind = "127.0.0.1:0".parse().unwrap();
    let config = ShardConfig { bind, socket_buffer: 1 << 20, max_transports: 10, audible: 16 };
    let [shard] = <[ShardHandle; 1]>::try_from(start(&config, vec![events]).unwrap()).ok().unwrap();
    let mut clients = [Client::join(&shard, 2), Client::join(&shard, 3)];
    until(&mut clients, "channels open", |c| c.iter().all(|c| c.channel.is_some()));

    let data = crate::media::shard::tests::packet(&[9; 40_000]);
    let id = clients[0].channel.unwrap();
    clients[0].rtc.channel(id).unwrap().write(true, &data).unwrap();
    until(&mut clients, "delivered", |c| c[1].got.len() == 1);

    shard.send(Command::ReadStats);
    let (mut connected, mut opened) = (0, 0);
    let stats = loop {
        match heard.recv_timeout(PATIENCE).unwrap() {
            Event::Stats(stats) => break stats,
            Event::Connected { profile: SrtpProfile::AeadAes128Gcm, .. } => connected += 1,
            Event::ChannelsOpened(_, channels) => opened += channels.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((connected, opened), (2, 2));
    assert_eq!((stats.transports, stats.dropped_send, stats.data_messages_sent), (2, 0, 1));
    assert!(stats.send_calls <= stats.packets_sent && stats.receive_calls <= stats.packets_received);
    assert!(shard.is_alive());
    drop(shard);
    assert!(heard.recv_timeout(PATIENCE).is_err(), "the thread is gone and its channel closed");
}

#[test]
fn data_crosses_between_shards() {
    let (channels, heard): (Vec<_>, Vec<_>) = (0..2).map(|_| unbounded()).unzip();
    let bind = "127.0.0.1:0".parse().unwrap();
    let config = ShardConfig { bind, socket_buffer: 1 << 20, max_transports: 10, audible: 16 };
    let shards = start(&config, channels).unwrap();
    assert_eq!(shards[0].fingerprints(), shards[1].fingerprints());
    let [first, second] = shards[0].fingerprints();
    assert_ne!(first, second);
    assert_ne!(shards[0].local_addr(), shards[1].local_addr());
    for (shard, other) in [(0, 1), (1, 0)] {
        let others = [ShardIndex(other)].into_iter().collect();
        shards[shard].send(Command::SetRoomShards(RoomKey(1), others));
    }
    let mut clients = [Client::join(&shards[0], 2), Client::join(&shards[1], 3), Client::join(&shards[1], 4)];
    until(&mut clients, "channels open", |c| c.iter().all(|c| c.channel.is_some()));
    let data = crate::media::shard::tests::packet(&[9; 40_000]);
    let id = clients[0].channel.unwrap();
    clients[0].rtc.channel(id).unwrap().write(true, &data).unwrap();
    until(&mut clients, "delivered", |c| c[1].got.len() == 1 && c[2].got.len() == 1);
    assert!(clients[0].got.is_empty());
    assert_eq!(clients[1].got, clients[2].got);
    let stats = [0, 1].map(|shard: usize| {
        shards[shard].send(Command::ReadStats);
        loop {
            if let Event::Stats(stats) = heard[shard].recv_timeout(PATIENCE).unwrap() {
                break *stats;
            }
        }
    });
    assert_eq!((stats[0].crossings_sent, stats[0].data_messages_sent), (1, 0));
    assert_eq!((stats[1].crossings_received, stats[1].data_messages_sent), (1, 2));
}

/// The pipes are on the first shards, the clients on the second ones: each message crosses between shards, nodes and shards.
#[test]
fn data_crosses_between_nodes_once() {
    let bind = "127.0.0.1:0".parse().unwrap();
    let config = ShardConfig { bind, socket_buffer: 1 << 20, max_transports: 10, audible: 16 };
    let (nodes, heard): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| {
            let (channels, heard): (Vec<_>, Vec<_>) = (0..2).map(|_| unbounded()).unzip();
            (start(&config, channels).unwrap(), heard)
        })
        .unzip();
    let number = |node: usize| PipeNumber::new(u32::try_from(node).unwrap() + 1).unwrap();
    let ice =
        |node: usize| IceCredentials { ufrag: format!("p{node}"), password: format!("password-of-pipe-{node}-long") };
    for (node, shards) in nodes.iter().enumerate() {
        for (shard, other) in [(0, 1), (1, 0)] {
            let others = [ShardIndex(other)].into_iter().collect();
            shards[shard].send(Command::SetRoomShards(RoomKey(1), others));
        }
        shards[0].send(Command::Open(Box::new(TransportConfig {
            key: TransportKey(9),
            room: RoomKey(1),
            speaker: Speaker {
                key: SpeakerKey(9),
                participant: ParticipantSid::try_from("PA_pipe").unwrap(),
                identity: Name::try_from("pipe").unwrap(),
                can_publish_data: false,
                hidden: true,
                agent: false,
            },
            local: ice(node),
            fingerprint: None,
            certificate: CertificateTurn::First,
            handshake: HandshakeRole::of_pipe(node == 1),
            data: DataRole::Pipe,
            pipe: Some(PipeConfig { number: number(node), dials: node == 1 }),
        })));
        let other = 1 - node;
        let addresses = [nodes[other][0].local_addr()].into_iter().collect();
        let fingerprint = nodes[other][0].fingerprints()[0];
        let peer = PipePeer { number: number(other), addresses, ice: ice(other), fingerprint };
        shards[0].send(Command::ConnectPipe(TransportKey(9), Box::new(peer)));
    }
    let mut clients = [Client::join(&nodes[0][1], 2), Client::join(&nodes[1][1], 3), Client::join(&nodes[1][1], 4)];
    until(&mut clients, "channels open", |c| c.iter().all(|c| c.channel.is_some()));
    for heard in &heard {
        let event = heard[0].recv_timeout(PATIENCE).unwrap();
        assert!(matches!(event, Event::Connected { profile: SrtpProfile::AeadAes128Gcm, .. }), "{event:?}");
    }
    for bytes in [20_000, 40_000] {
        let data = crate::media::shard::tests::packet(&vec![9; bytes]);
        let id = clients[0].channel.unwrap();
        clients[0].rtc.channel(id).unwrap().write(true, &data).unwrap();
    }
    until(&mut clients, "delivered", |c| c[1].got.len() == 2 && c[2].got.len() == 2);
    assert!(clients[0].got.is_empty(), "it does not come back");
    let stats = |node: usize, shard: usize| {
        nodes[node][shard].send(Command::ReadStats);
        loop {
            if let Event::Stats(stats) = heard[node][shard].recv_timeout(PATIENCE).unwrap() {
                break *stats;
            }
        }
    };
    assert_eq!(stats(0, 0).data_messages_sent, 2, "once for both who are there");
    let (pipe, clients) = (stats(1, 0), stats(1, 1));
    assert_eq!((pipe.data_messages_received, pipe.data_messages_sent, pipe.crossings_sent), (2, 0, 2));
    assert_eq!(clients.data_messages_sent, 4);
}

#[test]
fn a_taken_port_is_an_error() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config =
        ShardConfig { bind: taken.local_addr().unwrap(), socket_buffer: 1 << 20, max_transports: 10, audible: 16 };
    assert!(start(&config, vec![unbounded().0]).is_err());
}
