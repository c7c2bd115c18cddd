//! The permission to delete one session. Deleting a session that GARM still holds crashes GARM, so
//! [`SessionWriter::delete_session`](crate::ports::write::SessionWriter::delete_session) takes this value and no id.
//!
//! Three places make one, and no text or journal is read back into one:
//! - the proof of staleness ([`super::stale`]), made again at every attempt;
//! - the verdict on an operator's explicit request ([`super::manual`]), made again at every attempt;
//! - the session check, for the session that it opened itself ([`crate::treat::session_check`]).
//!
//! The first two are asked by [`deletion_warrant`] alone, of a diagnosed fleet.
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

use super::manual::{self, Sight};
use super::stale::{self, CurrentManager, Proof};
use crate::model::fleet::Fleet;
use crate::model::session::LedgerSession;
use crate::model::{Remedy, SessionId, Step, Treatment};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletionWarrant {
    session: SessionId,
}

impl DeletionWarrant {
    pub const fn session(&self) -> &SessionId {
        &self.session
    }

    fn of_stale(proof: Proof) -> Self {
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

    #[cfg(any(test, feature = "testing"))]
    pub const fn for_tests(session: SessionId) -> Self {
        Self { session }
    }
}

/// The manager, as a proof of staleness needs it.
pub fn current_manager(fleet: &Fleet) -> CurrentManager<'_> {
    CurrentManager { state: fleet.manager, incarnation: fleet.incarnation, owner: fleet.owner.as_ref() }
}

/// The permission to delete a treatment's session, where it still holds: by proof, or by the verdict on the operator's
/// request.
pub fn deletion_warrant(fleet: &Fleet, ledger: &[LedgerSession], treatment: &Treatment) -> Option<DeletionWarrant> {
    let (Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session }) = &treatment.remedy else {
        return None;
    };
    let set = fleet.sets.get(&treatment.set)?;
    let manager = current_manager(fleet);
    if treatment.ordered.is_some() {
        let finding = fleet.findings.get(&treatment.set)?;
        let (conflict_behaviour, covered) = (fleet.conflict_behaviour, treatment.place.is_some());
        let sight = Sight { finding, set, manager, conflict_behaviour, covered };
        return manual::delete(&sight, session, ledger).ok();
    }
    let rows = ledger.iter().filter(|row| row.set == treatment.set);
    stale::newest_is_stale(rows, set, manager).ok().map(DeletionWarrant::of_stale)
}
