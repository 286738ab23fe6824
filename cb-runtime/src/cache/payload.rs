//! A serialized result: JSON if that preserves it, else RON.
//!
//! JSON writes `None`, `Some(None)`, `()` and NaN as `null`, and allows only text as keys of maps. A result
//! must be read back unchanged, or be refused with a reason when it is written. A result that JSON may not
//! preserve is therefore read back at once and compared. If it has changed, it is written as RON, which
//! distinguishes these values. JSON comes first because it is human-readable, other languages can read it,
//! and it tolerates a field that another version of the type has added or removed. A compact format without
//! names (Postcard, bincode) would misread another version's bytes. MessagePack and CBOR also have only one
//! `null`.

use std::cell::Cell;
use std::fmt::{self, Display};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, ErrorKind, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::Formatter;
use smallvec::SmallVec;

use super::encoding::{Encoder, Sink, is_not_finite, is_null, is_some};

/// A serialized result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) format: Format,
    pub(super) text: Text,
}

/// A short text stands in the cached entry itself, which saves an allocation and a cache miss. With one more
/// byte it would take another word.
type Text = SmallVec<[u8; 39]>;

const _: () = assert!(size_of::<Text>() == 48);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Ron,
}

/// Why a result is not cached.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It exceeds the maximum size.
    TooLarge,
    /// It cannot be serialized, or would be read back changed.
    Unfaithful(String),
}

impl Payload {
    /// Serializes `value`. Stops at `limit` bytes, which bounds the cost to the call. `unchecked`: no
    /// result of this function has been read back yet.
    pub(super) fn write<T: Serialize + DeserializeOwned>(
        value: &T,
        limit: usize,
        unchecked: bool,
    ) -> Result<Self, Refusal> {
        let (payload, has_null) = match Payload::write_json(value, limit) {
            Ok(written) => written,
            Err(Refusal::Unfaithful(problem)) => return Payload::write_ron(value, limit, &problem),
            Err(refusal) => return Err(refusal),
        };
        // `null` is the only text that several values share.
        if has_null && Pieces::of(value).is_none_or(|pieces| pieces.ambiguous) {
            return match payload.returns(value) {
                Ok(()) => Ok(payload),
                Err(problem) => Payload::write_ron(value, limit, &problem),
            };
        }
        if unchecked && let Err(problem) = payload.read::<T>() {
            return Payload::write_ron(value, limit, &problem);
        }
        Ok(payload)
    }

    fn write_json<T: Serialize>(value: &T, limit: usize) -> Result<(Self, bool), Refusal> {
        thread_local!(static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
        /// A thread keeps a buffer of this size at most.
        const KEPT: usize = 1 << 16;

        let has_null = Cell::new(false);
        // Empty while the serialization of a result serializes another one.
        let mut output = Bounded { bytes: BUFFER.take(), limit };
        output.bytes.clear();
        let mut serializer = serde_json::Serializer::with_formatter(&mut output, NotesNull(&has_null));
        let result = match value.serialize(&mut serializer) {
            Ok(()) => Ok((Payload::json(&output.bytes), has_null.get())),
            Err(problem) if problem.is_io() => Err(Refusal::TooLarge),
            Err(problem) => Err(Refusal::Unfaithful(problem.to_string())),
        };
        if output.bytes.capacity() <= KEPT {
            BUFFER.set(output.bytes);
        }
        result
    }

    /// `problem`: why JSON does not preserve the value.
    fn write_ron<T: Serialize + DeserializeOwned>(
        value: &T,
        limit: usize,
        problem: &str,
    ) -> Result<Self, Refusal> {
        let refusal = || Refusal::Unfaithful(problem.to_owned());
        let mut output = Bounded { bytes: Vec::new(), limit };
        match ron::Options::default().to_writer(&mut output, value) {
            Ok(()) => {}
            Err(ron::Error::Fmt) => return Err(Refusal::TooLarge),
            Err(_) => return Err(refusal()),
        }
        let payload = Payload { format: Format::Ron, text: output.bytes.into() };
        payload.returns(value).map_err(|_| refusal())?;
        Ok(payload)
    }

    /// Whether the text is read back as `value`.
    fn returns<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<(), String> {
        let read = self.read::<T>()?;
        match (Pieces::of(value), Pieces::of(&read)) {
            (Some(written), Some(read)) if written.sum == read.sum => Ok(()),
            _ => Err("it would come back changed".to_owned()),
        }
    }

    pub(super) fn json(text: &[u8]) -> Self {
        Payload { format: Format::Json, text: Text::from_slice(text) }
    }

    /// The result, as a `T`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        fn text(problem: impl Display) -> String {
            problem.to_string()
        }
        match self.format {
            Format::Json => serde_json::from_slice(&self.text).map_err(text),
            Format::Ron => ron::de::from_bytes(&self.text).map_err(text),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }
}

/// Writes compact JSON, and notes whether it contains a `null`.
struct NotesNull<'a>(&'a Cell<bool>);

impl Formatter for NotesNull<'_> {
    fn write_null<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.set(true);
        writer.write_all(b"null")
    }
}

/// A writer that fails beyond a limit of bytes.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// The pieces of a value, without their order, which differs after reading for hash maps and sets.
struct Pieces {
    sum: u64,
    after_some: bool,
    /// JSON may write another value as the same text.
    ambiguous: bool,
}

impl Pieces {
    fn of<T: Serialize>(value: &T) -> Option<Self> {
        let mut pieces = Pieces { sum: 0, after_some: false, ambiguous: false };
        value.serialize(Encoder(&mut pieces)).ok().map(|()| pieces)
    }
}

