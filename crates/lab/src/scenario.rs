#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! The scenarios of the lab: what happens to the simulated servers, and when.

use super::garm::Build;
use super::github::{Degraded, Fault, FaultKind, Lasts, Route, Takeover};
use super::world::World;
use medic_core::model::{GithubId, ScaleSetId, Span, Wall};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Kill,
    Stop,
    Start,
    /// Another controller takes the first set's session as soon as it is free, and keeps it this long.
    ForeignOwner(Span),
    /// An operator disables the second set.
    OperatorDisables,
    /// Jobs are queued for every set.
    Jobs(u32),
    /// The first set is removed at GitHub.
    RemoveSet,
    /// GitHub forgets the first set's session.
    Evict,
    /// GitHub forgets every session but the first set's.
    ForgetAllButFirst,
    /// The caller rotates the log file: the simulated world has none.
    RotateLog,
    RevokeMedic,
    /// Every poll fails at once.
    PollsFail,
    FaultsEnd,
    /// The old process of the same controller runs this much longer, and holds all sessions.
    Overlap(Span),
    /// Sessions are refused this long although nobody holds one.
    PhantomConflicts(Span),
    /// GitHub never answers the deletion of a session.
    DeletesHang,
    /// Whether the first set's job messages cannot be handled.
    Poison(bool),
}

/// The state in which a scenario ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every enabled set listens.
    AllListen,
    /// The same, and no job waits.
    AllListenAndJobsDone,
    /// Every enabled set but the first.
    AllButTheFirst,
}

#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    pub about: &'static str,
    /// The steps, with their times since the start.
    pub steps: &'static [(Span, Step)],
    pub ending: Ending,
    /// The longest time from the last step to the end.
    pub limit: Span,
    /// Whether the medic reads GARM's log.
    pub ledger: bool,
    pub writes: Writes,
}

/// Updates that the medic may send to GARM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    Any,
    AtMost(usize),
    None,
}

const fn at(seconds: u64, step: Step) -> (Span, Step) {
    (Span::secs(seconds), step)
}

