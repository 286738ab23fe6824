//! A health check that follows a script file. Each check of the fleet takes the next line.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::dependency::Scripted;
use crate::protocol::{CHECKS_LOG, CHECKS_SCRIPT, CheckStep};

/// Logs the check and does its step of the script. Checks beyond the last line repeat the last line.
pub(crate) async fn check(folder: PathBuf) -> Result<(), String> {
    let number = append_to_log(&folder);
    let script = read(&folder.join(CHECKS_SCRIPT));
    let line = script.lines().nth(number).or_else(|| script.lines().last()).expect("a script has lines");
    match serde_json::from_str(line).expect("a step") {
        CheckStep::Pass => Ok(()),
        CheckStep::Fail(error) => Err(error),
        CheckStep::Panic => std::panic::panic_any(Scripted),
        CheckStep::Hang => std::future::pending().await,
        CheckStep::Block => loop {
            std::thread::park();
        },
        CheckStep::PassAfter(signal) => {
            while !folder.join(&signal).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        }
    }
}

/// Logs a check of this process and returns the number of checks before it.
fn append_to_log(folder: &Path) -> usize {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let me = format!("{} {}", std::process::id(), MADE.fetch_add(1, Ordering::SeqCst));
    let log = folder.join(CHECKS_LOG);
    let mut file = OpenOptions::new().append(true).create(true).open(&log).expect("the log can be opened");
    // One write per line: an append of several processes does not interleave.
    file.write_all(format!("{me}\n").as_bytes()).expect("the log can be written");
    read(&log).lines().position(|line| line == me).expect("just written")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
