//! A prepared text: its edges, the part that a model sees, and the units to compare with the model's output.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use baton_markup::{Verbatim, Written};

use crate::carrier::Carriers;
use crate::case::Case;
use crate::edges::{close_name, core, open_name};
use crate::normal::Traced;
use crate::unit::{Unit, UnitFinder, UnitKind};
use crate::{Markup, TextRules};

/// A segment's text, split into the part for the model and the parts that are put back.
#[derive(Debug)]
pub struct Prepared<'a> {
    source: Cow<'a, str>,
    /// The text as its document writes it, if that is different.
    written: Option<(&'a str, Written)>,
    pub(crate) rules: &'a TextRules,
    /// Bytes of `source` between its edges; empty if no model is asked.
    pub(crate) core: Range<usize>,
    pub(crate) case: Case,
    pub(crate) shown: Vec<ShownUnit>,
    pub(crate) hidden: Vec<HiddenUnit>,
    text: String,
    origins: Vec<u32>,
}

/// A unit that the model sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownUnit {
    pub(crate) kind: UnitKind,
    /// Its form in the output.
    pub(crate) original: String,
    /// Its form in the source, if that is different.
    pub(crate) source: Option<String>,
    /// Its place in the model's text, bytes.
    pub(crate) place: Range<usize>,
    /// Whether a carrier replaces it.
    pub(crate) is_carried: bool,
    /// Of a term: the source's words as the glossary has them.
    pub(crate) entry: Option<Arc<str>>,
}

/// A unit that the model does not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HiddenUnit {
    pub(crate) original: String,
    pub(crate) role: Role,
    /// The byte of the model's text at which it was cut out.
    pub(crate) place: usize,
    /// White space around it in the source.
    pub(crate) space_before: bool,
    pub(crate) space_after: bool,
}

/// Which side of a place a hidden unit belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Opens a pair: belongs to the following text.
    Opens,
    /// Closes the pair that the hidden unit at this index opened.
    Closes(Option<usize>),
    /// Stands alone.
    Single,
}

impl ShownUnit {
    /// Whether its form in the output is that of the source.
    pub(crate) fn is_as_in_source(&self) -> bool {
        self.source.as_ref().is_none_or(|source| *source == self.original)
    }
}

impl<'a> Prepared<'a> {
    pub(crate) fn of(rules: &'a TextRules, source: &'a str) -> Self {
        let Some(finder) = &rules.finder else { return Self::as_it_is(rules, source) };
        if rules.markup == Markup::None {
            return Self::plain(rules, finder, (Cow::Borrowed(source), Vec::new()));
        }
        let written = Written::of(source, rules.markup);
        let unit = |it: &Verbatim| {
            let kind = if it.is_element { UnitKind::Code } else { UnitKind::Tag };
            Unit::new(kind, it.range.clone())
        };
        let marked = written.verbatim.iter().map(unit).collect();
        let plain = Self::plain(rules, finder, (Cow::Owned(written.text.clone()), marked));
        Prepared { written: Some((source, written)), ..plain }
    }

