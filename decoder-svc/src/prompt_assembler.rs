//! Puts a prompt's states together from the messages they were cut into, and checks that they are what their head announced.

use baton_model::PromptStates;
use baton_proto::{PromptHead, WireError};
use bytes::{Bytes, BytesMut};

const BYTES_PER_BF16: usize = 2;

/// The prompt that is being received, if any: a stream sends one after the other.
#[derive(Debug)]
pub(crate) struct PromptAssembler {
    d_slm: usize,
    max_prompt_tokens: usize,
    incomplete: Option<Incomplete>,
}

#[derive(Debug)]
struct Incomplete {
    head: PromptHead,
    states: BytesMut,
}

impl PromptAssembler {
    pub(crate) fn new(d_slm: usize, max_prompt_tokens: usize) -> Self {
        Self { d_slm, max_prompt_tokens, incomplete: None }
    }

    /// Takes a prompt's first message; gives the prompt if that was all.
    pub(crate) fn begin(
        &mut self,
        head: PromptHead,
        states: Bytes,
    ) -> Result<Option<(PromptHead, PromptStates)>, WireError> {
        self.check_complete()?;
        let prompt_len = head.prompt_len as usize;
        if prompt_len == 0 || prompt_len > self.max_prompt_tokens {
            let detail = format!("{prompt_len} tokens; the bundle reads 1 to {}", self.max_prompt_tokens);
            return Err(WireError::InvalidField { field: "Prompt.prompt_len", detail });
        }
        let expected = self.num_bytes(&head);
        if states.len() == expected {
            return self.complete(head, states).map(Some); // the common case: not copied
        }
        let mut buffer = BytesMut::with_capacity(expected);
        self.append(&mut buffer, &states, expected)?;
        self.incomplete = Some(Incomplete { head, states: buffer });
        Ok(None)
    }

    /// Takes a further message of the prompt; gives the prompt if that was the last.
    pub(crate) fn go_on(
        &mut self,
        index: u32,
        states: &[u8],
    ) -> Result<Option<(PromptHead, PromptStates)>, WireError> {
        let Some(mut incomplete) = self.incomplete.take_if(|incomplete| incomplete.head.index == index)
        else {
            return Err(WireError::UnexpectedMessage { expected: "more states of the prompt begun last" });
        };
        let expected = self.num_bytes(&incomplete.head);
        self.append(&mut incomplete.states, states, expected)?;
        if incomplete.states.len() == expected {
            return self.complete(incomplete.head, incomplete.states.freeze()).map(Some);
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
        head.prompt_len as usize * self.d_slm * BYTES_PER_BF16
    }

    fn append(&self, buffer: &mut BytesMut, states: &[u8], expected: usize) -> Result<(), WireError> {
        if buffer.len() + states.len() > expected {
            let detail = format!("more than {expected} bytes, with d_slm = {}", self.d_slm);
            return Err(WireError::InvalidField { field: "Prompt.states", detail });
        }
        buffer.extend_from_slice(states);
        Ok(())
    }

    fn complete(&self, head: PromptHead, states: Bytes) -> Result<(PromptHead, PromptStates), WireError> {
        let states = PromptStates::new(head.prompt_len as usize, self.d_slm, states)
            .map_err(|error| WireError::InvalidField { field: "Prompt.states", detail: error.to_string() })?;
        Ok((head, states))
    }
}

#[cfg(test)]
mod tests {
    use baton_job::RecordSource;

    use super::*;

    const D_SLM: usize = 4;

    fn head(index: u32, prompt_len: u32) -> PromptHead {
        let source = RecordSource { uri: "a.txt".into(), line: 1 };
        PromptHead { index, id: "a".into(), source, fields: serde_json::Map::new(), prompt_len }
    }

    #[test]
    fn a_prompt_in_one_message_or_in_pieces_is_the_same() {
        let bytes: Vec<u8> = (0..24).collect();
        let mut assembler = PromptAssembler::new(D_SLM, 8);
        let whole = assembler.begin(head(0, 3), bytes.clone().into()).unwrap().unwrap();
        assert!(assembler.begin(head(0, 3), Bytes::copy_from_slice(&bytes[..10])).unwrap().is_none());
        assert!(assembler.check_complete().is_err());
        assert!(assembler.go_on(0, &bytes[10..20]).unwrap().is_none());
        let pieces = assembler.go_on(0, &bytes[20..]).unwrap().unwrap();
        assert_eq!(whole, pieces);
        assembler.check_complete().unwrap();
    }

    #[test]
    fn states_that_do_not_fit_their_head_are_refused() {
        let mut assembler = PromptAssembler::new(D_SLM, 8);
        assert!(assembler.begin(head(0, 0), Bytes::new()).is_err(), "an empty prompt");
        assert!(assembler.begin(head(0, 9), Bytes::new()).is_err(), "longer than the bundle reads");
        assert!(assembler.begin(head(0, 1), vec![0; 9].into()).is_err(), "too many bytes");
        assert!(assembler.go_on(0, &[0]).is_err(), "nothing was begun");
        assert!(assembler.begin(head(1, 2), vec![0; 8].into()).unwrap().is_none());
        assert!(
            assembler.begin(head(2, 1), vec![0; 8].into()).is_err(),
            "another prompt before the first is whole"
        );
        assert!(assembler.go_on(2, &[0]).is_err(), "states of another prompt");
    }
}
