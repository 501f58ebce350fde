//! Anything may happen in any order. The world checks every event; a seed that ever failed is kept in `SEEDS`.

use edge_signal::agents::link::{Ending, JobKind, Standing};
use edge_signal::room::event::{ConnectionId, Event};
use edge_signal::room::service::{Answer, Request};
use livekit_protocol as proto;
use livekit_protocol::participant_info::KindDetail;
use livekit_protocol::signal_request::Message as Asked;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use shared::control::{MediaState, NodeToRoom, RefusalReason, SessionQuality, Speaking};
use shared::ids::{Identity, NodeId, RoomName, SessionKey, TrackSid, WorkerId};

use crate::spreading::BERLIN;
use crate::world::{
    Who, World, camera, description, media, microphone, mid_tracks, node_id, placed, session_description,
};

/// Runs of 300 events each.
const RUNS: u64 = 100;
const EVENTS: usize = 300;
/// The other room.
const HALL: &str = "hall";
/// Seeds that found a bug once.
const SEEDS: [u64; 0] = [];

#[test]
fn any_order_of_events_keeps_the_room_consistent() {
    let mut forwarded = 0;
    for seed in SEEDS.into_iter().chain(0..RUNS) {
        println!("seed {seed}"); // shown when the run fails
        let mut hall = World::another_named(HALL);
        hall.join_active(&Who::named("cyd"));
        let (world, rng) = (World::new(), ChaCha8Rng::seed_from_u64(seed));
        let mut chaos = Chaos { world, hall, rng, tracks: Vec::new() };
        for _ in 0..EVENTS {
            if chaos.world.room.is_over() {
                break;
            }
            chaos.one_event();
        }
        forwarded += chaos.check_forwarded();
    }
    assert!(forwarded > 0, "nobody was ever forwarded");
}

struct Chaos {
    world: World,
    /// Another room, that participants are forwarded to.
    hall: World,
    rng: ChaCha8Rng,
    tracks: Vec<TrackSid>,
}

impl Chaos {
    fn below(&mut self, limit: usize) -> usize {
        self.rng.next_u32() as usize % limit.max(1)
    }

    fn one_event(&mut self) {
        match self.below(24) {
            22 | 23 => self.rooms_talk(),
            20 | 21 => self.agents_happen(),
            0 | 1 if self.below(4) == 0 => self.resume(),
            0 | 1 => self.join(),
            2..=8 => self.client_speaks(),
            9..=13 => self.node_speaks(),
            14 => self.link_changes(),
            15 => {
                let node = node_id(self.below(3) as u8);
                self.world.nodes.entry(node.clone()).or_default();
                match self.below(4) {
                    0 => self.world.step(Event::NodeStillThere),
                    1 => {
                        let node = node_id(self.below(3) as u8);
                        self.world.step(Event::NodeLost { node });
                    }
                    2 if self.world.nodes[&node].said_hello && self.world.nodes[&node].linked => {
                        let draining = self.below(3) > 0;
                        self.world.node_says(&node, NodeToRoom::Draining { draining });
                    }
                    3 => self.world.step(Event::NodeNear { place: BERLIN }),
                    _ => {}
                }
                let node = (self.below(3) > 0).then(|| placed(node));
                self.world.step(Event::Placed { node });
            }
            16 => {
                if let Some(client) = self.open_client() {
                    self.world.cut(&client);
                }
            }
            17 if self.below(8) == 0 && !self.world.directory.is_empty() => self.world.restart(),
            17 => self.world.step(Event::Alarm),
            18 => self.app_server_asks(),
            _ => {
                let ms = [10, 700, 3_000, 15_000][self.below(4)];
                self.world.pass(ms);
            }
        }
    }

    fn rooms_talk(&mut self) {
        let identity = ["ada", "bob", "eve", "dan", "old"][self.below(5)].to_owned();
        match self.below(12) {
            0..=2 => drop(self.world.ask(Request::Forward(identity, RoomName::try_from(HALL).unwrap()))),
            3 => {
                let who = proto::RoomParticipantIdentity { identity, ..Default::default() };
                let _ = self.hall.ask(Request::RemoveParticipant(who));
            }
            4 if self.below(4) == 0 => drop(self.hall.try_join(&Who::named(&identity))),
            5 => self.hall.pass(1_000),
            _ => {
                let from_hall = self.below(2) == 0;
                self.deliver(from_hall);
            }
        }
    }

