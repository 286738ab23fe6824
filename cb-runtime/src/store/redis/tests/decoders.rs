//! Decoders of what comes from Redis, given arbitrary input: they accept it or refuse it, and never panic.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::select;
use redis::Value;

use crate::snapshot::State;
use crate::store::redis::address;
use crate::store::redis::overview::detail;
use crate::store::redis::plain_rows::ReportedRow;
use crate::store::redis::wire::{Fields, ReplyReader, event};
use crate::store::{MAX_COUNT, MAX_EPOCH, MAX_SPAN_US};

const NOW: u64 = 1_700_000_000_000_000;

fn text(text: impl AsRef<[u8]>) -> Value {
    Value::BulkString(text.as_ref().to_vec())
}

/// A number as text, often one just within or just beyond a limit.
fn number() -> impl Strategy<Value = String> {
    let limits = [MAX_EPOCH, MAX_SPAN_US, MAX_COUNT].into_iter().flat_map(|limit| [limit, limit + 1]);
    prop_oneof![
        select(limits.collect::<Vec<_>>()).prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
    ]
}

/// A value of any kind. Many are of a form that some element of an answer has.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        Just(Value::Okay),
        any::<bool>().prop_map(Value::Boolean),
        any::<f64>().prop_map(Value::Double),
        any::<i64>().prop_map(Value::Int),
        (-1..5_i64).prop_map(Value::Int),
        number().prop_map(text),
        select(vec!["open", "closed", "half_open", "forced_open", ""]).prop_map(text),
        "[0-9|*;:,. sfSF-]{0,30}".prop_map(text),
        prop::collection::vec(any::<u8>(), 0..30).prop_map(text),
        ".{0,10}".prop_map(Value::SimpleString),
    ];
    leaf.prop_recursive(3, 24, 12, |inner| prop::collection::vec(inner, 0..12).prop_map(Value::Array))
}

fn record() -> Vec<Value> {
    let (epoch, since, reset_timeout, attempt) = (3, 5_000_000, 30_000_000, 1);
    vec![
        Value::Int(epoch),
        text("open"),
        text("5 consecutive failures"),
        text("9f2c"),
        text("alice"),
        Value::Int(-1),
        Value::Int(since),
        Value::Int(reset_timeout),
        Value::Int(attempt),
    ]
}

/// An answer about one breaker, with every optional part.
fn view() -> Vec<Value> {
    let head = vec![
        Value::Int(1),
        Value::Int(1),
        text("7,8"),
        Value::Int(-1),
        Value::Int(250_000),
        text("1700:5,2,0;1701:9;"),
        text("a*1699999999000000 b*1700000000000001"),
        Value::Array(vec![Value::Int(12), text("sffS"), text("a*3")]),
        Value::Array(vec![Value::Int(1), Value::Int(4), Value::Int(2_000_000)]),
        text("threshold=3"),
        Value::Int(40_000),
    ];
    let counts = [9, 2, 0, 2].map(Value::Int);
    head.into_iter().chain(counts).chain(record()).collect()
}

/// `whole` with some elements replaced, and its end cut off.
fn spoilt(whole: Vec<Value>) -> impl Strategy<Value = Vec<Value>> {
    let length = whole.len();
    let changes = prop::collection::vec((0..length, value()), 0..4);
    (changes, 0..=length).prop_map(move |(changes, end)| {
        let mut whole = whole.clone();
        for (at, value) in changes {
            whole[at] = value;
        }
        whole.truncate(end);
        whole
    })
}

fn reader(values: Vec<Value>) -> ReplyReader {
    ReplyReader::of(Value::Array(values)).unwrap()
}

/// An entry of the event stream as the script writes it.
fn entry() -> HashMap<Vec<u8>, Value> {
    let fields = [
        ("incarnation", "9f2c41"),
        ("number", "7"),
        ("name", "user-service"),
        ("from", "closed"),
        ("state", "open"),
        ("epoch", "3"),
        ("reason", "5 consecutive failures"),
        ("by", "9f2c"),
        ("actor", ""),
        ("remaining_us", "30000000"),
        ("reset_timeout_us", "30000000"),
        ("attempt", "1"),
        ("successes", "4"),
        ("failures", "5"),
        ("slow", "0"),
        ("at_us", "1700000000000000"),
    ];
    fields.map(|(field, content)| (field.into(), text(content))).into()
}

/// Another value for a field of an entry; `None` removes the field.
fn change() -> impl Strategy<Value = (Vec<u8>, Option<Value>)> {
    let field = select(entry().into_keys().collect::<Vec<_>>());
    (field, prop::option::of(prop_oneof![value(), number().prop_map(text)]))
}

#[test]
fn whole_answers_and_entries_are_accepted() {
    let view = reader(view()).view(NOW, "b").unwrap().unwrap();
    assert_eq!((view.record.state, view.granted, view.failing), (State::Open, vec![7, 8], vec![1_000_000]));
    let fields: Vec<_> = entry().into_iter().collect();
    assert_eq!(event("1-0".into(), &Fields::of_entry(&fields)).unwrap().record.epoch, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_answer_is_accepted_or_refused(values in prop::collection::vec(value(), 0..14)) {
        let _ = reader(values.clone()).view(NOW, "b");
        let _ = reader(values.clone()).row();
        let _ = reader(values.clone()).position();
        let _ = reader(values.clone()).texts();
        let _ = reader(values.clone()).numbers();
        let _ = detail(&mut reader(values), NOW);
    }

    #[test]
    fn spoilt_answers_are_accepted_or_refused(values in spoilt(view())) {
        let _ = reader(values).view(NOW, "b");
    }

    #[test]
    fn spoilt_events_are_refused_or_within_their_limits(
        changes in prop::collection::vec(change(), 0..4),
        id in ".{0,20}",
    ) {
        let mut fields = entry();
        for (field, value) in changes {
            match value {
                Some(value) => fields.insert(field, value),
                None => fields.remove(&field),
            };
        }
        let fields: Vec<_> = fields.into_iter().collect();
        if let Ok(event) = event(id, &Fields::of_entry(&fields)) {
            prop_assert!(event.record.epoch <= MAX_EPOCH);
            prop_assert!(event.record.reset_timeout_us <= MAX_SPAN_US);
            prop_assert!(event.evidence.failures <= MAX_COUNT);
        }
    }

    #[test]
    fn any_report_of_a_closed_breaker_is_refused_or_within_its_limits(
        parts in prop::collection::vec(number(), 3),
        other in "(0\\|)?[01]?\\|?[0-9|,x-]{0,60}",
    ) {
        let whole = format!("0|1||5|{}", parts.join(","));
        for text in [whole, other] {
            if let Some(row) = ReportedRow::parse(&text) {
                prop_assert!(row.counts.failures <= MAX_COUNT);
            }
        }
    }

    #[test]
    fn any_address_is_accepted_or_refused_without_its_password(
        scheme in "(redis|rediss|unix|valkey|http|[a-z+]{0,6})(://|:/|:|)",
        password in "[A-Z]{12}",
        rest in "[a-z0-9.:/?#@%\\[\\]=&-]{0,30}",
    ) {
        if let Err(refused) = address::check(&format!("{scheme}user:{password}@{rest}")) {
            prop_assert!(!refused.to_string().contains(&password), "{}", refused);
        }
    }
}
