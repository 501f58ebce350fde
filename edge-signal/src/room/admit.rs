//! Admission: may this client come in, and as what. Reads the room, changes nothing.

use livekit_protocol as proto;
use shared::claims::REGION_ATTRIBUTE;
use shared::control::{
    Description, DescriptionKind, FirstSession, MAX_SDP_LEN, OpenSession, PeerConnections, PlaceRequest,
};
use shared::ids::{Generation, IdError, Identity, ParticipantSid, RegionName};

use super::Room;
use super::configuration;
use super::event::{Admission, Context, JoinAttempt};
use super::metadata::{self, MAX_ATTRIBUTES_LEN};
use super::participant::{self, Client, is_dependent, media_grants};
use super::turn::Turn;
use crate::refusal::{Reason, Refusal};

/// Most participants of a room object: each has a socket, and an object holds 32,768 of them.
pub const MAX_PARTICIPANTS: u32 = 10_000;
/// Signal protocol from which the subscriber connection can be primary.
const SUBSCRIBER_PRIMARY_PROTOCOL: i32 = 3;

impl Room {
    /// Says whether a client may join, or with which HTTP answer it is refused.
    ///
    /// # Errors
    /// [`Refusal`]: status and text for the upgrade request and for `validate`.
    pub fn admit(&self, context: Context, attempt: JoinAttempt) -> Result<Admission, Refusal> {
        let identity = identity_of(&attempt)?;
        let grant = attempt.claims.video.clone().unwrap_or_default();
        if !grant.room_join {
            return Err(Refusal::new(Reason::JoinNotGranted, "permissions denied"));
        }
        let permission = participant::permission(&grant);
        check_metadata(&attempt, permission.can_update_metadata)?;
        let config = configuration::of_token(&attempt)?;
        let region = self.region_for(&attempt)?;
        if attempt.request.reconnect {
            let participant = ParticipantSid::from_random(Turn::new(context).random());
            return Ok(Admission {
                attempt,
                participant,
                peer_connections: PeerConnections::Single,
                place: None,
                ice_servers: Vec::new(),
            });
        }
        let max = if self.record.created { self.record.max_participants } else { config.max_participants };
        if self.is_full_for(max, &identity, is_dependent(&attempt.claims)) {
            return Err(Refusal::new(Reason::RoomFull, "room is full"));
        }
        let client = attempt.request.client_info.clone().unwrap_or_default();
        let peer_connections = match (attempt.single_peer_connection, permission.can_subscribe) {
            (true, _) => PeerConnections::Single,
            (false, true) if client.protocol >= SUBSCRIBER_PRIMARY_PROTOCOL => PeerConnections::DualSubscriberPrimary,
            (false, _) => PeerConnections::DualPublisherPrimary,
        };
        let participant = ParticipantSid::from_random(Turn::new(context).random());
        let mut admission = Admission { attempt, participant, peer_connections, place: None, ice_servers: Vec::new() };
        let serving = self.serving_far_from(admission.attempt.place);
        if self.usable_node().is_none() || !serving.is_empty() {
            let grants = media_grants(&admission.attempt.claims, &permission);
            let client = Client::new(&client);
            let first = FirstSession {
                participant: admission.participant.clone(),
                identity,
                generation: Generation(1),
                grants,
                open: OpenSession {
                    token: String::new(),
                    peer_connections,
                    playout_delay: self.playout_delay_for(&client, Some(&config)),
                    client: client.traits,
                    offer: bundled_offer(&admission.attempt.request).ok().flatten(),
                    tracks: Vec::new(),
                    subscriptions: Vec::new(),
                    established: None,
                },
            };
            admission.place = Some(Box::new(PlaceRequest {
                region,
                node: self.record.node.clone(),
                exclude: self.record.avoided_nodes(context.now),
                serving,
                first: Some(first),
                ..PlaceRequest::of(self.record.name.clone(), admission.attempt.place)
            }));
        }
        Ok(admission)
    }

    /// The region that the room is kept to: what the token that creates it says, whatever later ones say.
    pub(super) fn region_for(&self, attempt: &JoinAttempt) -> Result<Option<RegionName>, Refusal> {
        if self.record.created {
            return Ok(self.record.region.clone());
        }
        let region = attempt.claims.attributes.get(REGION_ATTRIBUTE).map(|text| RegionName::try_from(text.as_str()));
        region.transpose().map_err(|error| {
            Refusal::new(Reason::RegionMalformed, &format!("{REGION_ATTRIBUTE} of the token: {error}"))
        })
    }

    /// Whether one more does not fit. Those who are in may come again, agents and recorders do not count.
    pub(super) fn is_full_for(&self, max: u32, identity: &Identity, dependent: bool) -> bool {
        if self.identities.contains_key(identity) {
            return false;
        }
        let all = u32::try_from(self.participants.len()).unwrap_or(u32::MAX);
        all >= MAX_PARTICIPANTS || (max > 0 && !dependent && self.counts().participants >= max)
    }
}

/// The identity a token gives: `sub`, or `jti` in old tokens.
pub(super) fn identity_of(attempt: &JoinAttempt) -> Result<Identity, Refusal> {
    let claims = &attempt.claims;
    let text = if claims.sub.is_empty() { &claims.jti } else { &claims.sub };
    Identity::try_from(text.as_str()).map_err(|error| match error {
        IdError::TooLong => {
            Refusal::new(Reason::IdentityTooLong, "participant identity length exceeds limits: max length 256")
        }
        _ => Refusal::new(Reason::IdentityMissing, "identity cannot be empty"),
    })
}

/// The offer inside a join request.
///
/// # Errors
/// What is wrong with it, for the client.
pub(super) fn bundled_offer(request: &proto::JoinRequest) -> Result<Option<Description>, &'static str> {
    match &request.publisher_offer {
        None => Ok(None),
        Some(offer) if offer.sdp.is_empty() => Ok(None),
        Some(offer) => description(offer, DescriptionKind::Offer).map(Some),
    }
}

/// A client's description within bounds; the node judges its SDP.
///
/// # Errors
/// What is wrong with it, for the client.
pub(super) fn description(
    given: &proto::SessionDescription,
    kind: DescriptionKind,
) -> Result<Description, &'static str> {
    let expected = match kind {
        DescriptionKind::Offer => "offer",
        DescriptionKind::Answer => "answer",
    };
    if given.r#type != expected {
        return Err("the type of a session description must be offer in an offer, answer in an answer");
    }
    if given.sdp.len() > MAX_SDP_LEN {
        return Err("the session description is too long");
    }
    if given.sdp.bytes().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t')) {
        return Err("the session description holds control characters");
    }
    Ok(Description { kind, id: given.id, sdp: given.sdp.clone() })
}

fn check_metadata(attempt: &JoinAttempt, may_update: bool) -> Result<(), Refusal> {
    let request = &attempt.request;
    if request.metadata.is_empty() && request.participant_attributes.is_empty() {
        return Ok(());
    }
    if !may_update {
        return Err(Refusal::new(Reason::MetadataNotGranted, "no permissions to access the room"));
    }
    if !metadata::fits_metadata(&request.metadata) {
        return Err(Refusal::new(Reason::MetadataTooLarge, "exceeds metadata size limit"));
    }
    if metadata::attributes_len(&request.participant_attributes) > MAX_ATTRIBUTES_LEN {
        return Err(Refusal::new(Reason::AttributesTooLarge, "exceeds attributes size limit"));
    }
    Ok(())
}
