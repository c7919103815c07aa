//! A service's gRPC port. It is bound early, so that a wrong address is reported at once, and opened late, so
//! that a caller that connects finds loaded models.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Accepting fails mostly because too many files are open; it is tried again after this pause.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port; port 0 is one that the system chooses.
    Tcp(SocketAddr),
    /// The path of a Unix socket. A socket that a dead process left there is replaced.
    Unix(PathBuf),
}

/// The text is neither kind of address.
#[derive(Debug, thiserror::Error)]
#[error("write ADDRESS:PORT, such as 0.0.0.0:7001 or [::]:7001, or unix:/path/to/socket")]
pub struct InvalidListenAddress;

/// Why there is no gRPC port.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for gRPC; choose another --listen")]
pub struct ListenError {
    /// The address.
    pub address: ListenAddress,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// An address that is bound, but not open yet.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpSocket),
    Unix(PathBuf),
}

impl ListenAddress {
    /// Binds the address. Connections are refused before [`open_tcp`] or [`open_unix`].
    pub(crate) fn bind(&self) -> Result<Bound, ListenError> {
        let bind = || match self {
            Self::Tcp(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                Ok(Bound::Tcp(socket))
            }
            Self::Unix(path) => Ok(Bound::Unix(path.clone())),
        };
        bind().map_err(|source| self.failed(source))
    }

    pub(crate) fn failed(&self, source: io::Error) -> ListenError {
        ListenError { address: self.clone(), source }
    }
}

/// Opens a port; returns its address and the incoming connections.
pub(crate) fn open_tcp(
    socket: TcpSocket,
) -> io::Result<(SocketAddr, impl Stream<Item = io::Result<TcpStream>>)> {
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((address, pausing(TcpIncoming::from(listener).with_nodelay(Some(true)))))
}

/// Opens a Unix socket; returns the incoming connections.
pub(crate) fn open_unix(path: &PathBuf) -> io::Result<impl Stream<Item = io::Result<UnixStream>> + use<>> {
    let bind = || UnixListener::bind(path);
    let listener = match bind() {
        // If nobody answers there, a killed process has left it.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_dead(path) => {
            std::fs::remove_file(path)?;
            bind()?
        }
        bound => bound?,
    };
    Ok(pausing(UnixListenerStream::new(listener)))
}

fn is_dead(path: &PathBuf) -> bool {
    let answer = std::os::unix::net::UnixStream::connect(path);
    answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The same stream, with a pause after each error, so that a lasting error does not keep a core busy.
fn pausing<IO>(incoming: impl Stream<Item = io::Result<IO>>) -> impl Stream<Item = io::Result<IO>> {
    incoming.then(async |accepted| {
        if let Err(error) = &accepted {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
        accepted
    })
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, InvalidListenAddress> {
        match text.strip_prefix("unix:") {
            Some("") => Err(InvalidListenAddress),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| InvalidListenAddress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_parses_back_from_its_display() {
        for text in ["0.0.0.0:7001", "[::1]:0", "unix:/run/baton/encoder.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "7001", "host:7001", "unix:"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_bound_port_refuses_until_it_is_opened() {
        let address: ListenAddress = "127.0.0.1:0".parse().unwrap();
        let Bound::Tcp(socket) = address.bind().unwrap() else { panic!("a TCP address") };
        let bound = socket.local_addr().unwrap();
        let error = TcpStream::connect(bound).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let (opened, _incoming) = open_tcp(socket).unwrap();
        assert_eq!(opened, bound);
        TcpStream::connect(bound).await.unwrap();
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // its file stays
        let _incoming = open_unix(&path).unwrap();
        let error = open_unix(&path).err().expect("somebody listens there");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
