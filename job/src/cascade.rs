//! Cascades: the tiers of a job, and the rule by which a record goes on to the next one.
//!
//! A job names its tiers, the cheapest first, and says which outputs are not good enough. Before the start,
//! each becomes a [`Tier`]: a mode with all its generation options and a [`Threshold`]. A record's tier then
//! follows from its own outputs alone, whatever its shard, batch or worker.

use std::fmt;
use std::str::FromStr;

use baton_generation::{Allowed, GenerationLayer, GenerationOptions, Given, OPTIONS, OptionInfo};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{JobError, Mode};

/// Tiers of a cascade at most.
pub const MAX_TIERS: usize = 8;

/// Options that all tiers of a job share, because they decide which columns its parts have.
const OPTIONS_OF_THE_JOB: [&str; 3] = ["n_best", "quality", "review"];

/// A tier as a job names it: `slm`, or `hybrid:beams=4`.
#[derive(Debug, Clone, PartialEq)]
pub struct TierName {
    name: String,
    /// The mode.
    pub mode: Mode,
    /// The generation options that differ from the job's.
    pub options: GenerationLayer,
}

/// The tiers that a job names, the cheapest first: `slm,hybrid,hybrid:beams=4`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cascade(Vec<TierName>);

/// The fault of an output whose record goes on to the next tier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Escalation {
    /// It belongs to the worst outputs of the tier, this many percent by the bundle's calibration: `20%`.
    Worst(f64),
    /// It lies below a threshold.
    Below(Threshold),
}

/// The escalation behind each tier but the last, or one for all of them: `20%,5%`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Escalations(Vec<Escalation>);

/// A limit for outputs. Written `0.7` or `-0.9`: estimates are never below 0, and log-probabilities never
/// above.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// Of the estimate of their quality, 0 to 1. No output is below 0; every one is below 1.
    Estimate(f64),
    /// Of the mean log-probability of their tokens; below 0.
    MeanLogprob(f64),
}

/// A decoder's knowledge of an output that a model has written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The estimate of its quality, if the bundle has one for the mode.
    pub estimate: Option<f64>,
    /// The mean log-probability of its tokens.
    pub mean_logprob: f64,
}

/// A tier of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Its name in rows and reports.
    pub name: String,
    /// Its mode.
    pub mode: Mode,
    /// Its generation options.
    pub generation: GenerationOptions,
    /// Outputs below this go on to the next tier. `None`: there is no next tier.
    pub threshold: Option<Threshold>,
}

impl Cascade {
    /// The tiers, the cheapest first.
    #[must_use]
    pub fn tiers(&self) -> &[TierName] {
        &self.0
    }
}

impl Escalations {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The escalation behind each of `num_tiers` tiers but the last; `None` if there are more or fewer.
    #[must_use]
    pub fn behind(&self, num_tiers: usize) -> Option<Vec<Escalation>> {
        let num_steps = num_tiers.saturating_sub(1);
        match self.0[..] {
            [for_all] => Some(vec![for_all; num_steps]),
            _ => (self.0.len() == num_steps).then(|| self.0.clone()),
        }
    }
}

impl Threshold {
    /// Whether a record goes on to the next tier. A text that no model has written, because there was nothing
    /// to write, stays.
    #[must_use]
    pub fn escalates(self, output: Option<Judgement>) -> bool {
        output.is_some_and(|Judgement { estimate, mean_logprob }| match self {
            Threshold::Estimate(limit) => limit >= 1.0 || estimate.is_some_and(|estimate| estimate < limit),
            Threshold::MeanLogprob(limit) => mean_logprob < limit,
        })
    }

    /// Whether it can only be applied to outputs that have an estimate.
    #[must_use]
    pub fn needs_estimate(self) -> bool {
        matches!(self, Threshold::Estimate(limit) if limit > 0.0 && limit < 1.0)
    }
}

impl TierName {
    /// Its name in rows and reports.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl FromStr for TierName {
    type Err = JobError;

