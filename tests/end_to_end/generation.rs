//! Greedy decoding, beam search and sampling from a user's view: the same record gives the same output
//! wherever it is processed, and options have their effects.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use baton_bundle::Bundle;
use baton_coordinator::{Cluster, JobWatch, PreparedJob, RunOptions, Shutdown};
use baton_decoder_svc::{DecoderConfig, DecoderService};
use baton_encoder_svc::{EncoderConfig, EncoderService};
use baton_job::{GenerationOptions, JobSpec, Partition, ShardLimits};
use baton_proto::Connections;
use baton_worker::serve_locally;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;

use crate::bundle::shared_bundle;
use crate::command::{Job, corpus};

const NUM_RECORDS: usize = 2000;
const RECORDS_PER_SHARD: u32 = 50;

/// Lengths at which a test over thousands of records is still quick.
const SHORT: [&str; 4] = ["--max-new-tokens", "5", "--min-new-tokens", "2"];

/// Outputs are what the model writes: no rule adds a number of the source.
const AS_WRITTEN: [&str; 4] = ["--unprotected", "all", "--retry-beams", "0"];

/// The three methods, by flags and as a job file has them.
fn methods() -> [(&'static [&'static str], GenerationOptions); 3] {
    let short = GenerationOptions {
        retry_beams: 0,
        max_new_tokens: Some(5),
        min_new_tokens: 2,
        ..Default::default()
    };
    [
        (&[], short.clone()),
        (
            &[
                "--beams",
                "4",
                "--n-best",
                "2",
                "--length-penalty",
                "0.8",
                "--no-repeat-ngram",
                "3",
                "--copy-bias",
                "2",
                "--name-bias",
                "0.5",
            ],
            GenerationOptions {
                beams: 4,
                n_best: 2,
                length_penalty: 0.8,
                no_repeat_ngram: 3,
                copy_bias: 2.0,
                name_bias: 0.5,
                ..short.clone()
            },
        ),
        (
            &["--temperature", "0.9", "--top-p", "0.95", "--seed", "7", "--n-best", "2"],
            GenerationOptions { temperature: Some(0.9), top_p: Some(0.95), seed: 7, n_best: 2, ..short },
        ),
    ]
}

fn job(flags: &[&str], machine: &[&str]) -> Job {
    let shards = ["--records-per-shard", &RECORDS_PER_SHARD.to_string()];
    Job::new()
        .with_input("corpus.jsonl", corpus(NUM_RECORDS))
        .with_flags(&SHORT)
        .with_flags(&shards)
        .with_flags(flags)
        .with_flags(machine)
}

/// All parts of an output directory, one after the other.
fn parts(output: &Path) -> Vec<u8> {
    let num_parts = NUM_RECORDS.div_ceil(RECORDS_PER_SHARD as usize);
    let part = |index: usize| std::fs::read(output.join(format!("part-{index:06}.jsonl"))).unwrap();
    (0..num_parts).flat_map(part).collect()
}

