//! A client and the app above it, as livekit-client behaves: it joins, publishes, comes back on a new socket with an ICE
//! restart, joins anew where that does not help. The app wants it in the call or not.

mod negotiation;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use edge_signal::room::event::JoinAttempt;
use livekit_protocol as proto;
use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::claims::{AccessClaims, VideoGrant};
use shared::geo::Place;
use shared::ids::RoomName;

use crate::net::{Call, End, Frame, Host, Net, Socket, Turn};
use crate::peer::Peer;
use crate::sdp::{Kind, Section};
use crate::world::node_at;

/// Waits before attempts to come back, milliseconds (livekit-client's).
const RETRY_MS: [u64; 10] = [0, 300, 1_200, 2_700, 4_800, 7_000, 7_000, 7_000, 7_000, 7_000];
/// Longest a dial may take, milliseconds.
const DIAL_MS: u64 = 15_000;
/// Longest until media is connected after a join or a return, and until an offer is answered, milliseconds.
const CONNECT_MS: u64 = 15_000;
/// Longest until an announcement is answered, milliseconds.
const PUBLISH_MS: u64 = 10_000;
/// Time after which an app whose client gave up has it join again, milliseconds.
const APP_RETRY_MS: u64 = 2_000;
/// Sections for tracks to come in a first offer.
const SPARE: usize = 3;

/// What a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kit {
    /// livekit-client in Chromium.
    Chromium,
    /// livekit-client in Firefox.
    Firefox,
    /// A native SDK.
    Native,
}

/// A track of its own.
#[derive(Debug, Clone)]
pub(crate) struct Track {
    /// The client's id.
    pub(crate) cid: String,
    /// The room's, once it said so.
    pub(crate) sid: Option<String>,
    kind: Kind,
    asked: u64,
}

#[derive(Debug, Clone, Copy)]
enum Signal {
    Off,
    Waiting { at: u64, resumes: bool },
    Dialing { dial: u64, until: u64, resumes: bool },
    Up { socket: Socket, heard: u64, ping_at: u64, greeted: bool },
}

/// The client.
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) identity: String,
    pub(crate) room: RoomName,
    kit: Kit,
    pub(crate) single: bool,
    /// Where the platform says it is.
    pub(crate) place: Option<Place>,
    /// The app wants it in the call.
    pub(crate) wanted: bool,
    pub(crate) sid: String,
    signal: Signal,
    pub(crate) publisher: Option<Peer>,
    pub(crate) subscriber: Option<Peer>,
    pub(crate) roster: BTreeMap<String, proto::ParticipantInfo>,
    pub(crate) tracks: Vec<Track>,
    offer_id: u32,
    /// Since when an offer waits for its answer.
    outstanding: Option<u64>,
    again: bool,
    attempts: u32,
    connect_by: Option<u64>,
    /// Asked while it was away.
    queued: Vec<Asked>,
    /// Counts peer connections, and tracks.
    made: u16,
    wake_at: Option<u64>,
    /// What no client should see.
    pub(crate) faults: Vec<String>,
}

impl Client {
    /// A client that is not in the call.
    pub(crate) fn new(index: usize, room: RoomName, kit: Kit, single: bool, place: Option<Place>) -> Self {
        Self {
            index,
            identity: format!("c{index}"),
            room,
            kit,
            single,
            place,
            wanted: false,
            sid: String::new(),
            signal: Signal::Off,
            publisher: None,
            subscriber: None,
            roster: BTreeMap::new(),
            tracks: Vec::new(),
            offer_id: 0,
            outstanding: None,
            again: false,
            attempts: 0,
            connect_by: None,
            queued: Vec::new(),
            made: 0,
            wake_at: None,
            faults: Vec::new(),
        }
    }

    fn end(&self) -> End {
        End::Client(self.index)
    }

    // --- the app

    /// The app has it join.
    pub(crate) fn enter(&mut self, net: &mut Net) {
        self.wanted = true;
        self.attempts = 0;
        self.signal = Signal::Waiting { at: net.now, resumes: false };
        self.wake(net);
    }

