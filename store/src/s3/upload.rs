//! Writing an object: in one request if it is small, in parts if it is large, and conditionally either way.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::{S3Address, S3Prefix, failure, head_object};
use crate::{CreateOutcome, StoreError};

/// Up to this size an object is written in one request, whose condition every server checks atomically. For
/// the completion of an upload in parts, AWS does too, but SeaweedFS 4.48 sometimes let several completions
/// win. A failed request is sent again whole, so this also bounds the cost of a retry.
pub(super) const MAX_SINGLE_WRITE_NUM_BYTES: usize = 32 << 20;

/// The size of a part of a larger object. S3 wants 5 MiB or more, and at most 10,000 parts.
pub(super) const PART_NUM_BYTES: usize = 16 << 20;

/// How many uploads in parts a write may take where other writes of the key cross them.
const MAX_UPLOADS: u32 = 3;

/// Every byte is checked by the server. CRC-32C is computed in hardware on both sides.
const CHECKSUM: ChecksumAlgorithm = ChecksumAlgorithm::Crc32C;

/// The effect of a write on an object that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// Leaves it alone: `If-None-Match: *`.
    Create,
    /// Replaces it.
    Replace,
}

impl WriteMode {
    fn if_none_match(self) -> Option<String> {
        (self == WriteMode::Create).then(|| "*".to_owned())
    }
}

impl S3Prefix {
    /// Writes an object. Dropping the future does not stop the write.
    pub(crate) async fn write(
        &self,
        key: &str,
        bytes: Bytes,
        mode: WriteMode,
    ) -> Result<CreateOutcome, StoreError> {
        let (objects, address) = (self.clone(), self.address(key));
        let write = async move {
            if bytes.len() <= MAX_SINGLE_WRITE_NUM_BYTES {
                objects.write_at_once(&address, bytes, mode).await
            } else {
                objects.write_in_parts(&address, &bytes, mode).await
            }
        };
        match tokio::spawn(write).await {
            Ok(outcome) => outcome,
            Err(error) => std::panic::resume_unwind(error.into_panic()), // it is never cancelled
        }
    }

    async fn write_at_once(
        &self,
        address: &S3Address,
        bytes: Bytes,
        mode: WriteMode,
    ) -> Result<CreateOutcome, StoreError> {
        let request = self
            .client
            .put_object()
            .bucket(&address.bucket)
            .key(&address.key)
            .checksum_algorithm(CHECKSUM)
            .set_if_none_match(mode.if_none_match())
            .body(ByteStream::from(bytes));
        match request.send().await {
            Ok(_) => Ok(CreateOutcome::Created),
            Err(error) if failure::is_answer(&error, failure::PRECONDITION_FAILED, 412) => {
                Ok(CreateOutcome::AlreadyExists)
            }
            Err(error) => Err(failure::store_error("write", &address.uri(), &error)),
        }
    }

    async fn write_in_parts(
        &self,
        address: &S3Address,
        bytes: &Bytes,
        mode: WriteMode,
    ) -> Result<CreateOutcome, StoreError> {
        let mut num_uploads = 1;
        loop {
            match self.upload_once(address, bytes, mode).await? {
                Completion::Settled(outcome) => return Ok(outcome),
                Completion::Crossed(error) if num_uploads == MAX_UPLOADS => return Err(error),
                Completion::Crossed(_) => num_uploads += 1,
            }
        }
    }

    /// One upload in parts, which is aborted unless it becomes the object.
    async fn upload_once(
        &self,
        address: &S3Address,
        bytes: &Bytes,
        mode: WriteMode,
    ) -> Result<Completion, StoreError> {
        if mode == WriteMode::Create && head_object(&self.client, address).await?.is_some() {
            // An early look saves the upload; only the upload's completion decides.
            return Ok(Completion::Settled(CreateOutcome::AlreadyExists));
        }
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&address.bucket)
            .key(&address.key)
            .checksum_algorithm(CHECKSUM)
            .send()
            .await
            .map_err(|error| failure::store_error("write", &address.uri(), &error))?;
        let upload = Upload { address, id: begun.upload_id().unwrap_or_default() };
        let outcome = match self.upload_parts(&upload, bytes).await {
            Ok(parts) => self.complete(&upload, parts, mode).await,
            Err(error) => Err(error),
        };
        if !matches!(outcome, Ok(Completion::Settled(CreateOutcome::Created))) {
            self.abort(&upload).await;
        }
        outcome
    }

    async fn upload_parts(
        &self,
        upload: &Upload<'_>,
        bytes: &Bytes,
    ) -> Result<Vec<CompletedPart>, StoreError> {
        let mut parts = Vec::new();
        for (number, start) in (1..).zip((0..bytes.len()).step_by(PART_NUM_BYTES)) {
            let part = bytes.slice(start..bytes.len().min(start + PART_NUM_BYTES));
            let sent = self
                .client
                .upload_part()
                .bucket(&upload.address.bucket)
                .key(&upload.address.key)
                .upload_id(upload.id)
                .part_number(number)
                .checksum_algorithm(CHECKSUM)
                .body(ByteStream::from(part))
                .send()
                .await
                .map_err(|error| failure::store_error("write", &upload.address.uri(), &error))?;
            let part = CompletedPart::builder()
                .part_number(number)
                .set_e_tag(sent.e_tag)
                .set_checksum_crc32_c(sent.checksum_crc32_c);
            parts.push(part.build());
        }
        Ok(parts)
    }

    /// Makes the parts an object, if the mode's condition holds at that moment.
    async fn complete(
        &self,
        upload: &Upload<'_>,
        parts: Vec<CompletedPart>,
        mode: WriteMode,
    ) -> Result<Completion, StoreError> {
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&upload.address.bucket)
            .key(&upload.address.key)
            .upload_id(upload.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_if_none_match(mode.if_none_match());
        match request.send().await {
            Ok(_) => Ok(Completion::Settled(CreateOutcome::Created)),
            Err(error) if failure::is_answer(&error, failure::PRECONDITION_FAILED, 412) => {
                Ok(Completion::Settled(CreateOutcome::AlreadyExists))
            }
            Err(error) => {
                // The latter: an earlier try was carried out and its answer lost, or somebody aborted the
                // upload.
                let is_crossed = failure::is_answer(&error, failure::CONDITIONAL_CONFLICT, 409)
                    || failure::is_answer(&error, "NoSuchUpload", 404);
                let error = failure::store_error("write", &upload.address.uri(), &error);
                if is_crossed { Ok(Completion::Crossed(error)) } else { Err(error) }
            }
        }
    }

    /// Frees the parts. Parts that cannot be freed are left to the bucket's lifecycle rule.
    async fn abort(&self, upload: &Upload<'_>) {
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(&upload.address.bucket)
            .key(&upload.address.key)
            .upload_id(upload.id);
        if let Err(error) = request.send().await {
            let error = failure::store_error("abort the upload of", &upload.address.uri(), &error);
            tracing::debug!(%error, "an unfinished upload stays");
        }
    }
}

struct Upload<'address> {
    address: &'address S3Address,
    id: &'address str,
}

enum Completion {
    /// The object exists, by this upload or not.
    Settled(CreateOutcome),
    /// Something else happened to the key or the upload: only another upload can tell.
    Crossed(StoreError),
}
