//! How times are written by `serde`: wall-clock times as RFC 3339, spans as seconds.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// As RFC 3339: `"2026-03-01T12:30:00.250000Z"`.
pub(crate) fn time<S: Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    option_time(&Some(*time), out)
}

/// `null` where there is none, and for a year that RFC 3339 cannot write.
#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
pub(crate) fn option_time<S: Serializer>(time: &Option<SystemTime>, out: S) -> Result<S::Ok, S::Error> {
    let written = time.and_then(|time| {
        let mut text = String::new();
        write!(text, "{}", humantime::format_rfc3339_micros(time)).ok()?;
        Some(text)
    });
    written.serialize(out)
}

/// Seconds with a fraction, as settings are read.
pub(crate) fn span<S: Serializer>(span: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(span.as_secs_f64())
}

/// `null` where there is none.
#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
pub(crate) fn option_span<S: Serializer>(span: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(out)
}
