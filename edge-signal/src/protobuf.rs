//! LiveKit's messages inside rows and requests of our own: protobuf in base64. Reading and writing their JSON takes code of
//! each message's own, and the Worker is to stay small.

/// A message, for `#[serde(with)]`.
pub mod message {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use prost::Message;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<M: Message, S: Serializer>(message: &M, serializer: S) -> Result<S::Ok, S::Error> {
        STANDARD.encode(message.encode_to_vec()).serialize(serializer)
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is not base64, or no such message.
    pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(deserializer: D) -> Result<M, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        M::decode(bytes.as_slice()).map_err(D::Error::custom)
    }
}

/// Messages, for `#[serde(with)]`.
pub mod messages {
    use prost::Message;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(bound = "M: Message + Default")]
    struct Written<M>(#[serde(deserialize_with = "super::message::deserialize")] M);

    #[derive(Serialize)]
    #[serde(bound = "")]
    struct Borrowed<'a, M: Message>(#[serde(serialize_with = "borrowed")] &'a M);

    fn borrowed<M: Message, S: Serializer>(message: &&M, serializer: S) -> Result<S::Ok, S::Error> {
        super::message::serialize(*message, serializer)
    }

    /// Writes them.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<M: Message, S: Serializer>(messages: &[M], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(messages.iter().map(Borrowed))
    }

    /// Reads them.
    ///
    /// # Errors
    /// One is not base64, or no such message.
    pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<M>, D::Error> {
        Ok(Vec::<Written<M>>::deserialize(deserializer)?.into_iter().map(|Written(message)| message).collect())
    }
}

/// A message or none, for `#[serde(with)]`.
pub mod optional {
    use prost::Message;
    use serde::{Deserializer, Serializer};

    /// Writes it, if there is one.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<M: Message, S: Serializer>(message: &Option<M>, serializer: S) -> Result<S::Ok, S::Error> {
        super::messages::serialize(message.as_slice(), serializer)
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is not base64, or no such message.
    pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<M>, D::Error> {
        Ok(super::messages::deserialize(deserializer)?.pop())
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::Job;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Row {
        #[serde(with = "super::message")]
        one: Job,
        #[serde(with = "super::messages")]
        many: Vec<Job>,
        #[serde(default, with = "super::optional")]
        perhaps: Option<Job>,
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let job = |id: &str| Job { id: id.to_owned(), metadata: "äöü".to_owned(), ..Job::default() };
        for perhaps in [Some(job("d")), None] {
            let row = Row { one: job("a"), many: vec![job("b"), job("c")], perhaps };
            let read: Row = serde_json::from_str(&serde_json::to_string(&row).unwrap()).unwrap();
            assert_eq!((read.one, read.many, read.perhaps), (row.one, row.many, row.perhaps));
        }
        let row: Row = serde_json::from_str(r#"{ "one": "", "many": [] }"#).unwrap();
        assert_eq!((row.one, row.many, row.perhaps), (Job::default(), Vec::new(), None));
        assert!(serde_json::from_str::<Row>(r#"{ "one": "no base64", "many": [] }"#).is_err());
    }
}
