//! TLS: the trusted authority and the client certificate. Both are parameters of the address, named as in
//! redis-cli, so that code, file and environment can set them.

use std::path::Path;

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Adds the certificates that the parameters of `url` name to `info`. The error names the file.
pub(super) fn equip(info: ConnectionInfo, url: &str) -> Result<ConnectionInfo, String> {
    let ConnectionAddr::TcpTls { insecure, .. } = info.addr() else { return Ok(info) };
    if *insecure {
        return Err(
            "#insecure would trust any server; name your authority with ?cacert=/path/to/ca.pem".into()
        );
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

/// The contents of the files that `cacert`, `cert` and `key` name. `None` without any of them.
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
        (Some(cert), Some(key)) => {
            let client = ClientTlsConfig {
                client_cert: read("cert", &cert, "CERTIFICATE")?,
                client_key: read("key", &key, "PRIVATE KEY")?,
            };
            fits(&client).map_err(|problem| format!("cert={cert} with key={key}: {problem}"))?;
            Some(client)
        }
        (None, None) => None,
        _ => return Err("cert and key can be used only together".into()),
    };
    Ok((root_cert.is_some() || client_tls.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}

/// Reads a PEM file with at least one `item`. An empty file would otherwise fail at the handshake and look
/// like the server's fault.
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

/// Whether the key is the certificate's. redis-rs would notice at each connection attempt only.
fn fits(client: &ClientTlsConfig) -> Result<(), String> {
    let certificates = CertificateDer::pem_slice_iter(&client.client_cert).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(&client.client_key).map_err(|error| error.to_string())?;
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
    config.with_client_auth_cert(certificates, key).map(|_| ()).map_err(|error| error.to_string())
}

/// Installs a cryptography provider unless the application has. redis-rs uses the process's provider and
/// panics if there is none, or more than one to choose from.
fn provide_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // Fails only if another thread has installed one meanwhile.
        let _ = ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use cb_testkit::{Authority, Certificate};

    use crate::store::redis::address::check;

    /// Without a default, rustls panics if the application links a second provider.
    #[test]
    fn tls_address_installs_a_cryptography_provider() {
        check("rediss://host").unwrap();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }

    #[test]
    fn invalid_certificate_file_error_names_the_file() {
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
        for (parameters, expected) in [
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
            assert!(error.to_string().contains(expected), "{parameters}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    /// Otherwise each connection attempt would fail, and look like the server's fault.
    #[test]
    fn key_of_another_certificate_is_an_error() {
        let authority = Authority::new();
        let [one, other] = ["one", "other"].map(|label| authority.sign(label, &[]));
        let with = |Certificate { key, .. }: &Certificate| {
            check(&format!("rediss://host/?cert={}&key={}", one.certificate.display(), key.display()))
        };
        with(&one).unwrap();
        let error = with(&other).unwrap_err();
        assert!(error.is_config() && error.to_string().contains("other-key.pem: keys may not be"), "{error}");
    }
}
