//! Every room, session and track on this node: sends what the rooms and the shard say to the right session.
//! **Pure: no I/O, no clock.** What a batch of inputs changed goes out in [`Conference::flush`].

mod pipes;
pub(crate) mod placement;
pub(crate) mod relays;
mod telling;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shared::claims::SessionClaims;
use shared::control::{MediaState, NodeToRoom, OpenSession, PipeKey, ReceivedData, RefusalReason, RoomToNode};
use shared::ids::{Identity, ParticipantSid, RoomName, SessionKey, TrackSid};

use self::pipes::Pipe;
use self::placement::{Fullness, Placement};
use self::relays::Relays;
use crate::media::api::{
    Command, DataRole, Event, RoomKey, ServerData, ShardIndex, SpeakerKey, TrackKey, TransportKey,
};
use crate::session::allocator::Allocator;
use crate::session::{Endpoint, Output, Session, SessionParams};

/// What is to be done, in order.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// For the rooms.
    pub(crate) messages: Vec<(RoomName, NodeToRoom)>,
    /// For the shards.
    pub(crate) commands: Vec<(ShardIndex, Command)>,
}

#[derive(Debug)]
struct Room {
    key: RoomKey,
    /// Its first session's shard.
    home: ShardIndex,
    /// The newest session of each participant; older ones are closed.
    sessions: BTreeMap<ParticipantSid, Session>,
    /// Every track somebody announced or subscribed to here.
    tracks: HashMap<TrackSid, TrackKey>,
    /// Of those some may be of no use any more.
    loose: usize,
    /// To other nodes that serve it.
    pipes: BTreeMap<PipeKey, Pipe>,
    /// Sessions of other nodes that are to hear how those here fare.
    newcomers: Vec<SessionKey>,
}

/// Whose a transport or a track is.
type Owner = (RoomName, ParticipantSid);

/// All rooms of this node.
#[derive(Debug)]
pub(crate) struct Conference {
    /// Of each shard.
    endpoints: Vec<Endpoint>,
    placement: Placement,
    relays: Relays,
    allocator: Allocator,
    max_sessions: usize,
    draining: bool,
    rooms: BTreeMap<RoomName, Room>,
    transports: HashMap<TransportKey, Owner>,
    publishers: HashMap<TrackKey, Owner>,
    /// Transports to other nodes.
    pipes: HashMap<TransportKey, (RoomName, PipeKey)>,
    /// Rooms whose pipes may have to carry something else.
    unfilled: BTreeSet<RoomName>,
    dirty: BTreeSet<Owner>,
    /// Who may be louder or quieter than the room knows.
    speaking: BTreeSet<Owner>,
    effects: Effects,
}

impl Conference {
    /// A node without rooms. `endpoints`: one for each of its shards.
    pub(crate) fn new(endpoints: Vec<Endpoint>, full: Fullness, allocator: Allocator, max_sessions: usize) -> Self {
        Self {
            placement: Placement::new(endpoints.len(), full),
            relays: Relays::new(endpoints.len()),
            endpoints,
            allocator,
            max_sessions,
            draining: false,
            rooms: BTreeMap::new(),
            transports: HashMap::new(),
            publishers: HashMap::new(),
            pipes: HashMap::new(),
            unfilled: BTreeSet::new(),
            dirty: BTreeSet::new(),
            speaking: BTreeSet::new(),
            effects: Effects::default(),
        }
    }

    /// Takes no new rooms from now on. Who comes to those that are here finds them here, until they are moved.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// Sessions open.
    pub(crate) fn session_count(&self) -> usize {
        self.rooms.values().map(|room| room.sessions.len()).sum()
    }

    /// Tracks published or subscribed to.
    pub(crate) fn track_count(&self) -> usize {
        self.rooms.values().map(|room| room.tracks.len()).sum()
    }

    /// How many sessions each room has.
    pub(crate) fn room_sizes(&self) -> Vec<(RoomName, usize)> {
        self.rooms.iter().map(|(name, room)| (name.clone(), room.sessions.len())).collect()
    }

