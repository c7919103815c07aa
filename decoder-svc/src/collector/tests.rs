//! Segments, rows and records in every order of arrival.

use baton_bundle::Task;
use baton_generation::{GenerationOptions, QualityColumns};
use baton_job::{Alternative, KeptFields, Mode};
use baton_quality::LogProbabilities;

use super::*;
use crate::joined::SegmentOutput;
use crate::judge::QualityModels;

fn source(line: u64) -> RecordSource {
    RecordSource { uri: "a.txt".into(), line }
}

fn record(index: u32, num_segments: u32) -> RecordHead {
    let (id, copied) = (format!("r{index}"), "--".to_owned());
    let (source, fields) = (source(index.into()), KeptFields::default());
    let (llm_prompt_tokens, max_new_tokens) = (11, None);
    let languages = LanguageChoice::default();
    RecordHead {
        index,
        id,
        source,
        fields,
        num_segments,
        copied,
        llm_prompt_tokens,
        max_new_tokens,
        languages,
        terms: Vec::new(),
    }
}

fn segment(record: u32, number: u32, before: &str, after: &str) -> Segment {
    Segment {
        record,
        number,
        text: "read".into(),
        before: before.into(),
        after: after.into(),
        is_in_tag: false,
    }
}

/// The only one of a record.
fn whole(record: u32) -> Segment {
    segment(record, 0, "", "")
}

/// Of records that have these numbers of segments.
fn collector(num_segments: &[u32]) -> ShardCollector {
    let sum = num_segments.iter().map(|&num| u64::from(num)).sum();
    let mut collector = ShardCollector::new(num_segments.len() as u32, sum);
    for (index, &num_segments) in (0..).zip(num_segments) {
        collector.begin_record(record(index, num_segments)).unwrap();
    }
    collector
}

fn written(alternative: Alternative) -> SegmentOutput {
    let log_probabilities = LogProbabilities { mean: alternative.score, worst: 4.0 * alternative.score };
    SegmentOutput { alternative, log_probabilities }
}

fn generated(text: &str) -> Generated {
    let output = text.into();
    let finish_reason = FinishReason::Stop;
    Ok([written(Alternative { output, score: -0.5, output_tokens: 2, finish_reason })].into())
}

fn failure(line: u64) -> RecordFailure {
    let message = "no field `text`".into();
    RecordFailure { source: source(line), id: None, code: FailureCode::MissingField, message }
}

fn texts(collector: ShardCollector) -> Vec<String> {
    let text = |outcome: &Outcome| match outcome {
        Outcome::Output { row, .. } => row.output.clone(),
        Outcome::Failed(failure) => failure.code.to_string(),
    };
    collector.into_outcomes().iter().map(text).collect()
}

#[test]
fn the_rules_repair_written_text() {
    let task = Task::Translation { source: "en".into(), target: "it".into() };
    let rules = RulesByLanguage::new(&task, &GenerationOptions::default()).unwrap();
    let mut collector = ShardCollector::new(1, 1).obeying(Arc::new(rules));
    collector.begin_record(record(0, 1)).unwrap();
    let segment = Segment { text: "- Open %s now".into(), ..whole(0) };
    let row = collector.begin(segment, 3).unwrap();
    collector.finish(row, generated("Apri ora"));
    let outcomes = collector.into_outcomes();
    let [Outcome::Output { row, .. }] = &outcomes[..] else { panic!("no output") };
    assert_eq!(row.output, "- Apri %s ora");
    assert_eq!(row.warnings, ["placeholder_placed"]);
}

#[test]
fn outcomes_come_back_in_record_order() {
    let mut collector = ShardCollector::new(3, 2);
    collector.fail(1, failure(1)).unwrap();
    collector.begin_record(record(2, 1)).unwrap();
    collector.begin_record(record(0, 1)).unwrap();
    let two = collector.begin(whole(2), 3).unwrap();
    let zero = collector.begin(whole(0), 3).unwrap();
    collector.check_all_received().unwrap();
    collector.finish(two, generated("due"));
    assert!(!collector.is_complete());
    collector.finish(zero, generated("zero"));
    assert!(collector.is_complete());
    assert_eq!(texts(collector), ["zero", "missing_field", "due"]);
}

