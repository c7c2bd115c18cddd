//! What two real GARM builds reported, read by the real parsers and diagnosed: metrics, goroutines and set lists alone, and the
//! debug logs of a whole day of trouble.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use medic_core::diagnose::testing::{diagnoses, found, id, scale_set_of, secs};
use medic_core::diagnose::{Context, Fleet, State, diagnose};
use medic_core::model::log_fact::LogEvidence;
use medic_core::model::{
    Confidence, ConflictBehaviour, Controller, Diagnosis, Enablement, Fact, GithubId, Goroutines, ManagerMetrics, Mono,
    Now, RestartKind, Revision, ScaleSet, ScaleSetId, Seen, Span, Sweep, Wall,
};
use medic_core::policy::Policy;
use medic_garm::goroutines;
use medic_garm::log::parse::Parser;
use medic_garm::metrics_text;
use std::collections::BTreeMap;

const PRE_FIX: &str = "garm-2026-04-pre-fix";
const POST_FIX: &str = "garm-2026-07-post-fix";
const BUILDS: [&str; 2] = [PRE_FIX, POST_FIX];

#[expect(clippy::disallowed_methods, reason = "a fixture")]
fn read(build: &str, file: &str) -> Vec<u8> {
    let path = format!("{}/../../tests/fixtures/recordings/{build}/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn metrics(build: &str, name: &str) -> ManagerMetrics {
    metrics_text::parse(&read(build, &format!("http/metrics-{name}.txt"))).unwrap()
}

fn counted(build: &str, name: &str) -> Goroutines {
    goroutines::count(&read(build, &format!("http/goroutines-{name}.txt"))).unwrap()
}

/// The recorded list, as far as it bears on a diagnosis: a missing `enabled` is disabled.
fn sets(build: &str, name: &str) -> Vec<ScaleSet> {
    let recorded: serde_json::Value =
        serde_json::from_slice(&read(build, &format!("http/scalesets-list-{name}.json"))).unwrap();
    let one = |set: &serde_json::Value| ScaleSet {
        github_id: set["scale_set_id"].as_u64().map(GithubId),
        name: set["name"].as_str().unwrap().to_owned(),
        enabled: if set["enabled"] == true { Enablement::Enabled } else { Enablement::Disabled },
        revision: Revision::new(set["updated_at"].as_str().unwrap()),
        updated_at: date(&set["updated_at"]),
        ..scale_set_of(set["id"].as_u64().unwrap(), set["org_name"].as_str().unwrap())
    };
    recorded["response"]["body"].as_array().unwrap().iter().map(one).collect()
}

fn date(value: &serde_json::Value) -> Option<Wall> {
    let at: jiff::Timestamp = value.as_str()?.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Wall)
}

/// What every sweep sees of the manager: it does not change, as the recording does not.
#[derive(Clone)]
struct Shown {
    sets: Vec<ScaleSet>,
    metrics: Seen<ManagerMetrics>,
    goroutines: Seen<Goroutines>,
    log: Seen<LogEvidence>,
}

impl Shown {
    fn of(build: &str, name: &str) -> Self {
        let list = if name == "healthy" { "healthy" } else { "stuck" };
        Self {
            sets: sets(build, list),
            metrics: Seen::Known(metrics(build, name)),
            goroutines: Seen::NotAsked,
            log: Seen::NotAsked,
        }
    }

    fn sweep(&self, at: Wall) -> Sweep {
        Sweep {
            at: Now { wall: at, mono: Mono(at.0) },
            controller: Seen::Known(Controller { id: "c".to_owned(), version: String::new() }),
            scale_sets: Seen::Known(self.sets.clone()),
            lingering: Seen::NotAsked,
            metrics: self.metrics.clone(),
            goroutines: self.goroutines.clone(),
            log: self.log.clone(),
            broker: BTreeMap::new(),
        }
    }
}

