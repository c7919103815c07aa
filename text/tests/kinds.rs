//! A thousand lines of each kind of unit come back whole from the worst possible models.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use baton_text::{TextOptions, TextRules};
use regex::Regex;

/// Units of each kind; none is a part of another of its kind.
const KINDS: [(&str, &[&str]); 15] = [
    ("printf", &["%s", "%d", "%5.1f", "%1$s", "%lld", "%-10s", "%zu", "%@", "%'u", "%.*e"]),
    (
        "icu",
        &[
            "{n, plural, one {# file} other {# files}}",
            "{g, select, male {{n, plural, one {his} other {all his}}} other {their}}",
            "{when, date, short}",
            "{count}",
        ],
    ),
    ("python", &["{}", "{0}", "{name!r:>10}", "%(count)d", "{0[key]}", "{x:{width}}", "{user.name}", "{:,}"]),
    ("rust and .net", &["{:?}", "{:#x}", "{value:>8.3}", "{0,-10:C}", "{1:N2}", "{2:yyyy-MM-dd}"]),
    (
        "shells and templates",
        &[
            "${HOME}",
            "$PATH",
            "$(prefix)",
            "{{ name }}",
            "{{{raw}}}",
            "{% if x %}",
            "#{x}",
            "%{y}",
            "<%= z %>",
        ],
    ),
    ("qt and dates", &["%1", "%L2", "%Y-%m-%d", "%H:%M", "%n"]),
    ("entities", &["&amp;", "&lt;", "&#169;", "&#x27;", "&eacute;"]),
    (
        "links",
        &[
            "https://example.org/a_(b)?x=1#y",
            "www.example.com/z",
            "ftp://host/pub",
            "mailto:a@example.org",
            "example.net/q",
        ],
    ),
    ("mail", &["a.b@example.org", "first+tag@mail.example.co.uk", "x9@example.net"]),
    (
        "paths",
        &[
            "/etc/passwd",
            "~/.bashrc",
            "C:\\Users\\Public",
            "../src/main.rs",
            "docs/guide.md",
            "--force",
            "setup.py",
            "%APPDATA%\\x.ini",
        ],
    ),
    ("code", &["`ls -l`", "``a`b``", "<code>rm -r</code>", "`{y} < 5`"]),
    ("emoji", &["👍🏽", "👩‍💻", "🇮🇹", "❤️", "1️⃣", "⭐", "🚀"]),
    ("amounts", &["£5", "US$11,000", "-3.5°C", "20%", "10 MB", "7 km/h", "€1,234.50", "3 m²", "USD 40"]),
    (
        "identifiers",
        &["CVE-2024-1234", "x86_64", "CO₂", "getName()", "foo::bar", "C++", "v1.2.3", "#42", "2024-01-31"],
    ),
    ("signs", &["→", "©", "™", "§", "†", "≥", "×", "½", "•", "—", "☐", "®", "′", "₂"]),
];

const NUMBERS: [&str; 9] = ["2", "17", "301", "4,807", "65.25", "9,876,543", "20240131", "7.5", "1984"];

/// Marks around words, and what is between them and the words at each side.
const MARKS: [(&str, &str); 10] = [
    ("**", "**"),
    ("*", "*"),
    ("_", "_"),
    ("__", "__"),
    ("~~", "~~"),
    ("***", "***"),
    ("==", "=="),
    ("[", "](https://example.org/x)"),
    ("![", "](a.png)"),
    ("<b>", "</b>"),
];

const WORDS: &str = "The small editor opens long documents from another disk without any delay";

const SENTENCES: [&str; 8] = [
    "Cannot open the file ?.",
    "? files were deleted from the disk.",
    "Do you want to replace ? with ?, or keep (?) as it is.",
    "The value of ? is not valid!",
    "Welcome \"?\" to the system.",
    "Failed to read ? from ?: the connection was closed.",
    "See ?",
    "Press '?' to continue",
];

/// A generator of numbers that are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

/// The outputs of bad models: the numbers say what they damage.
fn written(seen: &str, writer: usize, numbers: &mut Numbers) -> String {
    let words: Vec<&str> = seen.split(' ').collect();
    match writer {
        0 => seen.to_owned(),
        1 => String::new(),
        2 => "uma frase qualquer sem nada disso, e depois outra.".to_owned(),
        3 => seen.to_lowercase(),
        4 => words.iter().rev().copied().collect::<Vec<_>>().join(" "),
        5 => format!("{seen} {seen}"),
        6 => seen.chars().filter(|_| numbers.below(6) > 0).collect(),
        7 => seen.chars().filter(|c| c.is_alphabetic() || *c == ' ').collect(),
        8 => seen.chars().map(|c| if numbers.below(8) == 0 { '\u{FFFD}' } else { c }).collect(),
        9 => words
            .iter()
            .map(|word| if numbers.below(3) == 0 { "%s {0} <b> X1 X7" } else { word })
            .collect::<Vec<_>>()
            .join(" "),
        _ => seen.replace(' ', ""),
    }
}
const NUM_WRITERS: usize = 11;

