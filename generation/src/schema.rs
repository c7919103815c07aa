//! The options. To add one, add an entry here; `definition.rs` explains the result.
//!
//! The comment above an entry is its documentation everywhere: in `--help`, in `docs/reference/generation.md`
//! and in rustdoc. `default` says the default there. `Option` means that the default is no value at all.

use crate::Method::{Beam, Sample};
use crate::{Allowed, EarlyStopping, Markup, OtherLanguage, QualityColumns, ReaderContext};

schema! {
    /// Language that the small model reads, where it knows several: one of those that `baton bundle show`
    /// lists.
    source_language: Option<String> = None, {
        default: "the bundle's", allowed: Allowed::Text, value_name: "CODE", example: "eng_Latn",
    }

    /// Language that the small model writes, where it knows several.
    target_language: Option<String> = None, {
        default: "the bundle's", allowed: Allowed::Text, value_name: "CODE", example: "fra_Latn",
    }

    /// Field or column with the language of a record's text, one that the small model knows. A record without
    /// the field has the job's source language.
    source_language_field: Option<String> = None, {
        default: "none", allowed: Allowed::Text, value_name: "FIELD", example: "lang",
    }

    /// The same for the language of a record's output.
    target_language_field: Option<String> = None, {
        default: "none", allowed: Allowed::Text, value_name: "FIELD", example: "to",
    }

    /// Longest output, tokens, the end token included. The bundle's limit always holds.
    max_new_tokens: Option<u32> = None, {
        default: "the bundle's limit", allowed: Allowed::Integers(1, u32::MAX as u64),
        value_name: "TOKENS", example: "64",
    }

    /// Longest output relative to its prompt: a second maximum of `ceil(prompt tokens * X)` tokens. It is
    /// never below `min_new_tokens`.
    max_new_tokens_per_prompt_token: Option<f64> = None, {
        default: "none", allowed: Allowed::Numbers(0.001, 1000.0), value_name: "X", example: "2.5",
    }

    /// Shortest output, tokens. The model cannot choose an end or stop token earlier.
    min_new_tokens: u32 = 0, {
        default: "0", allowed: Allowed::Integers(0, u32::MAX as u64), value_name: "TOKENS",
    }

    /// Shortest output relative to its prompt: a second minimum of `floor(prompt tokens * X)` tokens. It is
    /// never above the maximum.
    min_new_tokens_per_prompt_token: Option<f64> = None, {
        default: "none", allowed: Allowed::Numbers(0.001, 1000.0), value_name: "X", example: "0.3",
    }

    /// Sequences that a beam search keeps at each step. 1 decodes greedily.
    beams: u32 = 1, {
        default: "1", allowed: Allowed::Integers(1, MAX_SEQUENCES), used_by: &[Beam], chooses_method: true,
        value_name: "SEQUENCES", example: "4",
    }

    /// Beam search: a sequence of n tokens scores its summed log-probability / n^X. Above 0 favours long
    /// outputs, below 0 short ones.
    length_penalty: f64 = 1.0, {
        default: "1", allowed: Allowed::Numbers(-8.0, 8.0), used_by: &[Beam], value_name: "X",
    }

    /// Beam search: when the search ends, once it has as many finished sequences as beams. `heuristic`: when
    /// the best running sequence scores no higher at its present length. `never`: when no running sequence
    /// can still get ahead. `at_once`: immediately.
    early_stopping: EarlyStopping = EarlyStopping::Heuristic, {
        default: "heuristic", allowed: Allowed::Names(EarlyStopping::NAMES), used_by: &[Beam],
        value_name: "WHEN",
    }

    /// Sampling: divides the logits. Below 1 is more cautious, above 1 more varied.
    temperature: Option<f64> = None, {
        default: "1", allowed: Allowed::Numbers(1e-6, 1000.0), used_by: &[Sample], chooses_method: true,
        value_name: "X", example: "0.7",
    }

    /// Sampling: only this many of the most likely tokens.
    top_k: Option<u32> = None, {
        default: "all", allowed: Allowed::Integers(1, u32::MAX as u64), used_by: &[Sample],
        chooses_method: true, value_name: "TOKENS", example: "50",
    }

    /// Sampling: only the most likely tokens that together have this probability.
    top_p: Option<f64> = None, {
        default: "all", allowed: Allowed::Numbers(1e-6, 1.0), used_by: &[Sample], chooses_method: true,
        value_name: "SHARE", example: "0.9",
    }

    /// Sampling: only tokens at least this many times as likely as the most likely one.
    min_p: Option<f64> = None, {
        default: "all", allowed: Allowed::Numbers(1e-6, 1.0), used_by: &[Sample], chooses_method: true,
        value_name: "SHARE", example: "0.05",
    }

    /// Sampling: the same seed draws the same outputs, on any number of machines.
    seed: u64 = 0, {
        default: "0", allowed: Allowed::Integers(0, u64::MAX), used_by: &[Sample], value_name: "NUMBER",
    }

    /// Above 1 makes tokens less likely that the output already has: it divides logits above 0 and multiplies
    /// others.
    repetition_penalty: f64 = 1.0, {
        default: "1", allowed: Allowed::Numbers(0.01, 100.0), value_name: "X", example: "1.2",
    }

    /// No sequence of this many tokens is written twice. 0 allows all.
    no_repeat_ngram: u32 = 0, {
        default: "0", allowed: Allowed::Integers(0, u32::MAX as u64), value_name: "TOKENS", example: "3",
    }

    /// Once an output has begun a word of the source, X is added to the logits of tokens that continue it,
    /// such as a name. 0 adds nothing.
    copy_bias: f64 = 0.0, {
        default: "0", allowed: Allowed::Numbers(0.0, 10_000.0), value_name: "X", example: "6",
    }

    /// For translation: X is added to the logits of tokens that begin a name of the source, until the output
    /// has the name. 0 adds nothing.
    name_bias: f64 = 0.0, {
        default: "0", allowed: Allowed::Numbers(0.0, 10_000.0), value_name: "X", example: "2",
    }

    /// For translation: each sentence of a record's text is a prompt of its own, and the outputs are joined
    /// as the text joins its sentences. Texts can then have any length, and long texts are translated better.
    by_sentence: bool = false, {
        default: "false", allowed: Allowed::Truth, value_name: "BOOL",
    }

    /// A text that is too long for the models is cut at headings, paragraphs, lines or sentences, and the
    /// outputs of its parts are joined. Without it, its record fails. Texts that are cut by sentence never
    /// are too long.
    cut_long_texts: bool = false, {
        default: "false", allowed: Allowed::Truth, value_name: "BOOL",
    }

    /// How much the LLM reads for a segment that a small model with its own tokens writes: `segment` alone,
    /// or the whole `record`, once. The small model then knows what stands around a sentence.
    reader_context: ReaderContext = ReaderContext::Segment, {
        default: "segment", allowed: Allowed::Names(ReaderContext::NAMES), value_name: "CONTEXT",
    }

    /// Only likely tokens can be written: those that the bundle's lexical shortlist has for a segment, and
    /// those that other options ask for. It is faster; small models that were published with a shortlist can
    /// do it.
    shortlist: bool = false, {
        default: "false", allowed: Allowed::Truth, value_name: "BOOL",
    }

    /// Outputs per record, best first: from a beam search at most as many as beams, or that many samples. The
    /// best is the row's `output`, the others are its `alternatives`.
    n_best: u32 = 1, {
        default: "1", allowed: Allowed::Integers(1, MAX_SEQUENCES), used_by: &[Beam, Sample],
        value_name: "OUTPUTS",
    }

    /// Tokens of the output tokenizer, by their exact text, that end an output as its end token does. The
    /// output leaves them out.
    stop_tokens: Vec<String> = Vec::new(), {
        default: "none", allowed: Allowed::Texts, value_name: "TOKEN",
    }

    /// Texts that end an output. The output is cut before the text that ended it.
    stop_strings: Vec<String> = Vec::new(), {
        default: "none", allowed: Allowed::Texts, value_name: "TEXT", example: "'###'",
    }

    /// Text that must not be translated: each match of the regular expression comes back unchanged.
    /// Placeholders, tags, links and the like come back unchanged without this option.
    protect: Vec<String> = Vec::new(), {
        default: "none", allowed: Allowed::Texts, value_name: "REGEX", example: "'ACME \\w+'",
    }

    /// The markup of texts that are documents. `html`: the text of each block and of attributes such as `alt`
    /// and `title` is translated, with its tags; scripts, code and what is marked `translate="no"` stay.
    /// `markdown`: paragraphs, headings, items and cells; front matter, code and the targets of links stay.
    markup: Markup = Markup::None, {
        default: "none", allowed: Allowed::Names(Markup::NAMES), value_name: "MARKUP", example: "html",
    }

    /// The treatment of texts that are surely in another language than the bundle translates, or already in
    /// its target language. `translate` treats them like all others, `copy` copies them unchanged, and
    /// `error` makes their records fail. Rows of such texts have a warning.
    other_language: OtherLanguage = OtherLanguage::Translate, {
        default: "translate", allowed: Allowed::Names(OtherLanguage::NAMES), value_name: "TREATMENT",
        example: "copy",
    }

    /// A text is decoded once more, with so many beams and without biases, if its output has a flaw: a unit,
    /// number or term that the model lost or invented, words that repeat, another language or script, nothing
    /// at all. The output with fewer flaws stays. 0 decodes nothing twice.
    retry_beams: u32 = 4, {
        default: "4", allowed: Allowed::Integers(0, MAX_SEQUENCES), value_name: "SEQUENCES", example: "0",
    }

    /// A record fails if its output still has a flaw that no rule mends. Examples are a number at a guessed
    /// place, a missing term, words that repeat, or no words at all. Without `strict`, its row has a warning.
    strict: bool = false, {
        default: "false", allowed: Allowed::Truth, value_name: "BOOL",
    }

    /// An entry of the job's glossary: the source's words, `=`, and their term in outputs; or the words alone
    /// if they are not translated. `==` in place of `=` matches the words exactly, with capitals and endings.
    /// `--glossary FILE` reads a glossary from a file.
    terms: Vec<String> = Vec::new(), {
        default: "none", allowed: Allowed::Texts, value_name: "TERM", example: "'disk=disco'",
    }

    /// Kinds of units that are left to the model: pattern, term, code, link, email, tag, entity, placeholder,
    /// emphasis, path, amount, identifier, emoji, sign, script. `number` leaves plain numbers to the model,
    /// and `all` passes texts to the model unchanged.
    unprotected: Vec<String> = Vec::new(), {
        default: "none", allowed: Allowed::Texts, value_name: "KIND", example: "emoji",
    }

    /// The statements of rows about their outputs' quality. `estimate`: `quality`, from 0 to 1, the
    /// probability that the output is not among the worst tenth. `signals`: also its probabilities, length,
    /// repetition, copied words and language. The estimate needs a bundle that has one for the mode.
    quality: QualityColumns = QualityColumns::None, {
        default: "no", allowed: Allowed::Names(QualityColumns::NAMES), value_name: "COLUMNS",
        example: "estimate",
    }

    /// The worst outputs, for a reader: `review.jsonl` in the output directory has them with their texts.
    /// From 1 on: that many, the worst first. Below 1: all whose estimate is lower, in the job's order.
    review: Option<f64> = None, {
        default: "none", allowed: Allowed::Numbers(0.0001, 100_000.0), value_name: "N|THRESHOLD",
        example: "100",
    }
}

/// Beams or outputs of one record at most. Each takes a place in the decode batch.
const MAX_SEQUENCES: u64 = 64;
