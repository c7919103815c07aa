//! Relative positions as numbers that are added to scores (T5: Raffel et al., arXiv 1910.10683).

/// The bias added to a score, by head and by the distance from the key to the query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BiasTable<'a> {
    /// `[heads, 2 * reach + 1]`, for distances from `-reach` to `reach`; beyond, its ends hold.
    pub(crate) numbers: &'a [f32],
    pub(crate) reach: usize,
}

impl BiasTable<'_> {
    /// Adds to the scores of neighbouring keys; the first is `first_distance` before the query.
    #[inline(always)]
    pub(super) fn add(&self, head: usize, scores: &mut [f32], first_distance: i64) {
        let width = 2 * self.reach + 1;
        let row = &self.numbers[head * width..(head + 1) * width];
        let first_column = first_distance + self.reach as i64;
        let num_before = (-first_column).clamp(0, scores.len() as i64) as usize;
        let (before, rest) = scores.split_at_mut(num_before);
        let first_column = (first_column + num_before as i64).clamp(0, width as i64) as usize;
        let num_within = rest.len().min(width - first_column);
        let (within, after) = rest.split_at_mut(num_within);
        before.iter_mut().for_each(|score| *score += row[0]);
        for (score, bias) in within.iter_mut().zip(&row[first_column..]) {
            *score += bias;
        }
        after.iter_mut().for_each(|score| *score += row[width - 1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distance_gets_its_number_and_those_beyond_reach_the_last() {
        let numbers: Vec<f32> = (0..10).map(|i| i as f32).collect(); // two heads of five distances, -2 to 2
        let table = BiasTable { numbers: &numbers, reach: 2 };
        for first_distance in -12_i64..6 {
            for len in 0..20 {
                for head in 0..2 {
                    let mut scores = vec![100.0; len];
                    table.add(head, &mut scores, first_distance);
                    let expected: Vec<f32> = (0..len as i64)
                        .map(|key| {
                            100.0 + numbers[head * 5 + ((first_distance + key).clamp(-2, 2) + 2) as usize]
                        })
                        .collect();
                    assert_eq!(scores, expected, "head {head}, from {first_distance}");
                }
            }
        }
    }
}
