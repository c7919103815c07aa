//! Contiguous ranges of a model's blocks: the parts of a reader that lie on different devices or in different
//! processes.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The blocks that one process runs, as a flag names them: a range such as `0..12`, or a share such as `1/3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockShare {
    /// These blocks, from 0, without the last.
    Range(Range<usize>),
    /// One of several parts of equal weight.
    Part {
        /// Its number, from 1.
        number: usize,
        /// How many parts there are.
        of: usize,
    },
}

/// The reason why there is no such range of blocks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlocks {
    /// The text is neither a range nor a share.
    #[error("write a range of blocks such as 0..12, or a share such as 1/3, the first of three")]
    Syntax,
    /// The model has fewer blocks than the range ends with.
    #[error(
        "blocks {}..{} are asked for, but the bundle reads with {num_blocks} blocks",
        range.start, range.end
    )]
    Beyond {
        /// The blocks asked for.
        range: Range<usize>,
        /// How many there are.
        num_blocks: usize,
    },
    /// The model has fewer blocks than there are parts.
    #[error("{parts} parts are more than the {num_blocks} blocks that the bundle reads with; name fewer")]
    TooManyParts {
        /// The parts asked for.
        parts: usize,
        /// How many blocks there are.
        num_blocks: usize,
    },
}

impl BlockShare {
    /// The range among blocks of these `weights`.
    ///
    /// # Errors
    /// There are too few blocks.
    pub fn of_blocks(&self, weights: &[u64]) -> Result<Range<usize>, InvalidBlocks> {
        match self {
            Self::Range(range) if range.end > weights.len() => {
                Err(InvalidBlocks::Beyond { range: range.clone(), num_blocks: weights.len() })
            }
            Self::Range(range) => Ok(range.clone()),
            &Self::Part { number, of } => Ok(balanced_ranges(weights, of)?.swap_remove(number - 1)),
        }
    }
}

impl FromStr for BlockShare {
    type Err = InvalidBlocks;

    fn from_str(text: &str) -> Result<Self, InvalidBlocks> {
        let number = |text: &str| text.parse::<usize>().map_err(|_| InvalidBlocks::Syntax);
        if let Some((start, end)) = text.split_once("..") {
            let range = number(start)?..number(end)?;
            return if range.is_empty() { Err(InvalidBlocks::Syntax) } else { Ok(Self::Range(range)) };
        }
        let (part, of) = text.split_once('/').ok_or(InvalidBlocks::Syntax)?;
        let (part, of) = (number(part)?, number(of)?);
        if (1..=of).contains(&part) {
            Ok(Self::Part { number: part, of })
        } else {
            Err(InvalidBlocks::Syntax)
        }
    }
}

impl fmt::Display for BlockShare {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => write!(formatter, "{}..{}", range.start, range.end),
            Self::Part { number, of } => write!(formatter, "{number}/{of}"),
        }
    }
}

/// Cuts blocks into contiguous ranges, none of them empty, that weigh as equally as possible: the sum of the
/// squares of their weights is least. Passes of a pipeline last as long as those of its heaviest range.
///
/// # Errors
/// There are fewer blocks than `parts`.
pub fn balanced_ranges(weights: &[u64], parts: usize) -> Result<Vec<Range<usize>>, InvalidBlocks> {
    let num_blocks = weights.len();
    if parts == 0 || parts > num_blocks {
        return Err(InvalidBlocks::TooManyParts { parts, num_blocks });
    }
    let sums: Vec<u128> = std::iter::once(0)
        .chain(weights.iter().scan(0, |sum, &weight| {
            *sum += u128::from(weight);
            Some(*sum)
        }))
        .collect();
    // The least cost of the first `end` blocks in so many ranges, and where the last of these starts.
    let mut best: Vec<Vec<Option<(u128, usize)>>> = vec![vec![None; num_blocks + 1]];
    best[0][0] = Some((0, 0));
    for part in 1..=parts {
        let cost = |end: usize| {
            let with_last = |start: usize| {
                let (before, _) = best[part - 1][start]?;
                let weight = sums[end] - sums[start];
                Some((before + weight * weight, start))
            };
            (0..end).filter_map(with_last).min()
        };
        best.push((0..=num_blocks).map(cost).collect());
    }
    let mut ranges = Vec::with_capacity(parts);
    let mut end = num_blocks;
    for part in (1..=parts).rev() {
        let (_, start) = best[part][end].expect("there are as many blocks as parts");
        ranges.push(start..end);
        end = start;
    }
    ranges.reverse();
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_blocks_are_cut_into_ranges_that_differ_by_at_most_one() {
        assert_eq!(balanced_ranges(&[5; 6], 1), Ok(vec![0..6]));
        assert_eq!(balanced_ranges(&[5; 6], 3), Ok(vec![0..2, 2..4, 4..6]));
        assert_eq!(balanced_ranges(&[5; 2], 2), Ok(vec![0..1, 1..2]));
        for parts in 1..=30 {
            let ranges = balanced_ranges(&[7; 30], parts).unwrap();
            let lens: Vec<usize> = ranges.iter().map(Range::len).collect();
            assert!(lens.iter().max().unwrap() - lens.iter().min().unwrap() <= 1, "{lens:?}");
            assert_eq!((ranges[0].start, ranges[parts - 1].end), (0, 30));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }

    #[test]
    fn heavy_blocks_have_fewer_beside_them() {
        assert_eq!(balanced_ranges(&[9, 1, 1, 1, 1, 1], 2), Ok(vec![0..1, 1..6]));
        assert_eq!(balanced_ranges(&[1, 1, 1, 9, 1, 1], 3), Ok(vec![0..3, 3..4, 4..6]));
    }

    #[test]
    fn more_parts_than_blocks_are_refused() {
        let error = balanced_ranges(&[1, 1], 3).unwrap_err().to_string();
        assert!(error.contains("3 parts") && error.contains("2 blocks"), "{error}");
        assert!(balanced_ranges(&[1, 1], 0).is_err());
    }

    #[test]
    fn a_share_is_named_by_a_range_or_as_one_of_several_parts() {
        let of = |text: &str| text.parse::<BlockShare>().and_then(|share| share.of_blocks(&[1; 10]));
        assert_eq!(of("2..7"), Ok(2..7));
        assert_eq!(of("1/2"), Ok(0..5));
        assert_eq!(of("2/2"), Ok(5..10));
        assert_eq!(of("4..11"), Err(InvalidBlocks::Beyond { range: 4..11, num_blocks: 10 }));
        assert_eq!(of("1/11"), Err(InvalidBlocks::TooManyParts { parts: 11, num_blocks: 10 }));
        for text in ["", "3", "3..3", "4..3", "0/2", "3/2", "a..b", "1/b", "-1..2"] {
            assert_eq!(of(text), Err(InvalidBlocks::Syntax), "{text}");
        }
        for text in ["2..7", "1/2"] {
            assert_eq!(text.parse::<BlockShare>().unwrap().to_string(), text);
        }
    }
}
