//! SipHash-1-3 with a result of 128 bits, over words: the bytes of a key are in words already, so that a key
//! of a few words takes a fifth less than by an implementation for any bytes.

/// Hashes the whole words of a text. `rest`: the bytes after them, at most seven, filled up with zeros;
/// `len`: the length of all in bytes.
#[inline]
pub(super) fn hash(key: (u64, u64), words: &[[u8; 8]], rest: u64, len: usize) -> (u64, u64) {
    let mut state = State([
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ]);
    for word in words {
        state.absorb(u64::from_le_bytes(*word));
    }
    state.absorb(rest | (len as u64) << 56);
    state.0[2] ^= 0xee;
    let first = state.finish();
    state.0[1] ^= 0xdd;
    (first, state.finish())
}

/// Hashes bytes.
pub(super) fn hash_bytes(key: (u64, u64), bytes: &[u8]) -> (u64, u64) {
    let (words, rest) = bytes.as_chunks::<8>();
    let rest = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    hash(key, words, rest, bytes.len())
}

struct State([u64; 4]);

impl State {
    #[inline]
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    #[inline]
    fn finish(&mut self) -> u64 {
        for _ in 0..3 {
            self.round();
        }
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }

    #[inline]
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.0;
        *v0 = v0.wrapping_add(*v1);
        *v2 = v2.wrapping_add(*v3);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v1);
        *v0 = v0.wrapping_add(*v3);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use siphasher::sip128::SipHasher13;

    use super::*;

    #[test]
    fn hashes_are_those_of_siphash() {
        let text: Vec<u8> = (0..=200).collect();
        for len in 0..=text.len() {
            let key = (0x0123_4567_89ab_cdef ^ len as u64, 0xfedc_ba98_7654_3210);
            let expected = SipHasher13::new_with_keys(key.0, key.1).hash(&text[..len]);
            assert_eq!(hash_bytes(key, &text[..len]), (expected.h1, expected.h2), "{len}");
        }
    }
}
