//! Names of the objects in a job's output directory.
//!
//! ```text
//! part-000000.jsonl          one row per record that succeeded; the ending is the parts' format
//! errors/part-000000.jsonl   one row per record that failed, if any
//! _REPORT.html, _REPORT.json the report for people, written just before the manifest
//! _SUCCESS                   the manifest, written last
//! _baton/job.json            spec, bundle and input listing, created first
//! _baton/shards/000000.json  the shard's verdict
//! review.jsonl               the worst outputs with their texts, if the job asks for them
//! _baton/review/000000.jsonl the shard's part of that
//! _baton/broken/000000.json  an input that cannot be read to its end, so that there is no _SUCCESS
//! _baton/tiers/0/000000.jsonl.zst  of a cascade: what the first tier did with the shard
//! _baton/amendments/...      rare: verdicts with other sums, see [`amendment_key`]
//! ```

use baton_formats::PartFormat;

use crate::ShardIndex;

/// Key of the [`JobRecord`](crate::JobRecord).
pub const JOB_RECORD_KEY: &str = "_baton/job.json";
/// Key of the manifest, which [`ManifestBuilder`](crate::ManifestBuilder) makes.
pub const MANIFEST_KEY: &str = "_SUCCESS";
/// Key of the report of a finished job, for programs. It tells of time, so it differs from run to run.
pub const REPORT_JSON_KEY: &str = "_REPORT.json";
/// Key of the page that shows it.
pub const REPORT_PAGE_KEY: &str = "_REPORT.html";
/// The beginning of every part's key, and of no other.
pub const PART_PREFIX: &str = "part-";
/// The beginning of every verdict's key, and of no other.
pub const VERDICT_PREFIX: &str = "_baton/shards/";

/// Key of the worst outputs, if a job asks for them.
pub const REVIEW_KEY: &str = "review.jsonl";
/// The beginning of the key of every shard's worst outputs, and of no other.
pub const REVIEW_PREFIX: &str = "_baton/review/";

/// The beginning of the key of every [`TierResult`](crate::TierResult), and of no other.
pub const TIER_PREFIX: &str = "_baton/tiers/";

/// The beginning of every amendment's key, and of no other.
pub const AMENDMENT_PREFIX: &str = "_baton/amendments/";

/// The beginning of the key of every [`BrokenInput`](crate::BrokenInput), and of no other.
pub const BROKEN_PREFIX: &str = "_baton/broken/";

/// The beginning of the key of all error rows, and of no other object.
pub const ERRORS_PREFIX: &str = "errors/";

const ERRORS_SUFFIX: &str = ".jsonl";
const VERDICT_SUFFIX: &str = ".json";
const TIER_SUFFIX: &str = ".jsonl.zst";

/// Key of a shard's output rows. The shard is committed when this object exists.
pub fn part_key(shard: ShardIndex, format: PartFormat) -> String {
    format!("{PART_PREFIX}{shard}{}", format.suffix())
}

/// Key of a shard's error rows.
pub fn errors_key(shard: ShardIndex) -> String {
    format!("{ERRORS_PREFIX}{PART_PREFIX}{shard}{ERRORS_SUFFIX}")
}

/// Key of a shard's [`Verdict`](crate::Verdict).
pub fn verdict_key(shard: ShardIndex) -> String {
    format!("{VERDICT_PREFIX}{shard}{VERDICT_SUFFIX}")
}

/// Key of a shard's worst outputs, which the shard has if it has any.
pub fn review_key(shard: ShardIndex) -> String {
    format!("{REVIEW_PREFIX}{shard}{ERRORS_SUFFIX}")
}

/// The shard whose worst outputs have this key; `None` if the key is another object's.
pub fn shard_of_review_key(key: &str) -> Option<ShardIndex> {
    parse(key, REVIEW_PREFIX, ERRORS_SUFFIX)
}

/// Key of the result of a shard's tier, which every tier but the last has.
pub fn tier_key(tier: u32, shard: ShardIndex) -> String {
    format!("{TIER_PREFIX}{tier}/{shard}{TIER_SUFFIX}")
}

/// The tier and shard whose result has this key; `None` if the key is another object's.
pub fn tier_of_key(key: &str) -> Option<(u32, ShardIndex)> {
    let (tier, of_shard) = key.strip_prefix(TIER_PREFIX)?.split_once('/')?;
    Some((tier.parse().ok()?, parse(of_shard, "", TIER_SUFFIX)?))
}

