//! Hints for failed connections: the likely cause and the remedy.

use redis::{ConnectionAddr, ErrorKind, RedisError};

/// A hint for a connection to `addr` that could not be made, or broke before the first answer.
pub(super) fn on_connecting(addr: &ConnectionAddr, error: &RedisError) -> &'static str {
    match addr {
        ConnectionAddr::TcpTls { .. } => on_tls(error),
        ConnectionAddr::Tcp(..) => on_silence(error),
        _ => "",
    }
}

fn on_silence(error: &RedisError) -> &'static str {
    // For a cluster, only the error's text shows a refusal.
    let refused = error.is_connection_refusal() || error.to_string().contains("refused");
    let closed = error.is_connection_dropped() && !refused;
    if closed || error.kind() == ErrorKind::Parse {
        "; if it speaks TLS on this port, write rediss:// (feature `tls` of cb-runtime)"
    } else {
        ""
    }
}

/// A hint for a request that the server has refused.
pub(super) fn on_refusal(error: &RedisError) -> &'static str {
    // Before a login, Redis refuses a request of more than ten arguments as a "Protocol error".
    if error.code() == Some("NOAUTH") || error.to_string().contains("unauthenticated") {
        "; the server requires a password: write redis://[user]:password@host"
    } else {
        on_denial(&error.to_string())
    }
}

/// How servers say that a user lacks a permission: to a client, to a script, and to a script since Redis 7.2
/// and in Valkey.
const DENIALS: [&str; 3] = ["NoPerm", "The user executing the script can't", "ACL failure in script"];

/// A hint for text in which Redis denies a user a command, a key or a channel, to a script also.
pub(super) fn on_denial(problem: &str) -> &'static str {
    let denied = DENIALS.iter().any(|words| problem.contains(words));
    if denied { "; see docs/redis.md for the permissions that it needs" } else { "" }
}

/// A hint for a connection attempt that timed out.
pub(super) fn on_delay(addr: &ConnectionAddr) -> &'static str {
    match addr {
        // A server without TLS takes the handshake for the start of a long command and waits for the rest.
        ConnectionAddr::TcpTls { .. } => "; if it does not speak TLS on this port, write redis://",
        _ => "",
    }
}

/// A hint from the text of rustls' error: for a cluster, the text is all that is left of the cause.
fn on_tls(error: &RedisError) -> &'static str {
    let error = error.to_string();
    let says = |words: &str| error.contains(words);
    // BadSignature: an authority of this name is trusted, but with another key, as after a rotation.
    if says("certificate: UnknownIssuer") || says("certificate: BadSignature") {
        "; no authority that is trusted here has signed the server's certificate: name yours with \
         ?cacert=/path/to/ca.pem in the address, or give it to the whole process with SSL_CERT_FILE"
    } else if says("received corrupt message") {
        "; it does not speak TLS on this port: name its TLS port, or write redis://"
    } else if says("alert: CertificateRequired") {
        "; the server wants to see a certificate: name it with ?cert=/path/to/cert.pem&key=/path/to/key.pem in the address"
    } else if says("alert: UnknownCA") {
        "; the server does not trust the authority that has signed the certificate which `cert` names"
    } else {
        ""
    }
}
