//! Repairs the units in a model's output: damaged ones are mended, missing ones are placed, surplus ones are
//! removed.

use std::ops::Range;

use strsim::normalized_levenshtein;

use crate::finish::Warning;
use crate::placing::{Placing, words};
use crate::prepare::{Prepared, ShownUnit};
use crate::unit::{Unit, UnitKind};

/// From this similarity on (1 is equal), a piece of the output is a damaged unit.
const MIN_SIMILARITY: f64 = 0.5;

/// A text, and the bytes of its units.
#[derive(Debug, Default)]
pub(crate) struct Repaired {
    pub(crate) text: String,
    pub(crate) units: Vec<Range<usize>>,
}

/// A change of the output: `with` in place of `range`; `is_unit` if `with` is a unit.
#[derive(Debug)]
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) with: String,
    pub(crate) is_unit: bool,
}

/// Puts the shown units of `prepared` into `written`.
pub(crate) fn repair(prepared: &Prepared<'_>, written: &str, warnings: &mut Vec<Warning>) -> Repaired {
    let mut edits: Vec<Edit> = Vec::new();
    let mut missing = claim(prepared, written, &mut edits);
    let free = |range: &Range<usize>, edits: &[Edit]| edits.iter().all(|edit| !overlap(&edit.range, range));
    let mut extras: Vec<Unit> = prepared.units_of(written);
    extras.retain(|unit| free(&unit.range, &edits) && unit.kind.is_shown());
    missing.retain(|unit| {
        let seen = prepared.seen(unit);
        let similarity = |extra: &Unit| {
            let found = &written[extra.range.clone()];
            normalized_levenshtein(found, seen).max(normalized_levenshtein(found, &unit.original))
        };
        let best = extras.iter().enumerate().max_by(|(_, a), (_, b)| similarity(a).total_cmp(&similarity(b)));
        match best.filter(|(_, extra)| similarity(extra) >= MIN_SIMILARITY || extra.kind == unit.kind) {
            Some((place, _)) => {
                let extra = extras.remove(place);
                let found = squeezed(&written[extra.range.clone()]);
                let is_same = [squeezed(seen), squeezed(&unit.original)].contains(&found);
                edits.push(Edit { range: extra.range, with: unit.original.clone(), is_unit: true });
                warnings.extend((!is_same).then_some(Warning::Repaired(unit.kind)));
                false
            }
            None => true,
        }
    });
    missing.retain(|unit| {
        let forms = [prepared.seen(unit), &unit.original];
        match forms
            .into_iter()
            .find_map(|form| damaged(written, (form, unit.kind), |range| free(range, &edits)))
        {
            Some(range) => {
                edits.push(Edit { range, with: unit.original.clone(), is_unit: true });
                warnings.push(Warning::Repaired(unit.kind));
                false
            }
            None => true,
        }
    });
    for unit in prepared.shown.iter().filter(|unit| unit.is_carried) {
        let carrier = prepared.seen(unit);
        for (start, _) in written.match_indices(carrier) {
            let range = start..start + carrier.len();
            if free(&range, &edits) && (stands_alone(written, &range) || stands_out(written, &range, unit)) {
                warnings.push(Warning::Removed(unit.kind));
                edits.push(Edit { range, with: String::new(), is_unit: false });
            }
        }
    }
    let is_copy = |extra: &Unit| {
        let found = &written[extra.range.clone()];
        prepared.shown.iter().any(|unit| found == unit.original || found == prepared.seen(unit))
    };
    extras.retain(|extra| (extra.kind.is_never_invented() || is_copy(extra)) && free(&extra.range, &edits));
    for extra in extras {
        warnings.push(Warning::Removed(extra.kind));
        edits.push(Edit { range: extra.range, with: String::new(), is_unit: false });
    }
    if prepared.rules.must_have_all {
        for unit in missing {
            edits.push(insertion(prepared, written, (&unit.place, &unit.original), &edits));
            warnings.push(Warning::Placed(unit.kind));
        }
    }
    apply(written, edits)
}

