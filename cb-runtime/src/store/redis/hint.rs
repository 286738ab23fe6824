//! What a connection's failure is due to, where that can be told, and what to do about it.

use redis::{ConnectionAddr, ErrorKind, RedisError};

/// What to do about a connection to `addr` that could not be made, or broke before anybody had answered.
pub(super) fn on_connecting(addr: &ConnectionAddr, error: &RedisError) -> &'static str {
    match addr {
        #[cfg(feature = "tls")]
        ConnectionAddr::TcpTls { .. } => on_tls(error),
        ConnectionAddr::Tcp(..) => on_silence(error),
        _ => "",
    }
}

fn on_silence(error: &RedisError) -> &'static str {
    let closed = error.is_connection_dropped() && !error.is_connection_refusal();
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

#[cfg(feature = "tls")]
fn on_tls(error: &RedisError) -> &'static str {
    use rustls::{AlertDescription, CertificateError, Error};

    match cause(error) {
        // The latter: one of the same name is trusted, as when an authority has got a new key.
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "; no authority that is trusted here has signed the server's certificate: name yours with \
             ?cacert=/path/to/ca.pem in the address, or give it to the whole process with SSL_CERT_FILE"
        }
        Some(Error::InvalidMessage(_)) => {
            "; it does not speak TLS on this port: name its TLS port, or write redis://"
        }
        Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "; the server wants to see a certificate: name it with ?cert=/path/to/cert.pem&key=/path/to/key.pem in the address"
        }
        Some(Error::AlertReceived(AlertDescription::UnknownCA)) => {
            "; the server does not trust the authority that has signed the certificate which `cert` names"
        }
        _ => "",
    }
}

#[cfg(feature = "tls")]
fn cause(error: &RedisError) -> Option<&rustls::Error> {
    use std::error::Error;
    use std::sync::Arc;

    let shared = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    shared.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref()
}