fn diagnose_at(state: &mut State, shown: &Shown, at: Wall) -> Fleet {
    diagnose(
        state,
        &shown.sweep(at),
        &Context { treatments: &[], checks: &BTreeMap::new(), ledger: &[] },
        &Policy::default(),
    )
}

/// A sweep every two seconds, from this age of the recorded process, for this span.
fn watch(state: &mut State, shown: &Shown, age: Span, span: Span) -> Fleet {
    let began = shown.metrics.known().unwrap().incarnation.unwrap().0;
    let mut fleet = diagnose_at(state, shown, began.plus(age));
    for n in 1..=span.as_millis() / 2000 {
        fleet = diagnose_at(state, shown, began.plus(age).plus(secs(2 * n)));
    }
    fleet
}

#[test]
fn healthy_metrics_are_a_healthy_fleet() {
    for build in BUILDS {
        for goroutines in [Seen::NotAsked, Seen::Known(counted(build, "healthy"))] {
            let shown = Shown { goroutines, ..Shown::of(build, "healthy") };
            let fleet = watch(&mut State::default(), &shown, secs(9), secs(60));
            assert_eq!(diagnoses(&fleet), [Diagnosis::Listening; 4], "{build}");
        }
    }
}

#[test]
fn same_crash_differs_by_build() {
    for (build, expected) in [(PRE_FIX, Diagnosis::ConflictAbandoned), (POST_FIX, Diagnosis::ConflictRetrying)] {
        for goroutines in [Seen::NotAsked, Seen::Known(counted(build, "stuck"))] {
            let mut state = State::default();
            watch(&mut state, &Shown::of(build, "healthy"), secs(9), secs(4));
            let stuck = Shown { goroutines, ..Shown::of(build, "stuck") };
            let first = watch(&mut state, &stuck, secs(5), Span::ZERO);
            assert_eq!(first.restart.map(|(kind, _)| kind), Some(RestartKind::Crash), "{build}");
            let fleet = watch(&mut state, &stuck, secs(7), secs(20));
            assert_eq!(diagnoses(&fleet), [expected; 4], "{build}");
        }
    }
}

#[test]
fn expired_sessions_heal_one_build_and_hide_the_other() {
    let well = watch(&mut State::default(), &Shown::of(POST_FIX, "after-stale-sessions-expired"), secs(60), secs(10));
    assert_eq!(diagnoses(&well), [Diagnosis::Listening; 4]);
    let shown = Shown {
        goroutines: Seen::Known(counted(PRE_FIX, "after-stale-sessions-expired")),
        ..Shown::of(PRE_FIX, "after-stale-sessions-expired")
    };
    let late = watch(&mut State::default(), &shown, Span::mins(2), secs(60));
    assert_eq!(diagnoses(&late), [Diagnosis::Unknown; 4], "one of four listens");
}

#[test]
fn recorded_state_is_strong_with_any_source() {
    let only = |build: &str, name: &str, counters: bool, goroutines: bool| {
        let mut shown = Shown::of(build, name);
        if goroutines {
            shown.goroutines = Seen::Known(counted(build, name));
        }
        if !counters {
            shown.metrics = Seen::NotAsked;
        }
        shown
    };
    for build in BUILDS {
        for (counters, goroutines) in [(true, false), (false, true), (true, true)] {
            let began = metrics(build, "healthy").incarnation.unwrap().0;
            let (shown, mut state) = (only(build, "healthy", counters, goroutines), State::default());
            diagnose_at(&mut state, &shown, began.plus(secs(9)));
            let fleet = diagnose_at(&mut state, &shown, began.plus(secs(11)));
            for set in 1..=4 {
                assert_eq!(found(&fleet, set), (Diagnosis::Listening, Confidence::Strong), "{build}");
            }
        }
    }
    let (shown, mut state) = (only(PRE_FIX, "stuck", true, true), State::default());
    let dead = watch(&mut state, &shown, secs(1), secs(9));
    for set in 1..=4 {
        assert_eq!(found(&dead, set), (Diagnosis::ConflictAbandoned, Confidence::Strong), "10 s after the start");
    }
    assert_eq!(watch(&mut state, &shown, secs(11), secs(2)).conflict_behaviour, ConflictBehaviour::GivesUp);
}

