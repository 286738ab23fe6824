//! The process's one background thread, and its small runtime.
//!
//! All registries' exchanges run on it, and nothing of the user's: a test runtime that ends or a
//! user's runtime that is blocked cannot stop it, and no callback can.

use std::io;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle};

/// The runtime of the coordinator thread, started by the first registry. It lives as long as the process.
pub(crate) fn runtime() -> io::Result<&'static Handle> {
    static HANDLE: OnceLock<Handle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("cb-coordinator".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    // Two first registries at once: the loser's thread stays parked, which costs nothing but a stack.
    Ok(HANDLE.get_or_init(|| handle))
}
