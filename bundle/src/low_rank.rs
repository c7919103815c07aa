//! A matrix as the product of two narrow ones: subspace iteration (Halko et al., arXiv 0909.4061).
//!
//! It begins with fixed numbers, so equal matrices have equal factors.

/// Passes over the matrix; each brings the factors nearer to its largest singular vectors.
const PASSES: usize = 4;

/// The factors of a matrix `[rows, columns]`, row by row: `[rows, rank]`, whose columns are orthonormal, and
/// `[rank, columns]`.
pub(crate) fn factors(matrix: &[f32], columns: usize, rank: usize) -> (Vec<f32>, Vec<f32>) {
    let rows = matrix.len() / columns;
    let mut right = fixed_numbers(rank * columns);
    let mut left = vec![0.0; rank * rows]; // transposed, so that a column is a slice
    for _ in 0..PASSES {
        for (image, direction) in left.chunks_mut(rows).zip(right.chunks(columns)) {
            for (value, row) in image.iter_mut().zip(matrix.chunks(columns)) {
                *value = dot(row, direction);
            }
        }
        orthonormalize(&mut left, rows);
        for (direction, image) in right.chunks_mut(columns).zip(left.chunks(rows)) {
            direction.fill(0.0);
            for (&value, row) in image.iter().zip(matrix.chunks(columns)) {
                add_scaled(direction, value, row);
            }
        }
    }
    let by_rows = (0..rows).flat_map(|row| left.iter().skip(row).step_by(rows).copied()).collect();
    (by_rows, right)
}

/// The product of the factors, `[rows, columns]`.
pub(crate) fn product(left: &[f32], right: &[f32], rank: usize) -> Vec<f32> {
    let columns = right.len() / rank.max(1);
    let mut values = vec![0.0; left.len() / rank.max(1) * columns];
    for (row, weights) in values.chunks_mut(columns.max(1)).zip(left.chunks(rank.max(1))) {
        for (&weight, direction) in weights.iter().zip(right.chunks(columns.max(1))) {
            add_scaled(row, weight, direction);
        }
    }
    values
}

/// Makes vectors of `len` numbers orthonormal, one after the other; one that depends on those before becomes
/// zero.
fn orthonormalize(vectors: &mut [f32], len: usize) {
    for place in 0..vectors.len() / len {
        let (before, rest) = vectors.split_at_mut(place * len);
        let vector = &mut rest[..len];
        let given = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for other in before.chunks(len) {
                add_scaled(vector, -dot(vector, other), other);
            }
        }
        let left_over = dot(vector, vector).sqrt();
        let inverse = if left_over > given * 1e-5 { left_over.recip() } else { 0.0 };
        vector.iter_mut().for_each(|value| *value *= inverse);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Several sums, so that the processor adds several numbers at once.
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

fn add_scaled(to: &mut [f32], scale: f32, values: &[f32]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += scale * value;
    }
}

/// Numbers between -1 and 1 without a pattern, always the same (xorshift).
fn fixed_numbers(count: usize) -> Vec<f32> {
    let mut state = 0x2545_F491_u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
    };
    (0..count).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: usize = 13;

    /// `[17, 13]`, the product of two random matrices.
    fn matrix_of_rank(rank: usize) -> Vec<f32> {
        let numbers = fixed_numbers(rank * (17 + COLUMNS));
        let (left, right) = numbers.split_at(rank * 17);
        product(left, right, rank)
    }

    fn error(matrix: &[f32], rank: usize) -> f32 {
        let (left, right) = factors(matrix, COLUMNS, rank);
        let difference: Vec<f32> =
            matrix.iter().zip(product(&left, &right, rank)).map(|(value, found)| value - found).collect();
        (dot(&difference, &difference) / dot(matrix, matrix)).sqrt()
    }

    #[test]
    fn a_matrix_of_the_rank_comes_back_and_one_of_a_higher_rank_nearly() {
        let matrix = matrix_of_rank(4);
        assert!(error(&matrix, 4) < 1e-5, "{}", error(&matrix, 4));
        assert!(error(&matrix, 6) < 1e-5, "directions that it lacks do no harm");
        let errors = [1, 2, 3].map(|rank| error(&matrix, rank));
        assert!(1.0 > errors[0] && errors[0] > errors[1] && errors[1] > errors[2], "{errors:?}");
    }

    #[test]
    fn a_matrix_of_zeros_has_factors_of_zeros() {
        let (left, right) = factors(&[0.0; 3 * COLUMNS], COLUMNS, 2);
        assert!(left.iter().chain(&right).all(|&value| value == 0.0));
    }
}
