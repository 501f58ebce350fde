//! One participant: who it is, what it may do, how it is seen by others.

use livekit_protocol as proto;
use livekit_protocol::TrackSource;
use livekit_protocol::participant_info::{Kind, KindDetail, State};
use serde::{Deserialize, Serialize};
use shared::claims::{AccessClaims, VideoGrant};
use shared::control::{ClientTraits, MediaGrants};
use shared::geo::Place;
use shared::ids::{Identity, ParticipantSid, TrackSid};

use super::event::{ConnectionId, UnixMs};
use super::record::signed;

/// Seconds a refreshed access token is good for at least (LiveKit's).
const REFRESHED_TTL_SECS: u64 = 600;

/// Row `participant`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Participant {
    pub(super) sid: ParticipantSid,
    pub(super) identity: Identity,
    pub(super) joined_at: UnixMs,
    pub(super) version: u32,
    /// Its primary connection was up once.
    pub(super) active: bool,
    pub(super) is_publisher: bool,
    /// The token's claims; name, metadata and attributes are kept current in them.
    pub(super) claims: AccessClaims,
    pub(super) permission: proto::ParticipantPermission,
    pub(super) client: Client,
    pub(super) auto_subscribe: bool,
    /// Its client says how large it shows each video.
    #[serde(default)]
    pub(super) adaptive_stream: bool,
    pub(super) place: Option<Place>,
    pub(super) region: String,
    /// Pending and published tracks, in the order announced.
    pub(super) tracks: Vec<TrackSid>,
    /// Announcements that wait for a track of the same cid to end.
    pub(super) queued: Vec<proto::AddTrackRequest>,
    /// Who may subscribe to its tracks; `None`: everyone.
    pub(super) allowed: Option<Vec<proto::TrackPermission>>,
    pub(super) connection: Option<ConnectionId>,
    /// Since when it has no connection.
    pub(super) gone_since: Option<UnixMs>,
    /// When its access token is to be refreshed.
    pub(super) refresh_at: UnixMs,
    /// Until when no further tracks are served to it; `None`: they are.
    #[serde(default)]
    pub(super) served_from: Option<UnixMs>,
    /// Others wait to be told of it, or of its last change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) untold: bool,
    /// It is to be reached through TURN: nothing else has brought its media up.
    #[serde(default)]
    pub(super) relayed: bool,
    /// When to look which of the tracks it wished for have not come.
    #[serde(default)]
    pub(super) answer_at: Option<UnixMs>,
    /// Who it was in the room it was brought from; SDKs may name that one when they resume.
    #[serde(default)]
    pub(super) former: Option<ParticipantSid>,
}

/// What the client said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) client_protocol: i32,
    pub(super) capabilities: Vec<i32>,
    pub(super) traits: ClientTraits,
}

impl Client {
    pub(super) fn new(info: &proto::ClientInfo) -> Self {
        Self {
            client_protocol: info.client_protocol,
            capabilities: info.capabilities.clone(),
            traits: ClientTraits {
                sdk: info.sdk().as_str_name().to_lowercase(),
                protocol: u32::try_from(info.protocol).unwrap_or(0),
                browser: info.browser.to_lowercase(),
                os: info.os.to_lowercase(),
            },
        }
    }
}

impl Participant {
    /// The claims of its next token.
    pub(super) fn fresh_claims(&self, now: UnixMs) -> AccessClaims {
        let mut claims = self.claims.clone();
        claims.identity.clone_from(&claims.sub);
        claims.jti.clear();
        claims.single_use = false;
        if claims.kind.is_empty() {
            claims.kind = "standard".to_owned();
        }
        claims.iat = Some(now.secs());
        claims.nbf = Some(now.secs());
        claims.exp = claims.exp.max(now.secs() + REFRESHED_TTL_SECS);
        claims
    }

    /// Signal protocol the client speaks.
    pub(super) fn protocol(&self) -> u32 {
        self.client.traits.protocol
    }

    /// livekit-client loses what it is told between `Reconnected`, which its transport decides, and the end of its
    /// own wait for that transport: a track that is subscribed to in between stays without a `TrackSubscribed`.
    pub(super) fn loses_events_on_return(&self) -> bool {
        matches!(self.client.traits.sdk.as_str(), "js" | "react_native" | "unity_web")
    }

    /// What its SDK is told of how to connect.
    pub(super) fn client_configuration(&self) -> Option<proto::ClientConfiguration> {
        let force_relay = proto::ClientConfigSetting::Enabled.into();
        self.relayed.then(|| proto::ClientConfiguration { force_relay, ..Default::default() })
    }

    /// Agents and recorders: they do not count and do not keep a room open.
    pub(super) fn is_dependent(&self) -> bool {
        is_dependent(&self.claims)
    }

    /// It records the room.
    pub(super) fn is_recorder(&self) -> bool {
        self.claims.video.as_ref().is_some_and(|grant| grant.recorder)
    }

