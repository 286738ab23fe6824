//! What HTTP says of a dependency's health (feature `http`): which status codes are failures, and when to try
//! again.
//!
//! ```
//! use std::time::Duration;
//! use cb_runtime::http::{is_server_failure, retry_after};
//! use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
//!
//! assert!(is_server_failure(StatusCode::BAD_GATEWAY));
//! assert!(!is_server_failure(StatusCode::NOT_FOUND));
//!
//! let headers = HeaderMap::from_iter([(RETRY_AFTER, "120".parse().unwrap())]);
//! assert_eq!(retry_after(&headers), Some(Duration::from_secs(120)));
//! ```
//!
//! With the attribute: `is_failure = |result| …is_server_failure(…)` and `open_for = |result|
//! …retry_after(…)`.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// Whether the status says that the server cannot serve: 5xx, and 429 (Too Many Requests). Any other 4xx is
/// an answer, such as 404: the server works, and the request was wrong.
pub fn is_server_failure(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// How long the server asks to be left alone, by its `Retry-After` header: in seconds or as a date (RFC 9110,
/// 10.2.3). A date that has passed is zero. `None` without the header, and if it is neither.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    retry_after_at(headers, SystemTime::now())
}

fn retry_after_at(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are still a long time.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_failures_are_failures_and_clients_are_not() {
        let failures: Vec<u16> =
            (100..600).filter(|code| StatusCode::from_u16(*code).is_ok_and(is_server_failure)).collect();
        assert_eq!(failures[0], 429);
        assert_eq!(failures[1..], (500..600).collect::<Vec<_>>());
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Wed, 21 Oct 2026 07:29:30 GMT", Some(90)),
            ("Wednesday, 21-Oct-26 07:29:30 GMT", Some(90)),
            ("Wed Oct 21 07:29:30 2026", Some(90)),
            ("Wed, 21 Oct 2026 07:00:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after_at(&headers, now), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after_at(&HeaderMap::new(), now), None);
    }
}
