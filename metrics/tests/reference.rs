//! The metrics against values made by sacrebleu, rouge-score and NLTK (`scripts/metric_fixtures.py`).

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::collections::BTreeMap;

use baton_metrics::{Bleu, ChrF, Metric, Rouge, RougeKind, porter_stem, sum_statistics};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Fixture {
    corpora: Vec<Corpus>,
    stems: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Corpus {
    name: String,
    outputs: Vec<String>,
    references: Vec<String>,
    scores: Scores,
}

#[derive(Deserialize)]
struct Scores {
    bleu: f64,
    chrf: f64,
    rouge: [f64; 3],
    rouge_stemmed: [f64; 3],
}

fn fixture() -> Fixture {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/metrics/scores.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn score(metric: &dyn Metric, corpus: &Corpus) -> f64 {
    let records: Vec<Vec<f64>> = corpus
        .outputs
        .iter()
        .zip(&corpus.references)
        .map(|(output, reference)| metric.statistics(output, reference))
        .collect();
    metric.score(&sum_statistics(&records))
}

fn assert_agree(metric: &dyn Metric, expected: impl Fn(&Scores) -> f64) {
    let corpora = fixture().corpora;
    assert!(corpora.len() > 30);
    for corpus in &corpora {
        let (found, expected) = (score(metric, corpus), expected(&corpus.scores));
        let name = format!("{} of {:?}", metric.signature(), corpus.name);
        assert!((found - expected).abs() < TOLERANCE, "{name} is {found}, should be {expected}");
    }
}

#[test]
fn bleu_is_that_of_sacrebleu() {
    assert_agree(&Bleu, |scores| scores.bleu);
}

#[test]
fn chrf_is_that_of_sacrebleu() {
    assert_agree(&ChrF, |scores| scores.chrf);
}

#[test]
fn rouge_is_that_of_rouge_score_with_and_without_stemming() {
    for (index, kind) in [RougeKind::One, RougeKind::Two, RougeKind::Longest].into_iter().enumerate() {
        assert_agree(&Rouge { kind, stem: false }, |scores| scores.rouge[index]);
        assert_agree(&Rouge { kind, stem: true }, |scores| scores.rouge_stemmed[index]);
    }
}

#[test]
fn words_are_stemmed_as_nltk_stems_them() {
    let stems = fixture().stems;
    assert!(stems.len() > 1000);
    for (word, stem) in stems {
        assert_eq!(porter_stem(&word), stem, "{word}");
    }
}
