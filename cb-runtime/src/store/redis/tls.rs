//! TLS: whom to trust, and what to show to a server that asks who comes. Both stand in the address, under
//! redis-cli's names, so that code, file and environment can say them alike.

use std::path::Path;

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};
use rustls::crypto::{CryptoProvider, ring};

/// Puts into `info` what the parameters of its address, `url`, say about certificates. The problem, if there is one,
/// is in words that name the file.
pub(super) fn equip(info: ConnectionInfo, url: &str) -> Result<ConnectionInfo, String> {
    let ConnectionAddr::TcpTls { insecure, .. } = info.addr() else { return Ok(info) };
    if *insecure {
        return Err("#insecure would trust anybody; name your authority with ?cacert=/path/to/ca.pem".into());
    }
    provide_cryptography();
    match certificates(url)? {
        None => Ok(info),
        Some(certificates) => {
            let client = Client::build_with_tls(info, certificates).map_err(|error| error.to_string())?;
            Ok(client.get_connection_info().clone())
        }
    }
}

/// The files that `cacert`, `cert` and `key` name; nothing if none of them is given.
pub(super) fn certificates(url: &str) -> Result<Option<TlsCertificates>, String> {
    let address = redis::parse_redis_url(url);
    let file = |parameter: &str| {
        let pairs = address.as_ref()?.query_pairs();
        pairs.into_iter().find(|(name, _)| name == parameter).map(|(_, path)| path.into_owned())
    };
    let root_cert = match file("cacert") {
        Some(path) => Some(read("cacert", &path, "CERTIFICATE")?),
        None => None,
    };
    let client_tls = match (file("cert"), file("key")) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig {
            client_cert: read("cert", &cert, "CERTIFICATE")?,
            client_key: read("key", &key, "PRIVATE KEY")?,
        }),
        (None, None) => None,
        _ => return Err("cert and key are of use only together".into()),
    };
    Ok((root_cert.is_some() || client_tls.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}

/// A PEM file with at least one `item`: an empty one would be found out only at the handshake, and then look like
/// the server's fault.
fn read(parameter: &str, path: &str, item: &str) -> Result<Vec<u8>, String> {
    let content = std::fs::read(Path::new(path)).map_err(|error| format!("{parameter}={path}: {error}"))?;
    let has_item = String::from_utf8_lossy(&content)
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{item}-----")));
    if !has_item {
        return Err(format!("{parameter}={path}: there is no {item} in PEM format in it"));
    }
    Ok(content)
}

/// redis-rs takes rustls' cryptography from the process and panics where there is none, or more than one to choose
/// from. Whatever the application has installed by now is used.
fn provide_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // Fails only if somebody else was faster: then there is one.
        let _ = ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use crate::store::redis::address::check;

    /// Left to itself, rustls panics where the application has brought a second one along.
    #[test]
    fn an_address_with_tls_settles_whose_cryptography_is_used() {
        check("rediss://host").unwrap();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let (empty, broken) = (
            file("empty", ""),
            file("broken", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
        );
        for (parameters, said) in [
            ("cacert=/not/there.pem".to_owned(), "cacert=/not/there.pem: No such file"),
            (format!("cacert={empty}"), "there is no CERTIFICATE in PEM format in it"),
            (format!("cacert={broken}"), "certificate"),
            (format!("cert={broken}&key={empty}"), "there is no PRIVATE KEY in PEM format"),
            ("cert=/some.pem".to_owned(), "only together"),
            ("key=/some.pem".to_owned(), "only together"),
            ("#insecure".to_owned(), "?cacert=/path/to/ca.pem"),
        ] {
            let error = check(&format!("rediss://user:hunter2@host/0?{parameters}")).expect_err(&parameters);
            assert!(error.is_config(), "{parameters}");
            assert!(error.to_string().contains(said), "{parameters}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
