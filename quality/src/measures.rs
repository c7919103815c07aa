//! Measures of a ranking.

/// The probability that a bad one of `ranked` has a lower estimate than a good one: 1 is perfect, 0.5 is
/// chance. Each has its estimate, and whether it is bad. `None` without both kinds.
#[must_use]
pub fn auc(ranked: &[(f64, bool)]) -> Option<f64> {
    let mut sorted: Vec<(f64, bool)> = ranked.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let num_bad = sorted.iter().filter(|(_, is_bad)| *is_bad).count() as f64;
    let num_good = sorted.len() as f64 - num_bad;
    if num_bad == 0.0 || num_good == 0.0 {
        return None;
    }
    let (mut bad_below, mut wins) = (0.0, 0.0);
    for equal in sorted.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let bad = equal.iter().filter(|(_, is_bad)| *is_bad).count() as f64;
        let good = equal.len() as f64 - bad;
        wins += good * (bad_below + bad / 2.0); // of equals, half
        bad_below += bad;
    }
    Some(wins / (num_bad * num_good))
}

/// The value below which a share (0 to 1) of the rising `values` lies, interpolated; 0 if there are none.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    values[below] + (values[above] - values[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_is_the_share_of_pairs_in_the_right_order() {
        let perfect = [(0.1, true), (0.2, true), (0.3, false)];
        assert_eq!(auc(&perfect), Some(1.0));
        assert_eq!(auc(&perfect.map(|(estimate, is_bad)| (-estimate, is_bad))), Some(0.0));
        assert_eq!(auc(&[(0.5, true), (0.5, false)]), Some(0.5));
        assert_eq!(auc(&[(0.1, true), (0.3, false), (0.2, false), (0.25, true)]), Some(0.75));
        assert_eq!((auc(&[(0.5, true)]), auc(&[])), (None, None));
    }

    #[test]
    fn quantiles_are_interpolated() {
        let values = [0.0, 1.0, 3.0];
        assert_eq!(
            [0.0, 0.5, 0.75, 1.0, 7.0].map(|share| quantile(&values, share)),
            [0.0, 1.0, 2.0, 3.0, 3.0]
        );
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
