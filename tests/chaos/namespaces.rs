//! A network of hosts on this machine: a namespace for each process, joined by a bridge, with a way to unplug
//! each.
//!
//! Needs root and `ip` (iproute2). Dropping the network removes everything. The next run removes the remains
//! of a killed run, which it knows by name.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// All names begin with it.
const PREFIX: &str = "btch";
/// Documentation's own range (RFC 5737): it means nothing outside.
const NETWORK: [u8; 3] = [198, 51, 100];
const GATEWAY_HOST: u8 = 1;
const FIRST_HOST: u8 = 10;

/// The bridge and its hosts.
#[derive(Debug)]
pub(crate) struct Network {
    hosts: Vec<Host>,
    /// Names and addresses are the machine's: one suite at a time has them. Held until the network is
    /// dropped.
    _lock: File,
}

/// One namespace with one address.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    index: u8,
}

impl Network {
    /// Why there can be no network here, if so.
    pub(crate) fn is_impossible() -> Option<String> {
        let probe = format!("{PREFIX}-probe");
        let made = ip(&["netns", "add", &probe]).and_then(|()| ip(&["netns", "del", &probe]));
        made.err().map(|error| format!("{error:#}"))
    }

    /// Makes a bridge and `num_hosts` hosts on it.
    pub(crate) fn create(num_hosts: usize) -> anyhow::Result<Network> {
        let lock = File::create(std::env::temp_dir().join("baton-chaos-network.lock"))?;
        lock.lock().context("waiting for another suite's network to be removed")?;
        remove_all()?;
        let mut network = Network { hosts: Vec::new(), _lock: lock };
        ip(&["link", "add", &bridge(), "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", address(GATEWAY_HOST)), "dev", &bridge()])?;
        ip(&["link", "set", &bridge(), "up"])?;
        for index in 0..u8::try_from(num_hosts)? {
            let host = Host { index };
            host.create()?;
            network.hosts.push(host);
        }
        Ok(network)
    }

    /// The host with this index.
    pub(crate) fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = remove_all() {
            eprintln!("chaos: the network namespaces {PREFIX}-* could not be removed: {error:#}");
        }
    }
}

impl Host {
    fn create(&self) -> anyhow::Result<()> {
        let (namespace, outer, inner) =
            (self.namespace(), self.outer_end(), format!("{PREFIX}-i{}", self.index));
        ip(&["netns", "add", &namespace])?;
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner])?;
        ip(&["link", "set", &inner, "netns", &namespace])?;
        ip(&["link", "set", &outer, "master", &bridge(), "up"])?;
        ip(&["-n", &namespace, "address", "add", &format!("{}/24", self.address()), "dev", &inner])?;
        ip(&["-n", &namespace, "link", "set", &inner, "up"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])
    }

    /// The host's address, which the machine itself reaches too.
    pub(crate) fn address(&self) -> Ipv4Addr {
        address(FIRST_HOST + self.index)
    }

    /// The command that runs `program` on this host; its process becomes the program.
    pub(crate) fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace()]).arg(program);
        command
    }

    /// Takes the cable out of the bridge. The host notices nothing but silence.
    pub(crate) fn unplug(&self) -> anyhow::Result<()> {
        ip(&["link", "set", &self.outer_end(), "nomaster"])
    }

    /// Puts it back.
    pub(crate) fn plug_in(&self) -> anyhow::Result<()> {
        ip(&["link", "set", &self.outer_end(), "master", &bridge()])
    }

    /// Packets that the host has sent.
    pub(crate) fn num_packets_sent(&self) -> anyhow::Result<u64> {
        // Packets that arrive at the cable's other end.
        let path = format!("/sys/class/net/{}/statistics/rx_packets", self.outer_end());
        let count = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(count.trim().parse()?)
    }

    fn namespace(&self) -> String {
        format!("{PREFIX}-{}", self.index)
    }

    fn outer_end(&self) -> String {
        format!("{PREFIX}-o{}", self.index)
    }
}

fn bridge() -> String {
    format!("{PREFIX}-bridge")
}

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(NETWORK[0], NETWORK[1], NETWORK[2], host)
}

/// Removes all namespaces and links with our names. The machine runs one suite at a time.
fn remove_all() -> anyhow::Result<()> {
    let listed = Command::new("ip").args(["netns", "list"]).output().context("cannot run ip")?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        if name.starts_with(&format!("{PREFIX}-")) {
            ip(&["netns", "del", name])?; // and the cable with it
        }
    }
    for entry in fs::read_dir("/sys/class/net").context("cannot list the network interfaces")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("{PREFIX}-")) {
            let _ = ip(&["link", "del", &name]); // the namespace's end may have taken it along meanwhile
        }
    }
    ensure!(
        !fs::exists(format!("/sys/class/net/{}", bridge()))?,
        "the bridge {} cannot be removed",
        bridge()
    );
    Ok(())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("ip").args(arguments).output().context("cannot run ip; install iproute2")?;
    if !done.status.success() {
        bail!("`ip {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
