//! The transport over real sockets: TLS with a private CA, bounds, redirects, broken and slow answers.
#![expect(clippy::unwrap_used, reason = "a test helper that cannot go on fails its test")]

use bytes::Bytes;
use http::Request;
use medic_core::model::{FailureKind, Span};
use medic_garm::goroutines::GoroutineCounter;
use medic_http::{Bounds, ReqwestTransport, Response, Transport, TransportError, TransportOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const BOUNDS: Bounds = Bounds { total: Span::secs(20), body: 1000 };

/// Reads one request's head.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Answers every request on every connection with `answer`, as it stands; then closes if `close`.
struct Server {
    address: String,
    connections: Arc<AtomicUsize>,
    heads: tokio::sync::mpsc::UnboundedReceiver<String>,
}

async fn serve(answer: impl Into<Vec<u8>>, close: bool) -> Server {
    let answer = Arc::new(answer.into());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let (sender, heads) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let (answer, sender) = (Arc::clone(&answer), sender.clone());
            tokio::spawn(async move {
                while let Some(head) = read_head(&mut stream).await {
                    let _ = sender.send(head);
                    if stream.write_all(&answer).await.is_err() || close {
                        break;
                    }
                }
            });
        }
    });
    Server { address, connections, heads }
}

fn plain() -> ReqwestTransport {
    ReqwestTransport::new(&TransportOptions::default()).unwrap()
}

async fn get(transport: &ReqwestTransport, address: &str, bounds: Bounds) -> Result<Response, TransportError> {
    let request = Request::builder().uri(address).body(Bytes::new()).unwrap();
    transport.send(request, bounds).await
}

#[tokio::test]
async fn connections_are_kept_and_we_say_who_we_are() {
    let mut server = serve("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok", false).await;
    let transport = plain();
    for _ in 0..3 {
        let response = get(&transport, &server.address, BOUNDS).await.unwrap();
        assert_eq!((response.status.as_u16(), response.body.as_ref()), (200, b"ok".as_slice()));
        assert_eq!(response.headers["x-a"], "b");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let head = server.heads.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.contains(concat!("user-agent: scaleset-medic/", env!("CARGO_PKG_VERSION"))), "{head}");
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_not_read() {
    for answer in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n{}", "x".repeat(1001)),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001)),
        // Announced only: the answer would take for ever.
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_owned(),
        // Without an end: reading stops at the bound, not at a time-out.
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n", "x".repeat(1001)),
    ] {
        let server = serve(answer, false).await;
        let error = get(&plain(), &server.address, BOUNDS).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::TooLarge, "{error:?}");
    }
    let server = serve(format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(1000)), false).await;
    assert_eq!(get(&plain(), &server.address, BOUNDS).await.unwrap().body.len(), 1000);
}

#[tokio::test]
async fn large_bodies_are_read_one_after_the_other_and_small_ones_at_any_time() {
    const PATIENT: Bounds = Bounds { total: Span::secs(60), body: 64 * 1024 * 1024 };
    let begun = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n{}\r\n", "x".repeat(1 << 20));
    let hanging = serve(begun, false).await;
    let large = "x".repeat(24 * 1024 * 1024);
    let large = serve(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{large}", large.len()), false).await;
    let small = serve("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await;
    let transport = plain();
    let holder = {
        let (transport, address) = (transport.clone(), hanging.address.clone());
        tokio::spawn(async move { get(&transport, &address, PATIENT).await })
    };
    let mut told = String::new();
    for _ in 0..100 {
        let error =
            get(&transport, &hanging.address, Bounds { total: Span::millis(300), ..PATIENT }).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Timeout);
        told = error.detail;
        if told.contains("other large answers") {
            break;
        }
    }
    assert!(told.ends_with("within 300 ms: other large answers were still being read"), "{told}");
    assert_eq!(get(&transport, &small.address, BOUNDS).await.unwrap().body.as_ref(), b"ok");
    holder.abort();
    let read = get(&transport, &large.address, PATIENT).await.unwrap();
    assert_eq!(read.body.len(), 24 * 1024 * 1024, "given up, it holds nothing");
}

#[tokio::test]
async fn the_bound_counts_what_comes_out_of_the_compression() {
    let zipped = gzip_of_xs();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", zipped.len()).into_bytes();
    answer.extend_from_slice(&zipped);
    let server = serve(answer, false).await;
    assert_eq!(get(&plain(), &server.address, BOUNDS).await.unwrap_err().kind, FailureKind::TooLarge);
    let roomy = Bounds { body: 200_000, ..BOUNDS };
    assert_eq!(get(&plain(), &server.address, roomy).await.unwrap().body.len(), 100_000);
}

/// One stored block per 65,535 bytes is legal deflate, so no compressor is needed; the data is not smaller, which
/// does not matter here.
fn gzip_of_xs() -> Vec<u8> {
    let data = vec![b'x'; 100_000];
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = data.chunks(65_535).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap();
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32(&data).to_le_bytes());
    out.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
    out
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[tokio::test]
async fn a_large_dump_is_counted_without_being_kept() {
    let goroutine = "goroutine 7 [select]:\nx/workers/scaleset.(*scaleSetListener).loop(0xc)\n\tf.go:1\n\n";
    let dump = goroutine.repeat(50_000);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{dump}", dump.len());
    let server = serve(answer, false).await;
    let request = || Request::builder().uri(&server.address).body(Bytes::new()).unwrap();
    let mut counter = GoroutineCounter::default();
    let roomy = Bounds { body: dump.len(), ..BOUNDS };
    let response = plain().stream(request(), roomy, &mut counter).await.unwrap();
    assert!(response.body.is_empty());
    assert_eq!(counter.finish().unwrap().listeners, 50_000);
    let mut counter = GoroutineCounter::default();
    let tight = Bounds { body: dump.len() - 1, ..BOUNDS };
    assert_eq!(plain().stream(request(), tight, &mut counter).await.unwrap_err().kind, FailureKind::TooLarge);
}

#[tokio::test]
async fn a_redirect_is_refused_and_its_goal_is_told_without_the_query() {
    let answer = "HTTP/1.1 302 Found\r\nlocation: https://evil.example/x?token=abc\r\ncontent-length: 0\r\n\r\n";
    let server = serve(answer, false).await;
    let error = get(&plain(), &server.address, BOUNDS).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Redirect);
    assert!(error.detail.contains("https://evil.example/x"), "{error:?}");
    assert!(!error.detail.contains("abc"), "{error:?}");
}

