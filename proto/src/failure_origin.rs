//! The process in which an attempt failed. It travels with the status, so that the coordinator rests the
//! right worker.

use tonic::Status;
use tonic::metadata::MetadataValue;

/// The metadata key under which a status carries its origin.
const KEY: &str = "baton-failure-origin";

/// The place of an attempt's failure, if it is not the encoder that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureOrigin {
    /// A part of the encoder's chain could not be reached, or did not take a batch on: the encoder is as good
    /// as absent.
    EncoderOpening,
    /// The decoder could not be reached, or did not take the shard on.
    DecoderOpening,
    /// The decoder took the shard on and then failed or vanished.
    Decoder,
    /// The decoder could not read or write the job's output. The shard and the workers are not to blame.
    Store,
}

impl FailureOrigin {
    const ALL: [Self; 4] = [Self::EncoderOpening, Self::DecoderOpening, Self::Decoder, Self::Store];

    /// Notes the origin in `status`.
    #[must_use]
    pub fn mark(self, mut status: Status) -> Status {
        status.metadata_mut().insert(KEY, MetadataValue::from_static(self.as_str()));
        status
    }

    /// The origin noted in `status`, if any.
    #[must_use]
    pub fn of(status: &Status) -> Option<FailureOrigin> {
        let name = status.metadata().get(KEY)?.to_str().ok()?;
        Self::ALL.into_iter().find(|origin| origin.as_str() == name)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::EncoderOpening => "encoder-opening",
            Self::DecoderOpening => "decoder-opening",
            Self::Decoder => "decoder",
            Self::Store => "store",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_from_the_status_that_carries_it() {
        let status = Status::unavailable("the stream broke");
        assert_eq!(FailureOrigin::of(&status), None);
        for origin in FailureOrigin::ALL {
            let marked = origin.mark(status.clone());
            assert_eq!(FailureOrigin::of(&marked), Some(origin));
            assert_eq!((marked.code(), marked.message()), (status.code(), status.message()));
        }
    }
}