    /// One word reaches the other room. False: there is none.
    fn deliver(&mut self, from_hall: bool) -> bool {
        let (from, to) = if from_hall { (&mut self.hall, &mut self.world) } else { (&mut self.world, &mut self.hall) };
        if from.words.is_empty() {
            return false;
        }
        let (name, word) = from.words.remove(0);
        let participant = word.participant.clone();
        let ends = to.room.is_over();
        let taken = !ends && to.ask(Request::Hear(Box::new(word))).is_ok();
        let heard = if taken {
            Event::WordTaken { to: name, participant }
        } else {
            Event::WordRefused { to: name, participant }
        };
        if !from.room.is_over() {
            from.step(heard);
        }
        true
    }

    /// Who is shown in the other room is in this one, with these tracks. How many.
    fn check_forwarded(&mut self) -> usize {
        while self.deliver(false) || self.deliver(true) {}
        let all = |world: &mut World| match world.ask(Request::ListParticipants) {
            Ok(Answer::Participants(all)) => all,
            other => panic!("{other:?}"),
        };
        let here = if self.world.room.is_over() { Vec::new() } else { all(&mut self.world) };
        let forwarded = i32::from(KindDetail::Forwarded);
        let shown = all(&mut self.hall).into_iter().filter(|info| info.kind_details.contains(&forwarded));
        let shown: Vec<_> = shown.collect();
        for shown in &shown {
            let known = here.iter().find(|info| info.identity == shown.identity);
            let known = known.unwrap_or_else(|| panic!("shown, but not there: {shown:?}"));
            assert_eq!((&shown.tracks, &shown.permission), (&known.tracks, &known.permission));
            assert_eq!((&shown.metadata, shown.state), (&known.metadata, known.state));
        }
        shown.len()
    }

    fn join(&mut self) {
        let names = ["ada", "bob", "eve", "dan", "old"];
        let mut who = Who::named(names[self.below(names.len())]).browser(["Chrome", "Firefox"][self.below(2)]);
        let node = node_id(self.below(3) as u8);
        self.world.fleet = (self.below(5) > 0).then_some(node);
        match self.below(8) {
            0 => who = who.dual(),
            1 => who = who.protocol(9),
            2 => who = who.no_auto_subscribe(),
            3 => who = who.grant(|grant| grant.hidden = true),
            4 => who = who.grant(|grant| grant.agent = true),
            _ => who = who.offering(1),
        }
        if self.world.try_join(&who).is_ok() && self.below(3) > 0 {
            self.world.link_expected();
        }
    }

    /// Anybody who ever was here, in whatever state, asks to go on.
    fn resume(&mut self) {
        let all: Vec<_> = self.world.clients.keys().cloned().collect();
        if all.is_empty() {
            return;
        }
        let before = all[self.below(all.len())].clone();
        let Some(info) = self.world.clients[&before].roster.get(&self.world.clients[&before].sid) else { return };
        let mut who = Who::named(&info.identity.clone()).protocol(self.world.clients[&before].protocol as i32);
        who.single = self.below(4) > 0;
        if self.below(3) == 0 {
            let tracks = [self.any_track(), self.any_track()].map(|track| track.to_string());
            let sync = proto::SyncState { track_sids_disabled: tracks.to_vec(), ..Default::default() };
            who.request.sync_state = Some(sync);
        }
        self.world.resume(&before, &who);
    }

    fn open_client(&mut self) -> Option<ConnectionId> {
        let open: Vec<_> = self.world.clients.iter().filter(|(_, c)| !c.closed).map(|(id, _)| id.clone()).collect();
        (!open.is_empty()).then(|| open[self.below(open.len())].clone())
    }

    fn any_track(&mut self) -> TrackSid {
        let unknown = TrackSid::try_from("TR_AMnobodyknows").unwrap();
        let all = std::mem::take(&mut self.tracks);
        let chosen = if all.is_empty() { unknown } else { all[self.below(all.len())].clone() };
        self.tracks = all;
        chosen
    }