/// Marks the units that are present, the longest first; returns the missing ones, in their order.
fn claim<'p>(prepared: &'p Prepared<'_>, written: &str, edits: &mut Vec<Edit>) -> Vec<&'p ShownUnit> {
    let mut order: Vec<&ShownUnit> = prepared.shown.iter().collect();
    order.sort_by_key(|unit| std::cmp::Reverse(unit.original.len()));
    let mut missing: Vec<&ShownUnit> = Vec::new();
    for unit in order {
        let forms = [Some(prepared.seen(unit)), Some(&unit.original), unit.source.as_deref()];
        let is_unclaimed = |range: &Range<usize>| edits.iter().all(|edit| !overlap(&edit.range, range));
        let find = |is_it: &dyn Fn(&Range<usize>) -> bool| {
            forms.into_iter().flatten().find_map(|form| {
                let places = written.match_indices(form).map(|(start, _)| start..start + form.len());
                places.filter(|range| is_unclaimed(range)).find(is_it)
            })
        };
        let found = find(&|range| stands_alone(written, range))
            .or_else(|| find(&|range| stands_out(written, range, unit)));
        let is_free = |range: &Range<usize>| {
            edits.iter().all(|edit| !overlap(&edit.range, range)) && stands_alone(written, range)
        };
        match found {
            Some(range) => edits.push(Edit { range, with: unit.original.clone(), is_unit: true }),
            None => match in_other_case(written, unit).find(is_free) {
                Some(range) => {
                    let with = written[range.clone()].to_owned();
                    edits.push(Edit { range, with, is_unit: true });
                }
                None => missing.push(unit),
            },
        }
    }
    missing.sort_by_key(|unit| unit.place.start);
    missing
}

/// The place of a term with other capitals, as it may occur after the beginning of a sentence.
fn in_other_case(written: &str, unit: &ShownUnit) -> impl Iterator<Item = Range<usize>> {
    let (small, wanted) = (written.to_lowercase(), unit.original.to_lowercase());
    let is_comparable = unit.kind == UnitKind::Term && !unit.is_carried && small.len() == written.len();
    let places: Vec<usize> = small.match_indices(&wanted).map(|(start, _)| start).collect();
    let whole = |range: &Range<usize>| written.get(range.clone()).is_some();
    let ranges: Vec<Range<usize>> =
        places.into_iter().map(|start| start..start + wanted.len()).filter(whole).collect();
    ranges.into_iter().filter(move |_| is_comparable)
}

/// Whether a range that touches words is still not part of another number: a carrier, or a unit with a sign.
fn stands_out(text: &str, range: &Range<usize>, unit: &ShownUnit) -> bool {
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let found = &text[range.clone()];
    let has_sign = found.contains(|c: char| !c.is_alphanumeric() && !c.is_whitespace());
    let is_digit_before = is_digit(text[..range.start].chars().next_back());
    let is_digit_after = is_digit(text[range.end..].chars().next());
    (unit.is_carried || has_sign && found.len() > 2)
        && !(is_digit_before && is_digit(found.chars().next()))
        && !(is_digit_after && is_digit(found.chars().next_back()))
}

/// Whether a range is no part of a longer word or number.
pub(crate) fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let joined = |a: Option<char>, b: Option<char>| {
        let (Some(a), Some(b)) = (a, b) else { return false };
        a.is_alphanumeric() && b.is_alphanumeric()
    };
    let found = &text[range.clone()];
    !joined(text[..range.start].chars().next_back(), found.chars().next())
        && !joined(found.chars().next_back(), text[range.end..].chars().next())
}

/// The words of `written` that look most like the unit, if any do.
fn damaged(
    written: &str,
    (seen, kind): (&str, UnitKind),
    is_free: impl Fn(&Range<usize>) -> bool,
) -> Option<Range<usize>> {
    let wanted = squeezed(seen);
    let words = words(written, &[]);
    let max_words = seen.split_whitespace().count() + 1;
    let mut best: Option<(f64, Range<usize>)> = None;
    for first in 0..words.len() {
        for last in first..words.len().min(first + max_words) {
            let whole = words[first].start..words[last].end;
            let text = &written[whole.clone()];
            let kept = text.trim_end_matches(['.', ',', ';', ':', '!', '?']);
            let range = whole.start..whole.start + kept.len();
            let found = squeezed(kept);
            let is_ordinary =
                found.chars().all(char::is_alphabetic) && found.to_lowercase() != wanted.to_lowercase();
            let similarity = similarity(&found, &wanted, kind);
            let is_ordinary = is_ordinary && kind != UnitKind::Term;
            let is_better = best.as_ref().is_none_or(|(other, _)| similarity > *other);
            if similarity >= MIN_SIMILARITY
                && is_better
                && !is_ordinary
                && !range.is_empty()
                && is_free(&range)
            {
                best = Some((similarity, range));
            }
        }
    }
    best.map(|(_, range)| range)
}

/// A text without its white space.
fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// The similarity (0 to 1) of a piece of the output and the unit. Digits identify an amount, so short units
/// can differ only in signs.
fn similarity(found: &str, wanted: &str, kind: UnitKind) -> f64 {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    if kind == UnitKind::Amount && digits(found) == digits(wanted) && !found.contains(char::is_alphabetic) {
        return 1.0;
    }
    let has_sign = found.contains(|c: char| !c.is_alphanumeric());
    if wanted.chars().count() < 4 && !has_sign && !found.eq_ignore_ascii_case(wanted) {
        return 0.0;
    }
    normalized_levenshtein(found, wanted)
}

