//! A participant of one room is shown in another too, with its tracks.

use edge_signal::room::event::{ConnectionId, Event};
use edge_signal::room::forward::MAX_DESTINATIONS;
use edge_signal::room::service::{Answer, Code, Error, Request};
use livekit_protocol as proto;
use livekit_protocol::participant_info::KindDetail;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, RoomParticipantIdentity};
use shared::control::{MediaState, NodeToRoom, PipeKey, SessionQuality, Speaking};
use shared::ids::{ParticipantSid, RoomName, SessionKey, TrackSid};

use crate::piping::{end, stream};
use crate::virtual_node::VirtualPipe;
use crate::world::{Who, World, camera, node_id, placed, session_description};

/// Ada, who shows a camera, is in a room with Bob; Cyd is in another one, on a node of its own.
struct Rooms {
    source: World,
    hall: World,
    ada: ConnectionId,
    bob: ConnectionId,
    cyd: ConnectionId,
    camera: TrackSid,
}

fn hall() -> RoomName {
    RoomName::try_from("hall").unwrap()
}

/// Carries what the rooms tell each other, until they have nothing more to tell; the last refusal.
fn carry(rooms: [&mut World; 2]) -> Option<Error> {
    let [source, hall] = rooms;
    let mut refused = None;
    for _ in 0..100 {
        let from_source = !source.words.is_empty();
        let (from, to) = if from_source { (&mut *source, &mut *hall) } else { (&mut *hall, &mut *source) };
        if from.words.is_empty() {
            return refused;
        }
        let (name, word) = from.words.remove(0);
        assert_eq!(name, if from_source { self::hall() } else { RoomName::try_from("r").unwrap() });
        // As it crosses between objects.
        let request: Request =
            serde_json::from_str(&serde_json::to_string(&Request::Hear(Box::new(word.clone()))).unwrap()).unwrap();
        let participant = word.participant.clone();
        match to.ask(request) {
            Ok(answer) => {
                assert_eq!(answer, Answer::Done);
                from.step(Event::WordTaken { to: name, participant });
            }
            Err(error) => {
                refused = Some(error);
                from.step(Event::WordRefused { to: name, participant });
            }
        }
    }
    panic!("they never stop telling each other");
}

impl Rooms {
    fn new() -> Self {
        let (mut source, mut hall) = (World::new(), World::another_named("hall"));
        let [ada, bob] = ["ada", "bob"].map(|name| {
            source.join_active(
                &Who::named(name).browser("Chrome").grant(|grant| grant.can_update_own_metadata = Some(true)),
            )
        });
        let camera = source.add_track(&ada, camera("c")).unwrap();
        source.receive_track(&ada, &camera);
        let cyd = hall.join_active(&Who::named("cyd"));
        Self { source, hall, ada, bob, cyd, camera }
    }

    fn forwarded() -> Self {
        let mut rooms = Self::new();
        assert_eq!(rooms.forward("ada"), Ok(Answer::Done));
        rooms
    }

    fn forward(&mut self, identity: &str) -> Result<Answer, Error> {
        match self.source.ask(Request::Forward(identity.into(), hall()))? {
            Answer::Forward(_) => self.carry().map_or(Ok(Answer::Done), Err),
            answer => Ok(answer),
        }
    }

    fn carry(&mut self) -> Option<Error> {
        carry([&mut self.source, &mut self.hall])
    }

