//! The one error type of this crate, and the one place that reads the operating system's error codes.
//! `s3::failure` reads those of S3.

use std::io;
use std::path::{Path, PathBuf};

use crate::S3Failure;

/// A place could not be read or written. Each message is one line: the problem, the place, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The location is neither a path nor a URI that Baton knows.
    #[error(
        "{location} is not a usable location ({reason}); use a path, file:///absolute/path or \
         s3://bucket/prefix"
    )]
    InvalidLocation {
        /// As given.
        location: String,
        /// The problem.
        reason: String,
    },

    /// The place must be on a local disk.
    #[error("{location} is not local; copy it to a local directory and name that")]
    NotLocal {
        /// As given.
        location: String,
    },

    /// A pipe, a socket or a device, which has no size and cannot be read twice.
    #[error(
        "input {uri} is no regular file; write it to one first, or give it as standard input (--input -)"
    )]
    NotAFile {
        /// The file.
        uri: String,
    },

    /// A key would leave the store's directory, or is hidden.
    #[error(
        "`{key}` is not an object key: keys are relative, use `/`, and have no empty or dotted component"
    )]
    InvalidKey {
        /// As given.
        key: String,
    },

    /// A pattern is not a valid glob.
    #[error("input pattern {pattern} is not a valid glob; put a literal `[` in brackets: `[[]`")]
    InvalidPattern {
        /// As given.
        pattern: String,
        /// The glob parser's error.
        #[source]
        source: glob::PatternError,
    },

    /// A pattern names nothing that could be read.
    #[error(
        "input {pattern} matches no file; check the path (hidden files and those named `_...` are skipped)"
    )]
    NoInput {
        /// As given.
        pattern: String,
    },

    /// An input file has changed since it was listed.
    #[error(
        "input {uri} changed while the job ran; restore it, or start a new job in another output directory"
    )]
    InputChanged {
        /// The file.
        uri: String,
    },

    /// A name that is not UTF-8 cannot be recorded.
    #[error("{} has a name that is not UTF-8; rename it", .path.display())]
    NameNotUtf8 {
        /// The file.
        path: PathBuf,
    },

    /// Nothing is left on the file system.
    #[error(
        "no space left to {action} {}; free some and start again, nothing committed is lost",
        .path.display()
    )]
    DiskFull {
        /// The action that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },

    /// The process may not do that.
    #[error(
        "no permission to {action} {}; check its owner and mode, and those of its directory",
        .path.display()
    )]
    PermissionDenied {
        /// The action that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },

    /// Anything else the file system said.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },

    /// The address of a custom server is invalid.
    #[error("{variable} is no endpoint{}: {reason}; write http://HOST:PORT or https://HOST", shown(.value))]
    S3InvalidEndpoint {
        /// The variable or setting with the address.
        variable: &'static str,
        /// The address.
        value: String,
        /// The problem.
        reason: &'static str,
    },

    /// No region is configured, and no endpoint that would do without.
    #[error(
        "no AWS region is set; set AWS_REGION, or AWS_ENDPOINT_URL for a server of your own (a profile's \
         endpoint_url counts only if it is a URL)"
    )]
    S3NoRegion,

    /// The SDK's chain found no credentials, or could not renew them.
    #[error(
        "no credentials to {action} {location}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
         AWS_PROFILE, or run where the platform gives the process a role"
    )]
    S3NoCredentials {
        /// The action that failed.
        action: &'static str,
        /// The object or prefix.
        location: String,
        /// The error of the credentials chain.
        #[source]
        source: S3Failure,
    },

    /// The credentials do not allow it, or are not valid.
    #[error(
        "not allowed to {action} {location}; check that the credentials are valid, and that their policy \
         allows s3:ListBucket on the bucket and s3:GetObject, s3:PutObject and s3:AbortMultipartUpload below \
         it"
    )]
    S3AccessDenied {
        /// The action that failed.
        action: &'static str,
        /// The object or prefix.
        location: String,
        /// The server's answer.
        #[source]
        source: S3Failure,
    },

    /// The bucket does not exist.
    #[error(
        "cannot {action} {location}: the bucket does not exist; correct its name, create it, or check \
         AWS_ENDPOINT_URL"
    )]
    S3NoSuchBucket {
        /// The action that failed.
        action: &'static str,
        /// The object or prefix.
        location: String,
        /// The server's answer.
        #[source]
        source: S3Failure,
    },

    /// The bucket lies elsewhere.
    #[error(
        "cannot {action} {location} from the configured region; set AWS_REGION to {}",
        .region.as_deref().unwrap_or("the region of the bucket")
    )]
    S3WrongRegion {
        /// The action that failed.
        action: &'static str,
        /// The object or prefix.
        location: String,
        /// Where the bucket lies, if the server said so.
        region: Option<String>,
        /// The server's answer.
        #[source]
        source: S3Failure,
    },

    /// No answer: the server is down or cut off, or the connection broke again and again.
    #[error(
        "the S3 endpoint cannot be reached to {action} {location}; check AWS_ENDPOINT_URL, AWS_REGION and \
         the network"
    )]
    S3Unreachable {
        /// The action that failed.
        action: &'static str,
        /// The object or prefix.
        location: String,
        /// The failure of the connection.
        #[source]
        source: S3Failure,
    },

    /// The server asked for fewer requests, and went on asking after all retries.
    #[error("S3 is throttling requests to {action} {location}; start again later, or with fewer workers")]
    S3Throttled {
        /// The action that failed.
        action: &'static str,
        /// The object or prefix.
        location: String,
        /// The server's answer.
        #[source]
        source: S3Failure,
    },

    /// Anything else that S3 said.
    #[error("cannot {action} {location}")]
    S3 {
        /// The action that failed.
        action: &'static str,
        /// The object or prefix.
        location: String,
        /// Whether it may pass.
        is_retryable: bool,
        /// The server's answer.
        #[source]
        source: S3Failure,
    },
}

/// An address for a message, unless it may hold a password.
fn shown(address: &str) -> String {
    if address.contains('@') { String::new() } else { format!(" ({address:?})") }
}

impl StoreError {
    /// True if the same operation may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            StoreError::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::Interrupted
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::ResourceBusy
            ),
            StoreError::S3Unreachable { .. } | StoreError::S3Throttled { .. } => true,
            StoreError::S3 { is_retryable, .. } => *is_retryable,
            _ => false,
        }
    }

    /// For `map_err`: the action and the path that the system refused.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    StoreError::DiskFull { action, path, source }
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    StoreError::PermissionDenied { action, path, source }
                }
                _ => StoreError::Io { action, path, source },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: io::ErrorKind) -> StoreError {
        StoreError::io("write", Path::new("/out/part"))(kind.into())
    }

    #[test]
    fn a_full_disk_and_a_missing_permission_say_where_and_what_to_do() {
        let full = error(io::ErrorKind::StorageFull).to_string();
        assert_eq!(
            full,
            "no space left to write /out/part; free some and start again, nothing committed is lost"
        );
        let denied = error(io::ErrorKind::PermissionDenied).to_string();
        assert!(denied.starts_with("no permission to write /out/part; check its owner"), "{denied}");
    }

    #[test]
    fn only_passing_conditions_are_retryable() {
        assert!(error(io::ErrorKind::TimedOut).is_retryable());
        assert!(!error(io::ErrorKind::StorageFull).is_retryable());
        assert!(!error(io::ErrorKind::NotFound).is_retryable());
    }
}
