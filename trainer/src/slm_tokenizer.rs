//! Training of the small model's tokenizer: byte-level BPE, so that any text can be written.
//!
//! Digits stand alone and punctuation is split off, which keeps the pieces of names and version numbers the same wherever they occur.

use std::path::Path;

use tokenizers::{
    AddedToken, Tokenizer, TokenizerBuilder,
    decoders::byte_level::ByteLevel as ByteLevelDecoder,
    models::bpe::{BPE, BpeTrainerBuilder},
    normalizers::NFC,
    pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence},
};

use crate::TrainError;

/// Begins every response.
pub(crate) const BOS_TOKEN: &str = "<s>";
/// Ends every response.
pub(crate) const EOS_TOKEN: &str = "</s>";

/// Trains a tokenizer of `vocab_size` tokens on the texts that the small model will write, and saves it as `tokenizer.json`.
pub(crate) fn train_slm_tokenizer<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
    path: &Path,
) -> Result<(), TrainError> {
    let failed = |e: tokenizers::Error| TrainError::Tokenizer(format!("training {}: {e}", path.display()));
    let special_tokens = vec![AddedToken::from(BOS_TOKEN, true), AddedToken::from(EOS_TOKEN, true)];
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special_tokens)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(vec![Digits::new(true).into(), byte_level.into()])))
        .with_post_processor(Some(byte_level))
        .with_decoder(Some(ByteLevelDecoder::new(false, true, true)))
        .build()
        .map_err(failed)?;
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    let tokenizer: Tokenizer = serde_json::to_string(&tokenizer)
        .map_err(|e| TrainError::Tokenizer(e.to_string()))?
        .parse()
        .map_err(failed)?;
    let temporary = path.with_extension("json.partial");
    tokenizer.save(&temporary, true).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(TrainError::io("write", path))
}
