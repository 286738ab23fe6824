//! Validation of addresses before any connection. Error messages never contain passwords.

use redis::io::tcp::TcpSettings;
use redis::{ConnectionInfo, IntoConnectionInfo};

use crate::error::{Error, ErrorKind};

const RIGHT: &str = "write redis://[user:password@]host[:port][/database], rediss:// for TLS, \
     or unix:///path/to/socket; characters such as @ : / # % in a password are percent-encoded";

const SCHEMES: &[&str] = &["redis", "rediss", "unix", "valkey", "valkeys", "redis+unix", "valkey+unix"];

/// Parses `url`. The error shows the valid forms.
pub(super) fn check(url: &str) -> Result<ConnectionInfo, Error> {
    check_in(url, cfg!(feature = "tls"))
}

/// Parses `url` in a build with or without TLS.
fn check_in(url: &str, tls: bool) -> Result<ConnectionInfo, Error> {
    let wrong = |problem: String| Error::new(ErrorKind::Url { problem });
    let shown = shown(url);
    let Some((scheme, _)) = split_scheme(url) else {
        let scheme = url.split(':').next().unwrap_or_default();
        if url.contains(":/") && SCHEMES.contains(&scheme) {
            return Err(wrong(format!("\"{shown}\" needs `//` after `{scheme}:`; {RIGHT}")));
        }
        return Err(wrong(format!("\"{shown}\" has no scheme; {RIGHT}")));
    };
    match scheme {
        "redis" | "unix" | "valkey" | "redis+unix" | "valkey+unix" => {}
        "rediss" | "valkeys" if tls => {}
        "rediss" | "valkeys" => {
            return Err(wrong(format!(
                "\"{shown}\" asks for TLS, which this build does not have; enable the feature `tls` of cb-runtime"
            )));
        }
        _ => {
            return Err(wrong(format!(
                "\"{shown}\" has the scheme {scheme:?}, which must be redis, rediss or unix; {RIGHT}"
            )));
        }
    }
    let info = url.into_connection_info().map_err(|error| {
        // redis-rs' message has no part of the address before this separator.
        let problem = error.to_string();
        let problem = problem.split(" - ").next().unwrap_or_default();
        wrong(format!("\"{shown}\": {problem}; {RIGHT}"))
    })?;
    if let Some(unknown) = unknown_parameter(url) {
        return Err(wrong(format!("\"{shown}\": {unknown}")));
    }
    if info.redis_settings().db() < 0 {
        return Err(wrong(format!("\"{shown}\": a database has a number from 0 on; {RIGHT}")));
    }
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    // Otherwise a request would wait for the server to acknowledge the one before.
    let tcp = TcpSettings::default().set_nodelay(true);
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
    #[cfg(feature = "tls")]
    let info = super::tls::equip(info, url).map_err(|problem| wrong(format!("\"{shown}\": {problem}")))?;
    Ok(info)
}

/// A parameter that no code reads: what it should do would silently not be done.
fn unknown_parameter(url: &str) -> Option<String> {
    let known: &[&str] = match split_scheme(url)?.0 {
        "unix" | "redis+unix" | "valkey+unix" => &["db", "user", "pass", "protocol"],
        "rediss" | "valkeys" => &["protocol", "cacert", "cert", "key"],
        _ => &["protocol"],
    };
    let address = redis::parse_redis_url(url)?;
    let (name, _) = address.query_pairs().find(|(name, _)| !known.contains(&&**name))?;
    let advice = match &*name {
        "db" => "; the database is the path: redis://host/2",
        "cacert" | "cert" | "key" => "; certificates need TLS: rediss://",
        _ => "",
    };
    Some(format!("there is no parameter {name:?}, but {}{advice}", known.join(", ")))
}

/// Splits `url` at the first `://`. Text before it that cannot be a scheme may hold a password.
fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let valid = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    valid.then_some((scheme, rest))
}

/// The address without credentials. All text before the last `@` is removed, because a password may not be
/// percent-encoded.
pub(super) fn shown(url: &str) -> String {
    let (scheme, rest) = split_scheme(url).unwrap_or(("", url));
    let host = rest.rsplit_once('@').map_or(rest.to_owned(), |(_, host)| format!("…@{host}"));
    let host = host.split(['?', '#']).next().unwrap_or_default();
    let shown = if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") };
    shown.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::{check, check_in};

    #[test]
    fn valid_addresses_are_accepted() {
        for url in [
            "redis://127.0.0.1:6379",
            "redis://localhost",
            "redis://user:p%40ss@[::1]:6380/3",
            "redis://:secret@host/0?protocol=resp3",
            "unix:///run/redis.sock",
            "redis+unix:///run/redis.sock?db=2",
        ] {
            let info = check(url).unwrap();
            assert!(info.tcp_settings().nodelay(), "{url}");
        }
    }

    #[test]
    fn invalid_address_error_shows_the_valid_forms() {
        for (url, expected) in [
            ("redi://localhost", "scheme \"redi\""),
            ("http://localhost:6379", "must be redis, rediss or unix"),
            ("localhost:6379", "no scheme"),
            ("redis:/localhost", "\"redis:/localhost\" needs `//` after `redis:`"),
            ("rediss:/:secret@localhost", "needs `//` after `rediss:`"),
            ("unix:/run/redis.sock", "needs `//` after `unix:`"),
            ("", "no scheme"),
            ("redis://", "redis://[user:password@]host"),
            ("redis://host:99999", "redis://host:99999"),
            ("redis://host/mydb", "Invalid database number"),
            ("redis://host:port", "percent-encoded"),
            ("redis://0.0.0.0:6379", "wildcard"),
            ("redis://host/-1", "from 0 on"),
            ("redis://host?db=2", "the database is the path: redis://host/2"),
            ("redis://host?cacert=/ca.pem", "certificates need TLS: rediss://"),
            ("rediss://host?cacrt=/ca.pem", "no parameter \"cacrt\", but protocol, cacert, cert, key"),
            ("unix:///run/redis.sock?database=2", "no parameter \"database\", but db, user, pass, protocol"),
        ] {
            let error = check(url).expect_err(url);
            assert!(error.is_config(), "{url}");
            assert!(error.to_string().contains(expected), "{url}: {error}");
        }
    }

    #[test]
    fn errors_have_no_part_of_a_password() {
        for url in [
            "redis://user:hunter2@host/mydb",
            "redis://user:hunter2#@host",
            "redis://user:x@hunter2@host:99999",
            "redis://:/hunter2@host",
            "user:hunter2@host",
            "user:hunter2@host://",
            "redis:/user:hunter2@host://",
            "http://user:hunter2@host/?password=hunter2",
            "redis://host:99999/?password=hunter2",
        ] {
            let error = check(url).expect_err(url);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn tls_without_its_feature_names_the_feature() {
        let error = check_in("rediss://user:hunter2@host", false).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.to_string().contains("feature `tls`"), "{error}");
    }
}
