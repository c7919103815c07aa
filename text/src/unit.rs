//! Units: the pieces of a text that no model may change, and how they are recognized.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::markdown::{Pair, emphasis, links};
use crate::pattern::accepted;
use crate::plain_words::after_plain_words;
use crate::script::{Script, runs_of_other_scripts};
use crate::term::{FoundTerm, TermFinder};
use crate::{Markup, PatternError, TextOptions};

/// The kinds of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitKind {
    /// A match of one of the job's own patterns.
    Pattern,
    /// A term of the job's glossary.
    Term,
    /// Inline code: `` `x` ``.
    Code,
    /// `http://…`, `https://…`, `ftp://…`, `www.…`.
    Link,
    /// An e-mail address.
    Email,
    /// A tag or comment of HTML or XML.
    Tag,
    /// A character entity: `&amp;`.
    Entity,
    /// A variable of printf, ICU, Python, Rust, .NET, Qt, a shell or a template.
    Placeholder,
    /// Marks of Markdown: of emphasis, such as `**`, and around the text of a link.
    Emphasis,
    /// A file's path with a slash or backslash, or a long option of a command.
    Path,
    /// A number with a currency or a symbol of a unit: `£5`, `-5°C`, `20 %`.
    Amount,
    /// Letters and digits in one word, with a capital, an underscore or a small figure: `CVE-2024-1`, `CO₂`.
    Identifier,
    /// Emoji, flags.
    Emoji,
    /// Arrows, check marks, mathematical signs and other signs.
    Sign,
    /// A run of letters of another script than most of the text.
    Script,
}

impl UnitKind {
    /// Every kind, in the order in which patterns are tried.
    pub const ALL: [UnitKind; 15] = [
        UnitKind::Pattern,
        UnitKind::Term,
        UnitKind::Code,
        UnitKind::Link,
        UnitKind::Email,
        UnitKind::Tag,
        UnitKind::Entity,
        UnitKind::Placeholder,
        UnitKind::Emphasis,
        UnitKind::Path,
        UnitKind::Emoji,
        UnitKind::Amount,
        UnitKind::Identifier,
        UnitKind::Sign,
        UnitKind::Script,
    ];

    /// The name in options and warnings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            UnitKind::Pattern => "pattern",
            UnitKind::Term => "term",
            UnitKind::Code => "code",
            UnitKind::Link => "link",
            UnitKind::Email => "email",
            UnitKind::Tag => "tag",
            UnitKind::Entity => "entity",
            UnitKind::Placeholder => "placeholder",
            UnitKind::Emphasis => "emphasis",
            UnitKind::Path => "path",
            UnitKind::Amount => "amount",
            UnitKind::Identifier => "identifier",
            UnitKind::Emoji => "emoji",
            UnitKind::Sign => "sign",
            UnitKind::Script => "script",
        }
    }

    /// Whether a model sees it: units that take part in the sentence are shown, units that decorate it are
    /// not.
    pub(crate) fn is_shown(self) -> bool {
        !matches!(
            self,
            UnitKind::Tag | UnitKind::Emphasis | UnitKind::Emoji | UnitKind::Sign | UnitKind::Script
        )
    }

    /// Whether a model sees a carrier in its place.
    pub(crate) fn is_carried(self) -> bool {
        matches!(
            self,
            UnitKind::Pattern
                | UnitKind::Code
                | UnitKind::Link
                | UnitKind::Email
                | UnitKind::Entity
                | UnitKind::Placeholder
                | UnitKind::Path
        )
    }

    /// Whether an output loses a surplus one. A translation may rightly have one more of the other kinds,
    /// such as a number written with a sign.
    pub(crate) fn is_never_invented(self) -> bool {
        !matches!(
            self,
            UnitKind::Amount
                | UnitKind::Identifier
                | UnitKind::Sign
                | UnitKind::Script
                | UnitKind::Pattern
                | UnitKind::Term
                | UnitKind::Path
        )
    }
}

impl std::str::FromStr for UnitKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        UnitKind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            let known = UnitKind::ALL.map(UnitKind::as_str).join(", ");
            format!("there is no kind of unit `{name}`; known are {known}")
        })
    }
}

/// A unit in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) kind: UnitKind,
    /// Bytes of the text.
    pub(crate) range: Range<usize>,
    /// Of a term: its text in the output.
    pub(crate) term: Option<UnitTerm>,
}

/// A glossary's statement about a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitTerm {
    /// The text in its place in the output.
    pub(crate) target: Arc<str>,
    /// The source's words as the glossary has them.
    pub(crate) entry: Arc<str>,
}

impl Unit {
    pub(crate) fn new(kind: UnitKind, range: Range<usize>) -> Self {
        Unit { kind, range, term: None }
    }
}

