//! A TCP proxy with one address and one target, whose connections can be made to fail in the ways in which
//! networks do.
//!
//! It knows nothing of its content except the end of an HTTP request's head, which it needs to answer 503 in
//! the server's place. It counts its effects, so that a test can tell whether a fault took effect.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes read at once, and slowed at once.
const CHUNK_NUM_BYTES: usize = 4096;
/// With [`Mode::Slow`], the pause before each chunk.
const SLOW_PAUSE: Duration = Duration::from_millis(40);

const SLOW_DOWN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

/// The proxy's effect on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    Pass,
    /// All connections are reset, and so are new ones.
    Reset,
    /// Bytes are swallowed. A connection that lived through this is reset when it ends, because some of its
    /// bytes are lost.
    Silence,
    /// 100 kB/s each way.
    Slow,
    /// Requests are answered with 503 SlowDown; connections that are open already are reset.
    Unavailable,
}

/// A running proxy. It ends with the runtime it was started on.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Connections reset, chunks kept or slowed, requests refused.
    num_disturbed: AtomicU64,
}

impl Link {
    /// Listens on a free port of the loopback interface, and forwards connections to `target`.
    pub(crate) async fn open(target: SocketAddr) -> anyhow::Result<Link> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for a link")?;
        let address = listener.local_addr()?;
        let (mode, _) = watch::channel(Mode::Pass);
        let shared = Arc::new(Shared { target, mode, num_disturbed: AtomicU64::new(0) });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Link { address, shared })
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the effect on connections, including open ones.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// How often a mode other than [`Mode::Pass`] was felt.
    pub(crate) fn num_disturbed(&self) -> u64 {
        self.shared.num_disturbed.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn count(&self) {
        self.num_disturbed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(serve(client, Arc::clone(&shared)));
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mode = *shared.mode.borrow();
    match mode {
        Mode::Reset => {
            shared.count();
            reset(&client);
        }
        Mode::Unavailable => {
            if refuse_request(&mut client).await.is_ok() {
                shared.count();
            }
        }
        Mode::Pass | Mode::Silence | Mode::Slow => {
            // The client sees its end.
            let Ok(server) = TcpStream::connect(shared.target).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let _ = relay(client, server, &shared).await;
        }
    }
}

/// Carries bytes both ways until one side ends or the connection is cut.
async fn relay(client: TcpStream, server: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut ends = shared.mode.subscribe();
    let is_cut = async {
        let mut was_silent = *ends.borrow() == Mode::Silence;
        loop {
            let Ok(()) = ends.changed().await else { return };
            let mode = *ends.borrow_and_update();
            if was_silent || matches!(mode, Mode::Reset | Mode::Unavailable) {
                return;
            }
            was_silent = mode == Mode::Silence;
        }
    };
    let mut up = Pump { from: from_client, to: to_server };
    let mut down = Pump { from: from_server, to: to_client };
    let cut = tokio::select! {
        () = is_cut => true,
        ended = async { tokio::try_join!(up.run(shared), down.run(shared)) } => { ended?; false }
    };
    if cut {
        shared.count();
        for half in [up.to, down.to] {
            reset(half.as_ref());
            half.forget(); // dropped, it would say goodbye first
        }
    }
    Ok(())
}

/// One direction of a connection.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
}

impl Pump {
    async fn run(&mut self, shared: &Shared) -> std::io::Result<()> {
        let mut mode = shared.mode.subscribe();
        let mut chunk = [0; CHUNK_NUM_BYTES];
        loop {
            let num_bytes = self.from.read(&mut chunk).await?;
            let now = *mode.borrow_and_update();
            if num_bytes > 0 && now != Mode::Pass {
                shared.count();
            }
            match now {
                Mode::Slow => tokio::time::sleep(SLOW_PAUSE).await,
                Mode::Silence => std::future::pending().await, // until the connection is cut
                Mode::Pass | Mode::Reset | Mode::Unavailable => {}
            }
            if num_bytes == 0 {
                return self.to.shutdown().await;
            }
            self.to.write_all(&chunk[..num_bytes]).await?;
        }
    }
}

/// Makes the end of the connection a reset, as from a machine that has gone.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger(); // one that is closed already needs none
}

/// Reads one request and answers it with 503.
async fn refuse_request(client: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let length = SLOW_DOWN.len();
    let answer = format!(
        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: \
         close\r\n\r\n{SLOW_DOWN}"
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await?;
    // A connection that is dropped with bytes unread is reset, and the answer may be lost with it.
    let mut nowhere = tokio::io::sink();
    let rest_is_read = tokio::io::copy(client, &mut nowhere);
    tokio::time::timeout(SLOW_PAUSE * 10, rest_is_read).await.map_or(Ok(()), |read| read.map(drop))
}