/// Key of the record of a broken input, by its place in the listing from 0.
pub fn broken_input_key(place: usize) -> String {
    format!("{BROKEN_PREFIX}{place:06}{VERDICT_SUFFIX}")
}

/// The place in the listing of the broken input with this key; `None` if the key is another object's.
pub fn place_of_broken_input_key(key: &str) -> Option<usize> {
    parse(key, BROKEN_PREFIX, VERDICT_SUFFIX).map(|shard| shard.0 as usize)
}

/// Key of an amendment: the verdict that holds for a shard if its part has this sha256 and the first verdict
/// has another. An attempt on another kind of processor obeys the first verdict, but rounds differently. It
/// then creates an amendment before its part. The key contains the hash, so any number of attempts can do so
/// at the same time; the one part that is then created tells which verdict holds.
pub fn amendment_key(shard: ShardIndex, sha256: &str) -> String {
    format!("{AMENDMENT_PREFIX}{shard}-{sha256}{VERDICT_SUFFIX}")
}

/// The shard whose amendment has this key; `None` if the key is not an amendment's.
pub fn shard_of_amendment_key(key: &str) -> Option<ShardIndex> {
    let (digits, _) = key.strip_prefix(AMENDMENT_PREFIX)?.split_once('-')?;
    parse(digits, "", "")
}

/// The shard whose part has this key; `None` if the key is not a part's.
pub fn shard_of_part_key(key: &str) -> Option<ShardIndex> {
    PartFormat::all().find_map(|format| parse(key, PART_PREFIX, &format.suffix()))
}

/// The shard whose error rows have this key; `None` if the key is another object's.
pub fn shard_of_errors_key(key: &str) -> Option<ShardIndex> {
    parse(key.strip_prefix(ERRORS_PREFIX)?, PART_PREFIX, ERRORS_SUFFIX)
}

/// The shard whose verdict has this key; `None` if the key is not a verdict's.
pub fn shard_of_verdict_key(key: &str) -> Option<ShardIndex> {
    parse(key, VERDICT_PREFIX, VERDICT_SUFFIX)
}

fn parse(key: &str, prefix: &str, suffix: &str) -> Option<ShardIndex> {
    let digits = key.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let shard = ShardIndex(digits.parse().ok()?);
    (shard.to_string() == digits).then_some(shard) // one name per shard: no sign, no other padding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_shards_and_back() {
        for index in [0, 123, 999_999, 1_000_000, u32::MAX] {
            let shard = ShardIndex(index);
            for format in PartFormat::all() {
                assert_eq!(shard_of_part_key(&part_key(shard, format)), Some(shard));
            }
            assert_eq!(shard_of_errors_key(&errors_key(shard)), Some(shard));
            assert_eq!(shard_of_review_key(&review_key(shard)), Some(shard));
            assert_eq!(shard_of_verdict_key(&verdict_key(shard)), Some(shard));
            assert_eq!(shard_of_amendment_key(&amendment_key(shard, "ab12")), Some(shard));
            assert_eq!(tier_of_key(&tier_key(2, shard)), Some((2, shard)));
            assert_eq!(place_of_broken_input_key(&broken_input_key(index as usize)), Some(index as usize));
        }
        assert_eq!(part_key(ShardIndex(123), PartFormat::default()), "part-000123.jsonl");
        assert_eq!(part_key(ShardIndex(123), "jsonl.zst".parse().unwrap()), "part-000123.jsonl.zst");
        assert_eq!(errors_key(ShardIndex(123)), "errors/part-000123.jsonl");
        assert_eq!(verdict_key(ShardIndex(123)), "_baton/shards/000123.json");
        assert_eq!(tier_key(1, ShardIndex(123)), "_baton/tiers/1/000123.jsonl.zst");
    }

    #[test]
    fn other_keys_are_not_parts() {
        for key in [
            "part-1.jsonl",
            "part-0000001.jsonl",
            "part-+00001.jsonl",
            "errors/part-000001.jsonl",
            "_SUCCESS",
        ] {
            assert_eq!(shard_of_part_key(key), None, "{key}");
        }
    }
}
