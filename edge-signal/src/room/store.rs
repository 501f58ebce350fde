//! Access to the room's entities. **Every change goes through here, so that its row is written.**

use shared::control::Description;
use shared::ids::{NodeId, ParticipantSid, SessionKey, TrackSid};

use super::Room;
use super::forward::destination::Forwarded;
use super::forward::source::{Forward, ForwardKey};
use super::node::{Link, Node};
use super::participant::Participant;
use super::publication::Publication;
use super::record::{Counts, Record};
use super::resume::Departed;
use super::session::{Media, Session, Side};
use super::snapshot::RowKey;
use super::subscription::Subscription;

impl Room {
    pub(super) fn record_mut(&mut self) -> &mut Record {
        self.changed.insert(RowKey::Room);
        &mut self.record
    }

    pub(super) fn participant_mut(&mut self, sid: &ParticipantSid) -> Option<&mut Participant> {
        let participant = self.participants.get_mut(sid)?;
        self.changed.insert(RowKey::Participant(sid.clone()));
        Some(participant)
    }

    pub(super) fn put_participant(&mut self, participant: Participant, session: Session) {
        let sid = participant.sid.clone();
        if let Some(connection) = &participant.connection {
            self.connections.insert(connection.clone(), sid.clone());
        }
        self.changed.insert(RowKey::Session(sid.clone()));
        self.sessions.insert(sid, session);
        self.put_member(participant);
    }

    /// One without a session: it is forwarded from another room.
    pub(super) fn put_member(&mut self, participant: Participant) {
        let sid = participant.sid.clone();
        self.identities.insert(participant.identity.clone(), sid.clone());
        self.changed.insert(RowKey::Participant(sid.clone()));
        self.participants.insert(sid, participant);
    }

    pub(super) fn take_participant(&mut self, sid: &ParticipantSid) -> Option<Participant> {
        let participant = self.participants.remove(sid)?;
        if self.sessions.remove(sid).is_some() {
            self.changed.insert(RowKey::Session(sid.clone()));
        }
        if let Some(connection) = &participant.connection {
            self.connections.remove(connection);
        }
        self.identities.remove(&participant.identity);
        for side in Side::ALL {
            self.put_description(sid, side, None);
        }
        for (track, _) in self.subscriptions.remove(sid).into_iter().flatten() {
            self.changed.insert(RowKey::Subscription(sid.clone(), track));
        }
        self.changed.insert(RowKey::Participant(sid.clone()));
        Some(participant)
    }

    pub(super) fn session_mut(&mut self, sid: &ParticipantSid) -> Option<&mut Session> {
        let session = self.sessions.get_mut(sid)?;
        self.changed.insert(RowKey::Session(sid.clone()));
        Some(session)
    }

    /// The last description of one side.
    pub(super) fn description(&self, sid: &ParticipantSid, side: Side) -> Option<&Description> {
        self.descriptions.get(&(sid.clone(), side))
    }

    pub(super) fn put_description(&mut self, sid: &ParticipantSid, side: Side, description: Option<Description>) {
        let key = (sid.clone(), side);
        match description {
            Some(description) => {
                self.descriptions.insert(key, description);
            }
            None if self.descriptions.remove(&key).is_none() => return,
            None => {}
        }
        self.changed.insert(RowKey::Description(sid.clone(), side));
    }

    pub(super) fn publication_mut(&mut self, track: &TrackSid) -> Option<&mut Publication> {
        let publication = self.publications.get_mut(track)?;
        self.changed.insert(RowKey::Publication(track.clone()));
        Some(publication)
    }

    pub(super) fn put_publication(&mut self, track: &TrackSid, publication: Publication) {
        self.changed.insert(RowKey::Publication(track.clone()));
        self.publications.insert(track.clone(), publication);
    }

    pub(super) fn remove_publication(&mut self, track: &TrackSid) -> Option<Publication> {
        let removed = self.publications.remove(track)?;
        self.changed.insert(RowKey::Publication(track.clone()));
        Some(removed)
    }