    fn from_str(text: &str) -> Result<TierName, JobError> {
        let mut pieces = text.split(':');
        let mode: Mode = pieces.next().unwrap_or_default().parse()?;
        let mut tier = TierName { name: mode.to_string(), mode, options: GenerationLayer::default() };
        for piece in pieces {
            let (name, value) = piece.split_once('=').ok_or_else(|| unfit(text, "options as NAME=VALUE"))?;
            let name = name.replace('-', "_");
            let option = OPTIONS.iter().find(|option| option.name == name);
            let option = option.ok_or_else(|| unfit(text, "generation options, such as beams=4"))?;
            tier.options.set(option, &given(option, value, text)?)?;
            tier.name.push_str(&format!(":{name}={value}"));
        }
        Ok(tier)
    }
}

/// The value of a tier's own option.
fn given(option: &OptionInfo, value: &str, tier: &str) -> Result<Given, JobError> {
    match option.allowed {
        _ if OPTIONS_OF_THE_JOB.contains(&option.name) => {
            Err(unfit(tier, "options other than n_best, quality and review, which all tiers share"))
        }
        Allowed::Texts => Err(unfit(tier, "options with one value; all tiers share lists")),
        Allowed::Text => Ok(Given::Text(value.to_owned())),
        _ => Ok(Given::of_flag(value)),
    }
}

fn unfit(tier: &str, allowed: &str) -> JobError {
    JobError::SpecValue { field: "cascade", value: format!("{tier:?}"), allowed: allowed.to_owned() }
}

impl FromStr for Cascade {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Cascade, JobError> {
        let tiers: Vec<TierName> =
            text.split(',').map(|tier| tier.trim().parse()).collect::<Result<_, _>>()?;
        if !(2..=MAX_TIERS).contains(&tiers.len()) {
            return Err(unfit(text, &format!("2 to {MAX_TIERS} tiers, separated by commas")));
        }
        let is_repeated = tiers.windows(2).any(|pair| pair[0].name == pair[1].name);
        if is_repeated {
            Err(unfit(text, "tiers that differ from those before them"))
        } else {
            Ok(Cascade(tiers))
        }
    }
}

impl FromStr for Threshold {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Threshold, JobError> {
        match text.parse::<f64>() {
            Ok(limit) if limit < 0.0 && limit.is_finite() => Ok(Threshold::MeanLogprob(limit)),
            Ok(limit) if (0.0..=1.0).contains(&limit) => Ok(Threshold::Estimate(limit.abs())),
            _ => Err(JobError::SpecValue {
                field: "escalate",
                value: format!("{text:?}"),
                allowed: "a share such as 20%, an estimate of quality from 0 to 1, or a mean \
                          log-probability below 0"
                    .to_owned(),
            }),
        }
    }
}

impl FromStr for Escalation {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Escalation, JobError> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match percent.filter(|percent| (0.0..=100.0).contains(percent)) {
            Some(percent) => Ok(Escalation::Worst(percent.abs())),
            None => text.parse().map(Escalation::Below),
        }
    }
}

impl FromStr for Escalations {
    type Err = JobError;

    fn from_str(text: &str) -> Result<Escalations, JobError> {
        text.split(',').map(|step| step.trim().parse()).collect::<Result<_, _>>().map(Escalations)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Threshold::Estimate(limit) | Threshold::MeanLogprob(limit)) = self;
        write!(f, "{limit}")
    }
}

impl fmt::Display for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Escalation::Worst(percent) => write!(f, "{percent}%"),
            Escalation::Below(threshold) => threshold.fmt(f),
        }
    }
}

impl fmt::Display for Escalations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.0)
    }
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Cascade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.0)
    }
}

fn joined(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    items.iter().enumerate().try_for_each(|(place, item)| match place {
        0 => write!(f, "{item}"),
        _ => write!(f, ",{item}"),
    })
}

