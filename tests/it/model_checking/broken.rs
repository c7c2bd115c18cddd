//! Medics that are wrong on purpose: a proof that cannot fail is no proof.

/// One way to be wrong, and the property that must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Deletes the newest session of the ledger, whichever run opened it.
    SkipsIncarnationCheck,
    /// Takes a person's change of a disabled set for its own.
    FightsTheOperator,
    /// After its death nothing is known of open treatments.
    ForgetsTheJournal,
    /// Disables, and takes the thought for the deed when it should enable.
    NeverEnables,
    /// Takes a write without an answer for one without an effect.
    TakesLostForRefused,
    /// Takes a disable that has taken effect for one that comes no more.
    ForgetsTheSecondCopy,
    /// Does not see that a treatment of the set is open.
    StartsASecondTreatment,
    /// Takes every canary for verified.
    SendsNoCanary,
    /// Starts as many treatments as there are sets, once the canary has verified.
    IgnoresTheLimit,
    /// Takes the share of the fleet at once, before anything has shown that it helps.
    SkipsTheRamp,
    /// Two medics act without a lease.
    HasNoLease,
    /// Leaves the session open that its probe opened.
    ForgetsOwnSession,
    /// Sends an update that changes nothing, instead of a disable.
    SendsANoOp,
}
