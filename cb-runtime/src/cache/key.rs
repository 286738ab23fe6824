//! The keys of cached results.
//!
//! If two different calls had one key, one user would get another user's data, and an attacker may choose
//! arguments to that end. Both keys are therefore cryptographic: within a process a keyed hash, which is
//! fast; in the store, where instances must agree without a shared secret, a digest. The text of the
//! arguments is stored nowhere.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroU64;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use siphasher::sip128::{Hash128, Hasher128, SipHasher13};

use super::encoding::{Encoder, Sink, Unserializable};
use super::freshness::FreshnessSlot;
use super::function::FunctionId;

/// A result's key in this process: a keyed hash of the arguments, and the function and the breaker. 127 bits:
/// one is always set, so that the future of a call holds an optional key in as many words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalKey(NonZeroU64, u64);

impl LocalKey {
    /// The key of arguments that do not fit into 15 bytes. It hashes 16 or more. Out of line: short arguments
    /// then need no registers for it.
    #[inline(never)]
    fn of_more(mut hasher: SipHasher13, arguments: &KeyBuffer) -> Self {
        hasher.write(arguments.bytes());
        hasher.write_u8(u8::from(arguments.is_long()));
        LocalKey::of_hash(hasher.finish128())
    }

    #[inline]
    fn of_hash(hash: Hash128) -> Self {
        LocalKey(NonZeroU64::MIN | hash.h1, hash.h2)
    }

    #[inline]
    pub(super) fn slot(self) -> FreshnessSlot {
        FreshnessSlot(self.1)
    }
}

impl std::hash::Hash for LocalKey {
    /// The key is a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.1);
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

/// Both keys of one call's result.
#[derive(Clone, Debug)]
pub(crate) struct CacheKey {
    pub(super) local: LocalKey,
    /// `None` if this process holds the result, and the key with it. Boxed, because every call's future
    /// holds it.
    pub(super) store: Option<Box<StoreKey>>,
}

impl CacheKey {
    pub(crate) fn with_store(self, store: Option<Box<StoreKey>>) -> Self {
        CacheKey { store, ..self }
    }
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
    #[expect(clippy::cast_possible_truncation, reason = "a word is hashed in pieces")]
    pub(super) fn key(&self, function: FunctionId, breaker: u64, arguments: &KeyBuffer) -> LocalKey {
        let mut hasher = SipHasher13::new_with_keys(self.0 ^ function.0, self.1 ^ breaker);
        let Some((first, rest)) = arguments.two_words() else { return LocalKey::of_more(hasher, arguments) };
        // 15 bytes, in pieces of a known size: the compiler computes where each of them goes.
        hasher.write_u64(first);
        hasher.write_u32(rest as u32);
        hasher.write_u16((rest >> 32) as u16);
        hasher.write_u8((rest >> 48) as u8);
        LocalKey::of_hash(hasher.finish128())
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
