//! The query of `/rtc`, `/rtc/v1` and their `validate`, as a join.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use livekit_protocol::client_info::{Capability, Sdk};
use livekit_protocol::{ClientInfo, ConnectionSettings, JoinRequest};

use super::join_request;
use super::route::Signaling;
use crate::refusal::{Reason, Refusal};

/// A query string, decoded; parameters unknown to LiveKit are kept and ignored.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

/// What a client asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The join.
    pub request: JoinRequest,
    /// One peer connection or two.
    pub single_peer_connection: bool,
}

impl Query {
    /// Splits a query string.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter; empty values count as absent.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// What the client asks on this path.
    ///
    /// # Errors
    /// 400 with the reason.
    pub fn ask(&self, signaling: Signaling) -> Result<Ask, Refusal> {
        match (signaling, self.value("join_request")) {
            (Signaling::Single, parameter) => {
                Ok(Ask { request: join_request::decode(parameter.unwrap_or_default())?, single_peer_connection: true })
            }
            (Signaling::Dual, Some(parameter)) => {
                Ok(Ask { request: join_request::decode(parameter)?, single_peer_connection: true })
            }
            (Signaling::Dual, None) => Ok(Ask { request: self.parameters()?, single_peer_connection: false }),
        }
    }

    fn parameters(&self) -> Result<JoinRequest, Refusal> {
        let text = |name: &str| self.value(name).unwrap_or_default().to_owned();
        let flag = |name: &str| matches!(self.value(name), Some("1" | "true"));
        let number = |name: &str| self.value(name).and_then(|value| value.parse().ok()).unwrap_or_default();
        let optional = |name: &str| self.value(name).map(|_| flag(name));
        let client = ClientInfo {
            sdk: sdk(self.value("sdk").unwrap_or_default()) as i32,
            version: text("version"),
            protocol: number("protocol"),
            os: text("os"),
            os_version: text("os_version"),
            device_model: text("device_model"),
            browser: text("browser"),
            browser_version: text("browser_version"),
            network: text("network"),
            client_protocol: number("client_protocol"),
            capabilities: text("capabilities")
                .split(',')
                .filter_map(|name| Capability::from_str_name(name.trim()))
                .map(i32::from)
                .collect(),
            ..ClientInfo::default()
        };
        let settings = ConnectionSettings {
            auto_subscribe: optional("auto_subscribe").unwrap_or(true),
            adaptive_stream: flag("adaptive_stream"),
            subscriber_allow_pause: optional("subscriber_allow_pause"),
            disable_ice_lite: flag("disable_ice_lite"),
            auto_subscribe_data_track: optional("auto_subscribe_data_track"),
        };
        Ok(JoinRequest {
            client_info: Some(client),
            connection_settings: Some(settings),
            participant_attributes: self.value("attributes").map(attributes).transpose()?.unwrap_or_default(),
            reconnect: flag("reconnect"),
            reconnect_reason: number("reconnect_reason"),
            participant_sid: text("sid"),
            ..JoinRequest::default()
        })
    }
}

fn attributes(parameter: &str) -> Result<std::collections::HashMap<String, String>, Refusal> {
    let bytes = URL_SAFE.decode(parameter).or_else(|_| URL_SAFE_NO_PAD.decode(parameter));
    let bytes = bytes.map_err(|_| Refusal::new(Reason::AttributesMalformed, "cannot base64 decode attributes"))?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::new(Reason::AttributesMalformed, "cannot unmarshal attributes"))
}

fn sdk(name: &str) -> Sdk {
    match name {
        "js" => Sdk::Js,
        "ios" | "swift" => Sdk::Swift,
        "android" => Sdk::Android,
        "flutter" => Sdk::Flutter,
        "go" => Sdk::Go,
        "unity" => Sdk::Unity,
        "reactnative" => Sdk::ReactNative,
        "rust" => Sdk::Rust,
        "python" => Sdk::Python,
        "cpp" => Sdk::Cpp,
        "unityweb" => Sdk::UnityWeb,
        "node" => Sdk::Node,
        "esp32" => Sdk::Esp32,
        _ => Sdk::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_dual_path() {
        let query = Query::parse(
            "access_token=x&auto_subscribe=0&sdk=swift&protocol=16&reconnect=1&sid=PA_x&reconnect_reason=2\
             &capabilities=CAP_PACKET_TRAILER,NEW&attributes=eyJhIjoiYiJ9&adaptive_stream=yes&unknown=1",
        );
        let ask = query.ask(Signaling::Dual).unwrap();
        assert!(!ask.single_peer_connection);
        let client = ask.request.client_info.unwrap();
        assert_eq!((client.sdk(), client.protocol), (Sdk::Swift, 16));
        assert_eq!(client.capabilities, [Capability::CapPacketTrailer as i32]);
        let settings = ask.request.connection_settings.unwrap();
        assert!(!settings.auto_subscribe && !settings.adaptive_stream);
        assert_eq!((ask.request.reconnect, ask.request.reconnect_reason), (true, 2));
        assert_eq!(ask.request.participant_sid, "PA_x");
        assert_eq!(ask.request.participant_attributes.get("a").map(String::as_str), Some("b"));
    }

    #[test]
    fn dual_clients_subscribe_unless_they_say_no() {
        let settings = |query: &str| {
            Query::parse(query).ask(Signaling::Dual).unwrap().request.connection_settings.unwrap().auto_subscribe
        };
        assert!(settings(""));
        assert!(settings("auto_subscribe=true"));
        assert!(!settings("auto_subscribe=false"));
    }

    #[test]
    fn a_join_request_makes_it_single() {
        let query = Query::parse("join_request=CAASAA%3D%3D");
        assert!(query.ask(Signaling::Dual).unwrap().single_peer_connection);
        assert!(query.ask(Signaling::Single).unwrap().single_peer_connection);
        let refusal = Query::parse("").ask(Signaling::Single).unwrap_err();
        assert_eq!(refusal, Refusal::new(Reason::JoinRequestMissing, "join_request is required"));
    }

    #[test]
    fn attributes_must_be_a_map_of_strings() {
        for bad in ["attributes=!!", "attributes=W10=", "attributes=eyJhIjoxfQ=="] {
            assert_eq!(
                Query::parse(bad).ask(Signaling::Dual).unwrap_err().reason,
                Reason::AttributesMalformed,
                "{bad}"
            );
        }
    }
}
