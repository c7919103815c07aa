//! Errors in a received message.

use tonic::{Code, Status};

/// A message that violates the contract. Sending it again cannot help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The sender is another version of Baton.
    #[error(
        "another version of Baton runs the job ({found}, here {}): deploy one version to coordinators and \
         workers; the job continues where it stopped",
        crate::PROTOCOL
    )]
    OtherProtocol {
        /// The version in the header.
        found: String,
    },
    /// A field that the contract requires is absent.
    #[error("a message lacks `{field}`: sender and receiver run different versions of Baton")]
    MissingField {
        /// Name in the `.proto` file, with its message.
        field: &'static str,
    },
    /// A field has a value that the contract does not allow.
    #[error("`{field}` is not valid: {detail}")]
    InvalidField {
        /// Name in the `.proto` file, with its message.
        field: &'static str,
        /// The problem.
        detail: String,
    },
    /// A message arrives in the place of another.
    #[error("expected {expected} at this place of the stream")]
    UnexpectedMessage {
        /// The expected message.
        expected: &'static str,
    },
}

impl WireError {
    /// Of a field, with what is wrong with it.
    pub fn invalid(field: &'static str, detail: &impl ToString) -> Self {
        Self::InvalidField { field, detail: detail.to_string() }
    }
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        match error {
            WireError::OtherProtocol { .. } => Status::failed_precondition(error.to_string()),
            _ => Status::invalid_argument(error.to_string()),
        }
    }
}

/// The answer to the sender of a failed request stream. A message above the size limit must not be sent
/// again: the status becomes INVALID_ARGUMENT and names the message, `what`. Any other status stays
/// unchanged.
#[must_use]
pub fn receive_error(status: Status, what: impl FnOnce() -> String) -> Status {
    // tonic's code for a message that exceeds the receiver's limit.
    if status.code() == Code::OutOfRange {
        return Status::invalid_argument(format!("{} is too large: {}", what(), status.message()));
    }
    status
}

/// An error with its causes, joined by colons: a status has one message.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        line.push_str(": ");
        line.push_str(&source.to_string());
        cause = source.source();
    }
    line
}
