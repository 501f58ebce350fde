//! Pipes: what one node puts in, another one takes out, by way of what the room passes on.

use shared::control::{PipedLayer, PipedStream, PipedTrack};

use super::*;
use crate::media::api::{DataRole, Receiver, Sender, SsrcPair};

/// Passes what `from` says of its end of the pipe on to `to`, as a room does.
fn pass_on(effects: Effects, to: &mut Hall, pipe: PipeKey) -> Effects {
    let room = to.room.clone();
    for (_, message) in effects.messages {
        match message {
            NodeToRoom::PipeOpened { end, .. } => to.conference.handle(&room, RoomToNode::ConnectPipe { pipe, end }),
            NodeToRoom::PipeFilled { streams, .. } => {
                to.conference.handle(&room, RoomToNode::DrawPipe { pipe, streams });
            }
            _ => {}
        }
    }
    to.conference.flush()
}

fn stream() -> PipedStream {
    PipedStream {
        track: TrackSid::try_from("TR_VCcam").unwrap(),
        kind: TrackKind::Video,
        backup: false,
        payload_types: Vec::new(),
        layers: vec![PipedLayer { rid: String::new(), ssrc: 5, rtx_ssrc: 6 }],
    }
}

/// The last complete set of senders and of receivers of a transport.
fn last_sets(effects: &Effects) -> (Option<Vec<Sender>>, Option<Vec<Receiver>>) {
    let commands = || effects.commands.iter().rev().map(|(_, command)| command);
    let senders = commands().find_map(|c| if let Command::SetSenders(_, set) = c { Some(set.clone()) } else { None });
    let receivers =
        commands().find_map(|c| if let Command::SetReceivers(_, set) = c { Some(set.clone()) } else { None });
    (senders, receivers)
}

#[test]
fn a_track_goes_through_a_pipe_in_the_layers_that_are_wanted_there() {
    let pipe = PipeKey(7);
    let (mut here, mut there) = (Hall::new(10), Hall::new(10));
    here.open("ada", 1, PUBLISH).unwrap();
    here.conference.flush();
    let announced = here.announce_camera("ada");
    let camera = last_sets(&announced).1.unwrap()[0].clone();
    there.open("bob", 1, JOIN).unwrap();
    there.conference.flush();
    there.subscribe("bob", "ada");
    let offer = Description { kind: DescriptionKind::Offer, id: 2, sdp: JOIN.to_owned() };
    let served = there.tell(RoomToNode::Offer { session: key("bob", 1), description: offer });
    let viewer = last_sets(&served).0.unwrap()[0].clone();

    let answers = here.tell(RoomToNode::OpenPipe { pipe, dials: false, tracks_only: false });
    let dials = there.tell(RoomToNode::OpenPipe { pipe, dials: true, tracks_only: false });
    let has_config = |effects: &Effects| {
        let is_pipe = |c: &Command| matches!(c, Command::Open(config) if config.data == DataRole::Pipe);
        effects.commands.iter().any(|(_, command)| is_pipe(command))
    };
    assert!(has_config(&answers) && has_config(&dials));
    let connected = pass_on(answers, &mut there, pipe);
    let Some((_, Command::ConnectPipe(_, peer))) = connected.commands.last() else { panic!("{connected:?}") };
    assert_eq!((peer.addresses[0].port(), peer.fingerprint), (7900, Fingerprint([0xAB; 32])));
    pass_on(dials, &mut here, pipe);

    let track = TrackSid::try_from("TR_VCcam").unwrap();
    let fill = |max_layer| RoomToNode::FillPipe {
        pipe,
        tracks: vec![PipedTrack { publisher: participant("ada"), track: track.clone(), max_layer }],
    };
    let filled = here.tell(fill(Some(1)));
    let senders = last_sets(&filled).0.unwrap();
    assert_eq!(senders.len(), 3, "a sender for each layer");
    assert!(senders.iter().all(|sender| sender.source == camera.track));
    assert_eq!(
        senders.iter().map(|s| (s.only, s.delivery.paused)).collect::<Vec<_>>(),
        [(Some(0), false), (Some(1), false), (Some(2), true)]
    );
    let drawn = pass_on(filled, &mut there, pipe);
    let out = last_sets(&drawn).1.unwrap()[0].clone();
    assert_eq!(out.track, viewer.source, "what comes out is what the viewer is served");
    assert_eq!(out.rids, camera.rids);
    let numbers = |pair: &SsrcPair| (pair.ssrc, pair.rtx);
    assert_eq!(
        out.ssrcs.iter().map(numbers).collect::<Vec<_>>(),
        senders.iter().map(|sender| (sender.ssrc, sender.rtx_ssrc)).collect::<Vec<_>>()
    );
    assert_eq!(out.payload_types, senders[0].payload_types);
    assert!(out.payload_types.iter().all(|pt| pt.nack && pt.pli && pt.rtx_pt.is_some()));

    let more = here.tell(fill(None));
    let again = last_sets(&more).0.unwrap();
    assert!(again.iter().all(|sender| !sender.delivery.paused));
    assert_eq!(again.iter().map(|s| s.ssrc).collect::<Vec<_>>(), senders.iter().map(|s| s.ssrc).collect::<Vec<_>>());
    assert!(pass_on(more, &mut there, pipe).commands.is_empty(), "nothing is to be described anew");

    let none = here.tell(RoomToNode::FillPipe { pipe, tracks: Vec::new() });
    assert_eq!(last_sets(&none).0, Some(Vec::new()));
    let none = pass_on(none, &mut there, pipe);
    assert_eq!(last_sets(&none).1, Some(Vec::new()));
    let wanted_again = here.tell(fill(None));
    let fresh = last_sets(&wanted_again).0.unwrap();
    assert!(fresh.iter().all(|f| senders.iter().all(|s| s.ssrc != f.ssrc)), "numbers of before would be used again");
}

