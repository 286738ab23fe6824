use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use serde::ser::{SerializeMap, Serializer};

use super::*;

const FUNCTION: [u8; 32] = [7; 32];

fn arguments<T: Serialize + ?Sized>(list: &[&T]) -> Arguments {
    let mut arguments = Arguments::new("1");
    for value in list {
        arguments.add(*value);
    }
    arguments
}

fn store_key(arguments: &Arguments) -> StoreKey {
    assert!(arguments.problem().is_none());
    StoreKey::new(&FUNCTION, "b", &arguments.buffer)
}

fn digest<T: Serialize + ?Sized>(value: &T) -> StoreKey {
    store_key(&arguments(&[value]))
}

/// The key of a call with this argument, for other tests.
pub(in crate::cache) fn key(number: u64) -> EntryKey {
    let arguments = arguments(&[&number]);
    let local = local(&Secret(0x1234_5678_9abc_def1, 0xfedc_ba98_7654_3210), 1, 3, &arguments.buffer);
    EntryKey { local, store: Some(Box::new(store_key(&arguments))) }
}

fn local(secret: &Secret, function: u64, breaker: u64, arguments: &KeyBuffer) -> LocalKey {
    let function = FunctionId(function);
    secret.local(function, breaker, secret.words(function, breaker, arguments))
}

