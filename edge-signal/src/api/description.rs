//! What the edge's own HTTP is, as OpenAPI 3.1: `openapi.json`, served as it lies here.

/// The document.
pub const DESCRIPTION: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;
    use serde_json::Value;
    use shared::control::{AdmitRequest, DrainRequest, EnrolRequest, RevokeRequest};

    use super::*;
    use crate::api::route::Route;
    use crate::api::token_request::TokenRequest;

    fn document() -> Value {
        serde_json::from_str(DESCRIPTION).unwrap()
    }

    /// Every operation: path, method, and what is said of it.
    fn operations() -> Vec<(String, String, Value)> {
        let document = document();
        let paths = document["paths"].as_object().unwrap().clone();
        let of = |(path, methods): (String, Value)| {
            let methods = methods.as_object().unwrap().clone();
            methods.into_iter().map(move |(method, operation)| (path.clone(), method.to_uppercase(), operation))
        };
        paths.into_iter().flat_map(of).collect()
    }

    #[test]
    fn it_has_each_route_of_ours_with_its_method_and_no_other() {
        let mut described = BTreeSet::new();
        for (path, method, _) in operations() {
            let route = Route::of(&path);
            assert!(route.allow().is_some_and(|allow| allow.starts_with(&method)), "{method} {path}");
            described.insert(route.name());
        }
        let ours = Route::ALL.iter().filter(|route| route.allow().is_some()).map(|route| route.name());
        assert_eq!(described, ours.collect());
    }

    #[test]
    fn its_examples_are_what_the_routes_read() {
        fn read<T: DeserializeOwned>(example: &Value) -> bool {
            serde_json::from_value::<T>(example.clone()).is_ok()
        }
        let mut seen = 0;
        for (path, _, operation) in operations() {
            let Some(examples) = operation["requestBody"]["content"]["application/json"]["examples"].as_object() else {
                continue;
            };
            for example in examples.values().map(|example| &example["value"]) {
                let reads = match Route::of(&path) {
                    Route::Token => read::<TokenRequest>(example),
                    Route::Admit => read::<AdmitRequest>(example),
                    Route::Enrol => read::<EnrolRequest>(example),
                    Route::Revoke => read::<RevokeRequest>(example),
                    Route::Drain => read::<DrainRequest>(example),
                    route => panic!("{route:?} takes no body"),
                };
                assert!(reads, "{path}: {example}");
                seen += 1;
            }
        }
        assert_eq!(seen, 6);
    }
}
