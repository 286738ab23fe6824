//! The background exchange with the store.

pub(crate) mod thread;
