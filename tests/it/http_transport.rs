//! The transport over real sockets: bounds, broken and slow answers. `garm_ws` has its TLS, `faults` its redirects.
#![expect(clippy::unwrap_used, reason = "a test helper that cannot go on fails its test")]

use crate::fault_proxy::gzip_of_zeros;
use crate::sockets::{listen, read_head};
use bytes::Bytes;
use http::Request;
use medic_core::model::{FailureKind, Span};
use medic_garm::goroutines::GoroutineCounter;
use medic_http::{Answer, Bounds, Duplex, ReqwestTransport, Transport, TransportOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const BOUNDS: Bounds = Bounds { total: Span::secs(20), body: 1000 };

/// Answers every request on every connection with `answer`, as it stands; then closes if `close`.
struct Server {
    address: String,
    connections: Arc<AtomicUsize>,
    heads: tokio::sync::mpsc::UnboundedReceiver<String>,
}

async fn serve(answer: impl Into<Vec<u8>>, close: bool) -> Server {
    let answer = Arc::new(answer.into());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let (sender, heads) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut stream: Box<dyn Duplex>| {
        counter.fetch_add(1, Ordering::SeqCst);
        let (answer, sender) = (Arc::clone(&answer), sender.clone());
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let _ = sender.send(head);
                if stream.write_all(&answer).await.is_err() || close {
                    break;
                }
            }
        }
    };
    let address = format!("http://{}", listen(None, serve).await);
    Server { address, connections, heads }
}

fn plain() -> ReqwestTransport {
    ReqwestTransport::new(&TransportOptions::default()).unwrap()
}

async fn get(transport: &ReqwestTransport, address: &str, bounds: Bounds) -> Answer {
    let request = Request::builder().uri(address).body(Bytes::new()).unwrap();
    transport.send(request, bounds).await
}

#[tokio::test]
async fn connection_is_reused_and_has_our_user_agent() {
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
async fn unusable_answer_has_its_kind_of_failure() {
    let xs = "x".repeat(1001);
    let (length, chunked) =
        ("HTTP/1.1 200 OK\r\ncontent-length:", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let short = Bounds { total: Span::millis(100), ..BOUNDS };
    for (answer, close, bounds, kind) in [
        (format!("{length} 1001\r\n\r\n{xs}"), false, BOUNDS, FailureKind::TooLarge),
        (format!("{chunked}3e9\r\n{xs}\r\n0\r\n\r\n"), false, BOUNDS, FailureKind::TooLarge),
        // Announced only: the answer would take for ever.
        (format!("{length} 99999999999\r\n\r\n"), false, BOUNDS, FailureKind::TooLarge),
        // Without an end: reading stops at the bound, not at a time-out.
        (format!("{chunked}3e9\r\n{xs}\r\n"), false, BOUNDS, FailureKind::TooLarge),
        (format!("{length} 10\r\n\r\nhalf"), true, BOUNDS, FailureKind::Broken),
        (format!("{chunked}a\r\nhalf"), true, BOUNDS, FailureKind::Broken),
        ("HTTP/1.1 200 OK\r\ncontent-le".to_owned(), true, BOUNDS, FailureKind::Broken),
        (String::new(), true, BOUNDS, FailureKind::Broken),
        ("220 smtp.example ESMTP ready\r\n\r\n".to_owned(), true, BOUNDS, FailureKind::Malformed),
        (format!("{length} 10\r\n\r\nhalf"), false, short, FailureKind::Timeout),
        (String::new(), false, short, FailureKind::Timeout),
    ] {
        let server = serve(answer.clone(), close).await;
        let error = get(&plain(), &server.address, bounds).await.unwrap_err();
        assert_eq!(error.kind, kind, "{answer:?}: {error:?}");
    }
    let server = serve(format!("{length} 1000\r\n\r\n{}", "x".repeat(1000)), false).await;
    assert_eq!(get(&plain(), &server.address, BOUNDS).await.unwrap().body.len(), 1000);
}

#[tokio::test]
async fn large_bodies_share_a_limit_that_small_ones_bypass() {
    const LARGE: Bounds = Bounds { total: Span::secs(60), body: 64 * 1024 * 1024 };
    let begun = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n{}\r\n", "x".repeat(1 << 20));
    let hanging = serve(begun, false).await;
    let large = "x".repeat(24 * 1024 * 1024);
    let large = serve(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{large}", large.len()), false).await;
    let small = serve("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await;
    let transport = plain();
    let holder = {
        let (transport, address) = (transport.clone(), hanging.address.clone());
        tokio::spawn(async move { get(&transport, &address, LARGE).await })
    };
    let mut detail = String::new();
    for _ in 0..100 {
        let error = get(&transport, &hanging.address, Bounds { total: Span::millis(300), ..LARGE }).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Timeout);
        detail = error.detail;
        if detail.contains("other large answers") {
            break;
        }
    }
    assert!(detail.ends_with("within 300 ms: other large answers were still being read"), "{detail}");
    assert_eq!(get(&transport, &small.address, BOUNDS).await.unwrap().body.as_ref(), b"ok");
    holder.abort();
    let read = get(&transport, &large.address, LARGE).await.unwrap();
    assert_eq!(read.body.len(), 24 * 1024 * 1024, "an aborted exchange frees its share");
}

#[tokio::test]
async fn body_bound_counts_decompressed_bytes() {
    let zipped = gzip_of_zeros(100_000);
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", zipped.len()).into_bytes();
    answer.extend_from_slice(&zipped);
    let server = serve(answer, false).await;
    assert_eq!(get(&plain(), &server.address, BOUNDS).await.unwrap_err().kind, FailureKind::TooLarge);
    let roomy = Bounds { body: 200_000, ..BOUNDS };
    assert_eq!(get(&plain(), &server.address, roomy).await.unwrap().body.len(), 100_000);
}

#[tokio::test]
async fn streamed_dump_is_counted_without_being_kept() {
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
async fn refused_connection_shows_the_port_and_no_query() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    drop(listener);
    let error = get(&plain(), &format!("http://{place}/x?token=abc"), BOUNDS).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Connect);
    assert!(error.detail.contains(&place.to_string()) && error.detail.contains("refused"), "{error:?}");
    assert!(!error.detail.contains("abc"), "{error:?}");
}

#[tokio::test]
async fn tls_to_a_plain_port_is_named() {
    // Kept open, so that the error is about the answer and not about the end.
    let at = listen(None, async |mut stream: Box<dyn Duplex>| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = get(&plain(), &format!("https://{}/", at.await), BOUNDS).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Tls, "{error:?}");
    assert!(error.detail.contains("plain HTTP port"), "{error:?}");
}