/// Finds units: one pattern for all kinds, and checks of the text around a match.
#[derive(Debug)]
pub(crate) struct UnitFinder {
    regex: Regex,
    /// The capture group of each kind.
    groups: Vec<(usize, UnitKind)>,
    /// The texts' own script; `None` is that of most letters.
    script: Option<Script>,
    finds_scripts: bool,
    finds_markdown: bool,
    /// Whether no pattern finds anything in plain words: not if the job has its own.
    skips_words: bool,
}

/// The pattern of jobs with default settings, kept because compiling one takes long.
static USUAL: LazyLock<Regex> =
    LazyLock::new(|| compiled(&[], &[]).expect("the patterns of all kinds are valid"));

/// One pattern for all kinds but those in `unprotected`, with a group for each, and for `patterns`.
fn compiled(patterns: &[String], unprotected: &[UnitKind]) -> Result<Regex, PatternError> {
    let mut alternatives = Vec::new();
    if !patterns.is_empty() {
        alternatives.push(format!("(?P<{}>{})", UnitKind::Pattern.as_str(), patterns.join("|")));
    }
    for kind in UnitKind::ALL {
        let patterns = kind.patterns();
        if !patterns.is_empty() && !unprotected.contains(&kind) {
            alternatives.push(format!("(?P<{}>{})", kind.as_str(), patterns.join("|")));
        }
    }
    if alternatives.is_empty() {
        alternatives.push(r"[^\s\S]".to_owned()); // finds nothing
    }
    let all = alternatives.join("|");
    Regex::new(&all).map_err(|error| PatternError { pattern: patterns.join("|"), reason: error.to_string() })
}

impl UnitFinder {
    pub(crate) fn new(options: &TextOptions) -> Result<Self, PatternError> {
        let TextOptions { protect: patterns, unprotected, language, .. } = options;
        for pattern in patterns {
            let invalid = |reason: String| PatternError { pattern: pattern.clone(), reason };
            let regex = Regex::new(pattern).map_err(|error| invalid(error.to_string()))?;
            if regex.is_match("") {
                return Err(invalid("it matches the empty text".to_owned()));
            }
            if regex.captures_len() > 1 && regex.capture_names().flatten().next().is_some() {
                return Err(invalid("named groups are not allowed; use (?:...)".to_owned()));
            }
        }
        let regex = match patterns.is_empty() && unprotected.is_empty() {
            true => USUAL.clone(),
            false => compiled(patterns, unprotected)?,
        };
        let names = regex.capture_names().enumerate();
        let groups = names.filter_map(|(group, name)| Some((group, name?.parse().ok()?))).collect();
        let script = language.as_deref().map(Script::of_language);
        let finds = |kind| !unprotected.contains(&kind);
        let finds_scripts = finds(UnitKind::Script);
        let finds_markdown = finds(UnitKind::Emphasis) && options.markup != Markup::Html;
        let skips_words = patterns.is_empty();
        Ok(UnitFinder { regex, groups, script, finds_scripts, finds_markdown, skips_words })
    }

    /// The units of a text that is to be translated, terms among them, in order; none overlap. `marked`: the
    /// units that the text's markup says.
    pub(crate) fn find_in_source(&self, text: &str, marked: Vec<Unit>, terms: &TermFinder) -> Vec<Unit> {
        let mut units = self.find(text);
        if !marked.is_empty() {
            units.retain(|unit| marked.iter().all(|other| !overlap(&other.range, &unit.range)));
            units.extend(marked);
            units.sort_by_key(|unit| unit.range.start);
        }
        for FoundTerm { range, target, entry } in terms.find(text) {
            let gives_way = |unit: &Unit| matches!(unit.kind, UnitKind::Identifier | UnitKind::Script);
            if units.iter().all(|unit| gives_way(unit) || !overlap(&unit.range, &range)) {
                units.retain(|unit| !overlap(&unit.range, &range));
                let term = Some(UnitTerm { target, entry });
                units.push(Unit { kind: UnitKind::Term, range, term });
            }
        }
        units.sort_by_key(|unit| unit.range.start);
        units
    }

