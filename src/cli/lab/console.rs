//! The commands that can be typed while `lab --serve` runs.

use crate::cli::output::diagnostic;
use medic_core::model::{Span, Wall};
use medic_lab::garm::{Build, ManagerFault, ManagerRoute};
use medic_lab::github::FaultKind;
use medic_lab::scenario::Step;
use medic_lab::world::World;
use std::fmt::Write as _;
use std::io::BufRead as _;
use tokio::sync::mpsc;

/// Typed lines that may wait.
const WAITING: usize = 64;
/// How long GARM is down between a crash and the start after it.
pub(super) const DOWN: Span = Span::secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// A step of scenarios.
    Step(Step),
    /// Killed, and started again after [`DOWN`].
    Crash,
    /// The lifetime of stale sessions from now on.
    Stale(Span),
    /// GARM refuses every update of a scale set.
    RefuseUpdates,
    /// The same once a set has been disabled: it stays disabled.
    RefuseEnable,
    /// GARM's own credential is revoked.
    RevokeManager,
    /// The medic's quota is exhausted for this long.
    NoQuota(Span),
    /// All faults end; GARM starts if it was down.
    Clear,
    /// Prints the addresses again.
    Where,
    Help,
    Quit,
}

/// Each word, what may follow it, and what it does.
const WORDS: &[(&str, &str, &str)] = &[
    ("crash", "", "GARM is killed and starts again 2 s later"),
    ("kill", "", "GARM is killed and stays down"),
    ("stop", "", "GARM is stopped cleanly and stays down"),
    ("start", "", "GARM starts"),
    ("stale", "TIME", "GitHub keeps stale sessions this long from now on (stale 30s)"),
    ("phantom", "TIME", "GitHub refuses sessions that nobody holds for this long (default 4m)"),
    ("foreign", "TIME", "another controller takes the first set's session once it is free (default 1h)"),
    ("evict", "", "GitHub forgets the first set's session"),
    ("remove", "", "the first set is removed at GitHub"),
    ("revoke", "", "the medic's GitHub token is revoked"),
    ("revoke-garm", "", "GARM's GitHub token is revoked"),
    ("no-quota", "TIME", "the medic's GitHub quota is exhausted for this long (default 10m)"),
    ("polls-fail", "", "GitHub fails every poll at once"),
    ("refuse-updates", "", "GARM refuses every update of a scale set"),
    ("refuse-enable", "", "the same once a set has been disabled: it stays disabled"),
    ("disable", "", "an operator disables the second set"),
    ("jobs", "N", "workflows queue N jobs for each set (default 1)"),
    ("clear", "", "all faults end, and GARM starts if it was down"),
    ("where", "", "print the addresses again"),
    ("help", "", "this list"),
    ("quit", "", "the lab ends"),
];

