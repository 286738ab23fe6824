//! A crate that takes the runtime without its features, and needs none of them.

/// A registry in memory, which every build has.
pub fn in_memory() -> cb_runtime::RegistryBuilder {
    cb_runtime::Registry::builder()
}
