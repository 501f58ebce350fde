//! Which path is what.

use shared::control::{
    ADDRESS_PATH, ADMIT_PATH, DRAIN_PATH, ENROL_PATH, FLEET_LINK_PATH, NEED_PATH, NODES_PATH, REVOKE_PATH,
    ROOM_LINK_PATH,
};

use super::twirp;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Opens a client's signaling WebSocket.
    Rtc(Signaling),
    /// Says whether that would be let in.
    Validate(Signaling),
    /// The server API.
    Twirp,
    /// An agent worker's WebSocket.
    Agent,
    /// Mints access tokens.
    Token,
    /// The public keys of session tokens.
    Jwks,
    /// Tells a node its address.
    Address,
    /// Lets nodes enrol from addresses.
    Admit,
    /// Enrols a node's key.
    Enrol,
    /// Revokes a node's key.
    Revoke,
    /// Has a node drain.
    Drain,
    /// Tells an operator which nodes there are.
    Nodes,
    /// Tells how many nodes each region needs.
    Need,
    /// A node's link to the fleet object.
    FleetLink,
    /// A node's link to a room object.
    RoomLink,
    /// What the deployment has and needs, for Prometheus.
    Metrics,
    /// The Worker runs and is configured.
    Health,
    /// The description of all that is ours.
    Description,
    /// LiveKit Cloud's region list, which this is not: 404.
    Regions,
    /// `/`: the meeting page, and the probe of clients that come online again.
    Root,
    /// A static file, or nothing.
    Asset,
}

/// How many peer connections the client's signaling is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signaling {
    /// `/rtc/v1`: one; everything stands in `join_request`.
    Single,
    /// `/rtc`: two, unless `join_request` is there.
    Dual,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 22] = [
        Self::Rtc(Signaling::Single),
        Self::Rtc(Signaling::Dual),
        Self::Validate(Signaling::Single),
        Self::Validate(Signaling::Dual),
        Self::Twirp,
        Self::Token,
        Self::Jwks,
        Self::Address,
        Self::Admit,
        Self::Enrol,
        Self::Revoke,
        Self::Drain,
        Self::Nodes,
        Self::Need,
        Self::FleetLink,
        Self::RoomLink,
        Self::Metrics,
        Self::Health,
        Self::Description,
        Self::Regions,
        Self::Root,
        Self::Asset,
    ];

    /// The route of a URL's path. Old SDKs double the leading slash.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let path = path.strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(path);
        match path {
            "/rtc/v1" => Self::Rtc(Signaling::Single),
            "/rtc" => Self::Rtc(Signaling::Dual),
            "/rtc/v1/validate" => Self::Validate(Signaling::Single),
            "/rtc/validate" => Self::Validate(Signaling::Dual),
            _ if path.starts_with(twirp::PREFIX) => Self::Twirp,
            "/agent" => Self::Agent,
            "/token" => Self::Token,
            "/.well-known/jwks.json" => Self::Jwks,
            ADDRESS_PATH => Self::Address,
            ADMIT_PATH => Self::Admit,
            ENROL_PATH => Self::Enrol,
            REVOKE_PATH => Self::Revoke,
            DRAIN_PATH => Self::Drain,
            NODES_PATH => Self::Nodes,
            NEED_PATH => Self::Need,
            FLEET_LINK_PATH => Self::FleetLink,
            ROOM_LINK_PATH => Self::RoomLink,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/openapi.json" => Self::Description,
            "/settings/regions" => Self::Regions,
            "/" => Self::Root,
            _ => Self::Asset,
        }
    }

    /// The binding that limits how often one client may ask, if one does. An environment need not have it.
    #[must_use]
    pub fn limit(self) -> Option<&'static str> {
        match self {
            Self::Rtc(_) | Self::Validate(_) | Self::Agent | Self::Token => Some("JOIN_LIMIT"),
            Self::Address
            | Self::Admit
            | Self::Enrol
            | Self::Revoke
            | Self::Drain
            | Self::Nodes
            | Self::Need
            | Self::Metrics => Some("DOOR_LIMIT"),
            // A node's links are its lifeline, and cost nothing that is not checked first.
            Self::FleetLink | Self::RoomLink => None,
            // App servers ask for all their rooms from one address.
            Self::Twirp => None,
            Self::Jwks | Self::Health | Self::Description | Self::Regions | Self::Root | Self::Asset => None,
        }
    }

    /// The methods that a route of ours takes, as the `Allow` header has them (RFC 9110 section 10.2.1). LiveKit's routes
    /// answer a wrong method in their own way.
    #[must_use]
    pub fn allow(self) -> Option<&'static str> {
        match self {
            Self::Token | Self::Admit | Self::Enrol | Self::Revoke | Self::Drain | Self::Nodes | Self::Need => {
                Some("POST")
            }
            Self::Jwks | Self::Address | Self::Health | Self::Description => Some("GET, HEAD"),
            Self::FleetLink | Self::RoomLink | Self::Metrics => Some("GET"),
            Self::Rtc(_) | Self::Validate(_) | Self::Agent | Self::Twirp | Self::Regions | Self::Root | Self::Asset => {
                None
            }
        }
    }

    /// Whether it takes this method.
    #[must_use]
    pub fn takes(self, method: &str) -> bool {
        self.allow().is_none_or(|allow| allow.split(", ").any(|allowed| allowed == method))
    }

    /// Its name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtc(Signaling::Single) => "rtc_v1",
            Self::Rtc(Signaling::Dual) => "rtc",
            Self::Validate(Signaling::Single) => "rtc_v1_validate",
            Self::Validate(Signaling::Dual) => "rtc_validate",
            Self::Twirp => "twirp",
            Self::Agent => "agent",
            Self::Token => "token",
            Self::Jwks => "jwks",
            Self::Address => "node_address",
            Self::Admit => "node_admit",
            Self::Enrol => "node_enrol",
            Self::Revoke => "node_revoke",
            Self::Drain => "node_drain",
            Self::Nodes => "node_list",
            Self::Need => "node_need",
            Self::FleetLink => "node_fleet",
            Self::RoomLink => "node_room",
            Self::Metrics => "metrics",
            Self::Health => "healthz",
            Self::Description => "openapi",
            Self::Regions => "settings_regions",
            Self::Root => "root",
            Self::Asset => "asset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_of_ours_takes_its_own_methods() {
        assert!(Route::Token.takes("POST") && !Route::Token.takes("GET"));
        assert!(Route::Jwks.takes("GET") && Route::Jwks.takes("HEAD") && !Route::Jwks.takes("POST"));
        assert!(Route::Twirp.takes("GET"), "it has words of its own for that");
    }

    #[test]
    fn paths() {
        assert_eq!(Route::of("/rtc"), Route::Rtc(Signaling::Dual));
        assert_eq!(Route::of("//rtc"), Route::Rtc(Signaling::Dual));
        assert_eq!(Route::of("//rtc/v1"), Route::Rtc(Signaling::Single));
        assert_eq!(Route::of("/rtc/v1/validate"), Route::Validate(Signaling::Single));
        assert_eq!(Route::of("/"), Route::Root);
        assert_eq!(Route::of("/rtc/v2"), Route::Asset);
        assert_eq!(Route::of("//twirp/livekit.RoomService/ListRooms"), Route::Twirp);
        assert_eq!(Route::of("/node/room"), Route::RoomLink);
    }
}