#[tokio::test]
async fn a_truncated_answer_is_a_broken_connection() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\nhalf",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "",
    ] {
        let server = serve(answer, true).await;
        let error = get(&plain(), &server.address, BOUNDS).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Broken, "{answer:?}: {error:?}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_malformed() {
    let server = serve("220 smtp.example ESMTP ready\r\n\r\n", true).await;
    let error = get(&plain(), &server.address, BOUNDS).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Malformed, "{error:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_a_timeout() {
    for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", ""] {
        let server = serve(answer, false).await;
        let hasty = Bounds { total: Span::millis(100), ..BOUNDS };
        let error = get(&plain(), &server.address, hasty).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Timeout, "{answer:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_no_connection_and_no_secret_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    drop(listener);
    let error = get(&plain(), &format!("http://{place}/x?token=abc"), BOUNDS).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Connect);
    assert!(error.detail.contains(&place.to_string()) && error.detail.contains("refused"), "{error:?}");
    assert!(!error.detail.contains("abc"), "{error:?}");
}

/// What a TLS server for `name` accepts connections with, and the PEM of the CA that signed it.
pub(crate) fn tls_acceptor(name: &str, expired: bool) -> (TlsAcceptor, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        leaf.not_before = rcgen::date_time_ymd(2001, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2002, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}

/// A TLS server for `name`, and the file of the CA that signed it.
async fn serve_tls(dir: &tempfile::TempDir, name: &str, expired: bool) -> (String, PathBuf) {
    let (acceptor, authority) = tls_acceptor(name, expired);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                answer_ok(stream).await;
            });
        }
    });
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, authority).unwrap();
    (format!("https://localhost:{port}/"), ca_file)
}

async fn answer_ok(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    if read_head(&mut stream).await.is_some() {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let _ = stream.flush().await;
    }
}

fn trusting(ca_file: PathBuf) -> ReqwestTransport {
    ReqwestTransport::new(&TransportOptions { ca_file: Some(ca_file), ..TransportOptions::default() }).unwrap()
}

#[tokio::test]
async fn a_private_ca_is_trusted_only_where_it_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let (address, ca_file) = serve_tls(&dir, "localhost", false).await;
    assert_eq!(get(&trusting(ca_file), &address, BOUNDS).await.unwrap().body.as_ref(), b"ok");
    let error = get(&plain(), &address, BOUNDS).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Tls);
    assert!(error.detail.contains("ca_file"), "{error:?}");
}

#[tokio::test]
async fn a_wrong_name_and_an_expired_certificate_are_refused() {
    for (name, expired, words) in [("elsewhere.example", false, "name"), ("localhost", true, "renew")] {
        let dir = tempfile::tempdir().unwrap();
        let (address, ca_file) = serve_tls(&dir, name, expired).await;
        let error = get(&trusting(ca_file), &address, BOUNDS).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Tls, "{error:?}");
        assert!(error.detail.contains(words), "{error:?}");
    }
}

#[tokio::test]
async fn tls_to_a_plain_port_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Held open, so that the error is about what was said and not about the end.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = get(&plain(), &address, BOUNDS).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Tls, "{error:?}");
    assert!(error.detail.contains("plain HTTP port"), "{error:?}");
}
