//! The result of a tier of a cascade: an object beside a shard's verdict, for each tier but the last.
//!
//! The first result of a tier decides which records go on to the next one, and what stays of the others.
//! Every later attempt obeys it, so all attempts at a tier have the same entries, on whatever processor they
//! run. Positions are those of the whole shard, from 0, in every tier.

use baton_formats::{Compression, KeptFields, OutputRow, RecordFailure, RecordSource, ReviewRow};
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use crate::layout::tier_key;
use crate::{JobError, ShardIndex, TermCounts, TierSums, hex};

const COMPRESSION: Compression = Compression::Zstd;

/// The result of a tier of a shard.
#[derive(Debug, Clone, PartialEq)]
pub struct TierResult {
    /// Everything but the outputs.
    pub head: TierHead,
    /// The outputs that stay, by position.
    pub kept: Vec<KeptOutput>,
}

/// The first line of the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierHead {
    /// The shard.
    pub shard: ShardIndex,
    /// The tier, from 0.
    pub tier: u32,
    /// Positions of the records that go on to the next tier, rising.
    pub escalated: Vec<u32>,
    /// The records that no tier can write, in order.
    pub failed: Vec<RecordFailure>,
    /// Their positions.
    pub failed_at: Vec<u32>,
    /// Counts and sums.
    pub sums: TierSums,
}

/// An output that stays.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptOutput {
    /// Position of its record in the shard.
    pub at: u32,
    /// Where the record came from.
    pub source: RecordSource,
    /// The row.
    pub row: OutputRow,
    /// The same for a reader of the worst outputs.
    pub review: Option<Box<ReviewRow>>,
    /// The glossary's terms in the text.
    pub terms: TermCounts,
}

/// The line of an output.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputLine {
    at: u32,
    source: RecordSource,
    row: OutputRow,
    /// The row's kept fields if they are columns, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    review: Option<Box<ReviewRow>>,
    #[serde(default, skip_serializing_if = "TermCounts::is_empty")]
    terms: TermCounts,
}

impl TierResult {
    /// The bytes of the object.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        const PLAIN: &str = "a result is plain data with string keys";
        let mut lines = serde_json::to_vec(&self.head).expect(PLAIN);
        for KeptOutput { at, source, row, review, terms } in &self.kept {
            let (at, source, review, mut row) = (*at, source.clone(), review.clone(), row.clone());
            let terms = terms.clone();
            let columns = match &row.fields {
                KeptFields::Columns(columns) => Some(hex(columns)),
                KeptFields::Json(_) => None,
            };
            if columns.is_some() {
                row.fields = KeptFields::default();
            }
            lines.push(b'\n');
            let line = OutputLine { at, source, row, columns, review, terms };
            serde_json::to_writer(&mut lines, &line).expect(PLAIN);
        }
        COMPRESSION.compressed(&lines).expect("memory takes everything")
    }

    /// Reads the object of a shard's tier.
    ///
    /// # Errors
    /// [`JobError::CorruptObject`].
    pub fn from_bytes(
        tier: u32,
        shard: ShardIndex,
        bytes: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<TierResult, JobError> {
        parse(tier, shard, bytes).map_err(|source| JobError::CorruptObject {
            key: tier_key(tier, shard),
            what: "result of a tier",
            source,
        })
    }
}

fn parse(
    tier: u32,
    shard: ShardIndex,
    bytes: impl AsRef<[u8]> + Send + 'static,
) -> serde_json::Result<TierResult> {
    let lines = COMPRESSION.decompressed(bytes).map_err(serde_json::Error::custom)?;
    let mut lines = lines.split(|&byte| byte == b'\n');
    let head: TierHead = serde_json::from_slice(lines.next().unwrap_or_default())?;
    let kept: Vec<KeptOutput> = lines.map(kept_output).collect::<Result<_, _>>()?;
    let counts = [kept.len(), head.failed.len(), head.escalated.len()].map(|count| count as u64);
    let TierSums { records, outputs, escalated, .. } = head.sums;
    let is_consistent = (head.tier, head.shard) == (tier, shard)
        && counts == [outputs, records.wrapping_sub(outputs).wrapping_sub(escalated), escalated]
        && head.failed.len() == head.failed_at.len()
        && head.escalated.is_sorted();
    match is_consistent {
        true => Ok(TierResult { head, kept }),
        false => Err(serde_json::Error::custom("its numbers do not agree")),
    }
}