/// All kinds of serde's data model.
#[derive(Serialize)]
enum Everything {
    Unit,
    Newtype(u8),
    Tuple(i8, i128),
    Struct { text: &'static str, map: std::collections::BTreeMap<u8, char> },
}

#[test]
fn keys_are_frozen() {
    let key = digest(&42_u64);
    let bytes = b"\x0c\x01b\0\x0c\x011\0\x06\x2a\0\0\0\0\0\0\0\0";
    assert_eq!(key.0, *blake3::keyed_hash(&FUNCTION, bytes).as_bytes());
    let mut arguments = Arguments::new("");
    arguments.add("text");
    arguments.add(&(1_u128 << 80, -(1_i128 << 80), -3, 2.5_f32, 'x', true, false, ()));
    arguments.add(&[None, Some("x".repeat(300))]);
    arguments.add(&IpAddr::V4(Ipv4Addr::LOCALHOST));
    arguments.add(&format_args!("{}", "in pieces"));
    arguments.add(&(
        Everything::Unit,
        Everything::Newtype(1),
        Everything::Tuple(-1, 1),
        Everything::Struct { text: "", map: [(1, 'a')].into() },
    ));
    let key = StoreKey::new(&FUNCTION, "user-service", &arguments.buffer);
    assert_eq!(
        key.text("user-service"),
        "user-service:8e6b6d98a8d5a5b2678988965a2115515b8932dbdc2b90deba801a84e890751f"
    );
}

#[test]
fn functions_breakers_versions_and_arguments_do_not_collide() {
    let secret = Secret::new();
    let mut keys = Vec::new();
    let long = "f".repeat(200);
    for (function, breaker, version, list) in [
        (1, "b", "ab", ["d", "e"]),
        (2, "b", "ab", ["d", "e"]),
        (1, "c", "ab", ["d", "e"]),
        (1, "b", "a", ["d", "e"]),
        (1, "b", "", ["d", "e"]),
        (1, "b", "ab", ["de", ""]),
        (1, "b", "ab", ["", "de"]),
        (1, "b", "", ["a long", "argument"]),
        (2, "b", "", ["a long", "argument"]),
        (1, "c", "", ["a long", "argument"]),
        (1, "b", "", [&long, "e"]),
        (1, "b", "", [&long, "d"]),
    ] {
        let mut arguments = Arguments::new(version);
        for value in list {
            arguments.add(value);
        }
        let local = local(&secret, function, secret.hash(breaker), &arguments.buffer);
        let store = StoreKey::new(&[u8::try_from(function).unwrap(); 32], breaker, &arguments.buffer);
        assert!(
            !keys.iter().any(|(l, s): &(LocalKey, _)| {
                l.hash == local.hash || l.slot == local.slot || *s == store
            }),
            "{function} {breaker} {version} {list:?}"
        );
        keys.push((local, store));
    }
    assert_ne!(digest(&("a", "b")), store_key(&arguments(&["a", "b"])));
}

#[test]
fn values_that_json_merges_have_different_keys() {
    let nested: [Option<Option<u8>>; 3] = [None, Some(None), Some(Some(0))];
    let floats = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
    let digests: Vec<_> =
        nested.iter().map(digest).chain(floats.iter().map(|float| digest(&Some(Some(float))))).collect();
    for (index, digest) in digests.iter().enumerate() {
        assert!(!digests[..index].contains(digest), "{index}");
    }
}

#[test]
fn values_that_nameless_formats_merge_have_different_keys() {
    #[derive(Serialize)]
    struct Query {
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<u8>,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
        Flag(bool),
    }
    assert_ne!(digest(&Query { from: Some(1), to: None }), digest(&Query { from: None, to: Some(1) }));
    assert_ne!(digest(&Untagged::Number(1)), digest(&Untagged::Flag(true)));
}

#[test]
fn wider_integer_and_differently_divided_text_have_the_same_key() {
    assert_eq!(digest(&7_u8), digest(&7_i128));
    assert_eq!(digest(&-7_i8), digest(&-7_i64));
    assert_eq!(digest(&0.5_f32), digest(&0.5_f64));
    let (a, b) = ("in ", "pieces");
    let whole = format!("{a}{b}");
    assert_eq!(digest(&format_args!("{a}{b}")), digest(&format_args!("{whole}")));
}

#[test]
fn long_argument_does_not_collide_with_its_digest() {
    let long = arguments(&["x".repeat(1000).as_str()]);
    let digest = long.buffer.bytes().to_vec();
    let mut short = KeyBuffer::new();
    short.put(&digest);
    let key = |buffer| StoreKey::new(&FUNCTION, "b", buffer);
    assert_ne!(key(&long.buffer), key(&short));
    let secret = Secret::new();
    assert_ne!(local(&secret, 1, 1, &long.buffer), local(&secret, 1, 1, &short));
}

#[test]
fn names_in_keys_are_escaped_and_bounded() {
    let key = digest(&1);
    assert!(key.text("user {eu}:*\u{1b}[1m\n").starts_with("user%20%7Beu%7D%3A%2A%1B%5B1m%0A:"));
    let long = key.text(&"é".repeat(1000));
    assert!(long.len() < 160 && long.contains("~:"), "{long}");
    assert!(key.text(&"e".repeat(80)).starts_with(&format!("{}:", "e".repeat(80))));
    assert!(key.text(&"e".repeat(81)).starts_with(&format!("{}~:", "e".repeat(80))));
}

#[test]
fn without_all_arguments_there_is_no_key() {
    struct Refusing;
    impl Serialize for Refusing {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it will not"))
        }
    }
    let mut arguments = Arguments::new("");
    arguments.add(&vec![Refusing]);
    arguments.add(&1);
    assert_eq!(arguments.problem().unwrap().to_string(), "it will not");
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

/// Small on purpose: two random values are often almost equal, and sometimes equal.
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

fn lists() -> impl Strategy<Value = Vec<Any>> {
    prop::collection::vec(any(), 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn different_arguments_have_different_keys(
        lists in prop::collection::vec(lists(), 64)
    ) {
        let key = |list: &Vec<Any>| store_key(&arguments(&list.iter().collect::<Vec<_>>()));
        let digests: Vec<_> = lists.iter().map(key).collect();
        for (index, list) in lists.iter().enumerate() {
            for (other, digest) in lists[..index].iter().zip(&digests) {
                prop_assert_eq!(list == other, digests[index] == *digest, "{:?} {:?}", list, other);
            }
        }
    }
}
