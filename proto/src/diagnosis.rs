//! Explains why a process could not be reached, and what to check.

use std::error::Error;
use std::io;

use rustls::{CertificateError, Error as TlsError};
use tonic::Status;

const CLIENT_CERTIFICATE_HINT: &str = "; the service may want a client certificate: give one that its \
    --tls-client-ca signed, by --tls-cert and --tls-key";

/// The status of a call that never reached the service behind `endpoint`: UNAVAILABLE, because another
/// process may work.
pub(crate) fn explain(endpoint: &str, error: &(dyn Error + 'static)) -> Status {
    let causes = causes(error);
    let root = *causes.last().expect("an error is among its causes");
    let tls_error = causes.iter().find_map(|cause| cause.downcast_ref::<TlsError>());
    let hint = match tls_error {
        Some(error) => tls_hint(error),
        // After the connection is set up, a refusal by TLS comes as text.
        None if root.to_string().contains("fatal alert") => CLIENT_CERTIFICATE_HINT,
        None if !spoke_otherwise(&causes) => "",
        None if endpoint.starts_with("https:") => CLIENT_CERTIFICATE_HINT,
        None if endpoint.starts_with("http:") => {
            "; if the service there uses TLS, write https:// and give --tls-ca"
        }
        None => "",
    };
    Status::unavailable(format!("cannot reach {endpoint}: {root}{hint}"))
}

/// The error and its causes, the deepest last.
fn causes<'error>(error: &'error (dyn Error + 'static)) -> Vec<&'error (dyn Error + 'static)> {
    let mut causes = vec![error];
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error shows the source of the wrapped error, not the wrapped error itself.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source());
        causes.extend(next);
    }
    causes
}

/// Whether a peer accepted the connection and then did not speak HTTP/2, or stopped speaking it.
fn spoke_otherwise(causes: &[&(dyn Error + 'static)]) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof};
    let kinds = causes.iter().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let closed = kinds.clone().any(|kind| matches!(kind, BrokenPipe | ConnectionReset | UnexpectedEof));
    let connected = !causes.iter().any(|cause| cause.is::<tonic::ConnectError>());
    let timed_out = kinds.clone().any(|kind| kind == TimedOut);
    closed || (connected && !timed_out)
}

fn tls_hint(error: &TlsError) -> &'static str {
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "; --tls-ca must name the authority that signed the service's certificate"
        }
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "; dial the service by a name in its certificate, or give that name by --tls-server-name",
        TlsError::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "; renew the service's certificate, and check the clocks of both machines",
        TlsError::AlertReceived(_) => CLIENT_CERTIFICATE_HINT,
        TlsError::InvalidMessage(_) => "; if the service there is plain, write http:// without --tls-ca",
        _ => "",
    }
}