#[test]
fn a_pipe_takes_only_what_a_session_here_sends() {
    let pipe = PipeKey(1);
    let mut hall = Hall::new(10);
    hall.open("bob", 1, JOIN).unwrap();
    hall.conference.flush();
    hall.tell(RoomToNode::OpenPipe { pipe, dials: false, tracks_only: false });
    let stream = stream();
    hall.tell(RoomToNode::DrawPipe { pipe, streams: vec![stream] });
    assert_eq!(hall.conference.track_count(), 1);
    let other = PipeKey(2);
    hall.tell(RoomToNode::OpenPipe { pipe: other, dials: false, tracks_only: false });
    let track = TrackSid::try_from("TR_VCcam").unwrap();
    let tracks = vec![PipedTrack { publisher: participant("ada"), track, max_layer: None }];
    let filled = hall.tell(RoomToNode::FillPipe { pipe: other, tracks });
    assert!(last_sets(&filled).0.is_none_or(|senders| senders.is_empty()), "it came out of another pipe");

    hall.tell(RoomToNode::DrawPipe { pipe, streams: Vec::new() });
    assert_eq!(hall.conference.track_count(), 0, "nobody needs its key any more");
}

#[test]
fn a_pipe_ends_with_its_room_and_says_when_it_fails() {
    let mut hall = Hall::new(10);
    let refused = hall.tell(RoomToNode::OpenPipe { pipe: PipeKey(1), dials: true, tracks_only: false });
    assert!(
        matches!(&refused.messages[..], [(_, NodeToRoom::PipeState { state: MediaState::Failed, .. })]),
        "nobody of the room is here: {refused:?}"
    );
    hall.open("bob", 1, JOIN).unwrap();
    hall.conference.flush();
    let failing = transport(&hall.tell(RoomToNode::OpenPipe { pipe: PipeKey(2), dials: true, tracks_only: false }));
    let lasting = transport(&hall.tell(RoomToNode::OpenPipe { pipe: PipeKey(3), dials: true, tracks_only: false }));
    hall.conference.shard_event(&Event::Failed { transport: failing, reason: FailReason::NotConnected });
    let failed = hall.conference.flush().messages;
    assert!(
        matches!(&failed[..], [(_, NodeToRoom::PipeState { pipe: PipeKey(2), state: MediaState::Failed })]),
        "{failed:?}"
    );
    let room = hall.room.clone();
    assert_eq!(hall.conference.pipes_of(&room), [PipeKey(3)]);
    hall.conference.close_room(&room);
    let ended = hall.conference.flush();
    assert!(ended.commands.iter().any(|(_, command)| matches!(command, Command::Close(closed) if *closed == lasting)));
}