    fn client_speaks(&mut self) {
        let Some(client) = self.open_client() else { return };
        let track = self.any_track();
        let number = self.below(4) as u32;
        let flag = self.below(2) == 0;
        let message = match self.below(12) {
            0..=2 => {
                let cid = format!("cid{number}");
                let request = if number < 2 { microphone(&cid) } else { camera(&cid) };
                self.tracks.extend(self.world.add_track(&client, request));
                return;
            }
            3 => Asked::Offer(session_description("offer", number)),
            4 => Asked::Answer(session_description("answer", number)),
            5 => Asked::Mute(proto::MuteTrackRequest { sid: track.to_string(), muted: flag }),
            6 | 7 => {
                let track_sids = vec![track.to_string()];
                Asked::Subscription(proto::UpdateSubscription { track_sids, subscribe: flag, ..Default::default() })
            }
            8 => {
                let entry = proto::TrackPermission {
                    participant_identity: "bob".into(),
                    all_tracks: true,
                    ..Default::default()
                };
                let track_permissions = vec![entry];
                Asked::SubscriptionPermission(proto::SubscriptionPermission {
                    all_participants: flag,
                    track_permissions,
                })
            }
            9 | 10 => {
                let (track_sids, width, height) = (vec![track.to_string()], 320 * number, 180 * number);
                let settings =
                    proto::UpdateTrackSettings { track_sids, disabled: flag, width, height, ..Default::default() };
                Asked::TrackSetting(settings)
            }
            _ if number == 0 => Asked::Leave(proto::LeaveRequest::default()),
            _ => Asked::Ping(1),
        };
        self.world.say(&client, message);
    }

    fn app_server_asks(&mut self) {
        let identity = ["ada", "bob", "eve", "dan", "old", "nobody"][self.below(6)].to_owned();
        let (flag, track_sid) = (self.below(2) == 0, self.any_track().to_string());
        let request = match self.below(28) {
            24 | 25 => {
                let agent_name = ["", "scribe", "helper"][self.below(3)].to_owned();
                let restart_policy = self.below(2) as i32;
                let request = proto::CreateAgentDispatchRequest { agent_name, restart_policy, ..Default::default() };
                Request::CreateDispatch(Box::new(request))
            }
            26 => match self.world.ask(Request::ListDispatch(String::new())) {
                Ok(Answer::Dispatches(all)) if !all.is_empty() => {
                    Request::DeleteDispatch(all[self.below(all.len())].id.clone())
                }
                _ => Request::DeleteDispatch("AD_nobodyknows".into()),
            },
            27 => Request::ListDispatch(String::new()),
            0 => Request::RemoveParticipant(proto::RoomParticipantIdentity { identity, ..Default::default() }),
            1..=3 => Request::MuteTrack(proto::MuteRoomTrackRequest {
                identity,
                track_sid,
                muted: flag,
                ..Default::default()
            }),
            4..=9 => {
                let permission = proto::ParticipantPermission {
                    can_publish: self.below(2) == 0,
                    can_subscribe: self.below(3) > 0,
                    hidden: self.below(4) == 0,
                    can_publish_sources: if flag { vec![proto::TrackSource::Camera.into()] } else { Vec::new() },
                    ..Default::default()
                };
                let permission = Some(permission);
                let request = proto::UpdateParticipantRequest { identity, permission, ..Default::default() };
                Request::UpdateParticipant(Box::new(request))
            }
            10 => Request::UpdateMetadata(track_sid),
            11 => Request::Create(Box::default()),
            12 | 13 => Request::UpdateSubscriptions(proto::UpdateSubscriptionsRequest {
                identity,
                track_sids: vec![track_sid],
                subscribe: flag,
                ..Default::default()
            }),
            14 if self.below(8) == 0 => Request::Delete,
            15 => Request::GetParticipant(identity),
            16 => Request::SendData(proto::SendDataRequest::default()),
            _ => Request::ListParticipants,
        };
        // Whatever the answer, there is one.
        let _ = self.world.ask(request);
    }

