//! SentencePiece's BPE inside a GGUF file (`tokenizer.ggml.model` = `llama`), as a tokenizer of Hugging Face.
//!
//! The file has pieces with scores and no merges. Two neighbours merge if their joined text is a piece; the
//! piece of the highest score comes first. Unknown characters are written in bytes. Reference: Kudo and
//! Richardson, arXiv 1808.06226.

use std::collections::HashMap;

use tokenizers::{
    DecoderWrapper, NormalizerWrapper, Tokenizer,
    decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence, strip::Strip},
    models::bpe::{BPE, Vocab},
    normalizers::{Prepend, Replace, utils::Sequence as NormalizerSequence},
};

use crate::gguf_metadata::GgufMetadata;
use crate::gguf_tokenizer::BuildError;

/// The character that stands for a space in pieces.
const SPACE: &str = "▁";

/// The tokenizer without its special tokens. `tokens`: the vocabulary.
pub(crate) fn build(
    metadata: &GgufMetadata<'_>,
    tokens: &[&str],
    unknown: Option<&str>,
) -> Result<Tokenizer, BuildError> {
    let scores = metadata.floats("tokenizer.ggml.scores")?;
    if scores.len() != tokens.len() {
        let problem = format!("has {} entries for {} tokens", scores.len(), tokens.len());
        return Err(metadata.problem("tokenizer.ggml.scores", problem).into());
    }
    let vocabulary: Vocab = tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect();
    let mut bpe = BPE::builder()
        .vocab_and_merges(vocabulary, merges(tokens, &scores))
        .byte_fallback(true)
        .fuse_unk(true);
    if let Some(unknown) = unknown {
        bpe = bpe.unk_token(unknown.to_owned());
    }
    let mut tokenizer = Tokenizer::new(bpe.build()?);
    let begins_with_space = metadata.optional_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = Replace::new(" ", SPACE)?;
    let mut decoders: Vec<DecoderWrapper> =
        vec![Replace::new(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    let normalizer: NormalizerWrapper = match begins_with_space {
        false => replace.into(),
        true => {
            decoders.push(Strip::new(' ', 1, 0).into());
            let steps = vec![Prepend::new(SPACE.to_owned()).into(), replace.into()];
            NormalizerSequence::new(steps).into()
        }
    };
    tokenizer.with_normalizer(Some(normalizer))?;
    tokenizer.with_decoder(Some(Sequence::new(decoders)));
    Ok(tokenizer)
}

/// All pairs of pieces whose joined text is a piece, in the order in which they merge: by that piece's score,
/// then by the scores of the two.
fn merges(tokens: &[&str], scores: &[f32]) -> Vec<(String, String)> {
    let score_of: HashMap<&str, f32> = tokens.iter().copied().zip(scores.iter().copied()).collect();
    let mut pairs: Vec<(&str, &str, [f32; 3])> = Vec::new();
    for (&token, &score) in tokens.iter().zip(scores) {
        for (middle, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(middle);
            if let Some((&of_left, &of_right)) = score_of.get(left).zip(score_of.get(right)) {
                pairs.push((left, right, [score, of_left, of_right]));
            }
        }
    }
    // A stable sort: equal scores merge in the order of the vocabulary.
    pairs.sort_by(|(.., first), (.., second)| {
        let order = second.iter().zip(first).map(|(second, first)| second.total_cmp(first));
        order.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
    pairs.into_iter().map(|(left, right, _)| (left.to_owned(), right.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_piece_of_the_highest_score_merges_first() {
        let tokens = ["<unk>", "a", "b", "c", "bc", "ab", "abc"];
        let scores = [0.0, -5.0, -6.0, -7.0, -1.0, -2.0, -3.0];
        let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
        assert_eq!(
            merges(&tokens, &scores),
            [pair("b", "c"), pair("a", "b"), pair("ab", "c"), pair("a", "bc")]
        );
    }
}
