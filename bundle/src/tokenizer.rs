//! The two tokenizers of a bundle: the LLM's, for prompts, and the SLM's, for its outputs.
//!
//! Corpus text is not trusted. A record that contains `<|im_end|>` means those ten characters. Special tokens
//! are therefore recognized only in templates, and a text is encoded as plain text. The text and the
//! template's plain words around it are encoded as one string, because the model saw such prompts in its
//! training. `Translate: {text}` gives the tokens `Translate`, `:` and `▁Hello`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::Tokenizer;
use tokenizers::decoders::DecoderWrapper;

use crate::file::read_bytes;
use crate::spm_vocabulary::SpmVocabulary;
use crate::{BundleError, Span, SpannedTokens};

/// The placeholder of the record's text in a template.
pub const TEXT_PLACEHOLDER: &str = "{text}";

/// The text before and after [`TEXT_PLACEHOLDER`], or the problem of the template.
pub(crate) fn split_template(template: &str) -> Result<(&str, &str), &'static str> {
    let (before, after) = template.split_once(TEXT_PLACEHOLDER).ok_or("has no {text}")?;
    if after.contains(TEXT_PLACEHOLDER) {
        return Err("has {text} more than once");
    }
    if before.is_empty() && after.is_empty() {
        return Err("has nothing but {text}; give it at least one token, such as <|im_start|>{text}");
    }
    Ok((before, after))
}

/// Turns a record's text into the LLM's prompt.
#[derive(Debug, Clone)]
pub struct PromptTokenizer {
    tokenizer: TextTokenizer,
    /// Up to the last special token before the text, and from the first one after it.
    fixed_ids: (Vec<u32>, Vec<u32>),
    /// The plain words between those special tokens and the text.
    plain_words: (String, String),
}

impl PromptTokenizer {
    /// Loads a tokenizer and encodes the fixed parts of `template`, in which the tokenizer's special tokens
    /// are special.
    ///
    /// # Errors
    /// The file cannot be read or is no tokenizer; the template does not have `{text}` exactly once, or gives
    /// no token beside it (so a prompt is never empty).
    pub fn open(path: &Path, template: &str) -> Result<Self, BundleError> {
        split_template(template).map_err(|problem| template_error(template, problem))?;
        Self::new(TextTokenizer::open(path)?, template)
    }

    /// The same tokenizer, shared, with another template.
    ///
    /// # Errors
    /// The template cannot be used.
    pub fn with_template(&self, template: &str) -> Result<Self, BundleError> {
        Self::new(self.tokenizer.clone(), template)
    }

    fn new(tokenizer: TextTokenizer, template: &str) -> Result<Self, BundleError> {
        let refused = |problem| template_error(template, problem);
        let (before, after) = split_template(template).map_err(refused)?;
        let ids = |tokens: &[FixedToken]| tokens.iter().map(|token| token.id).collect::<Vec<u32>>();
        let fixed_tokenizer = tokenizer.recognizing_special_tokens();

        let tokens = fixed_tokenizer.encode_fixed(before)?;
        let num_fixed = tokens.iter().rposition(|token| token.is_special).map_or(0, |place| place + 1);
        let words_start = num_fixed.checked_sub(1).map_or(0, |last| tokens[last].span.end);
        let (ids_before, words_before) = (ids(&tokens[..num_fixed]), &before[words_start..]);

        let tokens = fixed_tokenizer.encode_fixed(after)?;
        let first_special = tokens.iter().position(|token| token.is_special);
        let words_end = first_special.map_or(after.len(), |first| tokens[first].span.start);
        let ids_after = ids(&tokens[first_special.unwrap_or(tokens.len())..]);
        let words_after = &after[..words_end];

        let prompt_tokenizer = Self {
            fixed_ids: (ids_before, ids_after),
            plain_words: (words_before.to_owned(), words_after.to_owned()),
            tokenizer,
        };
        if prompt_tokenizer.encode("")?.is_empty() {
            return Err(refused("gives no token beside {text}"));
        }
        Ok(prompt_tokenizer)
    }

