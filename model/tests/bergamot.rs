//! Firefox Translations students from their own files against a plain NumPy module of the same weights, in
//! f32.
//!
//! The expected values are made by `scripts/bergamot_reference.py`. The students are found by the environment
//! variable `BATON_STUDENTS_DIR`, which `make test` sets: a directory for each, as the package has them.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use baton_bundle::{
    LexicalShortlist, ModelConfig, PromptAttention, SLM_SHORTLIST, Task, TextTokenizer, WeightDtype,
    sha256_of_file,
};
use baton_decoding::{Generation, GroupId, Plan, RowId, RowRequest, Scheduler, SchedulerLimits};
use baton_import::{ImportOptions, SlmImportOptions, import_llm, import_slm};
use baton_job::Mode;
use baton_model::{
    BatchDecoder, CACHE_BLOCK_TOKENS, CacheLimits, Checkpoint, Compute, LanguageModel, ModelParts, Prompt,
};
use serde::Deserialize;

const STUDENTS: [&str; 2] = ["enpt", "pten"];
const MAX_NEW_TOKENS: usize = 256;

/// A text, and the reference's result.
#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    greedy: Vec<u32>,
    decoded: String,
    /// By how much the chosen token led at the least.
    closest: f64,
}

fn student(pair: &str) -> PathBuf {
    let students = std::env::var_os("BATON_STUDENTS_DIR").map(PathBuf::from);
    students
        .map(|students| students.join(pair))
        .filter(|directory| directory.join(format!("vocab.{pair}.spm")).exists())
        .expect(
            "BATON_STUDENTS_DIR must name the Firefox students: run `make test`, which fetches them and \
                 sets it",
        )
}

/// The committed cases, and those of a directory with more.
fn cases(pair: &str) -> Vec<Case> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/bergamot");
    let more = std::env::var_os("BATON_STUDENT_CASES").map(PathBuf::from);
    let texts = [Some(committed), more]
        .into_iter()
        .flatten()
        .map(|directory| std::fs::read_to_string(directory.join(format!("{pair}.jsonl"))).unwrap());
    let texts: Vec<String> = texts.collect();
    texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A student as imported.
struct Student {
    _directory: tempfile::TempDir,
    config: ModelConfig,
    checkpoint: Checkpoint,
    tokenizer: TextTokenizer,
}

fn imported(pair: &str) -> Student {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("slm");
    let options = ImportOptions { from: student(pair), out: out.clone(), dtype: WeightDtype::F32 };
    let summary = import_llm(&options).unwrap();
    assert_eq!(summary.config, ModelConfig::read_checkpoint(&out).unwrap());
    Student {
        config: summary.config,
        checkpoint: Checkpoint::open(&out.join("model.safetensors")).unwrap(),
        tokenizer: TextTokenizer::open(&out.join("vocab.spm")).unwrap(),
        _directory: directory,
    }
}

/// The student's greedy output for each prompt, at most `max_slots` at a time.
fn greedy(student: &Student, compute: Compute, prompts: &[Vec<u32>], max_slots: usize) -> Vec<Vec<u32>> {
    greedy_among(student, compute, (prompts, None), max_slots)
}

/// The same with a shortlist, if there is one.
fn greedy_among(
    student: &Student,
    compute: Compute,
    (prompts, shortlist): (&[Vec<u32>], Option<&LexicalShortlist>),
    max_slots: usize,
) -> Vec<Vec<u32>> {
    let parts = ModelParts { blocks: student.config.num_hidden_layers, lm_head: true };
    let model = LanguageModel::load(&student.config, &student.checkpoint, parts, compute).unwrap();
    let max_cache_tokens = max_slots * 512;
    let limits = CacheLimits { max_slots, max_cache_tokens };
    let mut decoder = BatchDecoder::new(model, PromptAttention::Bidirectional, compute, limits).unwrap();
    let limits = SchedulerLimits {
        max_slots,
        max_cache_tokens,
        cache_block_tokens: CACHE_BLOCK_TOKENS,
        max_prefill_tokens: 1000,
    };
    let mut scheduler = Scheduler::new(limits, decoder.special_tokens());
    for (index, prompt) in (0..).zip(prompts) {
        let row = RowId { group: GroupId(0), index };
        let listed = shortlist.map(|shortlist| shortlist.of_prompt(prompt).into());
        let generation = Arc::new(Generation { listed, ..Generation::of_new_tokens(0, MAX_NEW_TOKENS) });
        scheduler
            .submit(RowRequest { row, prompt_len: prompt.len(), generation, random_stream: 0 })
            .expect("every prompt fits the cache");
    }
    let mut written = BTreeMap::new();
    let mut plan = Plan::default();
    loop {
        scheduler.schedule(&mut plan);
        if plan.is_empty() {
            return written.into_values().collect();
        }
        decoder.begin_step(&plan, |row| Prompt::Tokens(&prompts[row.index as usize]));
        for row in scheduler.absorb(decoder.step(&plan.step)) {
            written.insert(row.row.index, row.outputs.into_iter().next().unwrap().tokens);
        }
    }
}

