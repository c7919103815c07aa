//! Em dashes: a model sees them, because they take part in the sentence, but many write another sign.

use std::ops::Range;

use crate::placing::words;
use crate::prepare::Prepared;
use crate::repair::{Edit, Repaired, apply, insertion};

const DASH: char = '—';

/// A sign stands for a dash if this many words or fewer are between it and the dash's place.
const MAX_WORDS_AWAY: usize = 2;

/// Gives an output as many em dashes as its source has, if that has any. A missing one takes the place of
/// another dash, then of a comma or the like near its place; otherwise a rule places it.
pub(crate) fn mend(prepared: &Prepared<'_>, repaired: Repaired) -> Repaired {
    let mut missing = dashes(prepared.text(), &prepared.shown_places());
    if missing.is_empty() || !prepared.rules.must_have_all {
        return repaired;
    }
    let written = dashes(&repaired.text, &repaired.units);
    if written.len() == missing.len() {
        return repaired;
    }
    let mut edits = repaired.edits();
    let text = &repaired.text;
    let source_words = words(prepared.text(), &prepared.shown_places());
    let output_words = words(text, &repaired.units);
    let expected = |place: &Range<usize>| {
        let before = source_words.iter().filter(|word| word.end <= place.start).count();
        before * output_words.len() / source_words.len().max(1)
    };
    let number_at = |place: &Range<usize>| output_words.iter().filter(|word| word.end <= place.start).count();
    for dash in written {
        let nearest = (0..missing.len()).min_by_key(|&i| expected(&missing[i]).abs_diff(number_at(&dash)));
        match nearest {
            Some(nearest) => drop(missing.remove(nearest)),
            None => edits.push(Edit { range: dash, with: "–".to_owned(), is_unit: false }),
        }
    }
    for dash in missing {
        let is_free = |range: &Range<usize>| {
            edits.iter().all(|edit| range.end <= edit.range.start || edit.range.end <= range.start)
        };
        let mut stand_ins = stand_ins(text);
        stand_ins.retain(|stand_in| {
            let away = number_at(&stand_in.range).abs_diff(expected(&dash));
            is_free(&stand_in.range) && (stand_in.is_dash || away <= MAX_WORDS_AWAY)
        });
        let rank = |stand_in: &StandIn| {
            (!stand_in.is_dash, number_at(&stand_in.range).abs_diff(expected(&dash)), stand_in.range.start)
        };
        edits.push(match stand_ins.into_iter().min_by_key(rank) {
            Some(StandIn { range, is_dash }) => {
                let with = if is_dash { DASH.to_string() } else { format!(" {DASH}") };
                Edit { range, with, is_unit: false }
            }
            None => {
                let inserted = insertion(prepared, text, (&dash, DASH.encode_utf8(&mut [0; 4])), &edits);
                Edit { is_unit: false, ..inserted }
            }
        });
    }
    apply(text, edits)
}

fn dashes(text: &str, units: &[Range<usize>]) -> Vec<Range<usize>> {
    let all = text.match_indices(DASH).map(|(start, dash)| start..start + dash.len());
    all.filter(|range| !units.iter().any(|unit| unit.contains(&range.start))).collect()
}

/// A sign in place of an em dash.
struct StandIn {
    range: Range<usize>,
    is_dash: bool,
}

/// Shorter dashes that are not within a word, and signs that part clauses.
fn stand_ins(text: &str) -> Vec<StandIn> {
    let mut found = Vec::new();
    for (start, c) in text.char_indices() {
        let before = text[..start].chars().next_back();
        let after = text[start + c.len_utf8()..].chars().next();
        let in_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let is_dash = c == '–' || c == '-' && !in_word(before) && !in_word(after);
        let parts_clauses = matches!(c, ',' | ':' | ';') && after.is_none_or(char::is_whitespace);
        if is_dash || parts_clauses {
            found.push(StandIn { range: start..start + c.len_utf8(), is_dash });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::{TextOptions, TextRules};

    #[test]
    fn an_output_has_the_dashes_of_its_source() {
        let rules = TextRules::new(&TextOptions::default()).unwrap();
        for (source, written, expected) in [
            (
                "The cat — a black one — ran.",
                "O gato, que é preto, correu.",
                "O gato — que é preto — correu.",
            ),
            ("The cat — a black one — ran.", "O gato – preto – correu.", "O gato — preto — correu."),
            ("Welcome — all.", "Bem-vindos todos.", "Bem-vindos — todos."),
            ("Welcome — all.", "Bem-vindos — todos — vocês.", "Bem-vindos — todos – vocês."),
            ("Welcome all.", "Bem-vindos — todos.", "Bem-vindos — todos."),
        ] {
            assert_eq!(rules.prepare(source).finish(written).text, expected, "{written}");
        }
    }
}
