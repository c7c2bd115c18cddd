#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! Stories that the lab plays: what happens to the simulated servers, and when.

use super::garm::Generation;
use super::github::{Leaving, Takeover};
use super::world::World;
use crate::model::{Span, Wall};

/// One event of a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Stop,
    /// The process starts.
    Start,
    /// Another controller wants the first set's session as soon as it is free, and keeps it this long.
    ForeignOwner(Span),
    /// A person disables the second set.
    PersonDisables,
    /// Jobs are queued for every set.
    Jobs(u32),
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

/// A story.
#[derive(Debug, Clone, Copy)]
pub struct Story {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// What happens, with dates since the beginning.
    pub acts: &'static [(Span, Act)],
    /// How it ends.
    pub ending: Ending,
    /// How long it may take to end, after its last act.
    pub limit: Span,
}

/// All stories; the first is the one that is played unless told.
pub const STORIES: &[Story] = &[
    Story {
        name: "crash",
        about: "GARM is killed and started again; GitHub still has its sessions, and every set is refused",
        acts: &[
            (Span::secs(5), Act::Jobs(1)),
            (Span::secs(110), Act::Kill),
            (Span::secs(112), Act::Start),
            (Span::secs(120), Act::Jobs(1)),
        ],
        ending: Ending::AllListenAndJobsDone,
        limit: Span::mins(10),
    },
    Story {
        name: "clean-restart",
        about: "GARM is stopped properly and started again: no incident, and nothing is done",
        acts: &[(Span::secs(30), Act::Stop), (Span::secs(33), Act::Start)],
        ending: Ending::AllListen,
        limit: Span::mins(2),
    },
    Story {
        name: "person",
        about: "a person disables a set, then GARM crashes: the set stays as the person wants it",
        acts: &[(Span::secs(20), Act::PersonDisables), (Span::secs(60), Act::Kill), (Span::secs(62), Act::Start)],
        ending: Ending::AllListen,
        limit: Span::mins(10),
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
        limit: Span::mins(10),
    },
];

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
    pub fn happen(self, world: &mut World, generation: Generation, now: Wall) -> String {
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
                let habit = if generation.retries() {
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

fn first_set(world: &World) -> Option<crate::model::ForgeId> {
    world.garm(0)?.scale_sets().next().map(|(_, _, forge)| forge)
}
