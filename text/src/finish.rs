//! A model's output, completed: units, numbers, case and edges as in the source.

use std::fmt;
use std::ops::Range;

use crate::flaws::flaws;
use crate::language::OtherLanguage;
use crate::placing::Placing;
use crate::prepare::{HiddenUnit, Prepared, Role, ShownUnit};
use crate::repair::repair;
use crate::tally::{TermTally, tally};
use crate::unit::UnitKind;
use crate::{dashes, numbers};

/// An output, and its corrections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The output.
    pub text: String,
    /// Points that a reader of the output may want to check; each at most once, in order of their names.
    pub warnings: Vec<Warning>,
    /// The reason why the record fails instead, in a strict job.
    pub problem: Option<Warning>,
    /// The weight of all flaws; 0 without one that another output might not have.
    pub flaws: u32,
    /// The glossary's terms in the text, and those that the output lacks.
    pub terms: TermTally,
}

/// A flaw in a model's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Warning {
    /// A unit was damaged; it is whole now.
    Repaired(UnitKind),
    /// A unit was missing; a rule chose its place.
    Placed(UnitKind),
    /// A unit that the source does not have was taken out.
    Removed(UnitKind),
    /// A number was in words, or had other digits than the source's; it has the source's now.
    NumberRepaired,
    /// A number was missing; a rule chose its place.
    NumberPlaced,
    /// The source does not have this number.
    NumberChanged,
    /// Bytes that are no text were taken out.
    NoText,
    /// A term of the glossary is not in the output.
    TermMissed,
    /// The model wrote nothing.
    Empty,
    /// The output repeats the same words again and again.
    Looping,
    /// The output is in the language of the texts.
    SourceLanguage,
    /// The output has letters of a script that neither its language nor its source has.
    OtherScript,
    /// The source is already in the language of the outputs.
    TargetLanguage,
    /// The source is in another language than the job's texts.
    OtherLanguage,
}

impl Warning {
    /// Whether the output may still be wrong, as opposed to corrected.
    fn is_violation(self) -> bool {
        matches!(
            self,
            Warning::NumberChanged
                | Warning::NumberPlaced
                | Warning::NoText
                | Warning::TermMissed
                | Warning::Empty
                | Warning::Looping
                | Warning::SourceLanguage
                | Warning::OtherScript
        )
    }

    /// Its weight when two outputs for one text are compared; 0 if another output can be no better.
    fn weight(self) -> u32 {
        match self {
            Warning::Placed(_) | Warning::Removed(_) => 1,
            flaw if flaw.is_violation() => 4,
            _ => 0,
        }
    }

    fn is_of_language(self) -> bool {
        matches!(self, Warning::TargetLanguage | Warning::OtherLanguage)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Repaired(kind) => write!(f, "{}_repaired", kind.as_str()),
            Warning::Placed(kind) => write!(f, "{}_placed", kind.as_str()),
            Warning::Removed(kind) => write!(f, "{}_removed", kind.as_str()),
            Warning::NumberRepaired => f.write_str("number_repaired"),
            Warning::NumberChanged => f.write_str("number_changed"),
            Warning::NumberPlaced => f.write_str("number_placed"),
            Warning::TargetLanguage => f.write_str("already_in_target_language"),
            Warning::OtherLanguage => f.write_str("other_language"),
            Warning::NoText => f.write_str("broken_characters_removed"),
            Warning::TermMissed => f.write_str("term_missed"),
            Warning::Empty => f.write_str("empty_output"),
            Warning::Looping => f.write_str("looping"),
            Warning::SourceLanguage => f.write_str("left_in_source_language"),
            Warning::OtherScript => f.write_str("other_script"),
        }
    }
}

