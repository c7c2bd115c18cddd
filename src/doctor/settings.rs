//! The medic itself: its mode, its rules, its state directory, its ledger, its pauses.

use super::facts::{Facts, StateDir, StoreFacts};
use super::{Check, Finding, Subject};
use crate::config::describe::{RiskySetting, risks};
use crate::text::guards;
use medic_core::model::{Enablement, ManagerName, Treatment};
use medic_core::policy::Mode;

const MEDIC: Subject = Subject::Medic;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![mode(facts), policy(facts), state_dir(facts), ledger(facts)];
    all.extend(pauses(facts));
    all.extend(facts.left_disabled.iter().map(|(manager, row)| left_disabled(facts, manager, row)));
    all
}

fn mode(facts: &Facts) -> Finding {
    match facts.config.run.mode {
        Mode::Heal => Check::Mode.ok(MEDIC, "heal: a set that is proven to be stuck is healed"),
        Mode::Observe => Check::Mode
            .warn(MEDIC, "observe (the default)")
            .risks("nothing is healed: the medic only shows what it would do")
            .step("once you trust its decisions, in the medic's configuration:", &["[run]", "mode = \"heal\""]),
    }
}

/// Settings that are allowed and rarely meant.
fn policy(facts: &Facts) -> Finding {
    let enabled = facts
        .managers
        .iter()
        .map(|manager| manager.sets().iter().filter(|set| set.enabled == Enablement::Enabled).count());
    let most_sets = enabled.max().unwrap_or(0);
    let mut risks: Vec<RiskySetting> = risks(&facts.config).collect();
    let heals = facts.config.policy.heals_per_hour;
    if usize::try_from(heals).unwrap_or(usize::MAX) < most_sets {
        risks.push(RiskySetting {
            section: "policy",
            setting: format!("heals_per_hour = {heals}, and a manager has {most_sets} enabled sets"),
            why: "the budget does not cover one crash",
            usual: format!("heals_per_hour = {}", most_sets.saturating_mul(2).max(1000)),
        });
    }
    if risks.is_empty() {
        return Check::Policy.ok(MEDIC, "the rules fit what was measured of GARM and GitHub");
    }
    let join = |each: fn(&RiskySetting) -> &str| risks.iter().map(each).collect::<Vec<_>>();
    Check::Policy.warn(MEDIC, join(|risk| &risk.setting).join("; ")).risks(join(|risk| risk.why).join("; ")).step(
        "in the medic's configuration ([policy], and interval in [run]), unless it is intended:",
        &join(|risk| &risk.usual),
    )
}

fn state_dir(facts: &Facts) -> Finding {
    let dir = facts.config.run.state_dir.display();
    match &facts.state_dir {
        StateDir::Unusable(why) => Check::StateDir
            .fail(MEDIC, why.clone())
            .risks(
                "`run` and `once` cannot start: without a journal on disk a set could be left disabled, so nothing \
                 is healed",
            )
            .step(
                "give the medic's user a directory that outlives restarts; in a pod, a volume of its own:",
                &[
                    "volumes: [{ name: medic-state, emptyDir: { sizeLimit: 256Mi } }]",
                    &format!("volumeMounts: [{{ name: medic-state, mountPath: {dir} }}]"),
                ],
            ),
        StateDir::Writable { mode: Some(mode) } if mode & 0o002 != 0 => Check::StateDir
            .warn(MEDIC, format!("{dir} is writable, by everybody ({mode:o})"))
            .risks("anybody who can write there can make the medic delete sessions or enable sets")
            .step("remove the right:", &[&format!("chmod 0700 {dir}")]),
        StateDir::Writable { mode: Some(mode) } => Check::StateDir.ok(MEDIC, format!("{dir} is writable ({mode:o})")),
        StateDir::Writable { mode: None } => Check::StateDir.ok(MEDIC, format!("{dir} can be made when it is needed")),
    }
}

fn ledger(facts: &Facts) -> Finding {
    match &facts.store {
        StoreFacts::Absent => Check::Ledger.ok(MEDIC, "none yet: no medic has run with this state directory"),
        StoreFacts::Readable { live_sessions, open_treatments, pauses: _, holder } => {
            let running = holder.as_ref().map_or_else(|| "no medic runs".to_owned(), |name| format!("{name} runs"));
            let seen = format!(
                "readable: {live_sessions} sessions known to live, {open_treatments} treatments under way, {running}"
            );
            Check::Ledger.ok(MEDIC, seen)
        }
        StoreFacts::Unreadable(why) => Check::Ledger
            .fail(MEDIC, why.clone())
            .risks("no session can be proven stale, so none is deleted; a medic cannot start with this file")
            .step(
                "check that no set is left disabled, keep a copy, then let the medic start with a new file:",
                &[&format!("mv {0}/medic.db {0}/medic.db.broken", facts.config.run.state_dir.display())],
            ),
    }
}

/// A set that we disabled and did not enable again.
fn left_disabled(facts: &Facts, manager: &ManagerName, row: &Treatment) -> Finding {
    let tries = row.tries().map_or(0, |(tries, _)| tries);
    let answer =
        row.refusal.as_ref().map_or_else(String::new, |why| format!("; tried {tries} times, the last answer: {why}"));
    let seen = format!("{} is disabled by our treatment, begun {} ago{answer}", row.name, facts.at.since(row.opened));
    Check::LeftDisabled
        .fail(Subject::Manager(manager.clone()), seen)
        .risks("it receives no jobs until it is enabled; a running medic keeps trying")
        .step("enable it by hand:", &[&format!("garm-cli scaleset update {} --enabled=true", row.set)])
}

/// Pauses are intended; they are shown because they are forgotten.
fn pauses(facts: &Facts) -> Option<Finding> {
    let kept = match &facts.store {
        StoreFacts::Readable { pauses, .. } => pauses.as_slice(),
        StoreFacts::Absent | StoreFacts::Unreadable(_) => &[],
    };
    let all: Vec<_> = kept.iter().chain(&facts.pause_file).collect();
    if all.is_empty() {
        return None;
    }
    let terms: Vec<_> =
        all.iter().map(|pause| format!("{}, {}", pause.scope, guards::pause_terms(pause, facts.at))).collect();
    let found = Check::Pauses.warn(MEDIC, format!("paused: {}", terms.join("; ")));
    let mut ends: Vec<_> = all.iter().map(|pause| guards::how_to_end(pause)).collect();
    ends.dedup();
    let ends: Vec<_> = ends.iter().map(String::as_str).collect();
    Some(found.risks("nothing is healed within their scope").step("to end them:", &ends))
}
