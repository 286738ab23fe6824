//! Names the features that this build lacks. A function that a feature would bring exists without it, too,
//! with a bound that no type satisfies: the compiler alone would report only that there is no such
//! function. The messages contain the paths of these traits and of the functions, so both read well.
#![doc(hidden)]
#![allow(missing_docs, reason = "hidden")]

#[cfg(not(feature = "redis"))]
#[diagnostic::on_unimplemented(
    message = "the feature `redis` of cb-runtime is missing",
    label = "this build knows no Redis",
    note = "in Cargo.toml, leave `default-features = false` out, or add `features = [\"redis\"]`"
)]
pub trait Redis {}

#[cfg(not(feature = "cluster"))]
#[diagnostic::on_unimplemented(
    message = "the feature `cluster` of cb-runtime is missing",
    label = "this build knows no Redis Cluster",
    note = "in Cargo.toml, add `features = [\"cluster\"]`"
)]
pub trait Cluster {}

#[cfg(not(feature = "sentinel"))]
#[diagnostic::on_unimplemented(
    message = "the feature `sentinel` of cb-runtime is missing",
    label = "this build knows no Sentinel",
    note = "in Cargo.toml, add `features = [\"sentinel\"]`"
)]
pub trait Sentinel {}

#[cfg(not(feature = "config"))]
#[diagnostic::on_unimplemented(
    message = "the feature `config` of cb-runtime is missing",
    label = "this build reads neither files nor the environment",
    note = "in Cargo.toml, add `features = [\"config\"]`"
)]
pub trait Config {}
