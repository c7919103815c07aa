//! Local inputs. Those on S3 are tested where the server is, in `s3::tests`.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::local::without_dots;
use super::*;

fn corpus(names: &[&str]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for name in names {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    directory
}

/// Lists `patterns` below `corpus`; names are relative to it.
async fn list(corpus: &TempDir, patterns: &[&str]) -> Result<Vec<String>, StoreError> {
    let root = corpus.path().to_str().unwrap();
    let patterns: Vec<String> = patterns.iter().map(|pattern| format!("{root}/{pattern}")).collect();
    let files = list_inputs(&patterns).await?;
    Ok(files.into_iter().map(|file| file.uri[root.len() + 1..].to_owned()).collect())
}

#[tokio::test]
async fn files_directories_and_globs_are_listed_sorted_and_once() {
    let corpus = corpus(&["b.jsonl", "a.jsonl", "c.csv", "in/d.jsonl", "in/deep/e.jsonl"]);
    assert_eq!(list(&corpus, &["b.jsonl"]).await.unwrap(), ["b.jsonl"]);
    assert_eq!(list(&corpus, &["in"]).await.unwrap(), ["in/d.jsonl", "in/deep/e.jsonl"]);
    assert_eq!(list(&corpus, &["*.jsonl", "b.jsonl"]).await.unwrap(), ["a.jsonl", "b.jsonl"]);
    assert_eq!(list(&corpus, &["**/[de].jsonl"]).await.unwrap(), ["in/d.jsonl", "in/deep/e.jsonl"]);
}

#[tokio::test]
async fn hidden_and_underscored_names_are_skipped_unless_spelled_out() {
    let corpus = corpus(&["a.txt", "_b.txt", ".c.txt", "_d/e.txt", "_d/_f.txt", "in/_g/h.txt"]);
    for pattern in ["", "*.txt", "**/*.txt"] {
        assert_eq!(list(&corpus, &[pattern]).await.unwrap(), ["a.txt"], "{pattern}");
    }
    assert_eq!(list(&corpus, &["_b.txt", ".c.txt"]).await.unwrap(), [".c.txt", "_b.txt"]);
    assert_eq!(list(&corpus, &["_d/*.txt"]).await.unwrap(), ["_d/e.txt"]);
}

#[tokio::test]
async fn spellings_that_differ_in_dots_and_slashes_are_one_file() {
    let corpus = corpus(&["in/a.txt"]);
    let patterns = ["in//a.txt", "./in/a.txt", "in/./a.txt", "in/", "./i*/a.txt"];
    assert_eq!(list(&corpus, &patterns).await.unwrap(), ["in/a.txt"]);
    assert_eq!(without_dots(Path::new("./a/./b")), Path::new("a/b"));
}

#[tokio::test]
async fn a_file_with_wildcards_in_its_name_is_itself() {
    let corpus = corpus(&["a[1].txt", "a1.txt"]);
    assert_eq!(list(&corpus, &["a[1].txt"]).await.unwrap(), ["a[1].txt"]);
}

#[tokio::test]
async fn a_pattern_that_matches_nothing_is_named() {
    let corpus = corpus(&["a.txt", "empty/_x"]);
    for pattern in ["*.csv", "missing.txt", "empty"] {
        let error = list(&corpus, &["a.txt", pattern]).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::NoInput { pattern: named } if named.ends_with(pattern)),
            "{error}"
        );
    }
    let error = list(&corpus, &["a[.txt"]).await.unwrap_err().to_string();
    assert!(error.contains("a[.txt"), "{error}");
}

#[tokio::test]
async fn an_input_is_opened_only_as_it_was_listed() {
    let corpus = corpus(&["a.txt"]);
    let uri = corpus.path().join("a.txt").to_str().unwrap().to_owned();
    let [input] = &list_inputs(&[format!("file://{uri}")]).await.unwrap()[..] else { panic!("one file") };
    assert_eq!(input.uri, uri);
    let mut text = String::new();
    open_input(input).await.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "a.txt");
    fs::write(&uri, "longer than before").unwrap();
    let error = open_input(input).await.err().expect("it changed").to_string();
    assert!(error.starts_with(&format!("input {uri} changed while the job ran")), "{error}");
    fs::remove_file(&uri).unwrap();
    let error = open_read(&uri).await.err().expect("it is gone").to_string();
    assert_eq!(error, format!("cannot read {uri}"));
}

