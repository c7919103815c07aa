//! Documents with markup: their structure comes back byte for byte, whatever the model writes.

use std::path::Path;

use serde_json::{Value, json};

use crate::command::{Job, imported_small_model};

const HTML: &str = "<!DOCTYPE html>\n<html><head><title>A page</title><style>p { margin: 0 }</style>\n\
    <meta name=\"description\" content=\"It is about cats.\"></head>\n<body class=\"x\">\
    <h1>Cats &amp; dogs</h1>\n\
    <p>See <a href=\"a.html\" title=\"More of it\">this page</a>.\n   \
    Run <code>cat x</code> <b>now</b>.</p>\n\
    <pre>as  it is</pre><img src=\"a.png\" alt=\"A cat\"><p translate=\"no\">ACME Corp</p>\n\
    <!-- a note --><script>if (a < b) say(\"no\")</script></body></html>\n";
const HTML_TEXTS: [&str; 11] = [
    "A page",
    "It is about cats.",
    "Cats &amp; dogs",
    "See ",
    "More of it",
    "this page",
    ".\n   Run ",
    " ",
    "now",
    ".",
    "A cat",
];

const MARKDOWN: &str = "---\ntitle: x\n---\n\n# A title\n\nRead **this** page, and\nthen `run it` twice.\n\n\
    - One item\n- [ ] A task\n\n> A quote of\n> two lines.\n\n```sh\nls -l\n```\n\n| Name | Use |\n\
    |------|-----|\n| cat | read |\n\n[a link](https://example.org/x)\n\n[ref]: https://example.org\n";

fn job(directory: &Path, flags: &[&str]) -> Job {
    let bundle = imported_small_model(directory);
    let lines = [json!({ "id": "html", "text": HTML }), json!({ "id": "markdown", "text": MARKDOWN })];
    let corpus: String = lines.into_iter().map(|line| line.to_string() + "\n").collect();
    Job::new().with_input("a.jsonl", corpus).with_bundle(&bundle).with_flags(flags)
}

fn output(job: &Job, id: &str) -> String {
    let row = job.outputs().into_iter().find(|row: &Value| row["id"] == id).unwrap();
    row["output"].as_str().unwrap().to_owned()
}

/// The tags of a document, attributes that are texts left out.
fn tags(html: &str) -> Vec<String> {
    let starts = html.match_indices('<').map(|(start, _)| start);
    let tag = |start: usize| &html[start..start + html[start..].find('>').map_or(0, |end| end + 1)];
    let bare = |tag: &str| {
        let words = tag.split(['"', '=']).take(2).collect::<Vec<_>>();
        words.concat()
    };
    starts.map(|start| bare(tag(start))).collect()
}

fn sorted(mut tags: Vec<String>) -> Vec<String> {
    tags.sort_unstable();
    tags
}

#[test]
fn an_html_document_keeps_its_structure() {
    let directory = tempfile::tempdir().unwrap();
    for unit in ["--by-sentence=true", "--by-sentence=false"] {
        let job = job(directory.path(), &["--markup", "html", unit]);
        job.run_expecting(0);
        let html = output(&job, "html");
        assert_eq!(sorted(tags(&html)), sorted(tags(HTML)), "in any order: {html}");
        for kept in [
            "<!DOCTYPE html>\n<html><head><title>",
            "</title><style>p { margin: 0 }</style>\n<meta name=\"description\" content=\"",
            "\"></head>\n<body class=\"x\"><h1>",
            "</h1>\n<p>",
            "<code>cat x</code>",
            "</p>\n<pre>as  it is</pre><img src=\"a.png\" alt=\"",
            "\"><p translate=\"no\">ACME Corp</p>\n<!-- a note --><script>if (a < b) say(\"no\")</script>",
            "</script></body></html>\n",
        ] {
            assert!(html.contains(kept), "{kept:?} is not in {html}");
        }
        for text in HTML_TEXTS.into_iter().filter(|text| text.len() > 5) {
            assert!(!html.contains(text), "{text:?} was translated, {unit}: {html}");
        }
    }
}

#[test]
fn a_markdown_document_keeps_its_structure() {
    let directory = tempfile::tempdir().unwrap();
    let job = job(directory.path(), &["--markup", "markdown", "--by-sentence"]);
    job.run_expecting(0);
    let markdown = output(&job, "markdown");
    for kept in [
        "---\ntitle: x\n---\n\n# ",
        "`run it`",
        "\n\n- ",
        "\n- [ ] ",
        "\n\n> ",
        "\n\n```sh\nls -l\n```\n\n| ",
        " |\n|------|-----|\n| ",
        " |\n\n[",
        "](https://example.org/x)\n\n[ref]: https://example.org\n",
    ] {
        assert!(markdown.contains(kept), "{kept:?} is not in {markdown}");
    }
    for text in ["A title", "One item", "A task", "two lines", "Name", "a link"] {
        assert!(!markdown.contains(text), "{text:?} was translated: {markdown}");
    }
}
