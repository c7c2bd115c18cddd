//! Medics broken on purpose show that the properties can fail.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Deletes the newest session of the ledger, whichever incarnation opened it.
    SkipsIncarnationCheck,
    /// Mistakes an operator's change of a disabled set for its own.
    FightsTheOperator,
    /// Loses open treatments when it dies.
    ForgetsTheJournal,
    /// Disables, and only pretends to enable.
    NeverEnables,
    /// Assumes that a write without an answer had no effect.
    TakesLostForRefused,
    /// Assumes that a disable with an effect cannot arrive a second time.
    ForgetsTheSecondCopy,
    /// Does not see the open treatment of a set.
    StartsASecondTreatment,
    /// Assumes that every canary is verified.
    SendsNoCanary,
    /// Has no limit after the canary is verified.
    IgnoresTheLimit,
    /// Treats a share of the fleet before any treatment has helped.
    SkipsTheRolloutLimit,
    /// Two medics act without a lease.
    HasNoLease,
    /// Leaves the session of its session check open.
    ForgetsOwnSession,
    /// Sends an update that changes nothing, instead of a disable.
    SendsANoOp,
}
