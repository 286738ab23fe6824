//! docs/protocol.md describes what is in Redis: all of it, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use cb_testkit::{RedisServer, Reply};

use super::Target;
use super::layout::script;
use crate::clock::Clock;
use crate::store::redis::RedisStore;
use crate::store::{Overview, Retention, Topic};

/// A documented key: its pattern, its type and its fields' patterns.
struct Section {
    key: String,
    kind: String,
    fields: Vec<String>,
}

/// The sections whose heading is a key, with the names in backticks of their tables' first columns.
fn documented(page: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("### `") {
            let (key, kind) = heading.split_once("` (").expect("a type follows the key");
            let kind = kind.trim_end_matches(')').into();
            sections.push(Section { key: key.into(), kind, fields: Vec::new() });
        } else if line.starts_with("## ") && !sections.is_empty() {
            break;
        } else if let (Some(row), Some(section)) = (line.strip_prefix("| `"), sections.last_mut()) {
            let first = row.split(" | ").next().unwrap();
            section
                .fields
                .extend(first.split('`').filter(|name| !matches!(*name, "" | ", ")).map(Into::into));
        }
    }
    sections
}

/// Whether a text is what the pattern says: each `<…>` stands for at least one character.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((literal, rest)) = pattern.split_once('<') else { return pattern == text };
    let (_, rest) = rest.split_once('>').expect("a placeholder ends");
    let Some(text) = text.strip_prefix(literal) else { return false };
    let ends = text.char_indices().skip(1).map(|(end, _)| end).chain([text.len()]);
    ends.into_iter().filter(|end| *end > 0).any(|end| matches(rest, &text[end..]))
}

/// The names in a key: fields of a hash, or of all entries of a stream.
fn fields(server: &RedisServer, key: &str, kind: &str) -> BTreeSet<String> {
    let names = |pairs: Vec<Reply>| -> Vec<String> { pairs.iter().step_by(2).map(Reply::text).collect() };
    match kind {
        "hash" => names(server.command(&["HGETALL", key]).items()).into_iter().collect(),
        "stream" => {
            let entries = server.command(&["XRANGE", key, "-", "+"]).items();
            entries.into_iter().flat_map(|entry| names(entry.items().remove(1).items())).collect()
        }
        _ => BTreeSet::new(),
    }
}

#[tokio::test]
async fn every_key_and_field_is_documented_and_every_documented_one_exists() {
    let server = RedisServer::start();
    let (clock, hands) = Clock::manual();
    let store = RedisStore::on_clock(Target::Single(server.url()), "ns", clock);
    let store = store.retaining(Some(Retention::default()));
    script(&store, &hands).await;
    let posts = Topic::ALL.map(|topic| (topic, "{}".to_owned())).to_vec();
    Overview::post(&store, "host-1/42".into(), posts).await.unwrap();
    Overview::watch_fleet(&store, Duration::from_secs(60)).await.unwrap();

    let sections = documented(include_str!("../../../../../docs/protocol.md"));
    assert!(sections.len() >= 15, "the page is read as it is written");
    let mut missing: BTreeSet<(&str, &str)> = BTreeSet::new();
    for section in &sections {
        missing.insert((&section.key, ""));
        missing.extend(section.fields.iter().map(|field| (&*section.key, &**field)));
    }
    for key in server.cli(&["KEYS", "*"]).lines() {
        let kind = server.cli(&["TYPE", key]);
        // `{ns}` is the test's own namespace.
        let found: Vec<_> = sections.iter().filter(|section| matches(&section.key, key)).collect();
        let [section] = &found[..] else { panic!("{key} is described {} times", found.len()) };
        assert_eq!(section.kind, kind, "{key}");
        missing.remove(&(&*section.key, ""));
        for field in fields(&server, key, &kind) {
            let described = section.fields.iter().find(|pattern| **pattern == field);
            let described =
                described.or_else(|| section.fields.iter().find(|pattern| matches(pattern, &field)));
            let Some(described) = described else { panic!("{field} of {key} is not described") };
            missing.remove(&(&*section.key, &**described));
        }
    }
    assert!(missing.is_empty(), "described, and not found: {missing:?}");
}

#[test]
fn patterns_match_whole_names() {
    assert!(matches("cb1:{ns}:b:<breaker>", "cb1:{ns}:b:a:b"));
    assert!(!matches("cb1:{ns}:b:<breaker>", "cb1:{ns}:b:"));
    assert!(matches("w:<length>/<width>:<bucket>", "w:60/6:1"));
    assert!(!matches("w:<length>/<width>:<bucket>", "w:60:1"));
    assert!(!matches("meta", "meta2"));
}
