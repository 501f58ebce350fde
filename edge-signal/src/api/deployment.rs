//! Keys and settings of a deployment, checked once. **What is missing or too weak stops every request with one reason.**

use shared::claims::ApiKeys;

use crate::ice_servers::{self, IceServers};
use crate::signing::SigningKeys;
use crate::webhook::{self, Webhooks};

/// Name of the variable with `key: secret` lines.
pub const API_KEYS: &str = "API_KEYS";
/// Name of the secret that signs enrolment tokens.
pub const FLEET_SECRET: &str = "FLEET_SECRET";
/// Name of the secret with the private JWK that signs session tokens and tickets, or with a set of which the first one does.
pub const SESSION_SIGNING_KEY: &str = "SESSION_SIGNING_KEY";
/// Name of the variable that lets anybody join any room (`true`): for local use and demonstrations.
pub const OPEN_MEETINGS: &str = "OPEN_MEETINGS";

/// Name of the variable that leaves the tokens of removed participants good (`true`), as LiveKit does.
pub const KEEP_TOKENS_OF_REMOVED: &str = "KEEP_TOKENS_OF_REMOVED";

/// Name of the variable with the URLs that webhooks go to.
pub const WEBHOOK_URLS: &str = "WEBHOOK_URLS";
/// Name of the variable with the API key that signs webhooks; without it the first one does.
pub const WEBHOOK_API_KEY: &str = "WEBHOOK_API_KEY";

/// Name of the variable with the `stun:` URLs that clients are told.
pub const STUN_URLS: &str = "STUN_URLS";
/// Name of the variable with the `turn:` and `turns:` URLs that clients are told.
pub const TURN_URLS: &str = "TURN_URLS";
/// Name of the secret that the TURN servers share with the edge.
pub const TURN_SECRET: &str = "TURN_SECRET";

/// Name of the secret that whoever reads `/metrics` shows; without it nobody does.
pub const METRICS_TOKEN: &str = "METRICS_TOKEN";

/// Fewest bytes of the fleet secret: it alone lets a node in (HMAC-SHA256, RFC 2104 section 3). And of the token for metrics.
const MIN_FLEET_SECRET: usize = 32;
/// Fewest bytes of an API secret before a warning (LiveKit's).
const MIN_API_SECRET: usize = 32;

/// What a deployment is configured with.
pub struct Deployment {
    /// API keys.
    pub keys: ApiKeys,
    /// Session tokens and tickets.
    pub signing: SigningKeys,
    /// Verifies enrolment tokens.
    pub fleet_secret: String,
    /// Anybody may get a token.
    pub open_meetings: bool,
    /// Who was removed may come again with the token it has.
    pub keep_tokens_of_removed: bool,
    /// Where webhooks go.
    pub webhooks: Webhooks,
    /// Which servers help clients to reach nodes.
    pub ice_servers: IceServers,
    /// Lets its holder read what the deployment has and needs.
    pub metrics_token: Option<String>,
    /// What an operator should mend, though it works.
    pub warnings: Vec<String>,
}

