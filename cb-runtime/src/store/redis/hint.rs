//! What a connection's failure is due to, where that can be told, and what to do about it.

use redis::{ConnectionAddr, ErrorKind, RedisError};

/// What to do about a connection to `addr` that could not be made, or broke before anybody had answered.
pub(super) fn on_connecting(addr: &ConnectionAddr, error: &RedisError) -> &'static str {
    match addr {
        ConnectionAddr::TcpTls { .. } => on_tls(error),
        ConnectionAddr::Tcp(..) => on_silence(error),
        _ => "",
    }
}

fn on_silence(error: &RedisError) -> &'static str {
    // A cluster's error says so in its text only.
    let refused = error.is_connection_refusal() || error.to_string().contains("refused");
    let closed = error.is_connection_dropped() && !refused;
    if closed || error.kind() == ErrorKind::Parse {
        "; if it speaks TLS on this port, write rediss:// (feature `tls` of cb-runtime)"
    } else {
        ""
    }
}

/// What to do about a server that lets the time for a connection pass.
pub(super) fn on_delay(addr: &ConnectionAddr) -> &'static str {
    match addr {
        // A Redis that takes the beginning of a handshake for that of a long command waits for its end.
        ConnectionAddr::TcpTls { .. } => "; if it does not speak TLS on this port, write redis://",
        _ => "",
    }
}

/// By rustls' words, because what a cluster's connection fails with has nothing else left of the cause.
fn on_tls(error: &RedisError) -> &'static str {
    let error = error.to_string();
    let says = |words: &str| error.contains(words);
    // The latter: one of the same name is trusted, as when an authority has got a new key.
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