impl Serialize for Cascade {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cascade {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cascade, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Escalations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Escalations {
    /// From a text, or from a number, which job files may also have.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Escalations, D::Error> {
        struct Said;
        impl de::Visitor<'_> for Said {
            type Value = Escalations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as '20%', or a threshold")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Escalations, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Escalations, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Escalations, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Said)
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Threshold, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_modes_with_options_of_their_own() {
        let cascade: Cascade = "slm, hybrid,hybrid:beams=4:length-penalty=0.8".parse().unwrap();
        let modes: Vec<Mode> = cascade.tiers().iter().map(|tier| tier.mode).collect();
        assert_eq!(modes, [Mode::Slm, Mode::Hybrid, Mode::Hybrid]);
        assert_eq!(cascade.tiers()[2].options.to_string(), "beams = 4, length_penalty = 0.8");
        assert_eq!(cascade.to_string(), "slm,hybrid,hybrid:beams=4:length_penalty=0.8");
        assert_eq!(cascade.to_string().parse::<Cascade>().unwrap(), cascade);
    }

    #[test]
    fn a_cascade_that_is_none_is_refused_in_words() {
        for (text, piece) in [
            ("slm", "2 to 8 tiers"),
            ("slm,slm", "tiers that differ"),
            ("slm,fast", "allowed: hybrid, slm, llm, verified"),
            ("slm,hybrid:beams", "NAME=VALUE"),
            ("slm,hybrid:speed=4", "such as beams=4"),
            ("slm,hybrid:beams=99", "allowed: 1 to 64"),
            ("slm,hybrid:quality=estimate", "which all tiers share"),
            ("slm,hybrid:stop_strings=x", "all tiers share lists"),
        ] {
            let error = text.parse::<Cascade>().unwrap_err().to_string();
            assert!(error.contains(piece), "{text}: {error}");
        }
    }

    #[test]
    fn an_escalation_is_a_share_an_estimate_or_a_log_probability() {
        let parsed = |text: &str| text.parse::<Escalation>().unwrap();
        assert_eq!(parsed("20%"), Escalation::Worst(20.0));
        assert_eq!(parsed("0.7"), Escalation::Below(Threshold::Estimate(0.7)));
        assert_eq!(parsed("-0.9"), Escalation::Below(Threshold::MeanLogprob(-0.9)));
        for text in ["101%", "-1%", "1.5", "nan", "-inf", "many", ""] {
            assert!(text.parse::<Escalation>().unwrap_err().to_string().contains("such as 20%"), "{text}");
        }
        let two: Escalations = "20%, 0.5".parse().unwrap();
        assert_eq!((two.behind(3).map(|steps| steps.len()), two.behind(2)), (Some(2), None));
        let one: Escalations = "5%".parse().unwrap();
        assert_eq!(one.behind(4), Some(vec![Escalation::Worst(5.0); 3]));
        assert_eq!((one.to_string(), two.to_string()), ("5%".into(), "20%,0.5".into()));
    }

    #[test]
    fn a_threshold_holds_for_what_models_have_written() {
        let output = |estimate, mean_logprob| Some(Judgement { estimate, mean_logprob });
        let half = Threshold::Estimate(0.5);
        assert!(half.escalates(output(Some(0.4999), -9.0)) && !half.escalates(output(Some(0.5), -9.0)));
        assert!(!half.escalates(None) && !half.escalates(output(None, -9.0)));
        let (none, all) = (Threshold::Estimate(0.0), Threshold::Estimate(1.0));
        assert!(!none.escalates(output(Some(0.0), 0.0)) && all.escalates(output(None, 0.0)));
        assert!(all.escalates(output(Some(1.0), 0.0)) && !all.escalates(None));
        let unlikely = Threshold::MeanLogprob(-0.9);
        assert!(unlikely.escalates(output(None, -0.91)) && !unlikely.escalates(output(None, -0.9)));
        assert_eq!([half, none, all, unlikely].map(Threshold::needs_estimate), [true, false, false, false]);
        for threshold in [half, none, all, unlikely, Threshold::Estimate(0.1 + 0.2)] {
            assert_eq!(threshold.to_string().parse::<Threshold>().unwrap(), threshold);
        }
    }
}
