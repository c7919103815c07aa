//! Hooks: by which of its keys a pack is found again, and the names of a cache's objects.
//!
//! ```text
//! SCOPE/hooks/ab/abcd...     the name of the newest pack that has this key among its smallest
//! SCOPE/packs/12/1234...     a pack, named by the hash of its bytes
//! ```
//! A hook is replaced when a newer pack has its key, so there is one object for each, and a lookup takes no
//! listing. Whichever of two writers is the last, the hook names a whole pack.

use crate::{PackName, Scope, SegmentKey};

/// Hooks of a pack. More find a pack by fewer common segments, and cost a call each.
pub const NUM_HOOKS: usize = 8;
/// Packs that one lookup fetches at most. A shard whose boundaries have shifted lies in two.
pub const MAX_PACKS: usize = 4;

/// The hooks of a shard with these keys: the smallest, each once, in order.
#[must_use]
pub fn hooks(keys: impl IntoIterator<Item = SegmentKey>) -> Vec<SegmentKey> {
    let mut smallest: Vec<SegmentKey> = Vec::with_capacity(NUM_HOOKS + 1);
    for key in keys {
        if let Err(place) = smallest.binary_search(&key)
            && place < NUM_HOOKS
        {
            smallest.insert(place, key);
            smallest.truncate(NUM_HOOKS);
        }
    }
    smallest
}

/// The packs that the contents of hooks name, those that most of them name first: at most [`MAX_PACKS`].
/// Contents that are no name are counted.
#[must_use]
pub fn packs_named(contents: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (Vec<PackName>, u64) {
    let (mut votes, mut num_unreadable): (Vec<(PackName, usize)>, u64) = (Vec::new(), 0);
    for content in contents {
        let Some(name) = PackName::parse(content.as_ref()) else {
            num_unreadable += 1;
            continue;
        };
        match votes.iter_mut().find(|(named, _)| *named == name) {
            Some((_, count)) => *count += 1,
            None => votes.push((name, 1)),
        }
    }
    votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count)); // stable: by the order of hooks
    (votes.into_iter().map(|(name, _)| name).take(MAX_PACKS).collect(), num_unreadable)
}

/// The object of a hook.
#[must_use]
pub fn hook_object(scope: Scope, hook: SegmentKey) -> String {
    let hook = hook.to_string();
    format!("{scope}/hooks/{}/{hook}", &hook[..2])
}

/// The object of a pack.
#[must_use]
pub fn pack_object(scope: Scope, pack: &PackName) -> String {
    let pack = pack.to_string();
    format!("{scope}/packs/{}/{pack}", &pack[..2])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> SegmentKey {
        let view = baton_text::View { text: &number.to_string(), terms: Vec::new() };
        crate::SegmentKeys::new("").of_view(&view, None)
    }

    proptest! {
        #[test]
        fn hooks_are_the_smallest_keys_in_any_order_of_the_shard(numbers in prop::collection::vec(0_u64..60, 0..80)) {
            let keys: Vec<SegmentKey> = numbers.iter().map(|&number| key(number)).collect();
            let mut sorted = keys.clone();
            sorted.sort_unstable();
            sorted.dedup();
            sorted.truncate(NUM_HOOKS);
            prop_assert_eq!(hooks(keys), sorted);
        }
    }

    /// Shards of 256 segments, of which a twentieth is new, and which are shifted by some.
    #[test]
    fn a_shard_that_has_changed_a_little_and_has_shifted_finds_its_packs() {
        for shift in [0, 1, 20, 64, 128, 250] {
            let before = |shard: u64| hooks((shard * 256..(shard + 1) * 256).map(key));
            let now = |number: u64| if number % 20 == 7 { key(number + (1 << 40)) } else { key(number) };
            let (mut num_segments, mut num_found) = (0, 0);
            for shard in 0..40 {
                let range = shard * 256 + shift..(shard + 1) * 256 + shift;
                let wanted = hooks(range.clone().map(now));
                let is_found = |pack: u64| before(pack).iter().any(|hook| wanted.contains(hook));
                let found = [shard, shard + 1].map(is_found);
                let kept = range.filter(|number| number % 20 != 7);
                for number in kept {
                    num_segments += 1;
                    num_found += u64::from(found[usize::from(number >= (shard + 1) * 256)]);
                }
            }
            assert!(num_found * 100 >= num_segments * 95, "shift {shift}: {num_found} of {num_segments}");
        }
    }

    #[test]
    fn packs_that_more_hooks_name_come_first_and_other_contents_are_counted() {
        let names = ["a", "b", "c", "d", "e"].map(|letter| letter.repeat(64));
        let [a, b, c, d, e] = names.each_ref().map(String::as_str);
        let (packs, num_unreadable) = packs_named([a, b, "", b, c, "x", d, e]);
        let packs: Vec<String> = packs.iter().map(ToString::to_string).collect();
        assert_eq!(packs, [b, a, c, d]);
        assert_eq!(num_unreadable, 2);
    }
}
