#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! Stories that the lab plays: what happens to the simulated servers, and when.

use super::garm::Build;
use super::github::{Degraded, Fault, FaultKind, Lasts, Leaving, Route, Takeover};
use super::world::World;
use medic_core::model::{Span, Wall};

/// One event of a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Kill,
    Stop,
    Start,
    /// Another controller wants the first set's session as soon as it is free, and keeps it this long.
    ForeignOwner(Span),
    /// A person disables the second set.
    PersonDisables,
    /// Jobs are queued for every set.
    Jobs(u32),
    /// The first set is removed at GitHub.
    RemoveSet,
    /// GitHub forgets the first set's session.
    Evict,
    /// GitHub forgets every session but the first set's.
    ForgetAllButFirst,
    /// The log file is rotated.
    RotateLog,
    /// The medic's token is revoked.
    RevokeMedic,
    /// Every poll fails at once.
    BrokerFails,
    /// GitHub is well again.
    FaultsEnd,
    /// The old process of the same controller lives on so long, and holds all sessions.
    Overlap(Span),
    /// Sessions are refused so long although nobody holds one.
    PhantomConflicts(Span),
    /// GitHub never answers when a session is to be deleted.
    DeletesHang,
    /// The first set's job messages cannot be handled; or they can again.
    Poison(bool),
}

/// What a story comes to, if all goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every enabled set listens.
    AllListen,
    /// The same, and no job waits any more.
    AllListenAndJobsDone,
    /// Every enabled set but the first.
    AllButTheFirst,
}

#[derive(Debug, Clone, Copy)]
pub struct Story {
    /// Its name on the command line.
    pub name: &'static str,
    pub about: &'static str,
    /// What happens, with dates since the beginning.
    pub acts: &'static [(Span, Act)],
    pub ending: Ending,
    /// How long it may take to end, after its last act.
    pub limit: Span,
    /// Whether the medic reads GARM's log.
    pub ledger: bool,
    /// Updates that the medic may send to GARM.
    pub writes: Writes,
}

/// Updates that the medic may send to GARM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// As many as there are sets to mend.
    Any,
    /// Not more than so many.
    AtMost(usize),
    None,
}

