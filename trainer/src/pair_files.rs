//! Which files a run reads its pairs from: paths, globs, and output directories of jobs.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

use baton_formats::{PartFormat, RowFile, RowFileError};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// One place or several. A place is a file; a glob; or a directory, which stands for the parts that a job has
/// written there. Files are of any format whose rows have fields; a name without a format means JSONL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PairFiles {
    /// One place.
    One(String),
    /// Several, in this order.
    Many(Vec<String>),
}

impl<P: Into<PathBuf>> From<P> for PairFiles {
    fn from(path: P) -> Self {
        Self::One(path.into().to_string_lossy().into_owned())
    }
}

impl fmt::Display for PairFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.places().join(", "))
    }
}

impl PairFiles {
    fn places(&self) -> &[String] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Many(places) => places,
        }
    }

    /// The files, place by place, sorted by name within a place.
    ///
    /// # Errors
    /// A place names no file, a pattern is no glob, or a directory cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<PathBuf>, TrainError> {
        let listed = self.places().iter().map(|place| list_place(place));
        let files = listed.collect::<Result<Vec<_>, _>>()?.concat();
        if files.is_empty() { Err(no_file("[]")) } else { Ok(files) }
    }
}

fn list_place(place: &str) -> Result<Vec<PathBuf>, TrainError> {
    let path = Path::new(place);
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let is_directory = path.is_dir();
    let pattern = if is_directory { parts_pattern(path) } else { place.to_owned() };
    let bad_pattern = |error: glob::PatternError| TrainError::Pairs {
        place: place.to_owned(),
        problem: format!("is no valid glob ({error})"),
    };
    let mut files = Vec::new();
    for file in glob::glob(&pattern).map_err(bad_pattern)? {
        let file = file.map_err(|error| TrainError::io("read", path)(error.into()))?;
        if file.is_file() && (!is_directory || is_part(&file)) {
            files.push(file);
        }
    }
    if files.is_empty() { Err(no_file(place)) } else { Ok(files) }
}

/// The parts of a job in this directory, by their names.
fn parts_pattern(directory: &Path) -> String {
    format!("{}/part-*", glob::Pattern::escape(&directory.to_string_lossy()))
}

fn is_part(file: &Path) -> bool {
    let name = file.to_string_lossy();
    PartFormat::all().any(|format| name.ends_with(&format.suffix()))
}

fn no_file(place: &str) -> TrainError {
    let problem = "names no file; give a file of pairs, a glob, or the output directory of a job".to_owned();
    TrainError::Pairs { place: place.to_owned(), problem }
}

/// Opens a file of pairs.
pub(crate) fn open(path: &Path) -> Result<RowFile, TrainError> {
    RowFile::open(path).map_err(|error| unread(path, error))
}

/// A file or a row of it cannot be read.
pub(crate) fn unread(path: &Path, error: RowFileError) -> TrainError {
    match error {
        RowFileError::Open { source, .. } => TrainError::io("read", path)(source),
        RowFileError::Row(failure) => {
            let (line, problem) = (failure.source.line, failure.message);
            TrainError::Pair { path: path.to_owned(), line, problem }
        }
        RowFileError::Input(failure) => {
            let cause = failure.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            let problem = format!("{failure}{cause}");
            TrainError::Pair { path: path.to_owned(), line: failure.line, problem }
        }
        other => TrainError::Pairs { place: path.to_string_lossy().into_owned(), problem: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_globs_and_job_directories_are_listed_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        fs::create_dir_all(at("out/errors")).unwrap();
        for name in
            ["b.jsonl", "a2.jsonl", "a1.jsonl", "out/part-1.jsonl", "out/part-0.jsonl.zst", "out/_SUCCESS"]
        {
            fs::write(at(name), "").unwrap();
        }
        fs::write(at("out/errors/part-0.jsonl"), "").unwrap();
        let files = PairFiles::Many(vec![at("b.jsonl"), at("a*.jsonl"), at("out")]);
        let expected = ["b.jsonl", "a1.jsonl", "a2.jsonl", "out/part-0.jsonl.zst", "out/part-1.jsonl"];
        assert_eq!(files.list().unwrap(), expected.map(|name| PathBuf::from(at(name))));
    }

    #[test]
    fn a_place_without_files_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("*.jsonl");
        let error = PairFiles::from(place.as_path()).list().unwrap_err().to_string();
        assert!(error.contains("*.jsonl names no file"), "{error}");
        assert!(PairFiles::Many(Vec::new()).list().is_err());
    }

    #[test]
    fn one_place_is_written_as_it_was_read() {
        for json in ["\"a.jsonl\"", "[\"a.jsonl\",\"b*\"]"] {
            let files: PairFiles = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&files).unwrap(), json);
        }
    }
}
