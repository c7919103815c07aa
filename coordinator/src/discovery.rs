//! Finds the workers: lists of endpoints, and names that are resolved again and again while the job runs.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use baton_proto::Connections;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// The interval of resolving names, and thus the longest wait of a new replica.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// The endpoints of all workers of a role, as in a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointList {
    sources: Vec<EndpointSource>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum EndpointSource {
    /// One worker.
    Fixed(String),
    /// A worker behind each address of a name.
    Dns { host: String, port: u16 },
}

/// The text is not a list of endpoints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an endpoint: write http://HOST:PORT, https://HOST:PORT, dns://NAME:PORT for all addresses \
     of a name, or unix:/path/to/socket, separated by commas"
)]
pub struct InvalidEndpointList(pub String);

/// The workers of a job, and the way to them.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) connections: Connections,
    pub(crate) encoders: watch::Receiver<Vec<String>>,
    pub(crate) decoders: watch::Receiver<Vec<String>>,
}

impl Cluster {
    /// Workers whose endpoints the caller keeps up to date.
    #[must_use]
    pub fn new(
        connections: Connections,
        encoders: watch::Receiver<Vec<String>>,
        decoders: watch::Receiver<Vec<String>>,
    ) -> Self {
        Cluster { connections, encoders, decoders }
    }

    /// Exactly these workers, by their endpoints.
    #[must_use]
    pub fn fixed(connections: Connections, encoders: Vec<String>, decoders: Vec<String>) -> Self {
        Cluster::new(connections, watch::channel(encoders).1, watch::channel(decoders).1)
    }

    /// Workers found by `encoders` and `decoders`, and looked up again while the cluster exists. Call it on a
    /// tokio runtime.
    #[must_use]
    pub fn discover(connections: Connections, encoders: EndpointList, decoders: EndpointList) -> Self {
        let scheme = connections.scheme();
        Cluster::new(connections, watch_endpoints(encoders, scheme), watch_endpoints(decoders, scheme))
    }
}

impl FromStr for EndpointList {
    type Err = InvalidEndpointList;

    fn from_str(text: &str) -> Result<EndpointList, InvalidEndpointList> {
        let sources = text.split(',').map(|endpoint| parse(endpoint.trim()));
        Ok(EndpointList { sources: sources.collect::<Result<_, _>>()? })
    }
}

fn parse(endpoint: &str) -> Result<EndpointSource, InvalidEndpointList> {
    let source = match endpoint.split_once(':') {
        Some(("dns", rest)) => rest.strip_prefix("//").and_then(|name| {
            let (host, port) = name.rsplit_once(':')?;
            let (host, port) = (host.to_owned(), port.parse().ok()?);
            (!host.is_empty()).then_some(EndpointSource::Dns { host, port })
        }),
        Some(("http" | "https", rest)) if rest.len() > 2 && rest.starts_with("//") => {
            Some(EndpointSource::Fixed(endpoint.to_owned()))
        }
        Some(("unix", rest)) if !rest.is_empty() => Some(EndpointSource::Fixed(endpoint.to_owned())),
        _ => None,
    };
    source.ok_or_else(|| InvalidEndpointList(endpoint.to_owned()))
}

fn watch_endpoints(list: EndpointList, scheme: &'static str) -> watch::Receiver<Vec<String>> {
    let is_fixed = |source: &EndpointSource| matches!(source, EndpointSource::Fixed(_));
    let fixed = list.sources.iter().filter_map(|source| match source {
        EndpointSource::Fixed(endpoint) => Some(endpoint.clone()),
        EndpointSource::Dns { .. } => None,
    });
    let (sender, receiver) = watch::channel(fixed.collect());
    if !list.sources.iter().all(is_fixed) {
        tokio::spawn(async move {
            let mut known: Vec<BTreeSet<String>> = vec![BTreeSet::new(); list.sources.len()];
            let mut ticks = interval(RESOLVE_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !sender.is_closed() {
                ticks.tick().await;
                for (source, known) in list.sources.iter().zip(&mut known) {
                    resolve(source, scheme, known).await;
                }
                let endpoints: BTreeSet<&String> = known.iter().flatten().collect();
                let endpoints: Vec<String> = endpoints.into_iter().cloned().collect();
                sender.send_if_modified(|current| {
                    let is_new = *current != endpoints;
                    *current = endpoints;
                    is_new
                });
            }
        });
    }
    receiver
}

/// Updates the `known` addresses of a source. A name that cannot be resolved keeps its addresses. If the
/// workers are gone, calls to them fail and they rest; if only the name server is gone, they continue.
async fn resolve(source: &EndpointSource, scheme: &str, known: &mut BTreeSet<String>) {
    match source {
        EndpointSource::Fixed(endpoint) => {
            known.insert(endpoint.clone());
        }
        EndpointSource::Dns { host, port } => match lookup_host((host.as_str(), *port)).await {
            Ok(addresses) => *known = addresses.map(|address| format!("{scheme}://{address}")).collect(),
            Err(error) => tracing::warn!(host, %error, "cannot resolve the name of workers, trying again"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_endpoints_are_parsed_and_others_are_refused_by_name() {
        let list: EndpointList = "http://a:1, dns://b.c:2,unix:/d".parse().unwrap();
        let fixed = |endpoint: &str| EndpointSource::Fixed(endpoint.to_owned());
        let dns = EndpointSource::Dns { host: "b.c".to_owned(), port: 2 };
        assert_eq!(list.sources, [fixed("http://a:1"), dns, fixed("unix:/d")]);
        for wrong in ["", "a:1", "http://", "dns://b", "dns://:1", "dns://b:x", "unix:", "ftp://a:1"] {
            let error = format!("http://a:1,{wrong}").parse::<EndpointList>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{wrong}` is not an endpoint")), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_means_all_its_addresses() {
        let list = "dns://localhost:7001,http://other:7001".parse().unwrap();
        let mut endpoints = watch_endpoints(list, "https");
        let found = endpoints.wait_for(|endpoints| endpoints.len() > 1).await.unwrap();
        assert!(found.contains(&"https://127.0.0.1:7001".to_owned()), "{found:?}");
        assert!(found.contains(&"http://other:7001".to_owned()), "{found:?}");
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_resolved_keeps_its_addresses() {
        let source = EndpointSource::Dns { host: "no such host".to_owned(), port: 1 };
        let mut known = BTreeSet::from(["http://10.0.0.1:1".to_owned()]);
        resolve(&source, "http", &mut known).await;
        assert_eq!(known.len(), 1);
    }
}
