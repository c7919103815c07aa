//! A server with prepared answers, for behaviour that a healthy server does not show on demand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The server's answer to a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// Status line, headers and body, without the lengths.
    Http(&'static str, &'static str),
    /// The same with a length, but without any byte.
    CutShort(&'static str, usize),
    /// Closes the connection.
    Nothing,
}

pub(super) struct ScriptedServer {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl ScriptedServer {
    /// Starts a server that gives `answers` in order, and the last one to all further requests.
    pub(super) fn start(answers: &[Answer]) -> ScriptedServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answers, received) = (answers.to_vec(), Arc::clone(&requests));
        thread::spawn(move || {
            for index in 0.. {
                let Ok((connection, _)) = listener.accept() else { return };
                let Some(request) = read_request(&connection) else { return };
                received.lock().unwrap().push(request);
                let (head, body, length) = match answers[index.min(answers.len() - 1)] {
                    Answer::Http(head, body) => (head, body, body.len()),
                    Answer::CutShort(head, length) => (head, "", length),
                    Answer::Nothing => continue,
                };
                let answer =
                    format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
                let _ = (&connection).write_all(answer.as_bytes());
            }
        });
        ScriptedServer { port, requests }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Method and target of each request so far, without the query.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(connection: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let request = format!("{method} {}", target.split(['?', '&']).next()?);
    let mut num_bytes = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if header == "expect: 100-continue" {
            let mut connection = connection;
            connection.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        if let Some(length) = header.strip_prefix("content-length: ") {
            num_bytes = length.parse().ok()?;
        }
    }
    std::io::copy(&mut reader.take(num_bytes), &mut std::io::sink()).ok()?;
    Some(request)
}