    fn shown(&mut self) -> Option<proto::ParticipantInfo> {
        match self.hall.ask(Request::GetParticipant("ada".into())) {
            Ok(Answer::Participant(info)) => Some(*info),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.code, Code::NotFound);
                None
            }
        }
    }

    /// The pipe between the rooms: its end in the source, and that in the hall.
    fn pipe(&self) -> Option<(PipeKey, [VirtualPipe; 2])> {
        let ends = [&self.source, &self.hall].map(|world| {
            world
                .nodes
                .values()
                .flat_map(|node| node.pipes.clone())
                .filter(|(_, pipe)| pipe.tracks_only)
                .collect::<Vec<_>>()
        });
        assert_eq!(ends[0].len(), ends[1].len(), "{ends:?}");
        let [[(key, source)], [(other, hall)]] = [&ends[0][..], &ends[1][..]] else { return None };
        assert_eq!(key, other);
        Some((*key, [source.clone(), hall.clone()]))
    }

    /// Both nodes have opened their ends, and the source's says how the track goes in.
    fn connect(&mut self, at: u8) -> PipeKey {
        let (pipe, _) = self.pipe().unwrap();
        self.hall.node_says(&node_id(1), NodeToRoom::PipeOpened { pipe, end: end(1) });
        self.source.node_says(&node_id(at), NodeToRoom::PipeOpened { pipe, end: end(2) });
        let streams = vec![stream(&self.camera), stream(&TrackSid::try_from("TR_VCnobodys").unwrap())];
        self.source.node_says(&node_id(at), NodeToRoom::PipeFilled { pipe, streams });
        self.carry();
        pipe
    }

    fn assert_connected(&self) {
        let (_, [source, hall]) = self.pipe().unwrap();
        assert_eq!([&source, &hall].map(|end| end.connected.as_ref().map(|end| end.number)), [Some(1), Some(2)]);
        assert_eq!(source.filled.iter().map(|track| &track.track).collect::<Vec<_>>(), [&self.camera]);
        assert_eq!(hall.drawn, [stream(&self.camera)], "and nobody else's");
    }

    fn assert_over(&mut self) {
        assert!(self.pipe().is_none() && self.shown().is_none());
        assert!(self.hall.served(&self.cyd).is_empty());
        let cyd = self.cyd.clone();
        assert!(self.hall.client(&cyd).roster.values().all(|info| info.identity != "ada"));
    }
}

#[test]
fn it_is_in_both_rooms() {
    let mut rooms = Rooms::new();
    rooms.hall.app_server.news();
    assert_eq!(rooms.forward("ada"), Ok(Answer::Done));
    let Ok(Answer::Participant(here)) = rooms.source.ask(Request::GetParticipant("ada".into())) else { panic!("gone") };
    let there = rooms.shown().unwrap();
    assert_ne!(there.sid, here.sid);
    assert_eq!((&there.tracks, there.state, &there.permission), (&here.tracks, here.state, &here.permission));
    assert_eq!(there.kind_details, [i32::from(KindDetail::Forwarded)]);
    assert!(here.kind_details.is_empty());
    assert_eq!(rooms.hall.app_server.news(), ["participant_joined", "track_published"]);
    assert_eq!(rooms.hall.served(&rooms.cyd), std::slice::from_ref(&rooms.camera));
    assert_eq!(rooms.source.served(&rooms.bob), std::slice::from_ref(&rooms.camera), "as before");
    assert_eq!(rooms.hall.directory.last().unwrap().as_ref().unwrap().participants, 2);
    assert_eq!(rooms.forward("ada"), Ok(Answer::Done), "asked again");
    assert!(rooms.source.words.is_empty() && rooms.hall.words.is_empty());
}

#[test]
fn a_pipe_carries_what_is_wanted_there_and_no_data() {
    let mut rooms = Rooms::forwarded();
    let (_, [source, hall]) = rooms.pipe().unwrap();
    assert!(source.dials && !hall.dials && source.tracks_only && hall.tracks_only);
    rooms.connect(1);
    rooms.assert_connected();

    // As far as somebody there wants it, in both rooms' places.
    let (cyd, camera) = (rooms.cyd.clone(), rooms.camera.clone());
    let show = |disabled: bool| {
        let track_sids = vec![camera.to_string()];
        Asked::TrackSetting(proto::UpdateTrackSettings {
            track_sids,
            width: 320,
            height: 180,
            disabled,
            ..Default::default()
        })
    };
    rooms.hall.say(&cyd, show(false));
    rooms.carry();
    assert_eq!(rooms.pipe().unwrap().1[0].filled[0].max_layer, Some(0));
    rooms.hall.say(&cyd, show(true));
    rooms.carry();
    assert!(rooms.pipe().unwrap().1[0].filled.is_empty(), "nobody watches");
    let unsubscribe = proto::UpdateSubscription { track_sids: vec![camera.to_string()], ..Default::default() };
    rooms.hall.say(&cyd, Asked::Subscription(unsubscribe));
    rooms.carry();
    assert!(rooms.pipe().is_none(), "nobody is served it");
}

