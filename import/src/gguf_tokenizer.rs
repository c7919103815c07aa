//! The tokenizer inside a GGUF file, written as the Hugging Face files it was once made from.
//!
//! GGUF keeps the vocabulary, the merges and the kind of each token, but only a *name* for the way of
//! splitting text before the merges. [`PRE_TOKENIZERS`] explains these names.

use std::path::Path;

use baton_bundle::BundleError;
use candle_core::quantized::gguf_file::Content;
use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split as SplitBy, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::gguf_metadata::GgufMetadata;
use crate::{ImportError, gguf_pieces};

/// The splitting of text before merges, by its name in `tokenizer.ggml.pre`.
struct Splitting {
    names: &'static [&'static str],
    split: Split,
    /// Whether a piece of text that is a token needs no merges.
    ignores_merges: bool,
    /// Whether letters are composed first (NFC).
    composes: bool,
}

#[derive(Clone, Copy)]
enum Split {
    /// As GPT-2.
    ByteLevel,
    /// Each digit apart, then as GPT-2.
    SingleDigits,
    /// By this expression.
    Expression(&'static str),
}

const PRE_TOKENIZERS: [Splitting; 6] = [
    Splitting { names: &["gpt-2"], split: Split::ByteLevel, ignores_merges: false, composes: false },
    Splitting {
        names: &["smollm", "refact"],
        split: Split::SingleDigits,
        ignores_merges: false,
        composes: false,
    },
    Splitting {
        names: &["llama-bpe"],
        split: Split::Expression(CL100K),
        ignores_merges: true,
        composes: false,
    },
    Splitting { names: &["dbrx"], split: Split::Expression(CL100K), ignores_merges: false, composes: false },
    Splitting { names: &["qwen2"], split: Split::Expression(QWEN2), ignores_merges: false, composes: true },
    Splitting { names: &["tekken"], split: Split::Expression(TEKKEN), ignores_merges: true, composes: false },
];

/// Contractions, words with a mark before them, up to three digits, marks, lines, spaces: of OpenAI's
/// cl100k_base and Llama 3.
const CL100K: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// The same with each digit apart.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Words by the case of their letters, each digit apart: Mistral's Tekken.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

impl Split {
    fn pre_tokenizer(self) -> Result<PreTokenizerWrapper, tokenizers::Error> {
        let byte_level: PreTokenizerWrapper = ByteLevel::new(false, true, true).into();
        Ok(match self {
            Self::ByteLevel => byte_level,
            Self::SingleDigits => Sequence::new(vec![Digits::new(true).into(), byte_level]).into(),
            Self::Expression(expression) => {
                let pattern = SplitPattern::Regex(expression.to_owned());
                let split = SplitBy::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
                Sequence::new(vec![split.into(), ByteLevel::new(false, true, false).into()]).into()
            }
        })
    }
}

// Values of `tokenizer.ggml.token_type`, from the GGUF specification.
const TOKEN_UNKNOWN: i64 = 2;
const TOKEN_CONTROL: i64 = 3;
const TOKEN_USER_DEFINED: i64 = 4;

/// Names and bytes of `tokenizer.json`, `tokenizer_config.json` and `generation_config.json`.
pub(super) fn files(path: &Path, content: &Content) -> Result<Vec<(&'static str, Vec<u8>)>, ImportError> {
    let metadata = GgufMetadata::new(path, content);
    let special = TokenRoles::read(&metadata)?;
    let tokenizer = build(&metadata, &special)
        .map_err(|error| match error {
            BuildError::Metadata(error) => error,
            BuildError::Library(source) => BundleError::Tokenizer { path: path.to_owned(), source }.into(),
        })?
        .to_string(true)
        .map_err(|source| BundleError::Tokenizer { path: path.to_owned(), source })?;
    Ok(vec![
        ("tokenizer.json", tokenizer.into_bytes()),
        ("tokenizer_config.json", pretty(&special.tokenizer_config(&metadata)?)),
        ("generation_config.json", pretty(&special.generation_config())),
    ])
}

pub(super) enum BuildError {
    Metadata(ImportError),
    Library(tokenizers::Error),
}

impl From<ImportError> for BuildError {
    fn from(error: ImportError) -> Self {
        Self::Metadata(error)
    }
}

impl From<tokenizers::Error> for BuildError {
    fn from(error: tokenizers::Error) -> Self {
        Self::Library(error)
    }
}

fn build(metadata: &GgufMetadata<'_>, special: &TokenRoles<'_>) -> Result<Tokenizer, BuildError> {
    let tokens = metadata.strings("tokenizer.ggml.tokens")?;
    let model = metadata.string("tokenizer.ggml.model")?;
    let mut tokenizer = match model {
        "gpt2" => build_byte_level(metadata, &tokens)?,
        "llama" => gguf_pieces::build(metadata, &tokens, special.unknown.map(|(text, _)| text))?,
        _ => {
            let problem = format!(
                "is `{model}`; byte-level BPE (`gpt2`) and SentencePiece's BPE (`llama`) are supported"
            );
            return Err(metadata.problem("tokenizer.ggml.model", problem).into());
        }
    };
    let kinds = metadata.integers("tokenizer.ggml.token_type")?;
    if kinds.len() != tokens.len() {
        let problem = format!("has {} entries for {} tokens", kinds.len(), tokens.len());
        return Err(metadata.problem("tokenizer.ggml.token_type", problem).into());
    }
    let of_kind = |wanted: &'static [i64], special: bool| {
        let chosen = tokens.iter().zip(&kinds).filter(move |(_, kind)| wanted.contains(kind));
        // A token of spaces is looked for where they have become the character that stands for them.
        chosen.map(move |(token, _)| AddedToken::from(*token, special).normalized(token.contains('▁')))
    };
    tokenizer.add_special_tokens(of_kind(&[TOKEN_UNKNOWN, TOKEN_CONTROL], true))?;
    tokenizer.add_tokens(of_kind(&[TOKEN_USER_DEFINED], false))?;
    if let Some(processor) = special.post_processor()? {
        tokenizer.with_post_processor(Some(processor));
    }
    Ok(tokenizer)
}