#[test]
fn a_student_writes_the_reference_translation_token_by_token() {
    baton_model::set_num_threads(1);
    for pair in STUDENTS {
        let (student, cases) = (imported(pair), cases(pair));
        let prompts: Vec<Vec<u32>> = cases.iter().map(|case| case.ids.clone()).collect();
        let written = greedy(&student, Compute::CPU_F32, &prompts, 16);
        let mut num_near_ties = 0;
        for (case, written) in cases.iter().zip(&written) {
            if *written != case.greedy && case.closest < 1e-4 {
                num_near_ties += 1; // rounding decides
                continue;
            }
            assert_eq!(*written, case.greedy, "{pair}: {:?}", case.text);
            assert_eq!(student.tokenizer.decode(written).unwrap(), case.decoded, "{pair}");
        }
        assert!(num_near_ties * 100 <= cases.len(), "{pair}: {num_near_ties} near ties of {}", cases.len());
        eprintln!("{pair}: {} texts, {num_near_ties} near ties", cases.len());
    }
}

#[test]
fn a_student_reads_the_tokens_that_sentencepiece_gives() {
    for pair in STUDENTS {
        let student = imported(pair);
        for case in cases(pair) {
            let ids = [student.tokenizer.encode(&case.text).unwrap(), student.config.eos_token_ids.clone()];
            assert_eq!(ids.concat(), case.ids, "{pair}: {:?}", case.text);
        }
    }
}

#[test]
fn a_student_in_int8_writes_the_same_alone_and_in_any_company_and_nearly_what_it_writes_in_f32() {
    baton_model::set_num_threads(1);
    let pair = STUDENTS[0];
    let student = imported(pair);
    let cases = cases(pair);
    let prompts: Vec<Vec<u32>> = cases.iter().take(12).map(|case| case.ids.clone()).collect();
    let alone = greedy(&student, Compute::CPU_INT8, &prompts, 1);
    for max_slots in [3, 12] {
        assert_eq!(greedy(&student, Compute::CPU_INT8, &prompts, max_slots), alone, "{max_slots} slots");
    }
    let num_equal = alone.iter().zip(&cases).filter(|(written, case)| **written == case.greedy).count();
    assert!(
        num_equal * 2 >= alone.len(),
        "only {num_equal} of {} translations are those of f32",
        alone.len()
    );
}

#[test]
fn a_students_shortlist_is_imported_and_leaves_most_translations_as_they_are() {
    baton_model::set_num_threads(1);
    let pair = STUDENTS[0];
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("bundle");
    let bundle = import_slm(&SlmImportOptions {
        from: student(pair),
        out: out.clone(),
        name: None,
        task: Task::Translation { source: "en".into(), target: "pt".into() },
        template: None,
        eos_token: None,
        max_prompt_tokens: None,
        max_new_tokens: None,
        dtype: None,
        licence: None,
        origin: None,
    })
    .unwrap();
    let proposed = bundle.manifest().generation[&Mode::Slm].to_string();
    assert_eq!(proposed, "by_sentence = true, shortlist = true");
    let original = student(pair).join(format!("lex.50.50.{pair}.s2t.bin"));
    assert_eq!(bundle.manifest().files[SLM_SHORTLIST].sha256, sha256_of_file(&original).unwrap());

    let shortlist = bundle.shortlist().unwrap().unwrap();
    let (student, cases) = (imported(pair), cases(pair));
    let prompts: Vec<Vec<u32>> = cases.iter().take(24).map(|case| case.ids.clone()).collect();
    let with_list =
        |max_slots| greedy_among(&student, Compute::CPU_INT8, (&prompts, Some(&shortlist)), max_slots);
    let (alone, all) = (with_list(1), greedy(&student, Compute::CPU_INT8, &prompts, 1));
    assert_eq!(with_list(24), alone);
    let num_equal = alone.iter().zip(&all).filter(|(some, all)| some == all).count();
    assert!(num_equal * 4 >= 3 * all.len(), "only {num_equal} of {} are the same", all.len());
}