    /// The agents' object hears the room's wishes, or says how one of its jobs stands.
    fn agents_happen(&mut self) {
        let kinds = [JobKind::Room, JobKind::Publisher, JobKind::Participant];
        let served = [("", kinds[self.below(3)]), ("scribe", kinds[self.below(3)]), ("helper", kinds[self.below(3)])];
        if self.below(2) == 0 {
            let known = self.below(4);
            self.world.grant(&served[..known]);
            return;
        }
        let Ok(Answer::Dispatches(all)) = self.world.ask(Request::ListDispatch(String::new())) else { return };
        let jobs: Vec<_> = all.into_iter().flat_map(|dispatch| dispatch.state.unwrap().jobs).collect();
        if jobs.is_empty() {
            return;
        }
        let job = jobs[self.below(jobs.len())].id.clone();
        let names = ["ada", "bob", "agent"];
        let standing = match self.below(5) {
            0 => Standing::Waiting,
            1 => Standing::Ended(Ending::success()),
            2 => Standing::Ended(Ending { error: Some("broke".into()), retry: self.below(2) == 0 }),
            _ => Standing::Running {
                worker: WorkerId::from_random([1; 12]),
                identity: Identity::try_from(names[self.below(3)]).unwrap(),
            },
        };
        self.world.job_stands(&job, standing);
    }

    fn node_speaks(&mut self) {
        let sessions: Vec<(NodeId, SessionKey)> = (self.world.nodes.iter())
            .filter(|(_, node)| node.linked && node.said_hello)
            .flat_map(|(id, node)| node.sessions.keys().map(move |key| (id.clone(), key.clone())))
            .collect();
        if sessions.is_empty() {
            return;
        }
        let (node, session) = sessions[self.below(sessions.len())].clone();
        let own: Vec<_> = self.world.nodes[&node].sessions[&session].tracks.iter().cloned().collect();
        let track = if own.is_empty() { self.any_track() } else { own[self.below(own.len())].clone() };
        let id = self.below(4) as u32;
        let message = match self.below(14) {
            0..=2 => NodeToRoom::MediaState { session, state: MediaState::Connected, srtp: None },
            3 => NodeToRoom::MediaState { session, state: MediaState::Disconnected, srtp: None },
            4 if id == 0 => {
                self.world.nodes.get_mut(&node).unwrap().close(&session);
                NodeToRoom::MediaState { session, state: MediaState::Failed, srtp: None }
            }
            4..=7 => NodeToRoom::TrackReceived { session, track, media: media("7", id) },
            8 => NodeToRoom::TrackEnded { session, track },
            9 => NodeToRoom::TrackBound { session, track },
            13 => {
                let quality = SessionQuality { session: session.clone(), score: (id > 0).then_some(id as u8 * 33) };
                NodeToRoom::ConnectionQuality { changed: vec![quality], same: vec![], newcomers: vec![session] }
            }
            12 => NodeToRoom::Speakers { speakers: vec![Speaking { session, step: id as u8 }], newcomers: vec![] },
            10 if id == 0 => {
                // It never was: what others are served of its tracks goes on where it opens.
                self.world.nodes.get_mut(&node).unwrap().sessions.remove(&session);
                let reason =
                    [RefusalReason::BadToken, RefusalReason::NoCapacity, RefusalReason::Draining][self.below(3)];
                NodeToRoom::SessionRefused { session: Some(session), reason, detail: String::new() }
            }
            10 => {
                let description = description(shared::control::DescriptionKind::Offer, id);
                NodeToRoom::Offer { session, description, mid_to_track: mid_tracks(&[]) }
            }
            _ => {
                let description = description(shared::control::DescriptionKind::Answer, id);
                NodeToRoom::Answer { session, description, mid_to_track: mid_tracks(&[("0", &track)]) }
            }
        };
        self.world.node_says(&node, message);
    }

    fn link_changes(&mut self) {
        let node = node_id(self.below(3) as u8);
        let state = self.world.nodes.entry(node.clone()).or_default();
        let (linked, said_hello) = (state.linked, state.said_hello);
        match (linked, self.below(3)) {
            (true, _) if !said_hello => self.world.hello(&node),
            (true, 0) => self.world.kill(&node),
            (true, 1) => self.world.unlink(&node),
            (_, 2) => self.world.dial(&node),
            _ => self.world.link(&node),
        }
    }
}
