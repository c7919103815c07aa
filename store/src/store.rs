//! The store's interface: checks keys, chooses the backend, keeps blocking work off the async threads.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::check_key;
use crate::local::LocalDirectory;
use crate::s3::{S3Prefix, WriteMode};
use crate::{CreateOutcome, Location, ObjectMeta, StoreError};

/// A directory of immutable objects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    location: Location,
    backend: Backend,
}

#[derive(Debug, Clone)]
enum Backend {
    Local(Arc<LocalDirectory>),
    S3(S3Prefix),
}

impl Store {
    /// Opens the store at `location`. A local directory is created if it does not exist, and remains of
    /// crashed writers are removed once they are an hour old. On S3 this sends no request: the first
    /// operation tells whether the bucket exists.
    ///
    /// # Errors
    /// The file system refuses; for S3, [`StoreError::S3NoRegion`].
    pub async fn open(location: Location) -> Result<Store, StoreError> {
        let backend = match &location {
            Location::Local(root) => {
                let root = root.clone();
                Backend::Local(Arc::new(blocking(move || LocalDirectory::open(root)).await?))
            }
            Location::S3 { bucket, prefix } => {
                let client = crate::s3::shared_client().await?;
                Backend::S3(S3Prefix::new(client.clone(), bucket, prefix))
            }
        };
        Ok(Store { location, backend })
    }

    /// The place of this store.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// All objects whose keys begin with `prefix`, sorted by key.
    ///
    /// # Errors
    /// If the directory or bucket cannot be listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        match &self.backend {
            Backend::Local(directory) => {
                let prefix = prefix.to_owned();
                run(directory, move |directory| directory.list(&prefix)).await
            }
            Backend::S3(objects) => objects.list(prefix).await,
        }
    }

    /// Folds the keys of all objects that begin with `prefix`, in no order and without holding them.
    ///
    /// # Errors
    /// If the directory or bucket cannot be listed.
    pub async fn fold_keys<T: Send + 'static>(
        &self,
        prefix: &str,
        mut state: T,
        fold: fn(&mut T, &str),
    ) -> Result<T, StoreError> {
        match &self.backend {
            Backend::Local(directory) => {
                let prefix = prefix.to_owned();
                let visit = move |directory: &LocalDirectory| {
                    directory.visit_keys(&prefix, |key| fold(&mut state, key))?;
                    Ok(state)
                };
                run(directory, visit).await
            }
            Backend::S3(objects) => {
                objects.visit_keys(prefix, |key| fold(&mut state, key)).await?;
                Ok(state)
            }
        }
    }

    /// The names of the directories directly below the store's location, sorted, without hidden ones.
    ///
    /// # Errors
    /// If the directory or bucket cannot be listed.
    pub async fn list_directories(&self) -> Result<Vec<String>, StoreError> {
        let mut names = match &self.backend {
            Backend::Local(directory) => run(directory, LocalDirectory::list_directories).await?,
            Backend::S3(objects) => objects.list_directories().await?,
        };
        names.retain(|name| check_key(name).is_ok());
        names.sort_unstable();
        Ok(names)
    }

    /// An object's bytes; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::InvalidKey`], or if the object cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        check_key(key)?;
        match &self.backend {
            Backend::Local(directory) => {
                let key = key.to_owned();
                run(directory, move |directory| directory.get(&key)).await
            }
            Backend::S3(objects) => objects.get(key).await,
        }
    }

    /// Metadata of an object, without reading it; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::InvalidKey`], or if the object cannot be looked up.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        check_key(key)?;
        match &self.backend {
            Backend::Local(directory) => {
                let key = key.to_owned();
                run(directory, move |directory| directory.head(&key)).await
            }
            Backend::S3(objects) => objects.head(key).await,
        }
    }

    /// Creates an object if no object has this key. Atomic: of all writers of a key exactly one creates it,
    /// and others see the whole object or nothing. The object is durable on return.
    ///
    /// # Errors
    /// [`StoreError::InvalidKey`], [`StoreError::DiskFull`] and other errors of writing.
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<CreateOutcome, StoreError> {
        check_key(key)?;
        match &self.backend {
            Backend::Local(directory) => {
                let key = key.to_owned();
                run(directory, move |directory| directory.create(&key, &bytes)).await
            }
            Backend::S3(objects) => objects.write(key, bytes, WriteMode::Create).await,
        }
    }

    /// Creates an object like [`Store::create`], from everything that `reader` gives. A local directory holds
    /// little of it in memory; S3 takes an object in one request, so there it is held whole.
    ///
    /// # Errors
    /// As for [`Store::create`], and if `reader` fails.
    pub async fn create_from(
        &self,
        key: &str,
        mut reader: impl Read + Send + 'static,
    ) -> Result<CreateOutcome, StoreError> {
        check_key(key)?;
        match &self.backend {
            Backend::Local(directory) => {
                let key = key.to_owned();
                run(directory, move |directory| directory.create_from(&key, reader)).await
            }
            Backend::S3(objects) => {
                let mut bytes = Vec::new();
                let read = move || reader.read_to_end(&mut bytes).map(|_| bytes);
                let bytes =
                    blocking(read).await.map_err(StoreError::io("read what becomes", Path::new(key)))?;
                objects.write(key, bytes.into(), WriteMode::Create).await
            }
        }
    }

    /// Writes an object, replacing one with this key. Atomic and durable like [`Store::create`]; the last
    /// writer wins.
    ///
    /// # Errors
    /// As for [`Store::create`].
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        check_key(key)?;
        match &self.backend {
            Backend::Local(directory) => {
                let key = key.to_owned();
                run(directory, move |directory| directory.put(&key, &bytes)).await
            }
            Backend::S3(objects) => objects.write(key, bytes, WriteMode::Replace).await.map(|_| ()),
        }
    }

    /// A store with a client of the test's own, because a process has only one environment.
    #[cfg(test)]
    pub(crate) fn on_s3(client: aws_sdk_s3::Client, bucket: &str, prefix: &str) -> Store {
        let location = Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        Store { location, backend: Backend::S3(S3Prefix::new(client, bucket, prefix)) }
    }
}

async fn run<T: Send + 'static>(
    directory: &Arc<LocalDirectory>,
    operation: impl FnOnce(&LocalDirectory) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let directory = Arc::clone(directory);
    blocking(move || operation(&directory)).await
}

/// Runs `operation` on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(operation: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(operation).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()), // it is never cancelled
    }
}
