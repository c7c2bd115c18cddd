//! Snapshots, replayed: by the library for whole incidents under virtual time, by the binary, and damaged.

use crate::bench::{Bench, Given};
use crate::sockets::{Medic, Servers, printed};
use medic_core::model::{Decision, Guard, Span};
use medic_core::policy::Policy;
use medic_lab::garm::Build;
use medic_lab::world::MEDIC_TOKEN;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use scaleset_medic::replay::{Replayed, Rules, parse, replay};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn replayed(line: &str, rules: &Rules) -> Replayed {
    replay(&parse(line).unwrap().unwrap(), rules)
}

/// Every snapshot is diagnosed and decided as it was.
pub(crate) fn agrees(snapshots: &[String], what: &str) {
    assert!(!snapshots.is_empty(), "{what}: nothing was recorded");
    for line in snapshots {
        let again = replayed(line, &Rules::default());
        assert_eq!((again.differences, again.renamed), (vec![], vec![]), "{what} at {}", again.at);
    }
}

/// An incident with everything that the medic can see.
async fn incident() -> Bench {
    let given = Given::for_scenario(Build::PreFix, true);
    let mut bench = Bench::after_a_crash(&given, Span::mins(2)).await;
    bench.until_all_listen(Span::mins(5)).await;
    bench.run(Span::mins(2)).await;
    assert!(bench.writes() + bench.deletions() > 0);
    bench
}

