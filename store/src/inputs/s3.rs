//! Input files in S3 buckets, with the semantics of local ones: slashes in keys make directories.

use std::io::Read;

use aws_sdk_s3::Client;
use glob::{MatchOptions, Pattern};
use tokio::runtime::Handle;

use super::{InputFile, InputRanges, Ranges, is_skipped};
use crate::s3::{ObjectStream, S3Address, StreamReader, head_object, list_bucket};
use crate::{Location, ObjectMeta, StoreError};

const WILDCARDS: [char; 3] = ['*', '?', '['];

/// The objects that `pattern` names in `bucket`: the object with that key, else all below that directory,
/// else the matches of the glob. No slashes are around `pattern`; an empty one is the whole bucket.
pub(crate) async fn list(client: &Client, bucket: &str, pattern: &str) -> Result<Vec<InputFile>, StoreError> {
    let address = S3Address { bucket: bucket.to_owned(), key: pattern.to_owned() };
    if !pattern.is_empty()
        && let Some(object) = head_object(client, &address).await?
    {
        return Ok(vec![input_file(bucket, object)]);
    }
    let directory = if pattern.is_empty() { String::new() } else { format!("{pattern}/") };
    let mut objects = list_bucket(client, bucket, &directory).await?;
    objects.retain(|object| is_wanted(&object.key[directory.len()..]));
    if objects.is_empty() && pattern.contains(WILDCARDS) {
        objects = list_glob(client, bucket, pattern).await?;
    }
    Ok(objects.into_iter().map(|object| input_file(bucket, object)).collect())
}

/// Opens an object in the version that was listed.
pub(crate) async fn open(client: &Client, input: &InputFile) -> Result<Box<dyn Read + Send>, StoreError> {
    let changed = || StoreError::InputChanged { uri: input.uri.clone() };
    let Location::S3 { bucket, prefix } = Location::parse(&input.uri)? else { return Err(changed()) };
    let address = S3Address { bucket, key: prefix };
    let stream = ObjectStream::open(client, address, Some(&input.etag)).await?.ok_or_else(changed)?;
    if stream.size() != input.size {
        return Err(changed());
    }
    Ok(Box::new(StreamReader::new(stream)))
}

/// Opens an object, in its listed version, for reads of any of its bytes. Sends no request.
pub(crate) fn open_ranges(client: &Client, input: InputFile) -> Result<InputRanges, StoreError> {
    let Location::S3 { bucket, prefix } = Location::parse(&input.uri)? else {
        return Err(StoreError::InputChanged { uri: input.uri });
    };
    let address = S3Address { bucket, key: prefix };
    Ok(InputRanges(Ranges::S3 { client: client.clone(), address, input, runtime: Handle::current() }))
}

async fn list_glob(client: &Client, bucket: &str, pattern: &str) -> Result<Vec<ObjectMeta>, StoreError> {
    let glob = Pattern::new(pattern).map_err(|source| {
        let pattern = Location::S3 { bucket: bucket.to_owned(), prefix: pattern.to_owned() }.to_string();
        StoreError::InvalidPattern { pattern, source }
    })?;
    let literal = pattern.split(WILDCARDS).next().unwrap_or_default();
    let fixed_directory_num_bytes = literal.rfind('/').map_or(0, |slash| slash + 1);
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
    let mut objects = list_bucket(client, bucket, literal).await?;
    objects.retain(|object| {
        is_wanted(&object.key[fixed_directory_num_bytes..]) && glob.matches_with(&object.key, options)
    });
    Ok(objects)
}

/// Whether a key, relative to the user's prefix, names a file. No part of such a key begins with a dot or
/// underscore, or is empty, as in the objects that some tools write for directories.
fn is_wanted(relative_key: &str) -> bool {
    relative_key.split('/').all(|name| !name.is_empty() && !is_skipped(name.as_bytes()))
}

fn input_file(bucket: &str, ObjectMeta { key, size, etag }: ObjectMeta) -> InputFile {
    InputFile { uri: S3Address { bucket: bucket.to_owned(), key }.uri(), size, etag }
}