    /// A subscription that says nothing has no row.
    pub(super) fn put_subscription(&mut self, sid: &ParticipantSid, track: &TrackSid, subscription: Subscription) {
        if subscription == Subscription::default() {
            self.remove_subscription(sid, track);
            return;
        }
        self.changed.insert(RowKey::Subscription(sid.clone(), track.clone()));
        self.subscriptions.entry(sid.clone()).or_default().insert(track.clone(), subscription);
    }

    pub(super) fn remove_subscription(&mut self, sid: &ParticipantSid, track: &TrackSid) -> Option<Subscription> {
        let removed = self.subscriptions.get_mut(sid)?.remove(track)?;
        self.changed.insert(RowKey::Subscription(sid.clone(), track.clone()));
        Some(removed)
    }

    pub(super) fn node_mut(&mut self, node: &NodeId) -> Option<&mut Node> {
        let found = self.nodes.get_mut(node)?;
        self.changed.insert(RowKey::Node(node.clone()));
        Some(found)
    }

    pub(super) fn put_node(&mut self, id: &NodeId, node: Node) {
        self.changed.insert(RowKey::Node(id.clone()));
        self.nodes.insert(id.clone(), node);
    }

    pub(super) fn remove_node(&mut self, id: &NodeId) -> Option<Node> {
        self.changed.insert(RowKey::Node(id.clone()));
        self.nodes.remove(id)
    }

    pub(super) fn put_departed(&mut self, sid: &ParticipantSid, departed: Option<Departed>) {
        self.changed.insert(RowKey::Departed(sid.clone()));
        match departed {
            Some(departed) => self.departed.insert(sid.clone(), departed),
            None => self.departed.remove(sid),
        };
    }

    pub(super) fn forward_mut(&mut self, key: &ForwardKey) -> Option<&mut Forward> {
        let forward = self.forwards.get_mut(key)?;
        self.changed.insert(RowKey::Forward(key.0.clone(), key.1.clone()));
        Some(forward)
    }

    pub(super) fn put_forward(&mut self, key: &ForwardKey, forward: Option<Forward>) {
        self.changed.insert(RowKey::Forward(key.0.clone(), key.1.clone()));
        match forward {
            Some(forward) => self.forwards.insert(key.clone(), forward),
            None => self.forwards.remove(key),
        };
    }

    pub(super) fn forwarded_mut(&mut self, sid: &ParticipantSid) -> Option<&mut Forwarded> {
        let forwarded = self.forwarded.get_mut(sid)?;
        self.changed.insert(RowKey::Forwarded(sid.clone()));
        Some(forwarded)
    }

    pub(super) fn put_forwarded(&mut self, sid: &ParticipantSid, forwarded: Option<Forwarded>) {
        self.changed.insert(RowKey::Forwarded(sid.clone()));
        match forwarded {
            Some(forwarded) => self.forwarded.insert(sid.clone(), forwarded),
            None => self.forwarded.remove(sid),
        };
    }

    pub(super) fn participant_sids(&self) -> Vec<ParticipantSid> {
        self.participants.keys().cloned().collect()
    }

    /// What a participant publishes, visible or not yet.
    pub(super) fn tracks_of(&self, sid: &ParticipantSid) -> Vec<TrackSid> {
        self.participants.get(sid).map(|participant| participant.tracks.clone()).unwrap_or_default()
    }

    pub(super) fn visible_tracks(&self) -> Vec<TrackSid> {
        let visible = self.publications.iter().filter(|(_, publication)| publication.visible);
        visible.map(|(track, _)| track.clone()).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let counted = self.participants.values().filter(|participant| !participant.is_dependent());
        let (participants, publishers) =
            counted.fold((0u32, 0u32), |(all, publish), p| (all + 1, publish + u32::from(p.is_publisher)));
        Counts { participants, publishers, recording: self.participants.values().any(Participant::is_recorder) }
    }

    /// Where to send what concerns this participant's session: its node listens and was asked to open it.
    pub(super) fn open_session_of(&self, sid: &ParticipantSid) -> Option<(NodeId, SessionKey)> {
        let session = self.sessions.get(sid).filter(|session| session.opened && session.media != Media::Ended)?;
        let id = session.node.as_ref()?;
        self.listens(id).then(|| (id.clone(), session.key(sid)))
    }

    /// Whether a node hears what it is sent.
    pub(super) fn listens(&self, id: &NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| node.link == Link::Ready)
    }
}
