//! The keys of cached results.
//!
//! If two different calls had one key, one user would get another user's data, and an attacker may choose
//! arguments to that end. The keys of results are therefore cryptographic: within a process a keyed hash,
//! which is fast; in the store, where instances must agree without a shared secret, a digest. The text of the
//! arguments is stored nowhere.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroU64;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::encoding::{Encoder, Sink, Unserializable};
use super::freshness::FreshnessSlot;
use super::function::FunctionId;

/// A call's arguments in two words: the arguments themselves if their encoding is short, else a keyed hash.
/// A success needs no other key if the cached result is fresh, so short arguments are then not hashed at all.
///
/// The first word is mixed with the function's id, which is a constant where the call is compiled. The second
/// is never zero, so that the future of a call holds an optional key in as many words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallWords(u64, NonZeroU64);

/// The flags of the second word. A hash has 127 bits.
const SHORT: NonZeroU64 = NonZeroU64::new(1 << 62).expect("one bit is set");
const HASHED: NonZeroU64 = NonZeroU64::new(1 << 63).expect("one bit is set");

/// A result's key in this process: a keyed hash of the arguments, the function and the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalKey {
    hash: (u64, u64),
    slot: FreshnessSlot,
}

impl LocalKey {
    #[inline]
    pub(super) fn slot(self) -> FreshnessSlot {
        self.slot
    }

    /// Some of its bits, which are random.
    #[inline]
    pub(super) fn bits(self) -> u64 {
        self.hash.1
    }
}

impl std::hash::Hash for LocalKey {
    /// The key is a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash.0);
    }
}

/// A result's key in the store: a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoreKey([u8; 32]);

impl StoreKey {
    /// `function`: the key of the function. The breaker's name is part of the digest, because the
    /// `cache_key` of a keyed breaker may leave out the arguments that are in its name.
    pub(super) fn new(function: &[u8; 32], breaker: &str, arguments: &KeyBuffer) -> Self {
        let mut all = KeyBuffer::new();
        Encoder(&mut all).text(breaker);
        all.put(&[u8::from(arguments.is_long())]);
        all.put(arguments.bytes());
        all.put(&[u8::from(all.is_long())]);
        StoreKey(*blake3::keyed_hash(function, all.bytes()).as_bytes())
    }

    /// The end of the key in Redis. The breaker's name before the digest is for display and may be cut; the
    /// digest covers the whole name.
    pub(super) fn text(&self, breaker: &str) -> String {
        let mut text = escaped(breaker);
        text.push(':');
        text.push_str(&blake3::Hash::from_bytes(self.0).to_hex());
        text
    }
}

/// The key of one call's result, as its future holds it.
#[derive(Clone, Debug)]
pub(crate) struct CacheKey {
    pub(super) words: CallWords,
    /// `None` if this process holds the result, and the key with it. Boxed, because every call's future
    /// holds it.
    pub(super) store: Option<Box<StoreKey>>,
}

impl CacheKey {
    pub(crate) fn with_store(self, store: Option<Box<StoreKey>>) -> Self {
        CacheKey { store, ..self }
    }
}

/// Both keys of a cached result.
#[derive(Clone, Debug)]
pub(super) struct EntryKey {
    pub(super) local: LocalKey,
    pub(super) store: Option<Box<StoreKey>>,
}

/// The secret of one registry's cache.
pub(super) struct Secret(u64, u64);

impl Secret {
    pub(super) fn new() -> Self {
        // The standard library takes its keys from the system's random numbers.
        let word = || RandomState::new().build_hasher().finish();
        Secret(word(), word())
    }

    /// `breaker`: a hash of the breaker's name.
    #[inline]
    pub(super) fn words(&self, function: FunctionId, breaker: u64, arguments: &KeyBuffer) -> CallWords {
        match arguments.two_words() {
            Some((first, rest)) => CallWords(first ^ function.0, SHORT | rest),
            None => self.hashed_words(function, breaker, arguments),
        }
    }

    /// Out of line: short arguments then need no registers for it.
    #[inline(never)]
    fn hashed_words(&self, function: FunctionId, breaker: u64, arguments: &KeyBuffer) -> CallWords {
        let mut hasher = self.hasher(function, breaker);
        hasher.write(arguments.bytes());
        hasher.write_u8(u8::from(arguments.is_long()));
        let hash = hasher.finish128();
        CallWords(hash.h1 ^ function.0, HASHED | hash.h2)
    }