#[test]
fn a_file_that_does_not_exist_yet_is_known_to_be_named_or_not() {
    let corpus = corpus(&["in/a.jsonl"]);
    let root = corpus.path().to_str().unwrap();
    let is_named = |pattern: &str, file: &str| {
        is_named_by(&format!("{root}/{pattern}"), &Location::Local(corpus.path().join(file))).unwrap()
    };
    for (pattern, file) in [
        ("in", "in/out/part.jsonl"),
        ("in/", "in/part.jsonl"),
        ("./in/../in", "in/out/part.jsonl"),
        ("**/*.jsonl", "out/part.jsonl"),
        ("o*/p*", "out/part.jsonl"),
    ] {
        assert!(is_named(pattern, file), "{pattern} {file}");
    }
    for (pattern, file) in [
        ("in", "inner/part.jsonl"),
        ("in/a.jsonl", "in/out/part.jsonl"),
        ("in/*.jsonl", "in/out/part.jsonl"),
        ("in", "in/_out/part.jsonl"),
    ] {
        assert!(!is_named(pattern, file), "{pattern} {file}");
    }
    let object = Location::parse("s3://b/corpus/out/part.jsonl").unwrap();
    for (pattern, is_named) in
        [("s3://b/corpus", true), ("s3://b", true), ("s3://b/corpus/*", false), ("s3://c/corpus", false)]
    {
        assert_eq!(is_named_by(pattern, &object).unwrap(), is_named, "{pattern}");
    }
}

#[tokio::test]
async fn any_bytes_of_a_listed_file_are_read_until_it_changes() {
    let corpus = corpus(&["a.parquet"]);
    let path = corpus.path().join("a.parquet");
    std::fs::write(&path, (0..=255u8).collect::<Vec<_>>()).unwrap();
    let listed = list_inputs(&[path.to_str().unwrap().to_owned()]).await.unwrap();
    let ranges = open_ranges(&listed[0]).await.unwrap();
    assert_eq!(ranges.size(), 256);
    for (start, expected) in [(0u64, 0..4u8), (250, 250..254), (3, 3..3)] {
        let mut buffer = vec![0; expected.len()];
        ranges.read_at(start, &mut buffer).unwrap();
        assert_eq!(buffer, expected.collect::<Vec<_>>());
    }
    assert!(ranges.read_at(254, &mut [0; 4]).is_err(), "there are two bytes only");
    std::fs::write(&path, "other").unwrap();
    let error = ranges.read_at(0, &mut [0; 4]).unwrap_err().to_string();
    assert!(error.contains("changed while the job ran"), "{error}");
    assert!(matches!(open_ranges(&listed[0]).await, Err(StoreError::InputChanged { .. })));
}

/// A listed file of 200,000 bytes, partly read.
async fn half_read(corpus: &TempDir) -> (String, Box<dyn Read + Send>) {
    let uri = corpus.path().join("a.txt").to_str().unwrap().to_owned();
    fs::write(&uri, [b'a'; 200_000]).unwrap();
    // Written long ago: a clock of some milliseconds does not tell writes at the same moment apart.
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(&uri).unwrap().set_modified(long_ago).unwrap();
    let [input] = &list_inputs(std::slice::from_ref(&uri)).await.unwrap()[..] else { panic!("one file") };
    let mut reader = open_input(input).await.unwrap();
    reader.read_exact(&mut [0; 1000]).unwrap();
    (uri, reader)
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_gives_no_byte_more() {
    type Change = fn(&str);
    let changes: [(&str, Change); 4] = [
        ("cut off", |uri| fs::OpenOptions::new().write(true).open(uri).unwrap().set_len(50_000).unwrap()),
        ("appended to", |uri| {
            use std::io::Write;
            fs::OpenOptions::new().append(true).open(uri).unwrap().write_all(b"more").unwrap();
        }),
        ("rewritten in its size", |uri| fs::write(uri, [b'b'; 200_000]).unwrap()),
        ("emptied", |uri| fs::write(uri, "").unwrap()),
    ];
    for (what, change) in changes {
        let corpus = corpus(&[]);
        let (uri, mut reader) = half_read(&corpus).await;
        change(&uri);
        let mut rest = Vec::new();
        let error = reader.read_to_end(&mut rest).expect_err(what);
        assert!(is_input_changed(&error), "{what}: {error}");
        assert!(error.to_string().starts_with(&format!("input {uri} changed")), "{what}: {error}");
        assert!(rest.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_file_that_another_one_replaces_is_read_to_its_end_as_it_was_listed() {
    let corpus = corpus(&["b.txt"]);
    let (uri, mut reader) = half_read(&corpus).await;
    fs::rename(corpus.path().join("b.txt"), &uri).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, vec![b'a'; 199_000]);
}

#[tokio::test]
async fn a_pipe_is_no_input_file() {
    let corpus = corpus(&[]);
    let pipe = corpus.path().join("pipe.txt");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let error = list_inputs(&[pipe.to_str().unwrap().to_owned()]).await.unwrap_err().to_string();
    assert!(error.contains("pipe.txt is no regular file"), "{error}");
}
