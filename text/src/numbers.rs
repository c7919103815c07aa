//! Plain numbers: a translation may write them with other separators, but not with other digits. A number
//! that is missing is found again as damaged digits or as a word, or a rule places it.

use std::ops::Range;

use strsim::levenshtein;

use crate::finish::Warning;
use crate::magnitudes::multiplied;
use crate::number_words::is_number_word;
use crate::placing::{Placing, words};
use crate::prepare::Prepared;
use crate::repair::{Edit, Repaired, apply, insertion};

/// An output may have a number of fewer digits that its source has in words.
const MIN_DIGITS: usize = 3;

/// Words after a number with which a translation may rightly write other digits: times of day, and numbers
/// for which languages have words of different sizes.
const CHANGING: [&str; 8] = ["am", "pm", "a.m", "p.m", "o'clock", "o’clock", "billion", "trillion"];

/// A number of a text: where, and its digits alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Number {
    range: Range<usize>,
    digits: String,
}

impl Number {
    /// Whether it is part of a word, such as "1990s" or "3rd".
    fn is_in_word(&self, text: &str) -> bool {
        text[..self.range.start].chars().next_back().is_some_and(char::is_alphabetic)
            || text[self.range.end..].chars().next().is_some_and(char::is_alphabetic)
    }

    /// Its digits, with the zeros of a word such as "thousand" after it.
    fn value(&self, text: &str) -> String {
        let multiplied = multiplied(&text[self.range.clone()], &text[self.range.end..]);
        multiplied.unwrap_or_else(|| self.digits.clone())
    }

    /// Whether a translation keeps its digits.
    fn is_kept(&self, text: &str) -> bool {
        let after = text[self.range.end..].trim_start().to_lowercase();
        let changes = |word: &&str| {
            after.strip_prefix(*word).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        };
        !self.is_in_word(text) && !CHANGING.iter().any(changes)
    }
}

/// Numbers outside `units`: digits, with single separators between them.
fn numbers(text: &str, units: &[Range<usize>]) -> Vec<Number> {
    let mut numbers: Vec<Number> = Vec::new();
    for (start, c) in text.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
        if units.iter().any(|range| range.contains(&start)) {
            continue;
        }
        match numbers.last_mut() {
            Some(last) if joins(&text[last.range.end..start]) => {
                last.range.end = start + 1;
                last.digits.push(c);
            }
            _ => numbers.push(Number { range: start..start + 1, digits: c.to_string() }),
        }
    }
    numbers
}

fn joins(gap: &str) -> bool {
    gap.is_empty() || matches!(gap, "." | "," | "'" | "’" | "\u{a0}" | "\u{202f}")
}

/// Gives an output the numbers of its source. A summary gets back only what it altered.
pub(crate) fn mend(prepared: &Prepared<'_>, repaired: Repaired, warnings: &mut Vec<Warning>) -> Repaired {
    let source = prepared.text();
    let mut wanted = numbers(source, &prepared.shown_places());
    let (mut strange, mut found) = (Vec::new(), Vec::new());
    for number in numbers(&repaired.text, &repaired.units) {
        let value = number.value(&repaired.text);
        let same = wanted.iter().position(|other| other.digits == number.digits);
        match same.or_else(|| wanted.iter().position(|other| other.value(source) == value)) {
            Some(place) => {
                wanted.remove(place);
                found.push(number);
            }
            None => strange.push(number),
        }
    }
    if wanted.is_empty() && strange.is_empty() {
        return repaired;
    }
    let edits = repaired.edits();
    let mut mending = Mending { prepared, edits, written: repaired.text, strange, has_replaced: false };
    wanted.retain(|number| !mending.takes_the_place_of_a_similar_one(number));
    if prepared.rules.must_have_all {
        let (mut kept, free): (Vec<Number>, Vec<Number>) =
            wanted.into_iter().partition(|number| number.is_kept(source));
        kept.retain(|number| !mending.takes_the_place_of_a_word(number));
        // what is left of the strange numbers may stand for those that change
        kept.retain(|number| !mending.takes_the_place_of_a_strange_one(number, free.len()));
        kept.iter().for_each(|number| mending.place(number));
        warnings.extend((!kept.is_empty()).then_some(Warning::NumberPlaced));
        found.iter().for_each(|number| mending.remove_what_stutters(number));
    }
    let Mending { edits, written, strange, has_replaced, .. } = mending;
    let is_long = |number: &Number| number.digits.len() >= MIN_DIGITS;
    warnings.extend(strange.iter().any(is_long).then_some(Warning::NumberChanged));
    warnings.extend(has_replaced.then_some(Warning::NumberRepaired));
    apply(&written, edits)
}

