//! One row of a part.

use baton_generation::FinishReason;
use baton_quality::Signals;
use serde::{Deserialize, Serialize, Serializer};

use crate::{KeptFields, RecordSource};

/// The output generated for one record. Keys are written in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputRow {
    /// The record's id.
    pub id: String,
    /// The text that was generated; the best one, if several were.
    pub output: String,
    /// Its score, written with 4 decimals: the mean log-probability of its tokens (natural logarithm), or of
    /// a beam search their length-penalized sum.
    #[serde(serialize_with = "four_decimals")]
    pub score: f64,
    /// Tokens read by the model that writes.
    pub prompt_tokens: u32,
    /// Tokens that the LLM has read, if a small model with its own tokens writes; otherwise 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub llm_prompt_tokens: u32,
    /// Tokens written, an end token included.
    pub output_tokens: u32,
    /// Why generation ended.
    pub finish_reason: FinishReason,
    /// Names of things that a reader of the output should know, such as a lost placeholder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The estimate of its quality, from 0 to 1, where the job asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    /// The signals of its quality, where the job asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<Box<Signals>>,
    /// The tier of a cascade that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The other outputs of an n-best job, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
    /// Where the record came from, where the job asks for that.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub origin: Option<RecordSource>,
    /// The record's own fields except its id, if they are kept, under a key of their own, so that none can
    /// hide another.
    #[serde(default, skip_serializing_if = "KeptFields::is_empty")]
    pub fields: KeptFields,
}

/// Another output generated for the same record. The fields are those of [`OutputRow`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Alternative {
    pub output: String,
    #[serde(serialize_with = "four_decimals")]
    pub score: f64,
    pub output_tokens: u32,
    pub finish_reason: FinishReason,
}

impl OutputRow {
    /// Tokens written for the record, including those of its alternatives.
    pub fn total_output_tokens(&self) -> u64 {
        let alternatives = self.alternatives.iter().map(|alternative| u64::from(alternative.output_tokens));
        u64::from(self.output_tokens) + alternatives.sum::<u64>()
    }

    /// The row: one line of JSON with its newline.
    pub fn to_json_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a row is plain data with string keys");
        line.push(b'\n');
        line
    }
}

impl OutputRow {
    /// The score in written form.
    pub(crate) fn score_text(&self) -> String {
        serde_json::to_string(&rounded(self.score)).expect("a number serializes")
    }
}

/// Four decimals; adding 0.0 turns -0.0 into 0.0.
pub(crate) fn rounded(score: f64) -> f64 {
    (score * 1e4).round() / 1e4 + 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn four_decimals<S: Serializer>(score: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*score))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    fn row() -> OutputRow {
        OutputRow {
            id: "7".into(),
            output: "Ciao \"mondo\"\n".into(),
            score: -0.123_456,
            prompt_tokens: 12,
            llm_prompt_tokens: 0,
            output_tokens: 5,
            finish_reason: FinishReason::Stop,
            warnings: Vec::new(),
            quality: None,
            signals: None,
            tier: None,
            alternatives: Vec::new(),
            origin: None,
            fields: KeptFields::default(),
        }
    }

    fn line(row: &OutputRow) -> String {
        String::from_utf8(row.to_json_line()).unwrap()
    }

    #[test]
    fn a_row_has_its_keys_in_a_fixed_order() {
        let expected = r#"{"id":"7","output":"Ciao \"mondo\"\n","score":-0.1235,"prompt_tokens":12,"output_tokens":5,"finish_reason":"stop"}"#;
        assert_eq!(line(&row()), format!("{expected}\n"));
        let of_both = line(&OutputRow { llm_prompt_tokens: 9, ..row() });
        assert!(of_both.contains(r#""prompt_tokens":12,"llm_prompt_tokens":9,"output_tokens""#), "{of_both}");
    }

    #[test]
    fn alternatives_follow_the_best_output_and_their_tokens_count() {
        let alternative = Alternative {
            output: "Salve".into(),
            score: -0.7,
            output_tokens: 4,
            finish_reason: FinishReason::Length,
        };
        let row = OutputRow { alternatives: vec![alternative], ..row() };
        let expected = r#""finish_reason":"stop","alternatives":[{"output":"Salve","score":-0.7,"output_tokens":4,"finish_reason":"length"}]}"#;
        assert!(line(&row).ends_with(&format!("{expected}\n")), "{}", line(&row));
        assert_eq!(row.total_output_tokens(), 9);
    }

    #[test]
    fn kept_fields_follow_in_the_order_of_the_input() {
        let fields = Map::from_iter([("z".to_owned(), Value::from(1)), ("output".to_owned(), Value::Null)]);
        let row = OutputRow { finish_reason: FinishReason::Length, fields: fields.into(), ..row() };
        assert!(line(&row).ends_with("\"finish_reason\":\"length\",\"fields\":{\"z\":1,\"output\":null}}\n"));
    }

    #[test]
    fn quality_follows_the_warnings() {
        let row = OutputRow { warnings: vec!["number_placed".into()], quality: Some(0.25), ..row() };
        assert!(line(&row).ends_with("\"warnings\":[\"number_placed\"],\"quality\":0.25}\n"));
    }

    #[test]
    fn the_tier_of_a_cascade_follows_the_quality() {
        let row = OutputRow { quality: Some(0.25), tier: Some("hybrid:beams=4".into()), ..row() };
        assert!(line(&row).ends_with("\"quality\":0.25,\"tier\":\"hybrid:beams=4\"}\n"));
    }

    #[test]
    fn a_score_that_rounds_to_zero_has_no_sign() {
        assert!(line(&OutputRow { score: -0.000_01, ..row() }).contains("\"score\":0.0,"));
    }
}
