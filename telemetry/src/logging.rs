//! Log lines on stderr.
//!
//! A process must outlive the program that reads its stderr, so nothing here fails or panics when a line
//! cannot be written.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::{LogArgs, LogFormat};

/// A log filter that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter} is not a filter; write a level such as `info`, or `info,baton_coordinator=debug`")]
pub struct LogFilterError {
    /// The given filter.
    pub filter: String,
    /// The problem.
    #[source]
    pub source: ParseError,
}

impl LogArgs {
    /// Starts logging to stderr. `default_filter` is used without the flag.
    ///
    /// # Errors
    /// The filter cannot be parsed.
    ///
    /// # Panics
    /// Logging was started before.
    pub fn init(&self, default_filter: &str) -> Result<(), LogFilterError> {
        let filter = self.log.as_deref().unwrap_or(default_filter);
        let filter: EnvFilter =
            filter.parse().map_err(|source| LogFilterError { filter: filter.to_owned(), source })?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(|| Stderr)
            .with_ansi(io::stderr().is_terminal())
            .log_internal_errors(false);
        match self.log_format {
            LogFormat::Human => log.init(),
            LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
        }
        Ok(())
    }
}

/// stderr, which may be closed.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line for the user of a terminal. Unlike `eprintln!`, it does not panic when stderr is closed. See
/// [`tell!`](crate::tell).
pub fn write_stderr_line(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints a line for the user of a terminal, formatted as by `format!`. Unlike `eprintln!`, it does not panic
/// when stderr is closed.
#[macro_export]
macro_rules! tell {
    ($($line:tt)*) => { $crate::write_stderr_line(::std::format_args!($($line)*)) };
}