    /// Of a text that is written plainly, with the units that its markup says.
    fn plain(rules: &'a TextRules, finder: &UnitFinder, (whole, marked): (Cow<'a, str>, Vec<Unit>)) -> Self {
        let source = &*whole;
        let units = finder.find_in_source(source, marked, &rules.terms);
        let core = core(source, &units);
        let inner: Vec<&Unit> = units
            .iter()
            .filter(|unit| core.start <= unit.range.start && unit.range.end <= core.end)
            .collect();
        let mut traced = Traced::default();
        let mut shown: Vec<ShownUnit> = Vec::new();
        let mut hidden: Vec<HiddenUnit> = Vec::new();
        let mut carriers = Carriers::of(&source[core.clone()]);
        let mut at = core.start;
        for unit in inner {
            push_after_hidden(&mut traced, &source[at..unit.range.start], at, &hidden);
            let original = source[unit.range.clone()].to_owned();
            if unit.kind.is_shown() {
                let start = traced.text.len();
                let target = unit.term.as_ref().map(|term| term.target.to_string());
                let (seen, is_carried) = match &target {
                    // the sentence agrees with it
                    Some(target) if *target != original => (target.clone(), false),
                    Some(_) => (carriers.next(), true),
                    None => carriers.seen(&original, unit.kind),
                };
                traced.push_in_place_of(&original, &seen, unit.range.start);
                shown.push(ShownUnit {
                    kind: unit.kind,
                    source: target.as_ref().map(|_| original.clone()),
                    original: target.unwrap_or(original),
                    place: start..traced.text.len(),
                    is_carried,
                    entry: unit.term.as_ref().map(|term| Arc::clone(&term.entry)),
                });
            } else {
                let is_space = |c: Option<char>| c.is_none_or(char::is_whitespace);
                hidden.push(HiddenUnit {
                    role: role(&original, unit.kind, &hidden),
                    place: traced.text.len(),
                    space_before: is_space(source[core.start..unit.range.start].chars().next_back()),
                    space_after: is_space(source[unit.range.end..core.end].chars().next()),
                    original,
                });
                if parts_words(&source[unit.range.clone()], unit.kind) {
                    traced.push_normal(" ", unit.range.start);
                }
            }
            at = unit.range.end;
        }
        push_after_hidden(&mut traced, &source[at..core.end], at, &hidden);
        traced.trim_end();
        let Traced { text, origins } = traced;
        for unit in &mut hidden {
            unit.place = unit.place.min(text.len()); // the space before it may be gone
        }
        let in_unit = |byte: usize| shown.iter().any(|unit| unit.place.contains(&byte));
        let words: String = text.char_indices().filter(|(byte, _)| !in_unit(*byte)).map(|(_, c)| c).collect();
        let case = Case::of(&words);
        let lowered = case.lower(&text, in_unit);
        Prepared { source: whole, written: None, rules, core, case, shown, hidden, text: lowered, origins }
    }

    fn as_it_is(rules: &'a TextRules, source: &'a str) -> Self {
        let start_of = |(start, c): (usize, char)| std::iter::repeat_n(start as u32, c.len_utf8());
        Prepared {
            source: Cow::Borrowed(source),
            written: None,
            rules,
            core: 0..source.len(),
            case: Case::Sentence,
            shown: Vec::new(),
            hidden: Vec::new(),
            text: source.to_owned(),
            origins: source.char_indices().flat_map(start_of).collect(),
        }
    }

    /// The whole text, written plainly.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The whole text as it came.
    pub(crate) fn unchanged(&self) -> &str {
        self.written.as_ref().map_or(&self.source, |(source, _)| source)
    }

    /// A text in place of the source, written as the source's document writes.
    pub(crate) fn written_back(&self, text: String) -> String {
        let Some((_, written)) = &self.written else { return text };
        written.back(&text, &self.rules.units_in(&text))
    }

    /// The text for the model. Empty if there is nothing to translate: the output is then the source.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The bytes of the source from which these bytes of [`Prepared::text`] come. Both are borders of
    /// characters.
    #[must_use]
    pub fn source_range(&self, range: Range<usize>) -> Range<usize> {
        let plain = self.plain_range(range);
        let Some((_, written)) = &self.written else { return plain };
        let origin = |byte: usize| written.origins[byte.min(written.text.len())] as usize;
        origin(plain.start)..origin(plain.end)
    }

    /// The same in the text as it is written plainly.
    fn plain_range(&self, range: Range<usize>) -> Range<usize> {
        let origin = |byte: usize| self.origins.get(byte).map_or(self.core.end, |&origin| origin as usize);
        let start = origin(range.start);
        if range.is_empty() {
            return start..start;
        }
        let last = self.origins[range.end - 1] as usize;
        let end = self.source[last..].chars().next().map_or(last, |c| last + c.len_utf8());
        start..end.max(start)
    }

    /// The terms that the model sees in the form for the output.
    pub(crate) fn terms(&self) -> impl Iterator<Item = &str> {
        let shown = self.shown.iter().filter(|unit| unit.kind == UnitKind::Term && !unit.is_carried);
        shown.map(|unit| unit.original.as_str())
    }

    /// The form in which the model sees a unit.
    pub(crate) fn seen(&self, unit: &ShownUnit) -> &str {
        &self.text[unit.place.clone()]
    }

    /// The bytes of the model's text that are units.
    pub(crate) fn shown_places(&self) -> Vec<Range<usize>> {
        self.shown.iter().map(|unit| unit.place.clone()).collect()
    }

    /// The units of another text, by the same rules.
    pub(crate) fn units_of(&self, text: &str) -> Vec<Unit> {
        self.rules.finder.as_ref().map(|finder| finder.find(text)).unwrap_or_default()
    }
}