    /// The app has it leave; without a word where the app is just gone.
    pub(crate) fn exit(&mut self, net: &mut Net, says_goodbye: bool) {
        self.wanted = false;
        if says_goodbye {
            self.say(net, Asked::Leave(proto::LeaveRequest::default()));
        }
        self.hang_up(net);
        self.signal = Signal::Off;
        (self.publisher, self.subscriber) = (None, None);
        self.tracks.clear();
    }

    /// The app publishes a track.
    pub(crate) fn publish(&mut self, net: &mut Net, kind: Kind) {
        self.made += 1;
        let cid = format!("cid-{}-{}", self.identity, self.made);
        self.tracks.push(Track { cid: cid.clone(), sid: None, kind, asked: net.now });
        if self.publisher.is_some() {
            self.send_track(net, &cid);
            self.negotiate(net, false);
        }
        self.wake(net);
    }

    /// The app takes its first track back.
    pub(crate) fn unpublish(&mut self, net: &mut Net) {
        if self.tracks.is_empty() {
            return;
        }
        let track = self.tracks.remove(0);
        if let Some(publisher) = &mut self.publisher {
            publisher.remove_track(&track.cid);
            self.negotiate(net, false);
        }
        self.wake(net);
    }

    /// It is in the call, as far as it knows.
    pub(crate) fn is_in(&self) -> bool {
        matches!(self.signal, Signal::Up { greeted: true, .. })
    }

    /// For the log.
    pub(crate) fn state(&self) -> String {
        let peers = [&self.publisher, &self.subscriber].map(|peer| peer.as_ref().map(Peer::state));
        let (offer, by) = (self.outstanding, self.connect_by);
        format!(
            "{} ({:?}, single: {}, {:?}, peers {peers:?}, offer waits since {offer:?}, is to connect by {by:?})",
            self.identity, self.kit, self.single, self.signal
        )
    }

    /// The connection that tracks come down.
    pub(crate) fn receiving(&self) -> Option<&Peer> {
        if self.single { self.publisher.as_ref() } else { self.subscriber.as_ref() }
    }

    /// Media is up.
    pub(crate) fn is_connected(&self, now: u64) -> bool {
        self.receiving().is_some_and(|peer| peer.is_connected(now))
            && self.publisher.as_ref().is_some_and(|peer| peer.is_connected(now))
    }

    // --- timers

    /// Its timer.
    pub(crate) fn woken(&mut self, net: &mut Net) {
        if self.wake_at == Some(net.now) {
            self.wake_at = None;
            self.wake(net);
        }
    }

    /// Does what is due.
    pub(crate) fn wake(&mut self, net: &mut Net) {
        match self.signal {
            Signal::Waiting { at, resumes } if at <= net.now => self.dial(net, resumes),
            Signal::Dialing { until, .. } if until <= net.now => self.try_again(net, true),
            Signal::Up { socket, heard, ping_at, .. } => {
                if net.now >= heard + 30_000 {
                    net.note(|| format!("{}: nothing heard", self.identity));
                    self.resume(net);
                } else if net.now >= ping_at {
                    self.signal = match self.signal {
                        Signal::Up { heard, greeted, .. } => {
                            Signal::Up { socket, heard, ping_at: net.now + 10_000, greeted }
                        }
                        other => other,
                    };
                    self.say(net, Asked::PingReq(proto::Ping { timestamp: 0, rtt: 0 }));
                }
            }
            _ => {}
        }
        if self.is_in() {
            self.look_after_media(net);
        }
        self.send_datagrams(net);
        let due = self.due().map(|due| due.max(net.now + 1));
        if let Some(due) = due.filter(|due| self.wake_at.is_none_or(|at| at > *due)) {
            self.wake_at = Some(due);
            net.at(due, Turn::WakeClient(self.index));
        }
    }

    fn due(&self) -> Option<u64> {
        let signal = match self.signal {
            Signal::Off => None,
            Signal::Waiting { at, .. } => Some(at),
            Signal::Dialing { until, .. } => Some(until),
            Signal::Up { heard, ping_at, .. } => Some(ping_at.min(heard + 30_000)),
        };
        let peers = [&self.publisher, &self.subscriber].into_iter().flatten().filter_map(Peer::due);
        let offer = self.outstanding.map(|since| since + CONNECT_MS);
        let up = self.is_in();
        peers.chain(signal).chain(self.connect_by.into_iter().chain(offer).filter(|_| up)).min()
    }