#[test]
fn thousands_of_records_give_the_same_bytes_alone_in_any_batch_and_on_several_workers() {
    let machines: [&[&str]; 2] = [
        // Every record alone in every batch; of a beam, its own sequences.
        &["--encode-batch-tokens", "1", "--decode-slots", "1", "--shards-in-flight", "1"],
        &["--encode-batch-tokens", "4096", "--decode-slots", "128", "--shards-in-flight", "8"],
    ];
    for (flags, options) in methods() {
        let mut expected = None;
        for machine in machines {
            let job = job(flags, machine);
            job.run_expecting(0);
            let found = parts(&job.output());
            let expected = expected.get_or_insert_with(|| found.clone());
            assert!(found == *expected, "{flags:?} give other bytes with {machine:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        run_on_three_workers(directory.path(), options);
        assert!(parts(&directory.path().join("out")) == expected.unwrap(), "{flags:?} on several workers");
    }
}

#[test]
fn a_name_of_the_text_is_written_where_the_biases_outweigh_the_model() {
    let output = |flags: &[&str]| {
        let job = Job::new()
            .with_input("corpus.jsonl", "{\"id\":\"a\",\"text\":\"Reads mail of ab-9\"}\n")
            .with_flags(flags);
        job.run_expecting(0);
        job.outputs()[0]["output"].as_str().unwrap().to_owned()
    };
    let flags = ["--copy-bias", "2000", "--name-bias", "1000"];
    for method in [&[][..], &["--beams", "3"]] {
        let (with, without) = (output(&[&flags[..], method].concat()), output(method));
        assert!(with.starts_with("ab-9") && !without.contains("ab-9"), "{with:?} {without:?}");
    }
}

/// The same job on three pairs of services with different batch sizes.
fn run_on_three_workers(directory: &Path, generation: GenerationOptions) {
    baton_model::set_num_threads(1);
    let bundle = Bundle::open(shared_bundle()).unwrap();
    let input = directory.join("corpus.jsonl");
    std::fs::write(&input, corpus(NUM_RECORDS)).unwrap();
    let spec = JobSpec {
        bundle: shared_bundle().to_str().unwrap().to_owned(),
        inputs: vec![input.to_str().unwrap().to_owned()],
        output: directory.join("out").to_str().unwrap().to_owned(),
        shard: ShardLimits { records_per_shard: RECORDS_PER_SHARD, ..ShardLimits::default() },
        generation,
        ..JobSpec::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (mut encoders, mut decoders) = (Vec::new(), Vec::new());
        for (max_batch_tokens, max_slots) in [(30, 4), (300, 8), (2000, 64)] {
            let encoder = EncoderConfig { max_batch_tokens, ..EncoderConfig::cpu() };
            let decoder = DecoderConfig { max_slots, ..DecoderConfig::cpu() };
            let encoder = EncoderService::load(&bundle, encoder, Connections::default()).await.unwrap();
            let decoder = DecoderService::load(&bundle, decoder).await.unwrap();
            let listen = |name: &str| {
                let path = directory.join(format!("{name}-{max_slots}.sock"));
                let endpoint = format!("unix:{}", path.display());
                (UnixListenerStream::new(UnixListener::bind(&path).unwrap()), endpoint)
            };
            let (encoder_connections, encoder_endpoint) = listen("encoder");
            let (decoder_connections, decoder_endpoint) = listen("decoder");
            tokio::spawn(serve_locally(encoder.into_served(), encoder_connections, std::future::pending()));
            tokio::spawn(serve_locally(decoder.into_served(), decoder_connections, std::future::pending()));
            encoders.push(encoder_endpoint);
            decoders.push(decoder_endpoint);
        }
        let job = PreparedJob::open(spec, bundle.digest(), Partition::WHOLE).await.unwrap();
        let (_stay, shutdown) = watch::channel(Shutdown::No);
        let cluster = Cluster::fixed(Connections::default(), encoders, decoders);
        job.run(cluster, &RunOptions::default(), &JobWatch::default(), shutdown).await.unwrap();
    });
    runtime.shutdown_timeout(Duration::from_secs(60)); // the services end with their tasks
}

#[test]
fn an_n_best_row_has_the_best_output_and_the_others_in_falling_order() {
    for flags in [["--beams", "4", "--n-best", "3"], ["--temperature", "1.2", "--n-best", "3"]] {
        let job = Job::of_records(24).with_flags(&flags);
        job.run_expecting(0);
        for row in job.outputs() {
            let alternatives = row["alternatives"].as_array().unwrap();
            assert_eq!(alternatives.len(), 2);
            let scores: Vec<f64> = std::iter::once(&row)
                .chain(alternatives)
                .map(|output| output["score"].as_f64().unwrap())
                .collect();
            assert!(scores.is_sorted_by(|a, b| a >= b), "{row}");
            for key in ["output", "output_tokens", "finish_reason"] {
                assert!(alternatives.iter().all(|alternative| alternative.get(key).is_some()), "{row}");
            }
        }
        let manifest: Value = serde_json::from_slice(&job.contents()["_SUCCESS"]).unwrap();
        let tokens = |output: &Value| output["output_tokens"].as_u64().unwrap();
        let written = |row: &Value| {
            tokens(row) + row["alternatives"].as_array().unwrap().iter().map(tokens).sum::<u64>()
        };
        let total: u64 = job.outputs().iter().map(written).sum();
        assert_eq!(manifest["totals"]["output_tokens"], total, "alternatives cost tokens too");
    }
}

#[test]
fn a_wider_beam_finds_outputs_of_higher_score() {
    let scores = |flags: &[&str]| {
        // A fixed length, so that the scores are means over as many tokens.
        let job = Job::of_records(40)
            .with_flags(&["--max-new-tokens", "6", "--min-new-tokens", "6"])
            .with_flags(flags);
        job.run_expecting(0);
        job.outputs().iter().map(|row| row["score"].as_f64().unwrap()).sum::<f64>()
    };
    let (narrow, wide) = (scores(&["--beams", "2"]), scores(&["--beams", "8"]));
    assert!(wide > narrow, "{wide}, {narrow}");
}

#[test]
fn samples_follow_from_seed_and_place_in_the_corpus() {
    let text = "{\"text\":\"the same words\"}\n".repeat(40);
    let outputs = |flags: &[&str]| {
        let job = Job::new().with_input("corpus.jsonl", &text).with_flags(flags);
        job.run_expecting(0);
        let output = |row: &Value| row["output"].as_str().unwrap().to_owned();
        job.outputs().iter().map(output).collect::<Vec<_>>()
    };
    let sampled = outputs(&["--temperature", "1.5"]);
    assert!(sampled.iter().collect::<BTreeSet<_>>().len() > 10, "equal prompts, other draws: {sampled:?}");
    assert_eq!(outputs(&["--temperature", "1.5", "--records-per-shard", "7"]), sampled);
    assert_ne!(outputs(&["--temperature", "1.5", "--seed", "1"]), sampled);
    let greedy = outputs(&[]);
    assert_eq!(greedy.iter().collect::<BTreeSet<_>>().len(), 1, "equal prompts, equal outputs: {greedy:?}");
}

#[test]
fn equal_prompts_have_rows_of_their_own() {
    let lines = (0..30).map(|index| {
        format!("{{\"id\":\"r{index}\",\"text\":\"words {}\",\"number\":{index}}}\n", index % 3)
    });
    let corpus: String = lines.collect();
    for flags in [["--keep-fields"].as_slice(), &["--keep-fields", "--beams", "3", "--n-best", "2"]] {
        let job = Job::new().with_input("corpus.jsonl", &corpus).with_flags(flags);
        job.run_expecting(0);
        let rows = job.outputs();
        assert_eq!(rows.len(), 30);
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row["id"], format!("r{index}"));
            assert_eq!(row["fields"]["number"], index);
            let twin = &rows[index % 3];
            for key in ["output", "score", "prompt_tokens", "output_tokens", "finish_reason"] {
                assert_eq!(row[key], twin[key]);
            }
            assert_eq!(row.get("alternatives"), twin.get("alternatives"));
        }
    }
}