/// Where a text that is nowhere goes, with a space on each side that needs one; `place` is its place in the
/// source.
pub(crate) fn insertion(
    prepared: &Prepared<'_>,
    written: &str,
    (place, text): (&Range<usize>, &str),
    edits: &[Edit],
) -> Edit {
    let source = prepared.text();
    let units: Vec<Range<usize>> = edits.iter().map(|edit| edit.range.clone()).collect();
    let placing = Placing::new((source, &prepared.shown_places()), (written, &units));
    let before = source[..place.start].chars().next_back();
    let after = source[place.end..].chars().next();
    let is_glued_before = before.is_some_and(|c| !c.is_whitespace());
    let ends_clause = after.is_some_and(|c| !c.is_whitespace() && !c.is_alphanumeric());
    let (mut at, mut with) = if ends_clause || after.is_none() {
        let at = placing.end_of(placing.words_up_to(place.end, None), place.end);
        let space = if is_glued_before || at == 0 { "" } else { " " };
        (at, format!("{space}{text}"))
    } else {
        let number = placing.words_before(place.start);
        let at = placing.start_of(number, place.start);
        let is_at_end = number >= placing.num_words() && at > 0;
        (at, if is_at_end { format!(" {text}") } else { format!("{text} ") })
    };
    if let Some(edit) = edits.iter().find(|edit| edit.range.start < at && at < edit.range.end) {
        at = edit.range.end; // never inside another unit
        with = format!(" {text}");
    }
    let ends_here = edits.iter().rev().find(|edit| edit.range.end == at && !edit.with.is_empty());
    let begins_here = edits.iter().find(|edit| edit.range.start == at && !edit.range.is_empty());
    let before = ends_here.map_or(&written[..at], |edit| edit.with.as_str());
    let after = begins_here.map_or(&written[at..], |edit| edit.with.as_str());
    if run_together(before, &with) {
        with.insert(0, ' ');
    }
    if run_together(&with, after) {
        with.push(' ');
    }
    Edit { range: at..at, with, is_unit: true }
}

/// Whether two texts, one after the other, would be one word or one number.
fn run_together(before: &str, after: &str) -> bool {
    let (mut last, mut first) = (before.chars().rev(), after.chars());
    let is_end = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let is_separator = |c: char| matches!(c, '.' | ',' | '\'' | '’' | '\u{a0}' | '\u{202f}');
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    match (last.next(), first.next()) {
        (Some(sign), Some(c)) if is_separator(sign) => c.is_ascii_digit() && is_digit(last.next()),
        (Some(c), Some(sign)) if is_separator(sign) => c.is_ascii_digit() && is_digit(first.next()),
        (last, first) => is_end(last) && is_end(first),
    }
}

impl Repaired {
    /// Edits that change nothing, one for each unit.
    pub(crate) fn edits(&self) -> Vec<Edit> {
        let edit = |range: &Range<usize>| {
            let with = self.text[range.clone()].to_owned();
            Edit { range: range.clone(), with, is_unit: true }
        };
        self.units.iter().map(edit).collect()
    }

    /// Takes out the characters that `is_broken` names, outside units.
    pub(crate) fn without(self, is_broken: impl Fn(char) -> bool) -> Self {
        let mut kept = Repaired { text: String::with_capacity(self.text.len()), units: self.units };
        let in_unit: Vec<Range<usize>> = kept.units.clone();
        for (place, c) in self.text.char_indices() {
            if is_broken(c) && !in_unit.iter().any(|unit| unit.contains(&place)) {
                for unit in kept
                    .units
                    .iter_mut()
                    .zip(&in_unit)
                    .filter(|(_, old)| old.start > place)
                    .map(|(unit, _)| unit)
                {
                    unit.start -= c.len_utf8();
                    unit.end -= c.len_utf8();
                }
            } else {
                kept.text.push(c);
            }
        }
        kept
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The text after all edits, which do not overlap.
pub(crate) fn apply(written: &str, mut edits: Vec<Edit>) -> Repaired {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut repaired = Repaired::default();
    let mut at = 0;
    for edit in edits {
        repaired.text.push_str(&written[at.min(edit.range.start)..edit.range.start]);
        if edit.is_unit {
            let spaces = edit.with.len() - edit.with.trim_start().len();
            let start = repaired.text.len() + spaces;
            repaired.units.push(start..start + edit.with.trim().len());
        } else if edit.with.is_empty()
            && repaired.text.ends_with(' ')
            && written[edit.range.end..].starts_with(' ')
        {
            repaired.text.pop();
        }
        repaired.text.push_str(&edit.with);
        at = edit.range.end;
    }
    repaired.text.push_str(&written[at..]);
    repaired
}
