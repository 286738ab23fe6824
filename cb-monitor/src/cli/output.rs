//! Printing to stdout and stderr. If their reader has closed them, as `head` does, `println!` would panic.

use std::fmt::Display;
use std::io::Write;

use super::{Failure, text};

/// Prints a line of the answer.
///
/// # Errors
/// [`Failure::NoReader`] if nobody reads it, which ends the program quietly.
pub(super) fn line(line: impl Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Prints a line to stderr, if it has a reader.
pub(super) fn remark(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints a problem to stderr that does not end the command.
pub(super) fn warning(problem: &str, json: bool) {
    if json {
        remark(serde_json::json!({ "warning": problem }));
    } else {
        remark(format_args!("cbctl: {}", text::plain(problem)));
    }
}
