//! The failure of an input that cannot be read to its end. It is never a failed record, because nobody knows
//! which records the rest would have had.

use std::error::Error;
use std::fmt;
use std::io;

/// Why the rest of an input was not read.
#[derive(Debug)]
pub struct InputFailure {
    /// The input, as the listing names it.
    pub uri: String,
    /// Line or row at which reading stopped, from 1.
    pub line: u64,
    /// Rows found before.
    pub rows_read: u64,
    /// Bytes read before, uncompressed; of a file that is read by ranges, as stored.
    pub num_bytes_read: u64,
    /// The cause.
    pub cause: InputFailureCause,
}

/// Causes that stop the reading of an input.
#[derive(Debug)]
pub enum InputFailureCause {
    /// The content of the file: a cut or corrupt archive, another kind of file, an invalid header. Another
    /// try changes nothing.
    Content(String),
    /// The place of the input: a disk or a connection failed. Another try may succeed.
    Source(io::Error),
}

impl InputFailure {
    /// Whether another try at the same file ends the same.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.cause, InputFailureCause::Content(_))
    }
}

impl fmt::Display for InputFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InputFailure { uri, line, rows_read, num_bytes_read, cause } = self;
        match cause {
            InputFailureCause::Content(message) => write!(f, "{uri} cannot be read: {message}")?,
            InputFailureCause::Source(_) => write!(f, "{uri} cannot be read to its end")?,
        }
        match rows_read {
            0 => f.write_str("; no row of it was read"),
            rows => {
                write!(f, "; its first {rows} rows ({num_bytes_read} bytes) were read, up to line {line}")
            }
        }
    }
}

impl Error for InputFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            InputFailureCause::Content(_) => None,
            InputFailureCause::Source(error) => Some(error),
        }
    }
}
