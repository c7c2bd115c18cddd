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
        Mode::Heal => Finding::ok(Check::Mode, &MEDIC, "heal: what is proven ill is healed"),
        Mode::Observe => Finding::warn(Check::Mode, &MEDIC, "observe (the default)")
            .risks("nothing will be healed: the medic only says what it would do")
            .step("once its verdicts have convinced you, in the medic's configuration:", &["[run]", "mode = \"heal\""]),
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
        return Finding::ok(Check::Policy, &MEDIC, "the rules fit what was measured of GARM and GitHub");
    }
    let join = |each: fn(&RiskySetting) -> &str| risks.iter().map(each).collect::<Vec<_>>();
    Finding::warn(Check::Policy, &MEDIC, join(|risk| &risk.setting).join("; "))
        .risks(join(|risk| risk.why).join("; "))
        .step(
            "in the medic's configuration ([policy], and interval in [run]), unless it is intended:",
            &join(|risk| &risk.usual),
        )
}

fn state_dir(facts: &Facts) -> Finding {
    let dir = facts.config.run.state_dir.display();
    match &facts.state_dir {
        StateDir::Unusable(why) => Finding::fail(Check::StateDir, &MEDIC, why.clone())
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
        StateDir::Writable { mode: Some(mode) } if mode & 0o002 != 0 => {
            Finding::warn(Check::StateDir, &MEDIC, format!("{dir} is writable, by everybody ({mode:o})"))
                .risks("whoever can write there can make the medic delete sessions or enable sets")
                .step("close it:", &[&format!("chmod 0700 {dir}")])
        }
        StateDir::Writable { mode: Some(mode) } => {
            Finding::ok(Check::StateDir, &MEDIC, format!("{dir} is writable ({mode:o})"))
        }
        StateDir::Writable { mode: None } => {
            Finding::ok(Check::StateDir, &MEDIC, format!("{dir} can be made when it is needed"))
        }
    }
}

fn ledger(facts: &Facts) -> Finding {
    match &facts.store {
        StoreFacts::Absent => {
            Finding::ok(Check::Ledger, &MEDIC, "none yet: no medic has run with this state directory")
        }
        StoreFacts::Readable { live_sessions, open_treatments, pauses: _, holder } => {
            let running = holder.as_ref().map_or_else(|| "no medic runs".to_owned(), |name| format!("{name} runs"));
            let seen = format!(
                "readable: {live_sessions} sessions known to live, {open_treatments} treatments under way, {running}"
            );
            Finding::ok(Check::Ledger, &MEDIC, seen)
        }
        StoreFacts::Unreadable(why) => Finding::fail(Check::Ledger, &MEDIC, why.clone())
            .risks("no session can be proven stale, so none is deleted; a medic cannot start with this file")
            .step(
                "see that no set is left disabled, keep a copy, then let the medic begin anew:",
                &[&format!("mv {0}/medic.db {0}/medic.db.broken", facts.config.run.state_dir.display())],
            ),
    }
}

/// What we have brought about ourselves, and have not put right.
fn left_disabled(facts: &Facts, manager: &ManagerName, row: &Treatment) -> Finding {
    let tries = row.tries().map_or(0, |(tries, _)| tries);
    let answer =
        row.refusal.as_ref().map_or_else(String::new, |why| format!("; tried {tries} times, the last answer: {why}"));
    let seen = format!("{} is disabled by our treatment, begun {} ago{answer}", row.name, facts.at.since(row.opened));
    Finding::fail(Check::LeftDisabled, &Subject::Manager(manager.clone()), seen)
        .risks("it receives no jobs until it is enabled; a running medic tries on")
        .step("enable it by hand:", &[&format!("garm-cli scaleset update {} --enabled=true", row.set)])
}

