//! The store that a fleet shares. (SKELETON: being built.)
use super::memory::MemoryStore;
use crate::error::Error;

#[derive(Clone, Debug)]
pub(crate) enum Target {
    Single(String),
    #[cfg(feature = "cluster")]
    Cluster(Vec<String>),
    #[cfg(feature = "sentinel")]
    Sentinel {
        urls: Vec<String>,
        master: String,
    },
}

pub(crate) struct RedisStore;

impl RedisStore {
    pub(crate) fn new(_: Target, _: &str) -> Result<MemoryStore, Error> {
        Ok(MemoryStore::new(crate::clock::Clock::system()))
    }
}