#[test]
fn who_speaks_and_how_it_fares_is_told_in_the_other_room_too() {
    let mut rooms = Rooms::new();
    let node = node_id(1);
    let (_, session) = rooms.source.session_of(&rooms.ada.clone());
    let speakers = |step| vec![Speaking { session: session.clone(), step }];
    let speaks = |step| NodeToRoom::Speakers { speakers: speakers(step), newcomers: Vec::new() };
    let fares = |score, newcomers| NodeToRoom::ConnectionQuality {
        changed: vec![SessionQuality { session: session.clone(), score }],
        same: Vec::new(),
        newcomers,
    };
    rooms.source.node_says(&node, speaks(4));
    rooms.source.node_says(&node, fares(Some(90), Vec::new()));
    assert!(rooms.source.words.is_empty(), "it is shown nowhere else");
    rooms.forward("ada").unwrap();
    assert!(rooms.source.nodes[&node].told_newcomers.contains(&session), "how it fares is asked once it is shown");
    let there = rooms.shown().unwrap().sid;

    rooms.hall.look_away();
    rooms.source.node_says(&node, speaks(8));
    rooms.source.node_says(&node, fares(Some(30), Vec::new()));
    rooms.carry();
    let cyd = rooms.cyd.clone();
    let heard = |inbox: &[Message]| {
        let mut heard = Vec::new();
        for message in inbox {
            match message {
                Message::SpeakersChanged(told) => {
                    heard.extend(told.speakers.iter().map(|one| (one.sid.clone(), format!("{}", one.level))));
                }
                Message::ConnectionQuality(told) => heard.extend(
                    told.updates
                        .iter()
                        .map(|one| (one.participant_sid.clone(), one.quality().as_str_name().to_owned())),
                ),
                _ => {}
            }
        }
        heard
    };
    let inbox = rooms.hall.inbox(&cyd);
    assert_eq!(heard(&inbox), [(there.clone(), "1".to_owned()), (there.clone(), "POOR".to_owned())]);
    // As the node answers when it is asked of one who is shown elsewhere from now on; other newcomers are of this room.
    let present = |newcomers| NodeToRoom::Speakers { speakers: speakers(4), newcomers };
    rooms.source.node_says(&node, present(vec![session.clone()]));
    rooms.carry();
    assert_eq!(heard(&rooms.hall.inbox(&cyd)), [(there.clone(), "0.5".to_owned())]);
    let stranger = SessionKey { participant: ParticipantSid::try_from("PA_stranger0001").unwrap(), ..session.clone() };
    rooms.source.node_says(&node, present(vec![stranger]));
    assert!(rooms.source.words.is_empty());

    // The same again is no news elsewhere.
    rooms.source.node_says(&node, fares(Some(30), Vec::new()));
    assert!(rooms.source.words.is_empty());
    rooms.source.node_says(&node, speaks(0));
    rooms.carry();
    assert!(heard(&rooms.hall.inbox(&cyd)).contains(&(there.clone(), "0".to_owned())));

    // Who comes later hears of it from its own room.
    let dan = rooms.hall.join_active(&Who::named("dan"));
    rooms.carry();
    let (at, dans) = rooms.hall.session_of(&dan);
    let newcomer = NodeToRoom::ConnectionQuality { changed: Vec::new(), same: Vec::new(), newcomers: vec![dans] };
    rooms.hall.node_says(&at, newcomer);
    assert!(heard(&rooms.hall.inbox(&dan)).contains(&(there, "POOR".to_owned())));

    // A word that comes when it is there no more does no harm.
    rooms.source.node_says(&node, speaks(5));
    let remove = RoomParticipantIdentity { room: "hall".into(), identity: "ada".into(), ..Default::default() };
    rooms.hall.ask(Request::RemoveParticipant(remove)).unwrap();
    assert_eq!(rooms.carry(), None);
    assert!(rooms.shown().is_none());
}

