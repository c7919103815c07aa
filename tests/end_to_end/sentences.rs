//! Jobs that generate sentence by sentence.

use std::ops::Range;

use baton_segments::{Markup, Part, Piece, Unit, cut, join};
use serde_json::{Value, json};

use crate::bundle::MAX_PROMPT_TOKENS;
use crate::command::Job;

/// Texts with their sentences, and with the text around each.
const TEXTS: [(&str, &[[&str; 2]]); 5] = [
    ("Reads mail.", &[["", "Reads mail."]]),
    ("Reads mail. Writes logs quickly.", &[["", "Reads mail."], [" ", "Writes logs quickly."]]),
    (
        "Small tools:\n1. Reads mail.\n\n2. Writes ab-9",
        &[["", "Small tools:"], ["\n1. ", "Reads mail."], ["\n\n2. ", "Writes ab-9"]],
    ),
    (
        "Reads mail. Reads mail. Reads mail.",
        &[["", "Reads mail."], [" ", "Reads mail."], [" ", "Reads mail."]],
    ),
    ("An archive of small tools, e.g. of logs", &[["", "An archive of small tools, e.g. of logs"]]),
];

fn lines(texts: impl IntoIterator<Item = String>) -> String {
    let line = |(number, text): (usize, String)| {
        format!("{}\n", json!({ "id": number.to_string(), "text": text, "lang": "en" }))
    };
    texts.into_iter().enumerate().map(line).collect()
}

#[test]
fn an_output_joins_the_outputs_of_its_sentences_in_any_batch() {
    let flags =
        ["--beams", "3", "--n-best", "2", "--copy-bias", "4", "--name-bias", "2", "--max-new-tokens", "6"];
    let sentences =
        TEXTS.iter().flat_map(|(_, sentences)| sentences.iter().map(|[_, text]| (*text).to_owned()));
    let alone = Job::new().with_input("a.jsonl", lines(sentences)).with_flags(&flags);
    alone.run_expecting(0);
    let alone = alone.outputs();

    let texts = lines(TEXTS.iter().map(|(text, _)| (*text).to_owned()));
    let mut bytes = None;
    for slots in ["3", "64"] {
        let job = Job::new().with_input("a.jsonl", &texts).with_flags(&flags);
        let job = job.with_flags(&["--by-sentence", "--keep-fields", "--decode-slots", slots]);
        job.run_expecting(0);
        let mut of_sentences = alone.iter();
        for (row, (text, sentences)) in job.outputs().iter().zip(TEXTS) {
            let written: Vec<&Value> = of_sentences.by_ref().take(sentences.len()).collect();
            let join = |output: &dyn Fn(&Value) -> String| -> String {
                sentences
                    .iter()
                    .zip(&written)
                    .map(|([before, _], row)| before.to_string() + &output(row))
                    .collect()
            };
            let of = |value: &Value| value["output"].as_str().unwrap().to_owned();
            assert_eq!(of(row), join(&of), "{text}");
            assert_eq!(of(&row["alternatives"][0]), join(&|row| of(&row["alternatives"][0])), "{text}");
            for count in ["prompt_tokens", "output_tokens"] {
                let sum: u64 = written.iter().map(|row| row[count].as_u64().unwrap()).sum();
                assert_eq!(row[count], sum, "{count} of {text}");
            }
            assert_eq!(row["fields"], json!({ "text": text, "lang": "en" }));
        }
        assert!(of_sentences.next().is_none());
        let contents = job.contents()["part-000000.jsonl"].clone();
        assert!(*bytes.get_or_insert_with(|| contents.clone()) == contents, "with {slots} slots");
    }
}

#[test]
fn a_text_and_a_sentence_may_be_longer_than_a_prompt() {
    let sentence = "An archive of small tools reads mail quickly.";
    let long_text = [sentence; 40].join(" ");
    let long_sentence = format!("Reads mail. Writes {}, and so on", "archives of tools ".repeat(30));
    let texts = [long_text.as_str(), long_sentence.as_str()];
    let job = || Job::new().with_input("a.jsonl", lines(texts.map(str::to_owned)));
    let job = || job().with_flags(&["--max-new-tokens", "6"]);

    let whole = job();
    whole.run_expecting(3);
    assert_eq!(whole.errors().len(), 2, "{:?}", whole.errors());

    let job = job().with_flags(&["--by-sentence"]);
    job.run_expecting(0);
    for (row, text) in job.outputs().iter().zip(texts) {
        // The tiny bundle has a token for each byte, and two for its template.
        let fits = |piece: Range<usize>| match piece.len() + 2 <= MAX_PROMPT_TOKENS {
            true => Part::Read(()),
            false => Part::TooLong(()),
        };
        let pieces: Vec<Piece<'_>> =
            cut(text, (Unit::Sentence, Markup::None), fits).into_iter().map(|(piece, ())| piece).collect();
        let texts = pieces.iter().map(|piece| piece.text.to_owned());
        let alone = Job::new().with_input("a.jsonl", lines(texts)).with_flags(&["--max-new-tokens", "6"]);
        alone.run_expecting(0);
        let written: Vec<String> =
            alone.outputs().iter().map(|row| row["output"].as_str().unwrap().to_owned()).collect();
        let expected =
            join(pieces.iter().zip(&written).map(|(piece, written)| Piece { text: written, ..*piece }));
        assert_eq!(row["output"], expected);
    }
}

