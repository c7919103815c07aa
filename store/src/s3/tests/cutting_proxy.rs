//! A TCP proxy that cuts connections in the middle of an answer.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Passes bytes both ways until it is dropped.
pub(super) struct CuttingProxy {
    port: u16,
    cuts_left: Arc<AtomicU32>,
}

impl CuttingProxy {
    /// Starts a proxy before `server_port` that cuts each of the first `num_cuts` connections over which more
    /// than `num_bytes` come back.
    pub(super) fn start(server_port: u16, num_cuts: u32, num_bytes: usize) -> CuttingProxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = CuttingProxy {
            port: listener.local_addr().unwrap().port(),
            cuts_left: Arc::new(AtomicU32::new(num_cuts)),
        };
        let cuts_left = Arc::clone(&proxy.cuts_left);
        thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port));
                let (Ok(client), Ok(server)) = (client, server) else { return };
                let (mut from_client, mut to_server) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut from_client, &mut to_server);
                    let _ = to_server.shutdown(Shutdown::Both);
                });
                let cuts_left = Arc::clone(&cuts_left);
                thread::spawn(move || {
                    let _ = pass_back(server, &client, &cuts_left, num_bytes);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        proxy
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Cuts that have not happened yet.
    pub(super) fn cuts_left(&self) -> u32 {
        self.cuts_left.load(Ordering::SeqCst)
    }
}

fn pass_back(
    mut server: TcpStream,
    mut client: &TcpStream,
    cuts_left: &AtomicU32,
    num_bytes: usize,
) -> io::Result<()> {
    let mut passed = 0;
    let mut buffer = [0; 16 << 10];
    loop {
        let received = server.read(&mut buffer)?;
        if received == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..received])?;
        passed += received;
        let take_one = |left: u32| left.checked_sub(1);
        if passed > num_bytes && cuts_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one).is_ok()
        {
            return Ok(());
        }
    }
}
