//! The faults that a person types while `lab --serve` runs. A line that is no fault is answered with what is.

use crate::cli::output::diagnostic;
use medic_core::model::{Span, Wall};
use medic_lab::garm::{Build, ManagerFault, ManagerRoute};
use medic_lab::github::FaultKind;
use medic_lab::scenario::Act;
use medic_lab::world::World;
use std::fmt::Write as _;
use std::io::BufRead as _;
use tokio::sync::mpsc;

/// Lines that may wait to be obeyed.
const WAITING: usize = 64;
/// How long GARM is down between a crash and the start after it.
pub(super) const DOWN: Span = Span::secs(2);

/// What can be typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// An act, as stories have them.
    Act(Act),
    /// Killed, and started again after [`DOWN`].
    Crash,
    /// GitHub keeps stale sessions this long from now on.
    Stale(Span),
    /// GARM refuses every update of a scale set.
    RefuseUpdates,
    /// The same as soon as the next set has been disabled: it stays disabled.
    RefuseEnable,
    /// GARM's own credential is revoked.
    RevokeManager,
    /// The medic's quota is used up for this long.
    NoQuota(Span),
    /// Everything that was broken is mended; what was killed starts.
    Well,
    /// Says again where to look.
    Where,
    Help,
    Quit,
}

/// Each word, what may follow it, and what it does.
const WORDS: &[(&str, &str, &str)] = &[
    ("crash", "", "GARM is killed and starts again 2 s later"),
    ("kill", "", "GARM is killed and stays down"),
    ("stop", "", "GARM is stopped properly, and stays down"),
    ("start", "", "GARM starts"),
    ("stale", "TIME", "GitHub keeps stale sessions this long from now on (stale 30s)"),
    ("phantom", "TIME", "GitHub refuses sessions that nobody holds for this long (default 4m)"),
    ("foreign", "TIME", "another controller takes the first set's session when it is free (default 1h)"),
    ("evict", "", "GitHub forgets the first set's session"),
    ("remove", "", "the first set is removed at GitHub"),
    ("revoke", "", "the medic's GitHub token is revoked"),
    ("revoke-garm", "", "GARM's GitHub token is revoked"),
    ("no-quota", "TIME", "the medic's GitHub quota is used up for this long (default 10m)"),
    ("broker-fails", "", "GitHub's broker fails every poll at once"),
    ("refuse-updates", "", "GARM refuses every update of a scale set"),
    ("refuse-enable", "", "the same, once the next set has been disabled: it stays so"),
    ("disable", "", "a person disables the second set"),
    ("jobs", "N", "workflows queue so many jobs for each set (default 1)"),
    ("well", "", "all faults end, and GARM starts if it was down"),
    ("where", "", "where to look"),
    ("help", "", "this list"),
    ("quit", "", "the lab ends"),
];

impl Order {
    /// Reads a line; the error says what is wrong with it.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (word, argument) = (words.next().unwrap_or_default(), words.next());
        if let Some(more) = words.next() {
            return Err(format!("{more:?} is one word too many; `help` lists the commands"));
        }
        let Some((_, takes, _)) = WORDS.iter().find(|(name, _, _)| *name == word) else {
            return Err(format!("there is no {word:?}; `help` lists the commands"));
        };
        if let (Some(argument), true) = (argument, takes.is_empty()) {
            return Err(format!("{word} takes no {argument:?}"));
        }
        let time = |usual: Span| argument.map_or(Ok(usual), crate::cli::args::seconds);
        Ok(match word {
            "crash" => Self::Crash,
            "kill" => Self::Act(Act::Kill),
            "stop" => Self::Act(Act::Stop),
            "start" => Self::Act(Act::Start),
            "stale" => Self::Stale(time(Span::secs(90))?),
            "phantom" => Self::Act(Act::PhantomConflicts(time(Span::mins(4))?)),
            "foreign" => Self::Act(Act::ForeignOwner(time(Span::hours(1))?)),
            "evict" => Self::Act(Act::Evict),
            "remove" => Self::Act(Act::RemoveSet),
            "revoke" => Self::Act(Act::RevokeMedic),
            "revoke-garm" => Self::RevokeManager,
            "no-quota" => Self::NoQuota(time(Span::mins(10))?),
            "broker-fails" => Self::Act(Act::BrokerFails),
            "refuse-updates" => Self::RefuseUpdates,
            "refuse-enable" => Self::RefuseEnable,
            "disable" => Self::Act(Act::PersonDisables),
            "jobs" => Self::Act(Act::Jobs(match argument {
                None => 1,
                Some(number) => match number.parse() {
                    Ok(number @ 1..=100) => number,
                    Ok(_) | Err(_) => return Err("write a number of jobs from 1 to 100".to_owned()),
                },
            })),
            "well" => Self::Well,
            "where" => Self::Where,
            "quit" => Self::Quit,
            _ => Self::Help,
        })
    }

    /// Lets it happen to the servers; what to tell a spectator, if anything.
    pub(super) fn happen(self, world: &mut World, build: Build, now: Wall) -> Option<String> {
        Some(match self {
            Self::Act(act) => act.happen(world, build, now),
            Self::Crash => Act::Kill.happen(world, build, now),
            Self::Stale(span) => {
                world.github.reconfigure(|github| github.stale_lifetime = span);
                format!("GitHub keeps stale sessions for {span} from now on.")
            }
            Self::RefuseEnable => "GARM will refuse every update once the next set has been disabled.".to_owned(),
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
                // Only the REST API counts, which is asked for new tokens.
                world.github.expire_tokens();
                format!("The medic's GitHub quota is used up for {span}.")
            }
            Self::Well => {
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
                "Everything that was broken is mended.".to_owned()
            }
            Self::Where | Self::Help | Self::Quit => return None,
        })
    }
}

/// All commands, for a person.
pub(super) fn help() -> String {
    let mut out = String::from("Type a fault and watch the medic:\n");
    for (word, argument, does) in WORDS {
        let _ = writeln!(out, "  {:<16} {does}", format!("{word} {argument}").trim_end());
    }
    out
}

/// Orders as they are typed. The sender ends with the input; the lab goes on without.
pub(super) fn typed() -> mpsc::Receiver<Order> {
    let (orders, received) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line.trim().is_empty() {
                continue;
            }
            match Order::parse(&line) {
                Ok(order) if orders.blocking_send(order).is_err() => return,
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
    fn every_listed_word_is_obeyed_and_only_help_means_help() {
        for (word, _, _) in WORDS {
            let order = Order::parse(word).unwrap();
            assert_eq!(order == Order::Help, *word == "help", "{word}");
        }
    }

    #[test]
    fn arguments_are_read_and_mistakes_are_told() {
        assert_eq!(Order::parse(" stale 30s "), Ok(Order::Stale(Span::secs(30))));
        assert_eq!(Order::parse("jobs 3"), Ok(Order::Act(Act::Jobs(3))));
        for (line, why) in [
            ("cra", "there is no"),
            ("crash now", "takes no"),
            ("stale a b", "one word too many"),
            ("jobs 0", "1 to 100"),
            ("stale soon", "write 90"),
        ] {
            let told = Order::parse(line).unwrap_err();
            assert!(told.contains(why), "{line}: {told}");
        }
    }
}
