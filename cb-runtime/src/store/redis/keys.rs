//! The keys in Redis.
//!
//! `cb1` is the version of the layout: a rolling deploy may run two at once. The namespace is the hash tag
//! of all keys that scripts use, so in a cluster they share a slot. Names come last in a key, so two keys
//! never collide, whatever characters the names have.
//!
//! | key | type | content |
//! |---|---|---|
//! | `cb1:{ns}:b:<breaker>` | hash | a breaker's state, epoch and counts; its leader lease; its settings' summaries |
//! | `cb1:{ns}:l:<breaker>` | sorted set | its leases, by deadline |
//! | `cb1:{ns}:w:<length>/<width>:<bucket>` | hash | one bucket of all time windows of that shape |
//! | `cb1:{ns}:quiet` | hash | the reported counts of closed breakers since their last exchange |
//! | `cb1:{ns}:n:<calls>:<breaker>` | hash | its count window |
//! | `cb1:{ns}:s:<instance>` | string | the number of the instance's last batch |
//! | `cb1:{ns}:events` | stream | the transitions |
//! | `cb1:{ns}:notices` | stream | the breakers of which all instances are to report without delay |
//! | `cb1:{ns}:meta` | hash | the incarnation and the last event |
//! | `cb1:{ns}:held` | sorted set | the breakers that are not closed, by when their states lapse |
//! | `cb1:{ns}:names` | sorted set | all breakers, by the time of their last use |
//! | `cb1:{ns}:instances`, `cb1:{ns}:figures`, `cb1:{ns}:settings` | hash | each instance's announcements |
//! | `cb1:{ns}:watched` | string | exists while a program looks at the fleet |
//! | `cb1:<ns>:c:<key>` | string | a cached result |

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::store::{CountWindowRequest, Topic};

/// The keys of one namespace.
pub(super) struct Keys {
    shared: String,
    cache: String,
}

impl Keys {
    pub(super) fn new(namespace: &str) -> Self {
        // A hash tag may not be empty; "%" alone is what no other namespace is encoded as. A colon in it
        // would make the keys of cached results ambiguous.
        let namespace = match namespace {
            "" => "%".to_owned(),
            _ => encode(namespace).replace(':', "%3A"),
        };
        Keys { shared: format!("cb1:{{{namespace}}}:"), cache: format!("cb1:{namespace}:c:") }
    }

    pub(super) fn meta(&self) -> String {
        format!("{}meta", self.shared)
    }

    pub(super) fn events(&self) -> String {
        format!("{}events", self.shared)
    }

    pub(super) fn notices(&self) -> String {
        format!("{}notices", self.shared)
    }

    pub(super) fn held(&self) -> String {
        format!("{}held", self.shared)
    }

    pub(super) fn names(&self) -> String {
        format!("{}names", self.shared)
    }

    /// Instances' posts.
    pub(super) fn board(&self, topic: Topic) -> String {
        let topic = match topic {
            Topic::About => "instances",
            Topic::Figures => "figures",
            Topic::Settings => "settings",
        };
        format!("{}{topic}", self.shared)
    }

    pub(super) fn watched(&self) -> String {
        format!("{}watched", self.shared)
    }

    pub(super) fn sequence(&self, instance: &str) -> String {
        format!("{}s:{}", self.shared, encode(instance))
    }

    /// What an encoded name is appended to.
    pub(super) fn breaker_prefix(&self) -> String {
        format!("{}b:", self.shared)
    }

    pub(super) fn breaker(&self, encoded: &str) -> String {
        format!("{}b:{encoded}", self.shared)
    }

    /// What an encoded name is appended to.
    pub(super) fn lease_prefix(&self) -> String {
        format!("{}l:", self.shared)
    }

    pub(super) fn leases(&self, encoded: &str) -> String {
        format!("{}l:{encoded}", self.shared)
    }

    /// What a window's length, width and bucket are appended to.
    pub(super) fn window_prefix(&self) -> String {
        format!("{}w:", self.shared)
    }

    pub(super) fn quiet(&self) -> String {
        format!("{}quiet", self.shared)
    }

    pub(super) fn last(&self, encoded: &str, ask: &CountWindowRequest) -> String {
        format!("{}n:{}:{encoded}", self.shared, ask.calls)
    }

    /// Without a hash tag, so that results spread over a cluster.
    pub(super) fn cached(&self, key: &str) -> String {
        format!("{}{}", self.cache, encode(key))
    }
}

/// Percent-encodes the characters that Redis, a shell or a terminal would interpret or hide: braces,
/// blanks, quotes, wildcards, control characters. Letters of any script stay.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_alphanumeric() || "-_.:/@+=,~#$!&;".contains(char) {
            encoded.push(char);
        } else {
            encoded.extend(utf8_percent_encode(char.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC));
        }
    }
    encoded
}

/// `None` for a text that [`encode`] never returns.
pub(super) fn decode(encoded: &str) -> Option<String> {
    let text = percent_decode_str(encoded).decode_utf8().ok()?;
    (encode(&text) == encoded).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Keys, decode, encode};

    #[test]
    fn usual_names_are_not_encoded() {
        for name in ["user-service", "billing/v2:authority", "größe", "注文", "a.b_c@d+e"] {
            assert_eq!(encode(name), name);
        }
        assert_eq!(encode("a {b}\n%"), "a%20%7Bb%7D%0A%25");
    }

    #[test]
    fn texts_that_encode_never_returns_are_not_decoded() {
        for text in ["%", "%4", "%zz", "%41", "a b", "{", "%7b", "%FF", "%+1"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn namespaces_do_not_meet() {
        let cached = |namespace, key| Keys::new(namespace).cached(key);
        assert_ne!(cached("a", "x:c:y"), cached("a:c:x", "y"));
        assert_ne!(cached("", "k"), cached("%", "k"));
        assert_ne!(Keys::new("").meta(), Keys::new("%").meta());
        assert_ne!(Keys::new("a").breaker("x"), Keys::new("a").leases("x"));
    }

    proptest! {
        #[test]
        fn decode_reverses_encode(text in any::<String>()) {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn hash_tag_is_the_namespace(namespace in any::<String>(), name in any::<String>()) {
            let key = Keys::new(&namespace).breaker(&encode(&name));
            let open = key.find('{').unwrap();
            let close = key[open..].find('}').unwrap() + open;
            prop_assert!(close > open + 1);
            prop_assert_eq!(&key[..open], "cb1:");
            let own_keys = Keys::new(&namespace).meta();
            prop_assert_eq!(&key[open..=close], &own_keys["cb1:".len()..own_keys.len() - ":meta".len()]);
            let untagged = !Keys::new(&namespace).cached(&name).contains(['{', '}']);
            prop_assert!(untagged);
        }
    }
}
