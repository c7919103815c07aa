//! Reading an object as a stream that outlives its connections.
//!
//! A corpus is read as fast as it is processed, so one object may be read for hours, and servers close idle
//! connections. A broken stream is resumed with a ranged request for the same version of the object. Only the
//! connection's own buffers read ahead of the caller.

use std::io::{self, Read};

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};
use tokio::runtime::Handle;

use super::{S3Address, bare_etag, failure};
use crate::StoreError;

/// How often in a row a stream may break without a byte read in between. Each resumption is itself a request
/// with the client's retries, so a server that is down for a while does not use these up.
const MAX_BREAKS_WITHOUT_PROGRESS: u32 = 5;

/// One version of an object, read from front to back.
#[derive(Debug)]
pub(crate) struct ObjectStream {
    client: Client,
    address: S3Address,
    etag: String,
    size: u64,
    position: u64,
    body: ByteStream,
    breaks_without_progress: u32,
}

impl ObjectStream {
    /// Opens an object, in the version `etag` if one is given; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::InputChanged`] if the object has another tag, and other errors of reading it.
    pub(crate) async fn open(
        client: &Client,
        address: S3Address,
        etag: Option<&str>,
    ) -> Result<Option<ObjectStream>, StoreError> {
        let Some(found) = get_object(client, &address, etag, None).await? else { return Ok(None) };
        Ok(Some(ObjectStream {
            client: client.clone(),
            address,
            etag: bare_etag(found.e_tag()),
            size: found.content_length().unwrap_or_default().try_into().unwrap_or_default(),
            position: 0,
            body: found.body,
            breaks_without_progress: 0,
        }))
    }

    /// Bytes of the whole object.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes; `None` at the end. Dropping the future loses nothing but the request under way.
    ///
    /// # Errors
    /// [`StoreError::InputChanged`] if the object was replaced while it was read, and other errors of reading
    /// it.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let broken = match self.body.try_next().await {
                Ok(Some(bytes)) => {
                    self.position += bytes.len() as u64;
                    self.breaks_without_progress = 0;
                    return Ok(Some(bytes));
                }
                Ok(None) if self.position == self.size => return Ok(None),
                Ok(None) => {
                    failure::broken_body(&self.address.uri(), &io::Error::from(io::ErrorKind::UnexpectedEof))
                }
                Err(error) => failure::broken_body(&self.address.uri(), &error),
            };
            // An error after the last byte is a wrong checksum: the bytes read cannot be taken back.
            if self.position >= self.size || self.breaks_without_progress == MAX_BREAKS_WITHOUT_PROGRESS {
                return Err(broken);
            }
            self.breaks_without_progress += 1;
            let uri = self.address.uri();
            tracing::debug!(uri, position = self.position, %broken, "resuming a broken read");
            self.body = self.resume().await?;
        }
    }

    async fn resume(&self) -> Result<ByteStream, StoreError> {
        match get_object(
            &self.client,
            &self.address,
            Some(&self.etag),
            Some(format!("bytes={}-", self.position)),
        )
        .await?
        {
            Some(rest) => Ok(rest.body),
            None => Err(StoreError::InputChanged { uri: self.address.uri() }),
        }
    }
}

/// Fills `buffer` with bytes of one version of an object, across broken connections.
///
/// # Errors
/// [`StoreError::InputChanged`] if the object was replaced or has fewer bytes, and other errors of reading
/// it.
pub(crate) async fn read_range(
    client: &Client,
    address: &S3Address,
    etag: &str,
    start: u64,
    buffer: &mut [u8],
) -> Result<(), StoreError> {
    let mut filled = 0;
    let mut breaks_without_progress = 0;
    while filled < buffer.len() {
        let (first, last) = (start + filled as u64, start + buffer.len() as u64 - 1);
        let changed = || StoreError::InputChanged { uri: address.uri() };
        let range = Some(format!("bytes={first}-{last}"));
        let mut body = get_object(client, address, Some(etag), range).await?.ok_or_else(changed)?.body;
        let broken = loop {
            match body.try_next().await {
                Ok(Some(bytes)) if bytes.len() <= buffer.len() - filled => {
                    buffer[filled..filled + bytes.len()].copy_from_slice(&bytes);
                    filled += bytes.len();
                    breaks_without_progress = 0;
                }
                Ok(Some(_)) => return Err(changed()), // more than was asked for: another object
                Ok(None) => {
                    break failure::broken_body(
                        &address.uri(),
                        &io::Error::from(io::ErrorKind::UnexpectedEof),
                    );
                }
                Err(error) => break failure::broken_body(&address.uri(), &error),
            }
        };
        breaks_without_progress += 1;
        if filled < buffer.len() && breaks_without_progress > MAX_BREAKS_WITHOUT_PROGRESS {
            return Err(broken);
        }
    }
    Ok(())
}

async fn get_object(
    client: &Client,
    address: &S3Address,
    etag: Option<&str>,
    range: Option<String>,
) -> Result<Option<GetObjectOutput>, StoreError> {
    let request = client
        .get_object()
        .bucket(&address.bucket)
        .key(&address.key)
        .set_if_match(etag.map(|etag| format!("\"{etag}\"")))
        .set_range(range);
    match request.send().await {
        // A server may not know `If-Match`, so its answer is checked as well.
        Ok(found) if etag.is_some_and(|etag| bare_etag(found.e_tag()) != etag) => {
            Err(StoreError::InputChanged { uri: address.uri() })
        }
        Ok(found) => Ok(Some(found)),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => Ok(None),
        Err(error) if failure::is_answer(&error, failure::PRECONDITION_FAILED, 412) => {
            Err(StoreError::InputChanged { uri: address.uri() })
        }
        Err(error) => Err(failure::store_error("read", &address.uri(), &error)),
    }
}

/// An [`ObjectStream`] for code that blocks. It must be read outside of async tasks.
pub(crate) struct StreamReader {
    stream: ObjectStream,
    chunk: Bytes,
    runtime: Handle,
}

impl StreamReader {
    /// Reads `stream` with the help of the current runtime.
    pub(crate) fn new(stream: ObjectStream) -> StreamReader {
        StreamReader { stream, chunk: Bytes::new(), runtime: Handle::current() }
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !buffer.is_empty() {
            match self.runtime.block_on(self.stream.next()).map_err(io::Error::other)? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let num_bytes = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..num_bytes]);
        Ok(num_bytes)
    }
}