    /// Where the result's stamp is. It is a fast hash rather than a cryptographic one, because a stamp that
    /// belongs to another result only delays a write.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    pub(super) fn slot(&self, breaker: u64, words: CallWords) -> FreshnessSlot {
        let product = u128::from(words.0 ^ self.0) * u128::from(words.1.get() ^ self.1 ^ breaker);
        FreshnessSlot(product as u64 ^ (product >> 64) as u64)
    }

    pub(super) fn local(&self, function: FunctionId, breaker: u64, words: CallWords) -> LocalKey {
        let (first, rest) = (words.0 ^ function.0, words.1.get());
        let hash = if rest & HASHED.get() == 0 {
            let mut hasher = self.hasher(function, breaker);
            hasher.write_u64(first);
            hasher.write_u64(rest);
            let hash = hasher.finish128();
            (hash.h1, hash.h2)
        } else {
            (first, rest)
        };
        LocalKey { hash, slot: self.slot(breaker, words) }
    }

    fn hasher(&self, function: FunctionId, breaker: u64) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0 ^ function.0, self.1 ^ breaker)
    }

    pub(super) fn hash(&self, text: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(text.as_bytes());
        hasher.finish128().h1
    }
}

/// Collects encoded bytes without allocating. When the buffer is full, its content is replaced by its
/// digest. Small, because every call moves it.
pub(super) struct KeyBuffer {
    bytes: [u8; ROOM],
    len: usize,
    /// The buffer begins with a digest.
    long: bool,
}

/// Enough for most calls' arguments.
const ROOM: usize = 128;

impl KeyBuffer {
    #[inline]
    pub(super) fn new() -> Self {
        KeyBuffer { bytes: [0; ROOM], len: 0, long: false }
    }

    /// A buffer with one zero in it.
    #[inline]
    fn with_zero() -> Self {
        KeyBuffer { len: 1, ..KeyBuffer::new() }
    }

    fn is_long(&self) -> bool {
        self.long
    }

    /// The collected bytes, or the digest of the first ones and the rest.
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Up to 14 bytes, with zeros behind them and their number in the fifteenth. Most keys are that short: a
    /// number takes ten bytes.
    #[inline]
    fn two_words(&self) -> Option<(u64, u64)> {
        let [first, rest] = [0, 8].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&self.bytes[at..at + 8]);
            u64::from_le_bytes(word)
        });
        (self.len < 15).then_some((first, rest | (self.len as u64) << 48))
    }

    /// The positions at which the buffer is full do not depend on the division into pieces.
    #[cold]
    fn overflow(&mut self, mut piece: &[u8]) {
        while self.len + piece.len() > ROOM {
            let (now, later) = piece.split_at(ROOM - self.len);
            self.bytes[self.len..].copy_from_slice(now);
            let digest = blake3::Hasher::new().update(&[u8::from(self.long)]).update(&self.bytes).finalize();
            self.bytes[..blake3::OUT_LEN].copy_from_slice(digest.as_bytes());
            (self.len, self.long, piece) = (blake3::OUT_LEN, true, later);
        }
        self.bytes[self.len..self.len + piece.len()].copy_from_slice(piece);
        self.len += piece.len();
    }
}

impl Sink for KeyBuffer {
    #[inline]
    fn put(&mut self, piece: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + piece.len()) {
            Some(room) => {
                room.copy_from_slice(piece);
                self.len += piece.len();
            }
            None => self.overflow(piece),
        }
    }
}

/// Encodes the arguments of one call.
///
/// The key is the same in every build and on every platform, provided that the arguments serialize the
/// same. A `HashMap` or `HashSet` iterates in a random order, so it needs a `cache_key` that sorts. Fields
/// that a type does not serialize are not part of the key.
pub(crate) struct Arguments {
    pub(super) buffer: KeyBuffer,
    problem: Option<Box<Unserializable>>,
}

impl Arguments {
    /// `version`: the attribute's `cache_version`, which changes when the result's type does.
    #[inline]
    pub(crate) fn new(version: &str) -> Self {
        if version.is_empty() {
            return Arguments { buffer: KeyBuffer::with_zero(), problem: None };
        }
        let mut buffer = KeyBuffer::new();
        Encoder(&mut buffer).text(version);
        buffer.put(&[0]);
        Arguments { buffer, problem: None }
    }

    /// Adds one argument.
    #[inline]
    pub(crate) fn add<T: Serialize + ?Sized>(&mut self, value: &T) {
        if let Err(problem) = value.serialize(Encoder(&mut self.buffer)) {
            self.problem.get_or_insert_with(|| Box::new(problem));
        }
    }

    /// Why these arguments have no key.
    #[inline]
    pub(super) fn problem(&self) -> Option<&Unserializable> {
        self.problem.as_deref()
    }
}

/// A name as part of a key: letters, digits, `.`, `_` and `-` unchanged, the rest as `%XX`. It contains no
/// hash tag, which would put keys into one slot of a cluster, no separator and no control character. A name
/// longer than [`LONGEST_NAME`] is cut, and ends with `~`.
fn escaped(name: &str) -> String {
    const LONGEST_NAME: usize = 80;
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');
    let mut text = String::new();
    for piece in utf8_percent_encode(name, ESCAPED) {
        let room = LONGEST_NAME.saturating_sub(text.len());
        if piece.len() > room {
            text.push_str(if piece.starts_with('%') { "" } else { &piece[..room] });
            text.push('~');
            break;
        }
        text.push_str(piece);
    }
    text
}

#[cfg(test)]
pub(super) mod tests;
