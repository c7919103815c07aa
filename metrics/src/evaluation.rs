//! The evaluation of one system's outputs on a test set, and the comparison of two systems.

use serde::Serialize;

use crate::{
    Bootstrap, CopiedNames, Interval, Metric, copied_names, is_looping, is_untranslated, sum_statistics,
    text::python_words,
};

/// One record of a test set with a system's output.
#[derive(Debug, Clone, Copy)]
pub struct EvaluatedRecord<'a> {
    /// The text that the system read.
    pub source: &'a str,
    /// The expected output.
    pub reference: &'a str,
    /// The system's output; none if the record failed. That scores as an empty output, so that no system
    /// gains by failing.
    pub output: Option<&'a str>,
}

/// The settings of an evaluation.
#[derive(Debug)]
pub struct Evaluation {
    /// The scores to compute; the first is the one to plot.
    pub metrics: Vec<Box<dyn Metric>>,
    /// The settings of confidence intervals.
    pub bootstrap: Bootstrap,
}

/// Records whose sources have this many words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Fewest words.
    pub min_words: usize,
    /// Most words; none for no limit.
    pub max_words: Option<usize>,
}

/// By length of the source: a line, a sentence, two or three, a paragraph.
const BUCKETS: [Bucket; 4] = [
    Bucket { min_words: 0, max_words: Some(8) },
    Bucket { min_words: 9, max_words: Some(16) },
    Bucket { min_words: 17, max_words: Some(32) },
    Bucket { min_words: 33, max_words: None },
];

/// One score of one system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricScore {
    /// Name of the metric.
    pub metric: &'static str,
    /// From 0 to 100.
    pub score: f64,
    /// The interval with 95 % of the resampled scores.
    pub interval: Interval,
    /// The scores of the resamples, in the order of the draws.
    #[serde(skip)]
    resampled: Vec<f64>,
}

/// Scores of the records of one bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BucketScores {
    /// The bucket.
    #[serde(flatten)]
    pub bucket: Bucket,
    /// The number of its records.
    pub records: usize,
    /// One score for each metric, in their order.
    pub scores: Vec<f64>,
}

/// Counts of bad outputs that a score hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Failures {
    /// Records without an output.
    pub failed: usize,
    /// Outputs without a word.
    pub empty: usize,
    /// Outputs that repeat themselves.
    pub looping: usize,
    /// Outputs that equal their source but should not.
    pub untranslated: usize,
}

/// The evaluation of one system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SystemScores {
    /// Records of the test set.
    pub records: usize,
    /// One for each metric, in their order.
    pub scores: Vec<MetricScore>,
    /// The same by length of the source; buckets without records are left out.
    pub by_source_words: Vec<BucketScores>,
    /// Bad outputs.
    pub failures: Failures,
    /// Names that should be copied.
    pub names: CopiedNames,
}

/// The lead of one system's score over another's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Name of the metric.
    pub metric: &'static str,
    /// The one's score minus the other's.
    pub difference: f64,
    /// The interval with 95 % of the resamples' differences; both systems' records are drawn alike.
    pub interval: Interval,
}

