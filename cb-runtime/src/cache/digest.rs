//! BLAKE3 over bytes that come in small pieces.

/// The pieces are gathered here first, because the digest's own cost
/// per piece is several times that of a byte, and most calls' arguments are shorter than this.
pub(super) struct Digest {
    gathered: [u8; GATHERED],
    len: usize,
    before: Option<blake3::Hasher>,
}

const GATHERED: usize = 256;

impl Digest {
    pub(super) fn new() -> Self {
        Digest { gathered: [0; GATHERED], len: 0, before: None }
    }

    #[inline]
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self.gathered.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.pass_on(bytes),
        }
    }

    #[cold]
    fn pass_on(&mut self, bytes: &[u8]) {
        let before = self.before.get_or_insert_with(blake3::Hasher::new);
        before.update(&self.gathered[..self.len]);
        before.update(bytes);
        self.len = 0;
    }

    pub(super) fn finish(&mut self) -> [u8; 32] {
        let gathered = &self.gathered[..self.len];
        match &mut self.before {
            None => blake3::hash(gathered).into(),
            Some(before) => before.update(gathered).finalize().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_make_no_difference_to_the_digest(pieces in prop::collection::vec(
            prop::collection::vec(proptest::num::u8::ANY, 0..300), 0..8)
        ) {
            let mut digest = Digest::new();
            for piece in &pieces {
                digest.update(piece);
            }
            prop_assert_eq!(digest.finish(), *blake3::hash(&pieces.concat()).as_bytes());
        }
    }
}