#[test]
fn growing_refusals_show_a_build_that_retries() {
    let (mut shown, mut state) = (Shown::of(POST_FIX, "stuck"), State::default());
    let began = metrics(POST_FIX, "stuck").incarnation.unwrap().0;
    for second in (1..60).step_by(2) {
        let fleet = diagnose_at(&mut state, &shown, began.plus(secs(second)));
        assert!(!diagnoses(&fleet).contains(&Diagnosis::ConflictAbandoned), "after {second} s");
        if second > 10 {
            assert_eq!(fleet.conflict_behaviour, ConflictBehaviour::Retries);
            for set in 1..=4 {
                assert_eq!(found(&fleet, set), (Diagnosis::ConflictRetrying, Confidence::Strong), "after {second} s");
            }
        }
        // Time goes on in the recorded state: each set is refused every two seconds.
        if let Seen::Known(metrics) = &mut shown.metrics {
            for counters in metrics.scopes.values_mut() {
                counters.create += 4;
                counters.create_errors += 4;
            }
        }
    }
}

#[test]
fn toggled_set_is_known_to_be_the_one_that_listens() {
    let mut state = State::default();
    watch(&mut state, &Shown::of(PRE_FIX, "healthy"), secs(9), secs(4));
    watch(&mut state, &Shown::of(PRE_FIX, "stuck"), secs(2), secs(20));
    let mut shown = Shown::of(PRE_FIX, "after-stale-sessions-expired");
    let began = metrics(PRE_FIX, "stuck").incarnation.unwrap().0;
    shown.sets[0].revision = Revision::new("toggled");
    shown.sets[0].updated_at = Some(began.plus(secs(25)));
    let fleet = watch(&mut state, &shown, secs(60), secs(20));
    let abandoned = Diagnosis::ConflictAbandoned;
    assert_eq!(diagnoses(&fleet), [Diagnosis::Listening, abandoned, abandoned, abandoned]);

    // Without having seen the toggle it guesses nothing.
    let fleet = watch(&mut State::default(), &Shown::of(PRE_FIX, "after-stale-sessions-expired"), secs(60), secs(120));
    for finding in fleet.findings.values() {
        assert_eq!(finding.diagnosis, Diagnosis::Unknown);
        assert!(finding.evidence.iter().any(|one| one.fact == Fact::CannotTellWhich { listening: 1, of: 4 }));
    }
}

/// The log's facts after the named parts of the day, read one after the other; and the date of the last line.
fn log_until(build: &str, last: &str) -> (LogEvidence, Wall) {
    let names = [
        "01-first-boot-four-sets-start-listening",
        "02-three-jobs-assigned",
        "03-toggle-of-a-healthy-set",
        "04-killed-and-restarted-all-sets-conflict",
        "05-set-1-toggled-while-its-stale-session-lives",
        "06-after-the-stale-sessions-expired",
        "07-all-sets-toggled-all-listen",
        "08-restart-with-set-3-held-by-another-owner",
        "09-graceful-stop-deletes-sessions",
        "10-live-session-deleted-by-a-third-party",
        "11-scale-set-removed-on-github",
    ];
    let (mut parser, mut log) = (Parser::default(), LogEvidence::default());
    for name in names {
        for line in read(build, &format!("logs/{name}.jsonl")).split(|byte| *byte == b'\n') {
            if let Some(fact) = parser.line(line) {
                log.absorb(&fact);
            }
        }
        if name.starts_with(last) {
            break;
        }
    }
    let newest = log.newest.unwrap();
    (log, newest)
}