/// Pauses are what people wanted; they are told because they are forgotten.
fn pauses(facts: &Facts) -> Option<Finding> {
    let kept = match &facts.store {
        StoreFacts::Readable { pauses, .. } => pauses.as_slice(),
        StoreFacts::Absent | StoreFacts::Unreadable(_) => &[],
    };
    let all: Vec<_> = kept.iter().chain(&facts.pause_file).collect();
    if all.is_empty() {
        return None;
    }
    let told: Vec<_> =
        all.iter().map(|pause| format!("{}, {}", pause.scope, guards::pause_terms(pause, facts.at))).collect();
    let found = Finding::warn(Check::Pauses, &MEDIC, format!("paused: {}", told.join("; ")));
    let mut ends: Vec<_> = all.iter().map(|pause| guards::how_to_end(pause)).collect();
    ends.dedup();
    let ends: Vec<_> = ends.iter().map(String::as_str).collect();
    Some(found.risks("nothing is healed within their scope").step("to end them:", &ends))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::testing::{CONFIG, NOW, answer, config, healthy, lines};
    use super::*;
    use medic_core::model::pause::{Pause, PauseId, PauseScope};
    use medic_core::model::{Revision, Span, Step};

    #[test]
    fn a_medic_that_only_observes_says_that_it_heals_nothing() {
        let mut facts = healthy();
        facts.config.run.mode = Mode::Observe;
        let found = answer(&findings(&facts), Check::Mode);
        assert_eq!(found.state, State::Warn);
        assert!(lines(&found).contains(&"mode = \"heal\""));
    }

    #[test]
    fn risky_settings_warn_with_the_usual_line() {
        for (policy, line) in [
            ("allow_risky = true", "allow_risky = false"),
            ("allow_undated = true", "allow_undated = false"),
            ("stale_session_limit = \"60s\"\nstale_session_odd = \"30s\"", "stale_session_limit = \"5m\""),
            ("settle = \"1s\"", "settle = \"20s\""),
            ("heals_per_hour = 1", "heals_per_hour = 1000"),
        ] {
            let facts = Facts { config: config(&format!("{CONFIG}[policy]\n{policy}\n")), ..healthy() };
            let found = answer(&findings(&facts), Check::Policy);
            assert_eq!(found.state, State::Warn, "{policy}");
            assert!(lines(&found).contains(&line), "{policy}: {found:?}");
        }
    }

    #[test]
    fn a_state_directory_is_writable_and_not_for_everybody() {
        for (dir, state) in [
            (StateDir::Writable { mode: None }, State::Ok),
            (StateDir::Writable { mode: Some(0o700) }, State::Ok),
            (StateDir::Writable { mode: Some(0o2770) }, State::Ok),
            (StateDir::Writable { mode: Some(0o777) }, State::Warn),
            (StateDir::Unusable("read-only".to_owned()), State::Fail),
        ] {
            let found = answer(&findings(&Facts { state_dir: dir.clone(), ..healthy() }), Check::StateDir);
            assert_eq!(found.state, state, "{dir:?}");
        }
    }

    #[test]
    fn a_ledger_that_cannot_be_read_fails_and_a_missing_one_does_not() {
        let unreadable = StoreFacts::Unreadable("damaged".to_owned());
        for (store, state) in [(StoreFacts::Absent, State::Ok), (unreadable, State::Fail)] {
            assert_eq!(answer(&findings(&Facts { store, ..healthy() }), Check::Ledger).state, state);
        }
    }

    #[test]
    fn a_pause_that_may_be_forgotten_is_told_with_its_author() {
        let (author, reason) = ("ann".to_owned(), "migration".to_owned());
        let scope = PauseScope::Manager { manager: ManagerName::new("garm") };
        let pause = Pause { id: PauseId(1), scope, reason, author, created: NOW, expires: None };
        let store = StoreFacts::Readable { live_sessions: 0, open_treatments: 0, pauses: vec![pause], holder: None };
        let found = answer(&findings(&Facts { store, ..healthy() }), Check::Pauses);
        assert_eq!(found.state, State::Warn);
        assert!(found.seen.contains("ann") && found.seen.contains("migration"), "{found:?}");
        assert_eq!(lines(&found), ["scaleset-medic resume --manager garm"], "the command that ends this very pause");
    }

    #[test]
    fn a_set_that_we_left_disabled_fails_with_the_managers_answer() {
        let step = Step::Enabling { ours: Revision::new("r"), since: None, attempts: 11, not_before: NOW };
        let row = medic_core::decide::testing::open(1, 3, NOW.minus(Span::mins(4)), step);
        let row = Treatment { refusal: Some("HTTP 500".to_owned()), ..row };
        let facts = Facts { left_disabled: vec![(ManagerName::new("garm"), row)], ..healthy() };
        let found = answer(&findings(&facts), Check::LeftDisabled);
        assert_eq!(found.state, State::Fail);
        assert!(found.seen.contains("11 times") && found.seen.contains("HTTP 500"), "{found:?}");
        assert_eq!(lines(&found), ["garm-cli scaleset update 3 --enabled=true"]);
    }

    #[test]
    fn a_pause_by_file_is_told_where_no_medic_has_run_yet() {
        let (author, reason) = ("a file".to_owned(), "migration".to_owned());
        let pause = Pause { id: PauseId::FILE, scope: PauseScope::All, reason, author, created: NOW, expires: None };
        let facts = Facts { store: StoreFacts::Absent, pause_file: Some(pause), ..healthy() };
        let found = answer(&findings(&facts), Check::Pauses);
        assert!(lines(&found)[0].starts_with("remove the file"), "{found:?}");
    }
}