impl Prepared<'_> {
    /// The output for the source, from the model's output for [`Prepared::text`].
    #[must_use]
    pub fn finish(&self, written: &str) -> Finished {
        let rules = self.rules;
        let of_language = rules.language_check.as_ref().and_then(|check| check.warning(self.text()));
        let is_copied =
            self.text().is_empty() || of_language.is_some() && rules.other_language == OtherLanguage::Copy;
        let is_unchanged = written == self.text() && self.shown.iter().all(ShownUnit::is_as_in_source);
        let (text, mut warnings) = match (is_copied || is_unchanged, &rules.finder) {
            (true, _) => (self.unchanged().to_owned(), Vec::new()),
            (false, None) => (written.to_owned(), Vec::new()),
            (false, Some(_)) => self.whole(written),
        };
        let is_checked = !is_copied && rules.finder.is_some();
        let terms = if is_checked { tally(self, &text) } else { TermTally::default() };
        if is_checked {
            warnings.extend((!terms.missed.is_empty()).then_some(Warning::TermMissed));
            warnings.extend(flaws(self, written, &text));
        }
        let text = if is_copied || is_unchanged { text } else { self.written_back(text) };
        let flaws = warnings.iter().map(|warning| warning.weight()).sum();
        warnings.extend(of_language);
        warnings.sort_unstable();
        warnings.dedup();
        let fails = |warning: &&Warning| {
            rules.is_strict && warning.is_violation()
                || rules.other_language == OtherLanguage::Error && warning.is_of_language()
        };
        let problem = warnings.iter().find(fails).copied();
        Finished { text, warnings, problem, flaws, terms }
    }

    /// The written text, with all units of the source.
    fn whole(&self, written: &str) -> (String, Vec<Warning>) {
        let mut warnings = Vec::new();
        let written = self.without_strange_units(written.trim(), &mut warnings);
        let mut repaired = repair(self, &written, &mut warnings);
        if repaired.text.contains(is_broken) && !self.source().contains('\u{FFFD}') {
            repaired = repaired.without(is_broken);
            warnings.push(Warning::NoText);
        }
        if !self.rules.leaves_numbers {
            repaired = numbers::mend(self, repaired, &mut warnings);
        }
        let repaired = dashes::mend(self, repaired);
        let is_unit = |byte: usize| repaired.units.iter().any(|unit| unit.contains(&byte));
        let cased = self.case.restore(&repaired.text, is_unit);
        let whole = self.with_hidden_units(&cased, &repaired.units);
        let (before, after) = (&self.source()[..self.core.start], &self.source()[self.core.end..]);
        (format!("{before}{whole}{after}"), warnings)
    }

    /// Takes out units of kinds that the model never saw.
    fn without_strange_units(&self, written: &str, warnings: &mut Vec<Warning>) -> String {
        let mut kept = String::with_capacity(written.len());
        let mut at = 0;
        for unit in self.units_of(written) {
            if !unit.kind.is_shown() && unit.kind.is_never_invented() {
                kept.push_str(&written[at..unit.range.start]);
                at = unit.range.end;
                warnings.push(Warning::Removed(unit.kind));
            }
        }
        kept.push_str(&written[at..]);
        kept
    }

    /// Inserts the hidden units into the model's output.
    fn with_hidden_units(&self, written: &str, units: &[Range<usize>]) -> String {
        if self.hidden.is_empty() {
            return written.to_owned();
        }
        let placing = Placing::new((self.text(), &self.shown_places()), (written, units));
        let places = self.places(&placing, written);
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|&index| (places[index], index));
        let mut text = String::with_capacity(written.len() + 32);
        let mut at = 0;
        for index in order {
            let unit = &self.hidden[index];
            let place = places[index];
            text.push_str(&written[at..place]);
            at = place;
            let is_free = unit.role == Role::Single;
            let needs_space_before = unit.space_before && unit.role != Role::Opens;
            if needs_space_before && !text.is_empty() && !text.ends_with(char::is_whitespace) {
                text.push(' ');
            }
            text.push_str(&unit.original);
            let needs_space_after = unit.space_after && (is_free || unit.role == Role::Opens);
            if needs_space_after
                && place < written.len()
                && !written[place..].starts_with(char::is_whitespace)
            {
                text.push(' ');
            }
        }
        text.push_str(&written[at..]);
        text
    }

    /// A byte of `written` for each hidden unit. If the best places do not nest like the source's, later
    /// units still never precede earlier ones.
    fn places(&self, placing: &Placing<'_>, written: &str) -> Vec<usize> {
        let mut places: Vec<usize> = Vec::with_capacity(self.hidden.len());
        let mut numbers: Vec<usize> = Vec::with_capacity(self.hidden.len());
        for (index, unit) in self.hidden.iter().enumerate() {
            let (number, place) = match unit.role {
                Role::Closes(opener) => {
                    let opened = opener.map(|opener| (self.hidden[opener].place, numbers[opener]));
                    let mut number = placing.words_up_to(unit.place, opened);
                    if let Some(opener) = opener {
                        let has_content = self.hidden[opener].place < unit.place;
                        let least = numbers[opener] + usize::from(has_content);
                        number = number.max(least).min(placing.num_words());
                    }
                    (number, placing.end_of(number, unit.place))
                }
                Role::Single if closes_clause(self.text(), unit) => {
                    let number = placing.words_up_to(unit.place, None);
                    (number, placing.end_of(number, unit.place))
                }
                Role::Opens | Role::Single => {
                    let mut number = placing.words_before(unit.place);
                    let closes_it = |other: &HiddenUnit| {
                        other.role == Role::Closes(Some(index)) && other.place > unit.place
                    };
                    if self.hidden.iter().any(closes_it) {
                        number = number.min(placing.num_words().saturating_sub(1)); // a word is left for it
                    }
                    (number, placing.start_of(number, unit.place))
                }
            };
            numbers.push(number);
            places.push(place.min(written.len()));
        }
        if !self.nests(&places) {
            let mut latest = 0;
            for place in &mut places {
                latest = latest.max(*place);
                *place = latest;
            }
        }
        places
    }

    /// Whether pairs, put at these places, lie within each other or apart.
    fn nests(&self, places: &[usize]) -> bool {
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|&index| (places[index], index));
        let mut open: Vec<usize> = Vec::new();
        let is_closed = |index| self.hidden.iter().any(|unit| unit.role == Role::Closes(Some(index)));
        for index in order {
            match self.hidden[index].role {
                Role::Opens if is_closed(index) => open.push(index),
                Role::Opens => {}
                Role::Closes(Some(opener)) if open.last() == Some(&opener) => drop(open.pop()),
                Role::Closes(Some(_)) => return false,
                Role::Closes(None) | Role::Single => {}
            }
        }
        true
    }
}

/// Replacement characters of a tokenizer for bytes that are no text, and control characters.
fn is_broken(c: char) -> bool {
    c == '\u{FFFD}' || (c.is_control() && c != '\n' && c != '\t')
}

/// Whether a single unit belongs to the text before it: without space, or before a sign.
fn closes_clause(text: &str, unit: &HiddenUnit) -> bool {
    let after = text[unit.place..].trim_start().chars().next();
    (!unit.space_before && unit.space_after)
        || (!unit.space_after && after.is_none_or(|c| !c.is_alphanumeric()))
        || after.is_none()
}
