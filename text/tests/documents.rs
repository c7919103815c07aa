//! Documents and a model that copies: they come back byte for byte.
//!
//! With `BATON_DOCUMENTS_DIR`, the HTML and Markdown files below that directory are tried too.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::path::{Path, PathBuf};

use baton_segments::{Part, Segment, Unit, cut, join};
use baton_text::{Markup, TextOptions, TextRules};
use proptest::prelude::*;

/// A document after a model has copied all that it saw, and the number of its texts.
fn copied(document: &str, markup: Markup, unit: Unit) -> (String, usize) {
    let options = TextOptions {
        language: Some("en".to_owned()),
        target_language: Some("pt".to_owned()),
        markup,
        ..TextOptions::default()
    };
    let rules = TextRules::new(&options).unwrap();
    let judge = |part: std::ops::Range<usize>| match rules.prepare(&document[part]).text().is_empty() {
        true => Part::Copied,
        false => Part::Read(()),
    };
    let cut = cut(document, (unit, markup), judge).into_iter();
    let segments: Vec<Segment> =
        cut.enumerate().map(|(number, (piece, ()))| Segment::of_piece(0, number as u32, piece)).collect();
    if segments.is_empty() {
        return (document.to_owned(), 0);
    }
    let written = |segment: &Segment| {
        let prepared = rules.prepare(&segment.text);
        prepared.finish(prepared.text()).text
    };
    let outputs: Vec<String> = segments.iter().map(written).collect();
    (join(segments.iter().zip(&outputs).map(|(segment, output)| segment.written(output))), segments.len())
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type().unwrap().is_dir() {
            true => files_below(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn documents_of_all_kinds_come_back() {
    let html = "<!DOCTYPE html><html><head><title>A &quot;page&quot;</title></head><body>\n\
        <p title='It&#39;s'>The caf&eacute; &amp; the  <b>old <i>town</i></b>:\n   \
        see <a href=\"?a=1&amp;b=2\">it</a>.</p>\n\
        <!-- a note --><p>IN CAPITALS &lt;b&gt; 5&nbsp;km, x &lt; y</p>\
        <table><tr><td>One</td></tr></table></body>";
    let markdown = "# Title\n\nSome *text* with `code`, over\ntwo lines \\*not\\* bold &copy; now.\n\n\
        1. One\n   more of it\n2. Two\n\n> Quoted,\n> twice.\n\n| a | b |\n|---|---|\n| c | d e |\n";
    for unit in [Unit::Record, Unit::Sentence] {
        for (document, markup) in [(html, Markup::Html), (markdown, Markup::Markdown)] {
            let (output, num_texts) = copied(document, markup, unit);
            assert_eq!(output, document);
            assert!(num_texts >= 5, "{num_texts}");
        }
    }
    let mut files = Vec::new();
    if let Some(directory) = std::env::var_os("BATON_DOCUMENTS_DIR") {
        files_below(Path::new(&directory), &mut files);
    }
    for file in files {
        let markup = match file.extension().and_then(|ending| ending.to_str()) {
            Some("html" | "htm") => Markup::Html,
            Some("md" | "markdown") => Markup::Markdown,
            _ => continue,
        };
        let Ok(document) = std::fs::read_to_string(&file) else { continue };
        let (output, _) = copied(&document, markup, Unit::Sentence);
        assert!(output == document, "{} differs", file.display());
    }
}

proptest! {
    #[test]
    fn any_document_comes_back(
        document in "([aBcé .,\n]|<p>|</p>|<b>|</b>|<img alt=\"A b. C\" title='D'>|<code>x. Y</code>|\
            &amp;|&eacute;|&lt;|&nbsp;|`|[*>#|-]|\\[x\\]|\\(y\\)|<br>|Two words|%s|5 km){0,30}"
    ) {
        for markup in [Markup::Html, Markup::Markdown] {
            for unit in [Unit::Record, Unit::Sentence] {
                prop_assert_eq!(copied(&document, markup, unit).0, document.clone());
            }
        }
    }
}
