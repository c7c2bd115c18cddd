//! The exit codes: a contract with scripts and schedulers (`docs/reference/design.md` §9), and how the
//! result of a command becomes one.

use medic_core::model::{Class, Diagnosis, Outcome};

/// How the process ends. The numbers are stable; [`crate::text::exit`] says what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ExitCode {
    Well = 0,
    Internal = 1,
    Usage = 2,
    Unhealthy = 10,
    Unverified = 11,
    Blind = 12,
    LeaseHeld = 13,
    Differs = 14,
    Interrupted = 130,
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

    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// The result of a Nagios plugin, in the order of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nagios {
    Ok,
    /// A treatment is under way, or was not verified.
    Warning,
    /// Nothing could be judged: blind, wrongly configured, interrupted, or another medic holds the lease.
    Unknown,
    /// A set receives no jobs, and nothing was done about it.
    Critical,
}

impl Nagios {
    /// The word that plugins write first, the number that they exit with, and the exit code that becomes this one.
    const fn row(self) -> (&'static str, u8, ExitCode) {
        match self {
            Self::Ok => ("OK", 0, ExitCode::Well),
            Self::Warning => ("WARNING", 1, ExitCode::Unverified),
            Self::Critical => ("CRITICAL", 2, ExitCode::Unhealthy),
            Self::Unknown => ("UNKNOWN", 3, ExitCode::Blind),
        }
    }

    pub const fn word(self) -> &'static str {
        self.row().0
    }

    pub const fn code(self) -> ExitCode {
        self.row().2
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
        Self::from(code.row().1)
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
    Unseen,
    LeaseHeld,
}

/// The code of a whole command: that of the worst manager. The report has the others.
pub fn of_run(managers: &[ManagerEnd]) -> ExitCode {
    managers.iter().map(of_manager).max().unwrap_or(ExitCode::Blind)
}

/// The most severe of all sets and managers. Exit codes rank differently: there a fault of one manager hides the sets
/// of another.
pub fn nagios_of_run(managers: &[ManagerEnd]) -> Nagios {
    let of = |end: &ManagerEnd| match end {
        ManagerEnd::Seen(sets) => sets.iter().map(|set| Nagios::from(of_set(*set))).max().unwrap_or(Nagios::Ok),
        ManagerEnd::Unseen | ManagerEnd::LeaseHeld => Nagios::Unknown,
    };
    managers.iter().map(of).max().unwrap_or(Nagios::Unknown)
}

fn of_manager(end: &ManagerEnd) -> ExitCode {
    match end {
        ManagerEnd::Seen(sets) => sets.iter().map(|set| of_set(*set)).max().unwrap_or(ExitCode::Well),
        ManagerEnd::Unseen => ExitCode::Blind,
        ManagerEnd::LeaseHeld => ExitCode::LeaseHeld,
    }
}

/// The code of one set. Its diagnosis counts more than the outcome of a treatment: a set that listens is well, even if
/// it recovered without the treatment.
pub const fn of_set((diagnosis, treated): (Diagnosis, Treated)) -> ExitCode {
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
        for nagios in [Nagios::Ok, Nagios::Warning, Nagios::Critical] {
            assert_eq!(of(nagios), [nagios.code()]);
        }
        assert!(of(Nagios::Unknown).contains(&Nagios::Unknown.code()));
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
            assert_eq!(of_set((diagnosis, treated)), code, "{diagnosis} {treated:?}");
        }
        for diagnosis in Diagnosis::ALL.iter().filter(|diagnosis| diagnosis.is_ill()) {
            assert_ne!(of_set((*diagnosis, No)), ExitCode::Well, "{diagnosis}");
        }
    }

    #[test]
    fn exit_code_is_of_the_worst_manager_nagios_of_the_worst_set() {
        let seen = |sets: &[_]| ManagerEnd::Seen(sets.to_vec());
        let well = (Diagnosis::Listening, Treated::No);
        let stuck = (Diagnosis::HeldElsewhere, Treated::No);
        let open = (Diagnosis::ConflictAbandoned, Treated::Open);
        let left = (Diagnosis::DisabledByMedic, Treated::LeftDisabled);
        for (managers, code, nagios) in [
            (vec![seen(&[well, well])], ExitCode::Well, Nagios::Ok),
            (vec![seen(&[])], ExitCode::Well, Nagios::Ok),
            (vec![seen(&[well, stuck])], ExitCode::Unhealthy, Nagios::Critical),
            (vec![seen(&[stuck, open, well])], ExitCode::Unverified, Nagios::Critical),
            (vec![seen(&[open, left])], ExitCode::Unverified, Nagios::Critical),
            (vec![seen(&[open])], ExitCode::Unverified, Nagios::Warning),
            (vec![seen(&[open]), ManagerEnd::Unseen], ExitCode::Blind, Nagios::Unknown),
            (vec![seen(&[stuck]), ManagerEnd::Unseen], ExitCode::Blind, Nagios::Critical),
            (vec![ManagerEnd::LeaseHeld, ManagerEnd::Unseen], ExitCode::LeaseHeld, Nagios::Unknown),
            (vec![], ExitCode::Blind, Nagios::Unknown),
        ] {
            assert_eq!((of_run(&managers), nagios_of_run(&managers)), (code, nagios), "{managers:?}");
        }
    }
}
