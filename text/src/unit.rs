//! Units: the pieces of a text that no model may change, and how they are recognized.

use std::ops::Range;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::script::{Script, runs_of_other_scripts};
use crate::{PatternError, TextOptions};

/// The kinds of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitKind {
    /// A match of one of the job's own patterns.
    Pattern,
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
    /// Markdown's `**`, `__`, `~~`, and the target of its links.
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
    pub const ALL: [UnitKind; 14] = [
        UnitKind::Pattern,
        UnitKind::Code,
        UnitKind::Link,
        UnitKind::Email,
        UnitKind::Tag,
        UnitKind::Entity,
        UnitKind::Placeholder,
        UnitKind::Emphasis,
        UnitKind::Path,
        UnitKind::Amount,
        UnitKind::Identifier,
        UnitKind::Emoji,
        UnitKind::Sign,
        UnitKind::Script,
    ];

    /// The name in options and warnings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            UnitKind::Pattern => "pattern",
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

    /// Whether a model sees it: what takes part in the sentence does, what decorates it does not.
    pub(crate) fn is_shown(self) -> bool {
        !matches!(
            self,
            UnitKind::Tag | UnitKind::Emphasis | UnitKind::Emoji | UnitKind::Sign | UnitKind::Script
        )
    }

    /// Whether an output that has one too many loses it. Of the other kinds a translation may well have one
    /// of its own, such as a number written with a sign.
    pub(crate) fn is_never_invented(self) -> bool {
        !matches!(
            self,
            UnitKind::Amount
                | UnitKind::Identifier
                | UnitKind::Sign
                | UnitKind::Script
                | UnitKind::Pattern
                | UnitKind::Path
        )
    }

    /// The pattern of all units of the kind, tried at a place in the order of [`UnitKind::ALL`].
    fn pattern(self) -> &'static str {
        match self {
            UnitKind::Pattern | UnitKind::Script => unreachable!("these kinds have no fixed pattern"),
            UnitKind::Code => r"``[^\n]+?``|`[^`\n]+`",
            UnitKind::Link => r"(?:(?:https?|ftp|file)://|www\.)[^\s<>\x22“”«»`]+",
            UnitKind::Email => r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
            UnitKind::Tag => r"<!--.*?-->|</?[A-Za-z][A-Za-z0-9:_-]*(?:\s[^<>]*)?/?>",
            UnitKind::Entity => r"&(?:\#[0-9]+|\#[xX][0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]+);",
            UnitKind::Placeholder => concat!(
                r"\{\{[^{}]*\}\}|\{%[^{}]*%\}|\$\{[^{}\s]*\}|\$\([A-Za-z_][A-Za-z0-9_]*\)",
                r"|\{\s*\w+\s*,\s*(?:plural|select|selectordinal|number|date|time)\b(?:[^{}]|\{[^{}]*\})*\}",
                r"|\{[A-Za-z0-9_]*(?:[.\[][\w.\[\]]*)?(?:![rsa])?(?::[^{}\n]*)?\}",
                r"|%\([A-Za-z_][\w.]*\)[-\#0+]*[0-9]*(?:\.[0-9]+)?[A-Za-z]",
                r"|%(?:[0-9]+\$)?[-+\#0]*(?:[0-9]+|\*)?(?:\.(?:[0-9]+|\*))?(?:hh|h|ll|l|z|j|t|L)?[diouxXeEfFgGcspn@]",
                r"|%L?[0-9]{1,2}\b|%%|%[A-Za-z_]+%|\[\[[^\[\]\n]+\]\]|@[A-Z][A-Z0-9_]+@|[$@][A-Za-z_][A-Za-z0-9_]*|\\[nrt]\b",
            ),
            UnitKind::Emphasis => r"\*\*\*|\*\*|~~|\]\([^()\s]+\)",
            UnitKind::Path => {
                r"(?:[A-Za-z]:\\|~/|\.{1,2}/|/)[\w.+@-]+(?:[/\\][\w.+@*-]+)*[/\\]?|--[a-z][a-z0-9-]+(?:=[^\s,;.)]+)?"
            }
            UnitKind::Amount => concat!(
                r"[-+±−]?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]+\b|",
                r"[-+±−]?(?:US|R|AU|CA|NZ|HK|A|C)?[€$£¥₹]\s?[0-9](?:[0-9.,]*[0-9])?(?:\s?(?:[kKMB]|bn|mln)\b)?",
                r"|[-+±−]?[0-9](?:[0-9.,]*[0-9])?[\s\u{a0}]?(?:%|‰|°\s?[CFK]?\b|°|€|£|¥|₹|[µμ][mgslV]\b)",
                r"|[-+±−]?[0-9](?:[0-9.,]*[0-9])?[\s\u{a0}]?(?:[kMGT]i?[Bb]|[kMG]Hz|[kcm]m[²³]?|mg|kg|kW|kWh|mA|mAh|ms|dB|dpi|px)\b",
            ),
            UnitKind::Identifier => r"[A-Za-z0-9_₀-₉⁰-⁹²³¹]+(?:[-_.+/][A-Za-z0-9_₀-₉⁰-⁹²³¹]+)*",
            UnitKind::Emoji => {
                r"(?:[\u{1F1E6}-\u{1F1FF}]{2}|[\u{1F300}-\u{1FAFF}\u{2600}-\u{27BF}\u{2B00}-\u{2BFF}][\u{FE0F}\u{1F3FB}-\u{1F3FF}]?(?:\u{200D}[\u{1F300}-\u{1FAFF}\u{2600}-\u{27BF}]\u{FE0F}?)*|[0-9\#*]\u{FE0F}?\u{20E3})+"
            }
            UnitKind::Sign => r"[\p{So}\p{Sm}&&[^+<>=|~^¬]]+",
        }
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
}

