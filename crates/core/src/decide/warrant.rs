//! The permission to delete one session. Deleting a session that GARM still holds crashes GARM, so
//! [`SessionWriter::delete_session`](crate::ports::write::SessionWriter::delete_session) takes this value and no id.
//!
//! Three places make one; it has no deserializer:
//! - the proof of staleness ([`super::stale`]), made again at every attempt;
//! - the verdict on an operator's explicit request ([`super::manual`]), made again at every attempt;
//! - the session check, for the session that it opened itself ([`crate::treat::session_check`]).
//!
//! The first two are asked by [`super::deletion_warrant`] alone, of a diagnosed fleet.
//!
//! An id is not enough:
//!
//! ```compile_fail,E0451
//! use medic_core::decide::warrant::DeletionWarrant;
//! use medic_core::model::SessionId;
//! let warrant = DeletionWarrant { session: SessionId::new("00000000-0000-4000-8000-000000000000") };
//! ```
//!
//! Nor is the journaled step of a session check, outside this crate:
//!
//! ```compile_fail,E0624
//! use medic_core::decide::warrant::DeletionWarrant;
//! use medic_core::model::{SessionId, Step, Wall};
//! let step = Step::CheckOpened { session: SessionId::new("s"), attempts: 0, not_before: Wall(0) };
//! let warrant = DeletionWarrant::of_own_session(&step);
//! ```

use super::stale::Proof;
use crate::model::{SessionId, Step};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletionWarrant {
    session: SessionId,
}

impl DeletionWarrant {
    pub const fn session(&self) -> &SessionId {
        &self.session
    }

    pub(super) fn of_stale(proof: Proof) -> Self {
        Self { session: proof.into_session() }
    }

    /// For the verdict on an operator's request.
    pub(super) fn requested(session: &SessionId) -> Self {
        Self { session: session.clone() }
    }

    /// For the session that a session check opened: only its own journaled step names one.
    pub(crate) fn of_own_session(step: &Step) -> Option<Self> {
        if let Step::CheckOpened { session, .. } = step { Some(Self { session: session.clone() }) } else { None }
    }

    /// Only with the feature `testing`, which the lab's build has and the shipped one does not.
    #[cfg(any(test, feature = "testing"))]
    pub const fn for_tests(session: SessionId) -> Self {
        Self { session }
    }
}
