//! JSON that must be an object: serde would read an array as a struct's fields in their order. **Everything is read from
//! text**: what is read from bytes, or from [`Value`]s, takes code of its own for each type, and the Worker is to stay small.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::{Map, Number, Value};

/// Reads a body.
///
/// # Errors
/// It is no JSON, no object, or not of this type.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let text = str::from_utf8(body).map_err(serde_json::Error::custom)?;
    if text.trim_start().starts_with('{') { serde_json::from_str(text) } else { Err(Error::custom("not an object")) }
}

/// For `#[serde(deserialize_with)]` of a field.
///
/// # Errors
/// It is no object, or not of this type.
pub fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let fields = Map::deserialize(deserializer)?;
    serde_json::from_str(&Value::Object(fields).to_string()).map_err(D::Error::custom)
}

/// For `#[serde(deserialize_with)]` of a field: JSON tells no `60.0` from `60`, and some write the one for the other.
///
/// # Errors
/// It is neither a whole number, 0 or more, nor null.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    let whole = number.as_u64().or_else(|| number.as_f64()?.to_string().parse().ok());
    whole.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is no whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        number: u8,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        #[serde(deserialize_with = "object")]
        inner: Inner,
    }

    #[test]
    fn a_whole_number_may_have_a_point() {
        #[derive(Deserialize)]
        struct Life {
            #[serde(default, deserialize_with = "whole")]
            ttl: Option<u64>,
        }
        let ttl = |body: &str| parse::<Life>(body.as_bytes()).map(|life| life.ttl).ok();
        assert_eq!([r#"{"ttl":60}"#, r#"{"ttl":60.0}"#, r#"{"ttl":6e1}"#].map(ttl), [Some(Some(60)); 3]);
        assert_eq!(["{}", r#"{"ttl":null}"#].map(ttl), [Some(None); 2]);
        assert_eq!([r#"{"ttl":1.5}"#, r#"{"ttl":-1}"#, r#"{"ttl":"60"}"#, r#"{"ttl":1e300}"#].map(ttl), [None; 4]);
    }

    #[test]
    fn an_array_is_no_object() {
        let outer = Outer { inner: Inner { number: 7 } };
        assert_eq!(parse::<Outer>(br#"{"inner":{"number":7}}"#).ok(), Some(outer));
        for wrong in [r#"[{"number":7}]"#, r#"{"inner":[7]}"#, "[]", "null", "7", ""] {
            assert!(parse::<Outer>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