#[tokio::test(start_paused = true)]
async fn replay_agrees_with_itself_and_differs_under_other_limits() {
    let bench = incident().await;
    let snapshots = bench.snapshots();
    agrees(&snapshots, "the incident");
    let settle = Policy { settle: Span::mins(9), ..Policy::default() };
    let rules = Rules { policy: Some(Policy { max_in_flight: 0, ..settle }), mode: None };
    let differences: Vec<_> = snapshots.iter().flat_map(|line| replayed(line, &rules).differences).collect();
    let acts = differences.iter().filter_map(|d| Some((&d.then.as_ref()?.decision, &d.now.as_ref()?.decision)));
    let held = acts.filter(|(then, now)| {
        let by_it = |guards: &[medic_core::model::BlockedBy]| guards.iter().any(|held| held.guard() == Guard::InFlight);
        matches!(then, Decision::Treat { .. }) && matches!(now, Decision::Blocked { guards, .. } if by_it(guards))
    });
    assert!(held.count() >= 4, "{differences:?}");
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_of_incidents_only_and_without_secrets() {
    let mut bench = incident().await;
    let recorded = bench.snapshots();
    assert!(recorded.len() < 40, "{} snapshots for one incident", recorded.len());
    bench.run(Span::hours(2)).await;
    bench.restart_medic();
    bench.run(Span::mins(10)).await;
    let after = bench.snapshots();
    assert!(after.len() <= recorded.len() + 2, "{} and then {}", recorded.len(), after.len());
    let password = Given::of(Build::PreFix, 1).fleet.managers[0].password.clone();
    for line in &after {
        assert!(!line.contains(&password) && !line.contains(MEDIC_TOKEN) && !line.contains("Bearer"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn snapshots_of_a_large_fleet_are_few_and_small() {
    let given = Given::of(Build::PreFix, 60).with_debug_server().with_github();
    let mut bench = Bench::after_a_crash(&given, Span::mins(2)).await;
    bench.until_all_listen(Span::mins(20)).await;
    bench.run(Span::mins(3)).await;
    let snapshots = bench.snapshots();
    agrees(&snapshots, "60 sets");
    let (count, longest) = (snapshots.len(), snapshots.iter().map(String::len).max().unwrap());
    assert!(count < 200 && longest < 240_000, "{count} snapshots, the longest {longest}");
}

fn medic(dir: &Path, args: &[&str], stdin: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
    command.args(args).env_clear().current_dir(dir).stdin(stdin).output().unwrap()
}

/// What a healed incident left behind: the state directory with its configuration, and its snapshots.
struct Healed {
    medic: Medic,
    export: PathBuf,
}

impl Healed {
    async fn new() -> Self {
        let servers = Servers::start(Build::PreFix, 2);
        servers.crash().await;
        let medic = Medic::of(&servers.garm, "heal");
        let output = medic.run(&["once"]).await;
        assert_eq!((output.status.code(), servers.writes()), (Some(0), 4), "{}", printed(&output));
        let output = medic.run(&["history", "--snapshots"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
        let export = medic.dir.path().join("snapshots.jsonl");
        fs::write(&export, &output.stdout).unwrap();
        Self { medic, export }
    }

    fn replay(&self, args: &[&str]) -> Output {
        let config = self.medic.config.to_str().unwrap();
        medic(self.medic.dir.path(), &[&["replay", "--config", config], args].concat(), Stdio::null())
    }

    /// A copy of the export, changed.
    fn changed(&self, change: impl FnOnce(Vec<String>) -> String) -> PathBuf {
        let lines = fs::read_to_string(&self.export).unwrap().lines().map(str::to_owned).collect();
        let path = self.medic.dir.path().join("changed.jsonl");
        fs::write(&path, change(lines)).unwrap();
        path
    }
}

/// One incident, healed by the binary; every test of it takes a second or two.
#[tokio::test]
async fn healed_incident_is_shown_by_history_and_replayed() {
    let healed = Healed::new().await;
    replays_the_export_stdin_and_database(&healed);
    shows_what_another_configuration_changes(&healed);
    leaves_out_a_damaged_line(&healed);
    history_shows_decisions_and_requests(&healed).await;
}

fn replays_the_export_stdin_and_database(healed: &Healed) {
    let text = fs::read_to_string(&healed.export).unwrap();
    let snapshots = text.lines().count();
    assert!(snapshots > 4, "{text}");

    let output = healed.replay(&["snapshots.jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let end =
        format!("{snapshots} evaluated again with the policy of this configuration: {snapshots} agree, 0 differ\n");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(&end), "{}", printed(&output));

    // From stdin, and from the database itself, as it is and as a copy.
    let stdin = Stdio::from(fs::File::open(&healed.export).unwrap());
    let output = medic(healed.medic.dir.path(), &["replay", "--recorded-policy", "-"], stdin);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    fs::copy(healed.medic.dir.path().join("medic.db"), healed.medic.dir.path().join("copy")).unwrap();
    let files = || fs::read_dir(healed.medic.dir.path()).unwrap().count();
    // The export only read, but beside a medic that may write; its companion files go with them.
    for left in ["medic.db-wal", "medic.db-shm"] {
        drop(fs::remove_file(healed.medic.dir.path().join(left)));
    }
    let before = files();
    for file in ["medic.db", "copy"] {
        let output = healed.replay(&[file]);
        assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
        assert!(printed(&output).contains(&format!("{snapshots} agree")), "{}", printed(&output));
        assert_eq!(files(), before, "nothing was written");
    }
}

fn shows_what_another_configuration_changes(healed: &Healed) {
    let config = fs::read_to_string(&healed.medic.config).unwrap();
    fs::write(&healed.medic.config, config.replace("[policy]\n", "[policy]\nconfirm_strong = 9\n")).unwrap();
    let output = healed.replay(&["snapshots.jsonl"]);
    let said = printed(&output);
    assert_eq!(output.status.code(), Some(14), "{said}");
    for part in ["differs: 1 of 2 sets", "linux-0", "then ", "toggle is due", "more sweeps must agree (2 of 9 sweeps"] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let output = healed.replay(&["snapshots.jsonl", "--output", "json"]);
    assert_eq!(output.status.code(), Some(14), "{}", printed(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let snapshots = report["snapshots"].as_array().unwrap();
    let differ = snapshots.iter().filter(|snapshot| !snapshot["differences"].as_array().unwrap().is_empty()).count();
    assert_eq!((&report["schema"], &report["differ"]), (&json!(1), &json!(differ)));
    let held = snapshots.iter().flat_map(|snapshot| snapshot["differences"].as_array().unwrap()).find(|difference| {
        difference["then"]["decision"]["decision"] == "treat" && difference["now"]["decision"]["decision"] == "blocked"
    });
    let held = held.unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(held["now"]["decision"]["guards"][0]["fact"], "unconfirmed", "{held:#}");
    assert!(held["now"]["finding"]["evidence"].as_array().is_some_and(|all| !all.is_empty()), "{held:#}");

    // A grace period changes what the set is called, too: the sweep is diagnosed again.
    let settle = config.replace("settle = \"1s\"", "settle = \"4m\"");
    fs::write(&healed.medic.config, settle).unwrap();
    let output = healed.replay(&["snapshots.jsonl"]);
    assert_eq!(output.status.code(), Some(14), "{}", printed(&output));
    assert!(printed(&output).contains("now   settling"), "{}", printed(&output));

    // What was recorded is kept on request, and a mode alone differs too.
    assert_eq!(healed.replay(&["snapshots.jsonl", "--recorded-policy"]).status.code(), Some(0));
    fs::write(&healed.medic.config, config).unwrap();
    let output = healed.replay(&["snapshots.jsonl", "--mode", "observe"]);
    assert_eq!(output.status.code(), Some(14), "{}", printed(&output));
    assert!(printed(&output).contains("mode is observe"), "{}", printed(&output));
}

fn leaves_out_a_damaged_line(healed: &Healed) {
    for (damage, expected) in [
        ("garbage", "not JSON"),
        ("{\"kind\":\"snapshot\",\"schema\":99,\"medic\":\"9.9.9\"}", "version 99, recorded by scaleset-medic 9.9.9"),
        ("{\"kind\":\"scene\",\"schema\":1,\"medic\":\"0.1.0\"}", "snapshot of version 1"),
        ("{\"kind\":\"snapshot\",\"schema\":2,\"medic\":\"0.1.0\"}", "damaged snapshot: missing field"),
        ("[1, 2]", "not a line of a history"),
        ("{\"kind\":\"snapshot\"}", "its version is missing"),
        ("{\"kind\":\"snapshot\",\"schema\":9,\"medic\":\"\\u001b[31m\"}", "scaleset-medic \u{fffd}[31m"),
    ] {
        let file = healed.changed(|mut lines| {
            damage.clone_into(&mut lines[1]);
            lines.join("\n")
        });
        let output = healed.replay(&[file.to_str().unwrap()]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        assert!(error.contains("line 2 is left out") && error.contains(expected), "{error}");
        assert!(printed(&output).contains("0 differ; 1 unreadable"), "{}", printed(&output));
    }
    // The last line was cut off, and other events of a history are in between.
    let file = healed.changed(|mut lines| {
        let last = lines.pop().unwrap();
        lines.insert(1, "{\"at\":1,\"kind\":\"diagnosis\",\"manager\":\"garm\",\"detail\":{}}".to_owned());
        lines.push(last[..last.len() / 2].to_owned());
        lines.join("\r\n")
    });
    let output = healed.replay(&[file.to_str().unwrap(), "--output", "json"]);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let last = report["unreadable_lines"].as_object().unwrap().values().next().unwrap().as_str().unwrap();
    assert!(last.contains("cut off"), "{report:#}");
    assert_eq!((&report["other_events"], &report["unreadable"], &report["differ"]), (&json!(1), &json!(1), &json!(0)));
}

#[test]
fn replay_of_a_file_without_snapshots_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("empty", b"");
    write("blank", b"\n\n  \n");
    write("garbage", &[0xff, 0xfe, b'\n', 0, 1, 2]);
    write("events", b"{\"kind\":\"diagnosis\",\"at\":1}\n");
    write("database", b"SQLite format 3\0 and then nothing of the kind");
    for (file, expected) in [
        ("empty", "it is empty"),
        ("blank", "it is empty"),
        ("garbage", "line 1 is left out: it is not UTF-8"),
        ("events", "none of its 1 events is a snapshot"),
        ("database", "could not be read (corrupt)"),
        ("missing", "cannot read missing"),
        (".", "cannot read ."),
    ] {
        let output = medic(dir.path(), &["replay", "--recorded-policy", file], Stdio::null());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{file}: {}", printed(&output));
        assert!(printed(&output).contains(expected), "{file}: {}", printed(&output));
    }
    // A configuration is wanted, but nothing that it names.
    let output = medic(dir.path(), &["replay", "events"], Stdio::null());
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("manager"), "{}", printed(&output));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5, "nothing was written");
}

async fn history_shows_decisions_and_requests(healed: &Healed) {
    let json = healed.medic.run(&["history", "--output", "json"]).await;
    let events: Vec<Value> =
        String::from_utf8(json.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).map(|event| &event["detail"]).collect();
    let requests: Vec<&Value> = of("request");
    let asked: Vec<_> = requests.iter().map(|request| request["request"].as_str().unwrap()).collect();
    assert_eq!(asked, ["disable", "enable", "disable", "enable"], "{requests:?}");
    assert!(requests.iter().all(|sent| sent["answer"] == "done" && sent["step"].is_string()), "{requests:?}");
    let decisions: Vec<&Value> = of("decision");
    let act = decisions.iter().find(|detail| detail["decision"] == "treat").unwrap();
    assert!(act["finding"]["evidence"].as_array().is_some_and(|all| !all.is_empty()), "{act:#}");
    assert_eq!(decisions.last().unwrap()["decision"], "leave", "its end is recorded too");

    let text = healed.medic.run(&["history", "--set", "linux-1"]).await;
    let said = String::from_utf8_lossy(&text.stdout);
    assert!(said.contains("request: disable the set: done") && said.contains("because conflict_abandoned"), "{said}");
    assert!(said.lines().all(|line| line.starts_with("20") && line.contains("Z  garm linux-1 (set 2)  ")), "{said}");
    assert!(said.contains("recovery: recovered, unhealthy for") && said.contains("then toggle #"), "{said}");
    assert!(said.contains("treatment: toggle #") && !said.contains("disabled: disabled"), "{said}");
    let unknown = healed.medic.run(&["history", "--set", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(2), "{}", printed(&unknown));
    let nowhere = tempfile::tempdir().unwrap();
    let elsewhere = fs::read_to_string(&healed.medic.config).unwrap();
    let state = nowhere.path().join("state");
    let there = elsewhere.lines().find(|line| line.starts_with("state_dir")).unwrap();
    fs::write(&healed.medic.config, elsewhere.replace(there, &format!("state_dir = \"{}\"", state.display()))).unwrap();
    let none = healed.medic.run(&["history"]).await;
    assert_eq!((none.status.code(), none.stdout.len()), (Some(0), 0), "{}", printed(&none));
    assert!(!state.exists(), "history creates nothing");
}

/// How many damaged snapshots are replayed; `docs/reliability.md` says it too.
const DAMAGED: u32 = 3_000;

/// What may be put anywhere.
fn anything() -> impl Strategy<Value = Value> {
    let texts = ["", "toggle", "up", "18446744073709551616", "\u{0}", "garm"].map(|text| json!(text));
    let numbers = [json!(0), json!(1), json!(-1), json!(u64::MAX), json!(u32::MAX), json!(1e300), json!(0.5)];
    let others = [json!(null), json!(true), json!([]), json!({}), json!([[[]]])];
    proptest::sample::select([texts.to_vec(), numbers.to_vec(), others.to_vec()].concat())
}

/// Puts a value at some place of a document, or removes what is there.
fn mutate(document: &mut Value, path: &[Index], with: Option<Value>) {
    let Some((step, rest)) = path.split_first() else {
        *document = with.unwrap_or_default();
        return;
    };
    let remove = rest.is_empty() && with.is_none();
    match document {
        Value::Array(items) if !items.is_empty() => {
            let at = step.index(items.len());
            if remove { drop(items.remove(at)) } else { mutate(&mut items[at], rest, with) }
        }
        Value::Object(fields) if !fields.is_empty() => {
            let key = fields.keys().nth(step.index(fields.len())).unwrap().clone();
            if remove { drop(fields.remove(&key)) } else { mutate(&mut fields[&key], rest, with) }
        }
        leaf => *leaf = with.unwrap_or_default(),
    }
}

#[tokio::test(start_paused = true)]
async fn replay_of_damaged_snapshots_never_panics() {
    let snapshots = incident().await.snapshots();
    let edit = (proptest::collection::vec(any::<Index>(), 1..12), proptest::option::of(anything()));
    let case = (any::<Index>(), proptest::collection::vec(edit, 1..3), proptest::option::weighted(0.2, any::<Index>()));
    let config = Config { cases: DAMAGED, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (parsed, failed) = (Cell::new(0_u32), Cell::new(0_u32));
    let outcome = runner.run(&case, |(which, edits, byte)| {
        let mut document: Value = serde_json::from_str(&snapshots[which.index(snapshots.len())]).unwrap();
        for (path, with) in edits {
            mutate(&mut document, &path, with);
        }
        let mut line = document.to_string().into_bytes();
        if let Some(byte) = byte {
            let at = byte.index(line.len());
            line[at] = line[at].wrapping_add(1);
        }
        match parse(&String::from_utf8_lossy(&line)) {
            Ok(Some(snapshot)) => {
                parsed.set(parsed.get() + 1);
                for rules in [Rules::default(), Rules { policy: Some(Policy::default()), mode: None }] {
                    prop_assert!(serde_json::to_string(&replay(&snapshot, &rules)).is_ok());
                }
            }
            Ok(None) => {}
            Err(error) => {
                failed.set(failed.get() + 1);
                prop_assert!(!error.to_string().is_empty());
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let (parsed, failed) = (parsed.get(), failed.get());
    assert!(parsed > 100 && failed > 1_000, "{parsed} were replayed, {failed} refused: the mutations say little");
}