    /// The units of a text except terms, in order; none overlap.
    pub(crate) fn find(&self, text: &str) -> Vec<Unit> {
        let mut units = Vec::new();
        let mut at = 0;
        loop {
            if self.skips_words {
                at = after_plain_words(text, at);
            }
            if at >= text.len() {
                break;
            }
            let Some(captures) = self.regex.captures_at(text, at) else { break };
            let whole = captures.get(0).expect("a match has a whole").range();
            let mut groups = self.groups.iter().filter(|(group, _)| captures.get(*group).is_some());
            let kind = groups.next().expect("each kind is a group").1;
            let unit = accepted(text, kind, whole.clone()).map(|range| (kind, range));
            match unit.or_else(|| self.sign(text, kind, whole.start)) {
                Some((kind, range)) => {
                    at = range.end;
                    units.push(Unit::new(kind, range));
                }
                None => {
                    let step = match kind {
                        UnitKind::Identifier => whole.len(), // a word that is none is passed as a whole
                        _ => text[whole.start..].chars().next().map_or(1, char::len_utf8),
                    };
                    at = whole.start + step;
                }
            }
        }
        join_placeholders(text, &mut units);
        if self.finds_markdown {
            add_markdown(text, &mut units);
        }
        if self.finds_scripts {
            let is_free = |run: &Range<usize>| {
                units.iter().all(|unit| unit.range.end <= run.start || run.end <= unit.range.start)
            };
            let mut runs = runs_of_other_scripts(text, self.script);
            runs.retain(is_free);
            units.extend(runs.into_iter().map(|range| Unit::new(UnitKind::Script, range)));
            units.sort_by_key(|unit| unit.range.start);
        }
        units
    }
}

impl UnitFinder {
    /// A brace or a similar character that begins no placeholder is a sign.
    fn sign(&self, text: &str, kind: UnitKind, start: usize) -> Option<(UnitKind, Range<usize>)> {
        let is_brace = kind == UnitKind::Placeholder && text[start..].starts_with(['{', '\\', '@', '#']);
        let first = text[start..].chars().next().filter(|c| !c.is_ascii() && !c.is_alphabetic());
        let is_sign = is_brace || kind == UnitKind::Identifier && first.is_some();
        (is_sign && self.groups.iter().any(|(_, kind)| *kind == UnitKind::Sign))
            .then_some((UnitKind::Sign, start..start + first.map_or(1, char::len_utf8)))
    }
}

/// Placeholders that touch, or have only a sign or a digit between them, are one: "%d/%m", "{x}:{y}".
fn join_placeholders(text: &str, units: &mut Vec<Unit>) {
    let is_percent = |unit: &Unit| text[unit.range.clone()].starts_with('%');
    let is_joint = |gap: &str| {
        gap.len() <= 3
            && gap.chars().all(|c| !c.is_whitespace() && !"()[]{}<>\"'“”‘’".contains(c))
            && gap.chars().all(|c| !c.is_alphabetic() || c == 'x')
    };
    units.dedup_by(|unit, previous| {
        let joins = [unit.kind, previous.kind] == [UnitKind::Placeholder; 2] && {
            let gap = &text[previous.range.end..unit.range.start];
            let is_list = [" ", ", "].contains(&gap) && is_percent(unit) && is_percent(previous);
            is_joint(gap) || is_list // the order of "%s %s" counts
        };
        if joins {
            previous.range.end = unit.range.end;
        }
        joins
    });
}