    /// Sessions of a room.
    pub(crate) fn sessions_of(&self, room: &RoomName) -> Vec<SessionKey> {
        let sessions = self.rooms.get(room).into_iter().flat_map(|room| room.sessions.values());
        sessions.map(|session| session.key().clone()).collect()
    }

    /// Opens a session whose token was verified. An older session of the participant ends.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn open(
        &mut self,
        name: &RoomName,
        claims: SessionClaims,
        open: OpenSession,
    ) -> Result<(), RefusalReason> {
        let known =
            self.rooms.get(name).and_then(|room| room.sessions.get(&claims.sub)).map(|known| known.key().clone());
        if self.draining && !self.rooms.contains_key(name) {
            return Err(RefusalReason::Draining);
        }
        if known.as_ref().is_some_and(|known| known.generation >= claims.generation) {
            return Err(RefusalReason::BadToken);
        }
        if known.is_none() && (self.session_count() >= self.max_sessions || self.placement.is_overloaded()) {
            return Err(RefusalReason::NoCapacity);
        }
        if let Some(known) = known {
            // A track keeps its id when its participant is moved: subscribers go on with its key.
            self.close_session(name, &known, false);
        }
        if !self.rooms.contains_key(name) {
            let (key, home) = (RoomKey(self.allocator.key()), self.placement.place(&[]));
            let (sessions, tracks, pipes) = (BTreeMap::new(), HashMap::new(), BTreeMap::new());
            self.rooms
                .insert(name.clone(), Room { key, home, sessions, tracks, loose: 0, pipes, newcomers: Vec::new() });
        }
        let Some(room) = self.rooms.get_mut(name) else { return Err(RefusalReason::NoCapacity) };
        let shard = self.placement.place(&room.present());
        self.placement.opened(shard);
        let key = SessionKey { participant: claims.sub, generation: claims.generation };
        let params = SessionParams {
            key: key.clone(),
            room: room.key,
            shard,
            identity: claims.identity,
            grants: claims.grants,
            peer_connections: open.peer_connections,
            client: open.client,
            srtp: open.established.as_ref().and_then(|established| established.srtp),
            playout_delay: open.playout_delay,
        };
        let mut out = Output::default();
        let session = Session::open(params, &mut self.allocator, &mut out);
        room.sessions.insert(key.participant.clone(), session);
        self.take(name, &key.participant, shard, out);
        // As the room would have sent them one by one.
        for track in open.tracks {
            self.handle(name, RoomToNode::AnnounceTrack { session: key.clone(), track });
        }
        self.handle(name, RoomToNode::Subscribe { session: key.clone(), subscriptions: open.subscriptions });
        if let Some(established) = open.established
            && let Some(session) = session_at(&mut self.rooms, &(name.clone(), key.participant.clone()))
        {
            let mut out = Output::default();
            session.go_on(established, &mut self.allocator, &mut out);
            self.take(name, &key.participant, shard, out);
        }
        if let Some(description) = open.offer {
            self.handle(name, RoomToNode::Offer { session: key, description });
        }
        Ok(())
    }

    /// A message of a room about an open session; one about a session that is not (any more) here is dropped.
    pub(crate) fn handle(&mut self, name: &RoomName, message: RoomToNode) {
        let message = match message {
            RoomToNode::SendData { packet, reliable, identities } => {
                return self.send_data(name, &packet, reliable, &identities);
            }
            RoomToNode::OpenPipe { pipe, dials, tracks_only } => {
                let data = if tracks_only { DataRole::None } else { DataRole::Pipe };
                return self.open_pipe(name, pipe, dials, data);
            }
            RoomToNode::ConnectPipe { pipe, end } => return self.connect_pipe(name, pipe, &end),
            RoomToNode::FillPipe { pipe, tracks } => return self.fill_pipe(name, pipe, tracks),
            RoomToNode::DrawPipe { pipe, streams } => return self.draw_pipe(name, pipe, streams),
            RoomToNode::ClosePipe { pipe } => return self.close_pipe(name, pipe),
            RoomToNode::TellQuality { newcomers } => return self.tell_quality(name, newcomers),
            of_session => of_session,
        };
        let Some(key) = session_of(&message).cloned() else { return };
        if let RoomToNode::CloseSession { quietly, .. } = message {
            return self.end_session(name, &key, quietly);
        }
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(session) = room.sessions.get_mut(&key.participant).filter(|session| *session.key() == key) else {
            return tracing::debug!(room = %name, session = %key, "message for a session that is not here");
        };
        if let RoomToNode::ReplayData { received, .. } = message {
            return self.replay_data(name, &key.participant, &received);
        }
        let owner = (name.clone(), key.participant.clone());
        let shard = session.shard();
        let mut out = Output::default();
        match message {
            RoomToNode::Offer { description, .. } => {
                let Some(endpoint) = self.endpoints.get(shard.place()) else { return };
                session.offer(&description, endpoint, &mut self.allocator, &mut out);
            }
            RoomToNode::Answer { description, .. } => session.answer(&description, &mut out),
            // The room has not heard of its end, and is about to.
            RoomToNode::AnnounceTrack { track, .. } if session.has_ended(&track.sid) => {}
            RoomToNode::AnnounceTrack { track, .. } => {
                let track_key = track_key(&mut room.tracks, &track.sid, &mut self.allocator);
                if session.announce(track, track_key) {
                    self.publishers.insert(track_key, owner.clone());
                } else {
                    tracing::warn!(room = %name, session = %key, "too many tracks announced");
                }
            }
            RoomToNode::RetractTrack { track, .. } => {
                if session.retract(&track) {
                    if let Some(key) = forget_track(&mut room.tracks, &mut self.publishers, &track) {
                        session.loud(key, 0);
                    }
                    self.speaking.insert(owner);
                }
            }
            RoomToNode::MuteTrack { track, muted, .. } => session.mute(&track, muted, &mut out),
            RoomToNode::Subscribe { subscriptions, .. } => {
                for subscription in subscriptions {
                    let source = track_key(&mut room.tracks, &subscription.track, &mut self.allocator);
                    if !session.subscribe(subscription, source, &mut self.allocator, &mut out) {
                        tracing::warn!(room = %name, session = %key, "too many subscriptions");
                        break;
                    }
                }
            }
            RoomToNode::Unsubscribe { tracks, .. } => {
                tracks.iter().for_each(|track| session.unsubscribe(track, &mut self.allocator));
                self.dirty.insert(owner);
                return self.note_unsubscribed(name, &tracks);
            }
            RoomToNode::RestartIce { .. } => session.restart_ice(&mut self.allocator, &mut out),
            RoomToNode::UpdateGrants { grants, .. } => session.update_grants(grants, &mut out),
            // Not of a session, or dealt with above.
            RoomToNode::Welcome { .. }
            | RoomToNode::OpenSession(_)
            | RoomToNode::CloseSession { .. }
            | RoomToNode::ReplayData { .. }
            | RoomToNode::SendData { .. }
            | RoomToNode::OpenPipe { .. }
            | RoomToNode::ConnectPipe { .. }
            | RoomToNode::FillPipe { .. }
            | RoomToNode::DrawPipe { .. }
            | RoomToNode::TellQuality { .. }
            | RoomToNode::ClosePipe { .. } => {}
        }
        self.take(name, &key.participant, shard, out);
    }

    /// Data of an app server: to every shard the room is on.
    fn send_data(&mut self, name: &RoomName, packet: &str, reliable: bool, identities: &[Identity]) {
        let (Some(room), Ok(packet)) = (self.rooms.get(name), STANDARD.decode(packet)) else { return };
        for shard in room.present() {
            let data = ServerData { room: room.key, packet: packet.clone(), reliable, identities: identities.to_vec() };
            self.effects.commands.push((shard, Command::SendData(Box::new(data))));
        }
    }

    /// A client came back. SCTP lives on through an ICE restart and sends again what was not acknowledged (RFC 9260 section
    /// 6.3), but not what found its queue full or its channel not open yet.
    fn replay_data(&mut self, name: &RoomName, receiver: &ParticipantSid, received: &[ReceivedData]) {
        let Some(room) = self.rooms.get(name) else { return };
        let Some(session) = room.sessions.get(receiver) else { return };
        let speaker = |of: &ReceivedData| match room.sessions.get(&of.publisher) {
            Some(session) => Some((session.speaker_key(), of.sequence)),
            None if room.pipes.is_empty() => None,
            None => Some((SpeakerKey::elsewhere(&of.publisher), of.sequence)),
        };
        let senders: Vec<_> = received.iter().filter_map(speaker).collect();
        if !senders.is_empty() {
            self.effects.commands.push((session.shard(), Command::ReplayData(session.primary(), senders)));
        }
    }

    /// Closes the sessions of a room that it does not believe to be here.
    pub(crate) fn reconcile(&mut self, name: &RoomName, keep: &[SessionKey]) {
        for key in self.sessions_of(name).iter().filter(|key| !keep.contains(key)) {
            tracing::info!(room = %name, session = %key, "closing a session the room does not know");
            self.end_session(name, key, false);
        }
    }

    /// A room may have missed what it was told last: its sessions say it again.
    pub(crate) fn repeat(&mut self, name: &RoomName) {
        for key in self.sessions_of(name) {
            let owner = (name.clone(), key.participant);
            let Some(session) = session_at(&mut self.rooms, &owner) else { continue };
            let (shard, mut out) = (session.shard(), Output::default());
            session.repeat(&mut out);
            self.take(name, &owner.1, shard, out);
        }
        self.repeat_pipes(name);
    }

    /// Ends a room here, with its sessions and pipes.
    pub(crate) fn close_room(&mut self, name: &RoomName) {
        for key in self.sessions_of(name) {
            self.end_session(name, &key, false);
        }
        for pipe in self.pipes_of(name) {
            self.close_pipe(name, pipe);
        }
    }

    /// What the shard says.
    pub(crate) fn shard_event(&mut self, event: &Event) {
        if self.pipe_event(event) {
            return;
        }
        match *event {
            Event::Connected { transport, profile } => {
                self.with_transport(transport, |session, out| session.connected(transport, Some(profile), out));
            }
            Event::Reconnected(transport) => {
                self.with_transport(transport, |session, out| session.connected(transport, None, out));
            }
            Event::ChannelsOpened(transport, ref channels) => {
                self.with_transport(transport, |session, out| session.channels_opened(transport, channels, out));
            }
            Event::CallAnswered(transport, ref packet) => {
                self.with_transport(transport, |session, out| session.answered_call(packet, out));
            }
            Event::Readdressed(transport) => self.readdressed(transport),
            Event::Disconnected(transport) => {
                self.with_transport(transport, |session, out| session.disconnected(transport, out));
            }
            Event::Failed { transport, reason } => {
                let Some((name, participant)) = self.transports.get(&transport).cloned() else { return };
                let session = self.rooms.get(&name).and_then(|room| room.sessions.get(&participant));
                let Some(key) = session.map(|session| session.key().clone()) else { return };
                tracing::info!(room = %name, session = %key, ?reason, "transport failed");
                self.end_session(&name, &key, false);
                let failed = NodeToRoom::MediaState { session: key, state: MediaState::Failed, srtp: None };
                self.effects.messages.push((name, failed));
            }
            Event::LayerSeen { track, layer, codec, ssrc, repair_ssrc } => {
                let Some(owner) = self.publishers.get(&track.primary()) else { return };
                if let Some(session) = session_at(&mut self.rooms, owner) {
                    session.layer_seen(track, layer, codec, ssrc, repair_ssrc);
                    self.dirty.insert(owner.clone());
                }
            }
            Event::Paused { transport, source, paused } => self.stream_state(transport, source, paused),
            Event::Loudness { track, step } => {
                let Some(owner) = self.publishers.get(&track) else { return };
                if let Some(session) = session_at(&mut self.rooms, owner) {
                    session.loud(track, step);
                    self.speaking.insert(owner.clone());
                }
            }
            Event::Score { transport, score } => {
                let Some(owner) = self.transports.get(&transport) else { return };
                if let Some(session) = session_at(&mut self.rooms, owner) {
                    session.scored(transport, score);
                }
            }
            Event::Stats(_) => {}
        }
    }

    /// A client has another address under one of its connections.
    fn readdressed(&mut self, transport: TransportKey) {
        let Some(owner) = self.transports.get(&transport).cloned() else { return };
        let Some(session) = session_at(&mut self.rooms, &owner) else { return };
        session.readdressed(transport);
        let shard = session.shard();
        self.take(&owner.0, &owner.1, shard, Output::default());
    }

    /// What a shard was measured to carry.
    pub(crate) fn measured(&mut self, shard: ShardIndex, packets_per_second: u32) {
        self.placement.measured(shard, packets_per_second);
    }

    /// A shard leaves out video because it cannot keep up, or does not any more.
    pub(crate) fn set_overloaded(&mut self, shard: ShardIndex, overloaded: bool) {
        self.placement.set_overloaded(shard, overloaded);
    }

    /// What the batch of inputs wants done.
    pub(crate) fn flush(&mut self) -> Effects {
        for (name, participant) in std::mem::take(&mut self.dirty) {
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            if !room.pipes.is_empty() {
                self.unfilled.insert(name.clone());
            }
            let Some(session) = room.sessions.get_mut(&participant) else { continue };
            let shard = session.shard();
            let Some(endpoint) = self.endpoints.get(shard.place()) else { continue };
            let mut out = Output::default();
            for track in session.flush(endpoint, &mut self.allocator, &mut out) {
                if let Some(key) = forget_track(&mut room.tracks, &mut self.publishers, &track) {
                    session.loud(key, 0);
                    self.speaking.insert((name.clone(), participant.clone()));
                }
            }
            self.take(&name, &participant, shard, out);
            self.dirty.remove(&(name, participant));
        }
        self.fill_pipes();
        self.tell_speakers();
        let mut effects = std::mem::take(&mut self.effects);
        effects.commands.iter().for_each(|(shard, command)| self.relays.note(*shard, command));
        effects.commands.extend(self.relays.take_commands());
        effects
    }

    /// A subscriber's path does not carry a video any more, or does again.
    fn stream_state(&mut self, transport: TransportKey, source: TrackKey, paused: bool) {
        let Some((name, participant)) = self.transports.get(&transport) else { return };
        let Some(room) = self.rooms.get(name) else { return };
        let Some(session) = room.sessions.get(participant) else { return };
        let Some((track, _)) = room.tracks.iter().find(|(_, key)| **key == source.primary()) else { return };
        let state = NodeToRoom::StreamState { session: session.key().clone(), track: track.clone(), paused };
        self.effects.messages.push((name.clone(), state));
    }

    fn with_transport(&mut self, transport: TransportKey, act: impl FnOnce(&mut Session, &mut Output)) {
        let Some((name, participant)) = self.transports.get(&transport).cloned() else { return };
        let Some(room) = self.rooms.get_mut(&name) else { return };
        let Some(session) = room.sessions.get_mut(&participant) else { return };
        let mut out = Output::default();
        act(session, &mut out);
        let shard = session.shard();
        self.take(&name, &participant, shard, out);
    }

    /// Takes what a session wants done, and learns its transports.
    fn take(&mut self, name: &RoomName, participant: &ParticipantSid, shard: ShardIndex, out: Output) {
        let owner = (name.clone(), participant.clone());
        for command in &out.commands {
            if let Command::Open(config) = command {
                self.transports.insert(config.key, owner.clone());
            }
        }
        self.effects.commands.extend(out.commands.into_iter().map(|command| (shard, command)));
        self.effects.messages.extend(out.messages.into_iter().map(|message| (name.clone(), message)));
        self.dirty.insert(owner);
    }

    /// Closes a session whose tracks end with it.
    fn end_session(&mut self, name: &RoomName, key: &SessionKey, quietly: bool) {
        if !self.close_session(name, key, quietly) {
            return;
        }
        if let Some(room) = self.rooms.get_mut(name) {
            let Room { tracks, sessions, .. } = room;
            tracks.retain(|_, track| {
                let is_hers = |(room, owner): &Owner| room == name && *owner == key.participant;
                // Her tracks may come through a pipe from now on, to those who are served them here.
                !self.publishers.get(track).is_some_and(is_hers)
                    || sessions.values().any(|session| session.is_subscribed_to(*track))
            });
            self.unfilled.insert(name.clone());
            self.forget_unused_room(name);
        }
        self.publishers.retain(|_, (room, owner)| room != name || *owner != key.participant);
    }

    /// A room is forgotten with its last session, once it has closed its pipes: they are there for whoever comes next, and it
    /// would not hear that they are not.
    fn forget_unused_room(&mut self, name: &RoomName) {
        if self.rooms.get(name).is_some_and(|room| room.sessions.is_empty() && room.pipes.is_empty()) {
            self.rooms.remove(name);
        }
    }

    /// Closes a session's transports. False: it is not here.
    fn close_session(&mut self, name: &RoomName, key: &SessionKey, quietly: bool) -> bool {
        let Some(room) = self.rooms.get_mut(name) else { return false };
        if room.sessions.get(&key.participant).is_none_or(|session| session.key() != key) {
            return false;
        }
        let Some(mut session) = room.sessions.remove(&key.participant) else { return false };
        let mut out = Output::default();
        session.close(quietly, &mut self.allocator, &mut out);
        for transport in session.transports() {
            self.transports.remove(&transport);
        }
        let shard = session.shard();
        self.placement.closed(shard);
        self.effects.commands.extend(out.commands.into_iter().map(|command| (shard, command)));
        true
    }
}