impl Command {
    /// Reads a line; the error is for the terminal.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (word, argument) = (words.next().unwrap_or_default(), words.next());
        if let Some(more) = words.next() {
            return Err(format!("unexpected {more:?}; `help` lists the commands"));
        }
        let Some((_, takes, _)) = WORDS.iter().find(|(name, _, _)| *name == word) else {
            return Err(format!("unknown command {word:?}; `help` lists the commands"));
        };
        if let (Some(argument), true) = (argument, takes.is_empty()) {
            return Err(format!("{word} takes no argument, but got {argument:?}"));
        }
        let time = |usual: Span| argument.map_or(Ok(usual), crate::cli::args::seconds);
        Ok(match word {
            "crash" => Self::Crash,
            "kill" => Self::Step(Step::Kill),
            "stop" => Self::Step(Step::Stop),
            "start" => Self::Step(Step::Start),
            "stale" => Self::Stale(time(Span::secs(90))?),
            "phantom" => Self::Step(Step::PhantomConflicts(time(Span::mins(4))?)),
            "foreign" => Self::Step(Step::ForeignOwner(time(Span::hours(1))?)),
            "evict" => Self::Step(Step::Evict),
            "remove" => Self::Step(Step::RemoveSet),
            "revoke" => Self::Step(Step::RevokeMedic),
            "revoke-garm" => Self::RevokeManager,
            "no-quota" => Self::NoQuota(time(Span::mins(10))?),
            "polls-fail" => Self::Step(Step::PollsFail),
            "refuse-updates" => Self::RefuseUpdates,
            "refuse-enable" => Self::RefuseEnable,
            "disable" => Self::Step(Step::OperatorDisables),
            "jobs" => Self::Step(Step::Jobs(match argument {
                None => 1,
                Some(number) => match number.parse() {
                    Ok(number @ 1..=100) => number,
                    Ok(_) | Err(_) => return Err("write a number of jobs from 1 to 100".to_owned()),
                },
            })),
            "clear" => Self::Clear,
            "where" => Self::Where,
            "quit" => Self::Quit,
            _ => Self::Help,
        })
    }

    /// Applies the command to the servers; the text for a spectator, if any.
    pub(super) fn apply(self, world: &mut World, build: Build, now: Wall) -> Option<String> {
        Some(match self {
            Self::Step(step) => step.apply(world, build, now),
            Self::Crash => Step::Kill.apply(world, build, now),
            Self::Stale(span) => {
                world.github.reconfigure(|github| github.stale_lifetime = span);
                format!("GitHub keeps stale sessions for {span} from now on.")
            }
            Self::RefuseEnable => "GARM will refuse every update once a set has been disabled.".to_owned(),
            Self::RefuseUpdates => {
                if let Some((garm, _)) = world.garm_mut(0) {
                    garm.inject(ManagerFault::on(ManagerRoute::UpdateSet, FaultKind::status(500)));
                }
                "GARM refuses every update of a scale set.".to_owned()
            }
            Self::RevokeManager => {
                world.github.revoke_credentials("garm");
                world.github.expire_tokens();
                "GARM's GitHub token is revoked.".to_owned()
            }
            Self::NoQuota(span) => {
                world.github.exhaust_quota("medic", now.plus(span));
                // Only the REST API, which issues tokens, has a quota.
                world.github.expire_tokens();
                format!("The medic's GitHub quota is exhausted for {span}.")
            }
            Self::Clear => {
                world.github.clear_faults();
                let sets: Vec<_> =
                    world.garm(0).map(|garm| garm.scale_sets().map(|(_, _, set)| set).collect()).unwrap_or_default();
                for set in sets {
                    world.github.phantom_conflict(set, now);
                    world.github.foreign_owner_leaves(set, now);
                }
                for credential in ["medic", "garm"] {
                    world.github.restore_credentials(credential);
                }
                if let Some((garm, _)) = world.garm_mut(0) {
                    garm.clear_faults();
                }
                if world.garm(0).is_some_and(|garm| !garm.is_running()) {
                    world.start(0, now);
                }
                "All faults have ended.".to_owned()
            }
            Self::Where | Self::Help | Self::Quit => return None,
        })
    }
}

pub(super) fn help() -> String {
    let mut out = String::from("Type a fault and watch the medic:\n");
    for (word, argument, does) in WORDS {
        let _ = writeln!(out, "  {:<16} {does}", format!("{word} {argument}").trim_end());
    }
    out
}

/// Typed commands. The channel closes at the end of the input; the lab keeps running.
pub(super) fn typed() -> mpsc::Receiver<Command> {
    let (commands, received) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line.trim().is_empty() {
                continue;
            }
            match Command::parse(&line) {
                Ok(command) if commands.blocking_send(command).is_err() => return,
                Ok(_) => {}
                Err(why) => diagnostic(&format!("{why}\n")),
            }
        }
    });
    received
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_knows_every_listed_word() {
        for (word, _, _) in WORDS {
            let command = Command::parse(word).unwrap();
            assert_eq!(command == Command::Help, *word == "help", "{word}");
        }
    }

    #[test]
    fn parse_reads_arguments_and_reports_mistakes() {
        assert_eq!(Command::parse(" stale 30s "), Ok(Command::Stale(Span::secs(30))));
        assert_eq!(Command::parse("jobs 3"), Ok(Command::Step(Step::Jobs(3))));
        for (line, why) in [
            ("cra", "unknown command"),
            ("crash now", "takes no"),
            ("stale a b", "unexpected"),
            ("jobs 0", "1 to 100"),
            ("stale soon", "write 90"),
        ] {
            let error = Command::parse(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
