//! The LLM's hidden states: computed once, and shared by all runs with the same prompts.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use baton_bundle::SafetensorsFile;
use baton_trainer::{PairFiles, RunDirectories, TrainEvent, train};

use crate::{config, quietly, shape, workspace};

/// Hidden states are the costly part, and do not depend on the small model.
#[test]
fn runs_of_different_small_models_share_hidden_states() {
    let workspace = workspace();
    let states = workspace.path().join("states");
    let echoes = workspace.path().join("echoes.jsonl");
    let pairs = fs::read_to_string(workspace.path().join("train.jsonl")).unwrap();
    let echoed: Vec<String> = pairs
        .lines()
        .map(|line| {
            let pair: serde_json::Value = serde_json::from_str(line).unwrap();
            serde_json::json!({ "source": pair["source"], "target": pair["source"] }).to_string()
        })
        .collect();
    fs::write(&echoes, echoed.join("\n")).unwrap();
    let train_with = |vocab_size: usize, max_response_tokens: usize, name: &str| {
        let mut config = config(workspace.path(), 2);
        shape(&mut config).vocab_size = vocab_size;
        config.max_response_tokens = max_response_tokens;
        if name == "both" {
            let places = [&workspace.path().join("train.jsonl"), &echoes];
            config.train = PairFiles::Many(places.map(|path| path.display().to_string()).into());
        }
        let directories = RunDirectories { states: states.clone(), ..(&workspace.path().join(name)).into() };
        let (mut tokens_encoded, mut too_long) = (0, 0);
        let _ = train(&config, directories, |event| {
            match event {
                TrainEvent::Encoding { tokens_done, .. } => tokens_encoded += tokens_done,
                TrainEvent::Prepared { train_pairs_left_out, .. } => too_long = *train_pairs_left_out,
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        (tokens_encoded, too_long)
    };
    let (encoded_first, _) = train_with(330, 32, "first");
    let (encoded_second, too_long) = train_with(320, 2, "second");
    assert!(encoded_first > 0);
    assert!(too_long > 0, "the second run leaves out pairs that the first has");
    assert_eq!(encoded_second, 0, "it reads the states that the first has left");
    let (encoded_third, _) = train_with(330, 32, "both");
    assert_eq!(encoded_third, 0, "two responses to a prompt need its states once");
}

/// More pairs, other splits or a sample: states that were encoded once are found again.
#[test]
fn a_run_encodes_only_prompts_that_no_run_before_has_encoded() {
    let workspace = workspace();
    let pairs = fs::read_to_string(workspace.path().join("train.jsonl")).unwrap();
    let (some, others) = pairs.split_at(pairs.match_indices('\n').nth(2).unwrap().0);
    fs::write(workspace.path().join("some.jsonl"), some).unwrap();
    fs::write(workspace.path().join("others.jsonl"), others).unwrap();
    let train_on = |files: &[&str], name: &str, states: &str| {
        let states = workspace.path().join(states);
        let mut config = config(workspace.path(), 1);
        let places = files.iter().map(|file| workspace.path().join(file).display().to_string());
        config.train = PairFiles::Many(places.collect());
        let directories = RunDirectories { states: states.clone(), ..(&workspace.path().join(name)).into() };
        train(&config, directories, quietly).unwrap();
        num_prompts_and_tokens(&states)
    };
    let first = train_on(&["some.jsonl"], "first", "states");
    let second = train_on(&["some.jsonl", "others.jsonl"], "second", "states");
    assert!(first < second, "{first:?} {second:?}");
    assert_eq!(train_on(&["train.jsonl"], "at-once", "other-states"), second, "no prompt is there twice");
    assert_eq!(train_on(&["others.jsonl"], "third", "states"), second, "nothing is left to encode");
}

pub(crate) fn num_prompts_and_tokens(states: &Path) -> (usize, usize) {
    let [llm] = children(states).try_into().unwrap();
    let chunks = children(&llm).into_iter().map(|path| SafetensorsFile::open(&path).unwrap());
    let sizes = chunks.map(|chunk| ["lens", "tokens"].map(|name| chunk.info(name).unwrap().shape[0]));
    sizes.fold((0, 0), |(prompts, tokens), [lens, more]| (prompts + lens, tokens + more))
}

pub(crate) fn children(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}
