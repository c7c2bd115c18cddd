//! A TCP proxy in front of a simulated server, with faults that can be switched on and off.
//!
//! A switch cuts every connection, so that none outlives its fault. The proxy counts requests, writes among them, and
//! the bytes of endless bodies that were read.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Reset,
    /// Accepts and never answers.
    HalfOpen,
    /// A byte of the head a second.
    SlowHead,
    /// A byte of the body a second.
    SlowBody,
    Truncated,
    /// A body of ten gigabytes, announced and sent.
    TenGigabytes,
    /// A body without an announced end.
    Endless,
    HtmlPage,
    RedirectLoop,
    /// 429, with these seconds of `Retry-After`.
    TooMany(Option<u32>),
    Status(u16),
    Garbage,
    HugeHead,
    DeepJson,
    GzipBomb,
    BadCertificate,
}

impl Fault {
    /// Whether a login gets its real answer, so that the fault affects later requests.
    const fn spares_login(self) -> bool {
        matches!(
            self,
            Self::Truncated
                | Self::SlowBody
                | Self::TenGigabytes
                | Self::Endless
                | Self::HtmlPage
                | Self::DeepJson
                | Self::GzipBomb
        )
    }
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    /// Requests that are no GET and no login, during the fault.
    pub(crate) writes: AtomicU64,
    /// Bytes of endless answers that were read.
    pub(crate) taken: AtomicU64,
}

/// The proxy; dropping it ends it.
pub(crate) struct Proxy {
    pub(crate) seen: Arc<Seen>,
    fault: watch::Sender<Fault>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a server with a certificate of this authority for `name`.
    pub(crate) fn acceptor(&self, name: &str, expired: bool) -> TlsAcceptor {
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            leaf.not_before = rcgen::date_time_ymd(2001, 1, 1);
            leaf.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &self.0).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The certificates of a proxy that uses TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    good: TlsAcceptor,
    bad: TlsAcceptor,
    /// The PEM of the authority that signed both.
    pub(crate) authority: String,
}

impl Tls {
    /// A good certificate for `localhost`, and one that has expired or is for another name.
    pub(crate) fn new(bad_name: &str, expired: bool) -> Self {
        let authority = Authority::new();
        let (good, bad) = (authority.acceptor("localhost", false), authority.acceptor(bad_name, expired));
        Self { good, bad, authority: authority.pem() }
    }
}

