//! The corpus of every run: thousands of short records, and some broken lines.

/// Records that can be translated.
pub(crate) const NUM_GOOD: usize = 2_400;
/// Lines that must become error rows.
pub(crate) const NUM_BAD: usize = 24;
/// Records in a shard at most.
pub(crate) const RECORDS_PER_SHARD: usize = 12;
/// Parts of a complete job. Every line counts, good or bad.
pub(crate) const NUM_PARTS: usize = (NUM_GOOD + NUM_BAD).div_ceil(RECORDS_PER_SHARD);

const WORDS: [&str; 10] =
    ["archive", "of", "small", "tools", "reads", "mail", "and", "writes", "logs", "quickly"];
/// Longer than the bundle's longest prompt: refused by the encoder, one record at a time.
const TOO_LONG: usize = 200;

/// The corpus as JSONL. Good records have the ids `r0`, `r1`, ...; a bad line follows every hundredth.
pub(crate) fn jsonl() -> String {
    let mut lines = String::new();
    for index in 0..NUM_GOOD {
        let text: Vec<&str> =
            (0..1 + index * 7 % 9).map(|word| WORDS[(index + word * word) % WORDS.len()]).collect();
        lines.push_str(&format!("{{\"id\":\"r{index}\",\"text\":\"{} {index}\"}}\n", text.join(" ")));
        if index % (NUM_GOOD / NUM_BAD) == 50 {
            lines.push_str(&bad_line(index));
        }
    }
    lines
}

/// The ids of the records that succeed.
pub(crate) fn good_ids() -> impl Iterator<Item = String> {
    (0..NUM_GOOD).map(|index| format!("r{index}"))
}

fn bad_line(index: usize) -> String {
    match index % 3 {
        0 => format!("{{\"id\":\"b{index}\",\"text\":\"{}\"}}\n", "x".repeat(TOO_LONG)),
        1 => format!("{{\"id\":\"b{index}\",\"wrong_field\":\"\"}}\n"),
        _ => "this is no JSON\n".to_owned(),
    }
}
