//! The two tokenizers of a bundle: the LLM's, for prompts, and the SLM's, for what it writes.
//!
//! Corpus text is not trusted. A record that contains `<|im_end|>` means those ten characters, so special
//! tokens are recognized in templates only, and a text is encoded as plain text. The text and the plain words
//! around it in the template are encoded as one string (`Translate: {text}` gives `Translate`, `:`, ` Hello`),
//! which is how the model saw such prompts in its own training.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;
use tokenizers::decoders::DecoderWrapper;

use crate::BundleError;
use crate::file::read_bytes;

/// Stands for the record's text in a template.
pub const TEXT_PLACEHOLDER: &str = "{text}";

/// What is before and after [`TEXT_PLACEHOLDER`], or what is wrong with the template.
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
    /// Loads the LLM's `tokenizer.json` and encodes the fixed parts of `template`, in which the tokenizer's
    /// special tokens are special.
    ///
    /// # Errors
    /// The file cannot be read or is no tokenizer; the template does not have `{text}` exactly once, or gives
    /// no token beside it (so a prompt is never empty).
    pub fn open(path: &Path, template: &str) -> Result<Self, BundleError> {
        let refused = |problem| BundleError::Template { template: template.to_owned(), problem };
        let (before, after) = split_template(template).map_err(refused)?;
        let tokenizer = load(path)?;
        let is_special = |token: &String| tokenizer.get_added_vocabulary().is_special_token(token);

        let encoding = tokenizer.encode(before, false).map_err(tokenizer_error(path))?;
        let last_special = encoding.get_tokens().iter().rposition(is_special);
        let num_fixed = last_special.map_or(0, |position| position + 1);
        let words_start = last_special.map_or(0, |position| encoding.get_offsets()[position].1);
        let (ids_before, words_before) = (encoding.get_ids()[..num_fixed].to_vec(), &before[words_start..]);

        let encoding = tokenizer.encode(after, false).map_err(tokenizer_error(path))?;
        let first_special = encoding.get_tokens().iter().position(is_special);
        let fixed_start = first_special.unwrap_or(encoding.len());
        let words_end = first_special.map_or(after.len(), |position| encoding.get_offsets()[position].0);
        let (ids_after, words_after) = (encoding.get_ids()[fixed_start..].to_vec(), &after[..words_end]);

        let prompt_tokenizer = Self {
            fixed_ids: (ids_before, ids_after),
            plain_words: (words_before.to_owned(), words_after.to_owned()),
            tokenizer: TextTokenizer::new(path, tokenizer),
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
}

/// Token ids of a fixed text around prompts, in which special tokens are special.
///
/// # Errors
/// The tokenizer does not load or refuses the text, or there is no token in it.
pub(crate) fn fixed_text_ids(path: &Path, text: &str) -> Result<Vec<u32>, BundleError> {
    let ids = load(path)?.encode(text, false).map_err(tokenizer_error(path))?.get_ids().to_vec();
    if ids.is_empty() {
        return Err(BundleError::Template { template: text.to_owned(), problem: "gives no token" });
    }
    Ok(ids)
}

/// Encodes and decodes what a model writes.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    path: PathBuf,
    tokenizer: Tokenizer,
}

impl TextTokenizer {
    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file cannot be read or is no tokenizer.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        Ok(Self::new(path, load(path)?))
    }

    fn new(path: &Path, mut tokenizer: Tokenizer) -> Self {
        tokenizer.set_encode_special_tokens(true); // to encode them as the text that they are
        Self { path: path.to_owned(), tokenizer }
    }

    /// The file that it was loaded from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Token ids of a text, without begin and end tokens; nothing in it is taken for a special token.
    ///
    /// # Errors
    /// The tokenizer refuses the text, which byte-level tokenizers never do.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, BundleError> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(tokenizer_error(&self.path))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of token ids; special tokens are left out, and a cut character becomes U+FFFD.
    ///
    /// # Errors
    /// The tokenizer's decoder refuses the ids, which byte-level decoders never do.
    pub fn decode(&self, ids: &[u32]) -> Result<String, BundleError> {
        self.tokenizer.decode(ids, true).map_err(tokenizer_error(&self.path))
    }

    /// Id of a token by its exact text, special or not.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The text of a token, special or not.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// The bytes of UTF-8 that each token spells, by id: of a byte-level vocabulary, one with byte fallback or one that marks spaces with "▁".
    /// A token can be a part of a character. Special tokens and ids without a token spell nothing.
    pub fn spellings(&self) -> Vec<Vec<u8>> {
        let is_byte_level = self.tokenizer.get_decoder().is_some_and(is_byte_level);
        let spelling = |id| {
            let token = self.token(id)?;
            if self.tokenizer.get_added_vocabulary().is_special_token(&token) {
                return None;
            }
            Some(if is_byte_level { byte_level_spelling(&token) } else { plain_spelling(&token) })
        };
        (0..self.num_ids() as u32).map(|id| spelling(id).unwrap_or_default()).collect()
    }

    /// Whether both have the same tokens under the same ids.
    pub fn has_same_ids_as(&self, other: &TextTokenizer) -> bool {
        self.tokenizer.get_vocab(true) == other.tokenizer.get_vocab(true)
    }

    /// One more than the largest id that encoding can give.
    pub fn num_ids(&self) -> usize {
        let vocabulary = self.tokenizer.get_vocab(true);
        vocabulary.into_values().max().map_or(0, |largest| largest as usize + 1)
    }
}

fn is_byte_level(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(is_byte_level),
        _ => false,
    }
}

/// A byte-level token has a character for each byte: the byte's own in Latin-1 if that is visible, otherwise one from U+0100 on, in the order of
/// the bytes that are left (GPT-2's `bytes_to_unicode`). Added tokens can have others, which stand for themselves.
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
    Ok(tokenizer)
}

fn tokenizer_error(path: &Path) -> impl Fn(tokenizers::Error) -> BundleError {
    move |source| BundleError::Tokenizer { path: path.to_owned(), source }
}
