//! The one proof that allows a deletion: *this session's manager process is gone* (`docs/reference/design.md` §5).
//!
//! Deleting a session that GARM still holds crashes GARM (`docs/reference/design.md` §1), and GitHub does not show who
//! holds a session. So a session may be deleted only if every reason of [`NotStale`] is excluded. All reasons that hold
//! are returned, so that an operator can read why nothing is deleted.
//!
//! Edge cases: only the set's *newest* session of the ledger is judged, because GitHub keeps one per set. The log and
//! the metrics date a process start up to a second apart, hence [`MARGIN`]. Two overlapping managers (a rollout) show
//! as a session seen alive after the current start.

use crate::model::fleet::Fleet;
use crate::model::session::{LedgerSession, NotStale, OpenedBy};
use crate::model::{Incarnation, ManagerState, Owner, ScaleSet, SessionId, Span};
use std::cmp::Ordering;

/// Dates closer than this to the current process start prove nothing about which process they belong to.
pub const MARGIN: Span = Incarnation::MARGIN;

#[derive(Debug, Clone, Copy)]
pub struct CurrentManager<'a> {
    pub state: ManagerState,
    pub incarnation: Option<Incarnation>,
    /// The owner name of its sessions, `garm-<controller id>`.
    pub owner: Option<&'a Owner>,
}

/// The manager, as a proof of staleness needs it.
pub fn current_manager(fleet: &Fleet) -> CurrentManager<'_> {
    CurrentManager { state: fleet.manager, incarnation: fleet.incarnation, owner: fleet.owner.as_ref() }
}

/// The proof that a session is stale: only [`provably_stale`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    session: SessionId,
}

impl Proof {
    pub const fn session(&self) -> &SessionId {
        &self.session
    }
    pub(super) fn into_session(self) -> SessionId {
        self.session
    }
}

/// Judges the newest session of a set: `ledger` holds this set's rows, in any order.
pub fn newest_is_stale<'a>(
    ledger: impl IntoIterator<Item = &'a LedgerSession>,
    set: &ScaleSet,
    manager: CurrentManager<'_>,
) -> Result<Proof, Vec<NotStale>> {
    match ledger.into_iter().max_by(|a, b| (a.first_seen, &a.id).cmp(&(b.first_seen, &b.id))) {
        Some(session) => provably_stale(session, set, manager),
        None => Err(vec![NotStale::NotInLedger]),
    }
}

/// The proof, or every reason against it.
pub fn provably_stale(
    session: &LedgerSession,
    set: &ScaleSet,
    manager: CurrentManager<'_>,
) -> Result<Proof, Vec<NotStale>> {
    let mut against = Vec::new();
    if session.ended.is_some() {
        against.push(NotStale::Ended);
    }
    let opened_in = match session.opened_by {
        OpenedBy::Manager(incarnation) => Some(incarnation),
        OpenedBy::UnknownIncarnation => {
            against.push(NotStale::OpeningRunUnknown);
            None
        }
        OpenedBy::Medic => {
            against.push(NotStale::OpenedByUs);
            None
        }
    };
    match manager.incarnation {
        None => against.push(NotStale::CurrentRunUnknown),
        Some(current) => against_dates(session, opened_in, current, &mut against),
    }
    match manager.state {
        ManagerState::Up | ManagerState::Restarted => {}
        ManagerState::Down | ManagerState::Unreachable => against.push(NotStale::ManagerDown),
    }
    match manager.owner {
        None => against.push(NotStale::OwnerUnknown),
        Some(owner) if *owner == session.owner => {}
        Some(_) => against.push(NotStale::OwnerDiffers),
    }
    if session.set != set.id {
        against.push(NotStale::OtherSet);
    }
    let place = &session.place;
    let same_place = set.endpoint.as_ref().is_some_and(|endpoint| endpoint.name == place.endpoint.name)
        && set.entity.as_ref() == Some(&place.entity)
        && set.github_id == Some(place.github_id);
    if !same_place {
        against.push(NotStale::OtherPlace);
    }
    if against.is_empty() { Ok(Proof { session: session.id.clone() }) } else { Err(against) }
}

