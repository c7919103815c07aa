//! The header of a shard stream.

use baton_job::{GenerationOptions, KeepFields, KeptColumns, Lease, Mode, PartOptions, ShardIndex};
use bytes::Bytes;

use crate::{MAX_ENTRIES_PER_SHARD, PROTOCOL, TierAttempt, WireError, wire};

/// One attempt at one shard, with its settings: the part of a job that both services know.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardAttempt {
    /// Names the job in logs.
    pub job_id: String,
    /// The shard, and the lease under which it is processed.
    pub lease: Lease,
    /// Number of entries of the shard.
    pub num_entries: u32,
    /// SHA-256 of the bundle's manifest, hexadecimal.
    pub bundle_digest: String,
    /// Directory or URI that the shard is committed to.
    pub output_location: String,
    /// Directory or URI of the cache of outputs, if the job has one.
    pub cache_location: Option<String>,
    /// The mode.
    pub mode: Mode,
    /// Name of the prompt template; `None`: the default one.
    pub task: Option<String>,
    /// The generation options.
    pub generation: GenerationOptions,
    /// The part's settings.
    pub parts: PartOptions,
    /// Entries of the job before the shard's first.
    pub first_entry: u64,
    /// True for a probe: the entries are some of the shard's, and nothing is committed.
    pub is_probe: bool,
    /// The tier of a cascade; `None` without one.
    pub tier: Option<TierAttempt>,
}

const VALIDATED: &str = "a job's generation options are validated, so its numbers are finite";

impl From<ShardAttempt> for wire::ShardHeader {
    fn from(attempt: ShardAttempt) -> Self {
        wire::ShardHeader {
            job_id: attempt.job_id,
            shard_index: attempt.lease.shard.0,
            attempt: attempt.lease.attempt,
            num_entries: attempt.num_entries,
            bundle_digest: attempt.bundle_digest,
            output_location: attempt.output_location,
            generation_json: serde_json::to_string(&attempt.generation).expect(VALIDATED),
            task: attempt.task,
            mode: attempt.mode.as_str().to_owned(),
            first_entry: attempt.first_entry,
            probe: attempt.is_probe,
            tier: attempt.tier.map(wire::TierHeader::from),
            protocol: PROTOCOL.to_owned(),
            cache_location: attempt.cache_location,
            parts: Some(wire::PartOptions {
                format: attempt.parts.format.to_string(),
                origin: attempt.parts.has_origin,
                keep_fields: attempt.parts.keep.keeps_any(),
                kept_columns: match &attempt.parts.keep {
                    KeepFields::AsColumns(columns) => columns.to_bytes(),
                    KeepFields::AsJson | KeepFields::No => Bytes::new(),
                },
                alternatives: attempt.parts.has_alternatives,
            }),
        }
    }
}

impl TryFrom<wire::ShardHeader> for ShardAttempt {
    type Error = WireError;

    fn try_from(header: wire::ShardHeader) -> Result<Self, WireError> {
        // This check comes first: another version may give the other fields another meaning.
        if header.protocol != PROTOCOL {
            let found = if header.protocol.is_empty() { "an old one".to_owned() } else { header.protocol };
            return Err(WireError::OtherProtocol { found });
        }
        if header.num_entries > MAX_ENTRIES_PER_SHARD {
            let detail =
                format!("{}; a shard has at most {MAX_ENTRIES_PER_SHARD} entries", header.num_entries);
            return Err(WireError::InvalidField { field: "ShardHeader.num_entries", detail });
        }
        let generation: GenerationOptions = serde_json::from_str(&header.generation_json)
            .map_err(|error| WireError::invalid("ShardHeader.generation_json", &error))?;
        let tier = header.tier.map(TierAttempt::try_from).transpose()?;
        let num_positions = tier.as_ref().map_or(0, |tier| tier.positions.len());
        if num_positions > 0 && num_positions != header.num_entries as usize {
            let detail = format!("{num_positions}, but the attempt has {} entries", header.num_entries);
            return Err(WireError::InvalidField { field: "TierHeader.positions", detail });
        }
        let parts = PartOptions {
            quality: generation.quality,
            has_tier: tier.is_some(),
            ..parts(&header.parts.unwrap_or_default())?
        };
        Ok(ShardAttempt {
            job_id: header.job_id,
            lease: Lease { shard: ShardIndex(header.shard_index), attempt: header.attempt },
            num_entries: header.num_entries,
            bundle_digest: header.bundle_digest,
            output_location: header.output_location,
            cache_location: header.cache_location,
            mode: header.mode.parse().map_err(|error| WireError::invalid("ShardHeader.mode", &error))?,
            task: header.task,
            parts,
            generation,
            first_entry: header.first_entry,
            is_probe: header.probe,
            tier,
        })
    }
}

