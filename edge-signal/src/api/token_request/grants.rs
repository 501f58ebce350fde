//! What a minted token allows beyond joining its room. **Nobody gives what it does not have.**

use serde::Deserialize;
use shared::claims::VideoGrant;

/// LiveKit's `VideoGrant` less `roomJoin` and `room`, which every minted token has. A name that is not known is refused: a
/// slip in `canPublish: false` must not let somebody publish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Grants {
    can_publish: Option<bool>,
    can_publish_sources: Vec<String>,
    can_subscribe: Option<bool>,
    can_publish_data: Option<bool>,
    can_update_own_metadata: Option<bool>,
    can_subscribe_metrics: Option<bool>,
    can_manage_agent_session: Option<bool>,
    hidden: bool,
    recorder: bool,
    agent: bool,
    room_create: bool,
    room_list: bool,
    room_record: bool,
    room_admin: bool,
    ingress_admin: bool,
    destination_room: String,
}

impl Grants {
    /// Those that are more than a participant's own: of them a caller gives only what it has.
    #[must_use]
    pub fn powers(&self) -> Vec<&'static str> {
        let all = [
            ("hidden", self.hidden),
            ("recorder", self.recorder),
            ("agent", self.agent),
            ("roomCreate", self.room_create),
            ("roomList", self.room_list),
            ("roomRecord", self.room_record),
            ("roomAdmin", self.room_admin),
            ("ingressAdmin", self.ingress_admin),
            ("destinationRoom", !self.destination_room.is_empty()),
            ("canManageAgentSession", self.can_manage_agent_session == Some(true)),
        ];
        all.into_iter().filter(|(_, asked)| *asked).map(|(name, _)| name).collect()
    }

    /// The first power for `room` that a holder of `own` has not.
    #[must_use]
    pub fn beyond(&self, own: &VideoGrant, room: &str) -> Option<&'static str> {
        let has = |power: &str| match power {
            "hidden" => own.hidden,
            "recorder" => own.recorder,
            "agent" => own.agent,
            "roomCreate" => own.room_create,
            "roomList" => own.room_list,
            "roomRecord" => own.room_record,
            "roomAdmin" => own.room_admin && own.room == room,
            "ingressAdmin" => own.ingress_admin,
            "destinationRoom" => own.room == room && own.destination_room == self.destination_room,
            _ => own.can_manage_agent_session == Some(true) && own.room == room,
        };
        self.powers().into_iter().find(|power| !has(power))
    }

    /// The grant of a token for `room`.
    #[must_use]
    pub fn in_room(self, room: String) -> VideoGrant {
        VideoGrant {
            room_join: true,
            room,
            room_create: self.room_create,
            room_list: self.room_list,
            room_record: self.room_record,
            room_admin: self.room_admin,
            ingress_admin: self.ingress_admin,
            destination_room: self.destination_room,
            can_publish: self.can_publish,
            can_publish_sources: self.can_publish_sources,
            can_subscribe: self.can_subscribe,
            can_publish_data: self.can_publish_data,
            can_update_own_metadata: self.can_update_own_metadata,
            hidden: self.hidden,
            recorder: self.recorder,
            agent: self.agent,
            can_subscribe_metrics: self.can_subscribe_metrics,
            can_manage_agent_session: self.can_manage_agent_session,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn all() -> Value {
        json!({
            "canPublish": false, "canPublishSources": ["microphone"], "canSubscribe": false, "canPublishData": false,
            "canUpdateOwnMetadata": true, "canSubscribeMetrics": true, "canManageAgentSession": true, "hidden": true,
            "recorder": true, "agent": true, "roomCreate": true, "roomList": true, "roomRecord": true, "roomAdmin": true,
            "ingressAdmin": true, "destinationRoom": "attic",
        })
    }

    #[test]
    fn every_grant_comes_through() {
        let grants: Grants = serde_json::from_value(all()).unwrap();
        let mut granted = serde_json::to_value(grants.in_room("den".into())).unwrap();
        let fields = granted.as_object_mut().unwrap();
        assert_eq!((fields.remove("roomJoin"), fields.remove("room")), (Some(json!(true)), Some(json!("den"))));
        assert_eq!(granted, all());
        assert!(serde_json::from_value::<Grants>(json!({ "canPublsh": false })).is_err());
        assert!(serde_json::from_value::<Grants>(json!({ "room": "attic" })).is_err());
    }

    #[test]
    fn nobody_gives_a_power_that_it_has_not() {
        let grants: Grants = serde_json::from_value(all()).unwrap();
        let mut own = grants.clone().in_room("den".into());
        assert_eq!(grants.beyond(&own, "den"), None);
        assert_eq!(grants.beyond(&own, "attic"), Some("roomAdmin"), "an admin of one room is none of another");
        own.destination_room = "cellar".into();
        assert_eq!(grants.beyond(&own, "den"), Some("destinationRoom"));
        assert_eq!(grants.powers().len(), 10);
        for power in grants.powers() {
            let value = if power == "destinationRoom" { json!("attic") } else { json!(true) };
            let one: Grants = serde_json::from_value(json!({ power: value })).unwrap();
            assert_eq!(one.beyond(&VideoGrant::default(), "den"), Some(power));
        }
        let own_affairs = json!({ "canPublish": false, "canUpdateOwnMetadata": true, "canSubscribeMetrics": true });
        let own_affairs: Grants = serde_json::from_value(own_affairs).unwrap();
        assert_eq!(own_affairs.beyond(&VideoGrant::default(), "den"), None);
    }
}
