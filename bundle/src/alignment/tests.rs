use proptest::prelude::*;

use super::*;

fn aligned(llm: &[Span], slm: &[Span]) -> Vec<Vec<u32>> {
    let alignment = TokenAlignment::by_characters(llm, slm);
    (0..slm.len()).map(|token| alignment.of_token(token).to_vec()).collect()
}

#[test]
fn a_token_takes_the_tokens_whose_characters_it_covers_and_special_ones_take_none() {
    // "<s> un|believ|able </s>" beside "<|im_start|> unb|eliev|a|ble <|im_end|>"
    let llm = [0..0, 0..3, 3..8, 8..9, 9..12, 0..0];
    let slm = [0..2, 2..8, 8..12, 0..0];
    assert_eq!(aligned(&llm, &slm), [vec![1], vec![1, 2], vec![3, 4], vec![]]);
}

#[test]
fn tokens_that_share_a_character_all_count() {
    // One character of four bytes, three tokens of the LLM.
    assert_eq!(aligned(&[0..4, 0..4, 0..4, 4..5], &[0..4, 4..5]), [vec![0, 1, 2], vec![3]]);
    assert_eq!(aligned(&[0..4], &[0..4, 0..4]), [vec![0], vec![0]], "and the other way round");
}

#[test]
fn a_token_beyond_the_llms_text_takes_no_state() {
    assert_eq!(aligned(&[2..4], &[0..2, 2..3, 4..9]), [vec![], vec![0], vec![]]);
    assert_eq!(aligned(&[], std::slice::from_ref(&(0..2))), [Vec::<u32>::new()]);
}

#[test]
fn shifted_tokens_cover_the_same_characters_of_a_longer_text() {
    let tokens = SpannedTokens { ids: vec![7, 8], spans: vec![0..0, 0..3] };
    assert_eq!(tokens.shifted(10).spans, [0..0, 10..13]);
}

#[test]
fn a_cropped_alignment_takes_the_same_states_of_a_shorter_run() {
    let (run, alignment) =
        TokenAlignment::by_characters(&[0..1, 1..2, 2..3, 3..4], &[0..0, 2..4, 1..2]).cropped();
    assert_eq!(run, 1..4);
    let taken: Vec<&[u32]> = (0..3).map(|token| alignment.of_token(token)).collect();
    assert_eq!(taken, [&[][..], &[1, 2], &[0]]);
    assert_eq!(TokenAlignment::by_characters(&[], &[0..1]).cropped().0, 0..0);
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    prop::collection::vec((0_usize..40, 0_usize..6).prop_map(|(start, len)| start..start + len), 0..30)
}

/// A text cut into tokens, some of which cover nothing.
fn cut() -> impl Strategy<Value = Vec<Span>> {
    prop::collection::vec(0_usize..6, 1..20).prop_map(|lens| {
        let mut start = 0;
        let span = |len| {
            start += len;
            start - len..start
        };
        lens.into_iter().map(span).collect()
    })
}

proptest! {
    #[test]
    fn any_spans_are_aligned_as_the_definition_says(llm in spans(), slm in spans()) {
        let shares = |a: &Span, b: &Span| a.clone().any(|byte| b.contains(&byte));
        let expected: Vec<Vec<u32>> = slm
            .iter()
            .map(|span| (0..).zip(&llm).filter(|(_, other)| shares(span, other)).map(|(at, _)| at).collect())
            .collect();
        prop_assert_eq!(aligned(&llm, &slm), expected);
    }

    #[test]
    fn equal_tokens_are_aligned_one_to_one(tokens in cut()) {
        let expected: Vec<Vec<u32>> =
            (0..).zip(&tokens).map(|(at, span)| if span.is_empty() { vec![] } else { vec![at] }).collect();
        prop_assert_eq!(aligned(&tokens, &tokens), expected);
    }

    #[test]
    fn every_token_that_covers_something_is_taken_where_both_cover_the_text(llm in cut(), slm in cut()) {
        let end = |spans: &[Span]| spans.last().map_or(0, |span| span.end);
        let common = end(&llm).min(end(&slm));
        let alignment = TokenAlignment::by_characters(&llm, &slm);
        let taken: std::collections::BTreeSet<u32> =
            alignment.aligned().flat_map(|(_, positions)| positions.iter().copied()).collect();
        for (position, span) in (0..).zip(&llm) {
            let counts = !span.is_empty() && span.start < common;
            prop_assert_eq!(taken.contains(&position), counts, "{} {:?}", position, span);
        }
    }
}
