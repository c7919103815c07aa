//! Small models with their own tokens, and an LLM that reads sentences or whole documents for them, on
//! separate services.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use baton_cluster_tests::Worker;
use serde_json::{Value, json};

use crate::bundle::{MAX_PROMPT_TOKENS, write_aligned_bundle};
use crate::jobs::Job;

/// The same sentence many times, and others.
const TEXTS: [&str; 6] = [
    "Reads mail. Writes logs.",
    "Reads mail.",
    "Old tools: it reads mail. Writes logs. It took ten items of mail. Then it wrote them. Reads mail.",
    "Reads mail. Writes logs.",
    "1. Reads mail.\n2. READS MAIL.\n",
    "Then it wrote them to disk, item by item, and after that came all old mail, which took it a while.",
];
/// Tokens of the LLM's template; each is a byte.
const TEMPLATE_TOKENS: usize = 2;

fn corpus() -> String {
    let line =
        |(number, text): (usize, &&str)| format!("{}\n", json!({ "id": number.to_string(), "text": text }));
    TEXTS.iter().enumerate().map(line).collect()
}

fn rows(contents: &BTreeMap<String, Vec<u8>>) -> Vec<Value> {
    let parts = contents.iter().filter(|(name, _)| name.starts_with("part-"));
    let lines = parts.flat_map(|(_, bytes)| std::str::from_utf8(bytes).unwrap().lines());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The output rows of a job on its own services, and the tokens that its encoder read.
fn run_on_services(bundle: &Path, flags: &[&str], encoder_flags: &[&str]) -> (Vec<Value>, f64) {
    let job = Job::of(bundle, &corpus(), &[&["--max-new-tokens", "6"], flags].concat());
    let encoder = Worker::start("baton-encoder", bundle, encoder_flags);
    let decoder = Worker::start("baton-decoder", bundle, &[]);
    let ended = job.coordinate("cluster", &[encoder.endpoint()], &[decoder.endpoint()], &[]).wait();
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    (rows(&job.contents("cluster")), encoder.metric("baton_encoder_prompt_tokens_total"))
}

fn field<'row>(rows: &'row [Value], name: &str) -> Vec<&'row Value> {
    rows.iter().map(|row| &row[name]).collect()
}

#[test]
fn a_hybrid_with_a_new_projector_writes_the_same_as_its_small_model_for_any_reading() {
    let directory = tempfile::tempdir().unwrap();
    let (new, trained) = (directory.path().join("new"), directory.path().join("trained"));
    write_aligned_bundle(&new, 3, true);
    write_aligned_bundle(&trained, 3, false);
    let by_sentence = |bundle: &Path, mode: &str, context: &str| {
        let flags = ["--by-sentence", "--mode", mode, "--reader-context", context];
        let (mut rows, _) = run_on_services(bundle, &flags, &[]);
        for row in &mut rows {
            let reads_llm = row.as_object_mut().unwrap().remove("llm_prompt_tokens").is_some();
            assert_eq!(reads_llm, mode == "hybrid", "{row}");
        }
        rows
    };
    let alone = by_sentence(&new, "slm", "segment");
    for context in ["segment", "record"] {
        assert_eq!(by_sentence(&new, "hybrid", context), alone, "{context}");
    }
    let [segment, record] = ["segment", "record"].map(|context| by_sentence(&trained, "hybrid", context));
    assert_ne!(field(&segment, "output"), field(&alone, "output"), "what the LLM reads counts");
    assert_ne!(field(&record, "output"), field(&segment, "output"), "and so does what is around it");
}

