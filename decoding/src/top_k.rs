//! The largest of many values, found by scanning with a rising threshold.

use std::cmp::Ordering;

use crate::candidates::Places;
use crate::kernels::{Shift, first_above};

/// One of the largest values, and its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) value: f32,
    /// Which row it is of.
    pub(crate) row: u32,
    pub(crate) token: u32,
}

/// Collects the `k` largest values of one or more rows. Of equals, the first row counts as larger, then the
/// lowest token.
///
/// Values above the threshold are kept until there are twice as many as wanted; then the lesser half goes and
/// the threshold rises to the least that stays. So a long row is mostly compared and seldom stored. NaN and
/// minus infinity are never among the largest.
#[derive(Debug, Default)]
pub(crate) struct TopK {
    k: usize,
    threshold: f32,
    kept: Vec<Candidate>,
}

impl TopK {
    pub(crate) fn start(&mut self, k: usize) {
        self.k = k;
        self.threshold = f32::NEG_INFINITY;
        self.kept.clear();
    }

    /// Offers every value of a row, whose tokens are at `places`. Rows come in rising order.
    pub(crate) fn offer(&mut self, row: u32, logits: &[f32], shift: Shift, places: Places<'_>) {
        let mut start = 0;
        while let Some(place) = first_above(logits, start, shift, self.threshold) {
            let (value, token) = (shift.apply(logits[place]), places.token(place));
            self.kept.push(Candidate { value, row, token });
            if self.kept.len() == 2 * self.k {
                self.keep_best();
            }
            start = place + 1;
        }
    }

    /// The candidates found, largest first.
    pub(crate) fn finish(&mut self) -> &[Candidate] {
        self.keep_best();
        self.kept.sort_unstable_by(by_rank);
        &self.kept
    }

    /// The value of the `k`-th largest; minus infinity if there are fewer.
    pub(crate) fn least(&mut self) -> f32 {
        self.keep_best();
        self.threshold
    }

    fn keep_best(&mut self) {
        if self.kept.len() >= self.k && self.k > 0 {
            let (_, least, _) = self.kept.select_nth_unstable_by(self.k - 1, by_rank);
            // Later candidates with an equal value rank lower.
            self.threshold = least.value;
            self.kept.truncate(self.k);
        }
    }
}

fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.value.total_cmp(&a.value).then(a.row.cmp(&b.row)).then(a.token.cmp(&b.token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::pseudo_random_logits;

    fn sorted(rows: &[Vec<f32>], k: usize) -> Vec<(u32, u32)> {
        let mut all: Vec<Candidate> = Vec::new();
        for (row, values) in rows.iter().enumerate() {
            all.extend(values.iter().enumerate().map(|(token, &value)| Candidate {
                value,
                row: row as u32,
                token: token as u32,
            }));
        }
        all.sort_by(|a, b| b.value.partial_cmp(&a.value).unwrap()); // stable: rows and tokens are in order
        all.iter().take(k).map(|candidate| (candidate.row, candidate.token)).collect()
    }

    #[test]
    fn the_largest_of_all_rows_are_found_in_order() {
        let mut top = TopK::default();
        for (num_rows, len, k) in
            [(1, 5, 1), (1, 5, 9), (3, 100, 8), (4, 8000, 8), (1, 8000, 500), (2, 33, 66)]
        {
            // Rounded, so that many are equal.
            let rows: Vec<Vec<f32>> = (0..num_rows)
                .map(|row| pseudo_random_logits(len, row).into_iter().map(|x| (x * 4.0).round()).collect())
                .collect();
            top.start(k);
            for (row, values) in rows.iter().enumerate() {
                top.offer(row as u32, values, Shift::NONE, Places::All);
            }
            let found: Vec<_> = top.finish().iter().map(|c| (c.row, c.token)).collect();
            assert_eq!(found, sorted(&rows, k), "{num_rows} rows of {len}, {k} wanted");
            let least = found
                .get(k - 1)
                .map_or(f32::NEG_INFINITY, |&(row, token)| rows[row as usize][token as usize]);
            assert_eq!(top.least(), least);
        }
    }

    #[test]
    fn nan_and_minus_infinity_are_skipped() {
        let mut top = TopK::default();
        top.start(3);
        top.offer(0, &[f32::NAN, f32::NEG_INFINITY, 1.0], Shift::NONE, Places::All);
        assert_eq!(top.finish(), [Candidate { value: 1.0, row: 0, token: 2 }]);
    }
}
