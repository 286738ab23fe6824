//! Which result is whose: what tells one cached result from all others.
//!
//! Digests are cryptographic because two different calls with one digest would hand one user
//! another's data, and arguments may come from whoever wants that. Their text is not kept anywhere.

use std::fmt;

use serde::Serialize;

use super::digest::Digest;
use super::encoding::{Encoder, Unserializable};

/// Digest of what tells one result from another: the function, its version, its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

/// Makes a [`CacheKey`] without allocating and without keeping the arguments' text.
///
/// The digest is the same in every build and on every platform, as far as the arguments' `Serialize` is:
/// a `HashMap` or `HashSet` iterates in an order of its own each time, so it wants a `cache_key` that sorts.
/// What a type leaves out when it is serialized is not part of the key.
pub struct KeyHasher {
    digest: Digest,
    function: &'static str,
    problem: Option<Unserializable>,
}

impl KeyHasher {
    /// `function`: its path, unique in the program. `version`: bumped when the type changes.
    #[inline]
    pub fn new(function: &'static str, version: &str) -> Self {
        let mut digest = Digest::new();
        digest.update(b"cb1 call");
        let mut encoder = Encoder(&mut digest);
        encoder.text(function);
        encoder.text(version);
        KeyHasher { digest, function, problem: None }
    }

    /// Adds one argument.
    pub fn arg<T: Serialize + ?Sized>(&mut self, value: &T) {
        if self.problem.is_none() {
            self.problem = value.serialize(Encoder(&mut self.digest)).err();
        }
    }

    /// # Errors
    /// If an argument could not be serialized: this call then does without a cache.
    #[inline]
    pub fn finish(mut self) -> Result<CacheKey, Unkeyable> {
        match self.problem.take() {
            None => Ok(CacheKey(self.digest.finish())),
            Some(problem) => Err(Unkeyable(Box::new((self.function, problem)))),
        }
    }
}

/// Why a call has no [`CacheKey`]. One pointer wide, as it is a part of the call's future.
#[derive(Debug)]
pub struct Unkeyable(Box<(&'static str, Unserializable)>);

impl Unkeyable {
    pub(super) fn function(&self) -> &'static str {
        self.0.0
    }
}

/// What stands in the way.
impl fmt::Display for Unkeyable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.1.fmt(f)
    }
}

/// Names one cached result among those of all breakers: a breaker whose name is made of arguments, and
/// whose `cache_key` leaves those out, has the same [`CacheKey`] for results that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity([u8; 32]);

impl Identity {
    pub(super) fn new(breaker: &str, key: &CacheKey) -> Self {
        let mut digest = Digest::new();
        digest.update(b"cb1 result");
        Encoder(&mut digest).text(breaker);
        digest.update(&key.0);
        Identity(digest.finish())
    }

    /// What the store knows it by. The name before the digest is for people: it may be cut, the
    /// digest has it whole.
    pub(super) fn store_key(&self, breaker: &str) -> String {
        let mut tail = escaped(breaker);
        tail.push(':');
        tail.push_str(&blake3::Hash::from_bytes(self.0).to_hex());
        tail
    }
}

impl CacheKey {
    /// Eight bytes that are as good as random, for tables that need not be exact.
    pub(super) fn short(&self) -> u64 {
        first_word(&self.0)
    }
}

fn first_word(digest: &[u8; 32]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(word)
}