/// Adds the marks of Markdown that are not part of another unit; a link's target may itself be a unit.
fn add_markdown(text: &str, units: &mut Vec<Unit>) {
    let mut marks: Vec<Range<usize>> = Vec::new();
    for Pair { open, close } in links(text) {
        let is_free = units.iter().all(|unit| {
            let is_in_target = close.start <= unit.range.start && unit.range.end <= close.end;
            is_in_target || !overlap(&unit.range, &open) && !overlap(&unit.range, &close)
        });
        if is_free {
            units.retain(|unit| !overlap(&unit.range, &close));
            marks.extend([open, close]);
        }
    }
    // a run of signs such as "~~" is a mark where it has a partner
    let taken = |range: &Range<usize>| {
        let gives_way = |unit: &Unit| unit.kind == UnitKind::Sign && unit.range == *range;
        let is_taken = |unit: &Unit| overlap(&unit.range, range) && !gives_way(unit);
        units.iter().any(is_taken) || marks.iter().any(|mark| overlap(mark, range))
    };
    let pairs = emphasis(text, taken);
    for mark in pairs.into_iter().flat_map(|Pair { open, close }| [open, close]) {
        units.retain(|unit| unit.range != mark);
        marks.push(mark);
    }
    units.extend(marks.into_iter().map(|range| Unit::new(UnitKind::Emphasis, range)));
    units.sort_by_key(|unit| unit.range.start);
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(protect: &[&str], unprotected: &[UnitKind]) -> TextOptions {
        let protect = protect.iter().map(|&pattern| pattern.to_owned()).collect();
        TextOptions { protect, unprotected: unprotected.to_vec(), ..TextOptions::default() }
    }

    fn units(text: &str) -> Vec<(&str, UnitKind)> {
        let finder =
            UnitFinder::new(&TextOptions { language: Some("en".to_owned()), ..TextOptions::default() })
                .unwrap();
        finder.find(text).into_iter().map(|unit| (&text[unit.range], unit.kind)).collect()
    }

    #[test]
    fn ordinary_text_has_no_units() {
        for text in [
            "It is 100% certain, or is it?",
            "He and/or she came on the 3rd of May in the 1990s at 10PM.",
            "A list [1, 2] and a pair (a, b) are not the same.",
            "Tom & Jerry, 5 = 6, a * b, and it's 3.14.",
            "Don't stop -- it works; see the well-known example (above).",
        ] {
            let found: Vec<_> =
                units(text).into_iter().filter(|(_, kind)| *kind != UnitKind::Amount).collect();
            assert_eq!(found, [], "{text}");
        }
    }

    #[test]
    fn other_units_are_found_whole() {
        use UnitKind::{
            Amount, Code, Email, Emoji, Emphasis, Entity, Identifier, Link, Path, Script, Sign, Tag,
        };
        let cases: [(&str, &[(&str, UnitKind)]); 17] = [
            (
                "See https://example.org/a_(b)?x=1, or (www.example.org).",
                &[("https://example.org/a_(b)?x=1", Link), ("www.example.org", Link)],
            ),
            ("Write to a.b@example.org.", &[("a.b@example.org", Email)]),
            (
                "A <b>bold</b> word<br/> &amp; more",
                &[("<b>", Tag), ("</b>", Tag), ("<br/>", Tag), ("&amp;", Entity)],
            ),
            ("Run `ls -l` **now**.", &[("`ls -l`", Code), ("**", Emphasis), ("**", Emphasis)]),
            ("Run it ~~now~~ ~ soon.", &[("~~", Emphasis), ("~~", Emphasis), ("~", Sign)]),
            ("Two ** stars", &[]),
            (
                "In /etc/passwd and ~/.bashrc, with --force.",
                &[("/etc/passwd", Path), ("~/.bashrc", Path), ("--force", Path)],
            ),
            ("It costs US$11,000 then.", &[("US$11,000", Amount)]),
            ("It costs £5 or 20 % at -5°C.", &[("£5", Amount), ("20 %", Amount), ("-5°C", Amount)]),
            ("At 10 MB and 3.5 kg.", &[("10 MB", Amount), ("3.5 kg", Amount)]),
            (
                "Fix CVE-2024-1234 in x86_64 for IPv6 and CO₂.",
                &[
                    ("CVE-2024-1234", Identifier),
                    ("x86_64", Identifier),
                    ("IPv6", Identifier),
                    ("CO₂", Identifier),
                ],
            ),
            ("Well done 👍🏽 and 🇮🇹!", &[("👍🏽", Emoji), ("🇮🇹", Emoji)]),
            ("Done → next ✓", &[("→", Sign), ("✓", Emoji)]),
            ("© 2024", &[("©", Sign)]),
            ("Written by Иван Петров.", &[("Иван Петров", Script)]),
            ("Written by 山田.", &[("山田", Script)]),
            ("Из Москвы", &[("Из Москвы", Script)]),
        ];
        for (text, expected) in cases {
            assert_eq!(units(text), expected, "{text}");
        }
    }

    #[test]
    fn passing_over_plain_words_changes_no_units() {
        const PIECES: &str = "a word The USD EUR R US invenção Ω ß 5 20 3.5 % kg °C $ € . , : ; ! ? - -- _ \
            / \\ @ # & amp; <b> </b> {x} %s ` * ( ) com txt www. :// ⓐ → 👍";
        let pieces: Vec<&str> = PIECES.split(' ').collect();
        let finder = |skips_words| {
            let options = TextOptions { language: Some("en".to_owned()), ..TextOptions::default() };
            UnitFinder { skips_words, ..UnitFinder::new(&options).unwrap() }
        };
        let (skipping, plain) = (finder(true), finder(false));
        let mut state = 7_u64;
        let mut next = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        for _ in 0..4000 {
            let mut text = String::new();
            for _ in 0..next(14) {
                text.push_str(pieces[next(pieces.len())]);
                text.push_str(["", " ", " ", "  ", "\n"][next(5)]);
            }
            assert_eq!(skipping.find(&text), plain.find(&text), "{text:?}");
        }
    }

    #[test]
    fn a_job_can_add_patterns_and_leave_kinds_to_the_model() {
        let finder = UnitFinder::new(&options(&["ACME \\w+"], &[UnitKind::Emoji])).unwrap();
        let text = "The ACME Rocket 🚀 flies.";
        let found = finder.find(text);
        assert_eq!(&text[found[0].range.clone()], "ACME Rocket");
        assert!(found.iter().all(|unit| unit.kind != UnitKind::Emoji));
        let error = UnitFinder::new(&options(&["a("], &[])).unwrap_err().to_string();
        assert!(error.contains("`a(`"), "{error}");
        assert!(UnitFinder::new(&options(&["x*"], &[])).is_err());
    }
}
