//! The exit codes: a contract with scripts and schedulers (`docs/reference/design.md` §9), and how the
//! result of a command becomes one.

use medic_core::model::{Class, Diagnosis, Outcome};

/// How the process ends. The numbers are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// All well, or healed and verified.
    Well = 0,
    /// A fault of the medic: a bug, a full disk, a store that cannot be opened.
    Internal = 1,
    /// Wrong flags or a wrong configuration; nothing was done.
    Usage = 2,
    /// Something is unhealthy and nothing was done about it: dry run, guard, pause, escalation.
    Unhealthy = 10,
    /// Acted, and not verified.
    Unverified = 11,
    Blind = 12,
    /// Another medic holds the lease.
    LeaseHeld = 13,
    /// A replay decides otherwise than was recorded.
    Differs = 14,
    /// Ended by SIGINT; open treatments were finished first.
    Interrupted = 130,
    /// Ended by SIGTERM; open treatments were finished first.
    Terminated = 143,
}

impl ExitCode {
    /// Every code, in rising order.
    pub const ALL: [Self; 10] = [
        Self::Well,
        Self::Internal,
        Self::Usage,
        Self::Unhealthy,
        Self::Unverified,
        Self::Blind,
        Self::LeaseHeld,
        Self::Differs,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The number that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, for help texts.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Well => "all well, or healed and verified",
            Self::Internal => "internal error",
            Self::Usage => "wrong usage or configuration",
            Self::Unhealthy => "something is unhealthy and nothing was done",
            Self::Unverified => "acted, not verified",
            Self::Blind => "could not observe",
            Self::LeaseHeld => "another medic holds the lease",
            Self::Differs => "a replay decides otherwise than was recorded",
            Self::Interrupted => "interrupted (SIGINT)",
            Self::Terminated => "terminated (SIGTERM)",
        }
    }
}

/// The result of a Nagios plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Nagios {
    Ok = 0,
    /// A treatment is under way, or was not verified.
    Warning = 1,
    /// A set receives no jobs, and nothing was done about it.
    Critical = 2,
    /// Nothing could be judged: blind, wrongly configured, interrupted, or another medic holds the lease.
    Unknown = 3,
}

impl Nagios {
    /// The word that plugins write first.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl Nagios {
    /// The exit code that becomes this one.
    #[must_use]
    pub const fn code(self) -> ExitCode {
        match self {
            Self::Ok => ExitCode::Well,
            Self::Warning => ExitCode::Unverified,
            Self::Critical => ExitCode::Unhealthy,
            Self::Unknown => ExitCode::Blind,
        }
    }

    /// Severity: an ill set comes before anything unseen, and that before an open treatment.
    const fn rank(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        }
    }
}

impl From<ExitCode> for Nagios {
    fn from(code: ExitCode) -> Self {
        match code {
            ExitCode::Well => Self::Ok,
            ExitCode::Unverified => Self::Warning,
            ExitCode::Unhealthy => Self::Critical,
            ExitCode::Internal
            | ExitCode::Usage
            | ExitCode::Blind
            | ExitCode::LeaseHeld
            | ExitCode::Differs
            | ExitCode::Interrupted
            | ExitCode::Terminated => Self::Unknown,
        }
    }
}

impl From<Nagios> for std::process::ExitCode {
    fn from(code: Nagios) -> Self {
        Self::from(code as u8)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

/// What was done about a set in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treated {
    No,
    /// A treatment is still under way.
    Open,
    /// A treatment has disabled it and cannot enable it again.
    LeftDisabled,
    /// The outcome of the last treatment.
    Closed(Outcome),
}

/// The state of one manager at the end of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagerEnd {
    /// It answered: its sets, each with its diagnosis and what was done about it.
    Seen(Vec<(Diagnosis, Treated)>),
    /// It could not be asked.
    Unseen,
    /// Another medic holds its lease.
    LeaseHeld,
}

/// The code of a whole command: that of the worst manager. The report has the others.
#[must_use]
pub fn of_run(managers: &[ManagerEnd]) -> ExitCode {
    managers.iter().map(of_manager).max().unwrap_or(ExitCode::Blind)
}

/// The most severe of all sets and managers. Exit codes rank differently: there a fault of one manager hides the sets of
/// another.
#[must_use]
pub fn nagios_of_run(managers: &[ManagerEnd]) -> Nagios {
    let of = |end: &ManagerEnd| match end {
        ManagerEnd::Seen(sets) => {
            let sets = sets.iter().map(|(diagnosis, treated)| Nagios::from(of_set(*diagnosis, *treated)));
            sets.max_by_key(|nagios| nagios.rank()).unwrap_or(Nagios::Ok)
        }
        ManagerEnd::Unseen | ManagerEnd::LeaseHeld => Nagios::Unknown,
    };
    managers.iter().map(of).max_by_key(|nagios| nagios.rank()).unwrap_or(Nagios::Unknown)
}

fn of_manager(end: &ManagerEnd) -> ExitCode {
    match end {
        ManagerEnd::Seen(sets) => {
            sets.iter().map(|(diagnosis, treated)| of_set(*diagnosis, *treated)).max().unwrap_or(ExitCode::Well)
        }
        ManagerEnd::Unseen => ExitCode::Blind,
        ManagerEnd::LeaseHeld => ExitCode::LeaseHeld,
    }
}

