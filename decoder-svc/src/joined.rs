//! A record's outputs, from those of its segments.

use std::collections::BTreeSet;
use std::sync::Arc;

use baton_job::{Alternative, FinishReason};
use baton_quality::LogProbabilities;
use baton_segments::{Piece, Segment, Unit, join, rewrapped};
use baton_text::{Finished, Markup, Prepared, TermTally, TextRules};

/// An output of a segment, as the model wrote it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SegmentOutput {
    pub(crate) alternative: Alternative,
    /// Of its tokens.
    pub(crate) log_probabilities: LogProbabilities,
}

/// The outputs for one prompt, best first and never empty. Shared with what is remembered.
pub(crate) type SegmentOutputs = Arc<[SegmentOutput]>;

/// The outputs for one prompt, or the reason why there are none.
pub(crate) type Generated = Result<SegmentOutputs, &'static str>;

/// A segment of a record, and the outputs of its prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadSegment<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) written: &'a Generated,
}

/// The outputs of a record.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) best: Alternative,
    pub(crate) alternatives: Vec<Alternative>,
    /// Of the best.
    pub(crate) warnings: Vec<String>,
    /// Of the best.
    pub(crate) log_probabilities: LogProbabilities,
    /// Of the best.
    pub(crate) terms: TermTally,
}

/// The text of a record: its segments, with the text between them.
pub(crate) fn source_text(segments: &[ReadSegment<'_>]) -> String {
    join(segments.iter().map(|ReadSegment { segment, .. }| segment.piece()))
}

/// The outputs of a record. The best joins the best of all segments, the second the second ones; a segment
/// with fewer outputs gives its last. An output ends before the segment that would exceed `max_new_tokens`.
///
/// # Errors
/// A segment has no output, or the job does not accept the record's best one; the reason, in words.
pub(crate) fn joined(
    segments: &[ReadSegment<'_>],
    (rules, unit): (&TextRules, Unit),
    max_new_tokens: Option<u32>,
) -> Result<Joined, String> {
    let outputs = segments.iter().map(|read| read.written.as_ref().map_err(|&message| message.to_owned()));
    let outputs: Vec<&SegmentOutputs> = outputs.collect::<Result<_, _>>()?;
    let num_outputs = outputs.iter().map(|outputs| outputs.len()).max().unwrap_or_default();
    let prepared: Vec<Prepared<'_>> = segments.iter().map(|read| rules.prepare(&read.segment.text)).collect();
    let join_rank = |rank: usize| {
        let of_rank = || outputs.iter().map(|outputs| &outputs[rank.min(outputs.len() - 1)]);
        let alternatives = || of_rank().map(|output| &output.alternative);
        let num_kept = max_new_tokens.map_or(segments.len(), |limit| num_within(limit, alternatives()));
        let alternatives = || alternatives().take(num_kept);
        let written = prepared.iter().zip(alternatives());
        let finished: Vec<Finished> = written.map(|(text, written)| text.finish(&written.output)).collect();
        let written = segments.iter().map(|read| read.segment).zip(&finished);
        let output = match (unit, rules.markup()) {
            (Unit::Sentence, Markup::None) => {
                let pieces = written.map(|(segment, finished)| (segment.piece(), &finished.text[..]));
                rewrapped(&pieces.collect::<Vec<(Piece<'_>, &str)>>(), |text| rules.units_in(text))
            }
            _ => join(written.map(|(segment, finished)| segment.written(&finished.text))),
        };
        let output_tokens: u32 = alternatives().map(|segment| segment.output_tokens).sum();
        let score = match outputs[..] {
            [only] => only[rank].alternative.score, // exactly, without rounding
            _ => mean(alternatives().map(|segment| (segment.score, segment.output_tokens))),
        };
        let is_cut = alternatives().any(|segment| segment.finish_reason == FinishReason::Length);
        let is_cut = is_cut || num_kept < segments.len();
        let finish_reason = if is_cut { FinishReason::Length } else { FinishReason::Stop };
        let kept = || of_rank().take(num_kept);
        let log_probabilities = LogProbabilities {
            mean: mean(kept().map(|one| (one.log_probabilities.mean, one.alternative.output_tokens))),
            worst: kept().map(|one| one.log_probabilities.worst).fold(0.0, f64::min),
        };
        (Alternative { output, score, output_tokens, finish_reason }, finished, log_probabilities)
    };
    let (best, finished, log_probabilities) = join_rank(0);
    if let Some(problem) = finished.iter().find_map(|finished| finished.problem) {
        return Err(format!("the output has the warning {problem}, which this job does not accept"));
    }
    let warnings: BTreeSet<String> =
        finished.iter().flat_map(|finished| &finished.warnings).map(ToString::to_string).collect();
    let mut terms = TermTally::default();
    finished.iter().for_each(|finished| terms.add(&finished.terms));
    Ok(Joined {
        best,
        alternatives: (1..num_outputs).map(|rank| join_rank(rank).0).collect(),
        warnings: warnings.into_iter().collect(),
        log_probabilities,
        terms,
    })
}

/// The mean of numbers with these weights.
fn mean(numbers: impl Iterator<Item = (f64, u32)>) -> f64 {
    let (sum, weight) = numbers.fold((0.0, 0.0), |(sum, all), (number, weight)| {
        (sum + number * f64::from(weight), all + f64::from(weight))
    });
    sum / weight
}

/// Counts the first of these outputs that together have at most `limit` tokens; the first alone always
/// has.
fn num_within<'a>(limit: u32, outputs: impl Iterator<Item = &'a Alternative>) -> usize {
    let sums = outputs.scan(0_u32, |sum, output| {
        *sum = sum.saturating_add(output.output_tokens);
        Some(*sum)
    });
    sums.take_while(|&sum| sum <= limit).count().max(1)
}
