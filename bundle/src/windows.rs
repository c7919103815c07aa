//! Windows: the parts of a record that is too long for an LLM to read at once.
//!
//! A window is a run of segments, with the text between them, up to the LLM's limit. The next window begins
//! at a segment, so that the two share at most half of the first one's tokens. A segment takes its states
//! from the window that gives it the most context. For an LLM that only looks back, that is the first window
//! with the segment. For an LLM that looks both ways, the middle of the shared text divides the segments of
//! two windows. Windows depend only on the record, its segments and the limit.

use std::ops::Range;

use crate::{PromptAttention, Span};

/// A part of a record that is read at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window<T> {
    /// Its segments.
    pub(crate) segments: Range<usize>,
    /// Its segments that take their states from it; at least one.
    pub(crate) taking: Range<usize>,
    /// The reading of its text.
    pub(crate) read: T,
}

/// The amount that an LLM reads at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Maximum of tokens in a prompt, template included.
    pub(crate) max_tokens: usize,
    /// Tokens of the template.
    pub(crate) template_tokens: usize,
    /// Where a token looks.
    pub(crate) attention: PromptAttention,
}

/// The tokens of a record that cover each of its segments, which rise. `spans`: of the record's tokens.
pub(crate) fn places_of(segments: &[Range<usize>], spans: &[Span]) -> Vec<Range<usize>> {
    let covering: Vec<&Span> = spans.iter().filter(|span| !span.is_empty()).collect();
    let place = |segment: &Range<usize>| {
        let start = covering.partition_point(|span| span.end <= segment.start);
        let end = covering.partition_point(|span| span.start < segment.end);
        start..end.max(start)
    };
    segments.iter().map(place).collect()
}

/// The windows of a record. `places`: of its segments among its tokens, as [`places_of`] gives them. `read`
/// reads a run of segments and returns its number of tokens, which may differ slightly from that of their
/// places. A segment that is too long on its own still becomes a window.
pub(crate) fn windows<T, E>(
    places: &[Range<usize>],
    reach: Reach,
    mut read: impl FnMut(Range<usize>) -> Result<(T, usize), E>,
) -> Result<Vec<Window<T>>, E> {
    let room = reach.max_tokens.saturating_sub(reach.template_tokens);
    let num_tokens = |segments: Range<usize>| places[segments.end - 1].end - places[segments.start].start;
    let mut windows: Vec<Window<T>> = Vec::new();
    let (mut start, mut first_new) = (0, 0);
    while first_new < places.len() {
        let fitting = (first_new + 1..=places.len()).take_while(|&end| num_tokens(start..end) <= room);
        let mut end = fitting.last().unwrap_or(first_new + 1);
        let (mut window, mut len) = read(start..end)?;
        while len > reach.max_tokens && end > first_new + 1 {
            end -= 1;
            (window, len) = read(start..end)?;
        }
        if len > reach.max_tokens && start < first_new {
            start += 1; // less of the window before
            continue;
        }
        windows.push(Window { segments: start..end, taking: 0..0, read: window });
        let half = num_tokens(start..end) / 2;
        let suits = |next: usize| num_tokens(next..end) <= half && num_tokens(next..end + 1) <= room;
        let is_last = end == places.len();
        start = if is_last { end } else { (start + 1..end).find(|&next| suits(next)).unwrap_or(end) };
        first_new = end;
    }
    share(&mut windows, places, reach.attention);
    windows.retain(|window| !window.taking.is_empty());
    Ok(windows)
}