/// All four sets by the log alone, as of its last line.
fn by_log(build: &str, last: &str) -> Fleet {
    let (log, at) = log_until(build, last);
    let mut shown = Shown::of(build, "healthy");
    shown.metrics = Seen::NotAsked;
    shown.log = Seen::Known(log);
    for set in &mut shown.sets {
        // The list was recorded at another hour of the day.
        set.updated_at = None;
    }
    diagnose_at(&mut State::default(), &shown, at)
}

#[test]
fn log_alone_diagnoses_every_recorded_situation() {
    let (listening, abandoned, retrying) =
        (Diagnosis::Listening, Diagnosis::ConflictAbandoned, Diagnosis::ConflictRetrying);
    for (build, last, expected) in [
        (PRE_FIX, "01", [listening; 4]),
        (POST_FIX, "01", [listening; 4]),
        (PRE_FIX, "03", [listening; 4]),
        (POST_FIX, "03", [listening; 4]),
        (PRE_FIX, "04", [abandoned; 4]),
        (POST_FIX, "04", [retrying; 4]),
        (PRE_FIX, "05", [retrying, abandoned, abandoned, abandoned]),
        (PRE_FIX, "06", [listening, abandoned, abandoned, abandoned]),
        (POST_FIX, "06", [listening; 4]),
        (PRE_FIX, "07", [listening; 4]),
        (POST_FIX, "07", [listening; 4]),
    ] {
        let fleet = by_log(build, last);
        assert_eq!(diagnoses(&fleet), expected, "{build} {last}");
        for set in 1..=4 {
            assert_eq!(found(&fleet, set).1, Confidence::Proof, "{build} {last}");
        }
    }
}

#[test]
fn log_teaches_the_conflict_behaviour() {
    assert_eq!(by_log(PRE_FIX, "04").conflict_behaviour, ConflictBehaviour::GivesUp);
    assert_ne!(by_log(POST_FIX, "04").conflict_behaviour, ConflictBehaviour::GivesUp);
}

#[test]
fn a_set_that_another_owner_took_never_looks_well() {
    for build in BUILDS {
        let fleet = by_log(build, "08");
        assert!(found(&fleet, 3).0.is_ill(), "{build}: {:?}", found(&fleet, 3));
    }
}

#[test]
fn no_set_is_called_ill_by_a_graceful_stop() {
    for build in BUILDS {
        let fleet = by_log(build, "09");
        let stopped = fleet.findings.get(&id(1)).unwrap();
        assert!(!stopped.diagnosis.is_ill(), "{build}: {:?}", stopped.diagnosis);
    }
}

#[test]
fn recorded_healthy_log_is_never_ill_at_any_line() {
    // The first three parts are health, three jobs and an operator's toggle.
    for build in BUILDS {
        let (mut parser, mut log, mut state) = (Parser::default(), LogEvidence::default(), State::default());
        let mut shown = Shown::of(build, "healthy");
        shown.metrics = Seen::NotAsked;
        for part in ["01-first-boot-four-sets-start-listening", "02-three-jobs-assigned", "03-toggle-of-a-healthy-set"]
        {
            for line in read(build, &format!("logs/{part}.jsonl")).split(|byte| *byte == b'\n') {
                let Some(fact) = parser.line(line) else { continue };
                log.absorb(&fact);
                shown.log = Seen::Known(log.clone());
                let fleet = diagnose_at(&mut state, &shown, fact.at);
                assert!(
                    diagnoses(&fleet).iter().all(|d| !d.is_ill()),
                    "{build} {part} {fact:?}: {:?}",
                    diagnoses(&fleet)
                );
            }
        }
    }
}

#[test]
fn the_recorded_lists_have_four_enabled_sets() {
    for build in BUILDS {
        let ids: Vec<ScaleSetId> = sets(build, "healthy").iter().map(|set| set.id).collect();
        assert_eq!(ids, [id(1), id(2), id(3), id(4)]);
        assert!(sets(build, "stuck").iter().all(|set| set.enabled == Enablement::Enabled));
    }
}
