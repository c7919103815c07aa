//! Security between processes: TLS, mutual TLS and bearer tokens, from flags to tonic's settings.
//!
//! Files are read once, at the start; a process must be restarted to read new ones. Unix sockets and roles
//! within one process need no credentials.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use subtle::ConstantTimeEq;
use tonic::Status;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};

const AUTHORIZATION: &str = "authorization";
const BEARER: &str = "Bearer ";

/// Time after which a client that connects and sends nothing is dropped.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The security flags, the same in every process, so that one set of files and flags serves a whole cluster.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Security")]
pub struct SecurityArgs {
    /// Certificate chain of this process, PEM. A server then speaks only TLS; a client shows it when asked.
    /// Example: tls/tls.crt
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "BATON_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, PEM. Example: tls/tls.key
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "BATON_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Authority, PEM: clients trust servers whose certificates it signed. Endpoints must then be https:// or
    /// unix:. Example: tls/ca.crt
    #[arg(long, value_name = "FILE", env = "BATON_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Authority, PEM: servers refuse clients without a certificate that it signed (mutual TLS). Example:
    /// tls/ca.crt
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "BATON_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,
    /// Name that clients expect in a server's certificate instead of the endpoint's host: for dns://
    /// endpoints, which are dialled by address. Example: baton-decoder
    #[arg(long, value_name = "NAME", requires = "tls_ca", env = "BATON_TLS_SERVER_NAME")]
    pub tls_server_name: Option<String>,
    /// File with a bearer token that servers require and clients send. Example: token/token
    #[arg(long, value_name = "FILE", env = "BATON_AUTH_TOKEN_FILE")]
    pub auth_token_file: Option<PathBuf>,
}

/// A problem with the security flags.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("cannot read {path}, named by {flag}")]
    Read {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The content of a file does not suit its flag.
    #[error("{path}, named by {flag}, holds no {expected}")]
    Content {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
    },
    /// The files do not fit together.
    #[error("the certificates cannot be used; check that {flags} belong together")]
    Tls {
        /// The flags concerned.
        flags: &'static str,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A process's credentials and its trust. The default: plain connections without a token.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// Its settings as a client.
    pub client: ClientSecurity,
    /// Its settings as a server.
    pub server: ServerSecurity,
}

/// A client's credentials and its trust.
#[derive(Debug, Clone, Default)]
pub struct ClientSecurity {
    pub(crate) tls: Option<ClientTlsConfig>,
    pub(crate) token: Option<AuthToken>,
}

/// A server's credentials, and its requirements for clients.
#[derive(Debug, Clone, Default)]
pub struct ServerSecurity {
    pub(crate) tls: Option<ServerTlsConfig>,
    token: Option<AuthToken>,
    asks_for_certificates: bool,
}

/// A bearer token, as the value of the `authorization` header. Never shown.
#[derive(Clone)]
pub(crate) struct AuthToken(AsciiMetadataValue);

impl SecurityArgs {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, holds something else, or does not fit the others.
    pub fn load(&self) -> Result<Security, SecurityError> {
        let token = self.auth_token_file.as_deref().map(AuthToken::read).transpose()?;
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(read_identity(certificate, key)?),
            _ => None, // clap asks for both or neither
        };
        let client_ca = read_authority("--tls-client-ca", self.tls_client_ca.as_deref())?;
        let asks_for_certificates = client_ca.is_some();
        let server_tls = identity.clone().map(|identity| {
            let tls = ServerTlsConfig::new().identity(identity).timeout(TLS_HANDSHAKE_TIMEOUT);
            client_ca.into_iter().fold(tls, ServerTlsConfig::client_ca_root)
        });
        if let Some(tls) = &server_tls {
            // Building it is the only check.
            Server::builder().tls_config(tls.clone()).map_err(SecurityError::server_tls)?;
        }
        let client_tls = read_authority("--tls-ca", self.tls_ca.as_deref())?.map(|authority| {
            let tls = ClientTlsConfig::new().ca_certificate(authority);
            let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
            self.tls_server_name.iter().fold(tls, ClientTlsConfig::domain_name)
        });
        if let Some(tls) = &client_tls {
            let flags = "--tls-ca, --tls-server-name, --tls-cert and --tls-key";
            Endpoint::from_static("https://check")
                .tls_config(tls.clone())
                .map_err(|source| SecurityError::Tls { flags, source })?;
        }
        Ok(Security {
            client: ClientSecurity { tls: client_tls, token: token.clone() },
            server: ServerSecurity { tls: server_tls, token, asks_for_certificates },
        })
    }
}

