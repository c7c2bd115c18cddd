//! Real sockets: one reqwest client, with the bounds that its defaults lack.
//!
//! Rules. TLS by rustls with ring; the system's roots, or in their place one PEM file where a private CA signs. No redirect is
//! followed: a token must not travel to an address nobody configured. No proxy but a configured one: an inherited
//! `HTTP_PROXY` must not carry a manager's password. The body is read chunk by chunk and reading stops at its bound,
//! counted after decompression, so that a small compressed bomb does not fill the memory. Large bodies share what memory
//! there is for them ([`super::room`]). Nothing is retried here.

use super::excerpt::one_line;
use super::file::read_bounded;
use super::memory_limit::{FREE, Room};
use super::{BodySink, Bounds, Response, Transport, TransportError, Upgrade, Upgrader, status};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use medic_core::model::{FailureKind, Span};
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::time::Instant;

/// What we call ourselves; GitHub refuses requests without a product name (`docs/reference/actions-service.md` §8).
pub const USER_AGENT: &str = concat!("scaleset-medic/", env!("CARGO_PKG_VERSION"));

/// Shorter than GARM's idle time-out of 60 s (`docs/reference/garm-api.md` §2), so that we rarely send on a connection
/// that the server is just closing.
const KEEP_IDLE: Duration = Duration::from_secs(50);

/// The largest CA file read.
pub const CA_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How connections are made.
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

/// Why no transport could be made of the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The CA file cannot be read or holds no certificate.
    #[error("the CA file {path} cannot be used: {detail}")]
    CaFile { path: String, detail: String },
    /// The proxy's address is not one. The address is not repeated: it may hold a password.
    #[error("the proxy's address cannot be used: {detail}")]
    Proxy { detail: String },
    /// The HTTP client could not be built.
    #[error("the HTTP client could not be set up: {detail}")]
    Client { detail: String },
}

#[derive(Debug, Clone)]
pub struct ReqwestTransport {
    client: reqwest::Client,
    room: Arc<Room>,
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
            // An image without any CA certificate can still speak plain HTTP to a manager beside it: there, every
            // certificate is untrusted, and the TLS error says so when one comes.
            Err(error) if options.ca_file.is_none() && has_no_system_roots(&error) => {
                builder()?.tls_certs_only([]).build()
            }
            built => built,
        };
        let client = client.map_err(|error| SetupError::Client { detail: deepest(&error.without_url()) })?;
        Ok(Self { client, room: Arc::default() })
    }
}

#[async_trait]
impl Transport for ReqwestTransport {
    async fn send(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Response, TransportError> {
        self.exchange(request, bounds, None).await
    }

    async fn stream(
        &self,
        request: http::Request<Bytes>,
        bounds: Bounds,
        sink: &mut dyn BodySink,
    ) -> Result<Response, TransportError> {
        self.exchange(request, bounds, Some(sink)).await
    }
}

#[async_trait]
impl Upgrader for ReqwestTransport {
    async fn upgrade(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Upgrade, TransportError> {
        let place = place_of(request.uri());
        let until = end_of(bounds);
        let mut answer = self.begin(request, &place, bounds).await?;
        if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return collect(answer, &place, (bounds, until), &self.room, None).await.map(Upgrade::Answered);
        }
        let headers = std::mem::take(answer.headers_mut());
        let stream = answer.upgrade().await.map_err(|error| told(error, &place, bounds))?;
        Ok(Upgrade::Switched { headers, stream: Box::new(stream) })
    }
}

impl ReqwestTransport {
    async fn exchange(
        &self,
        request: http::Request<Bytes>,
        bounds: Bounds,
        sink: Option<&mut dyn BodySink>,
    ) -> Result<Response, TransportError> {
        let place = place_of(request.uri());
        let until = end_of(bounds);
        let answer = self.begin(request, &place, bounds).await?;
        collect(answer, &place, (bounds, until), &self.room, sink).await
    }