/// Finds units: one pattern for all kinds, and checks of what stands around a match.
#[derive(Debug)]
pub(crate) struct UnitFinder {
    regex: Regex,
    /// The kind of each capture group, from the first.
    groups: Vec<UnitKind>,
    /// The texts' own script; `None` is that of most letters.
    script: Option<Script>,
    finds_scripts: bool,
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
        let mut alternatives = Vec::new();
        let mut groups = Vec::new();
        if !patterns.is_empty() {
            alternatives.push(format!("(?P<u{}>{})", groups.len(), patterns.join("|")));
            groups.push(UnitKind::Pattern);
        }
        for kind in UnitKind::ALL {
            if matches!(kind, UnitKind::Pattern | UnitKind::Script) || unprotected.contains(&kind) {
                continue;
            }
            alternatives.push(format!("(?P<u{}>{})", groups.len(), kind.pattern()));
            groups.push(kind);
        }
        let all = alternatives.join("|");
        let regex = Regex::new(&all)
            .map_err(|error| PatternError { pattern: patterns.join("|"), reason: error.to_string() })?;
        let script = language.as_deref().map(Script::of_language);
        Ok(UnitFinder { regex, groups, script, finds_scripts: !unprotected.contains(&UnitKind::Script) })
    }

    /// The units of a text, in order; none overlap.
    pub(crate) fn find(&self, text: &str) -> Vec<Unit> {
        let mut units = Vec::new();
        let mut at = 0;
        while let Some(captures) = self.regex.captures_at(text, at) {
            let whole = captures.get(0).expect("a match has a whole").range();
            let kind = (0..self.groups.len())
                .find(|group| captures.name(&format!("u{group}")).is_some())
                .map_or(UnitKind::Pattern, |group| self.groups[group]);
            match accepted(text, kind, whole.clone()) {
                Some(range) => {
                    at = range.end;
                    units.push(Unit { kind, range });
                }
                None => {
                    let step = match kind {
                        UnitKind::Identifier => whole.len(), // a word that is none is passed as a whole
                        _ => text[whole.start..].chars().next().map_or(1, char::len_utf8),
                    };
                    at = whole.start + step;
                }
            }
            if at >= text.len() {
                break;
            }
        }
        unpaired_emphasis_is_text(text, &mut units);
        if self.finds_scripts {
            let is_free = |run: &Range<usize>| {
                units.iter().all(|unit| unit.range.end <= run.start || run.end <= unit.range.start)
            };
            let mut runs = runs_of_other_scripts(text, self.script);
            runs.retain(is_free);
            units.extend(runs.into_iter().map(|range| Unit { kind: UnitKind::Script, range }));
            units.sort_by_key(|unit| unit.range.start);
        }
        units
    }
}