    /// Token ids of the prompt for one text; never empty, in no case truncated.
    ///
    /// # Errors
    /// The tokenizer refuses the text, which byte-level tokenizers never do.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, BundleError> {
        let plain = [&self.plain_words.0, text, &self.plain_words.1].concat();
        let text_ids = self.tokenizer.encode(&plain)?;
        Ok([self.fixed_ids.0.as_slice(), &text_ids, &self.fixed_ids.1].concat())
    }

    /// The same tokens, each with the bytes of `text` that it covers; the template's tokens cover none.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_with_spans(&self, text: &str) -> Result<SpannedTokens, BundleError> {
        let (before, after) = &self.plain_words;
        let plain = self.tokenizer.encode_with_spans(&[before, text, after].concat())?;
        let of_text = |span: Span| {
            let start = span.start.max(before.len()) - before.len();
            let end = span.end.saturating_sub(before.len()).min(text.len());
            if start < end { start..end } else { 0..0 }
        };
        let (fixed_before, fixed_after) = &self.fixed_ids;
        let nothing = |ids: &[u32]| vec![0..0; ids.len()];
        Ok(SpannedTokens {
            ids: [fixed_before.as_slice(), &plain.ids, fixed_after].concat(),
            spans: [
                nothing(fixed_before),
                plain.spans.into_iter().map(of_text).collect(),
                nothing(fixed_after),
            ]
            .concat(),
        })
    }
}

fn template_error(template: &str, problem: &'static str) -> BundleError {
    BundleError::Template { template: template.to_owned(), problem }
}

/// Token ids of a fixed text around prompts, in which special tokens are special.
///
/// # Errors
/// The tokenizer does not load or refuses the text, or there is no token in it.
pub(crate) fn fixed_text_ids(path: &Path, text: &str) -> Result<Vec<u32>, BundleError> {
    let tokens = TextTokenizer::open(path)?.recognizing_special_tokens().encode_fixed(text)?;
    if tokens.is_empty() {
        return Err(template_error(text, "gives no token"));
    }
    Ok(tokens.into_iter().map(|token| token.id).collect())
}

/// A token of a text that is no corpus's.
struct FixedToken {
    id: u32,
    is_special: bool,
    span: Span,
}

/// Encodes and decodes a model's outputs. Clones share the vocabulary.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    path: PathBuf,
    vocabulary: Vocabulary,
}

#[derive(Debug, Clone)]
enum Vocabulary {
    /// A `tokenizer.json`, with special tokens encoded as the text that they are.
    HuggingFace(Arc<Tokenizer>),
    SentencePiece(Arc<SpmVocabulary>),
}

