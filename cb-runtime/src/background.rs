//! The background thread of the process, and its runtime.
//!
//! The exchanges of all registries run on it. User code does not: neither a user's runtime that ends or
//! blocks nor a callback can stop the exchange.

use std::io;

use tokio::runtime::{Builder, Handle};

use crate::sync::PerProcess;

/// The runtime of the coordinator thread, started by the first registry. It lives as long as the process.
pub(crate) fn runtime() -> io::Result<&'static Handle> {
    static HANDLE: PerProcess<Handle> = PerProcess::new();
    HANDLE.get_or_make(|| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("cb-coordinator".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(handle)
    })
}