#[test]
fn equal_sentences_are_read_once_and_records_of_sentences_once_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    write_aligned_bundle(directory.path(), 3, false);
    let tokens_read = |context: &str| {
        let flags = ["--by-sentence", "--unprotected", "all", "--reader-context", context];
        let (rows, tokens) = run_on_services(directory.path(), &flags, &[]);
        let of_rows: Vec<u64> = rows.iter().map(|row| row["llm_prompt_tokens"].as_u64().unwrap()).collect();
        (of_rows, tokens as usize)
    };
    let (of_rows, read) = tokens_read("segment");
    let sentences: BTreeSet<&str> = [
        "Reads mail.",
        "Writes logs.",
        "Old tools: it reads mail.",
        "It took ten items of mail.",
        "Then it wrote them.",
        "READS MAIL.",
        "Then it wrote them to disk, item by item,",
        "and after that came all old mail, which took it a while.",
    ]
    .into();
    let num_tokens = |text: &str| text.len() + TEMPLATE_TOKENS;
    assert_eq!(read, sentences.iter().map(|sentence| num_tokens(sentence)).sum::<usize>());
    assert_eq!(of_rows[1], num_tokens("Reads mail.") as u64);
    assert_eq!(of_rows[4], 2 * num_tokens("Reads mail.") as u64);

    let (of_rows, read) = tokens_read("record");
    assert_eq!(of_rows[0], num_tokens(TEXTS[0]) as u64, "the whole text under one template");
    assert_eq!(of_rows[3], of_rows[0]);
    assert_eq!(of_rows[4], num_tokens("Reads mail.\n2. READS MAIL.") as u64, "from the first to the last");
    let (long, longest) = (of_rows[2] as usize, num_tokens(TEXTS[2]));
    assert!(longest > MAX_PROMPT_TOKENS && long > longest && long < 2 * longest, "in windows: {long}");
    let of_records: u64 = of_rows.iter().sum();
    assert_eq!(read as u64, of_records - of_rows[3], "equal records are read once");
}

#[test]
fn marked_up_documents_with_terms_of_their_own_come_out_the_same_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    write_aligned_bundle(directory.path(), 3, false);
    let html = "<p title=\"Of mail\">It <a href=\"x\" title=\"Read it\">reads mail</a> &amp; logs. End.</p>\
        <pre>as it is</pre><ul><li>It reads mail</li><li>It reads mail</li></ul>";
    let line = |number: u32, terms: Value| {
        format!("{}\n", json!({ "id": number.to_string(), "text": html, "terms": terms }))
    };
    let corpus = [line(0, Value::Null), line(1, json!(["mail=posta"])), line(2, json!({ "mail": "Post" }))];
    for context in ["segment", "record"] {
        let flags = [
            "--max-new-tokens",
            "6",
            "--by-sentence",
            "--markup",
            "html",
            "--glossary-field",
            "terms",
            "--reader-context",
            context,
        ];
        let job = Job::of(directory.path(), &corpus.concat(), &flags);
        let expected = job.run_in_one_process();
        let of_rows = rows(&expected);
        assert_eq!(of_rows.len(), 3);
        for row in &of_rows {
            let output = row["output"].as_str().unwrap();
            assert!(output.contains("</p><pre>as it is</pre><ul><li>"), "{output}");
            assert!(!output.contains("\"Read it\"") && output.contains(" title=\""), "{output}");
        }
        let encoder = Worker::start("baton-encoder", directory.path(), &["--encode-batch-tokens", "1"]);
        let decoder = Worker::start("baton-decoder", directory.path(), &["--decode-slots", "4"]);
        let ended = job.coordinate("cluster", &[encoder.endpoint()], &[decoder.endpoint()], &[]).wait();
        job.check("cluster", &ended, &expected);
    }
}

#[test]
fn documents_come_out_the_same_for_any_batch_and_any_service() {
    let directory = tempfile::tempdir().unwrap();
    write_aligned_bundle(directory.path(), 3, false);
    let flags = ["--by-sentence", "--reader-context", "record"];
    let (expected, _) = run_on_services(directory.path(), &flags, &[]);
    assert_eq!(expected.len(), TEXTS.len());
    for (shard, batch) in [("1", "1"), ("2", "100"), ("5", "4096")] {
        let flags = [&flags[..], &["--records-per-shard", shard]].concat();
        let (rows, _) = run_on_services(directory.path(), &flags, &["--encode-batch-tokens", batch]);
        assert_eq!(rows, expected, "{shard} records a shard, {batch} tokens a batch");
    }
    let job = Job::of(directory.path(), &corpus(), &[&["--max-new-tokens", "6"], &flags[..]].concat());
    assert_eq!(rows(&job.run_in_one_process()), expected, "in one process");
}
