//! Texts come back whole, whatever a model writes.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::sync::LazyLock;

use baton_text::{TextOptions, TextRules};
use proptest::prelude::*;

static RULES: LazyLock<TextRules> = LazyLock::new(|| {
    TextRules::new(&TextOptions { language: Some("en".to_owned()), ..TextOptions::default() }).unwrap()
});

fn rules() -> &'static TextRules {
    &RULES
}

/// The result for `source` if a model writes `written` for it.
fn finished(source: &str, written: &str) -> String {
    rules().prepare(source).finish(written).text
}

#[test]
fn damaged_units_are_mended_and_missing_ones_placed() {
    for (source, written, expected) in [
        (
            "Copy ${HOME} to the new directory.",
            "Copia $(HOME} nella nuova cartella.",
            "Copia ${HOME} nella nuova cartella.",
        ),
        ("Cannot open the file {0}.", "Impossibile aprire il file 0.", "Impossibile aprire il file 0 {0}."),
        ("Cannot open the file %s.", "Impossibile aprire il file.", "Impossibile aprire il file %s."),
        (
            "The value of %(count)d is not valid.",
            "Il valore di <count)d non è valido.",
            "Il valore di %(count)d non è valido.",
        ),
        ("%s files were deleted.", "i file sono stati eliminati.", "%s i file sono stati eliminati."),
        ("It costs £5 now.", "Ora costa 5.", "Ora costa £5."),
        (
            "Visit https://example.org/a?b=1 now.",
            "Visita https://esempio.org/a?b=1 ora.",
            "Visita https://example.org/a?b=1 ora.",
        ),
        ("From US$11,000 to $22,500.", "De US$ 1,000 a US$ 2500.", "De US$11,000 a $22,500."),
        ("At 160km/h now.", "A 160 km/h agora.", "A 160km/h agora."),
        ("It emits CO₂ all day.", "Emette CO\u{FFFD} tutto il giorno.", "Emette CO₂ tutto il giorno."),
    ] {
        assert_eq!(finished(source, written), expected, "{source}");
    }
}

#[test]
fn edges_and_tags_keep_the_places_of_the_source() {
    for (source, written, expected) in [
        (
            "- A <b>tool</b> for mail 👍\n",
            "Uno strumento per la posta",
            "- Uno <b>strumento</b> per la posta 👍\n",
        ),
        (
            "plugin for <a href=\"x\">xfce4-panel</a> to show",
            "plugin che mostra xfce4-panel",
            "plugin che mostra <a href=\"x\">xfce4-panel</a>",
        ),
        ("<p>A tool.</p>", "Uno strumento.", "<p>Uno strumento.</p>"),
        ("A **bold** word", "Una parola grassetta", "Una **parola** grassetta"),
        ("a tool → done", "uno strumento fatto", "uno strumento → fatto"),
        ("[The](a.png) meeting was moved.", "La riunione è spostata.", "[La](a.png) riunione è spostata."),
        ("![The](a.png) meeting was moved.", "La riunione è spostata.", "![La](a.png) riunione è spostata."),
        ("OPEN THE FILE NOW", "Apri il file ora", "APRI IL FILE ORA"),
    ] {
        assert_eq!(finished(source, written), expected, "{source}");
    }
}

#[test]
fn text_without_letters_is_its_own_output() {
    let rules = rules();
    for text in ["-----", "+39 06 1234 5678", " £5 ", "😀", "| 1 | 2 |", "", "https://example.org/"] {
        let prepared = rules.prepare(text);
        assert_eq!(prepared.text(), "");
        assert_eq!(prepared.finish("noise").text, text);
    }
}

#[test]
fn a_summary_may_leave_units_out_but_alters_none() {
    let rules = TextRules::new(&TextOptions { may_leave_out: true, ..TextOptions::default() }).unwrap();
    let prepared = rules.prepare("Reads {name} from https://example.org/a/b and writes.");
    assert_eq!(prepared.finish("Legge.").text, "Legge.");
    assert_eq!(prepared.finish("Legge https://example.org/a/c.").text, "Legge https://example.org/a/b.");
}

const UNITS: [&str; 14] = [
    "%s",
    "{0}",
    "${HOME}",
    "%(n)d",
    "{{ x }}",
    "<br/>",
    "&amp;",
    "https://example.org/x",
    "`code x`",
    "£5",
    "/etc/x/y",
    "IPv6",
    "👍",
    "→",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The output has each unit of the source as often as the source, whatever the model writes.
    #[test]
    fn every_unit_of_the_source_is_in_the_output(
        pieces in proptest::collection::vec((0..UNITS.len(), "[a-z]{2,6}"), 1..5),
        written in "[a-zA-Z0-9%{}$<> .&/£]{0,40}",
    ) {
        let source: Vec<String> =
            pieces.iter().map(|(unit, word)| format!("{word} {}", UNITS[*unit])).collect();
        let source = source.join(" ");
        let output = finished(&source, &written);
        for unit in UNITS {
            let count = |text: &str| text.matches(unit).count();
            prop_assert!(count(&output) >= count(&source), "{unit} of {source:?} in {output:?}");
        }
    }

    /// Tags are placed in pairs that nest.
    #[test]
    fn tags_nest_for_any_output(
        written in "[a-z]{1,5}( [a-z]{1,5}){0,8}[.]?",
        inner in "[a-z]{3,5}",
        outer in "[a-z]{3,5}",
    ) {
        let source = format!("the <b>{outer} <i>{inner}</i> word</b> and <u>{inner}</u> here");
        let output = finished(&source, &written);
        let mut open: Vec<&str> = Vec::new();
        for tag in output.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag) {
            match tag.strip_prefix('/') {
                Some(name) => prop_assert_eq!(open.pop(), Some(name), "{}", output),
                None => open.push(tag),
            }
        }
        prop_assert!(open.is_empty(), "{}", output);
    }

    /// No text makes the rules fail.
    #[test]
    fn any_text_can_be_prepared_and_finished(source in "\\PC{0,60}", written in "\\PC{0,60}") {
        let rules = rules();
        let prepared = rules.prepare(&source);
        let _ = prepared.finish(&written);
        for (start, c) in prepared.text().char_indices() {
            let range = prepared.source_range(start..start + c.len_utf8());
            prop_assert!(source.get(range).is_some());
        }
    }
}