#[test]
fn its_publisher_sends_what_is_wanted_elsewhere() {
    let mut rooms = Rooms::new();
    let (ada, bob, camera) = (rooms.ada.clone(), rooms.bob.clone(), rooms.camera.clone());
    let off = proto::UpdateTrackSettings { track_sids: vec![camera.to_string()], disabled: true, ..Default::default() };
    rooms.source.say(&bob, Asked::TrackSetting(off));
    rooms.source.pass(60_000);
    let qualities = |rooms: &mut Rooms| {
        let mut told = rooms.source.inbox(&ada).into_iter().filter_map(|message| match message {
            Message::SubscribedQualityUpdate(update) => Some(update),
            _ => None,
        });
        let last = told.next_back()?;
        Some(last.subscribed_codecs[0].qualities.iter().filter(|quality| quality.enabled).count())
    };
    rooms.source.inbox(&ada);
    rooms.forward("ada").unwrap();
    assert_eq!(qualities(&mut rooms), Some(3));
    rooms.source.pass(60_000);
    assert_eq!(qualities(&mut rooms), None, "it is wanted still");
    let remove = RoomParticipantIdentity { identity: "ada".into(), ..Default::default() };
    rooms.hall.ask(Request::RemoveParticipant(remove)).unwrap();
    rooms.carry();
    rooms.source.pass(60_000);
    assert_eq!(qualities(&mut rooms), Some(0));
}

#[test]
fn what_changes_in_its_room_changes_there() {
    let mut rooms = Rooms::forwarded();
    let (ada, cyd) = (rooms.ada.clone(), rooms.cyd.clone());
    let sid = rooms.shown().unwrap().sid;
    let update = proto::UpdateParticipantRequest {
        identity: "ada".into(),
        name: "Ada L".into(),
        metadata: "poet".into(),
        ..Default::default()
    };
    rooms.source.ask(Request::UpdateParticipant(Box::new(update))).unwrap();
    rooms.source.say(&ada, Asked::Mute(proto::MuteTrackRequest { sid: rooms.camera.to_string(), muted: true }));
    let microphone = rooms.source.publish(&ada, "m");
    rooms.carry();
    let seen = rooms.hall.client(&cyd).roster[&sid].clone();
    assert_eq!((seen.name.as_str(), seen.metadata.as_str()), ("Ada L", "poet"));
    assert_eq!(
        seen.tracks.iter().map(|track| (track.sid.as_str(), track.muted)).collect::<Vec<_>>(),
        [(rooms.camera.as_str(), true), (microphone.as_str(), false)]
    );
    assert_eq!(rooms.hall.served(&cyd).len(), 2);

    let permission = proto::ParticipantPermission { can_subscribe: true, ..Default::default() };
    let forbid =
        proto::UpdateParticipantRequest { identity: "ada".into(), permission: Some(permission), ..Default::default() };
    rooms.source.ask(Request::UpdateParticipant(Box::new(forbid))).unwrap();
    rooms.carry();
    assert!(rooms.hall.served(&cyd).is_empty() && rooms.shown().unwrap().tracks.is_empty());
    assert!(!rooms.shown().unwrap().permission.unwrap().can_publish);
}

#[test]
fn it_ends_when_it_leaves_its_room() {
    let mut rooms = Rooms::forwarded();
    rooms.connect(1);
    rooms.source.say(&rooms.ada.clone(), Asked::Leave(proto::LeaveRequest::default()));
    rooms.carry();
    rooms.assert_over();
    assert_eq!(rooms.hall.left.last().unwrap().1, DisconnectReason::ClientInitiated);
    assert_eq!(
        rooms.hall.app_server.news().into_iter().rev().take(2).collect::<Vec<_>>(),
        ["participant_left", "track_unpublished"]
    );
}

#[test]
fn it_ends_with_its_room() {
    let mut rooms = Rooms::forwarded();
    rooms.source.ask(Request::Delete).unwrap();
    let (to, word) = rooms.source.words.pop().unwrap();
    assert_eq!(to, hall());
    rooms.hall.ask(Request::Hear(Box::new(word))).unwrap();
    assert!(rooms.shown().is_none());
}