/// Assigns each segment to one of its windows.
fn share<T>(windows: &mut [Window<T>], places: &[Range<usize>], attention: PromptAttention) {
    let mut start = 0;
    for at in 0..windows.len() {
        let end = windows[at].segments.end;
        let taken_to = match windows.get(at + 1) {
            Some(next) if attention == PromptAttention::Bidirectional && next.segments.start < end => {
                let shared = next.segments.start..end;
                let twice_middle = places[shared.start].start + places[end - 1].end;
                let is_behind = |&segment: &usize| places[segment].start + places[segment].end > twice_middle;
                shared.into_iter().find(is_behind).unwrap_or(end)
            }
            _ => end,
        };
        windows[at].taking = start..taken_to.max(start);
        start = windows[at].taking.end;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Consecutive segments with these numbers of tokens.
    fn places(lens: &[usize]) -> Vec<Range<usize>> {
        let ends = lens.iter().scan(0, |end, len| {
            *end += len;
            Some(*end)
        });
        ends.zip(lens).map(|(end, len)| end - len..end).collect()
    }

    /// Windows of at most `max_tokens`, where a reading takes `more` tokens than its segments have.
    fn cut(
        lens: &[usize],
        (max_tokens, more): (usize, usize),
        attention: PromptAttention,
    ) -> Vec<Window<usize>> {
        let reach = Reach { max_tokens, template_tokens: 2, attention };
        let read = |segments: Range<usize>| {
            let len = lens[segments].iter().sum::<usize>() + 2 + more;
            Ok::<_, Infallible>((len, len))
        };
        let Ok(windows) = windows(&places(lens), reach, read);
        windows
    }

    fn ranges(windows: &[Window<usize>]) -> Vec<[Range<usize>; 2]> {
        windows.iter().map(|window| [window.segments.clone(), window.taking.clone()]).collect()
    }

    #[test]
    fn a_record_that_fits_is_one_window() {
        let windows = cut(&[5, 5, 5], (17, 0), PromptAttention::Causal);
        assert_eq!(windows, [Window { segments: 0..3, taking: 0..3, read: 17 }]);
        assert_eq!(cut(&[], (17, 0), PromptAttention::Causal), []);
    }

    #[test]
    fn windows_share_half_and_each_segment_takes_the_one_with_the_most_context() {
        let lens = [5; 10];
        let causal = cut(&lens, (22, 0), PromptAttention::Causal);
        assert_eq!(ranges(&causal), [[0..4, 0..4], [2..6, 4..6], [4..8, 6..8], [6..10, 8..10]]);
        let both_ways = cut(&lens, (22, 0), PromptAttention::Bidirectional);
        assert_eq!(ranges(&both_ways), [[0..4, 0..3], [2..6, 3..5], [4..8, 5..7], [6..10, 7..10]]);
    }

    #[test]
    fn a_long_segment_is_read_with_as_many_earlier_segments_as_fit() {
        let windows = cut(&[5, 5, 5, 14, 5], (22, 0), PromptAttention::Causal);
        assert_eq!(ranges(&windows), [[0..3, 0..3], [2..4, 3..4], [4..5, 4..5]]);
        let too_long = cut(&[5, 40, 5], (22, 0), PromptAttention::Causal);
        assert_eq!(ranges(&too_long), [[0..1, 0..1], [1..2, 1..2], [2..3, 2..3]]);
    }

    #[test]
    fn a_reading_that_is_longer_than_its_segments_is_cut_shorter() {
        let windows = cut(&[5; 4], (22, 1), PromptAttention::Causal);
        assert_eq!(ranges(&windows), [[0..3, 0..3], [2..4, 3..4]]);
    }

    #[test]
    fn segments_are_found_among_the_tokens_of_their_record() {
        let spans = [0..0, 0..2, 2..5, 5..9, 5..9, 9..12, 0..0];
        assert_eq!(places_of(&[0..4, 6..8, 9..12], &spans), [0..2, 2..4, 4..5]);
        assert_eq!(places_of(&[20..25], &spans), [5..5]);
    }

    proptest! {
        #[test]
        fn each_segment_takes_one_window_and_no_window_is_too_long(
            lens in proptest::collection::vec(0usize..9, 0..40),
            max_tokens in 11usize..40,
            more in 0usize..3,
            both_ways in any::<bool>(),
        ) {
            let attention =
                if both_ways { PromptAttention::Bidirectional } else { PromptAttention::Causal };
            let windows = cut(&lens, (max_tokens, more), attention);
            let taken: Vec<usize> = windows.iter().flat_map(|window| window.taking.clone()).collect();
            prop_assert_eq!(taken, (0..lens.len()).collect::<Vec<_>>());
            for window in &windows {
                prop_assert!(window.segments.start <= window.taking.start);
                prop_assert!(window.taking.end <= window.segments.end);
                prop_assert!(window.read <= max_tokens || window.segments.len() == 1);
            }
            let whole = lens.iter().sum::<usize>() + 2 + more;
            prop_assert!(windows.len() <= 1 || whole > max_tokens);
        }
    }
}