impl Room {
    /// The shards it is on, its home first.
    fn present(&self) -> Vec<ShardIndex> {
        let others: BTreeSet<ShardIndex> = self.sessions.values().map(Session::shard).collect();
        std::iter::once(self.home).chain(others.into_iter().filter(|shard| *shard != self.home)).collect()
    }
}

fn session_at<'a>(rooms: &'a mut BTreeMap<RoomName, Room>, (name, participant): &Owner) -> Option<&'a mut Session> {
    rooms.get_mut(name)?.sessions.get_mut(participant)
}

fn track_key(tracks: &mut HashMap<TrackSid, TrackKey>, sid: &TrackSid, allocator: &mut Allocator) -> TrackKey {
    *tracks.entry(sid.clone()).or_insert_with(|| TrackKey(allocator.key()))
}

fn forget_track(
    tracks: &mut HashMap<TrackSid, TrackKey>,
    publishers: &mut HashMap<TrackKey, Owner>,
    sid: &TrackSid,
) -> Option<TrackKey> {
    let key = tracks.remove(sid)?;
    publishers.remove(&key);
    Some(key)
}

fn session_of(message: &RoomToNode) -> Option<&SessionKey> {
    match message {
        RoomToNode::CloseSession { session, .. }
        | RoomToNode::Offer { session, .. }
        | RoomToNode::Answer { session, .. }
        | RoomToNode::AnnounceTrack { session, .. }
        | RoomToNode::RetractTrack { session, .. }
        | RoomToNode::MuteTrack { session, .. }
        | RoomToNode::Subscribe { session, .. }
        | RoomToNode::Unsubscribe { session, .. }
        | RoomToNode::RestartIce { session }
        | RoomToNode::ReplayData { session, .. }
        | RoomToNode::UpdateGrants { session, .. } => Some(session),
        RoomToNode::Welcome { .. }
        | RoomToNode::OpenSession(_)
        | RoomToNode::SendData { .. }
        | RoomToNode::OpenPipe { .. }
        | RoomToNode::ConnectPipe { .. }
        | RoomToNode::FillPipe { .. }
        | RoomToNode::DrawPipe { .. }
        | RoomToNode::TellQuality { .. }
        | RoomToNode::ClosePipe { .. } => None,
    }
}

#[cfg(test)]
mod tests;
