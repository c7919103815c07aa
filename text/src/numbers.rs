//! Plain numbers: a translation may write them with other separators, or in words, but not with other digits.

use std::ops::Range;

use strsim::levenshtein;

/// A number with fewer digits may be a word in the other language, or part of a date or time.
const MIN_DIGITS: usize = 3;

/// A number of a text: where, and its digits alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Number {
    range: Range<usize>,
    digits: String,
}

/// Numbers outside `kept`: digits, with single separators between them.
fn numbers(text: &str, kept: &[Range<usize>]) -> Vec<Number> {
    let mut numbers: Vec<Number> = Vec::new();
    for (start, c) in text.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
        if kept.iter().any(|range| range.contains(&start)) {
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

/// Restores the source's number where the output has one with nearly its digits. Reports whether the output
/// still has a number that the source lacks.
pub(crate) fn mend(
    source: &str,
    source_units: &[Range<usize>],
    written: &mut String,
    kept: &mut [Range<usize>],
) -> Mended {
    let mut mended = Mended::default();
    let mut wanted = numbers(source, source_units);
    let mut strange = Vec::new();
    for number in numbers(written, kept) {
        match wanted.iter().position(|other| other.digits == number.digits) {
            Some(place) => drop(wanted.remove(place)),
            None => strange.push(number),
        }
    }
    for number in strange.into_iter().rev() {
        let near = wanted.iter().position(|other| {
            other.digits.len() >= MIN_DIGITS
                && 3 * levenshtein(&other.digits, &number.digits) <= other.digits.len()
        });
        let Some(place) = near else {
            mended.has_strange = mended.has_strange || number.digits.len() >= MIN_DIGITS;
            continue;
        };
        let right = &source[wanted.remove(place).range];
        let growth = right.len() as isize - number.range.len() as isize;
        for range in kept.iter_mut().filter(|range| range.start >= number.range.end) {
            range.start = range.start.saturating_add_signed(growth);
            range.end = range.end.saturating_add_signed(growth);
        }
        written.replace_range(number.range, right);
        mended.has_repaired = true;
    }
    mended.lacks_one = wanted.iter().any(|number| number.digits.len() >= MIN_DIGITS);
    mended
}

/// The findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mended {
    pub(crate) has_repaired: bool,
    pub(crate) has_strange: bool,
    pub(crate) lacks_one: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(source: &str, written: &str) -> (String, Mended) {
        let mut text = written.to_owned();
        let mended = mend(source, &[], &mut text, &mut []);
        (text, mended)
    }

    #[test]
    fn altered_digits_become_the_sources() {
        let (text, mended) = mended("It has 1,234,567 rows", "Ha 1.234,5676 righe");
        assert_eq!(text, "Ha 1,234,567 righe");
        assert!(mended.has_repaired);
    }

    #[test]
    fn separators_and_words_are_the_languages() {
        for (source, written) in
            [("It has 1,234.5 rows", "Ha 1.234,5 righe"), ("2 files at 3 PM", "due file alle 15")]
        {
            assert_eq!(mended(source, written), (written.to_owned(), Mended::default()));
        }
        assert!(mended("It has rows", "Ha 12345 righe").1.has_strange);
    }
}
