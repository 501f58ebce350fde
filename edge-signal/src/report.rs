//! What an operator is told: each report is a line of JSON in the log and counts in a data point of Workers Analytics Engine.
//! **Neither holds a token, a name or an address; a data point, which is kept for months, no id either.**

use livekit_protocol::DisconnectReason;
use serde_json::{Value, json};
use shared::control::NeedReason;
use shared::ids::{ParticipantSid, RegionName, RoomSid};

/// Something an operator may want to see or count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report<'a> {
    /// A client came in.
    Joined {
        /// Where.
        room: &'a RoomSid,
        /// Who.
        participant: &'a ParticipantSid,
        /// It was there before and says so.
        back: bool,
        /// Its SDK, as LiveKit's protocol names it.
        sdk: &'static str,
        /// The region of the node, if one was chosen for it.
        placed_in: Option<&'a RegionName>,
    },
    /// A participant is out of its room.
    Left {
        /// Where.
        room: &'a RoomSid,
        /// Who.
        participant: ParticipantSid,
        /// Why.
        reason: DisconnectReason,
        /// How long it was in the room, seconds.
        seconds: u64,
    },
    /// An access token was minted: the audit log's line.
    Minted {
        /// The token's id, its `jti`.
        token: &'a str,
        /// The API key that signed it: its name.
        api_key: &'a str,
        /// Who asked: `key`, `token` or `anybody`.
        by: &'static str,
        /// Grants that are more than a participant's own.
        powers: &'a [&'static str],
        /// It lets in once.
        single_use: bool,
        /// How long it lives, seconds.
        seconds: u64,
    },
    /// A request was refused.
    Refused {
        /// Name of the route.
        route: &'static str,
        /// HTTP status.
        status: u16,
        /// The reason's code.
        reason: &'static str,
    },
    /// A WebSocket was closed on bad input.
    Closed {
        /// Whose: `client`, `node`, `fleet` or `agent`.
        socket: &'static str,
        /// The close code.
        code: u16,
        /// Why.
        reason: &'static str,
    },
    /// A room counted something that should not happen.
    Counted {
        /// Where.
        room: &'a RoomSid,
        /// What.
        reason: &'static str,
        /// How often.
        count: u64,
    },
    /// A room ended.
    RoomOver {
        /// Which.
        room: &'a RoomSid,
        /// How long there was one, seconds.
        seconds: u64,
    },
    /// A receiver of webhooks did not take one. It goes again.
    WebhookFailed {
        /// HTTP status; `None`: no answer.
        status: Option<u16>,
        /// How often in a row.
        failures: u32,
    },
    /// Events that a receiver of webhooks will never get.
    WebhookLost {
        /// Why.
        reason: &'static str,
        /// How many.
        count: u64,
    },
    /// How many nodes a region needs, once a minute.
    Need {
        /// Which.
        region: &'a RegionName,
        /// Nodes that should take rooms.
        wanted: u32,
        /// Those that do.
        nodes: u32,
        /// Why so many.
        why: NeedReason,
    },
    /// Something about an agent's worker that an operator may have to look at.
    Agents {
        /// What.
        reason: &'static str,
    },
    /// An object's rows were written by an older version and are written anew.
    Migrated {
        /// How many.
        rows: usize,
    },
}

/// A data point. **What stands where never changes: queries are made of it.**
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// `index1` (and `blob1`), by which the platform samples when there are too many.
    pub event: &'static str,
    /// `blob2`.
    pub reason: String,
    /// `blob3`: the route of a refusal, the kind of a WebSocket, the region a join was placed in.
    pub place: String,
    /// `blob4`: the SDK of a join.
    pub sdk: &'static str,
    /// `double1`.
    pub count: u64,
    /// `double2`: the seconds of all that are counted.
    pub seconds: u64,
}

