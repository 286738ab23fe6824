//! A health check that does what a file says. Every check of the fleet, whoever makes it, takes the next line.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::dependency::Scripted;
use crate::protocol::{CHECKS_LOG, CHECKS_SCRIPT, Verdict};

/// Notes that a check is made, and does what is said for it; the last line is for all that follow.
pub(crate) async fn check(folder: PathBuf) -> Result<(), String> {
    let number = note(&folder);
    let script = read(&folder.join(CHECKS_SCRIPT));
    let line = script.lines().nth(number).or_else(|| script.lines().last()).expect("a script has lines");
    match serde_json::from_str(line).expect("a verdict") {
        Verdict::Pass => Ok(()),
        Verdict::Fail(error) => Err(error),
        Verdict::Panic => std::panic::panic_any(Scripted),
        Verdict::Hang => std::future::pending().await,
        Verdict::Block => loop {
            std::thread::park();
        },
        Verdict::PassAfter(signal) => {
            while !folder.join(&signal).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        }
    }
}

/// How many checks have been noted before this one.
fn note(folder: &Path) -> usize {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let me = format!("{} {}", std::process::id(), MADE.fetch_add(1, Ordering::SeqCst));
    let log = folder.join(CHECKS_LOG);
    let mut file = OpenOptions::new().append(true).create(true).open(&log).expect("the log can be opened");
    // In one write, so that those of several processes do not mix.
    file.write_all(format!("{me}\n").as_bytes()).expect("the log can be written");
    read(&log).lines().position(|line| line == me).expect("just written")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