/// An output whose numbers are being mended.
struct Mending<'m, 'a> {
    prepared: &'m Prepared<'a>,
    written: String,
    /// Numbers of the output that the source lacks.
    strange: Vec<Number>,
    edits: Vec<Edit>,
    has_replaced: bool,
}

impl Mending<'_, '_> {
    /// Takes the place of a number with nearly its digits.
    fn takes_the_place_of_a_similar_one(&mut self, number: &Number) -> bool {
        let is_near = |other: &Number| {
            number.digits.len() >= MIN_DIGITS
                && 3 * levenshtein(&other.digits, &number.digits) <= number.digits.len()
        };
        let place = self.strange.iter().position(is_near);
        self.takes_the_place_of_number(place, number)
    }

    /// Takes the place of its own value in words; of several, the one nearest to where it is expected.
    fn takes_the_place_of_a_word(&mut self, number: &Number) -> bool {
        let Some(language) = &self.prepared.rules.target_language else { return false };
        let units: Vec<Range<usize>> = self.edits.iter().map(|edit| edit.range.clone()).collect();
        let (source, source_units) = (self.prepared.text(), self.prepared.shown_places());
        let placing = Placing::new((source, &source_units), (&self.written, &units));
        let expected = placing.words_before(number.range.start);
        let bare = |word: Range<usize>| {
            let text = &self.written[word.clone()];
            let kept = text.trim_matches(|c: char| !c.is_alphanumeric());
            let start = word.start + text.find(kept).unwrap_or_default();
            start..start + kept.len()
        };
        let found = words(&self.written, &units).into_iter().map(bare).enumerate();
        let is_it = |range: &Range<usize>| {
            is_number_word(&self.written[range.clone()], &number.digits, language)
                && self
                    .edits
                    .iter()
                    .all(|edit| range.end <= edit.range.start || edit.range.end <= range.start)
        };
        let nearest =
            found.filter(|(_, range)| is_it(range)).min_by_key(|(place, _)| place.abs_diff(expected));
        let Some((_, range)) = nearest else { return false };
        self.replace(range, number);
        true
    }

    /// Takes the place of any number that the source lacks, as long as there are more than `num_free`.
    fn takes_the_place_of_a_strange_one(&mut self, number: &Number, num_free: usize) -> bool {
        let is_plain = |other: &Number| !other.is_in_word(&self.written);
        let place = self.strange.iter().position(is_plain).filter(|_| self.strange.len() > num_free);
        self.takes_the_place_of_number(place, number)
    }

    /// Removes a strange number beside one of the source's that is a part of it: "6 6,669", "60.4 -4".
    fn remove_what_stutters(&mut self, number: &Number) {
        let is_gap = |range: Range<usize>| {
            let gap = self.written.get(range).unwrap_or("a word");
            gap.len() <= 3 && gap.chars().all(|c| c.is_whitespace() || matches!(c, '-' | '+' | '−'))
        };
        let surplus = self.strange.iter().enumerate().find_map(|(place, other)| {
            let is_part = number.digits.starts_with(&other.digits) || number.digits.ends_with(&other.digits);
            let (before, after) = (other.range.end..number.range.start, number.range.end..other.range.start);
            let surplus = match (is_gap(before), is_gap(after)) {
                (true, _) => other.range.start..number.range.start,
                (_, true) => number.range.end..other.range.end,
                _ => return None,
            };
            (is_part && !other.is_in_word(&self.written)).then_some((place, surplus))
        });
        let Some((place, range)) = surplus else { return };
        if self.edits.iter().all(|edit| range.end <= edit.range.start || edit.range.end <= range.start) {
            self.strange.remove(place);
            self.edits.push(Edit { range, with: String::new(), is_unit: false });
            self.has_replaced = true;
        }
    }