#[test]
fn it_ends_when_it_is_removed_there_and_may_be_forwarded_again() {
    let mut rooms = Rooms::forwarded();
    rooms.connect(1);
    let remove = RoomParticipantIdentity { identity: "ada".into(), ..Default::default() };
    rooms.hall.ask(Request::RemoveParticipant(remove)).unwrap();
    assert!(rooms.hall.revoked.is_empty(), "she may join there herself");
    rooms.carry();
    rooms.assert_over();
    let ada = rooms.ada.clone();
    assert!(!rooms.source.client(&ada).closed, "she is where she was");
    assert_eq!(rooms.forward("ada"), Ok(Answer::Done));
    assert!(rooms.shown().is_some() && rooms.pipe().is_some());
}

#[test]
fn it_ends_when_the_other_room_does() {
    let mut rooms = Rooms::forwarded();
    rooms.hall.ask(Request::Delete).unwrap();
    let words = std::mem::take(&mut rooms.hall.words);
    assert_eq!(words.len(), 1);
    for (_, word) in words {
        rooms.source.ask(Request::Hear(Box::new(word))).unwrap();
    }
    assert!(rooms.source.nodes[&node_id(1)].pipes.is_empty());
    // A room of this name that is made anew has nothing of it.
    rooms.hall = World::another_named("hall");
    let ada = rooms.ada.clone();
    rooms.source.say(&ada, Asked::Mute(proto::MuteTrackRequest { sid: rooms.camera.to_string(), muted: true }));
    assert!(rooms.source.words.is_empty());
}

#[test]
fn who_joins_there_under_the_same_name_takes_its_place() {
    let mut rooms = Rooms::forwarded();
    rooms.hall.join_active(&Who::named("ada"));
    rooms.carry();
    assert!(rooms.pipe().is_none());
    assert!(rooms.shown().unwrap().kind_details.is_empty());
    let refused = rooms.forward("ada").unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition);
    assert!(refused.text.contains("identity"), "{refused:?}");
    let update = proto::UpdateParticipantRequest { identity: "ada".into(), name: "x".into(), ..Default::default() };
    rooms.source.ask(Request::UpdateParticipant(Box::new(update))).unwrap();
    assert!(rooms.source.words.is_empty(), "nothing is left of what was refused");
}

#[test]
fn what_cannot_be_is_refused() {
    let mut rooms = Rooms::new();
    assert_eq!(rooms.forward("eve").unwrap_err().code, Code::NotFound);
    let full = proto::CreateRoomRequest { max_participants: 1, ..Default::default() };
    rooms.hall = World::another_named("hall");
    rooms.hall.ask(Request::Create(Box::new(full))).unwrap();
    rooms.hall.join_active(&Who::named("cyd"));
    let refused = rooms.forward("ada").unwrap_err();
    assert_eq!((refused.code, refused.text.as_str()), (Code::FailedPrecondition, "room is full"));
    for number in 0..MAX_DESTINATIONS {
        let to = RoomName::try_from(format!("hall {number}")).unwrap();
        assert!(matches!(rooms.source.ask(Request::Forward("ada".into(), to)), Ok(Answer::Forward(_))));
    }
    assert_eq!(rooms.forward("ada").unwrap_err().code, Code::ResourceExhausted);
}

#[test]
fn who_is_forwarded_is_asked_for_in_its_own_room() {
    let mut rooms = Rooms::forwarded();
    let identity = || "ada".to_owned();
    let mute = proto::MuteRoomTrackRequest {
        identity: identity(),
        track_sid: rooms.camera.to_string(),
        muted: true,
        ..Default::default()
    };
    let update = proto::UpdateParticipantRequest { identity: identity(), name: "x".into(), ..Default::default() };
    let call = proto::PerformRpcRequest { destination_identity: identity(), method: "m".into(), ..Default::default() };
    let elsewhere = RoomName::try_from("elsewhere").unwrap();
    for request in [
        Request::MuteTrack(mute),
        Request::UpdateParticipant(Box::new(update)),
        Request::PerformRpc(Box::new(call)),
        Request::Transfer(identity(), elsewhere.clone()),
        Request::Forward(identity(), elsewhere),
    ] {
        assert_eq!(rooms.hall.ask(request.clone()).unwrap_err().code, Code::FailedPrecondition, "{request:?}");
    }
    // Nobody comes back as one who was never there.
    let client = rooms.source.clients[&rooms.ada].resuming();
    let again = rooms.hall.resume_as(client, &Who::named("ada"));
    assert!(rooms.hall.client(&again).closed);
    assert!(rooms.shown().is_some());
}