/// All stories; the first is the one that is played unless told.
pub const STORIES: &[Story] = &[
    Story {
        name: "crash-no-ledger",
        about: "GARM is killed and started again; GitHub still has its sessions, and every set is refused",
        acts: &[
            (Span::secs(5), Act::Jobs(1)),
            (Span::secs(110), Act::Kill),
            (Span::secs(112), Act::Start),
            (Span::secs(120), Act::Jobs(1)),
        ],
        ending: Ending::AllListenAndJobsDone,
        ..CALM
    },
    Story {
        name: "crash-ledger",
        about: "the same, and the medic reads GARM's log: it knows the stale sessions and ends them at once",
        acts: &[(Span::secs(60), Act::Kill), (Span::secs(62), Act::Start)],
        ledger: true,
        ..CALM
    },
    Story {
        name: "crash-soon",
        about: "GARM is killed soon and started again: at the speed of life there is a minute and a half to watch it",
        acts: &[
            (Span::secs(5), Act::Jobs(1)),
            (Span::secs(20), Act::Kill),
            (Span::secs(22), Act::Start),
            (Span::secs(30), Act::Jobs(1)),
        ],
        ending: Ending::AllListenAndJobsDone,
        ..CALM
    },
    Story {
        name: "quiet",
        about: "nothing happens by itself: with --serve, you type what shall",
        writes: Writes::None,
        ..CALM
    },
    Story {
        name: "graceful-restart",
        about: "GARM is stopped properly and started again: no incident, and nothing is done",
        acts: &[(Span::secs(30), Act::Stop), (Span::secs(33), Act::Start)],
        writes: Writes::None,
        ..CALM
    },
    Story {
        name: "person",
        about: "a person disables a set, then GARM crashes: the set stays as the person wants it",
        acts: &[(Span::secs(20), Act::PersonDisables), (Span::secs(60), Act::Kill), (Span::secs(62), Act::Start)],
        ..CALM
    },
    Story {
        name: "foreign-owner",
        about: "after the crash another controller takes the first set's session: it is never touched",
        acts: &[
            (Span::secs(30), Act::Kill),
            (Span::secs(31), Act::ForeignOwner(Span::hours(1))),
            (Span::secs(32), Act::Start),
        ],
        ending: Ending::AllButTheFirst,
        ..CALM
    },
    Story {
        name: "set-removed",
        about: "a set is removed at GitHub under its listener; GARM dies of it, and makes the set anew at its next start",
        acts: &[(Span::secs(30), Act::RemoveSet), (Span::secs(100), Act::Start)],
        ledger: true,
        ..CALM
    },
    Story {
        name: "session-evicted",
        about: "GitHub forgets a session under a running listener: GARM mends that itself, and nothing is done",
        acts: &[(Span::secs(30), Act::Evict)],
        writes: Writes::None,
        ledger: true,
        ..CALM
    },
    Story {
        name: "manager-crash-loop",
        about: "GARM crashes again and again, each time before its sets could be treated",
        acts: &[
            (Span::secs(30), Act::Kill),
            (Span::secs(32), Act::Start),
            (Span::secs(42), Act::Kill),
            (Span::secs(44), Act::Start),
            (Span::secs(54), Act::Kill),
            (Span::secs(56), Act::Start),
        ],
        ledger: true,
        ..CALM
    },
    Story {
        name: "two-crashes-in-a-row",
        about: "GARM crashes a second time while the medic treats its sets",
        acts: &[
            (Span::secs(30), Act::Kill),
            (Span::secs(32), Act::Start),
            (Span::secs(60), Act::Kill),
            (Span::secs(62), Act::Start),
        ],
        ..CALM
    },
    Story {
        name: "log-rotated",
        about: "GARM's log is rotated while it is down; the ledger misses nothing",
        acts: &[(Span::secs(60), Act::Kill), (Span::secs(61), Act::RotateLog), (Span::secs(62), Act::Start)],
        ledger: true,
        ..CALM
    },
    Story {
        name: "token-revoked",
        about: "the medic's own GitHub token is revoked before the crash: no session can be deleted, toggling still heals",
        acts: &[(Span::secs(20), Act::RevokeMedic), (Span::secs(60), Act::Kill), (Span::secs(62), Act::Start)],
        ledger: true,
        ..CALM
    },
    Story {
        name: "partial-conflict",
        about: "only one of the sets is refused after the crash: the others are left alone",
        acts: &[(Span::secs(60), Act::Kill), (Span::secs(61), Act::ForgetAllButFirst), (Span::secs(62), Act::Start)],
        ledger: true,
        writes: Writes::AtMost(2),
        ..CALM
    },
    Story {
        name: "poll-fails-fast",
        about: "GitHub's broker fails every poll at once: sessions open and end in a loop, and the medic freezes",
        acts: &[(Span::secs(40), Act::BrokerFails), (Span::secs(160), Act::FaultsEnd)],
        writes: Writes::None,
        ..CALM
    },
    Story {
        name: "delete-never-answered",
        about: "GitHub never answers the deletion of the stale sessions: it is settled by asking again, and harms nobody",
        acts: &[
            (Span::secs(60), Act::Kill),
            (Span::secs(61), Act::DeletesHang),
            (Span::secs(62), Act::Start),
            (Span::secs(90), Act::FaultsEnd),
        ],
        ledger: true,
        ..CALM
    },
    Story {
        name: "poison-message",
        about: "one message of the first set can never be handled: it polls, and its jobs wait; a person is told",
        acts: &[
            (Span::secs(20), Act::Poison(true)),
            (Span::secs(22), Act::Jobs(1)),
            (Span::secs(200), Act::Poison(false)),
        ],
        ending: Ending::AllListenAndJobsDone,
        ledger: true,
        writes: Writes::None,
        ..CALM
    },
    Story {
        name: "rolling-update-overlap",
        about: "the old GARM lives on for 40 s beside the new one: the new one is refused until the old one is gone",
        acts: &[
            (Span::secs(60), Act::Kill),
            (Span::secs(60), Act::Overlap(Span::secs(40))),
            (Span::secs(61), Act::Start),
        ],
        ..CALM
    },
    Story {
        name: "github-conflict-fault",
        about: "GitHub refuses sessions that nobody holds, for four minutes, after a proper restart",
        acts: &[
            (Span::secs(30), Act::Stop),
            (Span::secs(31), Act::PhantomConflicts(Span::mins(4))),
            (Span::secs(33), Act::Start),
        ],
        ..CALM
    },
];

/// What most stories have in common.
const CALM: Story = Story {
    name: "",
    about: "",
    acts: &[],
    ending: Ending::AllListen,
    limit: Span::mins(10),
    ledger: false,
    writes: Writes::Any,
};

impl Story {
    /// The story of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        STORIES.iter().find(|story| story.name == name)
    }

    /// When the last act is over.
    #[must_use]
    pub fn acts_end(&self) -> Span {
        self.acts.iter().map(|(at, _)| *at).max().unwrap_or(Span::ZERO)
    }

    /// Whether the world has come to the story's ending.
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

