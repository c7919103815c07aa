//! The one place that reads S3's error codes.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::StoreError;

/// Another conditional write of the same key was under way.
pub(super) const CONDITIONAL_CONFLICT: &str = "ConditionalRequestConflict";
/// The condition of a conditional request does not hold.
pub(super) const PRECONDITION_FAILED: &str = "PreconditionFailed";

/// The answer of the server or the error of the connection, in one line: status, code, message and request
/// id, or the chain of causes.
#[derive(Debug)]
pub struct S3Failure(String);

impl fmt::Display for S3Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for S3Failure {}

/// True if the server answered with this code, or with its status if the answer has no body.
pub(super) fn is_answer<E>(error: &SdkError<E, HttpResponse>, code: &str, status: u16) -> bool
where
    SdkError<E, HttpResponse>: ProvideErrorMetadata,
{
    match error.code() {
        Some(found) => found == code,
        None => status_of(error) == Some(status),
    }
}

/// Explains why `action` failed at `location`.
pub(super) fn store_error<E>(
    action: &'static str,
    location: &str,
    error: &SdkError<E, HttpResponse>,
) -> StoreError
where
    E: Error + 'static,
    SdkError<E, HttpResponse>: ProvideErrorMetadata,
{
    let location = location.to_owned();
    let source = S3Failure(describe(error));
    let Some(status) = status_of(error) else {
        return if causes(error).any(|cause| cause.is::<CredentialsError>()) {
            StoreError::S3NoCredentials { action, location, source }
        } else if is_passing(error) {
            StoreError::S3Unreachable { action, location, source }
        } else {
            StoreError::S3 { action, location, is_retryable: false, source }
        };
    };
    let region = header(error, "x-amz-bucket-region").map(str::to_owned);
    match (error.code().unwrap_or_default(), status) {
        ("NoSuchBucket", _) => StoreError::S3NoSuchBucket { action, location, source },
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) | (_, 301) => {
            StoreError::S3WrongRegion { action, location, region, source }
        }
        ("", 400) if region.is_some() => StoreError::S3WrongRegion { action, location, region, source },
        (
            "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequests",
            _,
        )
        | (_, 429 | 503) => StoreError::S3Throttled { action, location, source },
        ("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired", _) | (_, 401 | 403) => {
            StoreError::S3AccessDenied { action, location, source }
        }
        (code, status) => {
            let is_retryable = status >= 500 || code == CONDITIONAL_CONFLICT || code == "RequestTimeout";
            StoreError::S3 { action, location, is_retryable, source }
        }
    }
}

/// A connection that broke while the body was read, more often than is worth following up.
pub(super) fn broken_body(location: &str, error: &(dyn Error + 'static)) -> StoreError {
    let source = S3Failure(chain(error));
    StoreError::S3Unreachable { action: "read", location: location.to_owned(), source }
}

fn is_passing<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::TimeoutError(_) => true,
        SdkError::DispatchFailure(failure) => failure.is_io() || failure.is_timeout(),
        _ => false,
    }
}

fn status_of<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

fn header<'error, E>(error: &'error SdkError<E, HttpResponse>, name: &str) -> Option<&'error str> {
    error.raw_response().and_then(|response| response.headers().get(name))
}

fn describe<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: Error + 'static,
    SdkError<E, HttpResponse>: ProvideErrorMetadata,
{
    let Some(status) = status_of(error) else { return chain(error) };
    let mut text = format!("HTTP status {status}");
    for (label, part) in
        [(" ", error.code()), (": ", error.message()), (", request ", header(error, "x-amz-request-id"))]
    {
        if let Some(part) = part {
            text = text + label + part;
        }
    }
    one_line(&text)
}

/// An error and its causes in one line, each once: some of the SDK's errors repeat their cause.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { text + ": " + &cause };
        }
    }
    one_line(&text)
}

/// Some messages are laid out for a terminal.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn causes<'error>(
    error: &'error (dyn Error + 'static),
) -> impl Iterator<Item = &'error (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