/// A name for use inside a key: letters, digits, `.`, `_` and `-` as they are, all else as `%XX`: no
/// hash tag that would gather a cluster's keys in one slot, no separator, nothing a terminal obeys.
/// Beyond [`LONGEST_NAME`] it is cut, and ends with `~`.
fn escaped(name: &str) -> String {
    const LONGEST_NAME: usize = 80;
    let mut text = String::new();
    for &byte in name.as_bytes() {
        if text.len() >= LONGEST_NAME {
            text.push('~');
            break;
        }
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => text.push(char::from(byte)),
            _ => {
                const HEX: [u8; 16] = *b"0123456789ABCDEF";
                text.push('%');
                text.push(char::from(HEX[usize::from(byte >> 4)]));
                text.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;
    use serde::ser::{SerializeMap, Serializer};

    use super::*;

    fn key<T: Serialize + ?Sized>(value: &T) -> [u8; 32] {
        let mut hasher = KeyHasher::new("app::get_user", "1");
        hasher.arg(value);
        hasher.finish().unwrap().0
    }

    fn hex(digest: [u8; 32]) -> String {
        blake3::Hash::from_bytes(digest).to_hex().to_string()
    }

    /// Everything that serde knows to say.
    #[derive(Serialize)]
    enum Everything {
        Unit,
        Newtype(u8),
        Tuple(i8, i128),
        Struct { text: &'static str, map: std::collections::BTreeMap<u8, char> },
    }

    #[test]
    fn keys_are_frozen() {
        let mut hasher = KeyHasher::new("app::get_user", "1");
        hasher.arg(&42_u64);
        let bytes = b"cb1 call\x0c\x0dapp::get_user\x0c\x011\x06\x2a\0\0\0\0\0\0\0";
        assert_eq!(hasher.finish().unwrap().0, *blake3::hash(bytes).as_bytes());
        let mut hasher = KeyHasher::new("app::search", "");
        hasher.arg("text");
        hasher.arg(&(1_u128 << 80, -(1_i128 << 80), -3, 2.5_f32, 'x', true, false, ()));
        hasher.arg(&[None, Some("x".repeat(300))]);
        hasher.arg(&IpAddr::V4(Ipv4Addr::LOCALHOST));
        hasher.arg(&format_args!("{}", "in pieces"));
        hasher.arg(&(
            Everything::Unit,
            Everything::Newtype(1),
            Everything::Tuple(-1, 1),
            Everything::Struct { text: "", map: [(1, 'a')].into() },
        ));
        let key = hasher.finish().unwrap();
        assert_eq!(hex(key.0), "a8a86f00225be94b7a3744037fac55b518d112958cca47cc5792cbbc10eaa3d5");
        let stored = Identity::new("user-service", &key).store_key("user-service");
        assert_eq!(stored, "user-service:b1921e304ca770215e34118339376b61c95d5aee3ee0fb09fd5974da502820c1");
    }

    #[test]
    fn function_version_and_arguments_do_not_run_into_each_other() {
        let keys = [
            ("ab", "c", ["d", "e"]),
            ("a", "bc", ["d", "e"]),
            ("ab", "", ["cd", "e"]),
            ("ab", "c", ["de", ""]),
        ]
        .map(|(function, version, arguments)| {
            let mut hasher = KeyHasher::new(function, version);
            for argument in arguments {
                hasher.arg(argument);
            }
            hasher.finish().unwrap().0
        });
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        let mut both = KeyHasher::new("f", "");
        both.arg(&("a", "b"));
        let mut each = KeyHasher::new("f", "");
        each.arg("a");
        each.arg("b");
        assert_ne!(both.finish().unwrap(), each.finish().unwrap());
    }

    #[test]
    fn what_json_merges_stays_apart() {
        let nested: [Option<Option<u8>>; 3] = [None, Some(None), Some(Some(0))];
        let floats = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
        let digests: Vec<_> =
            nested.iter().map(key).chain(floats.iter().map(|float| key(&Some(Some(float))))).collect();
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
    }

    #[test]
    fn a_wider_integer_and_a_text_in_other_pieces_are_the_same() {
        assert_eq!(key(&7_u8), key(&7_i128));
        assert_eq!(key(&-7_i8), key(&-7_i64));
        assert_eq!(key(&0.5_f32), key(&0.5_f64));
        let (a, b) = ("in ", "pieces");
        let whole = format!("{a}{b}");
        assert_eq!(key(&format_args!("{a}{b}")), key(&format_args!("{whole}")));
    }

    #[test]
    fn breakers_tell_results_of_one_key_apart_in_the_store() {
        let key = KeyHasher::new("f", "").finish().unwrap();
        let stored = |breaker: &str| Identity::new(breaker, &key).store_key(breaker);
        assert!(stored("user {eu}:*\u{1b}[1m\n").starts_with("user%20%7Beu%7D%3A%2A%1B%5B1m%0A:"));
        let (long, longer) = (stored(&"é".repeat(1000)), stored(&"é".repeat(1001)));
        assert!(long.len() < 160, "{long}");
        assert!(long.contains("~:"));
        assert_ne!(long, longer);
    }

    #[test]
    fn without_all_arguments_there_is_no_key() {
        struct Stubborn;
        impl Serialize for Stubborn {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("it will not"))
            }
        }
        let mut hasher = KeyHasher::new("f", "");
        hasher.arg(&vec![Stubborn]);
        hasher.arg(&1);
        let problem = hasher.finish().unwrap_err();
        assert_eq!((problem.function(), problem.to_string().as_str()), ("f", "it will not"));
    }

    /// A value of any shape.
    #[derive(Clone, Debug, PartialEq)]
    enum Any {
        Unsigned(u64),
        Negative(i64),
        Text(String),
        Bytes(Vec<u8>),
        Unit,
        None,
        Some(Box<Any>),
        Many(Vec<Any>),
        Map(Vec<(Any, Any)>),
        Variant(&'static str, Box<Any>),
    }

    impl Serialize for Any {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Any::Unsigned(value) => serializer.serialize_u64(*value),
                Any::Negative(value) => serializer.serialize_i64(*value),
                Any::Text(value) => serializer.serialize_str(value),
                Any::Bytes(value) => serializer.serialize_bytes(value),
                Any::Unit => serializer.serialize_unit(),
                Any::None => serializer.serialize_none(),
                Any::Some(value) => serializer.serialize_some(value),
                Any::Many(values) => serializer.collect_seq(values),
                Any::Map(pairs) => {
                    let mut map = serializer.serialize_map(None)?;
                    pairs.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                    map.end()
                }
                Any::Variant(name, value) => serializer.serialize_newtype_variant("", 0, name, value),
            }
        }
    }

    /// Small on purpose: two that are drawn are often almost, and sometimes quite, the same.
    fn any() -> impl Strategy<Value = Any> {
        let leaf = prop_oneof![
            (0..3_u64).prop_map(Any::Unsigned),
            (-2..0_i64).prop_map(Any::Negative),
            "[\\x00\\x0c\\x0f]{0,3}".prop_map(Any::Text),
            "[\\x00\\x0c\\x0f]{0,3}".prop_map(|text| Any::Bytes(text.into_bytes())),
            Just(Any::Unit),
            Just(Any::None),
        ];
        leaf.prop_recursive(2, 6, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|value| Any::Some(Box::new(value))),
                prop::collection::vec(inner.clone(), 0..3).prop_map(Any::Many),
                prop::collection::vec((inner.clone(), inner.clone()), 0..2).prop_map(Any::Map),
                ("a|b", inner).prop_map(|(name, value)| {
                    Any::Variant(if name == "a" { "a" } else { "b" }, Box::new(value))
                }),
            ]
        })
    }

    fn arguments() -> impl Strategy<Value = Vec<Any>> {
        prop::collection::vec(any(), 0..3)
    }

    fn digest(arguments: &[Any]) -> [u8; 32] {
        let mut hasher = KeyHasher::new("f", "");
        for argument in arguments {
            hasher.arg(argument);
        }
        hasher.finish().unwrap().0
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn two_lists_of_arguments_share_a_key_only_if_they_are_the_same(
            lists in prop::collection::vec(arguments(), 64)
        ) {
            let digests: Vec<_> = lists.iter().map(|list| digest(list)).collect();
            for (index, list) in lists.iter().enumerate() {
                for (other, digest) in lists[..index].iter().zip(&digests) {
                    prop_assert_eq!(list == other, digests[index] == *digest, "{:?} {:?}", list, other);
                }
            }
        }
    }
}