    fn look_after_media(&mut self, net: &mut Net) {
        let connected = self.is_connected(net.now);
        if self.connect_by.is_some() && connected {
            self.connect_by = None;
            self.attempts = 0;
        }
        if self.connect_by.is_some_and(|by| by <= net.now) {
            net.note(|| format!("{}: media does not come", self.identity));
            return self.join_anew(net);
        }
        if self.outstanding.is_some_and(|since| net.now >= since + CONNECT_MS) {
            net.note(|| format!("{}: no answer", self.identity));
            return self.join_anew(net);
        }
        let failed = [&self.publisher, &self.subscriber].into_iter().flatten().any(|peer| peer.has_failed(net.now));
        if failed && self.connect_by.is_none() {
            net.note(|| format!("{}: media failed", self.identity));
            return self.resume(net);
        }
        let late: Vec<Track> = self
            .tracks
            .iter()
            .filter(|track| track.sid.is_none() && net.now >= track.asked + PUBLISH_MS)
            .cloned()
            .collect();
        for track in late {
            // The app tries once more.
            net.note(|| format!("{}: {} was not published", self.identity, track.cid));
            self.tracks.retain(|known| known.cid != track.cid);
            if let Some(publisher) = &mut self.publisher {
                publisher.remove_track(&track.cid);
            }
            self.publish(net, track.kind);
        }
    }

    fn send_datagrams(&mut self, net: &mut Net) {
        for peer in [&mut self.publisher, &mut self.subscriber].into_iter().flatten() {
            let from = peer.addr;
            for (to, bytes) in peer.output(net) {
                net.datagram([Host::Client(self.index), Host::Node(node_at(to))], from, to, bytes);
            }
        }
    }

    /// A datagram arrives.
    pub(crate) fn datagram(&mut self, net: &mut Net, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let peers = [&mut self.publisher, &mut self.subscriber].into_iter().flatten();
        if let Some(peer) = peers.into_iter().find(|peer| peer.addr == to) {
            peer.take(net, from, bytes);
        }
        self.wake(net);
    }

    // --- signaling

    fn dial(&mut self, net: &mut Net, resumes: bool) {
        let dial = net.pick(0, u64::MAX);
        if !resumes {
            self.begin(net);
        }
        let attempt = Box::new(self.attempt(net, resumes));
        self.signal = Signal::Dialing { dial, until: net.now + DIAL_MS, resumes };
        net.call(Call::Join { client: self.index, dial, attempt });
    }

    /// New peer connections.
    fn begin(&mut self, net: &mut Net) {
        let mut publisher = self.peer(net);
        self.subscriber = None;
        let receiving = |kind| Section { kind, sends: None, receives: true };
        if self.single {
            publisher.sections = [Kind::Audio, Kind::Video].map(|kind| vec![receiving(kind); SPARE]).concat();
        } else {
            self.subscriber = Some(self.peer(net));
        }
        publisher.sections.push(receiving(Kind::Data));
        self.publisher = Some(publisher);
        (self.outstanding, self.again, self.connect_by) = (None, false, None);
        self.sid.clear();
        self.queued.clear();
        self.tracks.iter_mut().for_each(|track| track.sid = None);
    }

    fn peer(&mut self, net: &mut Net) -> Peer {
        self.made += 1;
        let host = u8::try_from(self.index).unwrap();
        Peer::new(net, SocketAddr::from(([10, 0, host, 1], 10_000 + self.made)))
    }

