use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// A certificate authority that no platform trusts. Its certificates are PEM files in a temporary directory.
pub struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Authority {
    /// Creates an authority with a key of its own.
    pub fn new() -> Authority {
        let mut params = named("the tests' authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, new_key()).expect("an authority signs itself");
        let directory = tempfile::Builder::new().prefix("cb-tls-").tempdir().expect("a temporary directory");
        write(&directory.path().join("ca.pem"), &issuer.pem());
        Authority { directory, issuer }
    }

    /// The authority's own certificate.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Signs a certificate for these host names and addresses.
    pub fn sign(&self, label: &str, hosts: &[&str]) -> Certificate {
        let key = new_key();
        let signed = named(label, hosts).signed_by(&key, &self.issuer).expect("an authority signs");
        let file = |what: &str| self.directory.path().join(format!("{label}-{what}.pem"));
        let files = Certificate { certificate: file("certificate"), key: file("key") };
        write(&files.certificate, &signed.pem());
        write(&files.key, &key.serialize_pem());
        files
    }
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

fn named(label: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).expect("valid host names");
    params.distinguished_name.push(DnType::CommonName, label);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn write(file: &Path, content: &str) {
    std::fs::write(file, content).expect("a temporary directory can be written to");
}
