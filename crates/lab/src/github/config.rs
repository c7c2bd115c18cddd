//! The configuration of a simulated GitHub: its address, its credentials, its lifetimes, and the switches for behaviour
//! that differs between deployments or is not known for sure (`docs/reference/actions-service.md` §9, §11).

use medic_core::model::Span;

/// How long a poll without messages is held.
pub(super) const POLL_LENGTH: Span = Span::secs(50);
/// From issue to end of every token.
pub(super) const TOKEN_LIFETIME: Span = Span::hours(1);

/// A credential that GitHub knows. Its name appears in the records, so tests can distinguish the clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name in [`super::Call`] and [`super::SessionRecord`].
    pub name: String,
    pub auth: Auth,
    /// REST calls per hour.
    pub limit: u64,
}

impl Credential {
    /// A personal access token with 5,000 calls an hour.
    #[must_use]
    pub fn pat(name: &str, token: &str) -> Self {
        Self { name: name.to_owned(), auth: Auth::Pat { token: token.to_owned() }, limit: 5_000 }
    }

    /// An installed App with 5,000 calls an hour.
    #[must_use]
    pub fn app(name: &str, app_id: u64, client_id: &str, installation_id: u64) -> Self {
        let auth = Auth::App { app_id, client_id: client_id.to_owned(), installation_id };
        Self { name: name.to_owned(), auth, limit: 5_000 }
    }
}

/// How a credential authenticates (`docs/reference/actions-service.md` §1.2-1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// A personal access token.
    Pat { token: String },
    /// A GitHub App: any well-formed RS256 JWT with the right `iss` is believed; the signature is not checked.
    App {
        /// The numeric id, one of the two allowed `iss`.
        app_id: u64,
        /// The client id, the other one.
        client_id: String,
        installation_id: u64,
    },
}

/// Which of the two wordings a session conflict has (`docs/reference/failure-modes.md` §1d).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictWording {
    /// `The actions runner scaleset X already has an active session.`
    Anonymous,
    /// `The runner scale set X already has an active session for owner O.`
    NamesOwner,
}

/// What PATCH, DELETE and polls of an unknown session get (`docs/reference/actions-service.md` §4.2, §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownSession {
    /// 400 `RunnerScaleSetSessionExpiredException`.
    Expired,
    /// 404 `RunnerAdminException`. On DELETE this crashes real GARM.
    NotFound,
}

/// How a request is refused when the REST quota is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaAnswer {
    /// 403 or 429.
    pub status: u16,
    /// Whether `Retry-After` is sent too.
    pub retry_after: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubConfig {
    /// Scheme, host and port under which clients reach it, without a trailing slash.
    pub origin: String,
    pub credentials: Vec<Credential>,
    /// How long after the last poll has ended a session is forgotten.
    pub stale_lifetime: Span,
    /// The time that every answer takes.
    pub latency: Span,
    pub conflict_wording: ConflictWording,
    pub unknown_session: UnknownSession,
    pub quota_answer: QuotaAnswer,
    /// From the JIT configuration of a runner until it takes an assigned job.
    pub runner_boot: Span,
    /// From the start of a job to its end.
    pub job_length: Span,
}

impl GithubConfig {
    /// GitHub as measured (`docs/reference/actions-service.md` §1.8, §4.5, §5.1), reached at `origin`.
    #[must_use]
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.trim_end_matches('/').to_owned(),
            credentials: Vec::new(),
            stale_lifetime: Span::secs(90),
            latency: Span::ZERO,
            conflict_wording: ConflictWording::Anonymous,
            unknown_session: UnknownSession::Expired,
            quota_answer: QuotaAnswer { status: 403, retry_after: false },
            runner_boot: Span::secs(20),
            job_length: Span::secs(60),
        }
    }

    /// The same, with one more credential.
    #[must_use]
    pub fn with(mut self, credential: Credential) -> Self {
        self.credentials.push(credential);
        self
    }
}
