//! Rows for a reader who looks at the worst outputs of a job.

use baton_quality::Signals;
use serde::{Deserialize, Serialize};

use crate::RecordSource;

/// An output beside its source. Keys are written in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReviewRow {
    /// The record's id.
    pub id: String,
    /// The estimate of the output's quality.
    pub quality: f64,
    /// The record's text.
    pub source: String,
    /// The output.
    pub output: String,
    /// Its warnings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The reasons for the estimate.
    pub signals: Signals,
    /// Where the record came from.
    #[serde(flatten)]
    pub origin: RecordSource,
}

impl ReviewRow {
    /// The row: one line of JSON with its newline.
    #[must_use]
    pub fn to_json_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a row is plain data with string keys");
        line.push(b'\n');
        line
    }
}

/// The rows that a job gives to a reader: from 1 on, that many, the worst first, of equals the first; below
/// 1, all with a lower estimate, in their order.
#[must_use]
pub fn worst_rows(mut rows: Vec<ReviewRow>, review: f64) -> Vec<ReviewRow> {
    if review < 1.0 {
        rows.retain(|row| row.quality < review);
        return rows;
    }
    rows.sort_by(|a, b| a.quality.total_cmp(&b.quality)); // stable
    rows.truncate(review as usize);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, quality: f64) -> ReviewRow {
        let signals = Signals {
            mean_logprob: -0.5,
            worst_logprob: -2.0,
            length_ratio: 1.0,
            repetition: 0.0,
            copied: 0.0,
            language: 1.0,
            warnings: 0,
            cut: false,
            source_words: 2,
        };
        let origin = RecordSource { uri: "a.txt".into(), line: 1 };
        let (source, output) = ("a text".into(), "un testo".into());
        ReviewRow { id: id.into(), quality, source, output, warnings: Vec::new(), signals, origin }
    }

    fn ids(review: f64) -> Vec<String> {
        let rows = vec![row("a", 0.5), row("b", 0.1), row("c", 0.9), row("d", 0.1)];
        worst_rows(rows, review).into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn so_many_of_the_worst_come_first() {
        assert_eq!(ids(3.0), ["b", "d", "a"]);
        assert_eq!(ids(9.0), ["b", "d", "a", "c"]);
    }

    #[test]
    fn all_below_a_threshold_keep_their_order() {
        assert_eq!(ids(0.6), ["a", "b", "d"]);
        assert!(ids(0.05).is_empty());
    }

    #[test]
    fn a_row_has_source_and_output_side_by_side() {
        let line = String::from_utf8(row("a", 0.5).to_json_line()).unwrap();
        let beginning = r#"{"id":"a","quality":0.5,"source":"a text","output":"un testo","signals":{"#;
        assert!(line.starts_with(beginning) && line.ends_with("\"input\":\"a.txt\",\"line\":1}\n"), "{line}");
    }
}
