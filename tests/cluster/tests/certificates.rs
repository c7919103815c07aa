//! Certificates for `localhost`, made for a test.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;

/// A directory with an authority's certificate, a certificate it signed, its key, and a token.
pub(crate) struct Certificates {
    directory: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let certificates = Certificates { directory: tempfile::tempdir().unwrap() };
        fs::write(certificates.path("ca.crt"), authority.pem()).unwrap();
        fs::write(certificates.path("tls.crt"), certificate.pem()).unwrap();
        fs::write(certificates.path("tls.key"), key.serialize_pem()).unwrap();
        fs::write(certificates.path("token"), "a-token-of-tests\n").unwrap();
        certificates
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The flags of mutual TLS with a token, as every process of a cluster has them.
    pub(crate) fn flags(&self) -> Vec<String> {
        let flags = [
            ("--tls-cert", "tls.crt"),
            ("--tls-key", "tls.key"),
            ("--tls-ca", "ca.crt"),
            ("--tls-client-ca", "ca.crt"),
            ("--auth-token-file", "token"),
        ];
        let paths = flags.map(|(flag, file)| [flag.to_owned(), self.path(file).to_str().unwrap().to_owned()]);
        paths.concat()
    }
}