impl Report<'_> {
    /// Its line in the log.
    #[must_use]
    pub fn log_line(&self) -> String {
        let event = self.event();
        let line: Value = match self {
            Self::Joined { room, participant, back, sdk, placed_in } => json!({
                "event": event, "room": room, "participant": participant, "back": back, "sdk": sdk, "placed_in": placed_in,
            }),
            Self::Left { room, participant, reason, seconds } => json!({
                "event": event, "room": room, "participant": participant, "reason": name_of(*reason), "seconds": seconds,
            }),
            Self::Minted { token, api_key, by, powers, single_use, seconds } => json!({
                "event": event, "token": token, "api_key": api_key, "by": by, "grants": powers, "single_use": single_use,
                "seconds": seconds,
            }),
            Self::Refused { route, status, reason } => {
                json!({ "event": event, "route": route, "status": status, "reason": reason })
            }
            Self::Closed { socket, code, reason } => {
                json!({ "event": event, "socket": socket, "code": code, "reason": reason })
            }
            Self::Counted { room, reason, count } => {
                json!({ "event": event, "reason": reason, "count": count, "room": room })
            }
            Self::RoomOver { room, seconds } => json!({ "event": event, "room": room, "seconds": seconds }),
            Self::WebhookFailed { status, failures } => {
                json!({ "event": event, "status": status, "failures": failures })
            }
            Self::WebhookLost { reason, count } => json!({ "event": event, "reason": reason, "count": count }),
            Self::Need { region, wanted, nodes, why } => {
                json!({ "event": event, "region": region, "wanted": wanted, "nodes": nodes, "reason": why })
            }
            Self::Agents { reason } => json!({ "event": event, "reason": reason }),
            Self::Migrated { rows } => json!({ "event": event, "rows": rows }),
        };
        line.to_string()
    }

    fn event(&self) -> &'static str {
        match self {
            Self::Joined { .. } => "joined",
            Self::Left { .. } => "left",
            Self::Minted { .. } => "minted",
            Self::Refused { .. } => "refused",
            Self::Closed { .. } => "closed",
            Self::Counted { .. } => "counted",
            Self::RoomOver { .. } => "room_over",
            Self::WebhookFailed { .. } => "webhook_failed",
            Self::WebhookLost { .. } => "webhook_lost",
            Self::Need { .. } => "need",
            Self::Agents { .. } => "agents",
            Self::Migrated { .. } => "migrated",
        }
    }

    fn point(&self) -> Point {
        let (reason, place, sdk) = match self {
            Self::Joined { back, sdk, placed_in, .. } => {
                let place = placed_in.map(ToString::to_string).unwrap_or_default();
                ((if *back { "back" } else { "new" }).to_owned(), place, *sdk)
            }
            Self::Left { reason, .. } => (name_of(*reason), String::new(), ""),
            Self::Minted { by, .. } => ((*by).to_owned(), String::new(), ""),
            Self::Refused { route, reason, .. } => ((*reason).to_owned(), (*route).to_owned(), ""),
            Self::Closed { socket, reason, .. } => ((*reason).to_owned(), (*socket).to_owned(), ""),
            Self::Counted { reason, .. } => ((*reason).to_owned(), String::new(), ""),
            Self::WebhookFailed { status, .. } => {
                (status.map_or("no_answer".to_owned(), |status| status.to_string()), String::new(), "")
            }
            Self::Agents { reason } => ((*reason).to_owned(), String::new(), ""),
            Self::WebhookLost { reason, .. } => ((*reason).to_owned(), String::new(), ""),
            Self::Need { region, why, .. } => (why_of(*why).to_owned(), region.to_string(), ""),
            Self::RoomOver { .. } | Self::Migrated { .. } => (String::new(), String::new(), ""),
        };
        let count = match self {
            Self::Counted { count, .. } | Self::WebhookLost { count, .. } => *count,
            Self::Need { wanted, .. } => (*wanted).into(),
            _ => 1,
        };
        let seconds = if let Self::Left { seconds, .. } | Self::RoomOver { seconds, .. } = self { *seconds } else { 0 };
        Point { event: self.event(), reason, place, sdk, count, seconds }
    }
}

/// The data points of what one event brought: **as many as there are kinds, however many participants it concerns.**
#[must_use]
pub fn points(reports: &[Report<'_>]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for point in reports.iter().map(Report::point) {
        let kind = |point: &Point| (point.event, point.reason.clone(), point.place.clone(), point.sdk);
        match points.iter_mut().find(|known| kind(known) == kind(&point)) {
            Some(known) => {
                known.count = known.count.saturating_add(point.count);
                known.seconds = known.seconds.saturating_add(point.seconds);
            }
            None => points.push(point),
        }
    }
    points
}

