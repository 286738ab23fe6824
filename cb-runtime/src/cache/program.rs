//! The digest of the executable, which identifies a build of the program.

use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

/// `None`: the executable cannot be read.
static DIGEST: OnceLock<Option<[u8; 32]>> = OnceLock::new();

/// The digest of this process' executable, once it is known. Reading the file takes up to a second, on a
/// thread of its own; the first call starts it.
pub(super) fn digest(background: &Handle) -> Option<&'static [u8; 32]> {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    if DIGEST.get().is_none() && !BEGUN.swap(true, Ordering::Relaxed) {
        background.spawn_blocking(|| DIGEST.get_or_init(|| read().ok()));
    }
    DIGEST.get()?.as_ref()
}

fn read() -> io::Result<[u8; 32]> {
    // On Linux this is the file that was started, even if it has been replaced since.
    let linux = File::open("/proc/self/exe");
    let file = linux.or_else(|_| File::open(std::env::current_exe()?))?;
    let mut digest = blake3::Hasher::new();
    digest.update_reader(file)?;
    Ok(*digest.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_can_be_read_and_has_one_digest() {
        assert_eq!(read().unwrap(), read().unwrap());
    }
}
