//! Joins the messages of a prompt, and checks the result against the prompt's head.

use baton_model::PromptStates;
use baton_proto::{PromptHead, PromptPayload, WireError};
use bytes::{Bytes, BytesMut};

use crate::writer::{PromptParts, RowPrompt};

const BYTES_PER_BF16: usize = 2;

/// The prompt that is being received, if any: a stream sends one after the other.
#[derive(Debug)]
pub(crate) struct PromptAssembler<'a> {
    reads: &'a PromptParts,
    max_prompt_tokens: usize,
    /// Whether prompts come with the small model's tokens.
    have_own_tokens: bool,
    incomplete: Option<Incomplete>,
}

#[derive(Debug)]
struct Incomplete {
    head: PromptHead,
    prompt: RowPrompt,
    states: BytesMut,
}

impl<'a> PromptAssembler<'a> {
    pub(crate) fn new(reads: &'a PromptParts, max_prompt_tokens: usize) -> Self {
        Self { reads, max_prompt_tokens, have_own_tokens: false, incomplete: None }
    }

    /// The same for prompts with the small model's tokens, where a shortlist needs them.
    pub(crate) fn with_own_tokens(self, have_own_tokens: bool) -> Self {
        Self { have_own_tokens, ..self }
    }

    /// Takes a prompt's first message; gives the prompt if that was all.
    pub(crate) fn begin(
        &mut self,
        head: PromptHead,
        payload: PromptPayload,
    ) -> Result<Option<(PromptHead, RowPrompt)>, WireError> {
        self.check_complete()?;
        let prompt_len = head.prompt_len as usize;
        if prompt_len == 0 || prompt_len > self.max_prompt_tokens {
            let detail = format!("{prompt_len} tokens; the bundle reads 1 to {}", self.max_prompt_tokens);
            return Err(WireError::InvalidField { field: "Prompt.prompt_len", detail });
        }
        let PromptPayload { states, mut tokens } = payload;
        let reads_tokens = self.reads.prompt_end.is_some() || self.have_own_tokens;
        let expected_tokens = if reads_tokens { prompt_len } else { 0 };
        if tokens.len() != expected_tokens {
            let detail = format!(
                "{} tokens, not {expected_tokens}, as the job's mode and options call for",
                tokens.len()
            );
            return Err(WireError::InvalidField { field: "Prompt.tokens", detail });
        }
        let mut prompt = RowPrompt::default();
        if let Some(prompt_end) = &self.reads.prompt_end {
            tokens.extend(prompt_end);
            prompt.tokens = Some(tokens);
        } else if self.have_own_tokens {
            prompt.own_tokens = Some(tokens);
        }
        let mut incomplete = Incomplete { head, prompt, states: BytesMut::new() };
        let expected = self.num_bytes(&incomplete.head);
        if states.len() == expected {
            return self.complete(incomplete, states).map(Some); // the common case: not copied
        }
        incomplete.states.reserve(expected);
        self.append(&mut incomplete, &states)?;
        self.incomplete = Some(incomplete);
        Ok(None)
    }

    /// Takes a further message of the prompt; gives the prompt if that was the last.
    pub(crate) fn go_on(&mut self, states: &[u8]) -> Result<Option<(PromptHead, RowPrompt)>, WireError> {
        let Some(mut incomplete) = self.incomplete.take() else {
            return Err(WireError::UnexpectedMessage { expected: "more states of the prompt begun last" });
        };
        self.append(&mut incomplete, states)?;
        if incomplete.states.len() == self.num_bytes(&incomplete.head) {
            let states = std::mem::take(&mut incomplete.states).freeze();
            return self.complete(incomplete, states).map(Some);
        }
        self.incomplete = Some(incomplete);
        Ok(None)
    }

    /// Whether every prompt begun was completed: at the end of a stream, and before the next prompt.
    pub(crate) fn check_complete(&self) -> Result<(), WireError> {
        match &self.incomplete {
            None => Ok(()),
            Some(_) => Err(WireError::UnexpectedMessage { expected: "the rest of the prompt begun last" }),
        }
    }

    fn num_bytes(&self, head: &PromptHead) -> usize {
        head.prompt_len as usize * self.reads.d_slm.unwrap_or(0) * BYTES_PER_BF16
    }

    fn append(&self, incomplete: &mut Incomplete, states: &[u8]) -> Result<(), WireError> {
        let expected = self.num_bytes(&incomplete.head);
        if incomplete.states.len() + states.len() > expected {
            let detail = format!("more than the {expected} bytes that the job's mode calls for");
            return Err(WireError::InvalidField { field: "Prompt.states", detail });
        }
        incomplete.states.extend_from_slice(states);
        Ok(())
    }

