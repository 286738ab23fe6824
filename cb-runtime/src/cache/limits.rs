//! How much a registry's cache holds.

use serde::Deserialize;

use crate::error::Error;

/// Bounds of the cached results in one process: for
/// [`RegistryBuilder::cache_limits`](crate::RegistryBuilder::cache_limits), or read by `serde`.
///
/// ```
/// use cb_runtime::{CacheLimits, Registry};
///
/// let limits = CacheLimits::default().entries(1_000).bytes(1 << 20);
/// let registry = Registry::builder().cache_limits(limits).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheLimits {
    pub(super) entries: usize,
    pub(super) bytes: usize,
    pub(super) result_bytes: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        CacheLimits { entries: 10_000, bytes: 16 << 20, result_bytes: 256 << 10 }
    }
}

impl CacheLimits {
    /// The most results that this process holds. Default 10,000.
    pub fn entries(mut self, entries: usize) -> Self {
        self.entries = entries;
        self
    }

    /// The most bytes that they take, as text and with what it takes to hold them. Default 16 MiB. A small
    /// result counts as its share, `bytes / entries`.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// The most bytes that one result takes as text. Default 256 KiB. A larger one is not cached, which is
    /// reported. A result is written as text within its call, once per `min(cache_ttl / 10, 5 s)` and
    /// arguments: a large one takes milliseconds. Writing stops at this limit.
    pub fn result_bytes(mut self, bytes: usize) -> Self {
        self.result_bytes = bytes;
        self
    }

    pub(crate) fn validate(self) -> Result<(), Error> {
        let least = [("entries", self.entries), ("bytes", self.bytes), ("result_bytes", self.result_bytes)];
        match least.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => {
                Err(Error::config("cache_limits", format!("{name} = 0 is invalid; it must be at least 1")))
            }
            None => Ok(()),
        }
    }
}
