//! Refusals without blame for the shard: the worker has no room now, or is about to stop.

use tonic::Status;
use tonic::metadata::MetadataValue;

/// The metadata key under which a status carries its refusal.
const KEY: &str = "baton-refusal";

/// The reason why a healthy worker refuses a shard. The shard must be placed elsewhere, and the attempt does
/// not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The worker's limits are reached. RESOURCE_EXHAUSTED.
    Busy,
    /// The worker finishes its work and stops. UNAVAILABLE.
    Draining,
}

impl Refusal {
    /// The status that says so; `detail` names the limit, or what to do.
    #[must_use]
    pub fn status(self, detail: &str) -> Status {
        let message = format!("{}: {detail}", self.as_str());
        self.mark(match self {
            Self::Busy => Status::resource_exhausted(message),
            Self::Draining => Status::unavailable(message),
        })
    }

    /// The refusal noted in `status`, if any.
    #[must_use]
    pub fn of(status: &Status) -> Option<Refusal> {
        let name = status.metadata().get(KEY)?.to_str().ok()?;
        [Self::Busy, Self::Draining].into_iter().find(|refusal| refusal.as_str() == name)
    }

    /// Notes the refusal in a status that is relayed.
    #[must_use]
    pub fn mark(self, mut status: Status) -> Status {
        status.metadata_mut().insert(KEY, MetadataValue::from_static(self.as_str()));
        status
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Draining => "draining",
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_refusal_is_read_from_the_status_that_carries_it() {
        for (refusal, code) in
            [(Refusal::Busy, Code::ResourceExhausted), (Refusal::Draining, Code::Unavailable)]
        {
            let status = refusal.status("no room");
            assert_eq!((Refusal::of(&status), status.code()), (Some(refusal), code));
            assert!(status.message().ends_with(": no room"), "{status}");
        }
        assert_eq!(Refusal::of(&Status::unavailable("gone")), None);
    }
}
