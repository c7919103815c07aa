//! The one S3 client of the process, made from the environment.
//!
//! Credentials, region and endpoint come from the SDK's default chain alone: environment variables, the shared
//! profile files, web identity, container and instance roles. Baton has no flags for them and stores none. What this
//! file adds: how often to try, how long to wait, and how buckets are addressed.

use std::env;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction, RetryConfig};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::put_object::PutObjectError;
use tokio::sync::OnceCell;

use super::failure::CONDITIONAL_CONFLICT;
use crate::StoreError;

/// Tries per request where `AWS_MAX_ATTEMPTS` does not say otherwise. The SDK waits up to 1, 2, 4, 8 and 16 seconds
/// between them, at random below that, so a request is given up after half a minute of throttling at most.
const MAX_ATTEMPTS: u32 = 6;

/// A server that has not accepted a connection by then is down or cut off.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For one try, from the first byte sent to the answer's head. The largest request has 32 MiB, so this allows for 280
/// KiB/s. A body that stalls while it is read is the SDK's stalled-stream protection's to notice.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);

/// `true` or `false`: whether the bucket is named in the path or in the host name. Default: in the path if a custom
/// endpoint is set, since few of those have a host name per bucket.
const PATH_STYLE_VARIABLE: &str = "BATON_S3_PATH_STYLE";

/// Any custom endpoint takes a region; this one is what such servers expect.
const REGION_OF_CUSTOM_ENDPOINTS: &str = "us-east-1";

/// The client for all locations. Loading the environment may ask the platform for region and credentials, so it is
/// done once.
///
/// # Errors
/// [`StoreError::S3NoRegion`].
pub(crate) async fn shared_client() -> Result<&'static Client, StoreError> {
    static CLIENT: OnceCell<Client> = OnceCell::const_new();
    CLIENT.get_or_try_init(from_environment).await
}

async fn from_environment() -> Result<Client, StoreError> {
    let sdk = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let is_set = |variable: &str| env::var_os(variable).is_some_and(|value| !value.is_empty());
    let has_endpoint = sdk.endpoint_url().is_some() || is_set("AWS_ENDPOINT_URL_S3");
    let mut retries = sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    if !is_set("AWS_MAX_ATTEMPTS") {
        retries = retries.with_max_attempts(MAX_ATTEMPTS);
    }
    let path_style = match env::var(PATH_STYLE_VARIABLE).as_deref() {
        Ok("true") => true,
        Ok("false") => false,
        _ => has_endpoint,
    };
    let mut builder = Builder::from(&sdk).retry_config(retries).force_path_style(path_style);
    if sdk.region().is_none() {
        if !has_endpoint {
            return Err(StoreError::S3NoRegion);
        }
        builder = builder.region(Region::new(REGION_OF_CUSTOM_ENDPOINTS));
    }
    Ok(build(builder))
}

/// The client of `builder`, with the timeouts and the retries that this crate relies on.
pub(super) fn build(builder: Builder) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    Client::from_conf(builder.timeout_config(timeouts).retry_classifier(ConflictsPass).build())
}

/// Another conditional write of the same key was under way: whether it wins is known a moment later. The SDK does not
/// count that among the errors that pass.
#[derive(Debug)]
struct ConflictsPass;

impl ClassifyRetry for ConflictsPass {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err);
        let error = error.and_then(|error| error.as_operation_error()?.downcast_ref::<PutObjectError>());
        match error.and_then(ProvideErrorMetadata::code) {
            Some(CONDITIONAL_CONFLICT) => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "conditional write conflicts"
    }
}
