//! The flags of logs, of the export to a collector and of the HTTP port, the same in every process.

use std::net::{AddrParseError, SocketAddr};
use std::str::FromStr;

use clap::ValueEnum;

/// Flags of a process that runs alone: logs, and the HTTP port.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryArgs {
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
    /// Address and port of the HTTP pages /metrics, /livez and /readyz, or `none`. They need no credentials
    /// and hold no record text.
    #[arg(long, value_name = "ADDRESS", env = "BATON_HTTP_LISTEN", default_value = "0.0.0.0:9464")]
    pub http_listen: HttpListen,
}

/// Flags of logging, and of the export to a collector.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Filter of the log lines on stderr, in the syntax of tracing's EnvFilter. Examples: info;
    /// warn,baton_coordinator=debug
    #[arg(long, value_name = "FILTER", global = true, env = "BATON_LOG")]
    pub log: Option<String>,
    /// Form of a log line.
    #[arg(long, value_name = "FORMAT", global = true, env = "BATON_LOG_FORMAT", default_value = "human")]
    pub log_format: LogFormat,
    /// OpenTelemetry collector that gets spans and metrics, by OTLP over gRPC. Other settings are in the
    /// standard OTEL_ variables. Example: http://collector:4317
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_parser = collector_endpoint
    )]
    pub otlp_endpoint: Option<String>,
}

/// Refuses what is no address of a collector before anything starts.
fn collector_endpoint(text: &str) -> Result<String, &'static str> {
    let has_scheme = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    if has_scheme { Ok(text.to_owned()) } else { Err("write it like http://collector:4317") }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For reading, in colours on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// The address of the HTTP pages, if they are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpListen(Option<SocketAddr>);

impl HttpListen {
    /// The address; `None` for no pages.
    #[must_use]
    pub fn address(self) -> Option<SocketAddr> {
        self.0
    }
}

impl FromStr for HttpListen {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Process {
        #[command(flatten)]
        telemetry: TelemetryArgs,
    }

    fn parse(args: &[&str]) -> Result<TelemetryArgs, clap::Error> {
        Ok(Process::try_parse_from(["process"].iter().chain(args))?.telemetry)
    }

    #[test]
    fn the_http_port_has_a_default_and_can_be_disabled() {
        assert_eq!(parse(&[]).unwrap().http_listen.address(), Some(([0, 0, 0, 0], 9464).into()));
        assert_eq!(parse(&["--http-listen", "none"]).unwrap().http_listen.address(), None);
        assert!(parse(&["--http-listen", "somewhere"]).is_err());
    }

    #[test]
    fn a_collector_is_named_by_a_url() {
        let endpoint = |text| parse(&["--otlp-endpoint", text]).map(|args| args.log.otlp_endpoint);
        assert_eq!(endpoint("http://collector:4317").unwrap().as_deref(), Some("http://collector:4317"));
        assert!(endpoint("collector:4317").unwrap_err().to_string().contains("http://collector:4317"));
    }

    #[test]
    fn log_flags_are_read() {
        let args = parse(&["--log", "debug", "--log-format", "json"]).unwrap();
        assert_eq!((args.log.log.as_deref(), args.log.log_format), (Some("debug"), LogFormat::Json));
    }
}