fn against_dates(
    session: &LedgerSession,
    opened_in: Option<Incarnation>,
    current: Incarnation,
    against: &mut Vec<NotStale>,
) {
    if let Some(opened_in) = opened_in {
        match opened_in.cmp(&current) {
            Ordering::Equal => against.push(NotStale::SameRun),
            Ordering::Greater => against.push(NotStale::LaterRun),
            Ordering::Less if current.0.since(opened_in.0) <= MARGIN => against.push(NotStale::RunsTooClose),
            Ordering::Less => {}
        }
    }
    if session.first_seen.plus(MARGIN) >= current.0 {
        against.push(NotStale::OpenedTooLate);
    }
    if session.last_seen > current.0.plus(MARGIN) {
        against.push(NotStale::AliveAfterStart);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{ledger_session, scale_set};
    use crate::model::session::SessionEnd;
    use crate::model::{GithubId, ScaleSetId, Wall};

    const CURRENT: Incarnation = Incarnation(Wall(1_000_000));

    fn owner() -> Owner {
        Owner::of_garm("c1")
    }

    fn judge(change: impl FnOnce(&mut LedgerSession)) -> Result<Proof, Vec<NotStale>> {
        let mut session = ledger_session(1, "s-1", Incarnation(Wall(500_000)), Wall(510_000));
        change(&mut session);
        let owner = owner();
        let manager = CurrentManager { state: ManagerState::Up, incarnation: Some(CURRENT), owner: Some(&owner) };
        provably_stale(&session, &scale_set(1), manager)
    }

    #[test]
    fn session_of_an_earlier_incarnation_is_stale() {
        let proof = judge(|_| {}).unwrap();
        assert_eq!(proof.session().as_str(), "s-1");
    }

    #[test]
    fn each_reason_alone_defeats_the_proof() {
        type Change = fn(&mut LedgerSession);
        let cases: [(NotStale, Change); 10] = [
            (NotStale::Ended, |s| s.ended = Some((Wall(600_000), SessionEnd::Closed))),
            (NotStale::OpenedByUs, |s| s.opened_by = OpenedBy::Medic),
            (NotStale::OpeningRunUnknown, |s| s.opened_by = OpenedBy::UnknownIncarnation),
            (NotStale::SameRun, |s| s.opened_by = OpenedBy::Manager(CURRENT)),
            (NotStale::LaterRun, |s| s.opened_by = OpenedBy::Manager(Incarnation(Wall(1_000_001)))),
            (NotStale::RunsTooClose, |s| s.opened_by = OpenedBy::Manager(Incarnation(Wall(998_000)))),
            (NotStale::OpenedTooLate, |s| s.first_seen = Wall(998_000)),
            (NotStale::AliveAfterStart, |s| s.last_seen = Wall(1_002_001)),
            (NotStale::OwnerDiffers, |s| s.owner = Owner::of_garm("other")),
            (NotStale::OtherPlace, |s| s.place.github_id = GithubId(999)),
        ];
        for (reason, change) in cases {
            assert_eq!(judge(change), Err(vec![reason]), "{reason}");
        }
        assert_eq!(judge(|s| s.set = ScaleSetId(2)), Err(vec![NotStale::OtherSet]));
    }

    #[test]
    fn margins_are_exact() {
        assert!(judge(|s| s.first_seen = Wall(997_999)).is_ok());
        assert!(judge(|s| s.last_seen = Wall(1_002_000)).is_ok(), "a quick restart leaves a recent date");
        assert!(judge(|s| s.opened_by = OpenedBy::Manager(Incarnation(Wall(997_999)))).is_ok());
    }

    #[test]
    fn nothing_is_stale_if_the_manager_is_unseen_or_unknown() {
        let session = ledger_session(1, "s-1", Incarnation(Wall(500_000)), Wall(510_000));
        let (set, owner) = (scale_set(1), owner());
        for state in ManagerState::ALL.iter().copied() {
            let manager = CurrentManager { state, incarnation: Some(CURRENT), owner: Some(&owner) };
            let answers = matches!(state, ManagerState::Up | ManagerState::Restarted);
            assert_eq!(provably_stale(&session, &set, manager).is_ok(), answers, "{state}");
        }
        let blind = CurrentManager { state: ManagerState::Down, incarnation: None, owner: None };
        assert_eq!(
            provably_stale(&session, &set, blind),
            Err(vec![NotStale::CurrentRunUnknown, NotStale::ManagerDown, NotStale::OwnerUnknown])
        );
        let mut unplaced = set;
        unplaced.github_id = None;
        let manager = CurrentManager { state: ManagerState::Up, incarnation: Some(CURRENT), owner: Some(&owner) };
        assert_eq!(provably_stale(&session, &unplaced, manager), Err(vec![NotStale::OtherPlace]));
    }

    #[test]
    fn only_the_newest_session_of_a_set_is_judged() {
        let old = ledger_session(1, "old", Incarnation(Wall(100_000)), Wall(110_000));
        let live = ledger_session(1, "live", CURRENT, Wall(1_010_000));
        let owner = owner();
        let manager = CurrentManager { state: ManagerState::Up, incarnation: Some(CURRENT), owner: Some(&owner) };
        let verdict = newest_is_stale([&live, &old], &scale_set(1), manager);
        assert!(
            verdict.unwrap_err().contains(&NotStale::SameRun),
            "GitHub keeps one session, and that is the live one"
        );
        assert_eq!(newest_is_stale([], &scale_set(1), manager), Err(vec![NotStale::NotInLedger]));
    }
}
