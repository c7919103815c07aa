//! The places where a decoder may write. A job names its output and its cache, so any caller who reaches the
//! port could name any place that this process can write to. The operator limits these places.

use baton_store::Location;

use crate::DecoderError;

/// The places below which outputs may lie. The default is any.
#[derive(Debug, Clone, Default)]
pub struct AllowedOutputs {
    /// Empty: any.
    prefixes: Vec<Location>,
}

impl AllowedOutputs {
    /// Allows everything below one of these; without prefixes, everything.
    #[must_use]
    pub fn below(prefixes: Vec<Location>) -> Self {
        Self { prefixes }
    }

    /// Whether every place is allowed.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Refuses an output that lies elsewhere.
    ///
    /// # Errors
    /// It is no location, or not allowed.
    pub(crate) fn check(&self, output: &str) -> Result<(), DecoderError> {
        let location = Location::parse(output)
            .map_err(|source| DecoderError::Output { location: output.to_owned(), source })?;
        if self.is_any() || self.prefixes.iter().any(|prefix| location.is_within(prefix)) {
            return Ok(());
        }
        let allowed: Vec<String> = self.prefixes.iter().map(ToString::to_string).collect();
        Err(DecoderError::OutputNotAllowed { location: output.to_owned(), allowed: allowed.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;

    #[test]
    fn an_output_elsewhere_is_refused_with_the_allowed_places() {
        let prefixes = ["s3://corpora/it", "/data/out"].map(|prefix| Location::parse(prefix).unwrap());
        let allowed = AllowedOutputs::below(prefixes.to_vec());
        for output in ["s3://corpora/it", "s3://corpora/it/2026", "/data/out/x", "file:/data/out"] {
            allowed.check(output).unwrap();
        }
        for output in ["s3://corpora/italy", "s3://other/it", "/data", "/data/out/../x", "out"] {
            let status = Status::from(allowed.check(output).unwrap_err());
            assert_eq!(status.code(), Code::PermissionDenied, "{output}");
            let message = status.message();
            assert!(message.contains(output) && message.contains("s3://corpora/it, /data/out"), "{message}");
        }
        let misspelled = Status::from(allowed.check("s3:/corpora/it").unwrap_err());
        assert_eq!(misspelled.code(), Code::FailedPrecondition);
        AllowedOutputs::default().check("/anywhere").unwrap();
    }
}
