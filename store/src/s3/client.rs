//! The one S3 client of the process, made from the environment.
//!
//! Credentials, region and endpoint come only from the SDK's default chain: environment variables, the shared
//! profile files, web identity, container and instance roles. Baton has no flags for them and stores none.
//! This file adds the number of tries, the timeouts, and the addressing of buckets.

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
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

/// Tries per request unless `AWS_MAX_ATTEMPTS` says otherwise. The SDK waits a random time of up to 1, 2, 4,
/// 8 and 16 seconds between them. It therefore gives a throttled request up after half a minute at most.
const MAX_ATTEMPTS: u32 = 6;

/// A server that has not accepted a connection after this time is down or cut off.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For one try, from the first byte sent to the answer's head. The largest request has 32 MiB, so this allows
/// for 280 KiB/s. A body that stalls while it is read is the SDK's stalled-stream protection's to notice.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);

/// Where a server of one's own is named. The first one wins, as in the SDK.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];

/// `true` names the bucket in the path, `false` in the host name. The default is the path if a custom
/// endpoint is set, since few of those have a host name per bucket.
const PATH_STYLE_VARIABLE: &str = "BATON_S3_PATH_STYLE";

/// A custom endpoint accepts any region; such servers expect this one.
const REGION_OF_CUSTOM_ENDPOINTS: &str = "us-east-1";

/// The client for all locations. Loading the environment may ask the platform for region and credentials, so
/// it is done once.
///
/// # Errors
/// [`StoreError::S3InvalidEndpoint`], [`StoreError::S3NoRegion`].
pub(crate) async fn shared_client() -> Result<&'static Client, StoreError> {
    static CLIENT: OnceCell<Client> = OnceCell::const_new();
    CLIENT.get_or_try_init(from_environment).await
}

async fn from_environment() -> Result<Client, StoreError> {
    let endpoint = endpoint_of_environment(env::var_os)?;
    let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .region()
        .await;
    let default_region = Region::new(REGION_OF_CUSTOM_ENDPOINTS);
    // With a region given, no metadata address is asked for one.
    let load = |region: Region| aws_config::defaults(BehaviorVersion::latest()).region(region).load();
    let mut sdk = load(region.clone().unwrap_or(default_region)).await;
    let has_endpoint = endpoint.is_some() || sdk.endpoint_url().is_some();
    if region.is_none() && !has_endpoint {
        sdk = aws_config::defaults(BehaviorVersion::latest()).load().await;
        if sdk.region().is_none() {
            return Err(StoreError::S3NoRegion);
        }
    }
    let mut retries = sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    if env::var_os("AWS_MAX_ATTEMPTS").is_none_or(|value| value.is_empty()) {
        retries = retries.with_max_attempts(MAX_ATTEMPTS);
    }
    let path_style = match env::var(PATH_STYLE_VARIABLE).as_deref() {
        Ok("true") => true,
        Ok("false") => false,
        _ => has_endpoint,
    };
    Ok(build(Builder::from(&sdk).retry_config(retries).force_path_style(path_style)))
}

/// The endpoint that the environment names, if it does. The SDK takes a malformed one for none.
fn endpoint_of_environment(
    variable: impl Fn(&'static str) -> Option<OsString>,
) -> Result<Option<String>, StoreError> {
    let mut endpoint = None;
    for name in ENDPOINT_VARIABLES {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else { continue };
        let value = value.to_string_lossy().into_owned();
        if let Some(reason) = fault_of_endpoint(&value) {
            return Err(StoreError::S3InvalidEndpoint { variable: name, value, reason });
        }
        endpoint.get_or_insert(value);
    }
    Ok(endpoint)
}

/// Why a client cannot connect to `url`, as far as the text tells.
fn fault_of_endpoint(url: &str) -> Option<&'static str> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Some("it begins with neither http:// nor https://");
    }
    if url.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Some("there is white space in it");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some("credentials do not belong in it");
    }
    // The colons of an IPv6 address are in brackets.
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[after_host..].find(':') {
        Some(colon) => (&authority[..after_host + colon], Some(&authority[after_host + colon + 1..])),
        None => (authority, None),
    };
    if host.is_empty() || host == "[]" {
        return Some("the host is missing");
    }
    port.filter(|port| port.parse::<u16>().is_err()).map(|_| "its port is no number from 0 to 65535")
}

/// The client of `builder`, with the timeouts and the retries that this crate relies on.
pub(super) fn build(builder: Builder) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    Client::from_conf(builder.timeout_config(timeouts).retry_classifier(ConflictsPass).build())
}

/// Another conditional write of the same key was under way: whether it wins is known a moment later. The SDK
/// does not count that among the errors that pass.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_with_a_host() {
        for url in ["http://127.0.0.1:8333", "https://s3.example.org", "HTTP://[::1]:9000/", "http://minio/x"]
        {
            assert_eq!(fault_of_endpoint(url), None, "{url}");
        }
        for (url, reason) in [
            ("localhost:8333", "neither http://"),
            ("127.0.0.1", "neither http://"),
            ("htp://x", "neither http://"),
            ("http:/x", "neither http://"),
            ("http://", "host is missing"),
            ("http://:8333", "host is missing"),
            ("http://[]:8333", "host is missing"),
            ("http://a b", "white space"),
            ("http://x:port", "no number"),
            ("http://x:70000", "no number"),
            ("http://x:", "no number"),
            ("http://key:secret@x", "credentials"),
        ] {
            assert!(fault_of_endpoint(url).is_some_and(|fault| fault.contains(reason)), "{url}");
        }
    }

    #[test]
    fn a_malformed_endpoint_is_named_with_its_variable_and_a_password_is_not_shown() {
        let set = |name, value: &str| {
            let value = OsString::from(value);
            endpoint_of_environment(move |variable| (variable == name).then(|| value.clone()))
        };
        let error = set("AWS_ENDPOINT_URL", "localhost:8333").unwrap_err().to_string();
        assert!(
            error.starts_with("AWS_ENDPOINT_URL is no endpoint (\"localhost:8333\"): it begins"),
            "{error}"
        );
        let error = set("AWS_ENDPOINT_URL_S3", "http://me:secret@x").unwrap_err().to_string();
        assert!(
            error.starts_with("AWS_ENDPOINT_URL_S3 is no endpoint: ") && !error.contains("secret"),
            "{error}"
        );
        assert_eq!(set("AWS_ENDPOINT_URL", "").unwrap(), None);
        assert_eq!(set("AWS_ENDPOINT_URL", "http://x").unwrap().as_deref(), Some("http://x"));
    }
}
