//! Envoy between the processes: it answers gRPC calls with UNAVAILABLE, or holds them back, and says how
//! many.
//!
//! Needs the environment variable `BATON_ENVOY`, the path of the `envoy` binary. `make test` fetches the
//! pinned binary (`scripts/setup.py tools`) and sets the variable.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::http;
use crate::schedule::Links;

const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a delayed call is held.
const CALL_DELAY: &str = "0.6s";
/// gRPC's code for a service that cannot be reached.
const UNAVAILABLE: u32 = 14;

/// A running Envoy, killed when dropped.
#[derive(Debug)]
pub(crate) struct Envoy {
    process: Child,
    admin: SocketAddr,
}

/// One address of Envoy's, and where its calls go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) links: Links,
    pub(crate) listen: SocketAddr,
    pub(crate) target: SocketAddr,
}

impl Envoy {
    /// Starts Envoy with its files in `directory`.
    pub(crate) fn start(directory: &Path, admin_port: u16, routes: &[Route]) -> anyhow::Result<Envoy> {
        let binary = std::env::var_os("BATON_ENVOY").context(
            "BATON_ENVOY is not set: run the suite with `make chaos`, which fetches Envoy and sets it to \
             the binary",
        )?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port));
        let config = directory.join("envoy.json");
        fs::write(&config, bootstrap(admin, routes).to_string())?;
        let process = Command::new(&binary)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--config-path"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.join("envoy.log"))?)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut envoy = Envoy { process, admin };
        let deadline = Instant::now() + START_DEADLINE;
        while !matches!(http::get(admin, "/ready"), Ok((200, _))) {
            if let Some(status) = envoy.process.try_wait()? {
                bail!("Envoy ended with {status}; see {}", directory.join("envoy.log").display());
            }
            if Instant::now() > deadline {
                bail!("Envoy was not ready in {START_DEADLINE:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(envoy)
    }

    /// Answers this share of the calls to `links` with UNAVAILABLE, per cent.
    pub(crate) fn abort(&self, links: Links, percent: u32) -> anyhow::Result<()> {
        self.set(&format!("{links:?}.abort"), percent)
    }

    /// Holds this share of the calls to `links` back, per cent.
    pub(crate) fn delay(&self, links: Links, percent: u32) -> anyhow::Result<()> {
        self.set(&format!("{links:?}.delay"), percent)
    }

    fn set(&self, key: &str, percent: u32) -> anyhow::Result<()> {
        let (status, body) = http::post(self.admin, &format!("/runtime_modify?{key}={percent}"))?;
        anyhow::ensure!(status == 200, "Envoy refuses {key}={percent}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }

    /// Calls to `links` that were aborted or delayed so far.
    pub(crate) fn num_disturbed(&self, links: Links) -> anyhow::Result<u64> {
        let (_, body) = http::get(self.admin, "/stats?format=json&filter=fault.(aborts|delays)_injected")?;
        let stats: Value = serde_json::from_slice(&body).context("Envoy's statistics")?;
        let stats = stats["stats"].as_array().context("Envoy's statistics")?;
        let prefix = format!("http.{links:?}.");
        let counts =
            stats.iter().filter(|stat| stat["name"].as_str().is_some_and(|name| name.starts_with(&prefix)));
        Ok(counts.filter_map(|stat| stat["value"].as_u64()).sum())
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bootstrap(admin: SocketAddr, routes: &[Route]) -> Value {
    let named = |index: usize| format!("route-{index}");
    let listeners: Vec<Value> = routes
        .iter()
        .enumerate()
        .map(|(index, route)| {
            json!({
                "name": named(index),
                "address": socket_address(route.listen),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": connection_manager(route.links, &named(index)),
                }] }],
            })
        })
        .collect();
    let clusters: Vec<Value> = routes
        .iter()
        .enumerate()
        .map(|(index, route)| {
            json!({
                "name": named(index),
                "connect_timeout": "1s",
                "type": "STATIC",
                "load_assignment": { "cluster_name": named(index), "endpoints": [{ "lb_endpoints": [{
                    "endpoint": { "address": socket_address(route.target) },
                }] }] },
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": { "http2_protocol_options": {} },
                    },
                },
            })
        })
        .collect();
    json!({
        "admin": { "address": socket_address(admin) },
        "layered_runtime": { "layers": [{ "name": "admin", "admin_layer": {} }] },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
}

fn connection_manager(links: Links, cluster: &str) -> Value {
    let never = json!({ "numerator": 0, "denominator": "HUNDRED" }); // until the runtime key says otherwise
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": format!("{links:?}"),
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [{
            "match": { "prefix": "/" },
            "route": { "cluster": cluster, "timeout": "0s" },
        }] }] },
        "http_filters": [
            { "name": "envoy.filters.http.fault", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
                "abort": { "grpc_status": UNAVAILABLE, "percentage": never },
                "delay": { "fixed_delay": CALL_DELAY, "percentage": never },
                "abort_percent_runtime": format!("{links:?}.abort"),
                "delay_percent_runtime": format!("{links:?}.delay"),
            } },
            { "name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            } },
        ],
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
