//! Where a store or an input lies.

use std::fmt;
use std::path::{Component, PathBuf};
use std::str::FromStr;

use crate::StoreError;
use crate::inputs::resolved;

/// A local path or an S3 prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path, as given.
    Local(PathBuf),
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The beginning of its keys, without slashes around it; may be empty.
        prefix: String,
    },
}

/// Schemes that mark a URI even if no slash follows.
const KNOWN_SCHEMES: [&str; 13] =
    ["s3", "s3a", "s3n", "file", "gs", "gcs", "az", "abfs", "abfss", "wasbs", "hdfs", "http", "https"];

impl Location {
    /// Reads a path, a `file:` URI or an `s3://` URI. Schemes may be in any case. A text that looks like a
    /// URI is never taken for a path: `./s3:/x` names a directory `s3:`.
    ///
    /// # Errors
    /// [`StoreError::InvalidLocation`] for an empty one, an unknown scheme, or a URI without its parts; it
    /// says how the place is written.
    pub fn parse(text: &str) -> Result<Location, StoreError> {
        let invalid = |reason: String| StoreError::InvalidLocation { location: text.into(), reason };
        if text.is_empty() {
            return Err(invalid("it is empty".into()));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(Location::Local(text.into()));
        };
        match scheme.as_str() {
            "s3" => match rest.strip_prefix("//") {
                Some(rest) => {
                    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                    if bucket.is_empty() {
                        return Err(invalid("the bucket is missing".into()));
                    }
                    Ok(Location::S3 { bucket: bucket.into(), prefix: prefix.trim_matches('/').into() })
                }
                None => Err(invalid(format!("write s3://{}", rest.trim_start_matches(['/', '\\'])))),
            },
            "s3a" | "s3n" => Err(invalid(format!("write s3://{}", rest.trim_start_matches('/')))),
            "file" => {
                let path = match rest.strip_prefix("//") {
                    Some(after) => after.strip_prefix("localhost").unwrap_or(after),
                    None => rest,
                };
                if !path.starts_with('/') {
                    return Err(invalid("the path of a file URI is absolute".into()));
                }
                let path = percent_decoded(path).ok_or_else(|| invalid("its %XX are not UTF-8".into()))?;
                Ok(Location::Local(path.into()))
            }
            scheme => Err(invalid(format!(
                "unknown scheme `{scheme}`; a directory of that name is written ./{text}"
            ))),
        }
    }

    /// Reads the place of something that must lie on a local disk, such as a bundle.
    ///
    /// # Errors
    /// As [`Location::parse`], and for a place that is not local.
    pub fn parse_local(text: &str) -> Result<PathBuf, StoreError> {
        match Location::parse(text)? {
            Location::Local(path) => Ok(path),
            Location::S3 { .. } => Err(StoreError::NotLocal { location: text.into() }),
        }
    }

    /// Whether this place is `prefix`, or lies below it. Follows links of a local path. A path that goes up
    /// (`..`) through a missing directory lies nowhere.
    #[must_use]
    pub fn is_within(&self, prefix: &Location) -> bool {
        match (self, prefix) {
            (Location::Local(path), Location::Local(prefix)) => {
                let (path, prefix) = (resolved(path), resolved(prefix));
                let goes_up = path.components().any(|component| component == Component::ParentDir);
                !goes_up && path.starts_with(prefix)
            }
            (Location::S3 { bucket, prefix: key }, Location::S3 { bucket: same, prefix }) => {
                let below = key.strip_prefix(prefix.as_str());
                let is_below = |rest: &str| prefix.is_empty() || rest.is_empty() || rest.starts_with('/');
                bucket == same && below.is_some_and(is_below)
            }
            _ => false,
        }
    }