    fn attempt(&mut self, net: &Net, resumes: bool) -> JoinAttempt {
        let video = VideoGrant { room_join: true, room: self.room.to_string(), ..VideoGrant::default() };
        let claims = AccessClaims {
            iss: "devkey".into(),
            sub: self.identity.clone(),
            exp: net.unix().secs() + 3600,
            video: Some(video),
            ..AccessClaims::default()
        };
        let (sdk, browser) = match self.kit {
            Kit::Chromium => (proto::client_info::Sdk::Js, "Chrome"),
            Kit::Firefox => (proto::client_info::Sdk::Js, "Firefox"),
            Kit::Native => (proto::client_info::Sdk::Python, ""),
        };
        let client_info =
            proto::ClientInfo { sdk: sdk.into(), protocol: 17, browser: browser.into(), ..Default::default() };
        let settings = proto::ConnectionSettings { auto_subscribe: true, ..Default::default() };
        let mut request = proto::JoinRequest {
            client_info: Some(client_info),
            connection_settings: Some(settings),
            reconnect: resumes,
            ..Default::default()
        };
        if resumes {
            request.participant_sid.clone_from(&self.sid);
            let published = self.tracks.iter().filter_map(|track| {
                let info = proto::TrackInfo { sid: track.sid.clone()?, ..Default::default() };
                Some(proto::TrackPublishedResponse { cid: track.cid.clone(), track: Some(info) })
            });
            request.sync_state = Some(proto::SyncState { publish_tracks: published.collect(), ..Default::default() });
        } else if self.single {
            self.offer_id = 1;
            self.outstanding = Some(net.now);
            request.publisher_offer = self.offer();
        }
        JoinAttempt { room: self.room.clone(), claims, request, single_peer_connection: self.single, place: self.place }
    }

    /// Its dial was answered.
    pub(crate) fn dialed(&mut self, net: &mut Net, dial: u64, result: Result<Socket, u16>) {
        let expected = matches!(self.signal, Signal::Dialing { dial: known, .. } if known == dial);
        match result {
            Ok(socket) if expected => {
                let (heard, ping_at) = (net.now, net.now + 10_000);
                self.signal = Signal::Up { socket, heard, ping_at, greeted: false };
            }
            Ok(socket) => net.close(&self.end(), socket),
            Err(status) if expected => {
                net.note(|| format!("{}: refused with {status}", self.identity));
                self.try_again(net, true);
            }
            Err(_) => {}
        }
        self.wake(net);
    }

    /// It did not work: later, again; in the end the app begins anew.
    fn try_again(&mut self, net: &mut Net, same_way: bool) {
        let resumes = match self.signal {
            Signal::Dialing { resumes, .. } => resumes && same_way,
            _ => false,
        };
        self.attempts += 1;
        match RETRY_MS.get(self.attempts as usize) {
            Some(wait) => self.signal = Signal::Waiting { at: net.now + wait, resumes },
            None => {
                self.attempts = 0;
                self.signal = Signal::Waiting { at: net.now + APP_RETRY_MS, resumes: false };
            }
        }
    }

    /// Comes back on a new socket.
    fn resume(&mut self, net: &mut Net) {
        self.hang_up(net);
        self.connect_by = None;
        self.signal = Signal::Waiting { at: net.now, resumes: !self.sid.is_empty() };
        self.wake(net);
    }

    /// Joins anew, as the same person.
    fn join_anew(&mut self, net: &mut Net) {
        self.say(net, Asked::Leave(proto::LeaveRequest::default()));
        self.hang_up(net);
        self.attempts += 1;
        let wait = RETRY_MS.get(self.attempts as usize).copied().unwrap_or(APP_RETRY_MS);
        self.signal = Signal::Waiting { at: net.now + wait, resumes: false };
        self.wake(net);
    }

    fn hang_up(&mut self, net: &mut Net) {
        if let Signal::Up { socket, .. } = self.signal {
            net.close(&self.end(), socket);
        }
    }

    /// A frame arrives.
    pub(crate) fn frame(&mut self, net: &mut Net, from: Socket, frame: Frame) {
        let Signal::Up { socket, ping_at, greeted, .. } = self.signal else { return };
        if socket != from {
            return;
        }
        self.signal = Signal::Up { socket, heard: net.now, ping_at, greeted };
        match frame {
            Frame::ToClient(response) => {
                if let Some(message) = response.message {
                    self.hear(net, message);
                }
            }
            Frame::Closed => {
                net.note(|| format!("{}: socket closed", self.identity));
                self.signal = Signal::Off;
                self.resume(net);
            }
            _ => {}
        }
        self.wake(net);
    }