/// The part of a match that is the unit, judged by the text around it.
fn accepted(text: &str, kind: UnitKind, range: Range<usize>) -> Option<Range<usize>> {
    let before = text[..range.start].chars().next_back();
    let after = text[range.end..].chars().next();
    let found = &text[range.clone()];
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match kind {
        UnitKind::Link => {
            let kept = without_sentence_end(found);
            (kept.len() > 8 && !in_word(before)).then(|| range.start..range.start + kept.len())
        }
        UnitKind::Email | UnitKind::Amount => (!in_word(before)).then_some(range),
        UnitKind::Placeholder if found.starts_with('%') => {
            let is_percentage = before.is_some_and(|c| c.is_ascii_digit() || c == '%');
            (!is_percentage).then_some(range)
        }
        UnitKind::Placeholder if found.starts_with(['$', '@']) && found.len() > 1 => {
            (!in_word(before)).then_some(range)
        }
        UnitKind::Path => {
            let kept = found.trim_end_matches(['.', ',', '-']);
            let starts_free = before.is_none_or(|c| c.is_whitespace() || "\"'(«“[=:".contains(c));
            let is_one_step = found.starts_with('/') && !kept[1..].contains('/') && kept.len() < 3;
            (starts_free && !is_one_step && kept.len() > 1).then(|| range.start..range.start + kept.len())
        }
        UnitKind::Identifier => {
            let is_whole = !in_word(before) && after.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
            (is_whole && is_identifier(found)).then_some(range)
        }
        _ => Some(range),
    }
}

/// A link without the full stop or bracket behind it that belongs to the sentence.
fn without_sentence_end(link: &str) -> &str {
    let mut link = link;
    loop {
        let shorter = link.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '*']);
        let shorter = match shorter.strip_suffix(')') {
            Some(rest) if !rest.contains('(') => rest,
            _ => match shorter.strip_suffix(']') {
                Some(rest) if !rest.contains('[') => rest,
                _ => shorter,
            },
        };
        if shorter.len() == link.len() {
            return link;
        }
        link = shorter;
    }
}

/// Whether a word is the same in every language: it mixes letters and digits, and has a capital, an
/// underscore or a small figure. Excludes "3rd", "1990s", "10PM".
fn is_identifier(word: &str) -> bool {
    let has = |test: fn(char) -> bool| word.chars().any(test);
    let is_small_figure = |c: char| "₀₁₂₃₄₅₆₇₈₉⁰⁴⁵⁶⁷⁸⁹²³¹".contains(c);
    if has(is_small_figure) {
        return has(char::is_alphabetic);
    }
    if word.contains('_') {
        return has(|c| c.is_ascii_alphabetic());
    }
    let is_time = word.ends_with("AM") || word.ends_with("PM");
    has(|c| c.is_ascii_digit()) && has(|c| c.is_ascii_uppercase()) && !is_time
}

/// Emphasis marks come in pairs; one that is left over is text, and so is a link's end without a bracket
/// before it.
fn unpaired_emphasis_is_text(text: &str, units: &mut Vec<Unit>) {
    for mark in ["***", "**", "~~"] {
        let places: Vec<usize> = units
            .iter()
            .enumerate()
            .filter(|(_, unit)| unit.kind == UnitKind::Emphasis && &text[unit.range.clone()] == mark)
            .map(|(place, _)| place)
            .collect();
        if places.len() % 2 == 1 {
            units.remove(places[places.len() - 1]);
        }
    }
    units.retain(|unit| unit.kind != UnitKind::Emphasis || !text[unit.range.clone()].starts_with(']'));
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
    fn placeholders_of_every_kind_are_units() {
        for placeholder in [
            "%s",
            "%d",
            "%1$s",
            "%-5d",
            "%.2f",
            "%lu",
            "%(count)d",
            "%1",
            "%L2",
            "{0}",
            "{}",
            "{name}",
            "{0:N2}",
            "{value!r:>10}",
            "{{ user.name }}",
            "${HOME}",
            "$HOME",
            "$(prefix)",
            "{% if x %}",
            "%%",
            "@VERSION@",
            "[[link]]",
            "@name",
            "{count, plural, one {# file} other {# files}}",
            "%@",
            "%PATH%",
        ] {
            let text = format!("Cannot open {placeholder} now.");
            assert_eq!(units(&text), [(placeholder, UnitKind::Placeholder)], "{text}");
        }
    }

    #[test]
    fn ordinary_text_has_no_units() {
        for text in [
            "It is 100% certain, or is it?",
            "He and/or she came on the 3rd of May in the 1990s at 10PM.",
            "A set {a, b} and a list [1, 2] are not the same.",
            "Tom & Jerry, 5 < 6, a * b, and it's 3.14.",
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
        let cases: [(&str, &[(&str, UnitKind)]); 16] = [
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
