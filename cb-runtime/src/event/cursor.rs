//! Positions in the fleet's history.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A position in the fleet's history: the one after a [`Transition`](super::Transition).
///
/// `Display` writes it as a text without blanks, which `FromStr` reads and which can be the `id` of a
/// server-sent event. The format may change with any version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub(crate) incarnation: String,
    pub(crate) number: u64,
    pub(crate) id: String,
}

impl Cursor {
    /// Whether this position is certainly not after `other`.
    pub(super) fn is_covered_by(&self, other: &Cursor) -> bool {
        self.incarnation == other.incarnation && self.number <= other.number
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.incarnation, self.number, self.id)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// The error of parsing a text that is not a [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseCursorError(());

impl fmt::Display for ParseCursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is no cursor of a circuit breaker's transition")
    }
}

impl std::error::Error for ParseCursorError {}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // All parts are checked, because the text may come from a browser, and is sent to the store.
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u64>().is_ok();
        let read = || {
            let mut parts = text.rsplitn(3, ':');
            let (id, number, incarnation) = (parts.next()?, parts.next()?, parts.next()?);
            let (time, serial) = id.split_once('-')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let is_whole = digits(time) && digits(serial) && digits(number);
            (is_whole && incarnation.len() <= 100 && incarnation.chars().all(plain)).then_some(())?;
            Some(Cursor { incarnation: incarnation.into(), number: number.parse().ok()?, id: id.into() })
        };
        read().ok_or(ParseCursorError(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_read_back_and_hostile_texts_are_refused() {
        let cursor = Cursor { incarnation: "00ab".into(), number: 7, id: "1700000000000-3".into() };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in [
            "",
            "a",
            ":1:1-1 x",
            "a:1:1",
            "a:x:1-1",
            "a b:1:1-1",
            "a:1:+1-1",
            "a\n:1:1-1",
            "a:-1:1-1",
            "a:1:-1",
            "a:1:1-18446744073709551616",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
    }
}
