//! The flags that say how outputs are generated. Each overrules one field of the job file's `[generation]`, and that one field of what the bundle
//! proposes.

use baton_job::{EarlyStopping, GenerationLayer};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

/// How outputs are generated: as the bundle proposes, or greedily where it does not, unless flags say otherwise. The fields are those of
/// `baton_job::GenerationOptions`.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[command(next_help_heading = "Generation")]
pub(crate) struct GenerationArgs {
    /// Longest output, tokens. Default and upper bound: the bundle's limit. Example: 64
    #[arg(long, value_name = "TOKENS", env = "BATON_MAX_NEW_TOKENS")]
    max_new_tokens: Option<u32>,
    /// Longest output relative to its prompt, tokens per prompt token. Default: no such limit. Example: 2.5
    #[arg(long, value_name = "RATIO", env = "BATON_MAX_NEW_TOKENS_PER_PROMPT_TOKEN")]
    max_new_tokens_per_prompt_token: Option<f32>,
    /// Shortest output, tokens. Default: 0.
    #[arg(long, value_name = "TOKENS", env = "BATON_MIN_NEW_TOKENS")]
    min_new_tokens: Option<u32>,
    /// Shortest output relative to its prompt, tokens per prompt token. Default: no such limit. Example: 0.3
    #[arg(long, value_name = "RATIO", env = "BATON_MIN_NEW_TOKENS_PER_PROMPT_TOKEN")]
    min_new_tokens_per_prompt_token: Option<f32>,
    /// Beam search with so many sequences, 2 to 64. Default: 1, greedy. Example: --beams 4
    #[arg(long, value_name = "SEQUENCES", env = "BATON_BEAMS")]
    beams: Option<u32>,
    /// Beam search: a sequence of n tokens scores its summed log-probability / n^X. Default: 1; 0 prefers short outputs.
    #[arg(long, value_name = "X", env = "BATON_LENGTH_PENALTY", allow_hyphen_values = true)]
    length_penalty: Option<f64>,
    /// Beam search: when it is over, once it has as many finished sequences as beams: when the best running one scores no higher at
    /// its present length (heuristic), at once, or when none can still get ahead (never). Default: heuristic.
    #[arg(long, value_name = "WHEN", env = "BATON_EARLY_STOPPING", value_parser = early_stopping_parser())]
    early_stopping: Option<EarlyStopping>,
    /// Sampling: divides the logits; below 1 is more cautious, above 1 more varied. Default: 1. Example: --temperature 0.7
    #[arg(long, value_name = "T", env = "BATON_TEMPERATURE")]
    temperature: Option<f32>,
    /// Sampling: only so many of the most likely tokens. Default: all. Example: --top-k 50
    #[arg(long, value_name = "TOKENS", env = "BATON_TOP_K")]
    top_k: Option<u32>,
    /// Sampling: only the most likely tokens that together have this probability, 0 to 1. Default: all. Example: --top-p 0.9
    #[arg(long, value_name = "SHARE", env = "BATON_TOP_P")]
    top_p: Option<f32>,
    /// Sampling: only tokens at least this many times as likely as the most likely one, 0 to 1. Default: all. Example: --min-p 0.05
    #[arg(long, value_name = "SHARE", env = "BATON_MIN_P")]
    min_p: Option<f32>,
    /// Sampling: the same seed draws the same outputs, on any number of machines. Default: 0.
    #[arg(long, value_name = "NUMBER", env = "BATON_SEED")]
    seed: Option<u64>,
    /// Above 1 makes tokens that were written before less likely: logits above 0 are divided by it, others multiplied. Default: 1.
    /// Example: --repetition-penalty 1.2
    #[arg(long, value_name = "X", env = "BATON_REPETITION_PENALTY")]
    repetition_penalty: Option<f32>,
    /// No sequence of so many tokens is written twice. Default: 0, allowed. Example: --no-repeat-ngram 3
    #[arg(long, value_name = "TOKENS", env = "BATON_NO_REPEAT_NGRAM")]
    no_repeat_ngram: Option<u32>,
    /// Once an output has begun a word of the source, such as a name, X is added to the logits of what goes on with it. Default: 0, nothing.
    /// Example: --copy-bias 6
    #[arg(long, value_name = "X", env = "BATON_COPY_BIAS")]
    copy_bias: Option<f32>,
    /// X is added to the logits of what begins a name of the source, a word with a capital, a digit or a sign inside, until the output has
    /// it. For translation. Default: 0, nothing. Example: --name-bias 1
    #[arg(long, value_name = "X", env = "BATON_NAME_BIAS")]
    name_bias: Option<f32>,
    /// Each sentence of a record's text is a prompt of its own, and outputs are joined by what stands between the sentences. For translation: texts
    /// may be as long as you like, and long ones come out better. Default: false. Example: --by-sentence
    #[arg(long, value_name = "BOOL", env = "BATON_BY_SENTENCE", num_args = 0..=1, default_missing_value = "true")]
    by_sentence: Option<bool>,
    /// Outputs per record: of a beam search up to as many as beams, or samples. The best is the row's `output`, the others are its
    /// `alternatives`. Default: 1.
    #[arg(long, value_name = "OUTPUTS", env = "BATON_N_BEST")]
    n_best: Option<u32>,
    /// A token of the output tokenizer, by its exact text, that ends an output; may be given more than once.
    #[arg(long = "stop-token", value_name = "TOKEN", env = "BATON_STOP_TOKEN", allow_hyphen_values = true)]
    stop_tokens: Vec<String>,
    /// A text that ends an output and is cut off with what follows; may be given more than once. Example: --stop-string '###'
    #[arg(long = "stop-string", value_name = "TEXT", env = "BATON_STOP_STRING", allow_hyphen_values = true)]
    stop_strings: Vec<String>,
}

