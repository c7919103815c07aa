//! The large model as the writer: its outputs through the services, drafted or not, equal those of its plain
//! forward pass.

use std::path::Path;

use baton_bundle::Bundle;
use baton_job::Mode;
use baton_model::{
    Checkpoint, Compute, LanguageModel, ModelParts, PackedAttention, PackedLayout, Visibility,
    set_num_threads,
};
use serde_json::Value;

use crate::bundle::{MAX_NEW_TOKENS, shared_bundle};
use crate::command::{Job, corpus};

const NUM_RECORDS: usize = 300;
const NUM_COMPARED: usize = 25;

fn parts(output: &Path) -> Vec<Vec<u8>> {
    let part = |shard: usize| std::fs::read(output.join(format!("part-{shard:06}.jsonl"))).unwrap();
    (0..NUM_RECORDS.div_ceil(256)).map(part).collect()
}

/// The parts of a job of `NUM_RECORDS` records, and the command's output.
fn run(flags: &[&str], machine: &[&str]) -> (Vec<Vec<u8>>, String) {
    let job =
        Job::new().with_input("corpus.jsonl", corpus(NUM_RECORDS)).with_flags(flags).with_flags(machine);
    let ended = job.run_expecting(0);
    (parts(&job.output()), ended.stderr)
}

#[test]
fn the_large_model_alone_writes_the_same_in_any_batch_and_follows_its_forward_pass() {
    let machines: [&[&str]; 2] =
        [&["--decode-slots", "1", "--encode-batch-tokens", "1"], &["--decode-slots", "96"]];
    // A random model writes no sensible text; this test compares its unrepaired outputs.
    let flags = ["--mode", "llm", "--weights", "f32", "--unprotected", "all", "--retry-beams", "0"];
    let outputs = machines.map(|machine| run(&flags, machine).0);
    assert!(outputs[0] == outputs[1], "other bytes in another batch");

    set_num_threads(1);
    let bundle = Bundle::open(shared_bundle()).unwrap();
    let text = String::from_utf8(outputs[0][0].clone()).unwrap();
    for (line, record) in text.lines().zip(corpus(NUM_COMPARED).lines()) {
        let [row, record]: [Value; 2] = [line, record].map(|line| serde_json::from_str(line).unwrap());
        let (output, finish_reason) = greedy(&bundle, record["text"].as_str().unwrap());
        assert_eq!(
            (row["output"].as_str(), row["finish_reason"].as_str()),
            (Some(&*output), Some(finish_reason))
        );
    }
}

/// Whether `token` keeps the text after `written` valid UTF-8. The tokens that are left, a byte each, must be
/// enough to complete a character that it begins.
fn keeps_characters_whole(written: &[u8], token: &[u8], num_left: usize) -> bool {
    let bytes = [written, token].concat();
    match std::str::from_utf8(&bytes) {
        Ok(_) => true,
        Err(error) if error.error_len().is_some() => false,
        Err(error) => {
            let begun = &bytes[error.valid_up_to()..];
            let num_bytes = match begun[0] {
                0xF0.. => 4,
                0xE0.. => 3,
                _ => 2,
            };
            !token.is_empty() && num_bytes - begun.len() <= num_left
        }
    }
}

/// Greedy decoding without a cache: each token from a pass over all before it, the likeliest of those that
/// keep characters whole.
fn greedy(bundle: &Bundle, text: &str) -> (String, &'static str) {
    let config = bundle.llm().unwrap().1;
    let checkpoint = Checkpoint::open(&bundle.path("llm/model.safetensors")).unwrap();
    let parts = ModelParts { blocks: config.num_hidden_layers, lm_head: true };
    let llm = LanguageModel::load(config, &checkpoint, parts, Compute::CPU_F32).unwrap();
    let tokenizer = bundle.text_tokenizer(Mode::Llm).unwrap();
    let end = tokenizer.token_id(&bundle.llm_writer().unwrap().eos_token).unwrap();
    let mut tokens = bundle.prompt_tokenizer(None).unwrap().encode(text).unwrap();
    tokens.extend(bundle.prompt_end_ids().unwrap());
    let prompt_len = tokens.len();
    let (spellings, without_text) = (tokenizer.spellings(), tokenizer.ids_without_text());
    loop {
        let written = &tokens[prompt_len..];
        let reason = match written.last() {
            Some(&last) if last == end => Some("stop"),
            _ if written.len() == MAX_NEW_TOKENS => Some("length"),
            _ => None,
        };
        if let Some(reason) = reason {
            return (tokenizer.decode(written).unwrap(), reason);
        }
        let layout = PackedLayout::prompts([tokens.len()]);
        let ids: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let like = (tch::Kind::Float, tch::Device::Cpu);
        let logits = tch::no_grad(|| {
            let mut attention = PackedAttention::new(&layout, Visibility::Causal, like);
            let embeddings = llm.embed(&tch::Tensor::from_slice(&ids));
            let hidden_states = llm.forward(embeddings, &layout.positions(), &mut attention, 0.0);
            llm.logits(&hidden_states.narrow(0, tokens.len() as i64 - 1, 1))
        });
        let bytes: Vec<u8> =
            tokens[prompt_len..].iter().flat_map(|&token| spellings[token as usize].clone()).collect();
        let num_left = MAX_NEW_TOKENS - (tokens.len() - prompt_len) - 1;
        let mut order: Vec<(f32, u32)> =
            Vec::<f32>::try_from(logits.flatten(0, -1)).unwrap().into_iter().zip(0..).collect();
        order.sort_by(|one, other| other.0.total_cmp(&one.0));
        let may_follow = |token: &u32| {
            !without_text.contains(token)
                && keeps_characters_whole(&bytes, &spellings[*token as usize], num_left)
        };
        tokens.push(order.into_iter().map(|(_, token)| token).find(may_follow).unwrap());
    }
}

#[test]
fn a_verified_job_writes_the_bytes_of_the_large_model_alone() {
    let methods: [&[&str]; 4] = [
        &[],
        &["--temperature", "0.8", "--top-p", "0.95", "--seed", "3"],
        &["--repetition-penalty", "1.2", "--no-repeat-ngram", "3", "--min-new-tokens", "5"],
        &["--beams", "3", "--n-best", "2"],
    ];
    for method in methods {
        for weights in ["int8", "bf16"] {
            let with = |mode| [&["--mode", mode, "--weights", weights], method].concat();
            let (expected, _) = run(&with("llm"), &[]);
            for machine in [&["--decode-slots", "3"], &["--decode-slots", "64"]] {
                let (found, said) = run(&with("verified"), machine);
                assert!(found == expected, "{method:?} {weights} {machine:?}");
                assert_eq!(
                    said.contains("tokens per pass of the large model"),
                    !method.contains(&"--beams"),
                    "{said}"
                );
            }
        }
    }
}

#[test]
fn a_bundle_that_does_not_serve_a_mode_refuses_the_job_and_names_those_it_serves() {
    let job = Job::new().with_input("corpus.jsonl", corpus(3)).with_flags(&["--mode", "slm"]);
    let message = job.run_expecting(2).stderr;
    assert!(
        message.contains("does not serve mode slm; try --mode hybrid or --mode llm or --mode verified"),
        "{message}"
    );
}