#[test]
fn a_record_without_segments_consists_of_copied_text() {
    let mut collector = collector(&[0, 1]);
    assert_eq!(collector.num_done(), 1);
    let row = collector.begin(whole(1), 3).unwrap();
    collector.finish(row, generated("uno"));
    let outcomes = collector.into_outcomes();
    let [Outcome::Output { row, source: from, .. }, _] = &outcomes[..] else { panic!("no output") };
    assert_eq!((row.output.as_str(), row.id.as_str(), from), ("--", "r0", &source(0)));
    assert_eq!((row.prompt_tokens, row.output_tokens, row.score), (0, 0, 0.0));
    assert_eq!(row.finish_reason, FinishReason::Stop);
}

#[test]
fn segments_that_share_a_row_get_its_outputs_whenever_they_come() {
    let mut collector = collector(&[1, 1, 1, 1]);
    let uno = collector.begin(whole(1), 3).unwrap();
    collector.join(whole(3), uno).unwrap();
    let other = collector.begin(whole(2), 4).unwrap();
    collector.finish(uno, generated("uno"));
    assert_eq!(collector.num_done(), 2);
    collector.join(whole(0), uno).unwrap();
    assert!(!collector.is_complete());
    assert_eq!(collector.entry_of(other), 2);
    collector.finish(other, Err("it broke"));
    assert_eq!((collector.num_done(), collector.is_complete()), (4, true));
    let of = |outcome: &Outcome| match outcome {
        Outcome::Output { source, row, .. } => (row.id.clone(), source.line, row.prompt_tokens),
        Outcome::Failed(failure) => (failure.id.clone().unwrap(), failure.source.line, 0),
    };
    let outcomes: Vec<_> = collector.into_outcomes().iter().map(of).collect();
    let expected = [("r0", 0, 3), ("r1", 1, 3), ("r2", 2, 0), ("r3", 3, 3)];
    assert_eq!(outcomes, expected.map(|(id, line, tokens)| (id.to_owned(), line, tokens)));
}