    fn takes_the_place_of_number(&mut self, strange: Option<usize>, number: &Number) -> bool {
        let Some(place) = strange else { return false };
        let range = self.strange.remove(place).range;
        self.replace(range.clone(), number);
        self.remove_what_stutters(&Number { range, digits: number.digits.clone() });
        true
    }

    fn replace(&mut self, range: Range<usize>, number: &Number) {
        self.edits.push(Edit { range, with: self.in_the_outputs_language(number), is_unit: false });
        self.has_replaced = true;
    }

    /// Inserts a number that is nowhere.
    fn place(&mut self, number: &Number) {
        let with = self.in_the_outputs_language(number);
        let edit = insertion(self.prepared, &self.written, (&number.range, &with), &self.edits);
        self.edits.push(Edit { is_unit: false, ..edit });
    }

    fn in_the_outputs_language(&self, number: &Number) -> String {
        let written = &self.prepared.text()[number.range.clone()];
        match self.prepared.rules.separators {
            Some((from, to)) => from.rewritten(written, to),
            None => written.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{TextOptions, TextRules};

    /// The output for `source`, English to Italian, if a model writes `written`; and the warnings.
    fn mended(source: &str, written: &str) -> (String, Vec<String>) {
        let options = TextOptions {
            language: Some("en".to_owned()),
            target_language: Some("it".to_owned()),
            ..TextOptions::default()
        };
        let finished = TextRules::new(&options).unwrap().prepare(source).finish(written);
        (finished.text, finished.warnings.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn assert_mended(source: &str, written: &str, expected: &str, warnings: &[&str]) {
        let (text, found) = mended(source, written);
        assert_eq!((text.as_str(), found), (expected, warnings.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn altered_digits_become_the_sources() {
        assert_mended(
            "It has 1,234,567 rows",
            "Ha 1.234,5676 righe",
            "Ha 1.234.567 righe",
            &["number_repaired"],
        );
        assert_mended(
            "Only 12 of the rows",
            "Solo 21 delle righe",
            "Solo 12 delle righe",
            &["number_repaired"],
        );
    }

    #[test]
    fn a_number_that_stutters_is_written_once() {
        for (source, written, expected) in [
            (
                "The report about 6,669,574 rows",
                "Il rapporto su 6 6.669.574 righe",
                "Il rapporto su 6.669.574 righe",
            ),
            ("Use 60.4 if it is slow", "Usa -60,4 -4 se è lento", "Usa -60,4 se è lento"),
            ("Use 60.4 if it is slow", "Usa 60 -4 se è lento", "Usa 60,4 se è lento"),
            (
                "The report about 6,669,574 rows",
                "Il rapporto su 6 669.574 righe",
                "Il rapporto su 6.669.574 righe",
            ),
        ] {
            assert_mended(source, written, expected, &["number_repaired"]);
        }
        assert_mended("Use 60.4 of two", "Usa 60,4 di 2", "Usa 60,4 di 2", &[]);
    }

    #[test]
    fn a_number_in_words_gets_its_digits_back() {
        assert_mended(
            "Found 7 in the first of 2 lines",
            "Trovate Sette nella prima di due righe.",
            "Trovate 7 nella prima di 2 righe.",
            &["number_repaired"],
        );
    }

    #[test]
    fn a_number_that_is_nowhere_is_placed() {
        assert_mended(
            "The value of 48,151 is not valid.",
            "Il valore non è valido.",
            "Il valore 48.151 non è valido.",
            &["number_placed"],
        );
    }

    #[test]
    fn other_separators_and_numbers_that_change_are_no_mistakes() {
        for (source, written) in [
            ("It has 1,234.5 rows", "Ha 1.234,5 righe"),
            ("It opens at 3 PM", "Apre alle 15"),
            ("It is from the 1990s", "Risale agli anni 90"),
            ("Two files are new", "2 file sono nuovi"),
            ("The 3rd of May", "Il terzo maggio"),
            ("About 100,000 people came", "Sono venute circa 100 mila persone"),
            ("It has 2,500,000 users", "Ha 2,5 milioni di utenti"),
            ("It has 100 thousand rows", "Ha 100.000 righe"),
        ] {
            assert_mended(source, written, written, &[]);
        }
        assert_mended("It has rows", "Ha 12345 righe", "Ha 12345 righe", &["number_changed"]);
    }
}
