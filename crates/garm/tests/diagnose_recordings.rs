//! What two real GARM builds said, through the real parsers, diagnosed: metrics, goroutines and set lists alone, and the
//! debug logs of a whole day of trouble.

use medic_core::diagnose::testing::{diagnoses, found, id, scale_set, secs};
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
        ..scale_set(set["id"].as_u64().unwrap(), set["org_name"].as_str().unwrap())
    };
    recorded["response"]["body"].as_array().unwrap().iter().map(one).collect()
}

fn date(value: &serde_json::Value) -> Option<Wall> {
    let at: jiff::Timestamp = value.as_str()?.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Wall)
}

/// What is known of the manager, shown again and again: it stands still as the recording does.
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

fn look(memory: &mut State, shown: &Shown, at: Wall) -> Fleet {
    diagnose(
        memory,
        &shown.sweep(at),
        &Context { treatments: &[], checks: &BTreeMap::new(), ledger: &[] },
        &Policy::default(),
    )
}

/// A sweep every two seconds, from so long after the recorded process's start, for so long.
fn watch(memory: &mut State, shown: &Shown, age: Span, span: Span) -> Fleet {
    let began = shown.metrics.known().unwrap().incarnation.unwrap().0;
    let mut fleet = look(memory, shown, began.plus(age));
    for n in 1..=span.as_millis() / 2000 {
        fleet = look(memory, shown, began.plus(age).plus(secs(2 * n)));
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
fn the_same_crash_is_abandoned_sets_in_one_build_and_retrying_ones_in_the_other() {
    for (build, expected) in [(PRE_FIX, Diagnosis::ConflictAbandoned), (POST_FIX, Diagnosis::ConflictRetrying)] {
        for goroutines in [Seen::NotAsked, Seen::Known(counted(build, "stuck"))] {
            let mut memory = State::default();
            watch(&mut memory, &Shown::of(build, "healthy"), secs(9), secs(4));
            let stuck = Shown { goroutines, ..Shown::of(build, "stuck") };
            let first = watch(&mut memory, &stuck, secs(5), Span::ZERO);
            assert_eq!(first.restart.map(|(kind, _)| kind), Some(RestartKind::Crash), "{build}");
            let fleet = watch(&mut memory, &stuck, secs(7), secs(20));
            assert_eq!(diagnoses(&fleet), [expected; 4], "{build}");
        }
    }
}

#[test]
fn after_the_stale_sessions_expired_one_build_is_well_and_of_the_other_nobody_guesses() {
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
fn whatever_of_it_is_seen_a_recorded_state_is_found_strongly() {
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
            let (shown, mut memory) = (only(build, "healthy", counters, goroutines), State::default());
            look(&mut memory, &shown, began.plus(secs(9)));
            let fleet = look(&mut memory, &shown, began.plus(secs(11)));
            for set in 1..=4 {
                assert_eq!(found(&fleet, set), (Diagnosis::Listening, Confidence::Strong), "{build}");
            }
        }
    }
    let (shown, mut memory) = (only(PRE_FIX, "stuck", true, true), State::default());
    let dead = watch(&mut memory, &shown, secs(1), secs(9));
    for set in 1..=4 {
        assert_eq!(found(&dead, set), (Diagnosis::ConflictAbandoned, Confidence::Strong), "10 s after the start");
    }
    assert_eq!(watch(&mut memory, &shown, secs(11), secs(2)).conflict_behaviour, ConflictBehaviour::GivesUp);
}

#[test]
fn a_build_that_retries_is_told_by_its_refusals_and_never_called_abandoned() {
    let (mut shown, mut memory) = (Shown::of(POST_FIX, "stuck"), State::default());
    let began = metrics(POST_FIX, "stuck").incarnation.unwrap().0;
    for second in (1..60).step_by(2) {
        let fleet = look(&mut memory, &shown, began.plus(secs(second)));
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
fn who_saw_which_set_was_toggled_knows_which_one_listens() {
    let mut memory = State::default();
    watch(&mut memory, &Shown::of(PRE_FIX, "healthy"), secs(9), secs(4));
    watch(&mut memory, &Shown::of(PRE_FIX, "stuck"), secs(2), secs(20));
    let mut shown = Shown::of(PRE_FIX, "after-stale-sessions-expired");
    let began = metrics(PRE_FIX, "stuck").incarnation.unwrap().0;
    shown.sets[0].revision = Revision::new("toggled");
    shown.sets[0].updated_at = Some(began.plus(secs(25)));
    let fleet = watch(&mut memory, &shown, secs(60), secs(20));
    let abandoned = Diagnosis::ConflictAbandoned;
    assert_eq!(diagnoses(&fleet), [Diagnosis::Listening, abandoned, abandoned, abandoned]);

    // Who did not see it says so, and guesses nothing.
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
    look(&mut State::default(), &shown, at)
}

#[test]
fn the_log_alone_tells_every_situation_of_the_recorded_day() {
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
fn the_log_teaches_what_kind_of_build_runs() {
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
fn every_state_of_the_day_is_diagnosed_line_by_line_without_an_ill_healthy_set() {
    // The first three parts are health, three jobs and a person's toggle.
    for build in BUILDS {
        let (mut parser, mut log, mut memory) = (Parser::default(), LogEvidence::default(), State::default());
        let mut shown = Shown::of(build, "healthy");
        shown.metrics = Seen::NotAsked;
        for part in ["01-first-boot-four-sets-start-listening", "02-three-jobs-assigned", "03-toggle-of-a-healthy-set"]
        {
            for line in read(build, &format!("logs/{part}.jsonl")).split(|byte| *byte == b'\n') {
                let Some(fact) = parser.line(line) else { continue };
                log.absorb(&fact);
                shown.log = Seen::Known(log.clone());
                let fleet = look(&mut memory, &shown, fact.at);
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