fn kept_output(line: &[u8]) -> serde_json::Result<KeptOutput> {
    let OutputLine { at, source, mut row, columns, review, terms } = serde_json::from_slice(line)?;
    if let Some(columns) = columns {
        let columns = from_hex(&columns).ok_or_else(|| serde_json::Error::custom("no hexadecimal digits"))?;
        row.fields = KeptFields::Columns(columns.into());
    }
    Ok(KeptOutput { at, source, row, review, terms })
}

/// The inverse of [`hex`].
fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if digits.len().is_multiple_of(2) { digits.chunks(2).map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use baton_formats::{FailureCode, FinishReason};

    use super::*;

    const SHARD: ShardIndex = ShardIndex(7);

    fn source(line: u64) -> RecordSource {
        RecordSource { uri: "a.jsonl".into(), line }
    }

    fn kept(at: u32, fields: KeptFields) -> KeptOutput {
        let row = OutputRow {
            id: format!("r{at}"),
            output: "riga\nuno".into(),
            score: -0.25,
            prompt_tokens: 5,
            llm_prompt_tokens: 7,
            output_tokens: 3,
            finish_reason: FinishReason::Stop,
            warnings: vec!["number_placed".into()],
            quality: Some(0.75),
            signals: None,
            tier: Some("slm".into()),
            alternatives: Vec::new(),
            origin: None,
            fields,
        };
        KeptOutput {
            at,
            source: source(u64::from(at) + 1),
            row,
            review: None,
            terms: TermCounts::of(2, 1, [("disk".to_owned(), 1)]),
        }
    }

    fn result() -> TierResult {
        let fields = serde_json::Map::from_iter([("n".to_owned(), serde_json::json!([0.1, "x", null]))]);
        let columns = KeptFields::Columns(vec![0, 255, 16].into());
        let failure =
            RecordFailure { source: source(3), id: None, code: FailureCode::EmptyText, message: "x".into() };
        let sums =
            TierSums { name: "slm".into(), records: 5, outputs: 2, escalated: 2, ..Default::default() };
        TierResult {
            head: TierHead {
                shard: SHARD,
                tier: 1,
                escalated: vec![1, 4],
                failed: vec![failure],
                failed_at: vec![2],
                sums,
            },
            kept: vec![kept(0, fields.into()), kept(3, columns)],
        }
    }

    #[test]
    fn a_result_survives_its_object() {
        let bytes = result().to_bytes();
        assert_eq!(TierResult::from_bytes(1, SHARD, bytes).unwrap(), result());
        let nothing = TierResult {
            head: TierHead {
                escalated: vec![],
                failed: vec![],
                failed_at: vec![],
                sums: TierSums::default(),
                ..result().head
            },
            kept: vec![],
        };
        assert_eq!(TierResult::from_bytes(1, SHARD, nothing.to_bytes()).unwrap(), nothing);
    }

    #[test]
    fn a_changed_result_is_refused_by_its_key() {
        let mut wrong_sum = result();
        wrong_sum.head.sums.records = 6;
        let mut wrong_order = result();
        wrong_order.head.escalated.reverse();
        let mut cut = result().to_bytes();
        cut.truncate(cut.len() / 2);
        let other_tier = TierResult { head: TierHead { tier: 0, ..result().head }, ..result() };
        for bytes in [wrong_sum.to_bytes(), wrong_order.to_bytes(), other_tier.to_bytes(), cut, Vec::new()] {
            let error = TierResult::from_bytes(1, SHARD, bytes).unwrap_err().to_string();
            assert!(error.starts_with("_baton/tiers/1/000007.jsonl.zst is not a valid result"), "{error}");
        }
    }
}