#[test]
fn words_that_come_late_or_twice_change_nothing() {
    let mut rooms = Rooms::forwarded();
    let rename = |rooms: &mut Rooms, name: &str| {
        let update =
            proto::UpdateParticipantRequest { identity: "ada".into(), name: name.into(), ..Default::default() };
        rooms.source.ask(Request::UpdateParticipant(Box::new(update))).unwrap();
        rooms.source.words.pop().unwrap().1
    };
    let (first, second) = (rename(&mut rooms, "one"), rename(&mut rooms, "two"));
    for word in [second, first] {
        rooms.hall.ask(Request::Hear(Box::new(word))).unwrap();
        assert_eq!(rooms.shown().unwrap().name, "two");
    }
}

#[test]
fn it_is_there_as_long_as_it_is_here_though_nobody_else_is() {
    let mut rooms = Rooms::forwarded();
    rooms.hall.say(&rooms.cyd.clone(), Asked::Leave(proto::LeaveRequest::default()));
    rooms.carry();
    rooms.source.pass(3_600_000);
    rooms.hall.pass(3_600_000);
    assert!(rooms.shown().is_some() && rooms.pipe().is_none());
}

#[test]
fn a_pipe_follows_it_to_another_node() {
    let mut rooms = Rooms::forwarded();
    let before = rooms.connect(1);
    rooms.source.kill(&node_id(1));
    rooms.source.step(Event::NodeLost { node: node_id(1) });
    rooms.source.step(Event::Placed { node: Some(placed(node_id(2))) });
    rooms.source.link(&node_id(2));
    rooms.source.say(&rooms.ada.clone(), Asked::Offer(session_description("offer", 7)));
    rooms.source.media(&rooms.ada.clone(), MediaState::Connected);
    rooms.source.receive_track(&rooms.ada.clone(), &rooms.camera);
    rooms.carry();
    let after = rooms.connect(2);
    assert_ne!(after, before);
    rooms.assert_connected();
}

#[test]
fn a_pipe_that_fails_is_opened_anew() {
    let mut rooms = Rooms::forwarded();
    let first = rooms.connect(1);
    // At the end where it comes out.
    rooms.hall.nodes.get_mut(&node_id(1)).unwrap().pipes.clear();
    rooms.hall.node_says(&node_id(1), NodeToRoom::PipeState { pipe: first, state: MediaState::Failed });
    rooms.carry();
    assert!(rooms.pipe().is_none());
    rooms.hall.pass(2_000);
    rooms.carry();
    let second = rooms.connect(1);
    assert_ne!(second, first);
    rooms.assert_connected();
    // And where it goes in.
    rooms.source.nodes.get_mut(&node_id(1)).unwrap().pipes.clear();
    rooms.source.node_says(&node_id(1), NodeToRoom::PipeState { pipe: second, state: MediaState::Failed });
    rooms.carry();
    assert_ne!(rooms.connect(1), second);
    rooms.assert_connected();
}

#[test]
fn nodes_that_come_back_hear_what_they_missed() {
    let mut rooms = Rooms::forwarded();
    let pipe = rooms.connect(1);
    for source in [true, false] {
        let world = if source { &mut rooms.source } else { &mut rooms.hall };
        world.unlink(&node_id(1));
        let forgets = world.nodes.get_mut(&node_id(1)).unwrap().pipes.get_mut(&pipe).unwrap();
        *forgets = VirtualPipe { dials: forgets.dials, tracks_only: true, ..VirtualPipe::default() };
        world.link(&node_id(1));
        rooms.assert_connected();
    }
    rooms.carry();
    assert_eq!(rooms.pipe().unwrap().0, pipe);
    for source in [true, false] {
        let before = rooms.pipe().unwrap().0;
        let world = if source { &mut rooms.source } else { &mut rooms.hall };
        world.unlink(&node_id(1));
        world.nodes.get_mut(&node_id(1)).unwrap().pipes.clear();
        world.link(&node_id(1));
        rooms.carry();
        assert_ne!(rooms.connect(1), before, "the node has lost it");
        rooms.assert_connected();
    }
}