#[test]
fn a_text_longer_than_a_prompt_is_read_in_parts_if_the_job_says_so() {
    let parts = [["An archive of small tools."; 2].join(" "), ["It reads mail quickly."; 3].join(" ")];
    let text = format!("{}\n\n{}\n", parts[0], parts[1]);
    let flags = ["--max-new-tokens", "6"];
    let refused = Job::new().with_input("a.jsonl", lines([text.clone()])).with_flags(&flags);
    refused.run_expecting(3);
    assert!(refused.errors()[0]["message"].as_str().unwrap().contains("--cut-long-texts"));

    let texts =
        || lines([text.clone(), "Reads mail. Writes logs.\n".to_owned()].into_iter().chain(parts.clone()));
    let job = Job::new().with_input("a.jsonl", texts()).with_flags(&flags).with_flags(&["--cut-long-texts"]);
    job.run_expecting(0);
    let outputs: Vec<String> =
        job.outputs().iter().map(|row| row["output"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outputs[0], format!("{}\n\n{}\n", outputs[2], outputs[3]), "each part as if alone");
}

#[test]
fn the_sentences_of_a_wrapped_paragraph_are_read_whole_and_wrapped_again() {
    let sentences = ["It reads what came in over the long night and sends it.", "Then it writes a log."];
    let wrapped = "  It reads what came in over the long night and\n  sends it. Then it writes a log.\n";
    let flags = ["--by-sentence", "--max-new-tokens", "24", "--min-new-tokens", "20"];
    let job = Job::new().with_input("a.jsonl", lines([wrapped.to_owned()])).with_flags(&flags);
    job.run_expecting(0);
    let alone = Job::new().with_input("a.jsonl", lines(sentences.map(str::to_owned))).with_flags(&flags);
    alone.run_expecting(0);
    let outputs = alone.outputs();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let expected: Vec<String> =
        outputs.iter().flat_map(|row| words(row["output"].as_str().unwrap())).collect();
    let rows = job.outputs();
    let output = rows[0]["output"].as_str().unwrap();
    assert_eq!(words(output), expected);
    assert!(output.starts_with("  ") && output.ends_with('\n'), "{output:?}");
    for line in output.lines() {
        let is_short = line.chars().count() <= 47 || !line.trim().contains(' ');
        assert!(is_short && line.starts_with("  "), "{line:?}");
    }
}

#[test]
fn a_text_without_a_letter_is_copied_and_white_space_around_a_text_stays() {
    let texts = ["+39 06 1234 5678", "  Reads mail.\n", "-----"];
    let job = Job::new().with_input("a.jsonl", lines(texts.map(str::to_owned)));
    let job = job.with_flags(&["--by-sentence"]);
    job.run_expecting(0);
    let rows = job.outputs();
    for (row, text) in [(&rows[0], texts[0]), (&rows[2], texts[2])] {
        assert_eq!((&row["output"], &row["finish_reason"]), (&json!(text), &json!("stop")));
        assert_eq!((&row["prompt_tokens"], &row["output_tokens"]), (&json!(0), &json!(0)));
    }
    let output = rows[1]["output"].as_str().unwrap();
    assert!(output.starts_with("  ") && output.ends_with('\n'), "{output:?}");
}

#[test]
fn each_sentence_of_a_text_is_sampled_for_itself_and_the_same_again() {
    let texts = lines([["Reads mail quickly."; 6].join(" ")]);
    let output = || {
        let flags = ["--by-sentence", "--temperature", "3", "--seed", "5", "--max-new-tokens", "6"];
        let job = Job::new().with_input("a.jsonl", &texts).with_flags(&flags);
        job.run_expecting(0);
        job.outputs()[0]["output"].clone()
    };
    let first = output();
    assert_eq!(first, output());
    let alone = Job::new().with_input("a.jsonl", lines(["Reads mail quickly.".to_owned()]));
    let alone = alone.with_flags(&["--temperature", "3", "--seed", "5", "--max-new-tokens", "6"]);
    alone.run_expecting(0);
    let sentence = alone.outputs()[0]["output"].as_str().unwrap().to_owned();
    assert!(
        first.as_str().unwrap().starts_with(&sentence),
        "the first sentence is drawn as the text alone is"
    );
    assert_ne!(first.as_str().unwrap(), [sentence.as_str(); 6].join(" "));
}
