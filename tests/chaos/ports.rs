//! Ports that processes can be told to listen on.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that the system assigns, and apart from those of the S3 server.
const FIRST: u16 = 20_000;
const NUM_PORTS: u16 = 1_000;

/// A free port that this process has not given out for as long as possible.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Suites side by side begin in different places.
    let start = (std::process::id() % u32::from(NUM_PORTS)) as u16;
    let mut candidates =
        (0..NUM_PORTS).map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % NUM_PORTS);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    candidates.find(is_free).expect("some of a thousand ports are free")
}
