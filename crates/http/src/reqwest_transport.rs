//! Real sockets: one reqwest client, with the bounds that its defaults lack.
//!
//! - TLS by rustls with ring; the system's roots, or in their place one PEM file of a private CA.
//! - No redirect is followed: a token must not travel to an address that is not configured.
//! - No proxy but a configured one: an inherited `HTTP_PROXY` must not carry a manager's password.
//! - The body is read chunk by chunk up to its bound, counted after decompression, so that a compressed bomb does not
//!   fill the memory. Large bodies share one [`super::memory_limit`].
//! - Nothing is retried here.

use super::excerpt::one_line;
use super::file::read_bounded;
use super::memory_limit::{FREE, MemoryLimit};
use super::{Answer, BodySink, Bounds, Response, Transport, TransportError, Upgrade, Upgrader, status};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use medic_core::model::{FailureKind, Span};
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::time::Instant;

/// GitHub refuses requests without a product name (`docs/reference/actions-service.md` §8).
pub const USER_AGENT: &str = concat!("scaleset-medic/", env!("CARGO_PKG_VERSION"));

/// Shorter than GARM's idle time-out of 60 s (`docs/reference/garm-api.md` §2), so that we rarely send on a connection
/// that the server is just closing.
const KEEP_IDLE: Duration = Duration::from_secs(50);

pub const CA_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportOptions {
    /// From the first packet to the end of the TLS handshake.
    pub connect_timeout: Span,
    /// A PEM file with certificates trusted in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// A proxy for all requests; `None` means none, whatever the environment says.
    pub proxy: Option<String>,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self { connect_timeout: Span::secs(5), ca_file: None, proxy: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The CA file cannot be read or holds no certificate.
    #[error("the CA file {path} cannot be used: {detail}")]
    CaFile { path: String, detail: String },
    /// The address is not repeated: it may hold a password.
    #[error("the proxy's address cannot be used: {detail}")]
    Proxy { detail: String },
    #[error("the HTTP client could not be set up: {detail}")]
    Client { detail: String },
}

#[derive(Debug, Clone)]
pub struct ReqwestTransport {
    client: reqwest::Client,
    memory: Arc<MemoryLimit>,
}

impl ReqwestTransport {
    /// A transport with these options. Reads the CA file, once.
    pub fn new(options: &TransportOptions) -> Result<Self, SetupError> {
        install_crypto_provider();
        let private = options.ca_file.as_deref().map(certificates).transpose()?;
        let builder = || -> Result<reqwest::ClientBuilder, SetupError> {
            let builder = reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .no_proxy()
                .connect_timeout(options.connect_timeout.into())
                .pool_idle_timeout(KEEP_IDLE)
                .pool_max_idle_per_host(4)
                .tcp_nodelay(true);
            let Some(proxy) = &options.proxy else { return Ok(builder) };
            let proxy = reqwest::Proxy::all(proxy.as_str())
                .map_err(|error| SetupError::Proxy { detail: deepest(&error.without_url()) })?;
            Ok(builder.proxy(proxy))
        };
        let chosen = match private {
            Some(private) => builder()?.tls_certs_only(private),
            None => builder()?,
        };
        let client = match chosen.build() {
            // An image without CA certificates can still speak plain HTTP: every certificate is untrusted there, and the
            // TLS error says so.
            Err(error) if options.ca_file.is_none() && has_no_system_roots(&error) => {
                builder()?.tls_certs_only([]).build()
            }
            built => built,
        };
        let client = client.map_err(|error| SetupError::Client { detail: deepest(&error.without_url()) })?;
        Ok(Self { client, memory: Arc::default() })
    }
}

#[async_trait]
impl Transport for ReqwestTransport {
    async fn send(&self, request: http::Request<Bytes>, bounds: Bounds) -> Answer {
        self.exchange(&request, bounds).run(request, None).await
    }

    async fn stream(&self, request: http::Request<Bytes>, bounds: Bounds, sink: &mut dyn BodySink) -> Answer {
        self.exchange(&request, bounds).run(request, Some(sink)).await
    }
}

#[async_trait]
impl Upgrader for ReqwestTransport {
    async fn upgrade(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Upgrade, TransportError> {
        let exchange = self.exchange(&request, bounds);
        let mut answer = exchange.begin(request).await?;
        if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return exchange.collect(answer, None).await.map(Upgrade::Answered);
        }
        let headers = std::mem::take(answer.headers_mut());
        let stream = answer.upgrade().await.map_err(|error| exchange.error(error))?;
        Ok(Upgrade::Switched { headers, stream: Box::new(stream) })
    }
}

impl ReqwestTransport {
    fn exchange(&self, request: &http::Request<Bytes>, bounds: Bounds) -> Exchange<'_> {
        let deadline = Instant::now() + Duration::from(bounds.total);
        Exchange { transport: self, host: host_of(request.uri()), bounds, deadline }
    }
}