    /// `ParticipantInfo` of a participant that is in the room.
    pub(super) fn info(&self, tracks: Vec<proto::TrackInfo>) -> proto::ParticipantInfo {
        let state = if self.active { State::Active } else { State::Joined };
        proto::ParticipantInfo {
            sid: self.sid.to_string(),
            identity: self.identity.to_string(),
            state: state.into(),
            tracks,
            metadata: self.claims.metadata.clone(),
            joined_at: signed(self.joined_at.secs()),
            joined_at_ms: signed(self.joined_at.0),
            name: self.claims.name.clone(),
            version: self.version,
            permission: Some(self.permission.clone()),
            region: self.region.clone(),
            is_publisher: self.is_publisher,
            kind: kind(&self.claims).into(),
            attributes: self.claims.attributes.clone().into_iter().collect(),
            kind_details: self.claims.kind_details.iter().filter_map(|name| kind_detail(name)).collect(),
            client_protocol: self.client.client_protocol,
            capabilities: self.client.capabilities.clone(),
            ..Default::default()
        }
    }

    /// What the node enforces.
    pub(super) fn media_grants(&self) -> MediaGrants {
        media_grants(&self.claims, &self.permission)
    }

    /// Replaces what it may do, in its token's claims too: those of its next token say the same.
    #[allow(deprecated, reason = "clients still read recorder and agent here")]
    pub(super) fn permit(&mut self, permission: proto::ParticipantPermission) {
        let sources = permission.can_publish_sources.iter().filter_map(|source| TrackSource::try_from(*source).ok());
        let grant = self.claims.video.get_or_insert_default();
        grant.can_publish = Some(permission.can_publish);
        grant.can_subscribe = Some(permission.can_subscribe);
        grant.can_publish_data = Some(permission.can_publish_data);
        grant.can_publish_sources = sources.map(|source| source.as_str_name().to_lowercase()).collect();
        grant.can_update_own_metadata = Some(permission.can_update_metadata);
        grant.hidden = permission.hidden;
        grant.recorder = permission.recorder;
        grant.agent = permission.agent;
        grant.can_subscribe_metrics = Some(permission.can_subscribe_metrics);
        grant.can_manage_agent_session = Some(permission.can_manage_agent_session);
        self.permission = permission;
    }

    /// Whether a track of this source may be published.
    pub(super) fn may_publish(&self, source: proto::TrackSource) -> bool {
        let sources = &self.permission.can_publish_sources;
        self.permission.can_publish && (sources.is_empty() || sources.contains(&source.into()))
    }
}

/// What the node enforces of a permission.
pub(super) fn media_grants(claims: &AccessClaims, permission: &proto::ParticipantPermission) -> MediaGrants {
    MediaGrants {
        can_publish: permission.can_publish,
        can_subscribe: permission.can_subscribe,
        can_publish_data: permission.can_publish_data,
        hidden: permission.hidden,
        agent: is_agent(claims),
    }
}

/// A grant with its defaults filled in.
#[allow(deprecated, reason = "clients still read recorder and agent here")]
pub(super) fn permission(grant: &VideoGrant) -> proto::ParticipantPermission {
    let can_publish = grant.can_publish.unwrap_or(true);
    proto::ParticipantPermission {
        can_subscribe: grant.can_subscribe.unwrap_or(true),
        can_publish,
        can_publish_data: grant.can_publish_data.unwrap_or(can_publish),
        can_publish_sources: grant.can_publish_sources.iter().map(|name| source(name).into()).collect(),
        hidden: grant.hidden,
        recorder: grant.recorder,
        can_update_metadata: grant.can_update_own_metadata.unwrap_or(false),
        agent: grant.agent,
        can_subscribe_metrics: grant.can_subscribe_metrics.unwrap_or(false),
        can_manage_agent_session: grant.can_manage_agent_session.unwrap_or(false),
    }
}

/// Whether this token makes a participant that does not count.
pub(super) fn is_dependent(claims: &AccessClaims) -> bool {
    let recorder = claims.video.as_ref().is_some_and(|grant| grant.recorder);
    recorder || kind(claims) == Kind::Egress || is_agent(claims)
}

fn is_agent(claims: &AccessClaims) -> bool {
    kind(claims) == Kind::Agent || claims.video.as_ref().is_some_and(|grant| grant.agent)
}

fn kind(claims: &AccessClaims) -> Kind {
    Kind::from_str_name(&claims.kind.to_uppercase()).unwrap_or(Kind::Standard)
}

fn kind_detail(name: &str) -> Option<i32> {
    KindDetail::from_str_name(&name.to_uppercase()).map(Into::into)
}

/// An unknown source name grants nothing but tracks of unknown source.
fn source(name: &str) -> proto::TrackSource {
    proto::TrackSource::from_str_name(&name.to_uppercase()).unwrap_or(proto::TrackSource::Unknown)
}
