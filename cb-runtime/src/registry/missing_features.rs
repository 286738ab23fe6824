//! Functions that this build does not have. They are there to name the feature that brings them: the
//! compiler alone would say that there is no such method.
#![allow(missing_docs, reason = "nobody can call them")]

use super::RegistryBuilder;

/// Implemented by nothing.
#[cfg(not(feature = "redis"))]
#[diagnostic::on_unimplemented(
    message = "the feature `redis` of cb-runtime is missing",
    label = "this build knows no Redis",
    note = "in Cargo.toml, leave `default-features = false` out, or add `features = [\"redis\"]`"
)]
pub trait FeatureRedis {}

/// Implemented by nothing.
#[cfg(not(feature = "cluster"))]
#[diagnostic::on_unimplemented(
    message = "the feature `cluster` of cb-runtime is missing",
    label = "this build knows no Redis Cluster",
    note = "in Cargo.toml, add `features = [\"cluster\"]`"
)]
pub trait FeatureCluster {}

/// Implemented by nothing.
#[cfg(not(feature = "sentinel"))]
#[diagnostic::on_unimplemented(
    message = "the feature `sentinel` of cb-runtime is missing",
    label = "this build knows no Sentinel",
    note = "in Cargo.toml, add `features = [\"sentinel\"]`"
)]
pub trait FeatureSentinel {}

/// Implemented by nothing.
#[cfg(not(feature = "config"))]
#[diagnostic::on_unimplemented(
    message = "the feature `config` of cb-runtime is missing",
    label = "this build reads neither files nor the environment",
    note = "in Cargo.toml, add `features = [\"config\"]`"
)]
pub trait FeatureConfig {}

/// What `from_env` reads.
#[cfg(not(feature = "config"))]
pub struct Environment;

#[cfg(not(feature = "config"))]
#[doc(hidden)]
impl crate::RegistryConfig {
    pub fn load<Path: FeatureConfig>(_path: Path) -> Result<Self, crate::Error> {
        Ok(Self::default())
    }

    pub fn from_env() -> Result<Self, crate::Error>
    where
        // `for`, as the compiler would otherwise report here, not at a call, that there is no implementation.
        for<'a> Environment: FeatureConfig,
    {
        Ok(Self::default())
    }
}

#[doc(hidden)]
impl RegistryBuilder {
    #[cfg(not(feature = "redis"))]
    pub fn redis<Url: FeatureRedis>(self, _url: Url) -> Self {
        self
    }

    #[cfg(not(feature = "cluster"))]
    pub fn redis_cluster<Urls: FeatureCluster>(self, _urls: Urls) -> Self {
        self
    }

    #[cfg(not(feature = "sentinel"))]
    pub fn redis_sentinel<Urls: FeatureSentinel>(self, _urls: Urls, _master: impl Into<String>) -> Self {
        self
    }
}