#[test]
fn stop_strings_and_stop_tokens_end_outputs_and_are_not_part_of_them() {
    let plain = Job::of_records(40).with_flags(&AS_WRITTEN);
    plain.run_expecting(0);
    let texts = |job: &Job| -> Vec<String> {
        job.outputs().iter().map(|row| row["output"].as_str().unwrap().to_owned()).collect()
    };
    let plain_texts = texts(&plain);
    // Something that the model writes in the middle of an output.
    let stop: String = plain_texts
        .iter()
        .find_map(|text| {
            let middle: Vec<char> = text.chars().skip(4).take(1).filter(char::is_ascii_graphic).collect();
            (!middle.is_empty()).then(|| middle.into_iter().collect())
        })
        .expect("some output has a printable fifth character");
    for flag in ["--stop-string", "--stop-token"] {
        let job = Job::of_records(40).with_flags(&AS_WRITTEN).with_flags(&[&format!("{flag}={stop}")]);
        job.run_expecting(0);
        let mut num_stopped = 0;
        for ((row, text), plain) in job.outputs().iter().zip(texts(&job)).zip(&plain_texts) {
            assert_eq!(Some(text.as_str()), plain.split(&stop).next(), "greedy writes the same up to there");
            if plain.contains(&stop) {
                num_stopped += 1;
                assert_eq!(row["finish_reason"], "stop");
            }
        }
        assert!(num_stopped > 0);
    }
}

#[test]
fn contradictory_generation_flags_are_refused_by_name() {
    let refused = |flags: &[&str], pieces: &[&str]| {
        Job::of_records(1).with_flags(flags).run_expecting(2).assert_error(pieces);
    };
    refused(&["--beams", "4", "--temperature", "0.7"], &["generation.temperature", "generation.beams", "4"]);
    refused(&["--seed", "4"], &["generation.seed", "generation.temperature"]);
    refused(&["--length-penalty", "0.5"], &["generation.length_penalty", "generation.beams"]);
    refused(&["--n-best", "3"], &["generation.n_best", "greedy"]);
    refused(&["--beams", "2", "--n-best", "3"], &["generation.n_best", "1 to 2"]);
    refused(&["--stop-token", "no such token"], &["no such token", "slm/tokenizer.json"]);
}

#[test]
fn a_stop_string_that_did_not_end_an_output_does_not_cut_it() {
    let outputs = |flags: &[&str]| {
        let job = Job::of_records(40).with_flags(&AS_WRITTEN).with_flags(&["--max-new-tokens", "20"]);
        let job = job.with_flags(flags);
        job.run_expecting(0);
        job.outputs()
    };
    let plain = outputs(&["--min-new-tokens", "20"]);
    // A character that some output has among its first and not again.
    let stop = plain.iter().find_map(|row| {
        let text: Vec<char> = row["output"].as_str().unwrap().chars().collect();
        let early = text.iter().take(5).copied();
        early.filter(char::is_ascii_graphic).find(|c| text.iter().filter(|other| *other == c).count() == 1)
    });
    let stop = stop.expect("some output has an early character that it does not repeat").to_string();
    let stopped = outputs(&["--min-new-tokens", "20", "--stop-string", &stop]);
    let mut num_with_one = 0;
    for (plain, stopped) in plain.iter().zip(&stopped) {
        // Outputs of 20 tokens: none could end before the limit.
        let text = plain["output"].as_str().unwrap();
        if text.contains(&stop) && !text.ends_with(&stop) {
            num_with_one += 1;
            assert_eq!((&stopped["output"], &stopped["finish_reason"]), (&plain["output"], &json!("length")));
        }
    }
    assert!(num_with_one > 0);
}