/// The code of one set. Its diagnosis counts more than the outcome of a treatment: a set that listens is well, whoever
/// caused that.
#[must_use]
pub const fn of_set(diagnosis: Diagnosis, treated: Treated) -> ExitCode {
    if matches!(treated, Treated::LeftDisabled) {
        return ExitCode::Unhealthy;
    }
    match (diagnosis, diagnosis.class(), treated) {
        (_, _, Treated::Open) | (Diagnosis::DisabledByMedic, _, _) => ExitCode::Unverified,
        (Diagnosis::Settling, _, _) | (_, Class::Well | Class::Idle, _) => ExitCode::Well,
        (_, Class::Unseen, _) => ExitCode::Blind,
        (_, Class::Refused | Class::Broken, Treated::Closed(Outcome::Unverified)) => ExitCode::Unverified,
        (_, Class::Refused | Class::Broken, Treated::No | Treated::LeftDisabled | Treated::Closed(_)) => {
            ExitCode::Unhealthy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_numbers_are_stable() {
        let numbers = ExitCode::ALL.map(ExitCode::code);
        assert_eq!(numbers, [0, 1, 2, 10, 11, 12, 13, 14, 130, 143]);
    }

    #[test]
    fn nagios_codes_map_to_exit_codes() {
        let of = |wanted| ExitCode::ALL.into_iter().filter(|code| Nagios::from(*code) == wanted).collect::<Vec<_>>();
        assert_eq!(of(Nagios::Ok), [ExitCode::Well]);
        assert_eq!(of(Nagios::Warning), [ExitCode::Unverified]);
        assert_eq!(of(Nagios::Critical), [ExitCode::Unhealthy]);
    }

    #[test]
    fn exit_code_of_a_set_follows_its_diagnosis() {
        use Diagnosis::{ConflictAbandoned, ConflictRetrying, Disabled, DisabledByMedic, Listening, Settling, Unknown};
        use Treated::{Closed, No, Open};
        for (diagnosis, treated, code) in [
            (Listening, No, ExitCode::Well),
            (Listening, Closed(Outcome::Recovered), ExitCode::Well),
            (Listening, Closed(Outcome::Unverified), ExitCode::Well),
            (Listening, Open, ExitCode::Unverified),
            (Disabled, No, ExitCode::Well),
            (Settling, No, ExitCode::Well),
            (ConflictRetrying, No, ExitCode::Unhealthy),
            (ConflictAbandoned, Closed(Outcome::Failed), ExitCode::Unhealthy),
            (ConflictAbandoned, Closed(Outcome::Aborted), ExitCode::Unhealthy),
            (ConflictAbandoned, Closed(Outcome::Unverified), ExitCode::Unverified),
            (ConflictRetrying, Open, ExitCode::Unverified),
            (DisabledByMedic, No, ExitCode::Unverified),
            (Unknown, No, ExitCode::Blind),
        ] {
            assert_eq!(of_set(diagnosis, treated), code, "{diagnosis} {treated:?}");
        }
    }

    #[test]
    fn nagios_reports_ill_sets_before_unseen_managers() {
        let ill = (Diagnosis::HeldElsewhere, Treated::No);
        let open = (Diagnosis::ConflictAbandoned, Treated::Open);
        let left = (Diagnosis::DisabledByMedic, Treated::LeftDisabled);
        for (managers, nagios) in [
            (vec![ManagerEnd::Seen(vec![ill]), ManagerEnd::Unseen], Nagios::Critical),
            (vec![ManagerEnd::Seen(vec![open, ill])], Nagios::Critical),
            (vec![ManagerEnd::Seen(vec![open]), ManagerEnd::Unseen], Nagios::Unknown),
            (vec![ManagerEnd::Seen(vec![open, left])], Nagios::Critical),
            (vec![ManagerEnd::Seen(vec![open])], Nagios::Warning),
            (vec![ManagerEnd::Seen(vec![])], Nagios::Ok),
            (vec![], Nagios::Unknown),
        ] {
            assert_eq!(nagios_of_run(&managers), nagios, "{managers:?}");
            assert_eq!(Nagios::from(nagios.code()), nagios);
        }
    }

    #[test]
    fn untreated_ill_set_is_never_exit_code_well() {
        for diagnosis in Diagnosis::ALL.iter().filter(|diagnosis| diagnosis.is_ill()) {
            assert_ne!(of_set(*diagnosis, Treated::No), ExitCode::Well, "{diagnosis}");
        }
    }

    #[test]
    fn exit_code_of_a_run_is_the_worst() {
        let well = (Diagnosis::Listening, Treated::No);
        let ill = (Diagnosis::HeldElsewhere, Treated::No);
        let open = (Diagnosis::ConflictAbandoned, Treated::Open);
        for (managers, code) in [
            (vec![ManagerEnd::Seen(vec![well, well])], ExitCode::Well),
            (vec![ManagerEnd::Seen(vec![])], ExitCode::Well),
            (vec![ManagerEnd::Seen(vec![well, ill])], ExitCode::Unhealthy),
            (vec![ManagerEnd::Seen(vec![ill, open, well])], ExitCode::Unverified),
            (vec![ManagerEnd::Seen(vec![open]), ManagerEnd::Unseen], ExitCode::Blind),
            (vec![ManagerEnd::LeaseHeld, ManagerEnd::Unseen], ExitCode::LeaseHeld),
            (vec![], ExitCode::Blind),
        ] {
            assert_eq!(of_run(&managers), code, "{managers:?}");
        }
    }
}
