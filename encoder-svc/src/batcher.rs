//! Cuts prompts into encode batches: a pure function of their lengths.
//!
//! Batches are packed without padding, so the budget counts real tokens. Prompts of similar length share a
//! batch: attention is computed per prompt, and similar prompts take similar time. The choice of batches
//! changes no output byte.

/// Groups prompts into batches of at most `max_batch_tokens` tokens each, longest first; a longer prompt is
/// alone in its batch.
///
/// Long prompts lead because their outputs tend to be long too: started first, they do not keep the decoder
/// waiting at the end. Returns the prompts' positions in `prompt_lens`; each is in exactly one batch, no
/// batch is empty.
pub fn pack_batches(prompt_lens: &[usize], max_batch_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..prompt_lens.len()).collect();
    // The sort is stable: ties stay in corpus order.
    order.sort_by_key(|&position| std::cmp::Reverse(prompt_lens[position]));

    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens_left = 0;
    for position in order {
        let prompt_len = prompt_lens[position];
        match batches.last_mut() {
            Some(batch) if prompt_len <= tokens_left => {
                batch.push(position);
                tokens_left -= prompt_len;
            }
            _ => {
                batches.push(vec![position]);
                tokens_left = max_batch_tokens.saturating_sub(prompt_len);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prompts_of_similar_length_share_a_batch_longest_first() {
        assert_eq!(pack_batches(&[3, 9, 4, 8, 3], 10), [vec![1], vec![3], vec![2, 0, 4]]);
        assert_eq!(pack_batches(&[5, 5, 5, 5], 10), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn a_prompt_over_the_budget_is_encoded_alone() {
        assert_eq!(pack_batches(&[1, 50, 1], 10), [vec![1], vec![0, 2]]);
    }

    #[test]
    fn no_prompts_make_no_batches() {
        assert!(pack_batches(&[], 10).is_empty());
    }

    proptest! {
        #[test]
        fn every_prompt_is_in_one_batch_and_no_batch_of_several_exceeds_the_budget(
            lens in proptest::collection::vec(1usize..40, 0..80),
            budget in 1usize..60,
        ) {
            let batches = pack_batches(&lens, budget);
            let mut positions: Vec<usize> = batches.concat();
            positions.sort_unstable();
            prop_assert_eq!(positions, (0..lens.len()).collect::<Vec<_>>());
            for batch in &batches {
                let tokens: usize = batch.iter().map(|&position| lens[position]).sum();
                prop_assert!(batch.len() == 1 || tokens <= budget);
            }
        }
    }
}