impl SecurityError {
    pub(crate) fn server_tls(source: tonic::transport::Error) -> Self {
        Self::Tls { flags: "--tls-cert, --tls-key and --tls-client-ca", source }
    }
}

impl ServerSecurity {
    /// Whether connections are encrypted.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether callers must identify themselves by a token or a certificate.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.token.is_some() || self.asks_for_certificates
    }

    /// Admits a call that carries the token, if one is required. Check every call.
    ///
    /// # Errors
    /// UNAUTHENTICATED, with the credential that the caller lacks.
    pub fn check_token(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Some(AuthToken(expected)) = &self.token else { return Ok(()) };
        match metadata.get(AUTHORIZATION) {
            None => Err(Status::unauthenticated(
                "this service requires a bearer token: give the caller its token by --auth-token-file",
            )),
            // The comparison takes the same time for every wrong token.
            Some(token) if bool::from(token.as_bytes().ct_eq(expected.as_bytes())) => Ok(()),
            Some(_) => Err(Status::unauthenticated(
                "the bearer token is not this service's: give both the same --auth-token-file",
            )),
        }
    }
}

impl AuthToken {
    fn read(path: &Path) -> Result<Self, SecurityError> {
        let flag = "--auth-token-file";
        let bytes = read(flag, path)?;
        let expected = "token: one word of visible ASCII";
        let refused = || SecurityError::Content { flag, path: path.to_owned(), expected };
        let token = std::str::from_utf8(&bytes).map_err(|_| refused())?.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused());
        }
        Ok(Self(format!("{BEARER}{token}").parse().map_err(|_| refused())?))
    }

    pub(crate) fn inject(&self, headers: &mut tonic::codegen::http::HeaderMap) {
        let mut value = tonic::codegen::http::HeaderValue::from_bytes(self.0.as_bytes())
            .expect("metadata values are header values");
        value.set_sensitive(true); // kept out of logs and of header compression
        headers.insert(AUTHORIZATION, value);
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(..)")
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    std::fs::read(path).map_err(|source| SecurityError::Read { flag, path: path.to_owned(), source })
}

fn read_identity(certificate: &Path, key: &Path) -> Result<Identity, SecurityError> {
    let certificate_pem = read_certificates("--tls-cert", certificate)?;
    let key_pem = read("--tls-key", key)?;
    if PrivateKeyDer::from_pem_slice(&key_pem).is_err() {
        let (flag, path, expected) = ("--tls-key", key.to_owned(), "private key in PEM");
        return Err(SecurityError::Content { flag, path, expected });
    }
    Ok(Identity::from_pem(certificate_pem, key_pem))
}

fn read_authority(flag: &'static str, path: Option<&Path>) -> Result<Option<Certificate>, SecurityError> {
    path.map(|path| Ok(Certificate::from_pem(read_certificates(flag, path)?))).transpose()
}

fn read_certificates(flag: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    let pem = read(flag, path)?;
    let mut certificates = CertificateDer::pem_slice_iter(&pem);
    match certificates.next() {
        Some(Ok(_)) if certificates.all(|certificate| certificate.is_ok()) => Ok(pem),
        _ => Err(SecurityError::Content { flag, path: path.to_owned(), expected: "certificate in PEM" }),
    }
}
