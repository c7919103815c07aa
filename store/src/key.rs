//! Which keys a store accepts.

use crate::StoreError;

/// Refuses keys that would leave the store's directory, that name a directory, or that are hidden.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    let is_plain = |component: &str| !component.is_empty() && !component.starts_with('.');
    if key.split('/').all(is_plain) && !key.contains(['\\', '\0']) {
        return Ok(());
    }
    Err(StoreError::InvalidKey { key: key.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside_the_store_and_visible() {
        for key in ["a", "a/b.jsonl", "_baton/shards/000000.json"] {
            check_key(key).unwrap();
        }
        for key in ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", ".a", "a/.b", "a\\b"] {
            assert!(check_key(key).is_err(), "{key}");
        }
    }
}