/// Appends text. A sign that closes a clause follows the word before it, even if a hidden unit was between.
fn push_after_hidden(traced: &mut Traced, text: &str, start: usize, hidden: &[HiddenUnit]) {
    let is_behind_hidden = hidden
        .last()
        .is_some_and(|unit| unit.place == traced.text.trim_end().len() || unit.place == traced.text.len());
    if is_behind_hidden && text.starts_with(['.', ',', ';', ':', '!', '?', ')']) {
        traced.trim_end();
    }
    traced.push_normal(text, start);
}

fn role(unit: &str, kind: UnitKind, before: &[HiddenUnit]) -> Role {
    let is_closed = |index: usize| before.iter().any(|other| other.role == Role::Closes(Some(index)));
    let open = |opens: &dyn Fn(&HiddenUnit) -> bool| {
        let last = before.iter().enumerate().rev();
        last.filter(|(index, other)| other.role == Role::Opens && !is_closed(*index))
            .find(|(_, other)| opens(other))
            .map(|(index, _)| index)
    };
    match kind {
        UnitKind::Emphasis if unit.starts_with(']') => {
            Role::Closes(open(&|other| other.original.ends_with('[')))
        }
        UnitKind::Emphasis => match open(&|other| other.original == unit) {
            Some(index) => Role::Closes(Some(index)),
            None => Role::Opens,
        },
        UnitKind::Sign if ["{", "<"].contains(&unit) => Role::Opens,
        UnitKind::Sign if unit == "}" => Role::Closes(open(&|other| other.original == "{")),
        UnitKind::Sign if unit == ">" => match open(&|other| other.original == "<") {
            None => Role::Single,
            opener => Role::Closes(opener),
        },
        UnitKind::Tag => match close_name(unit) {
            Some(name) => Role::Closes(open(&|other| open_name(&other.original) == Some(name))),
            None if open_name(unit).is_some() => Role::Opens,
            None => Role::Single,
        },
        _ => Role::Single,
    }
}

/// Whether a model should see a space where the unit was: a line's break or a sign parts words, bold letters
/// do not.
fn parts_words(unit: &str, kind: UnitKind) -> bool {
    match kind {
        UnitKind::Tag => open_name(unit).is_none() && close_name(unit).is_none(),
        UnitKind::Emphasis => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::{TextOptions, TextRules};

    fn model_text(text: &str) -> String {
        TextRules::new(&TextOptions { language: Some("en".to_owned()), ..TextOptions::default() })
            .unwrap()
            .prepare(text)
            .text()
            .to_owned()
    }

    #[test]
    fn a_model_sees_plain_sentences() {
        for (text, seen) in [
            ("- A <b>tool</b>\u{a0}that  reads mail 👍\n", "A tool that reads mail"),
            ("Cannot open {0}.", "Cannot open X1."),
            ("It costs £5 in {a}.", "It costs X1 in X2."),
            ("Line one<br/>line two", "Line one line two"),
            ("H<sub>2</sub>O and more", "H2O and more"),
            ("Written by Иван Петров today", "Written by today"),
            ("OPEN THE FILE %s NOW", "Open the file X1 now"),
            ("Open the file <br/>.", "Open the file."),
            ("=====", ""),
            ("1e-5", ""),
            ("+39 06 1234 5678", ""),
        ] {
            assert_eq!(model_text(text), seen, "{text:?}");
        }
    }

    #[test]
    fn each_piece_of_the_models_text_knows_where_it_comes_from() {
        let rules = TextRules::new(&TextOptions::default()).unwrap();
        let source = "- The cafe\u{301} <b>menu</b>";
        let prepared = rules.prepare(source);
        assert_eq!(prepared.text(), "The café menu");
        let part = |word: &str| {
            let start = prepared.text().find(word).unwrap();
            &source[prepared.source_range(start..start + word.len())]
        };
        assert_eq!(part("The"), "The");
        assert_eq!(part("menu"), "menu");
        assert!("cafe\u{301}".starts_with(part("café")));
    }
}