/// A tokenizer whose merges the file has.
fn build_byte_level(metadata: &GgufMetadata<'_>, tokens: &[&str]) -> Result<Tokenizer, BuildError> {
    let pre = metadata.optional_string("tokenizer.ggml.pre")?.unwrap_or("gpt-2");
    let Some(splitting) = PRE_TOKENIZERS.iter().find(|splitting| splitting.names.contains(&pre)) else {
        let names: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|splitting| splitting.names).copied().collect();
        let problem = format!("is `{pre}`; supported: {}", names.join(", "));
        return Err(metadata.problem("tokenizer.ggml.pre", problem).into());
    };
    let mut merges = Vec::new();
    for merge in metadata.strings("tokenizer.ggml.merges")? {
        let parts = merge.split_once(' ');
        let (left, right) = parts
            .ok_or_else(|| metadata.problem("tokenizer.ggml.merges", format!("has `{merge}`, not a pair")))?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    let vocabulary: Vocab = tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(splitting.ignores_merges);
    let mut tokenizer = Tokenizer::new(bpe.build()?);
    if splitting.composes {
        tokenizer.with_normalizer(Some(NFC))?;
    }
    tokenizer.with_pre_tokenizer(Some(splitting.split.pre_tokenizer()?));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    Ok(tokenizer)
}

/// The tokens with a role, as (text, id), and the tokens that the model expects around each text.
struct TokenRoles<'c> {
    bos: Option<(&'c str, u32)>,
    eos: Option<(&'c str, u32)>,
    unknown: Option<(&'c str, u32)>,
    padding: Option<(&'c str, u32)>,
    add_bos: bool,
    add_eos: bool,
}

impl<'c> TokenRoles<'c> {
    fn read(metadata: &GgufMetadata<'c>) -> Result<Self, ImportError> {
        let tokens = metadata.strings("tokenizer.ggml.tokens")?;
        let token = |key| -> Result<Option<(&'c str, u32)>, ImportError> {
            let Some(id) = metadata.optional_token_id(key)? else { return Ok(None) };
            let text = tokens.get(id as usize);
            let text = text.ok_or_else(|| metadata.problem(key, "is beyond the vocabulary"))?;
            Ok(Some((*text, id)))
        };
        Ok(Self {
            bos: token("tokenizer.ggml.bos_token_id")?,
            eos: token("tokenizer.ggml.eos_token_id")?,
            unknown: token("tokenizer.ggml.unknown_token_id")?,
            padding: token("tokenizer.ggml.padding_token_id")?,
            add_bos: metadata.optional_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(false),
            add_eos: metadata.optional_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        })
    }

    fn post_processor(&self) -> Result<Option<TemplateProcessing>, tokenizers::Error> {
        let bos = self.bos.filter(|_| self.add_bos);
        let eos = self.eos.filter(|_| self.add_eos);
        if bos.is_none() && eos.is_none() {
            return Ok(None);
        }
        let pieces = bos.iter().map(|(text, _)| *text).chain(["$A"]).chain(eos.iter().map(|(text, _)| *text));
        let special = bos.iter().chain(&eos).map(|(text, id)| ((*text).to_owned(), *id));
        let processor = TemplateProcessing::builder()
            .try_single(pieces.collect::<Vec<_>>())?
            .special_tokens(special.collect::<Vec<_>>())
            .build()?;
        Ok(Some(processor))
    }

    fn tokenizer_config(&self, metadata: &GgufMetadata<'_>) -> Result<Map<String, Value>, ImportError> {
        let mut config = Map::new();
        let roles = [("bos_token", self.bos), ("eos_token", self.eos), ("unk_token", self.unknown)];
        for (role, token) in roles.into_iter().chain([("pad_token", self.padding)]) {
            config.insert(role.to_owned(), token.map_or(Value::Null, |(text, _)| text.into()));
        }
        if let Some(template) = metadata.optional_string("tokenizer.chat_template")? {
            config.insert("chat_template".to_owned(), template.into());
        }
        let architecture = metadata.string("general.architecture")?;
        if let Some(length) = metadata.optional_unsigned(&format!("{architecture}.context_length"))? {
            config.insert("model_max_length".to_owned(), length.into());
        }
        config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
        config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
        Ok(config)
    }

    fn generation_config(&self) -> Map<String, Value> {
        let ids = [("bos_token_id", self.bos), ("eos_token_id", self.eos), ("pad_token_id", self.padding)];
        ids.into_iter()
            .filter_map(|(role, token)| token.map(|(_, id)| (role.to_owned(), json!(id))))
            .collect()
    }
}

fn pretty(json: &Map<String, Value>) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(json).expect("the map has only strings and numbers");
    bytes.push(b'\n');
    bytes
}
