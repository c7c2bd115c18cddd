//! Who sees to the recovery, on which GARM, and what came of it.

use medic_core::model::Span;
use medic_lab::garm::Build;
use std::collections::BTreeMap;

/// How long GitHub keeps a session that nobody polls.
pub(crate) const STALE: Span = Span::secs(90);
/// From SIGKILL to the next start of the process.
pub(crate) const DOWN: Span = Span::secs(2);

/// Who sees to the recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Healer {
    Nobody,
    /// The bug report's workaround: disable, `sleep 3`, enable; one set after the other.
    ScriptInTurn,
    /// The same for all sets together: disable all, `sleep 3`, enable all.
    ScriptAtOnce,
    Medic {
        ledger: bool,
    },
    /// With its ledger, and limits for a fleet of hundreds.
    MedicAtLarge,
}

/// What a medic is given besides the servers' addresses.
pub(crate) struct Given {
    /// Without its log the manager's sessions are unknown, and none may be deleted.
    pub(crate) ledger: bool,
    /// Lines for `[policy]`.
    pub(crate) policy: String,
    /// Lines for the tables of GARM and GitHub.
    pub(crate) pace: String,
}

impl Healer {
    /// What the medic is given, where there is one.
    pub(crate) fn given(self) -> Option<Given> {
        let lines = |variable| std::env::var(variable).map_or_else(|_| String::new(), |lines: String| lines + "\n");
        match self {
            Self::Medic { ledger } => {
                Some(Given { ledger, policy: lines("RECOVERY_POLICY"), pace: lines("RECOVERY_PACE") })
            }
            Self::MedicAtLarge => Some(Given {
                ledger: true,
                policy: "max_in_flight = 100\n".to_owned(),
                pace: "requests_per_second = 100\n".to_owned(),
            }),
            Self::Nobody | Self::ScriptInTurn | Self::ScriptAtOnce => None,
        }
    }

    /// Whether a medic knows the sessions from GARM's log.
    pub(crate) const fn has_ledger(self) -> bool {
        matches!(self, Self::Medic { ledger: true } | Self::MedicAtLarge)
    }
}

/// A row of the table.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) generation: Build,
    pub(crate) healer: Healer,
    /// The bug report's proposal in place of a retry every 2 s.
    pub(crate) doubling: bool,
}

const fn way(name: &'static str, generation: Build, healer: Healer) -> Way {
    Way { name, generation, healer, doubling: false }
}

pub(crate) const WAYS: &[Way] = &[
    way("pre-fix GARM alone", Build::PreFix, Healer::Nobody),
    way("post-fix GARM alone (retries every 2 s)", Build::PostFix, Healer::Nobody),
    Way {
        name: "the report's proposal (retries after 5, 10, 20 s ...)",
        generation: Build::PostFix,
        healer: Healer::Nobody,
        doubling: true,
    },
    way("the report's script at once, set after set", Build::PreFix, Healer::ScriptInTurn),
    way("the report's script at once, all sets together", Build::PreFix, Healer::ScriptAtOnce),
    way("medic, pre-fix GARM, no ledger", Build::PreFix, Healer::Medic { ledger: false }),
    way("medic, pre-fix GARM, ledger", Build::PreFix, Healer::Medic { ledger: true }),
    way("medic, pre-fix GARM, ledger, limits for hundreds of sets", Build::PreFix, Healer::MedicAtLarge),
    way("medic, post-fix GARM, no ledger", Build::PostFix, Healer::Medic { ledger: false }),
    way("medic, post-fix GARM, ledger", Build::PostFix, Healer::Medic { ledger: true }),
    way("medic, post-fix GARM, ledger, limits for hundreds of sets", Build::PostFix, Healer::MedicAtLarge),
];

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Of the medic's, from SIGKILL to the end, by kind; counted in virtual time only.
    pub(crate) requests: BTreeMap<String, usize>,
    /// The first, the middle and the last set that listens again, since SIGKILL.
    pub(crate) listening: [Option<Span>; 3],
    pub(crate) writes: usize,
    pub(crate) crashes: u32,
    /// By how much the latest look at the sets was late: what the load of the machine may have added.
    pub(crate) late: Span,
}
