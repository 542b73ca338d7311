//! An HTTP client for tests: blocking, one connection per request, with a bound on every wait.
//!
//! Deliberately not the client that the node uses itself.

// Each test binary uses a part of this.
#![allow(dead_code, reason = "shared by several test binaries")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Longer than any promise of the node, so that a hang fails instead of lasting.
pub(crate) const HANG: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Sends bytes as they are and reads the answer.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, HANG)?;
    stream.set_read_timeout(Some(HANG))?;
    stream.set_write_timeout(Some(HANG))?;
    // A server may answer and close before it has read everything.
    let written = stream.write_all(request);
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    match parse(&bytes) {
        Some(answer) => Ok(answer),
        None => {
            written?;
            read?;
            Err(std::io::Error::other(format!(
                "not an answer: {:?}",
                String::from_utf8_lossy(&bytes)
            )))
        }
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Some(Answer {
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    })
}

/// Composes a request.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        text += &format!("content-length: {}\r\n", body.len());
    }
    let mut bytes = (text + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    exchange(address, &request("GET", path, &[], b""))
}

pub(crate) fn post_json(address: SocketAddr, path: &str, body: &Value) -> std::io::Result<Answer> {
    exchange(
        address,
        &request(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        ),
    )
}

/// Sends what `curl -d url=...` sends.
pub(crate) fn new_job(address: SocketAddr, url: &str, key: &str) -> std::io::Result<Answer> {
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("idempotency-key", key),
    ];
    exchange(
        address,
        &request(
            "POST",
            "/new-job",
            &headers,
            format!("url={url}").as_bytes(),
        ),
    )
}