impl Proxy {
    /// On a port of its own.
    pub(crate) async fn before(url: &str, fault: Fault, tls: Option<Tls>) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        (Self::serve(listener, url, fault, tls), at)
    }

    pub(crate) fn serve(listener: TcpListener, url: &str, fault: Fault, tls: Option<Tls>) -> Self {
        let upstream: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let seen = Arc::new(Seen::default());
        let (fault, present) = watch::channel(fault);
        let counted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut present, seen, tls) = (present.clone(), Arc::clone(&counted), tls.clone());
                seen.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let fault = *present.borrow_and_update();
                    tokio::select! {
                        () = connection(stream, upstream, fault, tls, &seen) => {}
                        _ = present.changed() => {}
                    }
                });
            }
        });
        Self { seen, fault, task }
    }

    pub(crate) fn switch_to(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn connection(stream: TcpStream, upstream: SocketAddr, fault: Fault, tls: Option<Tls>, seen: &Seen) {
    let _ = stream.set_nodelay(true);
    if fault == Fault::Reset {
        let _ = stream.set_zero_linger();
        return;
    }
    let Some(tls) = tls else { return talk(stream, upstream, fault, seen).await };
    let acceptor = if fault == Fault::BadCertificate { tls.bad } else { tls.good };
    if let Ok(stream) = acceptor.accept(stream).await {
        talk(stream, upstream, fault, seen).await;
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, upstream: SocketAddr, fault: Fault, seen: &Seen) {
    if fault == Fault::None {
        if let Ok(mut server) = TcpStream::connect(upstream).await {
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
        }
        return;
    }
    loop {
        let Some(request) = head(&mut stream).await else { return };
        seen.requests.fetch_add(1, Ordering::Relaxed);
        let login = request.contains("/auth/login");
        // GitHub gives a client its tokens in answer to POSTs that change nothing.
        let asks_for_token = request.starts_with("POST ")
            && ["/registration-token", "/runner-registration", "/access_tokens"]
                .iter()
                .any(|end| request.split([' ', '?']).nth(1).is_some_and(|path| path.ends_with(end)));
        if !login && !asks_for_token && !request.starts_with("GET ") {
            seen.writes.fetch_add(1, Ordering::Relaxed);
        }
        if login && fault.spares_login() {
            // One request, with its body as it comes; the server closes after its answer.
            let Ok(mut server) = TcpStream::connect(upstream).await else { return };
            let once = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
            if server.write_all(once.as_bytes()).await.is_ok() {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            }
            return;
        }
        if answer_with_fault(&mut stream, fault, seen).await.is_err() {
            return;
        }
    }
}

/// A request's head with whatever of its body came along.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while !text.windows(4).any(|four| four == b"\r\n\r\n") && text.len() < 65_536 {
        let read = stream.read(&mut piece).await.ok().filter(|read| *read > 0)?;
        text.extend_from_slice(&piece[..read]);
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// One bad answer; an error ends the connection.
async fn answer_with_fault(
    stream: &mut (impl AsyncWrite + AsyncRead + Unpin),
    fault: Fault,
    seen: &Seen,
) -> std::io::Result<()> {
    let closed = || std::io::Error::other("closed on purpose");
    let text = match fault {
        Fault::None | Fault::Reset => return Err(closed()),
        Fault::HalfOpen | Fault::BadCertificate => std::future::pending().await,
        Fault::SlowHead => return drip(stream, "", &format!("{JSON}content-length: 2\r\n\r\n[]")).await,
        Fault::SlowBody => {
            return drip(stream, &format!("{JSON}content-length: 1000\r\n\r\n"), &"[".repeat(1000)).await;
        }
        Fault::TenGigabytes => return flood(stream, "content-length: 10000000000\r\n\r\n", false, seen).await,
        Fault::Endless => return flood(stream, "transfer-encoding: chunked\r\n\r\n", true, seen).await,
        Fault::HtmlPage => whole("200 OK", "content-type: text/html\r\n", "<html><body>Please log in</body></html>"),
        Fault::RedirectLoop => whole("302 Found", "location: /api/v1/again\r\n", ""),
        Fault::TooMany(None) => whole("429 Too Many Requests", "", ""),
        Fault::TooMany(Some(wait)) => whole("429 Too Many Requests", &format!("retry-after: {wait}\r\n"), ""),
        Fault::Status(status) => whole(&format!("{status} Broken"), "", "broken"),
        Fault::Garbage => "\u{1}\u{2}\u{3} not a protocol\r\n\r\n".to_owned(),
        Fault::HugeHead => format!("HTTP/1.1 200 OK\r\nx-filler: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(4 << 20)),
        Fault::DeepJson => whole("200 OK", "content-type: application/json\r\n", &"[".repeat(1 << 20)),
        Fault::Truncated => format!("{JSON}content-length: 700\r\n\r\n[{{\"id\":"),
        Fault::GzipBomb => format!("{JSON}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n", BOMB.len()),
    };
    stream.write_all(text.as_bytes()).await?;
    if fault == Fault::GzipBomb {
        stream.write_all(&BOMB).await?;
    }
    stream.flush().await?;
    if fault == Fault::Truncated { Err(closed()) } else { Ok(()) }
}

fn whole(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

async fn drip(stream: &mut (impl AsyncWrite + Unpin), at_once: &str, slowly: &str) -> std::io::Result<()> {
    stream.write_all(at_once.as_bytes()).await?;
    for byte in slowly.bytes() {
        stream.write_all(&[byte]).await?;
        stream.flush().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Ends only when the other side closes.
async fn flood(stream: &mut (impl AsyncWrite + Unpin), head: &str, chunked: bool, seen: &Seen) -> std::io::Result<()> {
    stream.write_all(format!("{JSON}{head}").as_bytes()).await?;
    let piece = if chunked {
        [b"10000\r\n".to_vec(), vec![b' '; 65_536], b"\r\n".to_vec()].concat()
    } else {
        vec![b' '; 65_536]
    };
    loop {
        stream.write_all(&piece).await?;
        seen.taken.fetch_add(65_536, Ordering::Relaxed);
    }
}

/// A fifth of a gigabyte of zeros in gzip.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| gzip_of_zeros(200_000_000));

pub(crate) fn gzip_of_zeros(count: usize) -> Vec<u8> {
    let command = format!("head -c {count} /dev/zero | gzip -1");
    let made = std::process::Command::new("sh").arg("-c").arg(command).output().unwrap();
    assert!(made.status.success() && (50..count / 50).contains(&made.stdout.len()), "{} bytes", made.stdout.len());
    made.stdout
}
