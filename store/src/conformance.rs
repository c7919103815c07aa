//! The guarantees of every backend, as functions over a [`Store`]. Each uses a key prefix of its own.

use bytes::Bytes;

use crate::{CreateOutcome, Store, StoreError};

const NUM_WRITERS: u8 = 16;

/// Runs the whole suite.
pub(crate) async fn run_all(store: &Store) {
    an_absent_object_is_none(store).await;
    what_was_created_is_read_back(store).await;
    an_object_is_created_once(store).await;
    one_of_many_concurrent_creates_wins(store, "race/small", 3, 1000).await;
    one_of_many_concurrent_creates_wins(store, "race/large", 1, 5 << 20).await;
    nobody_sees_half_an_object(store).await;
    a_put_replaces(store).await;
    listings_are_sorted_complete_and_filtered(store).await;
    directories_are_those_directly_below(store).await;
    bad_keys_are_refused(store).await;
    an_object_is_created_from_a_reader_once(store).await;
}

async fn directories_are_those_directly_below(store: &Store) {
    for key in ["directories-b/deep/er/object", "directories-a/object", "directories-c"] {
        let _ = store.create(key, "here".into()).await.unwrap();
    }
    let mut names = store.list_directories().await.unwrap();
    names.retain(|name| name.starts_with("directories-"));
    assert_eq!(names, ["directories-a", "directories-b"]);
}

async fn an_absent_object_is_none(store: &Store) {
    assert_eq!(store.get("absent/object").await.unwrap(), None);
    assert_eq!(store.head("absent/object").await.unwrap(), None);
    assert_eq!(store.list("absent/").await.unwrap(), []);
}

async fn what_was_created_is_read_back(store: &Store) {
    for (key, len) in [("read/empty", 0), ("read/small", 10), ("read/deep/er/large", 3 << 20)] {
        let bytes = Bytes::from(vec![7; len]);
        assert_eq!(store.create(key, bytes.clone()).await.unwrap(), CreateOutcome::Created);
        assert_eq!(store.get(key).await.unwrap(), Some(bytes));
        let meta = store.head(key).await.unwrap().unwrap();
        assert_eq!((meta.key.as_str(), meta.size), (key, len as u64));
    }
    assert_eq!(store.head("read/deep").await.unwrap(), None, "a directory is no object");
}

async fn an_object_is_created_once(store: &Store) {
    let key = "once/object";
    assert_eq!(store.create(key, "first".into()).await.unwrap(), CreateOutcome::Created);
    assert_eq!(store.create(key, "second".into()).await.unwrap(), CreateOutcome::AlreadyExists);
    assert_eq!(store.get(key).await.unwrap().unwrap(), "first");
}

async fn one_of_many_concurrent_creates_wins(store: &Store, prefix: &str, num_rounds: u32, size: usize) {
    for round in 0..num_rounds {
        let key = format!("{prefix}/{round}");
        let writers: Vec<_> = (0..NUM_WRITERS)
            .map(|writer| {
                let (store, key) = (store.clone(), key.clone());
                tokio::spawn(
                    async move { (writer, store.create(&key, vec![writer; size].into()).await.unwrap()) },
                )
            })
            .collect();
        let mut winners = Vec::new();
        for writer in writers {
            let (writer, outcome) = writer.await.unwrap();
            if outcome == CreateOutcome::Created {
                winners.push(writer);
            }
        }
        let [winner] = winners[..] else { panic!("one writer wins, not {winners:?}") };
        assert!(store.get(&key).await.unwrap().unwrap() == vec![winner; size], "{key} is its winner's");
    }
}

async fn nobody_sees_half_an_object(store: &Store) {
    for replace in [false, true] {
        let key = if replace { "torn/put" } else { "torn/create" };
        let whole = [Bytes::from(vec![1; 2 << 20]), Bytes::from(vec![2; 1 << 20])];
        let reader = tokio::spawn({
            let (store, whole) = (store.clone(), whole.clone());
            async move {
                // Ends with the object that is written last.
                loop {
                    match store.get(key).await.unwrap() {
                        Some(seen) if seen == whole[usize::from(replace)] => return,
                        Some(seen) => assert!(whole.contains(&seen), "saw {} bytes of {key}", seen.len()),
                        None => tokio::task::yield_now().await,
                    }
                }
            }
        });
        assert_eq!(store.create(key, whole[0].clone()).await.unwrap(), CreateOutcome::Created);
        if replace {
            store.put(key, whole[1].clone()).await.unwrap();
        }
        reader.await.unwrap();
    }
}

async fn a_put_replaces(store: &Store) {
    store.put("put/object", "first".into()).await.unwrap();
    let before = store.head("put/object").await.unwrap().unwrap();
    store.put("put/object", "and second".into()).await.unwrap();
    let after = store.head("put/object").await.unwrap().unwrap();
    assert_eq!(store.get("put/object").await.unwrap().unwrap(), "and second");
    assert_ne!(before.etag, after.etag);
}

async fn an_object_is_created_from_a_reader_once(store: &Store) {
    let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let create =
        async |bytes: Vec<u8>| store.create_from("from/reader", std::io::Cursor::new(bytes)).await.unwrap();
    assert_eq!(create(bytes.clone()).await, CreateOutcome::Created);
    assert_eq!(create(b"other".to_vec()).await, CreateOutcome::AlreadyExists);
    assert_eq!(store.get("from/reader").await.unwrap().unwrap(), bytes);
}

async fn listings_are_sorted_complete_and_filtered(store: &Store) {
    let keys = ["list/a", "list/b-1", "list/b/c", "list/b/d/e", "list/b0", "list/z"];
    for key in keys.iter().rev() {
        assert_eq!(store.create(key, (*key).into()).await.unwrap(), CreateOutcome::Created);
    }
    let list = async |prefix: &str| -> Vec<String> {
        store.list(prefix).await.unwrap().into_iter().map(|object| object.key).collect()
    };
    assert_eq!(list("list/").await, keys);
    assert_eq!(list("list/b").await, keys[1..5]);
    assert_eq!(list("list/b/").await, keys[2..4]);
    assert_eq!(list("list/b/d/e").await, keys[3..4]);
    let everything = list("").await;
    assert!(everything.is_sorted() && keys.iter().all(|key| everything.iter().any(|listed| listed == key)));
    let mut keys_found =
        store.fold_keys("list/b", Vec::new(), |keys, key| keys.push(key.to_owned())).await.unwrap();
    keys_found.sort_unstable();
    assert_eq!(keys_found, keys[1..5]);
    let listed = store.list("list/a").await.unwrap();
    assert_eq!(Some(&listed[0]), store.head("list/a").await.unwrap().as_ref());
}

async fn bad_keys_are_refused(store: &Store) {
    for key in ["", "../outside", "/absolute", ".hidden"] {
        let error = store.create(key, Bytes::new()).await.unwrap_err();
        assert!(matches!(error, StoreError::InvalidKey { .. }), "{error}");
    }
}