    fn complete(&self, incomplete: Incomplete, states: Bytes) -> Result<(PromptHead, RowPrompt), WireError> {
        let Incomplete { head, prompt, .. } = incomplete;
        let states = self.reads.d_slm.map(|d_slm| {
            PromptStates::new(head.prompt_len as usize, d_slm, states).map_err(|error| {
                WireError::InvalidField { field: "Prompt.states", detail: error.to_string() }
            })
        });
        Ok((head, RowPrompt { states: states.transpose()?, ..prompt }))
    }
}

#[cfg(test)]
mod tests {
    use baton_segments::Segment;

    use super::*;

    const D_SLM: usize = 4;

    fn head(record: u32, prompt_len: u32) -> PromptHead {
        let (text, before, after) = ("for libc6".into(), String::new(), String::new());
        let segment = Segment { record, number: 0, text, before, after, is_in_tag: false };
        PromptHead { segment, prompt_len, number: record }
    }

    fn states(bytes: &[u8]) -> PromptPayload {
        PromptPayload { states: Bytes::copy_from_slice(bytes), ..PromptPayload::default() }
    }

    fn tokens(tokens: &[u32]) -> PromptPayload {
        PromptPayload { tokens: tokens.to_vec(), ..PromptPayload::default() }
    }

    #[test]
    fn a_prompt_in_one_message_or_in_pieces_is_the_same() {
        let bytes: Vec<u8> = (0..24).collect();
        let reads = PromptParts { d_slm: Some(D_SLM), prompt_end: None };
        let mut assembler = PromptAssembler::new(&reads, 8);
        let whole = assembler.begin(head(0, 3), states(&bytes)).unwrap().unwrap();
        assert!(assembler.begin(head(0, 3), states(&bytes[..10])).unwrap().is_none());
        assert!(assembler.check_complete().is_err());
        assert!(assembler.go_on(&bytes[10..20]).unwrap().is_none());
        let pieces = assembler.go_on(&bytes[20..]).unwrap().unwrap();
        assert_eq!(whole, pieces);
        assembler.check_complete().unwrap();
    }

    #[test]
    fn states_that_do_not_fit_their_head_are_refused() {
        let reads = PromptParts { d_slm: Some(D_SLM), prompt_end: None };
        let mut assembler = PromptAssembler::new(&reads, 8);
        assert!(assembler.begin(head(0, 0), states(&[])).is_err(), "an empty prompt");
        assert!(assembler.begin(head(0, 9), states(&[])).is_err(), "longer than the bundle reads");
        assert!(assembler.begin(head(0, 1), states(&[0; 9])).is_err(), "too many bytes");
        assert!(assembler.go_on(&[0]).is_err(), "nothing was begun");
        assert!(assembler.begin(head(1, 2), states(&[0; 8])).unwrap().is_none());
        assert!(
            assembler.begin(head(2, 1), states(&[0; 8])).is_err(),
            "another prompt before the first is whole"
        );
        let reads = PromptParts { d_slm: Some(D_SLM), prompt_end: None };
        let mut assembler = PromptAssembler::new(&reads, 8);
        assert!(assembler.begin(head(0, 1), tokens(&[1])).is_err(), "tokens");
    }

    #[test]
    fn a_model_that_reads_tokens_is_given_the_prompt_and_its_end() {
        let reads = PromptParts { prompt_end: Some(vec![8, 9]), d_slm: None };
        let mut assembler = PromptAssembler::new(&reads, 8);
        let (_, prompt) = assembler.begin(head(0, 2), tokens(&[5, 6])).unwrap().unwrap();
        assert_eq!(prompt, RowPrompt { tokens: Some(vec![5, 6, 8, 9]), ..RowPrompt::default() });
        assert!(assembler.begin(head(1, 3), tokens(&[5, 6])).is_err(), "too few");
        assert!(assembler.begin(head(1, 1), states(&[0; 8])).is_err(), "states");
        let both = PromptParts { d_slm: Some(D_SLM), ..reads };
        let mut assembler = PromptAssembler::new(&both, 8);
        let payload = PromptPayload { states: vec![0; 8].into(), ..tokens(&[5, 6]) };
        assert!(assembler.begin(head(0, 2), payload).unwrap().is_none());
        let (_, prompt) = assembler.go_on(&[0; 8]).unwrap().unwrap();
        assert_eq!((prompt.len(), prompt.tokens), (4, Some(vec![5, 6, 8, 9])));
    }

    #[test]
    fn a_shortlist_is_given_the_small_models_tokens_beside_its_states() {
        let reads = PromptParts { d_slm: Some(D_SLM), prompt_end: None };
        let mut assembler = PromptAssembler::new(&reads, 8).with_own_tokens(true);
        let payload = PromptPayload { states: vec![0; 16].into(), ..tokens(&[5, 6]) };
        let (_, prompt) = assembler.begin(head(0, 2), payload).unwrap().unwrap();
        assert_eq!((prompt.own_tokens, prompt.tokens), (Some(vec![5, 6]), None));
        assert!(assembler.begin(head(1, 2), states(&[0; 16])).is_err(), "no tokens");
    }
}
