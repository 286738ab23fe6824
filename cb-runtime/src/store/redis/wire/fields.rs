//! The fields of an entry of a stream, as the stream and as a message contain them.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use redis::Value;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// The number of fields of an event.
const OF_EVENT: usize = 16;

/// The fields of a stream's entry, in its order.
pub(in crate::store::redis) struct Fields<'a> {
    /// Names and contents; `None` is no text.
    pairs: Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>,
    /// The place behind the field that was read last. Fields that are read in their order are found at once.
    next: Cell<usize>,
}

impl<'a> Fields<'a> {
    /// Another client's entry need not be in UTF-8.
    pub(in crate::store::redis) fn of_entry(entry: &'a [(Vec<u8>, Value)]) -> Self {
        let text = |bytes: &'a [u8]| str::from_utf8(bytes).ok().map(Cow::Borrowed);
        let pair = |(name, value): &'a (Vec<u8>, Value)| {
            let content = if let Value::BulkString(bytes) = value { text(bytes) } else { None };
            Some((text(name)?, content))
        };
        Fields { pairs: entry.iter().filter_map(pair).collect(), next: Cell::default() }
    }

    pub(in crate::store::redis) fn has(&self, field: &str) -> bool {
        self.pairs.iter().any(|(name, _)| name == field)
    }

    /// The content of a field; the error says what is wrong with it.
    pub(in crate::store::redis) fn text(&self, field: &str) -> Result<&str, String> {
        let (before, after) = self.pairs.split_at(self.next.get());
        let Some(at) = after.iter().chain(before).position(|(name, _)| name == field) else {
            return Err(format!("{field} is missing"));
        };
        let at = (before.len() + at) % self.pairs.len();
        self.next.set(at + 1);
        self.pairs[at].1.as_deref().ok_or_else(|| format!("{field} is not a text"))
    }
}

/// A stream's entry in a message: a list of its id, and its fields' names and contents.
pub(in crate::store::redis) struct Published<'a> {
    pub(in crate::store::redis) id: String,
    pub(in crate::store::redis) fields: Fields<'a>,
}

impl<'de> Deserialize<'de> for Published<'de> {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        list.deserialize_seq(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Published<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Published<'de>, A::Error> {
        let id = texts.next_element()?.ok_or_else(|| A::Error::missing_field("id"))?;
        let mut pairs = Vec::with_capacity(OF_EVENT);
        while let (Some(Text(name)), Some(Text(content))) = (texts.next_element()?, texts.next_element()?) {
            pairs.push((name, Some(content)));
        }
        Ok(Published { id, fields: Fields { pairs, next: Cell::default() } })
    }
}

/// Part of the message, if it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_escapes_are_not_copied() {
        let published: Published<'_> =
            serde_json::from_str(r#"["1-0","state","open","reason","a \"b\""]"#).unwrap();
        assert_eq!(published.id, "1-0");
        let is_borrowed = |at: usize| matches!(published.fields.pairs[at].1, Some(Cow::Borrowed(_)));
        assert!(is_borrowed(0) && !is_borrowed(1));
        assert_eq!(published.fields.text("reason"), Ok("a \"b\""));
    }

    #[test]
    fn fields_are_found_in_any_order() {
        let entry = ["a", "b", "c"].map(|name| (name.as_bytes().to_vec(), Value::BulkString(name.into())));
        let fields = Fields::of_entry(&entry);
        for name in ["a", "b", "c", "a", "c", "b", "b"] {
            assert_eq!(fields.text(name), Ok(name));
        }
        assert_eq!(fields.text("d"), Err("d is missing".to_owned()));
    }

    #[test]
    fn contents_that_are_no_texts_are_named() {
        let entry = [
            (vec![0xff], Value::BulkString("no name".into())),
            (b"a".to_vec(), Value::BulkString(vec![0xff])),
            (b"b".to_vec(), Value::Int(1)),
        ];
        let fields = Fields::of_entry(&entry);
        for name in ["a", "b"] {
            assert_eq!(fields.text(name), Err(format!("{name} is not a text")));
        }
        assert!(fields.has("a") && !fields.has("c"));
    }
}
