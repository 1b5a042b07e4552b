//! The little HTTP that a test needs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::watch::PATIENCE;

/// GETs `path`: status and body.
///
/// # Errors
/// What the socket said, or that the answer is none.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask("GET", address, &address.to_string(), path, "")
}

/// POSTs nothing to `path`: status and body.
///
/// # Errors
/// As [`get`].
pub fn post(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask("POST", address, &address.to_string(), path, "")
}

/// POSTs nothing to `path`, with these lines of headers (each ended by CR and LF): status and body.
///
/// # Errors
/// As [`get`].
pub fn post_with(address: SocketAddr, path: &str, headers: &str) -> io::Result<(u16, String)> {
    ask("POST", address, &address.to_string(), path, headers)
}

/// GETs `path` with a Host header of the caller's choice.
///
/// # Errors
/// As [`get`].
pub fn get_as(address: SocketAddr, host: &str, path: &str) -> io::Result<(u16, String)> {
    ask("GET", address, host, path, "")
}

fn ask(
    method: &str,
    address: SocketAddr,
    host: &str,
    path: &str,
    headers: &str,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n{headers}Connection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let no_answer = || io::Error::other(format!("not an HTTP answer: {answer}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_answer)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(no_answer)?;
    Ok((status, body.to_owned()))
}