    /// Sends, and waits for the answer's head; the time-out covers its body too.
    async fn begin(
        &self,
        request: http::Request<Bytes>,
        place: &str,
        bounds: Bounds,
    ) -> Result<reqwest::Response, TransportError> {
        let failed = |error: reqwest::Error| told(error, place, bounds);
        let mut request = reqwest::Request::try_from(request).map_err(failed)?;
        *request.timeout_mut() = Some(bounds.total.into());
        self.client.execute(request).await.map_err(failed)
    }
}

/// When an exchange that begins now is over at the latest.
fn end_of(bounds: Bounds) -> Instant {
    Instant::now() + Duration::from(bounds.total)
}

async fn collect(
    mut answer: reqwest::Response,
    place: &str,
    (bounds, until): (Bounds, Instant),
    room: &Room,
    sink: Option<&mut dyn BodySink>,
) -> Result<Response, TransportError> {
    let failed = |error: reqwest::Error| told(error, place, bounds);
    let too_large = || TransportError {
        kind: FailureKind::TooLarge,
        detail: format!("{place} answers with more than {} bytes; reading stopped there", bounds.body),
    };
    let no_room = || TransportError {
        kind: FailureKind::Timeout,
        detail: format!(
            "no complete answer from {place} within {}: other large answers were still being read",
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
    let mut kept = BytesMut::new();
    let mut taken = None;
    let mut length = 0_usize;
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        length = length.saturating_add(chunk.len());
        if length > bounds.body {
            return Err(too_large());
        }
        if let Some(sink) = &mut sink {
            sink.piece(&chunk);
            continue;
        }
        if length > FREE && taken.is_none() {
            taken = Some(room.take(at_most, until).await.ok_or_else(no_room)?);
        }
        kept.extend_from_slice(&chunk);
    }
    let response =
        Response { status: answer.status(), headers: std::mem::take(answer.headers_mut()), body: kept.freeze() };
    match status::redirect_goal(&response) {
        Some(goal) => Err(TransportError {
            kind: FailureKind::Redirect,
            detail: format!(
                "{place} redirects to {goal} (HTTP {}), which is never followed; configure the final address",
                response.status.as_u16()
            ),
        }),
        None => Ok(response),
    }
}

/// Makes ring the process's crypto provider, once; also for the websocket's TLS.
pub fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that one is installed already, which serves as well.
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
pub fn place_of(uri: &http::Uri) -> String {
    let host = uri.host().unwrap_or("the server");
    match (uri.port_u16(), uri.scheme_str()) {
        (Some(port), _) => format!("{host}:{port}"),
        (None, Some("https")) => format!("{host}:443"),
        (None, _) => format!("{host}:80"),
    }
}

/// A reqwest error as ours. The URL is taken out first: it may hold a token in its query.
fn told(error: reqwest::Error, place: &str, bounds: Bounds) -> TransportError {
    let error = error.without_url();
    let cause = deepest(&error);
    let (kind, detail) = if let (true, Some(tls)) = (error.is_connect(), tls_cause(&error)) {
        (FailureKind::Tls, format!("{place}: {}", explain_tls(tls)))
    } else if error.is_connect() && error.is_timeout() {
        (FailureKind::Connect, format!("no connection to {place} in time"))
    } else if error.is_connect() {
        (FailureKind::Connect, format!("no connection to {place}: {cause}"))
    } else if error.is_builder() {
        (FailureKind::Connect, format!("{place}: the address cannot be used: {cause}"))
    } else if error.is_timeout() {
        (FailureKind::Timeout, format!("no complete answer from {place} within {}", bounds.total))
    } else if is_malformed(&error) {
        (FailureKind::Malformed, format!("{place} answers what is not HTTP, or not what its headers say: {cause}"))
    } else {
        (FailureKind::Broken, format!("the connection to {place} broke: {cause}"))
    };
    TransportError { kind, detail }
}

/// An unreadable head, or a body that does not decompress. A body that ends early is a broken connection instead.
fn is_malformed(error: &reqwest::Error) -> bool {
    let of_hyper: Option<&hyper::Error> = chain(error).find_map(|cause| cause.downcast_ref());
    match of_hyper {
        Some(hyper) => hyper.is_parse(),
        None => error.is_decode(),
    }
}

/// The error and its causes. `io::Error::source` skips the error it wraps, so that one is taken out by hand.
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
    fn a_proxy_with_a_password_is_not_repeated_in_an_error() {
        let options = TransportOptions { proxy: Some("http://user:hunter2@[proxy".to_owned()), ..Default::default() };
        let error = ReqwestTransport::new(&options).unwrap_err();
        assert!(matches!(error, SetupError::Proxy { .. }));
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_ca_file_that_is_none_is_named() {
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
    fn the_place_has_no_credentials() {
        let uri: http::Uri = "https://user:pw@host/path?token=t".parse().unwrap();
        assert_eq!(place_of(&uri), "host:443");
    }
}
