//! The bounds of a registry's cache.

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
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    pub(crate) result_bytes: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        CacheLimits { entries: 10_000, bytes: 16 << 20, result_bytes: 256 << 10 }
    }
}

impl CacheLimits {
    /// The maximum number of results in this process. Default 10,000.
    pub fn entries(mut self, entries: usize) -> Self {
        self.entries = entries;
        self
    }

    /// The maximum size of all results, including overhead. Default 16 MiB. A result counts as at least
    /// `bytes / entries`.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// The maximum size of one serialized result. Default 256 KiB. A larger one is not cached, which is
    /// reported. Results are serialized within the call, once per `min(cache_ttl / 10, 5 s)` for each
    /// combination of arguments. A large result takes milliseconds; serialization stops at this limit.
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
