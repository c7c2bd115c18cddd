//! Identities, each its own type: GARM's logs use one attribute name for the manager's id and for GitHub's
//! (`docs/reference/garm-api.md` §12).

use super::closed::closed_enum;
use super::time::{Span, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);
        impl $name {
            pub fn new(text: impl Into<String>) -> Self { Self(text.into()) }
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.pad(&self.0) }
        }
    };
}

macro_rules! number_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub u64);
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
        }
    };
}

text_id! {
    /// The name of a manager in the configuration.
    ManagerName
}
text_id! {
    /// The manager's name for a GitHub endpoint (`github.com`, …).
    EndpointName
}
text_id! {
    /// The UUID of a message session. GitHub shows it only to its creator (`docs/reference/actions-service.md` §2.1).
    SessionId
}
text_id! {
    /// The owner name sent when a session was opened: `garm-` + controller id for GARM.
    Owner
}
text_id! {
    /// The manager's `updated_at` of a set, compared for equality only: a change of it means that
    /// somebody changed the set, or that the set processed a message (`docs/reference/garm-api.md` §6).
    Revision
}
number_id! {
    /// The manager's own id of a scale set.
    ScaleSetId
}
number_id! {
    /// GitHub's id of a scale set (`scale_set_id` in GARM's API).
    GithubId
}
number_id! {
    /// Unique in a store.
    TreatmentId
}

/// How the owner name of every session check begins.
const CHECK_OWNER: &str = "scaleset-medic-";

impl Owner {
    /// The owner name a GARM controller uses for all its sessions (`docs/reference/actions-service.md` §4.1).
    pub fn of_garm(controller_id: &str) -> Self {
        Self(format!("garm-{controller_id}"))
    }

    /// The owner name of one session check of ours.
    pub fn of_session_check(set: ScaleSetId, at: Wall) -> Self {
        Self(format!("{CHECK_OWNER}{set}-{}", at.0))
    }

    /// Whether a session check, ours or another instance's, used this name.
    pub fn is_of_a_session_check(&self) -> bool {
        self.0.starts_with(CHECK_OWNER)
    }

    /// Whether another owner than `ours`, session checks aside: nobody polls their sessions, which GitHub ends soon.
    pub fn is_foreign_to(&self, ours: &Self) -> bool {
        self != ours && !self.is_of_a_session_check()
    }
}

/// One process of the manager, by its start time; a later value is a later process. Two scrapes of one process show
/// nearly the same value ([`Self::is_same_run`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub Wall);

impl From<Wall> for Incarnation {
    fn from(start: Wall) -> Self {
        Self(start)
    }
}
impl From<Incarnation> for Wall {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.0
    }
}

impl Incarnation {
    /// The dates of one start differ by up to this between sources and scrapes: the log's clock is not the kernel's, and
    /// a start date computed from the kernel's boot time wavers.
    pub const MARGIN: Span = Span::secs(2);

    /// Whether both dates are of one process.
    pub const fn is_same_run(self, other: Self) -> bool {
        self.0.since(other.0).0 <= Self::MARGIN.0 && other.0.since(self.0).0 <= Self::MARGIN.0
    }
}

closed_enum! {
    pub enum EntityKind {
        /// `owner/name`.
        Repository = "repository",
        Organization = "organization",
        /// An enterprise, by slug.
        Enterprise = "enterprise",
    }
}

/// A repository, organisation or enterprise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Entity {
    pub kind: EntityKind,
    /// `owner/name` for a repository, else the plain name.
    pub name: String,
}

/// An entity at an endpoint: what one list of GitHub's covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct EntityRef {
    pub endpoint: EndpointName,
    pub entity: Entity,
}

impl std::fmt::Display for Entity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.name)
    }
}
impl std::fmt::Display for EntityRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.entity.name, self.endpoint)
    }
}
impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "started {}", self.0)
    }
}
