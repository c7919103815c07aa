//! The local backend: the conformance suite, and errors that only a file system has.

use tempfile::TempDir;

use super::*;
use crate::{Location, Store, conformance};

async fn store() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let store = Store::open(Location::Local(directory.path().join("made/on/open"))).await.unwrap();
    (directory, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_local_backend_conforms() {
    let (_directory, store) = store().await;
    conformance::run_all(&store).await;
}

#[test]
fn abandoned_temporary_files_are_invisible_and_swept_once_old() {
    let root = TempDir::new().unwrap();
    let directory = LocalDirectory::open(root.path().to_owned()).unwrap();
    fs::create_dir(directory.temporary_directory()).unwrap();
    let leftover = directory.temporary_directory().join("left-by-a-crash");
    fs::write(&leftover, b"half a p").unwrap();
    assert_eq!(directory.list("").unwrap(), []);
    directory.sweep_abandoned(SystemTime::now());
    assert!(leftover.exists(), "a living writer may own it");
    directory.sweep_abandoned(SystemTime::now() + 2 * ABANDONED_AFTER);
    assert!(!leftover.exists());
}

#[test]
fn opening_a_directory_writes_nothing_into_it() {
    let root = TempDir::new().unwrap();
    LocalDirectory::open(root.path().to_owned()).unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_write_leaves_no_temporary_file() {
    let root = TempDir::new().unwrap();
    let directory = LocalDirectory::open(root.path().to_owned()).unwrap();
    assert_eq!(directory.create("a", b"1").unwrap(), CreateOutcome::Created);
    assert_eq!(directory.create("a", b"2").unwrap(), CreateOutcome::AlreadyExists);
    directory.put("a", b"3").unwrap();
    assert_eq!(fs::read_dir(directory.temporary_directory()).unwrap().count(), 0);
}

#[test]
fn a_store_survives_the_deletion_of_its_temporary_directory() {
    let root = TempDir::new().unwrap();
    let directory = LocalDirectory::open(root.path().to_owned()).unwrap();
    assert_eq!(directory.create("a", b"1").unwrap(), CreateOutcome::Created);
    fs::remove_dir(directory.temporary_directory()).unwrap();
    assert_eq!(directory.create("b", b"2").unwrap(), CreateOutcome::Created);
}

#[cfg(unix)]
#[test]
fn objects_have_the_mode_of_ordinary_files() {
    use std::os::unix::fs::PermissionsExt;
    let root = TempDir::new().unwrap();
    let directory = LocalDirectory::open(root.path().to_owned()).unwrap();
    assert_eq!(directory.create("object", b"").unwrap(), CreateOutcome::Created);
    fs::write(root.path().join("ordinary"), b"").unwrap();
    let mode = |name| fs::metadata(root.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("object"), mode("ordinary"));
}

#[test]
fn a_file_where_the_store_should_be_is_one_clear_error() {
    let root = TempDir::new().unwrap();
    let file = root.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = LocalDirectory::open(file.clone()).unwrap_err().to_string();
    assert_eq!(error, format!("cannot create the directory {}", file.display()));
}