#[test]
fn a_pipe_is_there_for_whoever_comes_after_the_last_one_until_the_room_closes_it() {
    let pipe = PipeKey(1);
    let mut hall = Hall::new(10);
    let room = hall.room.clone();
    hall.open("ada", 1, JOIN).unwrap();
    hall.conference.flush();
    let opened = transport(&hall.tell(RoomToNode::OpenPipe { pipe, dials: true, tracks_only: false }));
    let closes = |effects: &Effects| {
        effects.commands.iter().any(|(_, command)| matches!(command, Command::Close(closed) if *closed == opened))
    };
    assert!(!closes(&hall.tell(RoomToNode::CloseSession { session: key("ada", 1), quietly: false })));
    assert_eq!(hall.conference.pipes_of(&room), [pipe], "the room knows nothing else");
    hall.open("bob", 1, JOIN).unwrap();
    hall.conference.flush();
    hall.tell(RoomToNode::CloseSession { session: key("bob", 1), quietly: false });
    assert!(closes(&hall.tell(RoomToNode::ClosePipe { pipe })));
    let fresh = hall.tell(RoomToNode::OpenPipe { pipe, dials: true, tracks_only: false });
    assert!(fresh.commands.is_empty(), "nothing is left of the room: {fresh:?}");
}

#[test]
fn a_room_that_may_have_missed_what_an_end_is_like_hears_it_again() {
    let pipe = PipeKey(1);
    let (mut here, mut there) = (Hall::new(10), Hall::new(10));
    for hall in [&mut here, &mut there] {
        hall.open("bob", 1, JOIN).unwrap();
        hall.conference.flush();
    }
    let answers = here.tell(RoomToNode::OpenPipe { pipe, dials: false, tracks_only: false });
    // What the end there is like is lost; it knows of the one here by then.
    there.tell(RoomToNode::OpenPipe { pipe, dials: true, tracks_only: false });
    pass_on(answers, &mut there, pipe);
    let room = there.room.clone();
    let connects = |effects: Effects| {
        let connects = |(_, command): &(_, Command)| matches!(command, Command::ConnectPipe(..));
        effects.commands.iter().filter(|command| connects(command)).count()
    };
    there.conference.repeat(&room);
    let again = there.conference.flush();
    assert_eq!(connects(pass_on(again, &mut here, pipe)), 1);
    there.conference.repeat(&room);
    let once_more = there.conference.flush();
    assert_eq!(connects(pass_on(once_more, &mut here, pipe)), 0, "it stands");
}

#[test]
fn who_is_served_a_track_goes_on_when_it_comes_from_another_node_from_then_on() {
    let mut hall = Hall::new(10);
    hall.open("ada", 1, PUBLISH).unwrap();
    hall.open("bob", 1, JOIN).unwrap();
    hall.conference.flush();
    hall.announce_camera("ada");
    hall.subscribe("bob", "ada");
    let offer = Description { kind: DescriptionKind::Offer, id: 2, sdp: JOIN.to_owned() };
    let served = hall.tell(RoomToNode::Offer { session: key("bob", 1), description: offer });
    let viewer = last_sets(&served).0.unwrap()[0].clone();
    hall.tell(RoomToNode::OpenPipe { pipe: PipeKey(1), dials: false, tracks_only: false });
    hall.tell(RoomToNode::CloseSession { session: key("ada", 1), quietly: false });
    let stream = stream();
    let drawn = hall.tell(RoomToNode::DrawPipe { pipe: PipeKey(1), streams: vec![stream] });
    assert_eq!(last_sets(&drawn).1.unwrap()[0].track, viewer.source);
    hall.tell(RoomToNode::Unsubscribe {
        session: key("bob", 1),
        tracks: vec![TrackSid::try_from("TR_VCcam").unwrap()],
    });
    hall.tell(RoomToNode::DrawPipe { pipe: PipeKey(1), streams: Vec::new() });
    assert_eq!(hall.conference.track_count(), 0);
}

#[test]
fn what_a_session_here_sends_is_not_taken_from_elsewhere() {
    let pipe = PipeKey(1);
    let mut hall = Hall::new(10);
    hall.open("bob", 1, JOIN).unwrap();
    hall.conference.flush();
    hall.tell(RoomToNode::OpenPipe { pipe, dials: false, tracks_only: false });
    let before = hall.tell(RoomToNode::DrawPipe { pipe, streams: vec![stream()] });
    let key_before = last_sets(&before).1.unwrap()[0].track;
    // She comes here: what is still to come from where she was makes way.
    hall.open("ada", 1, PUBLISH).unwrap();
    hall.conference.flush();
    let here = hall.announce_camera("ada");
    let sets: Vec<Vec<Receiver>> = here
        .commands
        .iter()
        .filter_map(|(_, command)| match command {
            Command::SetReceivers(_, receivers) => Some(receivers.clone()),
            _ => None,
        })
        .collect();
    assert_eq!((sets.len(), sets[0][0].track, sets[1].len()), (2, key_before, 0), "hers first, then the pipe's none");
    let again = hall.tell(RoomToNode::DrawPipe { pipe, streams: vec![stream()] });
    assert!(again.commands.is_empty(), "{again:?}");
}