/// All scenarios; the first is the default.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "crash-no-ledger",
        about: "GARM is killed and restarted. GitHub still has its sessions and refuses every set",
        steps: &[at(5, Step::Jobs(1)), at(110, Step::Kill), at(112, Step::Start), at(120, Step::Jobs(1))],
        ending: Ending::AllListenAndJobsDone,
        ..DEFAULT
    },
    Scenario {
        name: "crash-ledger",
        about: "the same, and the medic reads GARM's log: it deletes the stale sessions at once",
        steps: &[at(60, Step::Kill), at(62, Step::Start)],
        ledger: true,
        ..DEFAULT
    },
    Scenario {
        name: "crash-soon",
        about: "GARM is killed after 20 s and restarted: in real time the sets are stuck for a minute and a half",
        steps: &[at(5, Step::Jobs(1)), at(20, Step::Kill), at(22, Step::Start), at(30, Step::Jobs(1))],
        ending: Ending::AllListenAndJobsDone,
        ..DEFAULT
    },
    Scenario {
        name: "quiet",
        about: "nothing happens until you type a fault; for --serve",
        writes: Writes::None,
        ..DEFAULT
    },
    Scenario {
        name: "graceful-restart",
        about: "GARM is stopped cleanly and restarted: no incident, nothing to heal",
        steps: &[at(30, Step::Stop), at(33, Step::Start)],
        writes: Writes::None,
        ..DEFAULT
    },
    Scenario {
        name: "operator-disables",
        about: "an operator disables a set, then GARM crashes: the set stays disabled",
        steps: &[at(20, Step::OperatorDisables), at(60, Step::Kill), at(62, Step::Start)],
        ..DEFAULT
    },
    Scenario {
        name: "foreign-owner",
        about: "after the crash another controller takes the first set's session: the medic does not touch it",
        steps: &[at(30, Step::Kill), at(31, Step::ForeignOwner(Span::hours(1))), at(32, Step::Start)],
        ending: Ending::AllButTheFirst,
        ..DEFAULT
    },
    Scenario {
        name: "set-removed",
        about: "a set is removed at GitHub: GARM crashes, and creates the set again at its next start",
        steps: &[at(30, Step::RemoveSet), at(100, Step::Start)],
        ledger: true,
        ..DEFAULT
    },
    Scenario {
        name: "session-evicted",
        about: "GitHub forgets the session of a running listener: GARM opens a new one, nothing to heal",
        steps: &[at(30, Step::Evict)],
        writes: Writes::None,
        ledger: true,
        ..DEFAULT
    },
    Scenario {
        name: "manager-crash-loop",
        about: "GARM crashes three times, each time before its sets can be treated",
        steps: &[
            at(30, Step::Kill),
            at(32, Step::Start),
            at(42, Step::Kill),
            at(44, Step::Start),
            at(54, Step::Kill),
            at(56, Step::Start),
        ],
        ledger: true,
        ..DEFAULT
    },
    Scenario {
        name: "two-crashes-in-a-row",
        about: "GARM crashes again while the medic treats its sets",
        steps: &[at(30, Step::Kill), at(32, Step::Start), at(60, Step::Kill), at(62, Step::Start)],
        ..DEFAULT
    },
    Scenario {
        name: "log-rotated",
        about: "GARM's log is rotated while GARM is down: the session ledger stays complete",
        steps: &[at(60, Step::Kill), at(61, Step::RotateLog), at(62, Step::Start)],
        ledger: true,
        ..DEFAULT
    },
    Scenario {
        name: "token-revoked",
        about: "the medic's GitHub token is revoked before the crash: it cannot delete sessions, and toggles the sets",
        steps: &[at(20, Step::RevokeMedic), at(60, Step::Kill), at(62, Step::Start)],
        ledger: true,
        ..DEFAULT
    },
    Scenario {
        name: "partial-conflict",
        about: "only the first set is refused after the crash: the medic treats no other set",
        steps: &[at(60, Step::Kill), at(61, Step::ForgetAllButFirst), at(62, Step::Start)],
        ledger: true,
        writes: Writes::AtMost(2),
        ..DEFAULT
    },
    Scenario {
        name: "poll-fails-fast",
        about: "GitHub fails every poll at once: sessions open and end in a loop, the medic does nothing",
        steps: &[at(40, Step::PollsFail), at(160, Step::FaultsEnd)],
        writes: Writes::None,
        ..DEFAULT
    },
    Scenario {
        name: "delete-never-answered",
        about: "GitHub does not answer the deletion of the stale sessions: the medic asks again",
        steps: &[at(60, Step::Kill), at(61, Step::DeletesHang), at(62, Step::Start), at(90, Step::FaultsEnd)],
        ledger: true,
        ..DEFAULT
    },
    Scenario {
        name: "poison-message",
        about: "a message of the first set cannot be handled: its jobs wait, and the medic alerts an operator",
        steps: &[at(20, Step::Poison(true)), at(22, Step::Jobs(1)), at(200, Step::Poison(false))],
        ending: Ending::AllListenAndJobsDone,
        ledger: true,
        writes: Writes::None,
        ..DEFAULT
    },
    Scenario {
        name: "rolling-update-overlap",
        about: "the old GARM runs for 40 s beside the new one: the new one is refused until the old one ends",
        steps: &[at(60, Step::Kill), at(60, Step::Overlap(Span::secs(40))), at(61, Step::Start)],
        ..DEFAULT
    },
    Scenario {
        name: "github-conflict-fault",
        about: "after a clean restart GitHub refuses sessions that nobody holds, for four minutes",
        steps: &[at(30, Step::Stop), at(31, Step::PhantomConflicts(Span::mins(4))), at(33, Step::Start)],
        ..DEFAULT
    },
];

/// The common values of most scenarios.
const DEFAULT: Scenario = Scenario {
    name: "",
    about: "",
    steps: &[],
    ending: Ending::AllListen,
    limit: Span::mins(10),
    ledger: false,
    writes: Writes::Any,
};

impl Scenario {
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// The time of the last step.
    pub fn steps_end(&self) -> Span {
        self.steps.iter().map(|(at, _)| *at).max().unwrap_or(Span::ZERO)
    }

    #[must_use]
    pub fn has_ended(&self, world: &World) -> bool {
        let (listening, enabled) = world.listening(0);
        match self.ending {
            Ending::AllListen => listening == enabled,
            Ending::AllListenAndJobsDone => listening == enabled && jobs_left(world) == 0,
            Ending::AllButTheFirst => listening.saturating_add(1) >= enabled,
        }
    }
}