impl TextTokenizer {
    /// Loads a `tokenizer.json`, or a SentencePiece model (`.spm`). If a `vocab.json` lies beside the latter,
    /// it has the ids of pieces.
    ///
    /// # Errors
    /// The file cannot be read or is no tokenizer.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let vocabulary = match path.extension().is_some_and(|extension| extension == "spm") {
            true => Vocabulary::SentencePiece(Arc::new(SpmVocabulary::open(path)?)),
            false => Vocabulary::HuggingFace(Arc::new(load(path)?)),
        };
        Ok(Self { path: path.to_owned(), vocabulary })
    }

    /// The file that it was loaded from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Token ids of a text, without begin and end tokens; nothing in it is taken for a special token.
    ///
    /// # Errors
    /// The tokenizer refuses the text, which byte-level tokenizers and SentencePiece never do.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, BundleError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(tokenizer) => {
                let encoding = tokenizer.encode_fast(text, false).map_err(tokenizer_error(&self.path))?;
                Ok(encoding.get_ids().to_vec())
            }
            Vocabulary::SentencePiece(vocabulary) => Ok(vocabulary.encode(text).ids),
        }
    }

    /// The same tokens, each with the bytes of `text` that it covers. A part of a character covers the whole
    /// character. Text that a normalizer changed covers its original.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_with_spans(&self, text: &str) -> Result<SpannedTokens, BundleError> {
        let tokenizer = match &self.vocabulary {
            Vocabulary::SentencePiece(vocabulary) => return Ok(vocabulary.encode(text)),
            Vocabulary::HuggingFace(tokenizer) => tokenizer,
        };
        let encoding = tokenizer.encode(text, false).map_err(tokenizer_error(&self.path))?;
        let whole_characters = |&(start, end): &(usize, usize)| {
            if start >= end.min(text.len()) {
                return 0..0;
            }
            let is_boundary = |&at: &usize| text.is_char_boundary(at);
            let start = (0..=start).rev().find(is_boundary).unwrap_or(0);
            start..(end..text.len()).find(is_boundary).unwrap_or(text.len())
        };
        Ok(SpannedTokens {
            ids: encoding.get_ids().to_vec(),
            spans: encoding.get_offsets().iter().map(whole_characters).collect(),
        })
    }

    /// The same, for texts in which special tokens are special.
    fn recognizing_special_tokens(&self) -> Self {
        let vocabulary = match &self.vocabulary {
            Vocabulary::SentencePiece(vocabulary) => Vocabulary::SentencePiece(Arc::clone(vocabulary)),
            Vocabulary::HuggingFace(tokenizer) => {
                let mut tokenizer = Tokenizer::clone(tokenizer);
                tokenizer.set_encode_special_tokens(false);
                Vocabulary::HuggingFace(Arc::new(tokenizer))
            }
        };
        Self { path: self.path.clone(), vocabulary }
    }

    /// Tokens of a text in which special tokens are special, if this tokenizer recognizes them.
    fn encode_fixed(&self, text: &str) -> Result<Vec<FixedToken>, BundleError> {
        let tokenizer = match &self.vocabulary {
            Vocabulary::SentencePiece(vocabulary) => {
                let tokens = vocabulary.encode_fixed(text).into_iter();
                let token = |(id, is_special, span)| FixedToken { id, is_special, span };
                return Ok(tokens.map(token).collect());
            }
            Vocabulary::HuggingFace(tokenizer) => tokenizer,
        };
        let encoding = tokenizer.encode(text, false).map_err(tokenizer_error(&self.path))?;
        let tokens = encoding.get_tokens().iter().zip(encoding.get_ids()).zip(encoding.get_offsets());
        let fixed = |((token, &id), &(start, end)): ((&String, &u32), &(usize, usize))| FixedToken {
            id,
            is_special: tokenizer.get_added_vocabulary().is_special_token(token),
            span: start..end,
        };
        Ok(tokens.map(fixed).collect())
    }

    /// The text of token ids; special tokens are left out, and a cut character becomes U+FFFD.
    ///
    /// # Errors
    /// The tokenizer's decoder refuses the ids, which byte-level decoders and SentencePiece never do.
    pub fn decode(&self, ids: &[u32]) -> Result<String, BundleError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(tokenizer) => {
                tokenizer.decode(ids, true).map_err(tokenizer_error(&self.path))
            }
            Vocabulary::SentencePiece(vocabulary) => Ok(vocabulary.decode(ids)),
        }
    }

    /// Id of a token by its exact text, special or not.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(tokenizer) => tokenizer.token_to_id(token),
            Vocabulary::SentencePiece(vocabulary) => vocabulary.token_id(token),
        }
    }

    /// The text of a token, special or not.
    pub fn token(&self, id: u32) -> Option<String> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(tokenizer) => tokenizer.id_to_token(id),
            Vocabulary::SentencePiece(vocabulary) => vocabulary.token(id).map(str::to_owned),
        }
    }

    /// The tokens that occur in no text, such as `</s>`, unordered.
    pub fn special_tokens(&self) -> Vec<String> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(tokenizer) => {
                let added = tokenizer.get_added_tokens_decoder().into_values();
                added.filter(|token| token.special).map(|token| token.content).collect()
            }
            Vocabulary::SentencePiece(vocabulary) => vocabulary.control_tokens(),
        }
    }

    /// The bytes of UTF-8 that each token spells, by id: of a byte-level vocabulary, one with byte fallback
    /// or one that marks spaces with "▁". A token can be a part of a character. Special tokens and ids
    /// without a token spell nothing.
    pub fn spellings(&self) -> Vec<Vec<u8>> {
        let tokenizer = match &self.vocabulary {
            Vocabulary::SentencePiece(vocabulary) => return vocabulary.spellings(),
            Vocabulary::HuggingFace(tokenizer) => tokenizer,
        };
        let is_byte_level = tokenizer.get_decoder().is_some_and(is_byte_level);
        let spelling = |id| {
            let token = self.token(id)?;
            if tokenizer.get_added_vocabulary().is_special_token(&token) {
                return None;
            }
            Some(if is_byte_level { byte_level_spelling(&token) } else { plain_spelling(&token) })
        };
        (0..self.num_ids() as u32).map(|id| spelling(id).unwrap_or_default()).collect()
    }

    /// Tokens for characters that the vocabulary lacks; they have no text.
    pub fn ids_without_text(&self) -> Vec<u32> {
        match &self.vocabulary {
            Vocabulary::SentencePiece(vocabulary) => vocabulary.unknown_ids(),
            Vocabulary::HuggingFace(tokenizer) => {
                let unknown =
                    ["<unk>", "[UNK]", "<UNK>"].into_iter().filter_map(|token| tokenizer.token_to_id(token));
                unknown.collect()
            }
        }
    }

    /// Whether both have the same tokens under the same ids.
    pub fn has_same_ids_as(&self, other: &TextTokenizer) -> bool {
        let num_ids = self.num_ids().max(other.num_ids()) as u32;
        (0..num_ids).all(|id| self.token(id) == other.token(id))
    }

    /// One more than the largest id that encoding can give.
    pub fn num_ids(&self) -> usize {
        match &self.vocabulary {
            Vocabulary::HuggingFace(tokenizer) => {
                let vocabulary = tokenizer.get_vocab(true);
                vocabulary.into_values().max().map_or(0, |largest| largest as usize + 1)
            }
            Vocabulary::SentencePiece(vocabulary) => vocabulary.num_ids(),
        }
    }
}

