//! The header of a shard stream.

use baton_job::{GenerationOptions, Lease, Mode, ShardIndex};

use crate::{WireError, wire};

/// One attempt at one shard: which, and how to process it. What both services know of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardAttempt {
    /// Names the job in logs.
    pub job_id: String,
    /// The shard, and the lease under which it is processed.
    pub lease: Lease,
    /// How many entries the shard has.
    pub num_entries: u32,
    /// SHA-256 of the bundle's manifest, hexadecimal.
    pub bundle_digest: String,
    /// Directory or URI where the shard is committed.
    pub output_location: String,
    /// Which models take part.
    pub mode: Mode,
    /// Name of the prompt template; `None`: the default one.
    pub task: Option<String>,
    /// Bounds on what is generated.
    pub generation: GenerationOptions,
}

impl From<ShardAttempt> for wire::ShardHeader {
    fn from(attempt: ShardAttempt) -> Self {
        wire::ShardHeader {
            job_id: attempt.job_id,
            shard_index: attempt.lease.shard.0,
            attempt: attempt.lease.attempt,
            num_entries: attempt.num_entries,
            bundle_digest: attempt.bundle_digest,
            output_location: attempt.output_location,
            generation: Some(wire::GenerationLimits {
                max_new_tokens: attempt.generation.max_new_tokens,
                min_new_tokens: attempt.generation.min_new_tokens,
                max_new_tokens_per_prompt_token: attempt.generation.max_new_tokens_per_prompt_token,
            }),
            task: attempt.task,
            mode: attempt.mode.as_str().to_owned(),
        }
    }
}

impl TryFrom<wire::ShardHeader> for ShardAttempt {
    type Error = WireError;

    fn try_from(header: wire::ShardHeader) -> Result<Self, WireError> {
        let generation =
            header.generation.ok_or(WireError::MissingField { field: "ShardHeader.generation" })?;
        Ok(ShardAttempt {
            job_id: header.job_id,
            lease: Lease { shard: ShardIndex(header.shard_index), attempt: header.attempt },
            num_entries: header.num_entries,
            bundle_digest: header.bundle_digest,
            output_location: header.output_location,
            mode: header.mode.parse().map_err(|error| WireError::invalid("ShardHeader.mode", &error))?,
            task: header.task,
            generation: GenerationOptions {
                max_new_tokens: generation.max_new_tokens,
                max_new_tokens_per_prompt_token: generation.max_new_tokens_per_prompt_token,
                min_new_tokens: generation.min_new_tokens,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> ShardAttempt {
        ShardAttempt {
            job_id: "job".into(),
            lease: Lease { shard: ShardIndex(7), attempt: 2 },
            num_entries: 256,
            bundle_digest: "d".repeat(64),
            output_location: "/out".into(),
            mode: Mode::Slm,
            task: Some("formal".into()),
            generation: GenerationOptions {
                max_new_tokens: Some(64),
                max_new_tokens_per_prompt_token: Some(1.5),
                min_new_tokens: 1,
            },
        }
    }

    #[test]
    fn a_header_survives_the_wire() {
        let header = wire::ShardHeader::from(attempt());
        assert_eq!(ShardAttempt::try_from(header), Ok(attempt()));
        let bare = ShardAttempt { task: None, generation: GenerationOptions::default(), ..attempt() };
        assert_eq!(ShardAttempt::try_from(wire::ShardHeader::from(bare.clone())), Ok(bare));
    }

    #[test]
    fn a_header_with_an_unknown_mode_or_without_limits_is_refused() {
        let header = wire::ShardHeader { mode: "oracle".into(), ..attempt().into() };
        let error = ShardAttempt::try_from(header).unwrap_err().to_string();
        assert!(error.starts_with("`ShardHeader.mode` is not valid"), "{error}");
        let header = wire::ShardHeader { generation: None, ..attempt().into() };
        let missing = WireError::MissingField { field: "ShardHeader.generation" };
        assert_eq!(ShardAttempt::try_from(header), Err(missing));
    }
}