#[test]
fn segments_in_any_order_are_joined_by_the_text_between_them() {
    let mut collector = ShardCollector::new(1, 3);
    let fields = serde_json::Map::from_iter([("lang".to_owned(), "en".into())]);
    let head = RecordHead { fields: fields.into(), ..record(0, 3) };
    collector.begin_record(head).unwrap();
    let due = collector.begin(segment(0, 1, "\n", ""), 3).unwrap();
    assert!(collector.check_all_received().is_err(), "two are missing");
    collector.finish(due, generated("due."));
    assert_eq!(collector.num_done(), 0);
    let uno = collector.begin(segment(0, 0, "1. ", ""), 3).unwrap();
    collector.join(segment(0, 2, " ", " --"), due).unwrap(); // the second once more
    collector.check_all_received().unwrap();
    let cut = |output: &str, score| {
        let finish_reason = FinishReason::Length;
        written(Alternative { output: output.into(), score, output_tokens: 4, finish_reason })
    };
    collector.finish(uno, Ok([cut("uno.", -0.1), cut("Uno!", -0.2)].into()));
    assert_eq!(collector.num_done(), 1);

    let [Outcome::Output { row, .. }] = &collector.into_outcomes()[..] else { panic!("no output") };
    assert_eq!(
        (row.output.as_str(), row.output_tokens, row.prompt_tokens, row.llm_prompt_tokens),
        ("1. uno.\ndue. due. --", 8, 9, 11)
    );
    assert_eq!((row.score, row.finish_reason), (-0.3, FinishReason::Length), "by tokens; one of them is cut");
    assert_eq!(row.alternatives[0].output, "1. Uno!\ndue. due. --", "the last where there are fewer");
    assert_eq!(serde_json::to_string(&row.fields).unwrap(), r#"{"lang":"en"}"#);
}

#[test]
fn an_output_ends_before_the_segment_that_would_exceed_the_limit_of_its_record() {
    let joined = |limit: u32| {
        let mut collector = ShardCollector::new(1, 3);
        let head = RecordHead { max_new_tokens: Some(limit), ..record(0, 3) };
        collector.begin_record(head).unwrap();
        assert_eq!(collector.own_settings(0).0, Some(limit));
        for (number, text) in ["uno.", "due.", "tre."].into_iter().enumerate() {
            let (before, after) = if number == 0 { ("", "") } else { (" ", "\n") };
            let row = collector.begin(segment(0, number as u32, before, after), 3).unwrap();
            collector.finish(row, generated(text)); // two tokens
        }
        match collector.into_outcomes().remove(0) {
            Outcome::Output { row, .. } => (row.output, row.output_tokens, row.finish_reason),
            Outcome::Failed(failure) => panic!("{failure:?}"),
        }
    };
    assert_eq!(joined(6), ("uno. due.\n tre.\n".to_owned(), 6, FinishReason::Stop));
    assert_eq!(joined(5), ("uno. due.\n".to_owned(), 4, FinishReason::Length));
    assert_eq!(joined(1).0, "uno.", "the first is limited by itself");
}

#[test]
fn a_record_fails_with_any_of_its_segments() {
    let mut collector = collector(&[3]);
    let rows: Vec<u32> = (0..3).map(|n| collector.begin(segment(0, n, "", ""), 3).unwrap()).collect();
    for &row in &rows {
        assert_eq!(collector.num_done(), 0);
        collector.finish(row, if row == rows[1] { Err("it broke") } else { generated("bene") });
    }
    assert_eq!(texts(collector), ["processing_failed"]);
}

#[test]
fn repeated_missing_and_invalid_segments_are_refused() {
    let mut collector = ShardCollector::new(3, 4);
    assert!(collector.begin(whole(0), 3).is_err(), "before its record");
    collector.begin_record(record(0, 1)).unwrap();
    assert!(collector.begin_record(record(0, 1)).is_err());
    assert!(collector.begin_record(record(3, 1)).is_err());
    let row = collector.begin(whole(0), 3).unwrap();
    assert!(collector.begin(whole(0), 3).is_err());
    assert!(collector.join(whole(0), row).is_err());
    assert!(collector.fail(0, failure(0)).is_err());
    collector.begin_record(record(1, 3)).unwrap();
    assert!(collector.join(segment(1, 0, "", ""), 7).is_err(), "no row 7");
    collector.begin(segment(1, 2, "", ""), 3).unwrap();
    assert!(collector.begin(segment(1, 2, "", ""), 3).is_err());
    assert!(collector.begin(segment(1, 3, "", ""), 3).is_err());
    assert!(collector.check_all_received().is_err());
    assert!(collector.begin_record(record(2, 1)).is_err(), "more segments than were announced");
}

#[test]
fn a_job_that_asks_for_signals_gets_them_in_its_rows_and_no_other() {
    let signals_of = |options: &GenerationOptions| {
        let judge = Judge::of(options, Mode::Slm, &QualityModels::default());
        let mut collector = collector(&[1]).judged_by(judge);
        let row = collector.begin(whole(0), 3).unwrap();
        collector.finish(row, generated("read it"));
        let [Outcome::Output { row, .. }] = &collector.into_outcomes()[..] else { panic!("no output") };
        (row.signals.clone(), row.quality)
    };
    assert_eq!(signals_of(&GenerationOptions::default()), (None, None));
    let quality = QualityColumns::Signals;
    let (signals, quality) = signals_of(&GenerationOptions { quality, ..GenerationOptions::default() });
    let signals = signals.unwrap();
    assert_eq!((signals.mean_logprob, signals.worst_logprob), (-0.5, -2.0));
    assert_eq!((signals.copied, signals.source_words, quality), (1.0, 1, None), "there is no model");
}
