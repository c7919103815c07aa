//! The trace that follows one attempt at a shard through all processes: the W3C trace context, in gRPC
//! metadata.
//!
//! The coordinator begins a trace for each attempt; encoder and decoder continue it. Its id is a field of
//! their spans, so one search over the logs of all processes finds the whole history of an attempt.
//!
//! Reference: <https://www.w3.org/TR/trace-context/>.

use std::fmt;
use std::str::FromStr;

use tonic::metadata::MetadataMap;

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

impl TraceContext {
    /// Begins a trace.
    #[must_use]
    pub fn begin() -> Self {
        Self { trace_id: rand::random::<u128>().max(1), span_id: random_span_id(), flags: 1 } // 1: sampled
    }

    /// Continues the trace of a request, or begins one if it has none.
    #[must_use]
    pub fn continue_from(metadata: &MetadataMap) -> Self {
        let caller = metadata.get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse::<Self>().ok());
        caller.map_or_else(Self::begin, |caller| Self { span_id: random_span_id(), ..caller })
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
        let context = TraceContext::continue_from(&metadata);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(context.span_id, 0x00f0_67aa_0ba9_02b7);

        let request = context.request(());
        let next = TraceContext::continue_from(request.metadata());
        assert_eq!(next.trace_id(), context.trace_id());
    }

    #[test]
    fn a_traceparent_parses_back_from_its_display() {
        assert_eq!(EXAMPLE.parse::<TraceContext>().unwrap().to_string(), EXAMPLE);
        let begun = TraceContext::begin();
        assert_eq!(begun.to_string().parse(), Ok(begun));
        assert_ne!(begun.trace_id(), TraceContext::begin().trace_id());
    }

    #[test]
    fn later_versions_are_understood_and_nonsense_begins_a_new_trace() {
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
