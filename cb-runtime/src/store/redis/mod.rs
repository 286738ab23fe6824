//! stub
use super::*;
#[derive(Clone)]
pub(crate) enum Target {
    Single(String),
    Cluster(Vec<String>),
    Sentinel { urls: Vec<String>, master: String },
}
pub(crate) type RedisStore = super::memory::MemoryStore2;
