//! One matrix in both layouts, packed and unpacked by AutoAWQ 0.2.9 (`packing_utils.py`).

use super::*;

const SHAPE: [usize; 2] = [8, 16];
const SCALES: [u8; 16] = [8, 5, 2, 8, 1, 1, 3, 6, 5, 4, 8, 3, 5, 2, 7, 3]; // in sixteenths
const AWQ_WORDS: [u32; 16] = [
    0x96de_06f3,
    0x00e4_eb78,
    0xb71c_05f7,
    0x6e1d_4fbc,
    0x9a92_99ed,
    0xae71_502e,
    0xb9e0_3440,
    0x2362_394f,
    0xed45_ec71,
    0xb7cb_313b,
    0x051b_79de,
    0x06fe_f9ae,
    0xbdb2_68d5,
    0xf5cf_ec08,
    0x0672_b70e,
    0xb5c8_eea0,
];
const AWQ_ZEROS: [u32; 2] = [0xb249_c565, 0x3f18_6c8d];
const GPTQ_WORDS: [u32; 16] = [
    0xf0ed_c783,
    0x2012_dc4e,
    0x442e_bf7f,
    0x6e79_11ed,
    0x9409_f5b6,
    0x39ea_e706,
    0x3359_40e0,
    0x2ba9_6b09,
    0x0e85_eeb1,
    0x82f2_ebb5,
    0xa00d_ad37,
    0xc7cb_f1c4,
    0xe7c8_991c,
    0x565d_657d,
    0xebe6_f73e,
    0xb0fb_00be,
];
/// Less one, as the first format of GPTQ has them.
const GPTQ_ZEROS: [u32; 2] = [0xab14_3584, 0x25eb_077c];
const SIXTEENTHS: [i16; 128] = [
    -16, 24, 16, 56, 64, 72, -40, 80, -60, -10, 5, 5, -40, -25, 5, -65, 25, -25, 15, 20, -35, -40, -45, -35,
    -12, 12, 12, 24, -24, 28, -24, 0, 18, 2, 18, 10, 16, -8, -4, -4, -8, -40, 40, 16, 40, -64, -64, 16, 72,
    80, -24, -24, 40, 24, 80, 16, 9, 33, 0, 42, 30, 33, 18, 33, 1, 6, 0, 10, 4, -5, -1, 4, 0, -55, -15, -15,
    -20, 0, -25, 10, 4, -2, 5, 12, 8, 12, 7, 1, -4, -16, -20, -18, -4, -20, -18, -20, -36, 6, -36, -24, -9,
    -21, -27, -27, 56, -21, 7, 63, 0, 56, 35, 56, -12, -66, 0, -30, -12, -6, 0, -54, 33, 24, -9, -9, 24, 36,
    -9, 24,
];

fn packing(method: &str, format: Option<&str>) -> Packing {
    let settings = Settings {
        quant_method: method.to_owned(),
        bits: Some(4),
        group_size: Some(8),
        checkpoint_format: format.map(str::to_owned),
    };
    Packing::of(&settings).unwrap()
}

fn matrix(words: &[u32], zeros: &[u32], groups: Option<Vec<u32>>) -> PackedMatrix {
    let scales = SCALES.iter().map(|&scale| f32::from(scale) / 16.0).collect();
    PackedMatrix { words: words.to_vec(), zeros: zeros.to_vec(), scales, groups }
}

fn sixteenths(numbers: &[f32]) -> Vec<f32> {
    numbers.iter().map(|number| number * 16.0).collect()
}

#[test]
fn numbers_are_those_of_autoawq() {
    let expected: Vec<f32> = SIXTEENTHS.iter().map(|&number| f32::from(number)).collect();
    let awq = packing("awq", None).numbers(&matrix(&AWQ_WORDS, &AWQ_ZEROS, None), SHAPE).unwrap();
    assert_eq!(sixteenths(&awq), expected);
    let gptq = packing("gptq", None).numbers(&matrix(&GPTQ_WORDS, &GPTQ_ZEROS, None), SHAPE).unwrap();
    assert_eq!(sixteenths(&gptq), expected);
}

#[test]
fn the_second_format_of_gptq_stores_zeros_as_they_are() {
    let second = packing("gptq", Some("gptq_v2"));
    let numbers = second.numbers(&matrix(&GPTQ_WORDS, &GPTQ_ZEROS, None), SHAPE).unwrap();
    let first = packing("gptq", None).numbers(&matrix(&GPTQ_WORDS, &GPTQ_ZEROS, None), SHAPE).unwrap();
    // Each zero is smaller by one, so each number is larger by its scale.
    let scale = |input: usize, output: usize| f32::from(SCALES[input / 8 * 8 + output]) / 16.0;
    for (place, (second, first)) in numbers.iter().zip(first).enumerate() {
        assert_eq!(*second, first + scale(place % 16, place / 16));
    }
}

#[test]
fn inputs_may_be_in_any_group() {
    let gptq = packing("gptq", None);
    let swapped: Vec<u32> = (0..16).map(|input| 1 - input / 8).collect();
    let numbers = gptq.numbers(&matrix(&GPTQ_WORDS, &GPTQ_ZEROS, Some(swapped)), SHAPE).unwrap();
    // Input 0 of output 0 is 3 with the zero 13 and the scale 5/16 of the second group.
    assert_eq!(numbers[0] * 16.0, (3.0 - 13.0) * 5.0);
    let beyond = vec![2; 16];
    assert_eq!(gptq.numbers(&matrix(&GPTQ_WORDS, &GPTQ_ZEROS, Some(beyond)), SHAPE), None);
}

#[test]
fn tensors_have_the_shapes_of_their_layout() {
    let [words, zeros, scales, groups] = packing("awq", None).shapes(SHAPE).unwrap();
    assert_eq!((words, zeros, scales, groups), (vec![16, 1], vec![2, 1], vec![2, 8], vec![16]));
    let [words, ..] = packing("gptq", None).shapes(SHAPE).unwrap();
    assert_eq!(words, [2, 8]);
    assert_eq!(packing("awq", None).matrix_shape([16, 1]), SHAPE);
    assert_eq!(packing("gptq", None).matrix_shape([2, 8]), SHAPE);
    assert_eq!(packing("gptq", None).shapes([8, 12]), None, "a word has eight numbers");
}