    /// The location of `relative` below this one.
    pub fn join(&self, relative: &str) -> Location {
        match self {
            Location::Local(path) => Location::Local(path.join(relative)),
            Location::S3 { bucket, prefix } if prefix.is_empty() => {
                Location::S3 { bucket: bucket.clone(), prefix: relative.to_owned() }
            }
            Location::S3 { bucket, prefix } => {
                Location::S3 { bucket: bucket.clone(), prefix: format!("{prefix}/{relative}") }
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Local(path) => path.display().fmt(f),
            Location::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Location::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Location, StoreError> {
        Location::parse(text)
    }
}

/// The scheme of a URI, in lower case, and the text after its colon; `None` for a path. A scheme has two
/// letters or more, since one letter is a Windows drive. A slash follows it unless it is a well-known one.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    if let Some((scheme, rest)) = text.split_once("//")
        && scheme.eq_ignore_ascii_case("s3")
    {
        return Some(("s3".to_owned(), rest)); // `s3//bucket`, whose colon is missing
    }
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte));
    let scheme = scheme.to_ascii_lowercase();
    let is_uri = is_scheme && (rest.starts_with('/') || KNOWN_SCHEMES.contains(&scheme.as_str()));
    is_uri.then_some((scheme, rest))
}

/// `path` with each `%XX` as its byte; a `%` that two hexadecimal digits do not follow stays. `None` if that
/// is not UTF-8.
fn percent_decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let escaped = digits.filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_uris_are_understood() {
        let cases = [
            ("out/x", "out/x"),
            ("/out", "/out"),
            ("file:///out", "/out"),
            ("file:/out", "/out"),
            ("File://localhost/out", "/out"),
            ("file:///a%20b%C3%A8/100%", "/a bè/100%"),
            ("S3://bucket/A", "s3://bucket/A"),
            ("2026-11-30T12:00/x", "2026-11-30T12:00/x"),
            ("./s3:/x", "./s3:/x"),
            ("dir/s3://x", "dir/s3://x"),
            ("notes:2026.jsonl", "notes:2026.jsonl"),
            ("C:/data", "C:/data"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("s3://bucket", "s3://bucket"),
        ];
        for (text, shown) in cases {
            assert_eq!(Location::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn joining_stays_below() {
        for (text, joined) in [("out", "out/k/v"), ("s3://b/p", "s3://b/p/k/v"), ("s3://b", "s3://b/k/v")] {
            assert_eq!(Location::parse(text).unwrap().join("k/v").to_string(), joined);
        }
    }

    #[test]
    fn an_invalid_location_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "it is empty"),
            ("ftp://x/y", "unknown scheme `ftp`"),
            ("gs:/x", "unknown scheme `gs`"),
            ("HTTPS://x/y", "unknown scheme `https`"),
            ("foo:/x", "is written ./foo:/x"),
            ("s3:///y", "the bucket is missing"),
            ("s3:/bucket/x", "write s3://bucket/x"),
            ("s3:bucket/x", "write s3://bucket/x"),
            ("S3:\\\\bucket", "write s3://bucket"),
            ("s3//bucket/x", "write s3://bucket/x"),
            ("s3a://bucket/x", "write s3://bucket/x"),
            ("file://x", "absolute"),
            ("file:x", "absolute"),
            ("file:///%ff", "not UTF-8"),
        ] {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_place_lies_within_a_prefix_by_whole_names_and_by_where_links_lead() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap();
        std::fs::create_dir(directory.path().join("allowed")).unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("allowed/link")).unwrap();
        let is_within = |place: &str, prefix: &str| {
            Location::parse(place).unwrap().is_within(&Location::parse(prefix).unwrap())
        };
        let allowed = &format!("{root}/allowed");
        for place in ["", "/out", "/new/deep/er"] {
            assert!(is_within(&format!("{allowed}{place}"), allowed), "{place}");
        }
        for place in ["er", "/../other", "/new/../../other", "/link/etc"] {
            assert!(!is_within(&format!("{allowed}{place}"), allowed), "{place}");
        }
        for (place, prefix) in [("s3://b/x/y", "s3://b/x"), ("s3://b/x", "s3://b/x/"), ("s3://b/x", "s3://b")]
        {
            assert!(is_within(place, prefix), "{place}");
        }
        for (place, prefix) in [("s3://b/xy", "s3://b/x"), ("s3://c/x", "s3://b"), ("/x", "s3://b")] {
            assert!(!is_within(place, prefix), "{place}");
        }
    }

    #[test]
    fn a_place_that_must_be_local_is_refused_elsewhere() {
        assert_eq!(Location::parse_local("file:/a/b").unwrap(), PathBuf::from("/a/b"));
        let error = Location::parse_local("s3://b/bundle").unwrap_err().to_string();
        assert!(error.contains("s3://b/bundle") && error.contains("local"), "{error}");
    }
}