struct Exchange<'a> {
    transport: &'a ReqwestTransport,
    host: String,
    bounds: Bounds,
    deadline: Instant,
}

impl Exchange<'_> {
    async fn run(&self, request: http::Request<Bytes>, sink: Option<&mut dyn BodySink>) -> Answer {
        let answer = self.begin(request).await?;
        self.collect(answer, sink).await
    }

    /// Sends, and waits for the answer's head; the time-out covers its body too.
    async fn begin(&self, request: http::Request<Bytes>) -> Result<reqwest::Response, TransportError> {
        let mut request = reqwest::Request::try_from(request).map_err(|error| self.error(error))?;
        *request.timeout_mut() = Some(self.bounds.total.into());
        self.transport.client.execute(request).await.map_err(|error| self.error(error))
    }

    async fn collect(&self, mut answer: reqwest::Response, sink: Option<&mut dyn BodySink>) -> Answer {
        let Self { host, bounds, .. } = self;
        let too_large = || TransportError {
            kind: FailureKind::TooLarge,
            detail: format!("{host} answers with more than {} bytes; reading stopped there", bounds.body),
        };
        let no_memory = || TransportError {
            kind: FailureKind::Timeout,
            detail: format!(
                "no complete answer from {host} within {}: other large answers were still being read",
                bounds.total
            ),
        };
        let announced = answer.content_length();
        if announced.is_some_and(|length| length > bounds.body as u64) {
            return Err(too_large());
        }
        let at_most = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(bounds.body);
        let mut sink = sink.filter(|_| answer.status().is_success());
        if let Some(sink) = &mut sink {
            sink.begin();
        }
        let mut body = BytesMut::new();
        let mut permit = None;
        let mut length = 0_usize;
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.error(error))? {
            length = length.saturating_add(chunk.len());
            if length > bounds.body {
                return Err(too_large());
            }
            if let Some(sink) = &mut sink {
                sink.piece(&chunk);
                continue;
            }
            if length > FREE && permit.is_none() {
                permit = Some(self.transport.memory.acquire(at_most, self.deadline).await.ok_or_else(no_memory)?);
            }
            body.extend_from_slice(&chunk);
        }
        let response =
            Response { status: answer.status(), headers: std::mem::take(answer.headers_mut()), body: body.freeze() };
        match status::redirect_goal(&response) {
            Some(goal) => Err(TransportError {
                kind: FailureKind::Redirect,
                detail: format!(
                    "{host} redirects to {goal} (HTTP {}), which is never followed; configure the final address",
                    response.status.as_u16()
                ),
            }),
            None => Ok(response),
        }
    }

    /// The URL is removed first: it may hold a token in its query.
    fn error(&self, error: reqwest::Error) -> TransportError {
        let (error, host) = (error.without_url(), &self.host);
        let cause = deepest(&error);
        let (kind, detail) = if let (true, Some(tls)) = (error.is_connect(), tls_cause(&error)) {
            (FailureKind::Tls, format!("{host}: {}", explain_tls(tls)))
        } else if error.is_connect() && error.is_timeout() {
            (FailureKind::Connect, format!("no connection to {host} in time"))
        } else if error.is_connect() {
            (FailureKind::Connect, format!("no connection to {host}: {cause}"))
        } else if error.is_builder() {
            (FailureKind::Connect, format!("{host}: the address cannot be used: {cause}"))
        } else if error.is_timeout() {
            (FailureKind::Timeout, format!("no complete answer from {host} within {}", self.bounds.total))
        } else if is_malformed(&error) {
            (FailureKind::Malformed, format!("{host} answers what is not HTTP, or not what its headers say: {cause}"))
        } else {
            (FailureKind::Broken, format!("the connection to {host} broke: {cause}"))
        };
        TransportError { kind, detail }
    }
}

