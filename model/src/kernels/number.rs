//! The number formats that kernels read and write; all arithmetic between is f32.

use half::bf16;
use tch::Kind;

/// A type of tensor elements.
pub(crate) trait Element: Copy + Default + 'static {
    /// Its name in libtorch.
    const KIND: Kind;
}

impl Element for i8 {
    const KIND: Kind = Kind::Int8;
}

impl Element for i32 {
    const KIND: Kind = Kind::Int;
}

impl Element for i64 {
    const KIND: Kind = Kind::Int64;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;
}

impl Element for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

/// A storage format of real numbers: f32 or bf16.
pub(crate) trait Number: Element {
    fn to_f32(self) -> f32;

    /// Rounds to the nearest value, ties to even.
    fn from_f32(value: f32) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Number for bf16 {
    // bf16 is the upper half of an f32. `half` also quiets signalling NaNs, a branch that keeps loops from
    // being vectorized.
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let ties_to_even = 0x7fff + ((bits >> 16) & 1);
        let rounded = bits.wrapping_add(ties_to_even) >> 16;
        let quiet_nan = (bits >> 16) | 0x40;
        bf16::from_bits(if value.is_nan() { quiet_nan } else { rounded } as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_conversions_agree_with_the_half_crate_on_every_bit_pattern() {
        for bits in 0..=u16::MAX {
            let number = bf16::from_bits(bits);
            let expected = number.to_f32();
            assert!(Number::to_f32(number) == expected || expected.is_nan(), "{bits:#x}");
            for value in [expected, f32::from_bits((u32::from(bits) << 16) | 0x8000), expected * 1.003] {
                let (ours, theirs) = (<bf16 as Number>::from_f32(value), bf16::from_f32(value));
                assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{value}");
            }
        }
    }
}
