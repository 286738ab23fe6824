//! Where a Redis store is.
#![cfg_attr(
    not(all(feature = "cluster", feature = "sentinel")),
    allow(unreachable_pub, reason = "public for `cbctl doctor`, which has these features")
)]

/// The Redis to connect to.
#[derive(Clone)]
pub enum Target {
    /// One server: `redis://`, `rediss://` or `unix://`.
    Single(String),
    /// Some of a cluster's nodes.
    #[cfg(feature = "cluster")]
    Cluster(Vec<String>),
    /// The master that these sentinels know under this name. The first address has the master's user,
    /// password, database and TLS. A sentinel with a password gets the credentials of its own address.
    #[cfg(feature = "sentinel")]
    Sentinel {
        /// The sentinels.
        urls: Vec<String>,
        /// The master's name.
        master: String,
    },
}

impl Target {
    /// The function of [`RegistryBuilder`](crate::RegistryBuilder) that sets it.
    pub(crate) fn setter(&self) -> &'static str {
        match self {
            Target::Single(_) => "redis",
            #[cfg(feature = "cluster")]
            Target::Cluster(_) => "redis_cluster",
            #[cfg(feature = "sentinel")]
            Target::Sentinel { .. } => "redis_sentinel",
        }
    }
}