/// Makes ring the process's crypto provider, once.
pub fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, SetupError> {
    let unusable = |detail: String| SetupError::CaFile { path: path.display().to_string(), detail };
    let pem = read_bounded(path, CA_BYTES_MAX)
        .map_err(|error| unusable(error.to_string()))?
        .ok_or_else(|| unusable(format!("it is longer than {CA_BYTES_MAX} bytes")))?;
    let certificates =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(deepest(&error.without_url())))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no PEM certificate".to_owned()));
    }
    Ok(certificates)
}

fn has_no_system_roots(error: &reqwest::Error) -> bool {
    chain(error).any(|cause| cause.to_string().contains("No CA certificates were loaded"))
}

/// Host and port, without credentials, path and query.
pub fn host_of(uri: &http::Uri) -> String {
    let host = uri.host().unwrap_or("the server");
    match (uri.port_u16(), uri.scheme_str()) {
        (Some(port), _) => format!("{host}:{port}"),
        (None, Some("https")) => format!("{host}:443"),
        (None, _) => format!("{host}:80"),
    }
}

/// An unreadable head, or a body that does not decompress. A body that ends early is a broken connection instead.
fn is_malformed(error: &reqwest::Error) -> bool {
    let of_hyper: Option<&hyper::Error> = chain(error).find_map(|cause| cause.downcast_ref());
    match of_hyper {
        Some(hyper) => hyper.is_parse(),
        None => error.is_decode(),
    }
}

/// The error and its causes. `io::Error::source` skips the error it wraps.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|wrapped| wrapped as &(dyn StdError + 'static)),
        None => error.source(),
    })
    .take(16)
}

fn tls_cause(error: &reqwest::Error) -> Option<&rustls::Error> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

fn explain_tls(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    let advice = match error {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "; its CA is not trusted here: give it as ca_file, or add it to the system's"
        }
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => "; renew it on the server",
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "; use the name the certificate was made for"
        }
        rustls::Error::InvalidMessage(_) => "; is this a plain HTTP port?",
        _ => "",
    };
    one_line(&format!("{error}{advice}"))
}

fn deepest(error: &(dyn StdError + 'static)) -> String {
    let last = chain(error).last().map(ToString::to_string).unwrap_or_default();
    one_line(&last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setup_error_does_not_repeat_the_proxy_password() {
        let options = TransportOptions { proxy: Some("http://user:hunter2@[proxy".to_owned()), ..Default::default() };
        let error = ReqwestTransport::new(&options).unwrap_err();
        assert!(matches!(error, SetupError::Proxy { .. }));
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn unusable_ca_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "not a certificate").unwrap();
        for path in [path, dir.path().join("absent.pem")] {
            let options = TransportOptions { ca_file: Some(path.clone()), ..Default::default() };
            let error = ReqwestTransport::new(&options).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn host_of_has_no_credentials() {
        let uri: http::Uri = "https://user:pw@host/path?token=t".parse().unwrap();
        assert_eq!(host_of(&uri), "host:443");
    }
}