fn parts(parts: &wire::PartOptions) -> Result<PartOptions, WireError> {
    let invalid_format = |error| WireError::invalid("PartOptions.format", &error);
    let invalid_columns = |error| WireError::invalid("PartOptions.kept_columns", &error);
    let keep = match (parts.keep_fields, parts.kept_columns.is_empty()) {
        (false, _) => KeepFields::No,
        (true, true) => KeepFields::AsJson,
        (true, false) => {
            let columns = KeptColumns::from_bytes(parts.kept_columns.clone()).map_err(invalid_columns)?;
            KeepFields::AsColumns(columns)
        }
    };
    Ok(PartOptions {
        format: parts.format.parse().map_err(invalid_format)?,
        has_origin: parts.origin,
        has_alternatives: parts.alternatives,
        keep,
        ..PartOptions::default()
    })
}

#[cfg(test)]
mod tests {
    use baton_job::Threshold;

    use super::*;

    fn attempt() -> ShardAttempt {
        ShardAttempt {
            job_id: "job".into(),
            lease: Lease { shard: ShardIndex(7), attempt: 2 },
            num_entries: 256,
            bundle_digest: "d".repeat(64),
            output_location: "/out".into(),
            cache_location: Some("s3://corpora/cache".into()),
            mode: Mode::Slm,
            task: Some("formal".into()),
            generation: GenerationOptions {
                max_new_tokens: Some(64),
                max_new_tokens_per_prompt_token: Some(1.5),
                min_new_tokens: 1,
                ..GenerationOptions::default()
            },
            parts: PartOptions {
                format: "jsonl.zst".parse().unwrap(),
                has_origin: true,
                has_tier: true,
                keep: KeepFields::AsJson,
                ..PartOptions::default()
            },
            first_entry: 5_000_000_000,
            is_probe: true,
            tier: Some(TierAttempt {
                number: 0,
                name: "slm".into(),
                threshold: Some(Threshold::Estimate(0.7)),
                positions: Vec::new(),
            }),
        }
    }

    #[test]
    fn a_header_survives_the_wire() {
        let header = wire::ShardHeader::from(attempt());
        assert_eq!(ShardAttempt::try_from(header), Ok(attempt()));
        let generation = GenerationOptions::default();
        let bare = ShardAttempt { task: None, cache_location: None, generation, ..attempt() };
        assert_eq!(ShardAttempt::try_from(wire::ShardHeader::from(bare.clone())), Ok(bare));
    }

    #[test]
    fn a_header_with_an_unknown_mode_or_options_that_are_not_allowed_is_refused() {
        let header = wire::ShardHeader { mode: "oracle".into(), ..attempt().into() };
        let error = ShardAttempt::try_from(header).unwrap_err().to_string();
        assert!(error.starts_with("`ShardHeader.mode` is not valid"), "{error}");
        for (json, piece) in [
            ("", "EOF"),
            (r#"{"beams":65}"#, "`generation.beams` is 65; allowed: 1 to 64"),
            (r#"{"beams":2,"seed":1}"#, "`generation.seed` is 1; allowed: only without `generation.beams`"),
            (r#"{"diversity":2}"#, "unknown field `diversity`"),
        ] {
            let header = wire::ShardHeader { generation_json: json.into(), ..attempt().into() };
            let error = ShardAttempt::try_from(header).unwrap_err().to_string();
            assert!(error.starts_with("`ShardHeader.generation_json` is not valid"), "{error}");
            assert!(error.contains(piece), "{error}");
        }
    }

    #[test]
    fn a_header_of_another_version_is_refused_before_its_fields_are_read() {
        for protocol in ["", "0.0.9-00000000"] {
            let header =
                wire::ShardHeader { protocol: protocol.into(), mode: "oracle".into(), ..attempt().into() };
            let error = ShardAttempt::try_from(header).unwrap_err();
            assert!(error.to_string().contains("another version of Baton"), "{error}");
            assert_eq!(tonic::Status::from(error).code(), tonic::Code::FailedPrecondition);
        }
    }

    #[test]
    fn a_tier_with_other_positions_than_entries_is_refused() {
        let tier = wire::TierHeader { number: 1, positions: vec![3], ..wire::TierHeader::default() };
        let header = wire::ShardHeader { tier: Some(tier), ..attempt().into() };
        let error = ShardAttempt::try_from(header).unwrap_err().to_string();
        assert!(error.contains("TierHeader.positions") && error.contains("256 entries"), "{error}");
    }

    #[test]
    fn a_shard_too_large_to_hold_places_for_is_refused() {
        let header = wire::ShardHeader { num_entries: u32::MAX, ..attempt().into() };
        let error = ShardAttempt::try_from(header).unwrap_err().to_string();
        assert!(error.contains("num_entries") && error.contains("at most 65536"), "{error}");
    }
}
