//! `healthcheck`: whether the medic of this machine or container lives, for `HEALTHCHECK` in an image without a shell.
//!
//! It asks `/healthz` only, so it never depends on a manager or on GitHub: restarting the medic heals neither. It reads
//! no secret, and speaks over a plain socket: an HTTP client would load every CA certificate for each of its runs.

use super::Failure;
use super::picture::reachable;
use crate::config::Config;
use crate::exit::ExitCode;
use anyhow::{Context as _, anyhow};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for the connection, and for each step of the answer. `HEALTHCHECK` itself gives up after 5 s.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The status line is all that counts.
const STATUS_LINE: u64 = 64;

pub(super) fn run(config: &Config) -> Result<ExitCode, Failure> {
    ask(reachable(config.http.listen)).map(|()| ExitCode::Well).map_err(Failure::Internal)
}

fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("no medic listens at {address} (http.listen)"))?;
    let answer =
        exchange(&mut stream, address).with_context(|| format!("what listens at {address} does not answer"))?;
    let line = answer.lines().next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    if status == Some("200") { Ok(()) } else { Err(anyhow!("{address} answers /healthz with {line:?}")) }
}

fn exchange(stream: &mut TcpStream, address: SocketAddr) -> std::io::Result<String> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // In one piece: who answers after the first of several resets the connection by closing it.
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(STATUS_LINE).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut piece) = (Vec::new(), [0; 256]);
            while !request.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..read]);
            }
            assert!(request.starts_with(b"GET /healthz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_living_medic_is_healthy() {
        ask(server("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n")).unwrap();
    }

    #[test]
    fn other_answers_are_reported() {
        for (answer, shown) in [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "503"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0"),
            ("HTTP/1.1 2000 200\r\n\r\n", "2000"),
            ("", "\"\""),
        ] {
            let error = ask(server(answer)).unwrap_err().to_string();
            assert!(error.contains(shown), "{error}");
        }
    }

    #[test]
    fn missing_listener_is_reported() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = ask(address).unwrap_err().to_string();
        assert!(error.contains("no medic listens"), "{error}");
    }
}