impl Evaluation {
    /// Evaluates one system's outputs.
    #[must_use]
    pub fn evaluate(&self, records: &[EvaluatedRecord<'_>]) -> SystemScores {
        let statistics: Vec<Vec<Vec<f64>>> = self
            .metrics
            .iter()
            .map(|metric| {
                let of_record =
                    |r: &EvaluatedRecord<'_>| metric.statistics(r.output.unwrap_or(""), r.reference);
                records.iter().map(of_record).collect()
            })
            .collect();
        let scores = self.metrics.iter().zip(&statistics).map(|(metric, statistics)| {
            let resampled = self.bootstrap.scores(metric.as_ref(), statistics);
            MetricScore {
                metric: metric.name(),
                score: metric.score(&sum_statistics(statistics)),
                interval: Interval::of(resampled.clone()),
                resampled,
            }
        });
        let lengths: Vec<usize> = records.iter().map(|record| python_words(record.source).count()).collect();
        let in_bucket = |bucket: Bucket| {
            let members: Vec<usize> = (0..records.len()).filter(|&i| bucket.contains(lengths[i])).collect();
            let score = |index: usize| {
                self.metrics[index].score(&sum_statistics(members.iter().map(|&i| &statistics[index][i])))
            };
            BucketScores {
                bucket,
                records: members.len(),
                scores: (0..self.metrics.len()).map(score).collect(),
            }
        };
        let mut names = CopiedNames::default();
        for record in records {
            names += copied_names(record.source, record.output.unwrap_or(""), record.reference);
        }
        SystemScores {
            records: records.len(),
            scores: scores.collect(),
            by_source_words: BUCKETS.into_iter().map(in_bucket).filter(|b| b.records > 0).collect(),
            failures: Failures::of(records),
            names,
        }
    }
}

impl SystemScores {
    /// This system's lead over `other` on the same records.
    #[must_use]
    pub fn differences_to(&self, other: &Self) -> Vec<Difference> {
        let difference = |(a, b): (&MetricScore, &MetricScore)| Difference {
            metric: a.metric,
            difference: a.score - b.score,
            interval: Interval::of(a.resampled.iter().zip(&b.resampled).map(|(a, b)| a - b).collect()),
        };
        self.scores.iter().zip(&other.scores).map(difference).collect()
    }
}

impl Bucket {
    fn contains(self, words: usize) -> bool {
        words >= self.min_words && self.max_words.is_none_or(|max| words <= max)
    }
}

impl Failures {
    fn of(records: &[EvaluatedRecord<'_>]) -> Self {
        let count = |holds: fn(&EvaluatedRecord<'_>, &str) -> bool| {
            records.iter().filter(|record| record.output.is_some_and(|output| holds(record, output))).count()
        };
        Self {
            failed: records.iter().filter(|record| record.output.is_none()).count(),
            empty: count(|_, output| output.trim().is_empty()),
            looping: count(|_, output| is_looping(output)),
            untranslated: count(|record, output| is_untranslated(output, record.source, record.reference)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bleu, ChrF};

    const TEXTS: [(&str, &str); 4] = [
        ("a small tool for GNU systems", "un piccolo strumento per sistemi GNU"),
        ("web browser", "navigatore web per il terminale"),
        (
            "this package has the documentation of the xfce4-panel and of all that it needs to run",
            "questo pacchetto contiene la documentazione di xfce4-panel e di ciò che serve",
        ),
        ("the rest", "il resto di tutto quanto"),
    ];

    fn evaluation() -> Evaluation {
        Evaluation {
            metrics: vec![Box::new(Bleu), Box::new(ChrF)],
            bootstrap: Bootstrap { resamples: 200, seed: 3 },
        }
    }

    fn evaluate(outputs: [Option<&'static str>; 4]) -> SystemScores {
        let record = |((source, reference), output)| EvaluatedRecord { source, reference, output };
        let records: Vec<_> = TEXTS.into_iter().zip(outputs).map(record).collect();
        evaluation().evaluate(&records)
    }

    fn perfect() -> [Option<&'static str>; 4] {
        TEXTS.map(|(_, reference)| Some(reference))
    }

    #[test]
    fn a_failed_record_is_scored_as_an_empty_output_and_counted_apart() {
        let [first, second, third, _] = perfect();
        let (failed, empty) =
            (evaluate([first, second, third, None]), evaluate([first, second, third, Some(" ")]));
        assert_eq!(failed.scores, empty.scores);
        assert!(failed.scores[0].score < 100.0);
        assert_eq!(failed.failures, Failures { failed: 1, ..Failures::default() });
        assert_eq!(empty.failures, Failures { empty: 1, ..Failures::default() });
    }

    #[test]
    fn every_record_is_in_one_bucket_by_the_words_of_its_source() {
        let buckets = evaluate(perfect()).by_source_words;
        let found: Vec<(usize, usize)> = buckets.iter().map(|b| (b.bucket.min_words, b.records)).collect();
        assert_eq!(found, [(0, 3), (9, 1)]);
        assert!(buckets.iter().flat_map(|b| &b.scores).all(|score| (score - 100.0).abs() < 1e-9));
    }

    #[test]
    fn a_system_differs_from_itself_by_nothing_and_from_a_worse_one_by_a_positive_interval() {
        let [first, ..] = perfect();
        let (good, bad) = (evaluate(perfect()), evaluate([first, Some("x"), Some("y"), Some("z")]));
        for difference in good.differences_to(&good) {
            assert_eq!(
                (difference.difference, difference.interval.low, difference.interval.high),
                (0.0, 0.0, 0.0)
            );
        }
        let difference = &good.differences_to(&bad)[1];
        assert!(difference.difference > 0.0 && difference.interval.low >= 0.0, "{difference:?}");
    }

    #[test]
    fn names_are_counted_over_all_records() {
        let [_, second, _, fourth] = perfect();
        let names = evaluate([Some("un GNU"), second, Some("xfce-panel"), fourth]).names;
        assert_eq!(names, CopiedNames { expected: 2, copied: 1 });
    }
}