/// What an operator has to set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeploymentError {
    /// Not there, or empty.
    #[error("the deployment is not configured: {0} is missing")]
    Missing(&'static str),
    /// Not in the form it must have.
    #[error("the deployment is not configured: {0} is malformed")]
    Malformed(&'static str),
    /// Guessable.
    #[error("the deployment is not configured: {0} is shorter than {MIN_FLEET_SECRET} bytes")]
    Weak(&'static str),
}

impl Deployment {
    /// Reads it from variables and secrets.
    ///
    /// # Errors
    /// The first that is missing, malformed or weak.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, DeploymentError> {
        let required = |name| variable(name).filter(|v| !v.trim().is_empty()).ok_or(DeploymentError::Missing(name));
        let keys = ApiKeys::parse(&required(API_KEYS)?);
        let Some((first, _)) = keys.first() else { return Err(DeploymentError::Malformed(API_KEYS)) };
        let short = keys.secret(first).is_some_and(|secret| secret.len() < MIN_API_SECRET);
        let warning =
            format!("the secret of API key {first} is shorter than {MIN_API_SECRET} bytes: for local use only");
        let warnings = if short { vec![warning] } else { Vec::new() };
        let fleet_secret = required(FLEET_SECRET)?;
        if fleet_secret.len() < MIN_FLEET_SECRET {
            return Err(DeploymentError::Weak(FLEET_SECRET));
        }
        let signing = SigningKeys::parse(&required(SESSION_SIGNING_KEY)?);
        let signing = signing.map_err(|_| DeploymentError::Malformed(SESSION_SIGNING_KEY))?;
        let webhooks = Webhooks::read(&keys, variable(WEBHOOK_URLS).as_deref(), variable(WEBHOOK_API_KEY).as_deref());
        let webhooks = webhooks.map_err(|error| match error {
            webhook::Malformed::Url => DeploymentError::Malformed(WEBHOOK_URLS),
            webhook::Malformed::Key => DeploymentError::Malformed(WEBHOOK_API_KEY),
        })?;
        let ice_servers = [STUN_URLS, TURN_URLS, TURN_SECRET].map(&variable);
        let [stun, turn, secret] = ice_servers.each_ref().map(Option::as_deref);
        let ice_servers = IceServers::read(stun, turn, secret).map_err(|error| match error {
            ice_servers::Malformed::Stun => DeploymentError::Malformed(STUN_URLS),
            ice_servers::Malformed::Turn => DeploymentError::Malformed(TURN_URLS),
            ice_servers::Malformed::Secret => DeploymentError::Missing(TURN_SECRET),
        })?;
        let metrics_token = variable(METRICS_TOKEN).filter(|token| !token.is_empty());
        if metrics_token.as_ref().is_some_and(|token| token.len() < MIN_FLEET_SECRET) {
            return Err(DeploymentError::Weak(METRICS_TOKEN));
        }
        let is_set = |name| variable(name).as_deref() == Some("true");
        let (open_meetings, keep_tokens_of_removed) = (is_set(OPEN_MEETINGS), is_set(KEEP_TOKENS_OF_REMOVED));
        Ok(Self {
            keys,
            signing,
            fleet_secret,
            open_meetings,
            keep_tokens_of_removed,
            webhooks,
            ice_servers,
            metrics_token,
            warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.1.
    const JWK: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"k","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn read(change: (&str, &str)) -> Result<Deployment, DeploymentError> {
        Deployment::read(|name| {
            let value = match name {
                _ if name == change.0 => change.1,
                API_KEYS => "devkey: secret",
                FLEET_SECRET => "0123456789abcdef0123456789abcdef",
                SESSION_SIGNING_KEY => JWK,
                _ => return None,
            };
            Some(value.to_owned())
        })
    }

    #[test]
    fn a_good_one() {
        let deployment = read(("", "")).ok().unwrap();
        assert!(!deployment.open_meetings);
        assert_eq!(deployment.warnings.len(), 1);
        assert_eq!(deployment.signing.signer().public_jwk().kid, "k");
        assert!(read((OPEN_MEETINGS, "true")).ok().unwrap().open_meetings);
        assert!(!read((OPEN_MEETINGS, "yes")).ok().unwrap().open_meetings);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for name in [API_KEYS, FLEET_SECRET, SESSION_SIGNING_KEY] {
            assert_eq!(read((name, " ")).err(), Some(DeploymentError::Missing(name)));
        }
        assert_eq!(read((API_KEYS, "devkey")).err(), Some(DeploymentError::Malformed(API_KEYS)));
        assert_eq!(read((WEBHOOK_URLS, "no url")).err(), Some(DeploymentError::Malformed(WEBHOOK_URLS)));
        assert_eq!(read((STUN_URLS, "turn:host")).err(), Some(DeploymentError::Malformed(STUN_URLS)));
        assert_eq!(read((TURN_URLS, "turn:host")).err(), Some(DeploymentError::Missing(TURN_SECRET)));
        for name in [FLEET_SECRET, METRICS_TOKEN] {
            assert_eq!(read((name, "short")).err(), Some(DeploymentError::Weak(name)));
        }
        let malformed = Some(DeploymentError::Malformed(SESSION_SIGNING_KEY));
        assert_eq!(read((SESSION_SIGNING_KEY, "{}")).err(), malformed);
    }
}