fn is_byte_level(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(is_byte_level),
        _ => false,
    }
}

/// A byte-level token has a character for each byte: the byte's own in Latin-1 if that is visible, otherwise
/// one from U+0100 on, in the order of the remaining bytes (GPT-2's `bytes_to_unicode`). Added tokens can
/// have other characters, which mean themselves.
fn byte_level_spelling(token: &str) -> Vec<u8> {
    let is_visible = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut spelling = Vec::with_capacity(token.len());
    for char in token.chars() {
        let byte = match u32::from(char) {
            code @ ..0x100 => u8::try_from(code).ok().filter(is_visible),
            code => (0..=0xFF).filter(|byte| !is_visible(byte)).nth(code as usize - 0x100),
        };
        match byte {
            Some(byte) => spelling.push(byte),
            None => spelling.extend(char.to_string().bytes()),
        }
    }
    spelling
}

fn plain_spelling(token: &str) -> Vec<u8> {
    let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace('▁', " ").into_bytes(),
    }
}

fn load(path: &Path) -> Result<Tokenizer, BundleError> {
    let mut tokenizer = Tokenizer::from_bytes(read_bytes(path)?).map_err(tokenizer_error(path))?;
    // A file may ask for both. Lengths are Baton's to check, and a silent cut would lose text.
    tokenizer.with_truncation(None).map_err(tokenizer_error(path))?;
    tokenizer.with_padding(None);
    tokenizer.set_encode_special_tokens(true); // to encode them as the text that they are
    Ok(tokenizer)
}

fn tokenizer_error(path: &Path) -> impl Fn(tokenizers::Error) -> BundleError {
    move |source| BundleError::Tokenizer { path: path.to_owned(), source }
}
