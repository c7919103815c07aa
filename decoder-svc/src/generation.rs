//! Turns a job's generation options into the scheduler's: the bundle's limits, the output tokenizer's ids,
//! stop strings. Also gives the text of outputs.

use std::sync::Arc;

use baton_bundle::TextTokenizer;
use baton_decoding::{FinishReason, FinishedSequence, Generation, StopCondition};
use baton_job::{GenerationOptions, LanguageChoice};

use crate::DecoderError;
use crate::writer::Writer;

/// Tokens examined beyond the bytes of a stop string, because special tokens have no text.
const WINDOW_MARGIN_TOKENS: usize = 8;

/// How the rows of a job are generated.
///
/// # Errors
/// The writer cannot obey the options, or a stop token is not in its vocabulary.
pub(crate) fn generation(options: &GenerationOptions, writer: &Writer) -> Result<Generation, DecoderError> {
    let model_limit = writer.max_new_tokens;
    options
        .check_limit(u32::try_from(model_limit).unwrap_or(u32::MAX))
        .map_err(|source| DecoderError::Generation { source })?;
    let stop_token = |token: &String| {
        writer
            .tokenizer
            .token_id(token)
            .ok_or_else(|| DecoderError::UnknownStopToken { token: token.clone() })
    };
    Ok(Generation {
        first_token: writer.first_token(options, &LanguageChoice::default())?,
        prompt_end_len: writer.reads.prompt_end.as_ref().map_or(0, Vec::len),
        characters: Some(Arc::clone(&writer.characters)),
        stop_tokens: options.stop_tokens.iter().map(stop_token).collect::<Result<_, _>>()?,
        stop_when: StopStrings::new(&options.stop_strings, &writer.tokenizer)
            .map(|strings| Arc::new(strings) as Arc<dyn StopCondition>),
        ..Generation::new(options.clone(), model_limit)
    })
}

/// The text of a finished sequence, without the stop string that ended it.
///
/// # Errors
/// The tokenizer refuses the tokens.
pub(crate) fn output_text(
    sequence: &FinishedSequence,
    stop_strings: &[String],
    tokenizer: &TextTokenizer,
) -> Result<String, &'static str> {
    let decode =
        |tokens| tokenizer.decode(tokens).map_err(|_| "the output tokenizer refuses the generated tokens");
    let mut text = decode(&sequence.tokens)?;
    // The tokens exclude a stop token, but include anything else that stops a sequence.
    let may_have_one = sequence.finish_reason == FinishReason::Stop
        && sequence.num_tokens == sequence.tokens.len()
        && !stop_strings.is_empty();
    if may_have_one && let Some((_, before)) = sequence.tokens.split_last() {
        let before = decode(before)?;
        if let Some(end) = completed_stop_string(&text, &before, stop_strings) {
            text.truncate(end);
        }
    }
    Ok(text)
}

/// Where the stop string begins that the last token of `text` completes; `before` is the text without it. Of
/// several, the first.
fn completed_stop_string(text: &str, before: &str, stop_strings: &[String]) -> Option<usize> {
    // A token that is part of a character turns into others once the character is complete.
    let is_same = |(a, b): &((usize, char), (usize, char))| a.1 == b.1;
    let common = text.char_indices().zip(before.char_indices()).take_while(is_same);
    let seen = common.last().map_or(0, |((at, character), _)| at + character.len_utf8());
    let starts = stop_strings.iter().filter_map(|string| {
        let earliest = (seen + 1).saturating_sub(string.len());
        let from = (earliest..=text.len()).find(|&at| text.is_char_boundary(at))?;
        Some(from + text[from..].find(string.as_str())?)
    });
    starts.min()
}

/// Ends a sequence whose last token completes one of these texts.
#[derive(Debug)]
struct StopStrings {
    strings: Vec<String>,
    tokenizer: TextTokenizer,
    window_tokens: usize,
}

impl StopStrings {
    fn new(strings: &[String], tokenizer: &TextTokenizer) -> Option<Self> {
        // Every token adds a byte or more. The end of a string therefore lies in the last tokens, at most as
        // many as the string has bytes.
        let longest_num_bytes = strings.iter().map(String::len).max()?;
        let window_tokens = longest_num_bytes + WINDOW_MARGIN_TOKENS;
        Some(Self { strings: strings.to_vec(), tokenizer: tokenizer.clone(), window_tokens })
    }
}

impl StopCondition for StopStrings {
    fn is_met(&self, tokens: &[u32]) -> bool {
        let window = &tokens[tokens.len().saturating_sub(self.window_tokens)..];
        let Some((_, before)) = window.split_last() else { return false };
        let Ok(text) = self.tokenizer.decode(window) else { return false };
        // Usually there is none at all, which one decoding shows.
        self.strings.iter().any(|string| text.contains(string))
            && self
                .tokenizer
                .decode(before)
                .is_ok_and(|before| completed_stop_string(&text, &before, &self.strings).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(text: &str, before: &str) -> Option<usize> {
        completed_stop_string(text, before, &["END".to_owned(), "\n".to_owned()])
    }

    #[test]
    fn a_stop_string_counts_where_the_last_token_completes_it() {
        assert_eq!(completed("uno END", "uno EN"), Some(4));
        assert_eq!(completed("uno END\nEND", "uno"), Some(4), "the first of several");
        assert_eq!(completed("uno\ndue EN", "uno\ndue E"), None, "one that was there before ends nothing");
        assert_eq!(completed("END END", "END EN"), Some(4));
        assert_eq!(completed("ENDEND", "END"), Some(3));
        assert_eq!(completed("END", ""), Some(0));
        assert_eq!(completed("", ""), None);
    }

    #[test]
    fn characters_that_the_last_token_completes_are_told_from_those_before() {
        let strings = ["è".to_owned()];
        assert_eq!(completed_stop_string("perchè", "perch\u{fffd}", &strings), Some(5));
        assert_eq!(completed_stop_string("è perché", "è perch\u{fffd}", &strings), None);
        assert_eq!(completed_stop_string("日本è", "日本", &strings), Some(6));
        let longer = ["本è".to_owned()];
        assert_eq!(completed_stop_string("日本è", "日本", &longer), Some(3));
    }
}
