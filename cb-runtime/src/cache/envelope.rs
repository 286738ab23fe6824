//! A result as it is kept and sent: JSON, with what a reader must know before it looks at the value.
//!
//! `{"v":1,"stored_at_ms":1700000000000,"ttl_ms":300000,"value":…}`
//!
//! `stored_at_ms` is a wall clock's and for people only; how old a result is comes from `ttl_ms` and from
//! what the store says is left of it. Frozen: a change of layout is a new `v`, and a reader takes
//! another `v` for a miss.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(super) const VERSION: u64 = 1;

/// An envelope's bytes, shared by all who hold them, and where in them the value is.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    bytes: Arc<Vec<u8>>,
    value: Range<usize>,
    ttl: Duration,
}

/// The envelope's fields, in their order. A field that is added must be one that older readers may pass over.
#[derive(Deserialize)]
struct Fields<'a> {
    v: u64,
    ttl_ms: u64,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// Of an envelope that may have any other layout.
#[derive(Deserialize)]
struct VersionOnly {
    v: u64,
}

impl Envelope {
    /// Serializes `value`. The error says why that cannot be done.
    pub(super) fn seal<T: Serialize + ?Sized>(value: &T, ttl: Duration) -> Result<Self, String> {
        let stored_at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Envelope::seal_at(value, ttl, stored_at)
    }

    fn seal_at<T: Serialize + ?Sized>(value: &T, ttl: Duration, stored_at: Duration) -> Result<Self, String> {
        let ttl = whole_millis(ttl);
        let (stored_ms, ttl_ms) = (stored_at.as_millis(), ttl.as_millis());
        let head = format!(r#"{{"v":{VERSION},"stored_at_ms":{stored_ms},"ttl_ms":{ttl_ms},"value":"#);
        let start = head.len();
        let mut bytes = head.into_bytes();
        serde_json::to_writer(&mut bytes, value).map_err(|problem| problem.to_string())?;
        let value = start..bytes.len();
        bytes.push(b'}');
        bytes.shrink_to_fit();
        Ok(Envelope { bytes: Arc::new(bytes), value, ttl })
    }

    /// Reads what another instance has sealed; it may be anything.
    pub(super) fn open(bytes: Arc<Vec<u8>>) -> Result<Self, String> {
        let fields: Fields<'_> = match serde_json::from_slice(&bytes) {
            Ok(fields) => fields,
            Err(problem) => {
                return Err(match serde_json::from_slice::<VersionOnly>(&bytes) {
                    Ok(other) if other.v != VERSION => foreign(other.v),
                    _ => format!("not an envelope: {problem}"),
                });
            }
        };
        if fields.v != VERSION {
            return Err(foreign(fields.v));
        }
        let ttl = Duration::from_millis(fields.ttl_ms);
        let value = fields.value.get();
        // The value borrows from `bytes`, so its address tells where in them it is.
        let start = value.as_ptr().addr() - bytes.as_ptr().addr();
        let value = start..start + value.len();
        Ok(Envelope { bytes, value, ttl })
    }

    /// The value, as a `T`.
    pub(super) fn value<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.bytes[self.value.clone()]).map_err(|problem| problem.to_string())
    }

    /// For how long its writer meant it.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn foreign(version: u64) -> String {
    format!("an envelope of version {version}, and this is version {VERSION}")
}

/// The store counts in whole milliseconds; less than one is none.
pub(super) fn whole_millis(span: Duration) -> Duration {
    let millis = span.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_frozen() {
        let sealed =
            Envelope::seal_at(&vec![Some("a"), None], Duration::from_secs(300), Duration::from_secs(1))
                .unwrap();
        let golden = r#"{"v":1,"stored_at_ms":1000,"ttl_ms":300000,"value":["a",null]}"#;
        assert_eq!(std::str::from_utf8(sealed.bytes()).unwrap(), golden);
        let opened = Envelope::open(Arc::new(golden.into())).unwrap();
        assert_eq!(opened.ttl(), Duration::from_secs(300));
        assert_eq!(opened.value::<Vec<Option<String>>>().unwrap(), [Some("a".to_owned()), None]);
    }

    #[test]
    fn a_value_is_found_wherever_it_stands_and_however_it_is_spaced() {
        let bytes = br#" { "value" : {"x": [1, 2]} , "more": 7, "ttl_ms":5, "v":1 } "#;
        let opened = Envelope::open(Arc::new(bytes.into())).unwrap();
        assert_eq!(opened.value::<serde_json::Value>().unwrap(), serde_json::json!({"x": [1, 2]}));
    }

    #[test]
    fn null_is_a_value() {
        let sealed = Envelope::seal(&None::<u8>, Duration::from_secs(1)).unwrap();
        let opened = Envelope::open(Arc::new(sealed.bytes().into())).unwrap();
        assert_eq!(opened.value::<Option<u8>>().unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        let refused = |bytes: &[u8]| Envelope::open(Arc::new(bytes.into())).unwrap_err();
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
            br#"{"v":1,"ttl_ms":1,"value":1}}"#,
            b"{\"v\":1,\"ttl_ms\":1,\"value\":\"\xff\"}",
        ] {
            assert!(refused(garbage).contains("not an envelope"), "{garbage:?}");
        }
        let deep = format!(r#"{{"v":1,"ttl_ms":1,"value":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        if let Ok(opened) = Envelope::open(Arc::new(deep.into_bytes())) {
            opened.value::<serde_json::Value>().unwrap_err();
        }
    }

    #[test]
    fn what_json_cannot_hold_is_refused_in_words() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        let refused = Envelope::seal(&map, Duration::from_secs(1)).unwrap_err();
        assert!(refused.contains("key must be a string"), "{refused}");
    }

    #[test]
    fn spans_are_rounded_up() {
        assert_eq!(whole_millis(Duration::from_micros(1)), Duration::from_millis(1));
        assert_eq!(whole_millis(Duration::from_millis(7)), Duration::from_millis(7));
        assert_eq!(whole_millis(Duration::MAX), Duration::from_millis(u64::MAX));
    }
}