#[test]
fn units_of_every_kind_come_back_each_once() {
    let rules =
        TextRules::new(&TextOptions { language: Some("en".to_owned()), ..TextOptions::default() }).unwrap();
    let mut numbers = Numbers(1);
    for (kind, units) in KINDS {
        for line in 0..1000 {
            let mut pieces = numbers.of(&SENTENCES).split('?');
            let mut source = pieces.next().unwrap_or_default().to_owned();
            let mut expected: Vec<&str> = Vec::new();
            for piece in pieces {
                let unit = numbers.of(units);
                source += unit;
                source += piece;
                expected.push(unit);
            }
            let prepared = rules.prepare(&source);
            let output = prepared.finish(&written(prepared.text(), line % NUM_WRITERS, &mut numbers)).text;
            for unit in expected {
                assert_eq!(
                    output.matches(unit).count(),
                    source.matches(unit).count(),
                    "{kind}: {unit:?} of {source:?}, writer {}: {output:?}",
                    line % NUM_WRITERS
                );
            }
            assert!(!output.contains('\u{FFFD}'), "{output:?}");
        }
    }
}

/// The numbers of a text, by their digits.
fn digits(text: &str) -> Vec<String> {
    let number = Regex::new(r"[0-9](?:[0-9.,\u{a0}]*[0-9])?").unwrap();
    let digits = |found: &str| found.chars().filter(char::is_ascii_digit).collect::<String>();
    number.find_iter(text).map(|found| digits(found.as_str())).collect()
}

#[test]
fn numbers_come_back_with_their_digits() {
    let options = TextOptions {
        language: Some("en".to_owned()),
        target_language: Some("pt".to_owned()),
        ..TextOptions::default()
    };
    let rules = TextRules::new(&options).unwrap();
    let mut numbers = Numbers(2);
    for line in 0..1000 {
        let mut pieces = numbers.of(&SENTENCES).split('?');
        let mut source = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            source += numbers.of(&NUMBERS);
            source += piece;
        }
        let prepared = rules.prepare(&source);
        let output = prepared.finish(&written(prepared.text(), line % NUM_WRITERS, &mut numbers)).text;
        let mut found = digits(&output);
        for wanted in digits(&source) {
            let place = found.iter().position(|digits| *digits == wanted);
            assert!(place.is_some(), "{wanted} of {source:?}, writer {}: {output:?}", line % NUM_WRITERS);
            place.map(|place| found.remove(place));
        }
    }
}

#[test]
fn marks_come_back_in_pairs_around_words() {
    let rules =
        TextRules::new(&TextOptions { language: Some("en".to_owned()), ..TextOptions::default() }).unwrap();
    let mut numbers = Numbers(3);
    for line in 0..1000 {
        let (open, close) = MARKS[numbers.below(MARKS.len())];
        let mut words: Vec<String> = WORDS.split(' ').map(str::to_owned).collect();
        let start = numbers.below(words.len());
        let end = start + numbers.below((words.len() - start).min(3));
        words[start].insert_str(0, open);
        words[end] += close;
        let source = words.join(" ") + ".";
        let prepared = rules.prepare(&source);
        let written = written(prepared.text(), line % NUM_WRITERS, &mut numbers);
        let output = prepared.finish(&written).text;
        let message = format!("writer {} of {source:?}: {output:?}", line % NUM_WRITERS);
        for mark in [open, close] {
            assert_eq!(output.matches(mark).count(), source.matches(mark).count(), "{mark} {message}");
        }
        let pair = format!(r"{}\S(?:.*\S)?{}", regex::escape(open), regex::escape(close));
        assert!(written.is_empty() || Regex::new(&pair).unwrap().is_match(&output), "{message}");
    }
}

#[test]
fn invisible_characters_change_nothing() {
    let rules = TextRules::new(&TextOptions::default()).unwrap();
    let mut numbers = Numbers(4);
    let marks = [
        "\u{200b}",
        "\u{200c}",
        "\u{200d}",
        "\u{2060}",
        "\u{feff}",
        "\u{ad}",
        "\u{200e}",
        "\u{200f}",
        "\u{202a}",
        "\u{202c}",
        "\u{2066}",
        "\u{2069}",
        "\u{61c}",
        "\u{34f}",
        "\u{fe0f}",
        "\u{e0041}",
    ];
    for _ in 0..1000 {
        let mut text = WORDS.to_owned();
        for _ in 0..=numbers.below(3) {
            let place = 1 + numbers.below(text.len() - 1);
            if text.is_char_boundary(place) {
                text.insert_str(place, numbers.of(&marks));
            }
        }
        assert_eq!(rules.prepare(&text).text(), WORDS, "{text:?}");
    }
}