pub(crate) fn why_of(why: NeedReason) -> &'static str {
    match why {
        NeedReason::Fits => "fits",
        NeedReason::Load => "load",
        NeedReason::Draining => "draining",
        NeedReason::Idle => "idle",
    }
}

/// LiveKit's name of it, in the case of all other reasons.
fn name_of(reason: DisconnectReason) -> String {
    reason.as_str_name().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use shared::ids::RANDOM_LEN;

    use super::*;

    fn sids() -> (RoomSid, ParticipantSid) {
        (RoomSid::from_random([1; RANDOM_LEN]), ParticipantSid::from_random([2; RANDOM_LEN]))
    }

    #[test]
    fn a_line_says_all_and_a_point_no_id() {
        let (room, participant) = sids();
        let region = RegionName::try_from("fra").unwrap();
        let reports = [
            Report::Joined { room: &room, participant: &participant, back: false, sdk: "JS", placed_in: Some(&region) },
            Report::Left {
                room: &room,
                participant: participant.clone(),
                reason: DisconnectReason::ClientInitiated,
                seconds: 61,
            },
            Report::Refused { route: "token", status: 400, reason: "body_malformed" },
            Report::Closed { socket: "node", code: 4400, reason: "message_malformed" },
            Report::Counted { room: &room, reason: "bad_message", count: 3 },
            Report::RoomOver { room: &room, seconds: 3600 },
            Report::Migrated { rows: 7 },
            Report::WebhookFailed { status: Some(503), failures: 2 },
            Report::WebhookLost { reason: "too_old", count: 1 },
            Report::Need { region: &region, wanted: 4, nodes: 3, why: NeedReason::Load },
            Report::Minted {
                token: "aToken",
                api_key: "devkey",
                by: "key",
                powers: &["roomAdmin"],
                single_use: true,
                seconds: 60,
            },
            Report::Agents { reason: "job_lost" },
        ];
        let lines: Vec<Value> =
            reports.iter().map(|report| serde_json::from_str(&report.log_line()).unwrap()).collect();
        let expected = json!({
            "event": "left", "room": room, "participant": participant, "reason": "client_initiated", "seconds": 61,
        });
        assert_eq!(lines[1], expected);
        assert_eq!(
            lines[2],
            json!({ "event": "refused", "route": "token", "status": 400, "reason": "body_malformed" })
        );
        let minted = json!({
            "event": "minted", "token": "aToken", "api_key": "devkey", "by": "key", "grants": ["roomAdmin"],
            "single_use": true, "seconds": 60,
        });
        assert_eq!(lines[10], minted);
        let points = points(&reports);
        assert_eq!(points.len(), reports.len());
        assert!(!format!("{points:?}").contains("aToken"));
        for (point, line) in points.iter().zip(&lines) {
            assert_eq!(line["event"], point.event);
            let text = format!("{point:?}");
            assert!(!text.contains(room.as_str()) && !text.contains(participant.as_str()), "{text}");
        }
        let joined = Point {
            event: "joined",
            reason: "new".to_owned(),
            place: "fra".to_owned(),
            sdk: "JS",
            count: 1,
            seconds: 0,
        };
        assert_eq!(points[0], joined);
        assert_eq!((points[4].count, points[5].seconds), (3, 3600));
        assert_eq!((points[9].reason.as_str(), points[9].place.as_str(), points[9].count), ("load", "fra", 4));
        assert_eq!(lines[9]["reason"], "load");
    }

    #[test]
    fn a_thousand_who_leave_for_one_reason_are_one_point() {
        let (room, participant) = sids();
        let left = |reason| Report::Left { room: &room, participant: participant.clone(), reason, seconds: 10 };
        let mut reports = vec![left(DisconnectReason::RoomDeleted); 1000];
        reports.push(left(DisconnectReason::ClientInitiated));
        let told: Vec<(String, u64, u64)> =
            points(&reports).into_iter().map(|point| (point.reason, point.count, point.seconds)).collect();
        let expected = [("room_deleted".to_owned(), 1000, 10_000), ("client_initiated".to_owned(), 1, 10)];
        assert_eq!(told, expected);
    }
}
