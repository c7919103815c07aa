//! One HTTP request, the whole answer: enough for Envoy's admin pages and for metrics.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Status and body of a page.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    exchange(address, "GET", path)
}

/// Status and body of the answer to a request without a body.
pub(crate) fn post(address: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    exchange(address, "POST", path)
}

fn exchange(address: SocketAddr, method: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut connection = TcpStream::connect_timeout(&address, TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    write!(
        connection,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(malformed)?;
    let head = String::from_utf8_lossy(&answer[..head_end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    let body = answer.split_off(head_end + 4);
    let is_chunked = head.contains("transfer-encoding: chunked");
    Ok((status, if is_chunked { join_chunks(&body).ok_or_else(malformed)? } else { body }))
}

fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        rest = &rest[line_end + 2..];
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length + 2..)?;
    }
}
