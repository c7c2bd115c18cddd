//! What a simulated GitHub is like: its address, who may ask, how long things live, and the switches for
//! behaviour that differs between deployments or is not known for sure (`docs/reference/actions-service.md` §9, §11).

use medic_core::model::Span;

/// A credential that GitHub knows. Its name appears in the records, so that tests can tell the askers apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name in [`super::Call`] and [`super::SessionRecord`].
    pub name: String,
    pub auth: Auth,
    /// Which entities it may administer.
    pub access: Access,
    /// REST calls per hour.
    pub limit: u64,
}

impl Credential {
    /// A personal access token with access to everything and 5,000 calls an hour.
    #[must_use]
    pub fn pat(name: &str, token: &str) -> Self {
        Self {
            name: name.to_owned(),
            auth: Auth::Pat { token: token.to_owned() },
            access: Access::Everything,
            limit: 5_000,
        }
    }

    /// An installed App with access to everything and 5,000 calls an hour.
    #[must_use]
    pub fn app(name: &str, app_id: u64, client_id: &str, installation_id: u64) -> Self {
        let auth = Auth::App { app_id, client_id: client_id.to_owned(), installation_id };
        Self { name: name.to_owned(), auth, access: Access::Everything, limit: 5_000 }
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

/// Which entities a credential may administer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    Everything,
    /// These, by [`super::EntityKey`] text: `org`, `owner/repo` or `enterprises/slug`. Others answer 404.
    Only(Vec<String>),
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

/// Which build of the message queue is simulated (`docs/reference/actions-service.md` §5.1, §5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueStyle {
    /// github.com today: one queue address for all, jobs are assigned without being acquired.
    Broker,
    /// GHES and the past: an address per set with the session in the query, jobs are offered and acquired.
    Classic,
}

/// Whether PATCH of a session counts as use of it. Not known of the real service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshCounts {
    /// It does: a refresh prolongs a stale session.
    AsUse,
    NotAtAll,
}

/// How an exhausted REST quota is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaAnswer {
    /// 403 or 429.
    pub status: u16,
    /// Whether `Retry-After` is sent too.
    pub retry_after: bool,
}

/// How jobs go on once a runner has its JIT configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobFlow {
    /// Only when told, by [`super::GithubState::runner_online`] and [`super::GithubState::complete_job`].
    Told,
    /// A runner comes up by itself, takes an assigned job and finishes it.
    ByItself {
        /// From the JIT configuration to the start of a job.
        boot: Span,
        /// From the start of a job to its end.
        work: Span,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubConfig {
    /// Scheme, host and port under which clients reach it, without a trailing slash.
    pub origin: String,
    pub credentials: Vec<Credential>,
    /// Entities that exist, by [`super::EntityKey`] text. Empty: every entity exists.
    pub entities: Vec<String>,
    /// Runner groups besides `Default` (id 1), in every entity; their ids count up from 2.
    pub groups: Vec<String>,
    /// How long after the last poll has ended a session is forgotten.
    pub stale_lifetime: Span,
    /// How long a poll without news is held.
    pub poll_length: Span,
    /// From issue to `exp` of an admin token.
    pub admin_token_lifetime: Span,
    /// From issue to `exp` of a queue token.
    pub queue_token_lifetime: Span,
    /// From issue to `expires_at` of registration and installation tokens.
    pub short_token_lifetime: Span,
    /// Time every answer takes.
    pub latency: Span,
    /// The wording of a session conflict.
    pub conflict_wording: ConflictWording,
    /// The answer to an unknown session.
    pub unknown_session: UnknownSession,
    /// The build of the queue.
    pub queue_style: QueueStyle,
    /// Whether a refresh prolongs a session.
    pub refresh_counts: RefreshCounts,
    /// How an exhausted quota is told.
    pub quota_answer: QuotaAnswer,
    /// How jobs go on.
    pub job_flow: JobFlow,
    /// Detailed call and session records kept; older ones are dropped, totals stay.
    pub records_kept: usize,
}

impl GithubConfig {
    /// GitHub as measured (`docs/reference/actions-service.md` §1.8, §4.5, §5.1), reached at `origin`.
    #[must_use]
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.trim_end_matches('/').to_owned(),
            credentials: Vec::new(),
            entities: Vec::new(),
            groups: Vec::new(),
            stale_lifetime: Span::secs(90),
            poll_length: Span::secs(50),
            admin_token_lifetime: Span::hours(1),
            queue_token_lifetime: Span::hours(1),
            short_token_lifetime: Span::hours(1),
            latency: Span::ZERO,
            conflict_wording: ConflictWording::Anonymous,
            unknown_session: UnknownSession::Expired,
            queue_style: QueueStyle::Broker,
            refresh_counts: RefreshCounts::NotAtAll,
            quota_answer: QuotaAnswer { status: 403, retry_after: false },
            job_flow: JobFlow::ByItself { boot: Span::secs(20), work: Span::secs(60) },
            records_kept: 50_000,
        }
    }

    /// The same, with one more credential.
    #[must_use]
    pub fn with(mut self, credential: Credential) -> Self {
        self.credentials.push(credential);
        self
    }
}
