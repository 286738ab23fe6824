//! The form of a result in the store: JSON, with the fields that a reader needs before it reads the result.
//!
//! `{"v":1,"stored_at_ms":1700000000000,"ttl_ms":300000,"value":…}`, or in place of `value` a `ron` with a
//! text in it.
//!
//! `stored_at_ms` is a wall-clock time for display. The age of a result is `ttl_ms` less the remaining TTL
//! that the store returns. Frozen: a change of layout needs a new `v`, and a reader treats another `v` as a
//! miss.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::payload::{Format, Payload};

const VERSION: u64 = 1;

/// The envelope's fields, in their order. Older readers must be able to ignore a field that is added.
#[derive(Deserialize)]
struct Fields<'a> {
    v: u64,
    ttl_ms: u64,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ron: Option<Cow<'a, str>>,
}

/// `null` is a value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// The one field of an envelope with any other layout.
#[derive(Deserialize)]
struct VersionOnly {
    v: u64,
}

/// The envelope of a result that its function returned `age` ago.
pub(super) fn seal(payload: &Payload, ttl: Duration, age: Duration) -> Vec<u8> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    seal_at(payload, ttl, now.saturating_sub(age))
}

fn seal_at(payload: &Payload, ttl: Duration, stored_at: Duration) -> Vec<u8> {
    let (stored_ms, ttl_ms) = (stored_at.as_millis(), whole_millis(ttl).as_millis());
    let field = match payload.format {
        Format::Json => "value",
        Format::Ron => "ron",
    };
    let head = format!(r#"{{"v":{VERSION},"stored_at_ms":{stored_ms},"ttl_ms":{ttl_ms},"{field}":"#);
    let mut bytes = Vec::with_capacity(head.len() + payload.len() + 1);
    bytes.extend_from_slice(head.as_bytes());
    match payload.format {
        Format::Json => bytes.extend_from_slice(&payload.text),
        Format::Ron => bytes.extend_from_slice(
            serde_json::json!(String::from_utf8_lossy(&payload.text)).to_string().as_bytes(),
        ),
    }
    bytes.push(b'}');
    bytes
}

/// Reads an envelope, and returns the result and its TTL. The bytes come from the store, so they can be
/// anything.
pub(super) fn open(bytes: &[u8]) -> Result<(Payload, Duration), String> {
    let fields: Fields<'_> = match serde_json::from_slice(bytes) {
        Ok(fields) => fields,
        Err(problem) => {
            return Err(match serde_json::from_slice::<VersionOnly>(bytes) {
                Ok(other) if other.v != VERSION => foreign(other.v),
                _ => format!("not an envelope: {problem}"),
            });
        }
    };
    if fields.v != VERSION {
        return Err(foreign(fields.v));
    }
    let payload = match (fields.value, fields.ron) {
        (Some(value), None) => Payload::json(value.get().as_bytes()),
        (None, Some(text)) => Payload { format: Format::Ron, text: text.as_bytes().into() },
        _ => return Err("not an envelope: there must be either `value` or `ron`".to_owned()),
    };
    Ok((payload, Duration::from_millis(fields.ttl_ms)))
}

fn foreign(version: u64) -> String {
    format!("an envelope of version {version}, and this is version {VERSION}")
}

/// Rounds down to the store's unit; a TTL below one millisecond becomes zero.
pub(super) fn whole_millis(span: Duration) -> Duration {
    let millis = span.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    #[test]
    fn layout_is_frozen() {
        let json = Payload::json(br#"["a",null]"#);
        let ron = Payload { format: Format::Ron, text: br#"[Some("a"),None]"#[..].into() };
        for (payload, golden) in [
            (json, r#"{"v":1,"stored_at_ms":1000,"ttl_ms":300000,"value":["a",null]}"#),
            (ron, r#"{"v":1,"stored_at_ms":1000,"ttl_ms":300000,"ron":"[Some(\"a\"),None]"}"#),
        ] {
            let sealed = seal_at(&payload, TTL, Duration::from_secs(1));
            assert_eq!(String::from_utf8(sealed).unwrap(), golden);
            assert_eq!(open(golden.as_bytes()).unwrap(), (payload, TTL));
        }
    }

    #[test]
    fn value_is_found_at_any_position_and_with_any_spacing() {
        let (payload, ttl) =
            open(br#" { "value" : {"x": [1, 2]} , "more": 7, "ttl_ms":5, "v":1 } "#).unwrap();
        assert_eq!(ttl, Duration::from_millis(5));
        assert_eq!(payload.read::<serde_json::Value>().unwrap(), serde_json::json!({"x": [1, 2]}));
    }

    #[test]
    fn null_is_a_value() {
        let (payload, _) = open(br#"{"v":1,"ttl_ms":5,"value":null}"#).unwrap();
        assert_eq!(payload.read::<Option<u8>>().unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        let refused = |bytes: &[u8]| open(bytes).unwrap_err();
        assert!(refused(br#"{"v":2,"value":1,"ttl_ms":1}"#).contains("version 2"));
        assert!(refused(br#"{"v":2,"payload":"other layout"}"#).contains("version 2"));
        for garbage in [
            &b""[..],
            b"null",
            b"[]",
            b"7",
            b"\xff\xfe\x00",
            b"{\"v\":1",
            br#"{"v":1,"ttl_ms":-1,"value":1}"#,
            br#"{"v":1,"ttl_ms":1}"#,
            br#"{"v":1,"ttl_ms":1,"value":1,"ron":"1"}"#,
            br#"{"v":1,"ttl_ms":1,"ron":1}"#,
            br#"{"v":1,"ttl_ms":1,"value":1}}"#,
            b"{\"v\":1,\"ttl_ms\":1,\"value\":\"\xff\"}",
        ] {
            assert!(refused(garbage).contains("not an envelope"), "{garbage:?}");
        }
        let deep = format!(r#"{{"v":1,"ttl_ms":1,"value":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        if let Ok((payload, _)) = open(deep.as_bytes()) {
            payload.read::<serde_json::Value>().unwrap_err();
        }
        let deep = format!(r#"{{"v":1,"ttl_ms":1,"ron":"{}"}}"#, "[".repeat(100_000));
        open(deep.as_bytes()).unwrap().0.read::<Vec<Vec<u8>>>().unwrap_err();
    }

    #[test]
    fn durations_are_rounded_up() {
        assert_eq!(whole_millis(Duration::from_micros(1)), Duration::from_millis(1));
        assert_eq!(whole_millis(Duration::from_millis(7)), Duration::from_millis(7));
        assert_eq!(whole_millis(Duration::MAX), Duration::from_millis(u64::MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_opened_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            changes in prop::collection::vec((0..80_usize, any::<u8>()), 0..4),
            end in 0..80_usize,
        ) {
            let mut spoilt = br#"{"v":1,"stored_at_ms":1000,"ttl_ms":300000,"ron":"[Some(\"a\"),None]"}"#.to_vec();
            for (at, byte) in changes {
                if let Some(changed) = spoilt.get_mut(at) {
                    *changed = byte;
                }
            }
            let cut = spoilt[..end.min(spoilt.len())].to_vec();
            for bytes in [bytes, spoilt, cut] {
                if let Ok((payload, _)) = open(&bytes) {
                    let _ = payload.read::<Vec<Option<String>>>();
                }
            }
        }
    }
}