impl Sink for Pieces {
    fn put(&mut self, piece: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write(piece);
        self.sum = self.sum.wrapping_add(hasher.finish());
        self.ambiguous |= (self.after_some && is_null(piece)) || is_not_finite(piece);
        self.after_some = is_some(piece);
    }
}

#[cfg(test)]
#[allow(clippy::option_option, reason = "that is what is tested")]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    const LIMIT: usize = 1 << 16;

    fn write<T: Serialize + DeserializeOwned>(value: &T) -> Result<Payload, Refusal> {
        Payload::write(value, LIMIT, false)
    }

    #[track_caller]
    fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, format: Format) {
        let payload = write(&value).unwrap();
        assert_eq!(payload.format, format, "{}", String::from_utf8_lossy(&payload.text));
        assert_eq!(payload.read::<T>().unwrap(), value);
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Nested {
        name: Option<Option<String>>,
        list: Vec<Option<Option<u8>>>,
        unit: Option<()>,
    }

    /// As users write it to tell a field that is missing from one that is `null`.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Patch {
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        name: Option<Option<String>>,
    }

    fn present<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<String>>, D::Error> {
        Option::deserialize(deserializer).map(Some)
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum MapOrText {
        ById(HashMap<u64, u8>),
        Text(String),
    }

    #[test]
    fn json_is_used_where_it_preserves_the_value() {
        comes_back(Some("text".to_owned()), Format::Json);
        comes_back(None::<String>, Format::Json);
        comes_back(Some(Some(1_u8)), Format::Json);
        comes_back((), Format::Json);
        comes_back((u64::MAX, i128::MIN, 0.1_f32, -0.0_f64, 5e-324_f64), Format::Json);
        comes_back(HashMap::from([(1, Some(2)), (3, None)]), Format::Json);
        comes_back(vec![Patch { name: None }, Patch { name: Some(None) }], Format::Json);
    }

    #[test]
    fn ron_is_used_where_json_would_change_the_value() {
        comes_back(Some(None::<u8>), Format::Ron);
        comes_back(Some(()), Format::Ron);
        comes_back(
            Nested { name: Some(None), list: vec![None, Some(None), Some(Some(1))], unit: None },
            Format::Ron,
        );
        comes_back(Nested { unit: Some(()), ..Nested::default() }, Format::Ron);
        comes_back(BTreeMap::from([((1, 2), "a".to_owned()), ((3, 4), "b".to_owned())]), Format::Ron);
        comes_back(
            (0..50).map(|n| ((n, "x".to_owned()), Some(Some(n)))).collect::<HashMap<_, _>>(),
            Format::Ron,
        );
        comes_back(
            (0..50).map(|n| if n == 0 { None } else { Some(Some(n)) }).collect::<HashSet<_>>(),
            Format::Json,
        );
        comes_back([f64::INFINITY, 1.0], Format::Ron);
        let read: f64 = write(&f64::NAN).unwrap().read().unwrap();
        assert!(read.is_nan());
    }

    #[test]
    fn value_that_neither_format_preserves_is_refused_with_the_reason() {
        #[derive(Serialize, Deserialize)]
        #[serde(rename_all(serialize = "lowercase", deserialize = "UPPERCASE"))]
        enum OneWay {
            Value,
        }
        let Err(Refusal::Unfaithful(problem)) = Payload::write(&OneWay::Value, LIMIT, true) else {
            panic!("it cannot be read back");
        };
        assert!(problem.contains("unknown variant `value`"), "{problem}");
        let by_id = MapOrText::ById(HashMap::from([(1, 1)]));
        assert!(matches!(Payload::write(&by_id, LIMIT, true), Err(Refusal::Unfaithful(_)) | Ok(_)));
    }

    #[test]
    fn writing_stops_at_the_limit() {
        /// Counts how often it is serialized.
        #[derive(Clone, serde::Deserialize)]
        struct Kilobyte(#[serde(skip)] std::rc::Rc<Cell<usize>>);
        impl Serialize for Kilobyte {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.set(self.0.get() + 1);
                serializer.serialize_str(&"x".repeat(1000))
            }
        }
        let written = std::rc::Rc::new(Cell::new(0));
        let large = vec![Kilobyte(written.clone()); 100];
        assert_eq!(Payload::write(&large, 50_000, false), Err(Refusal::TooLarge));
        assert_eq!(written.get(), 50, "the rest costs the call nothing");
        let value = vec!["x".repeat(1000); 100];
        assert!(Payload::write(&value, 100_300, false).is_err());
        assert!(Payload::write(&value, 100_301, false).is_ok());
        let pairs: BTreeMap<(u32, u32), String> = (0..100).map(|n| ((n, n), "x".repeat(1000))).collect();
        assert_eq!(Payload::write(&pairs, 50_000, false), Err(Refusal::TooLarge));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn floats_are_read_back_exactly(bits in proptest::num::u64::ANY) {
            let value = f64::from_bits(bits);
            // JSON has no other numbers.
            prop_assume!(value.is_finite());
            let read: f64 = write(&value).unwrap().read().unwrap();
            prop_assert_eq!(read.to_bits(), bits);
        }

        #[test]
        fn nested_options_come_back(list in prop::collection::vec(prop::option::of(prop::option::of(prop::option::of(0..2_u8))), 0..6)) {
            prop_assert_eq!(write(&list).unwrap().read::<Vec<Option<Option<Option<u8>>>>>().unwrap(), list);
        }
    }
}
