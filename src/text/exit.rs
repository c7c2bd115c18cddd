//! What exit codes mean.

use crate::exit::ExitCode;

pub const fn meaning(code: ExitCode) -> &'static str {
    match code {
        ExitCode::Well => "all healthy, or healed and verified",
        ExitCode::Internal => "internal error",
        ExitCode::Usage => "wrong usage or configuration",
        ExitCode::Unhealthy => "something is unhealthy and nothing was done",
        ExitCode::Unverified => "acted, not verified",
        ExitCode::Blind => "could not observe",
        ExitCode::LeaseHeld => "another medic holds the lease",
        ExitCode::Differs => "a replay decides otherwise than was recorded",
        ExitCode::Interrupted => "interrupted (SIGINT)",
        ExitCode::Terminated => "terminated (SIGTERM)",
    }
}

/// What those of `doctor` mean.
pub const fn meaning_for_doctor(code: ExitCode) -> &'static str {
    match code {
        ExitCode::Well => "nothing that is configured fails",
        ExitCode::Unhealthy => "something hides evidence or prevents healing",
        ExitCode::Blind => "GARM could not be reached",
        ExitCode::Internal
        | ExitCode::Usage
        | ExitCode::Unverified
        | ExitCode::LeaseHeld
        | ExitCode::Interrupted
        | ExitCode::Differs
        | ExitCode::Terminated => meaning(code),
    }
}