impl Act {
    /// Lets it happen; what to tell a spectator.
    pub fn happen(self, world: &mut World, build: Build, now: Wall) -> String {
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
                let habit = if build.retries() {
                    "This build retries every 2 s when it is refused."
                } else {
                    "This build gives up for good when it is refused."
                };
                format!("GARM starts again. {habit}")
            }
            Self::ForeignOwner(span) => {
                if let Some(set) = first_set(world) {
                    let how = (Takeover::WhenFree, Leaving::Deletes);
                    world.github.foreign_owner_takes(set, "garm-of-somebody-else", how, now, now.plus(span));
                }
                "Another controller wants the first set's session as soon as it is free.".to_owned()
            }
            Self::PersonDisables => {
                let second = world.garm(0).and_then(|garm| garm.scale_sets().nth(1).map(|(id, _, _)| id));
                if let (Some(set), Some((garm, _))) = (second, world.garm_mut(0)) {
                    garm.person_sets_enabled(set, false, now);
                }
                "A person disables the second set.".to_owned()
            }
            Self::RemoveSet => {
                if let Some(set) = first_set(world) {
                    world.github.remove_set(set, now);
                }
                "The first set is removed at GitHub.".to_owned()
            }
            Self::Evict => {
                if let Some(set) = first_set(world) {
                    world.github.evict_session(set, now);
                }
                "GitHub forgets the first set's session.".to_owned()
            }
            Self::ForgetAllButFirst => {
                for set in all_sets(world).into_iter().skip(1) {
                    world.github.evict_session(set, now);
                }
                "GitHub has already forgotten all stale sessions but the first.".to_owned()
            }
            // The stage does it: the world knows no files.
            Self::RotateLog => "GARM's log file is rotated.".to_owned(),
            Self::RevokeMedic => {
                world.github.revoke_credentials("medic");
                world.github.expire_tokens();
                "The medic's GitHub token is revoked.".to_owned()
            }
            Self::BrokerFails => {
                world.github.broker_degraded(Degraded::Poll500, Lasts::Forever);
                "GitHub's broker fails every poll at once.".to_owned()
            }
            Self::FaultsEnd => {
                world.github.clear_faults();
                "GitHub is well again.".to_owned()
            }
            Self::Overlap(span) => {
                let owner = world.garm(0).map(|garm| format!("garm-{}", garm.controller_id())).unwrap_or_default();
                for set in all_sets(world) {
                    let how = (Takeover::AtOnce, Leaving::Deletes);
                    world.github.foreign_owner_takes(set, &owner, how, now, now.plus(span));
                }
                "The old process lives on for a while, and holds all sessions.".to_owned()
            }
            Self::PhantomConflicts(span) => {
                for set in all_sets(world) {
                    world.github.phantom_conflict(set, now.plus(span));
                }
                "GitHub refuses sessions that nobody holds.".to_owned()
            }
            Self::DeletesHang => {
                let fault = Fault { lasts: Lasts::Forever, ..Fault::on(Route::DeleteSession, FaultKind::Never) };
                world.github.inject(fault);
                "GitHub never answers when a session is to be deleted.".to_owned()
            }
            Self::Poison(poisoned) => {
                let first = world.garm(0).and_then(|garm| garm.scale_sets().next().map(|(id, _, _)| id));
                if let (Some(set), Some((garm, _))) = (first, world.garm_mut(0)) {
                    garm.poison(set, poisoned);
                }
                if poisoned {
                    "GARM cannot handle the first set's next message; it comes again and again.".to_owned()
                } else {
                    "GARM can handle the first set's messages again.".to_owned()
                }
            }
            Self::Jobs(count) => {
                let sets: Vec<_> = world
                    .garm(0)
                    .map(|garm| garm.scale_sets().map(|(_, _, forge)| forge).collect())
                    .unwrap_or_default();
                for set in &sets {
                    world.github.queue_jobs(*set, count, now);
                }
                format!("Workflows queue {count} job for each of the {} sets.", sets.len())
            }
        }
    }
}

/// Jobs that have not finished.
fn jobs_left(world: &World) -> u64 {
    let Some(garm) = world.garm(0) else { return 0 };
    let left = garm.scale_sets().map(|(_, _, forge)| {
        let jobs = world.github.jobs(forge);
        jobs.waiting.saturating_add(jobs.assigned).saturating_add(jobs.running)
    });
    left.sum()
}

fn all_sets(world: &World) -> Vec<medic_core::model::GithubId> {
    world.garm(0).map(|garm| garm.scale_sets().map(|(_, _, forge)| forge).collect()).unwrap_or_default()
}

fn first_set(world: &World) -> Option<medic_core::model::GithubId> {
    world.garm(0)?.scale_sets().next().map(|(_, _, forge)| forge)
}