impl Step {
    /// Applies the step, and describes it for a spectator.
    pub fn apply(self, world: &mut World, build: Build, now: Wall) -> String {
        let sets = sets(world);
        let first = sets.first().copied();
        match self {
            Self::Kill => {
                let (listening, _) = world.listening(0);
                world.kill(0, now);
                format!("GARM is killed (SIGKILL). GitHub keeps its {listening} sessions.")
            }
            Self::Stop => {
                world.stop(0, now);
                "GARM is stopped (SIGTERM). It deletes its sessions on the way out.".to_owned()
            }
            Self::Start => {
                world.start(0, now);
                let behaviour = if build.retries() {
                    "This build retries every 2 s when it is refused."
                } else {
                    "This build gives up for good when it is refused."
                };
                format!("GARM starts again. {behaviour}")
            }
            Self::ForeignOwner(span) => {
                if let Some((_, set)) = first {
                    let until = now.plus(span);
                    world.github.foreign_owner_takes(set, "garm-of-somebody-else", Takeover::WhenFree, now, until);
                }
                "Another controller takes the first set's session as soon as it is free.".to_owned()
            }
            Self::OperatorDisables => {
                if let (Some((set, _)), Some((garm, _))) = (sets.get(1), world.garm_mut(0)) {
                    garm.operator_sets_enabled(*set, false, now);
                }
                "An operator disables the second set.".to_owned()
            }
            Self::RemoveSet => {
                if let Some((_, set)) = first {
                    world.github.remove_set(set, now);
                }
                "The first set is removed at GitHub.".to_owned()
            }
            Self::Evict => {
                if let Some((_, set)) = first {
                    world.github.evict_session(set, now);
                }
                "GitHub forgets the first set's session.".to_owned()
            }
            Self::ForgetAllButFirst => {
                for (_, set) in sets.into_iter().skip(1) {
                    world.github.evict_session(set, now);
                }
                "GitHub forgets all stale sessions but the first.".to_owned()
            }
            Self::RotateLog => "GARM's log file is rotated.".to_owned(),
            Self::RevokeMedic => {
                world.github.revoke_credentials("medic");
                world.github.expire_tokens();
                "The medic's GitHub token is revoked.".to_owned()
            }
            Self::PollsFail => {
                world.github.degrade_service(Degraded::Poll500, Lasts::Forever);
                "GitHub fails every poll at once.".to_owned()
            }
            Self::FaultsEnd => {
                world.github.clear_faults();
                "GitHub works again.".to_owned()
            }
            Self::Overlap(span) => {
                let owner = world.garm(0).map(|garm| format!("garm-{}", garm.controller_id())).unwrap_or_default();
                for (_, set) in sets {
                    world.github.foreign_owner_takes(set, &owner, Takeover::AtOnce, now, now.plus(span));
                }
                format!("The old GARM process runs for {span} more, and holds all sessions.")
            }
            Self::PhantomConflicts(span) => {
                for (_, set) in sets {
                    world.github.phantom_conflict(set, now.plus(span));
                }
                "GitHub refuses sessions that nobody holds.".to_owned()
            }
            Self::DeletesHang => {
                world.github.inject(Fault::on(Route::DeleteSession, FaultKind::Never));
                "GitHub does not answer when a session is deleted.".to_owned()
            }
            Self::Poison(poisoned) => {
                if let (Some((set, _)), Some((garm, _))) = (first, world.garm_mut(0)) {
                    garm.poison(set, poisoned);
                }
                if poisoned {
                    "GARM cannot handle the first set's next message; GitHub delivers it again and again.".to_owned()
                } else {
                    "GARM can handle the first set's messages again.".to_owned()
                }
            }
            Self::Jobs(count) => {
                for (_, set) in &sets {
                    world.github.queue_jobs(*set, count, now);
                }
                let jobs = if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") };
                format!("Workflows queue {jobs} for each of the {} sets.", sets.len())
            }
        }
    }
}

/// Jobs that have not finished.
fn jobs_left(world: &World) -> u64 {
    let left = sets(world).into_iter().map(|(_, set)| {
        let jobs = world.github.jobs(set);
        jobs.waiting.saturating_add(jobs.assigned).saturating_add(jobs.running)
    });
    left.sum()
}

/// The sets of the first manager, with their ids at GitHub.
fn sets(world: &World) -> Vec<(ScaleSetId, GithubId)> {
    world.garm(0).map(|garm| garm.scale_sets().map(|(id, _, set)| (id, set)).collect()).unwrap_or_default()
}
