//! The tokenizer inside a GGUF file, written as the Hugging Face files it was once made from.
//!
//! GGUF keeps the vocabulary, the merges and the kind of each token, but only a *name* for the way of
//! splitting text before the merges. [`PRE_TOKENIZERS`] explains these names.

use std::path::Path;

use baton_bundle::BundleError;
use candle_core::quantized::gguf_file::Content;
use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::ImportError;
use crate::gguf_metadata::GgufMetadata;

/// A `tokenizer.ggml.pre` and its splitting.
type NamedPreTokenizer = (&'static str, fn() -> PreTokenizerWrapper);

const PRE_TOKENIZERS: &[NamedPreTokenizer] =
    &[("gpt-2", byte_level), ("smollm", single_digits_then_byte_level)];

fn byte_level() -> PreTokenizerWrapper {
    ByteLevel::new(false, true, true).into()
}

fn single_digits_then_byte_level() -> PreTokenizerWrapper {
    Sequence::new(vec![Digits::new(true).into(), byte_level()]).into()
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

enum BuildError {
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
    let model = metadata.string("tokenizer.ggml.model")?;
    if model != "gpt2" {
        let problem = format!("is `{model}`; only byte-level BPE (`gpt2`) is supported");
        return Err(metadata.problem("tokenizer.ggml.model", problem).into());
    }
    let pre = metadata.optional_string("tokenizer.ggml.pre")?.unwrap_or("gpt-2");
    let Some((_, pre_tokenizer)) = PRE_TOKENIZERS.iter().find(|(name, _)| *name == pre) else {
        let names: Vec<_> = PRE_TOKENIZERS.iter().map(|(name, _)| *name).collect();
        let problem = format!("is `{pre}`; supported: {}", names.join(", "));
        return Err(metadata.problem("tokenizer.ggml.pre", problem).into());
    };

    let tokens = metadata.strings("tokenizer.ggml.tokens")?;
    let mut merges = Vec::new();
    for merge in metadata.strings("tokenizer.ggml.merges")? {
        let parts = merge.split_once(' ');
        let (left, right) = parts
            .ok_or_else(|| metadata.problem("tokenizer.ggml.merges", format!("has `{merge}`, not a pair")))?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    let vocabulary: Vocab = tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).build()?;

    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer()));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    let kinds = metadata.integers("tokenizer.ggml.token_type")?;
    if kinds.len() != tokens.len() {
        let problem = format!("has {} entries for {} tokens", kinds.len(), tokens.len());
        return Err(metadata.problem("tokenizer.ggml.token_type", problem).into());
    }
    let of_kind = |wanted: &'static [i64], special: bool| {
        let chosen = tokens.iter().zip(&kinds).filter(move |(_, kind)| wanted.contains(kind));
        chosen.map(move |(token, _)| AddedToken::from(*token, special).normalized(false))
    };
    tokenizer.add_special_tokens(of_kind(&[TOKEN_UNKNOWN, TOKEN_CONTROL], true))?;
    tokenizer.add_tokens(of_kind(&[TOKEN_USER_DEFINED], false))?;
    if let Some(processor) = special.post_processor()? {
        tokenizer.with_post_processor(Some(processor));
    }
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
        if let Some(length) = metadata.optional_unsigned("llama.context_length")? {
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
