//! The verdict: the result of a shard, fixed before its part exists.
//!
//! The first verdict of a shard decides which of its records failed, and every later attempt obeys it. A
//! restart takes its counts from verdicts and reads no output again.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layout::verdict_key;
use crate::{JobError, RecordFailure, ShardIndex, TermCounts, TierSums, WarningCounts};

/// The result of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The shard.
    pub shard: ShardIndex,
    /// Its input records, failed ones included.
    pub records: u64,
    /// The records that failed, in the shard's order; each is an error row.
    pub failed: Vec<RecordFailure>,
    /// Position in the shard of each of these, from 0, so that rows and error rows can be put in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_at: Vec<u32>,
    /// The content of the part: all other records.
    pub outputs: PartSummary,
    /// The results of a cascade's tiers, as far as the shard came; otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<TierSums>,
}

/// The content of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartSummary {
    /// Output rows.
    pub rows: u64,
    /// Size of the part.
    pub bytes: u64,
    /// sha256 of the part, hexadecimal.
    pub sha256: String,
    /// Tokens read, of the rows in this part.
    pub prompt_tokens: u64,
    /// Tokens that the LLM has read for these rows, if the small model reads its own tokens; otherwise 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub llm_prompt_tokens: u64,
    /// Tokens written, of the rows in this part.
    pub output_tokens: u64,
    /// Warnings of the rows in this part.
    #[serde(default, skip_serializing_if = "WarningCounts::is_empty")]
    pub warnings: WarningCounts,
    /// The glossary's terms in the rows of this part.
    #[serde(default, skip_serializing_if = "TermCounts::is_empty")]
    pub terms: TermCounts,
}

impl PartSummary {
    /// Sums up the bytes of a part of `rows` rows; token totals start at 0, warnings and terms are empty.
    pub fn of(part: &[u8], rows: u64) -> PartSummary {
        PartSummary {
            rows,
            bytes: part.len() as u64,
            sha256: sha256_hex(part),
            prompt_tokens: 0,
            llm_prompt_tokens: 0,
            output_tokens: 0,
            warnings: WarningCounts::default(),
            terms: TermCounts::default(),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Verdict {
    /// The bytes of the verdict object.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a verdict is plain data with string keys")
    }

    /// Reads a verdict object; `shard` is the one whose key it was found under.
    ///
    /// # Errors
    /// [`JobError::CorruptObject`] or [`JobError::InconsistentVerdict`].
    pub fn from_json(shard: ShardIndex, bytes: &[u8]) -> Result<Verdict, JobError> {
        let verdict: Verdict = serde_json::from_slice(bytes).map_err(|source| JobError::CorruptObject {
            key: verdict_key(shard),
            what: "verdict",
            source,
        })?;
        let (records, rows, failed) = (verdict.records, verdict.outputs.rows, verdict.failed.len() as u64);
        if verdict.shard != shard || rows.checked_add(failed) != Some(records) {
            return Err(JobError::InconsistentVerdict { key: verdict_key(shard), records, rows, failed });
        }
        Ok(verdict)
    }

    /// The bytes of the shard's error object; empty if no record failed.
    pub fn error_rows(&self) -> Vec<u8> {
        self.failed.iter().flat_map(RecordFailure::to_json_line).collect()
    }

    /// The same verdict on the same records, with the sums of another part.
    pub fn amended(&self, outputs: PartSummary) -> Verdict {
        Verdict { outputs, ..self.clone() }
    }

    /// Compares the part found under `key` with what this verdict promised.
    ///
    /// # Errors
    /// [`JobError::PartMismatch`].
    pub fn check_part(&self, key: &str, part: &[u8]) -> Result<(), JobError> {
        let found = sha256_hex(part);
        if found == self.outputs.sha256 {
            return Ok(());
        }
        Err(JobError::PartMismatch { key: key.to_owned(), expected: self.outputs.sha256.clone(), found })
    }
}

/// sha256 of `bytes`, hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{FailureCode, RecordSource};

    pub(crate) fn verdict(shard: u32, rows: u64, num_failed: u64) -> Verdict {
        let failed = (1..=num_failed).map(|line| RecordFailure {
            source: RecordSource { uri: "a.txt".into(), line },
            id: None,
            code: FailureCode::EmptyText,
            message: "the text is empty or only white space".into(),
        });
        let outputs = PartSummary {
            prompt_tokens: 10,
            llm_prompt_tokens: 15,
            output_tokens: 20,
            ..PartSummary::of(b"{}\n", rows)
        };
        let failed_at = (0..num_failed as u32).collect();
        let failed = failed.collect();
        let (shard, records) = (ShardIndex(shard), rows + num_failed);
        Verdict { shard, records, failed, failed_at, outputs, tiers: Vec::new() }
    }

    #[test]
    fn a_verdict_survives_its_json() {
        let verdict = verdict(3, 1, 2);
        assert_eq!(Verdict::from_json(ShardIndex(3), &verdict.to_json()).unwrap(), verdict);
        assert_eq!(verdict.error_rows().iter().filter(|&&byte| byte == b'\n').count(), 2);
    }

    #[test]
    fn a_changed_verdict_is_refused_by_its_key() {
        let mut wrong_sum = verdict(3, 1, 2);
        wrong_sum.records = 4;
        for bytes in [b"{\"shard\":3".to_vec(), verdict(4, 1, 2).to_json(), wrong_sum.to_json()] {
            let error = Verdict::from_json(ShardIndex(3), &bytes).unwrap_err().to_string();
            assert!(error.starts_with("_baton/shards/000003.json"), "{error}");
        }
    }

    #[test]
    fn a_part_is_checked_against_its_hash() {
        let verdict = verdict(3, 1, 0);
        verdict.check_part("part-000003.jsonl", b"{}\n").unwrap();
        let error = verdict.check_part("part-000003.jsonl", b"{}").unwrap_err().to_string();
        assert!(error.starts_with("part-000003.jsonl does not match its verdict"), "{error}");
    }

    #[test]
    fn the_hash_is_that_of_the_standard() {
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, B.1
        assert_eq!(PartSummary::of(b"abc", 1).sha256, of_abc);
    }
}
