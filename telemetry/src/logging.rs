//! Log lines on stderr, and the spans for a collector, which come from the same `tracing` macros.
//!
//! A process must outlive the program that reads its stderr, so nothing here fails or panics when a line
//! cannot be written.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::otlp::{Otlp, OtlpError};
use crate::{LogArgs, LogFormat};

/// Logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A log filter that cannot be parsed.
    #[error(
        "--log {filter} is not a filter; write a level such as `info`, or `info,baton_coordinator=debug`"
    )]
    Filter {
        /// The given filter.
        filter: String,
        /// The problem.
        #[source]
        source: ParseError,
    },
    /// Nothing can be sent to a collector.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
}

/// Logs and export of this process. Dropping it sends to the collector what waits.
#[must_use = "the last spans and metrics are sent when it is dropped"]
#[derive(Debug)]
pub struct Logging {
    _otlp: Option<Otlp>,
}

impl LogArgs {
    /// Starts logging to stderr, and the export if there is an endpoint. `default_filter` is used without the
    /// flag. `process` is the role: `encoder`, `decoder`, `coordinator`, `cli`.
    ///
    /// # Errors
    /// The filter cannot be parsed, or the endpoint is none.
    ///
    /// # Panics
    /// Logging was started before.
    pub fn init(&self, default_filter: &str, process: &str) -> Result<Logging, LogError> {
        let filter = self.log.as_deref().unwrap_or(default_filter);
        let filter: EnvFilter =
            filter.parse().map_err(|source| LogError::Filter { filter: filter.to_owned(), source })?;
        let otlp =
            self.otlp_endpoint.as_deref().map(|endpoint| Otlp::start(endpoint, process)).transpose()?;
        // Baton's own spans alone: those of the export itself would call for more of it.
        let own = Targets::new().with_target("baton", LevelFilter::INFO);
        let export = otlp.as_ref().map(|otlp| {
            let spans = tracing_opentelemetry::layer().with_location(false).with_threads(false);
            spans.with_tracer(otlp.tracer()).with_filter(own)
        });
        let log = tracing_subscriber::fmt::layer()
            .with_writer(|| Stderr)
            .with_ansi(io::stderr().is_terminal())
            .log_internal_errors(false);
        let log: Box<dyn Layer<Registry> + Send + Sync> = match self.log_format {
            LogFormat::Human => log.with_filter(filter).boxed(),
            LogFormat::Json => {
                log.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed()
            }
        };
        tracing_subscriber::registry().with(log).with(export).init();
        Ok(Logging { _otlp: otlp })
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