    fn greet(&mut self, net: &Net) {
        if let Signal::Up { greeted, .. } = &mut self.signal {
            *greeted = true;
        }
        self.connect_by = Some(net.now + CONNECT_MS);
    }

    fn hear(&mut self, net: &mut Net, message: Message) {
        match message {
            Message::Join(join) => {
                self.greet(net);
                let me = join.participant.unwrap_or_default();
                net.note(|| format!("{}: joined as {}", self.identity, me.sid));
                self.sid.clone_from(&me.sid);
                self.roster = join.other_participants.into_iter().map(|info| (info.sid.clone(), info)).collect();
                let cids: Vec<String> = self.tracks.iter().map(|track| track.cid.clone()).collect();
                cids.iter().for_each(|cid| self.send_track(net, cid));
                if !self.single || !cids.is_empty() {
                    self.negotiate(net, false);
                }
            }
            Message::Reconnect(_) => {
                net.note(|| format!("{}: resumed", self.identity));
                self.greet(net);
                if let Some(publisher) = &mut self.publisher {
                    publisher.restart(net);
                }
                std::mem::take(&mut self.queued).into_iter().for_each(|asked| self.say(net, asked));
                self.negotiate(net, true);
            }
            Message::Answer(answer) => {
                if answer.id != self.offer_id || self.outstanding.take().is_none() {
                    return;
                }
                if let Some(publisher) = &mut self.publisher {
                    publisher.take_remote(net, &answer.sdp);
                }
                if std::mem::take(&mut self.again) {
                    self.negotiate(net, false);
                }
            }
            Message::Offer(offer) => self.answer(net, &offer),
            Message::Update(update) => update.participants.into_iter().for_each(|info| self.update(info)),
            Message::TrackPublished(published) => {
                let sid = published.track.map(|info| info.sid);
                if let Some(track) = self.tracks.iter_mut().find(|track| track.cid == published.cid) {
                    track.sid = sid;
                }
            }
            Message::MediaSectionsRequirement(needed) => {
                if let Some(publisher) = &mut self.publisher {
                    let add = |kind, count: u32| (0..count).map(move |_| Section { kind, sends: None, receives: true });
                    publisher.sections.extend(add(Kind::Audio, needed.num_audios));
                    publisher.sections.extend(add(Kind::Video, needed.num_videos));
                    self.negotiate(net, false);
                }
            }
            Message::Leave(leave) => {
                let (action, reason) = (leave.action(), leave.reason());
                net.note(|| format!("{}: told to leave, {action:?}, {reason:?}", self.identity));
                self.hang_up(net);
                self.attempts += 1;
                let wait = RETRY_MS.get(self.attempts as usize).copied().unwrap_or(APP_RETRY_MS);
                self.signal = match action {
                    Action::Reconnect => Signal::Waiting { at: net.now + wait, resumes: false },
                    Action::Resume => Signal::Waiting { at: net.now + wait, resumes: true },
                    Action::Disconnect => Signal::Waiting { at: net.now + APP_RETRY_MS, resumes: false },
                };
            }
            _ => {}
        }
    }

    fn update(&mut self, info: proto::ParticipantInfo) {
        if let Some(known) = self.roster.get(&info.sid)
            && info.version < known.version
        {
            let fault =
                format!("{}: {} went from version {} to {}", self.identity, info.sid, known.version, info.version);
            return self.faults.push(fault);
        }
        if info.state() == State::Disconnected {
            self.roster.remove(&info.sid);
        } else {
            self.roster.retain(|sid, known| *sid == info.sid || known.identity != info.identity);
            self.roster.insert(info.sid.clone(), info);
        }
    }

    fn say(&mut self, net: &mut Net, message: Asked) {
        if let Signal::Up { socket, greeted: true, .. } = self.signal {
            let request = proto::SignalRequest { message: Some(message) };
            net.send(&self.end(), socket, Frame::FromClient(Box::new(request)));
        }
    }
}