impl GenerationArgs {
    /// The options that flags set.
    pub(crate) fn layer(&self) -> GenerationLayer {
        GenerationLayer::of(self)
    }
}

fn early_stopping_parser() -> impl TypedValueParser<Value = EarlyStopping> {
    PossibleValuesParser::new(EarlyStopping::ALL.map(EarlyStopping::as_str)).map(|name| {
        let named = EarlyStopping::ALL.into_iter().find(|kind| kind.as_str() == name);
        named.expect("a possible value is a kind of early stopping")
    })
}

#[cfg(test)]
mod tests {
    use baton_job::GenerationOptions;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        generation: GenerationArgs,
    }

    fn layer(flags: &str) -> GenerationLayer {
        let command = Command::try_parse_from(["run"].into_iter().chain(flags.split_whitespace())).unwrap();
        command.generation.layer()
    }

    #[test]
    fn each_flag_sets_its_field() {
        let flags = "--max-new-tokens 9 --max-new-tokens-per-prompt-token 2.5 --min-new-tokens 2 \
                     --min-new-tokens-per-prompt-token 0.5 --beams 4 --length-penalty -0.6 --early-stopping at_once \
                     --temperature 0.7 --top-k 50 --top-p 0.9 --min-p 0.05 --seed 11 --repetition-penalty 1.2 \
                     --no-repeat-ngram 3 --copy-bias 2.5 --name-bias 0.5 --by-sentence --n-best 2 --stop-token </s> --stop-token . --stop-string ###";
        let expected = GenerationOptions {
            max_new_tokens: Some(9),
            max_new_tokens_per_prompt_token: Some(2.5),
            min_new_tokens: 2,
            min_new_tokens_per_prompt_token: Some(0.5),
            beams: 4,
            length_penalty: Some(-0.6),
            early_stopping: Some(EarlyStopping::AtOnce),
            temperature: Some(0.7),
            top_k: Some(50),
            top_p: Some(0.9),
            min_p: Some(0.05),
            seed: Some(11),
            repetition_penalty: 1.2,
            no_repeat_ngram: 3,
            copy_bias: 2.5,
            name_bias: 0.5,
            by_sentence: true,
            n_best: 2,
            stop_tokens: vec!["</s>".into(), ".".into()],
            stop_strings: vec!["###".into()],
        };
        assert_eq!(GenerationOptions::from_layers([&layer(flags)]).unwrap(), expected);
    }

    #[test]
    fn what_no_flag_names_is_not_set() {
        assert!(layer("").is_empty());
        assert_eq!(layer("--beams 1").to_string(), "beams = 1");
    }
}
