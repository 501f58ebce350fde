//! Cross-origin answers as LiveKit's server gives them.

/// How long a browser may remember a preflight, seconds (LiveKit's).
const MAX_AGE_SECS: &str = "86400";

/// The headers of a request that matter for cross-origin calls.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// `Origin`.
    pub origin: Option<String>,
    /// `Access-Control-Request-Method`, on a preflight.
    pub method: Option<String>,
    /// `Access-Control-Request-Headers`, on a preflight.
    pub headers: Option<String>,
}

impl Origin {
    /// The headers to add to any answer; `any` is for `validate`, which is open to all origins.
    #[must_use]
    pub fn answer(&self, any: bool) -> Vec<(&'static str, String)> {
        let mut headers = vec![("Vary", "Origin".to_owned())];
        match &self.origin {
            _ if any => headers.push(("Access-Control-Allow-Origin", "*".to_owned())),
            Some(origin) => {
                headers.push(("Access-Control-Allow-Origin", origin.clone()));
                headers.push(("Access-Control-Expose-Headers", "*".to_owned()));
            }
            None => {}
        }
        headers
    }

    /// The headers of a preflight's answer (204); `None` when the request is no preflight.
    #[must_use]
    pub fn preflight(&self) -> Option<Vec<(&'static str, String)>> {
        let method = self.method.clone()?;
        let mut headers = self.answer(false);
        headers.push(("Access-Control-Allow-Methods", method));
        if let Some(asked) = &self.headers {
            headers.push(("Access-Control-Allow-Headers", asked.clone()));
        }
        headers.push(("Access-Control-Max-Age", MAX_AGE_SECS.to_owned()));
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(headers: &'a [(&str, String)], name: &str) -> Option<&'a str> {
        headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn origin_is_echoed_or_left_out() {
        let origin = Origin { origin: Some("https://app.example".into()), ..Origin::default() };
        let headers = origin.answer(false);
        assert_eq!(value(&headers, "Access-Control-Allow-Origin"), Some("https://app.example"));
        assert_eq!(value(&headers, "Access-Control-Expose-Headers"), Some("*"));
        assert_eq!(value(&headers, "Vary"), Some("Origin"));
        let headers = Origin::default().answer(false);
        assert_eq!((value(&headers, "Access-Control-Allow-Origin"), value(&headers, "Vary")), (None, Some("Origin")));
        assert_eq!(value(&Origin::default().answer(true), "Access-Control-Allow-Origin"), Some("*"));
    }

    #[test]
    fn preflight_echoes_what_is_asked() {
        let origin = Origin {
            origin: Some("https://app.example".into()),
            method: Some("POST".into()),
            headers: Some("authorization, content-type".into()),
        };
        let headers = origin.preflight().unwrap();
        assert_eq!(value(&headers, "Access-Control-Allow-Methods"), Some("POST"));
        assert_eq!(value(&headers, "Access-Control-Allow-Headers"), Some("authorization, content-type"));
        assert_eq!(value(&headers, "Access-Control-Max-Age"), Some("86400"));
        assert!(Origin::default().preflight().is_none());
    }
}
