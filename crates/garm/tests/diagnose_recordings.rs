//! Recordings of two real GARM builds, parsed and diagnosed: metrics, goroutines and set lists alone, and the debug logs
//! of a day with every incident.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use medic_core::diagnose::testing::{diagnoses, found, scale_set_of, secs};
use medic_core::diagnose::{Context, Fleet, State, diagnose};
use medic_core::model::log_fact::LogEvidence;
use medic_core::model::{
    Confidence, ConflictBehaviour, Controller, Diagnosis, Enablement, Fact, GithubId, Goroutines, ManagerMetrics, Mono,
    Now, RestartKind, Revision, ScaleSet, Seen, Span, Sweep, Wall,
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

/// What every sweep sees of the manager: a recording does not change.
#[derive(Clone)]
struct Shown {
    began: Wall,
    sets: Vec<ScaleSet>,
    metrics: Seen<ManagerMetrics>,
    goroutines: Seen<Goroutines>,
    log: Seen<LogEvidence>,
}

impl Shown {
    fn of(build: &str, name: &str, goroutines: bool) -> Self {
        let metrics = metrics_text::parse(&read(build, &format!("http/metrics-{name}.txt"))).unwrap();
        let counts = goroutines::count(&read(build, &format!("http/goroutines-{name}.txt"))).unwrap();
        Self {
            began: metrics.incarnation.unwrap().0,
            sets: sets(build, if name == "healthy" { "healthy" } else { "stuck" }),
            metrics: Seen::Known(metrics),
            goroutines: if goroutines { Seen::Known(counts) } else { Seen::NotAsked },
            log: Seen::NotAsked,
        }
    }

    fn diagnose_at(&self, state: &mut State, at: Wall) -> Fleet {
        let sweep = Sweep {
            at: Now { wall: at, mono: Mono(at.0) },
            controller: Seen::Known(Controller { id: "c".to_owned(), version: String::new() }),
            scale_sets: Seen::Known(self.sets.clone()),
            lingering: Seen::NotAsked,
            metrics: self.metrics.clone(),
            goroutines: self.goroutines.clone(),
            log: self.log.clone(),
            actions_service: BTreeMap::new(),
        };
        let context = Context { treatments: &[], checks: &BTreeMap::new(), ledger: &[] };
        diagnose(state, &sweep, &context, &Policy::default())
    }

    /// A sweep every two seconds, from this age of the recorded process, for this span.
    fn watch(&self, state: &mut State, age: Span, span: Span) -> Fleet {
        let mut fleet = self.diagnose_at(state, self.began.plus(age));
        for n in 1..=span.as_millis() / 2000 {
            fleet = self.diagnose_at(state, self.began.plus(age).plus(secs(2 * n)));
        }
        fleet
    }
}

fn all_found(fleet: &Fleet) -> [(Diagnosis, Confidence); 4] {
    [1, 2, 3, 4].map(|set| found(fleet, set))
}

#[test]
fn healthy_recording_is_strong_with_any_source() {
    for build in BUILDS {
        for (counters, goroutines) in [(true, false), (false, true), (true, true)] {
            let (mut shown, mut state) = (Shown::of(build, "healthy", goroutines), State::default());
            if !counters {
                shown.metrics = Seen::NotAsked;
            }
            let fleet = shown.watch(&mut state, secs(9), secs(2));
            assert_eq!(all_found(&fleet), [(Diagnosis::Listening, Confidence::Strong); 4], "{build}");
            assert_eq!(diagnoses(&shown.watch(&mut state, secs(13), secs(56))), [Diagnosis::Listening; 4], "{build}");
        }
    }
}

#[test]
fn same_crash_differs_by_build() {
    for (build, expected) in [(PRE_FIX, Diagnosis::ConflictAbandoned), (POST_FIX, Diagnosis::ConflictRetrying)] {
        for goroutines in [false, true] {
            let mut state = State::default();
            Shown::of(build, "healthy", false).watch(&mut state, secs(9), secs(4));
            let stuck = Shown::of(build, "stuck", goroutines);
            let first = stuck.watch(&mut state, secs(5), Span::ZERO);
            assert_eq!(first.restart.map(|(kind, _)| kind), Some(RestartKind::Crash), "{build}");
            assert_eq!(diagnoses(&stuck.watch(&mut state, secs(7), secs(20))), [expected; 4], "{build}");
        }
    }
}

#[test]
fn expired_sessions_heal_one_build_and_hide_the_other() {
    let expired = |build, goroutines| Shown::of(build, "after-stale-sessions-expired", goroutines);
    let well = expired(POST_FIX, false).watch(&mut State::default(), secs(60), secs(10));
    assert_eq!(diagnoses(&well), [Diagnosis::Listening; 4]);
    let late = expired(PRE_FIX, true).watch(&mut State::default(), Span::mins(2), secs(60));
    assert_eq!(diagnoses(&late), [Diagnosis::Unknown; 4], "one of four listens");
}

#[test]
fn stuck_recording_is_strong_ten_seconds_after_the_start() {
    let (shown, mut state) = (Shown::of(PRE_FIX, "stuck", true), State::default());
    let dead = shown.watch(&mut state, secs(1), secs(9));
    assert_eq!(all_found(&dead), [(Diagnosis::ConflictAbandoned, Confidence::Strong); 4]);
    assert_eq!(shown.watch(&mut state, secs(11), secs(2)).conflict_behaviour, ConflictBehaviour::GivesUp);
}

#[test]
fn growing_refusals_show_a_build_that_retries() {
    let (mut shown, mut state) = (Shown::of(POST_FIX, "stuck", false), State::default());
    for second in (1..60).step_by(2) {
        let fleet = shown.diagnose_at(&mut state, shown.began.plus(secs(second)));
        assert!(!diagnoses(&fleet).contains(&Diagnosis::ConflictAbandoned), "after {second} s");
        if second > 10 {
            assert_eq!(fleet.conflict_behaviour, ConflictBehaviour::Retries);
            let retrying = [(Diagnosis::ConflictRetrying, Confidence::Strong); 4];
            assert_eq!(all_found(&fleet), retrying, "after {second} s");
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
    Shown::of(PRE_FIX, "healthy", false).watch(&mut state, secs(9), secs(4));
    let stuck = Shown::of(PRE_FIX, "stuck", false);
    stuck.watch(&mut state, secs(2), secs(20));
    let expired = Shown::of(PRE_FIX, "after-stale-sessions-expired", false);
    let mut shown = expired.clone();
    shown.sets[0].revision = Revision::new("toggled");
    shown.sets[0].updated_at = Some(stuck.began.plus(secs(25)));
    let fleet = shown.watch(&mut state, secs(60), secs(20));
    let abandoned = Diagnosis::ConflictAbandoned;
    assert_eq!(diagnoses(&fleet), [Diagnosis::Listening, abandoned, abandoned, abandoned]);

    // If the toggle was not seen, the set is not guessed.
    for finding in expired.watch(&mut State::default(), secs(60), secs(120)).findings.values() {
        assert_eq!(finding.diagnosis, Diagnosis::Unknown);
        assert!(finding.evidence.iter().any(|one| one.fact == Fact::CannotTellWhich { listening: 1, of: 4 }));
    }
}

/// The parts of the recorded day.
const PARTS: [&str; 11] = [
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

/// Calls `each` after every fact of the first parts of the day, with the evidence so far and the date of the fact.
fn read_log(build: &str, parts: usize, mut each: impl FnMut(&LogEvidence, Wall)) {
    let (mut parser, mut log) = (Parser::default(), LogEvidence::default());
    for part in &PARTS[..parts] {
        for line in read(build, &format!("logs/{part}.jsonl")).split(|byte| *byte == b'\n') {
            let Some(fact) = parser.line(line) else { continue };
            log.absorb(&fact);
            each(&log, fact.at);
        }
    }
}

/// All four sets by the log alone. The list was recorded at another hour of the day.
fn by_log_alone(build: &str) -> Shown {
    let mut shown = Shown::of(build, "healthy", false);
    shown.metrics = Seen::NotAsked;
    shown.sets.iter_mut().for_each(|set| set.updated_at = None);
    shown
}

/// As of the last fact of the first parts of the day.
fn by_log(build: &str, parts: usize) -> Fleet {
    let (mut shown, mut newest) = (by_log_alone(build), Wall(0));
    read_log(build, parts, |log, at| {
        shown.log = Seen::Known(log.clone());
        newest = at;
    });
    shown.diagnose_at(&mut State::default(), newest)
}

#[test]
fn log_alone_diagnoses_every_recorded_situation() {
    let (listening, abandoned, retrying) =
        (Diagnosis::Listening, Diagnosis::ConflictAbandoned, Diagnosis::ConflictRetrying);
    for (build, parts, expected) in [
        (PRE_FIX, 1, [listening; 4]),
        (POST_FIX, 1, [listening; 4]),
        (PRE_FIX, 3, [listening; 4]),
        (POST_FIX, 3, [listening; 4]),
        (PRE_FIX, 4, [abandoned; 4]),
        (POST_FIX, 4, [retrying; 4]),
        (PRE_FIX, 5, [retrying, abandoned, abandoned, abandoned]),
        (PRE_FIX, 6, [listening, abandoned, abandoned, abandoned]),
        (POST_FIX, 6, [listening; 4]),
        (PRE_FIX, 7, [listening; 4]),
        (POST_FIX, 7, [listening; 4]),
    ] {
        let expected = expected.map(|diagnosis| (diagnosis, Confidence::Proof));
        assert_eq!(all_found(&by_log(build, parts)), expected, "{build} {parts}");
    }
    assert_eq!(by_log(PRE_FIX, 4).conflict_behaviour, ConflictBehaviour::GivesUp);
    assert_ne!(by_log(POST_FIX, 4).conflict_behaviour, ConflictBehaviour::GivesUp);
}

#[test]
fn log_shows_a_taken_set_as_ill_and_a_stopped_one_not() {
    for build in BUILDS {
        assert!(found(&by_log(build, 8), 3).0.is_ill(), "{build}: another owner holds set 3");
        assert!(!found(&by_log(build, 9), 1).0.is_ill(), "{build}: a graceful stop");
    }
}

#[test]
fn recorded_healthy_log_is_never_ill_at_any_line() {
    // The first three parts are health, three jobs and an operator's toggle.
    for build in BUILDS {
        let (mut shown, mut state) = (by_log_alone(build), State::default());
        read_log(build, 3, |log, at| {
            shown.log = Seen::Known(log.clone());
            let found = diagnoses(&shown.diagnose_at(&mut state, at));
            assert!(found.iter().all(|diagnosis| !diagnosis.is_ill()), "{build} {at:?}: {found:?}");
        });
    }
}
