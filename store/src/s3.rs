//! The backend for a prefix of an S3 bucket, through the official SDK.
//!
//! Owns reading, looking up and listing; [`upload`] writes, [`stream`] reads across broken connections,
//! [`client`] knows the environment, [`failure`] explains errors. Atomicity is the server's: an object
//! appears whole, and `If-None-Match: *` lets one writer create it. The server must therefore honour
//! conditional writes, as AWS does and `conformance` checks; not every imitation does.

mod client;
mod failure;
mod stream;
mod upload;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::Object;
use bytes::{Bytes, BytesMut};

use crate::key::check_key;
use crate::{Location, ObjectMeta, StoreError};

pub(crate) use client::shared_client;
pub use failure::S3Failure;
pub(crate) use stream::{ObjectStream, StreamReader, read_range};
pub(crate) use upload::WriteMode;

/// The objects of a bucket whose keys begin with one prefix. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct S3Prefix {
    client: Client,
    bucket: String,
    /// Empty, or ends with a slash.
    prefix: String,
}

/// An object of a bucket, by its whole key.
#[derive(Debug, Clone)]
pub(crate) struct S3Address {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

impl S3Address {
    /// `s3://bucket/key`.
    pub(crate) fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }
}

impl S3Prefix {
    /// `prefix` has no slashes around it.
    pub(crate) fn new(client: Client, bucket: &str, prefix: &str) -> S3Prefix {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        S3Prefix { client, bucket: bucket.to_owned(), prefix }
    }

    /// Objects whose names are not keys of a store, such as the empty objects that some tools write for
    /// directories, are not listed.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut objects =
            list_bucket(&self.client, &self.bucket, &format!("{}{prefix}", self.prefix)).await?;
        for object in &mut objects {
            object.key.drain(..self.prefix.len());
        }
        objects.retain(|object| check_key(&object.key).is_ok());
        Ok(objects)
    }

    pub(crate) async fn visit_keys(
        &self,
        prefix: &str,
        mut visit: impl FnMut(&str),
    ) -> Result<(), StoreError> {
        let whole_prefix = format!("{}{prefix}", self.prefix);
        visit_bucket(&self.client, &self.bucket, &whole_prefix, |object| {
            let key = object.key.as_deref().and_then(|key| key.get(self.prefix.len()..));
            if let Some(key) = key.filter(|key| check_key(key).is_ok()) {
                visit(key);
            }
        })
        .await
    }

    pub(crate) async fn list_directories(&self) -> Result<Vec<String>, StoreError> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&self.prefix).delimiter("/");
        let mut pages = request.into_paginator().send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let location = Location::S3 { bucket: self.bucket.clone(), prefix: self.prefix.clone() };
            let page = page.map_err(|error| failure::store_error("list", &location.to_string(), &error))?;
            let prefixes = page.common_prefixes.unwrap_or_default().into_iter();
            let name_of =
                |prefix: &str| Some(prefix.get(self.prefix.len()..)?.trim_end_matches('/').to_owned());
            names.extend(prefixes.filter_map(|prefix| name_of(prefix.prefix()?)));
        }
        Ok(names)
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let opened = ObjectStream::open(&self.client, self.address(key), None).await?;
        let Some(mut stream) = opened else { return Ok(None) };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    }

    pub(crate) async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let found = head_object(&self.client, &self.address(key)).await?;
        Ok(found.map(|object| ObjectMeta { key: key.to_owned(), ..object }))
    }

    fn address(&self, key: &str) -> S3Address {
        S3Address { bucket: self.bucket.clone(), key: format!("{}{key}", self.prefix) }
    }
}

/// Metadata of one object; `None` if it does not exist. Keys are whole.
pub(crate) async fn head_object(
    client: &Client,
    address: &S3Address,
) -> Result<Option<ObjectMeta>, StoreError> {
    match client.head_object().bucket(&address.bucket).key(&address.key).send().await {
        Ok(found) => Ok(Some(ObjectMeta {
            key: address.key.clone(),
            size: found.content_length().unwrap_or_default().try_into().unwrap_or_default(),
            etag: bare_etag(found.e_tag()),
        })),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(None),
        Err(error) => Err(failure::store_error("look up", &address.uri(), &error)),
    }
}

/// All objects of `bucket` whose keys begin with `prefix`, sorted. Keys are whole.
pub(crate) async fn list_bucket(
    client: &Client,
    bucket: &str,
    prefix: &str,
) -> Result<Vec<ObjectMeta>, StoreError> {
    let mut objects = Vec::new();
    visit_bucket(client, bucket, prefix, |object| objects.extend(listed(object))).await?;
    objects.sort_unstable_by(|one, other| one.key.cmp(&other.key)); // not every server sorts by bytes
    Ok(objects)
}

async fn visit_bucket(
    client: &Client,
    bucket: &str,
    prefix: &str,
    mut visit: impl FnMut(Object),
) -> Result<(), StoreError> {
    let mut pages = client.list_objects_v2().bucket(bucket).prefix(prefix).into_paginator().send();
    while let Some(page) = pages.next().await {
        let location = Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        let page = page.map_err(|error| failure::store_error("list", &location.to_string(), &error))?;
        page.contents.unwrap_or_default().into_iter().for_each(&mut visit);
    }
    Ok(())
}

fn listed(object: Object) -> Option<ObjectMeta> {
    let size = object.size.unwrap_or_default().try_into().unwrap_or_default();
    let etag = bare_etag(object.e_tag());
    Some(ObjectMeta { key: object.key?, size, etag })
}

/// Servers quote tags in headers, but some do not in listings.
fn bare_etag(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests;
