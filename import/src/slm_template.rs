//! The prompt template of an imported small model, in the special tokens of its tokenizer.

use std::path::{Path, PathBuf};

use baton_bundle::{
    ModelConfig, SlmTokenizer as SlmTokenizerFiles, TEXT_PLACEHOLDER, TextTokenizer, read_bytes,
};
use tokenizers::{Encoding, Tokenizer};

use crate::ImportError;
use crate::slm::around_text;

/// The model's tokenizer.
pub(crate) struct SlmTokenizer {
    source: PathBuf,
    tokenizer: Either,
}

enum Either {
    /// `tokenizer.json`.
    Json(Box<Tokenizer>),
    /// SentencePiece models, which put no tokens around a text.
    SentencePiece(Box<TextTokenizer>, SlmTokenizerFiles),
}

impl SlmTokenizer {
    /// Reads the files that were imported from `source` into `slm`.
    pub(crate) fn read(source: &Path, slm: &Path) -> Result<Self, ImportError> {
        let refused = |reason: String| ImportError::UnsupportedSource { path: source.to_owned(), reason };
        let json = slm.join("tokenizer.json");
        let tokenizer = if json.exists() {
            let tokenizer = Tokenizer::from_bytes(read_bytes(&json)?)
                .map_err(|error| refused(format!("its tokenizer.json does not load: {error}")))?;
            Either::Json(Box::new(tokenizer))
        } else {
            let has = |name: &str| slm.join(name).exists();
            let (pieces, files) = match (has("source.spm"), has("vocab.json")) {
                (true, _) => ("source.spm", SlmTokenizerFiles::SourceAndTarget),
                (false, true) => ("vocab.spm", SlmTokenizerFiles::SentencePieceWithIds),
                (false, false) => ("vocab.spm", SlmTokenizerFiles::SentencePiece),
            };
            Either::SentencePiece(Box::new(TextTokenizer::open(&slm.join(pieces))?), files)
        };
        Ok(Self { source: source.to_owned(), tokenizer })
    }

    /// Which files it is.
    pub(crate) fn kind(&self) -> SlmTokenizerFiles {
        match self.tokenizer {
            Either::Json(_) => SlmTokenizerFiles::Json,
            Either::SentencePiece(_, files) => files,
        }
    }

    /// The tokens that occur in no text.
    pub(crate) fn special_tokens(&self) -> Vec<String> {
        match &self.tokenizer {
            Either::Json(tokenizer) => {
                let added = tokenizer.get_added_tokens_decoder().into_values();
                added.filter(|token| token.special).map(|token| token.content).collect()
            }
            Either::SentencePiece(tokenizer, _) => tokenizer.special_tokens(),
        }
    }

    /// The id of text that the vocabulary lacks.
    pub(crate) fn unknown_id(&self) -> Option<u32> {
        self.id("<unk>").ok()
    }

    /// The id of a token.
    pub(crate) fn id(&self, token: &str) -> Result<u32, ImportError> {
        let id = match &self.tokenizer {
            Either::Json(tokenizer) => tokenizer.token_to_id(token),
            Either::SentencePiece(tokenizer, _) => tokenizer.token_id(token),
        };
        id.ok_or_else(|| self.refused(format!("its tokenizer has no token `{token}`")))
    }

    /// The text of a token.
    pub(crate) fn token(&self, id: u32) -> Result<String, ImportError> {
        let token = match &self.tokenizer {
            Either::Json(tokenizer) => tokenizer.id_to_token(id),
            Either::SentencePiece(tokenizer, _) => tokenizer.token(id),
        };
        token.ok_or_else(|| {
            self.refused(format!("its config.json names token {id}, which its tokenizer lacks"))
        })
    }

    /// The bundle's template, with `around`, or else with the tokens that the tokenizer puts around texts.
    /// For a decoder-only model, its last token is removed and becomes the config's begin token.
    pub(crate) fn settle(
        &self,
        (template, around): (Option<&str>, Option<[String; 2]>),
        config: &mut ModelConfig,
    ) -> Result<String, ImportError> {
        let [prefix, suffix] = match (around, &self.tokenizer) {
            (Some(around), _) => around,
            (None, Either::Json(tokenizer)) => self.special_tokens_around_texts(tokenizer)?,
            (None, Either::SentencePiece(..)) => [String::new(), self.end(config)?],
        };
        let (before, after) = match template {
            Some(template) => around_text(template).ok_or_else(|| {
                self.refused(format!("the template {template:?} has no {TEXT_PLACEHOLDER}"))
            })?,
            None => ("", ""),
        };
        let before = if before.starts_with(&prefix) { before.to_owned() } else { prefix + before };
        if config.encoder_decoder().is_some() {
            let after = if after.ends_with(&suffix) { after.to_owned() } else { after.to_owned() + &suffix };
            return Ok(format!("{before}{TEXT_PLACEHOLDER}{after}"));
        }
        let Either::Json(tokenizer) = &self.tokenizer else {
            return Err(self.refused("a decoder-only model needs a tokenizer.json".to_owned()));
        };
        let encoding = self.encode(tokenizer, after, false)?;
        let Some((&begin, offsets)) = encoding.get_ids().last().zip(encoding.get_offsets().last()) else {
            return Err(self.refused(format!(
                "it has no encoder, so it continues a prompt; give a template whose last token begins the \
                 output, such as --template '<|im_start|>user\\nTranslate into Italian: \
                 {TEXT_PLACEHOLDER}<|im_end|>\\n<|im_start|>assistant\\n'"
            )));
        };
        config.bos_token_id = Some(begin);
        Ok(format!("{before}{TEXT_PLACEHOLDER}{}", &after[..offsets.0]))
    }

    /// The token that ends a text.
    pub(crate) fn end(&self, config: &ModelConfig) -> Result<String, ImportError> {
        let end = config.eos_token_ids.first().map(|&id| self.token(id));
        Ok(end.transpose()?.unwrap_or_default())
    }

    /// The tokens that the tokenizer puts before and after any text.
    fn special_tokens_around_texts(&self, tokenizer: &Tokenizer) -> Result<[String; 2], ImportError> {
        let ids = |special| Ok::<_, ImportError>(self.encode(tokenizer, "a", special)?.get_ids().to_vec());
        let (bare, whole) = (ids(false)?, ids(true)?);
        let start = whole.windows(bare.len().max(1)).position(|window| window == bare).unwrap_or(0);
        let end = (start + bare.len()).min(whole.len());
        let text = |ids: &[u32]| ids.iter().map(|&id| self.token(id)).collect::<Result<String, _>>();
        Ok([text(&whole[..start])?, text(&whole[end..])?])
    }

    fn encode(&self, tokenizer: &Tokenizer, text: &str, special: bool) -> Result<Encoding, ImportError> {
        let refused = |error| self.refused(format!("its tokenizer refuses {text:?}: {error}"));
        tokenizer.encode(text, special).map_err(refused)
    }

    pub(crate) fn refused(&self, reason: String) -> ImportError {
        ImportError::UnsupportedSource { path: self.source.clone(), reason }
    }
}
