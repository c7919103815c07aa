//! The trace that follows a job through all processes: the W3C trace context, in gRPC metadata.
//!
//! The coordinator begins a trace for the job, and a span in it for each attempt at a shard; encoder and
//! decoder continue it. The trace's id is a field of their spans, so one search over the logs of all
//! processes finds the whole history of a job. If spans are exported (`otlp.rs`), a collector shows them as
//! one tree.
//!
//! A span that takes part declares a field `trace_id = tracing::field::Empty`.
//!
//! Reference: <https://www.w3.org/TR/trace-context/>.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: &str = "traceparent";

/// The text is not a traceparent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct InvalidTraceparent;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The same in all processes, not 0.
    trace_id: u128,
    /// Identifies this process's part of the trace; not 0.
    span_id: u64,
    flags: u8,
}

/// A job's trace, and the job's span in it, which ends when this is dropped.
#[derive(Debug)]
pub struct JobTrace {
    /// The span's place; spans of the job's work continue it.
    pub place: TraceContext,
    _span: Span,
}

impl JobTrace {
    /// Begins the trace of `job`.
    #[must_use]
    pub fn begin(job: &str) -> Self {
        // Nothing is logged within it: the spans of shards have its fields.
        let span = tracing::info_span!(parent: None, "job", job, trace_id = tracing::field::Empty);
        Self { place: TraceContext::begin(&span), _span: span }
    }
}

impl TraceContext {
    /// Begins a trace with `span`.
    #[must_use]
    pub fn begin(span: &Span) -> Self {
        Self::of(span)
            .unwrap_or_else(|| Self {
                trace_id: rand::random::<u128>().max(1),
                span_id: random_span_id(),
                flags: 1, // sampled
            })
            .shown_by(span)
    }

    /// Continues this trace with `span`, which must not have been entered.
    #[must_use]
    pub fn continue_with(self, span: &Span) -> Self {
        let parent = SpanContext::new(
            TraceId::from(self.trace_id),
            SpanId::from(self.span_id),
            TraceFlags::new(self.flags),
            true,
            TraceState::NONE,
        );
        // Without an export there is no span to join, only the trace's id.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
        Self::of(span).unwrap_or_else(|| Self { span_id: random_span_id(), ..self }).shown_by(span)
    }

    /// The trace of a request, if its caller has one.
    #[must_use]
    pub fn of_caller(metadata: &MetadataMap) -> Option<Self> {
        metadata.get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse().ok())
    }

    /// The place of an exported span.
    fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        let context = context.span().span_context().clone();
        context.is_valid().then(|| Self {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            flags: context.trace_flags().to_u8(),
        })
    }

    /// Shows the trace's id in the log lines of `span`.
    fn shown_by(self, span: &Span) -> Self {
        span.record("trace_id", self.trace_id());
        self
    }

    /// Adds the trace to the metadata of a request.
    pub fn inject(&self, metadata: &mut MetadataMap) {
        let value = self.to_string().parse().expect("a traceparent is ASCII");
        metadata.insert(TRACEPARENT, value);
    }

    /// A request that carries the trace.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        self.inject(request.metadata_mut());
        request
    }

    /// The id that all processes share, 32 hexadecimal digits. Field `trace_id` of spans.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

fn random_span_id() -> u64 {
    rand::random::<u64>().max(1)
}

impl fmt::Display for TraceContext {
    /// The value of the `traceparent` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let mut fields = text.split('-');
        let mut field = |num_digits: usize| {
            let field = fields.next().filter(|field| field.len() == num_digits)?;
            let is_hex = field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            is_hex.then(|| u128::from_str_radix(field, 16).ok())?
        };
        let parsed = (|| Some((field(2)?, field(32)?, field(16)?, field(2)?)))();
        // Later versions may append fields; this one has none.
        let (version, trace_id, span_id, flags) = parsed.ok_or(InvalidTraceparent)?;
        let has_more = fields.next().is_some();
        if trace_id == 0 || span_id == 0 || version == 0xff || (version == 0 && has_more) {
            return Err(InvalidTraceparent);
        }
        Ok(Self { trace_id, span_id: span_id as u64, flags: flags as u8 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the W3C recommendation.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_callers_trace_is_continued_with_a_span_of_our_own() {
        let mut metadata = MetadataMap::new();
        metadata.insert(TRACEPARENT, EXAMPLE.parse().unwrap());
        let caller = TraceContext::of_caller(&metadata).unwrap();
        let context = caller.continue_with(&Span::none());
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(context.span_id, 0x00f0_67aa_0ba9_02b7);

        let request = context.request(());
        assert_eq!(TraceContext::of_caller(request.metadata()), Some(context));
    }

    #[test]
    fn a_traceparent_parses_back_from_its_display() {
        assert_eq!(EXAMPLE.parse::<TraceContext>().unwrap().to_string(), EXAMPLE);
        let begun = TraceContext::begin(&Span::none());
        assert_eq!(begun.to_string().parse(), Ok(begun));
        assert_ne!(begun.trace_id(), TraceContext::begin(&Span::none()).trace_id());
    }

    #[test]
    fn later_versions_are_understood_and_nonsense_is_no_trace() {
        let later = EXAMPLE.replacen("00", "01", 1) + "-more";
        assert!(later.parse::<TraceContext>().is_ok());
        for nonsense in [
            "",
            "00",
            &EXAMPLE[..54],
            &format!("{EXAMPLE}-more"),
            &EXAMPLE.replacen("00", "ff", 1),
            &EXAMPLE.to_uppercase(),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(nonsense.parse::<TraceContext>(), Err(InvalidTraceparent), "{nonsense}");
        }
    }
}
