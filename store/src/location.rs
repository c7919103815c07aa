//! Where a store or an input lies.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::StoreError;

/// A local path or an S3 prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path, as given.
    Local(PathBuf),
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// What its keys begin with, without slashes around it; may be empty.
        prefix: String,
    },
}

impl Location {
    /// Reads a path, a `file://` URI or an `s3://` URI.
    ///
    /// # Errors
    /// [`StoreError::InvalidLocation`] for an empty one, an unknown scheme, or a URI without its parts.
    pub fn parse(text: &str) -> Result<Location, StoreError> {
        let invalid =
            |reason: &str| StoreError::InvalidLocation { location: text.into(), reason: reason.into() };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        match text.split_once("://") {
            None => Ok(Location::Local(text.into())),
            Some(("file", path)) if path.starts_with('/') => Ok(Location::Local(path.into())),
            Some(("file", _)) => Err(invalid("the path of a file URI is absolute")),
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(invalid("the bucket is missing"));
                }
                Ok(Location::S3 { bucket: bucket.into(), prefix: prefix.trim_matches('/').into() })
            }
            Some((scheme, _)) => Err(invalid(&format!("unknown scheme `{scheme}`"))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_uris_are_understood() {
        let cases = [
            ("out/x", "out/x"),
            ("/out", "/out"),
            ("file:///out", "/out"),
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
    fn what_is_no_location_is_refused_with_the_reason() {
        for (text, reason) in
            [("", "empty"), ("ftp://x/y", "`ftp`"), ("s3:///y", "bucket"), ("file://x", "absolute")]
        {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
