//! Recorded scenes, replayed: by the library for whole incidents under virtual time, by the built binary as a person would,
//! and with scenes that somebody has damaged.

use crate::bench::{Bench, Given};
use crate::binary::{Medic, Servers, told};
use flate2::Compression;
use flate2::write::GzEncoder;
use medic_core::model::{Decision, Guard, Span};
use medic_core::policy::Policy;
use medic_lab::garm::{Build, LogFormat, LogLevel};
use medic_lab::world::MEDIC_TOKEN;
use medic_store::Store;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use scaleset_medic::replay::snapshot::{Body, Look, Looked, Recorder};
use scaleset_medic::replay::{Extent, Replayed, Rules, parse, replay};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn replayed(line: &str, rules: &Rules) -> Replayed {
    replay(&parse(line).unwrap().unwrap(), rules)
}

/// Every scene is diagnosed and decided again as it was.
pub(crate) fn agrees(scenes: &[String], what: &str) {
    assert!(!scenes.is_empty(), "{what}: nothing was recorded");
    for line in scenes {
        let again = replayed(line, &Rules::default());
        assert_eq!(again.extent, Extent::Core, "{what}");
        assert_eq!((again.differences, again.renamed), (vec![], vec![]), "{what} at {}", again.at);
    }
}

/// An incident with everything that the medic can see.
async fn incident() -> Bench {
    let given = Given::of(Build::PreFix, 4).with_debug_server().with_github();
    let mut bench = Bench::new(&given.with_log(LogLevel::Debug, LogFormat::Json)).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run_until(Span::mins(5), |world| world.listening(0) == (4, 4)).await;
    bench.run(Span::mins(2)).await;
    assert!(bench.writes() + bench.deletions() > 0);
    bench
}

#[tokio::test(start_paused = true)]
async fn an_incident_is_decided_again_as_it_was_and_otherwise_under_other_limits() {
    let bench = incident().await;
    let scenes = bench.scenes();
    agrees(&scenes, "the incident");
    let settle = Policy { settle: Span::mins(9), ..Policy::default() };
    let rules = Rules { policy: Some(Policy { max_in_flight: 0, ..settle }), mode: None };
    let differences: Vec<_> = scenes.iter().flat_map(|line| replayed(line, &rules).differences).collect();
    let acts = differences.iter().filter_map(|d| Some((&d.then.as_ref()?.decision, &d.now.as_ref()?.decision)));
    let held = acts.filter(|(then, now)| {
        let by_it = |guards: &[medic_core::model::BlockedBy]| guards.iter().any(|held| held.guard() == Guard::InFlight);
        matches!(then, Decision::Treat { .. }) && matches!(now, Decision::Blocked { guards, .. } if by_it(guards))
    });
    assert!(held.count() >= 4, "{differences:?}");
}

#[tokio::test(start_paused = true)]
async fn hours_of_health_record_nothing_and_secrets_are_in_no_scene() {
    let mut bench = incident().await;
    let recorded = bench.scenes();
    assert!(recorded.len() < 40, "{} scenes for one incident", recorded.len());
    bench.run(Span::hours(2)).await;
    bench.restart_medic();
    bench.run(Span::mins(10)).await;
    let after = bench.scenes();
    assert!(after.len() <= recorded.len() + 2, "{} and then {}", recorded.len(), after.len());
    let password = Given::of(Build::PreFix, 1).fleet.managers[0].password.clone();
    for line in &after {
        assert!(!line.contains(&password) && !line.contains(MEDIC_TOKEN) && !line.contains("Bearer"), "{line}");
    }
}

/// A recording of an earlier release stays readable as long as its form has this number; one line acts, one leaves alone.
#[tokio::test(start_paused = true)]
async fn recordings_of_this_form_stay_readable() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/scenes/schema-1.jsonl");
    if !path.exists() && std::env::var_os("UPDATE_EXPECT").is_some() {
        let scenes = incident().await.scenes();
        let acts = scenes.iter().find(|line| line.contains("\"decision\":\"act\"")).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{acts}\n{}\n", scenes.last().unwrap())).unwrap();
    }
    for line in fs::read_to_string(&path).unwrap().lines() {
        let again = replayed(line, &Rules::default());
        assert_eq!((again.extent, again.sets), (Extent::Core, 4));
    }
}

/// What an incident of a large fleet costs in the store; `SCALESET_MEDIC_SCENE_SETS` asks for more sets.
#[tokio::test(start_paused = true)]
async fn the_scenes_of_a_large_fleet_are_few_and_small() {
    let sets: u32 = std::env::var("SCALESET_MEDIC_SCENE_SETS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut bench = Bench::new(&Given::of(Build::PreFix, sets).with_debug_server().with_github()).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    let all = usize::try_from(sets).unwrap();
    bench.run_until(Span::mins(20), |world| world.listening(0) == (all, all)).await;
    bench.run(Span::mins(3)).await;
    let scenes = bench.scenes();
    let packed = |line: &String| {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(line.as_bytes()).unwrap();
        packer.finish().unwrap().len()
    };
    let (longest, sum) = (scenes.iter().map(String::len).max().unwrap(), scenes.iter().map(packed).sum::<usize>());
    let (count, rules) = (scenes.len(), Rules { policy: Some(Policy::default()), mode: None });
    let begun = Instant::now();
    let whole = scenes.iter().filter(|line| replayed(line, &rules).extent == Extent::Core).count();
    let replaying = begun.elapsed() / u32::try_from(count).unwrap();
    let recording = recording(scenes.iter().max_by_key(|line| line.len()).unwrap());
    println!(
        "{sets} sets: {count} scenes, {whole} whole, the longest {longest} bytes and {recording:?} to record; all packed \
         {sum} bytes; {replaying:?} to replay one"
    );
    assert!(count < 200 && sum / count < 150 * all + 10_000, "{count} scenes of {sum} bytes");
}

/// How long it takes to record a scene.
fn recording(line: &str) -> Duration {
    let scene = parse(line).unwrap().unwrap();
    let Body::Whole { input, look } = &scene.body else { panic!("not whole") };
    let memory = serde_json::from_str::<Value>(look.get()).unwrap()["memory"].to_string();
    let look: Look = serde_json::from_str(look.get()).unwrap();
    let looked = Looked { sweep: &look.sweep, treatments: &look.treatments, probes: &look.probes };
    let store = Store::in_memory().unwrap().for_manager(&scene.manager);
    let begun = Instant::now();
    Recorder::default().note(&store, &input.input(), &scene.decisions, &memory, looked).unwrap();
    begun.elapsed()
}

fn medic(dir: &Path, args: &[&str], stdin: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
    command.args(args).env_clear().current_dir(dir).stdin(stdin).output().unwrap()
}

/// What a healed incident left behind: the state directory with its configuration, and its scenes.
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
        assert_eq!((output.status.code(), servers.writes()), (Some(0), 4), "{}", told(&output));
        let output = medic.run(&["history", "--scenes"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let export = medic.dir.path().join("scenes.jsonl");
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
async fn what_was_healed_can_be_told_and_replayed() {
    let healed = Healed::new().await;
    it_is_exported_and_replayed(&healed);
    another_configuration_differs_and_says_where_and_why(&healed);
    a_damaged_line_costs_that_line_and_is_named(&healed);
    its_history_tells_decisions_with_their_evidence_and_acts_with_their_answers(&healed).await;
}

fn it_is_exported_and_replayed(healed: &Healed) {
    let text = fs::read_to_string(&healed.export).unwrap();
    let scenes = text.lines().count();
    assert!(scenes > 4, "{text}");

    let output = healed.replay(&["scenes.jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let end = format!("{scenes} decided again by the policy of this configuration: {scenes} agree, 0 differ\n");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(&end), "{}", told(&output));

    // From stdin, and from the database itself, as it is and as a copy.
    let stdin = Stdio::from(fs::File::open(&healed.export).unwrap());
    let output = medic(healed.medic.dir.path(), &["replay", "--recorded-policy", "-"], stdin);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    fs::copy(healed.medic.dir.path().join("medic.db"), healed.medic.dir.path().join("copy")).unwrap();
    let files = || fs::read_dir(healed.medic.dir.path()).unwrap().count();
    // The export only read, but beside a medic that may write; its companion files go with them.
    for left in ["medic.db-wal", "medic.db-shm"] {
        drop(fs::remove_file(healed.medic.dir.path().join(left)));
    }
    let before = files();
    for file in ["medic.db", "copy"] {
        let output = healed.replay(&[file]);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert!(told(&output).contains(&format!("{scenes} agree")), "{}", told(&output));
        assert_eq!(files(), before, "nothing was written");
    }
}

fn another_configuration_differs_and_says_where_and_why(healed: &Healed) {
    let config = fs::read_to_string(&healed.medic.config).unwrap();
    fs::write(&healed.medic.config, format!("{config}confirm_strong = 9\n")).unwrap();
    let output = healed.replay(&["scenes.jsonl"]);
    let said = told(&output);
    assert_eq!(output.status.code(), Some(14), "{said}");
    for part in [
        "differs: 1 of 2 sets",
        "linux-0",
        "then ",
        "now: disable and enable it",
        "more sweeps must agree (2 of 9 sweeps",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let output = healed.replay(&["scenes.jsonl", "--output", "json"]);
    assert_eq!(output.status.code(), Some(14), "{}", told(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let scenes = report["scenes"].as_array().unwrap();
    let differ = scenes.iter().filter(|scene| !scene["differences"].as_array().unwrap().is_empty()).count();
    assert_eq!((&report["schema"], &report["differ"]), (&json!(1), &json!(differ)));
    let held = scenes.iter().flat_map(|scene| scene["differences"].as_array().unwrap()).find(|difference| {
        difference["then"]["decision"]["decision"] == "act" && difference["now"]["decision"]["decision"] == "withhold"
    });
    let held = held.unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(held["now"]["decision"]["guards"][0]["guard"], "confirmation", "{held:#}");
    assert!(held["now"]["finding"]["evidence"].as_array().is_some_and(|all| !all.is_empty()), "{held:#}");

    // A settle time changes what the set is called, too: the sweep is diagnosed again.
    let settle = config.replace("settle = \"1s\"", "settle = \"4m\"");
    fs::write(&healed.medic.config, settle).unwrap();
    let output = healed.replay(&["scenes.jsonl"]);
    assert_eq!(output.status.code(), Some(14), "{}", told(&output));
    assert!(told(&output).contains("now   settling"), "{}", told(&output));

    // What was recorded is kept on request, and a mode alone differs too.
    assert_eq!(healed.replay(&["scenes.jsonl", "--recorded-policy"]).status.code(), Some(0));
    fs::write(&healed.medic.config, config).unwrap();
    let output = healed.replay(&["scenes.jsonl", "--mode", "observe"]);
    assert_eq!(output.status.code(), Some(14), "{}", told(&output));
    assert!(told(&output).contains("mode is observe"), "{}", told(&output));
}

fn a_damaged_line_costs_that_line_and_is_named(healed: &Healed) {
    for (damage, expected) in [
        ("garbage", "no JSON"),
        ("{\"kind\":\"scene\",\"schema\":99,\"medic\":\"9.9.9\"}", "version 99, recorded by scaleset-medic 9.9.9"),
        ("{\"kind\":\"scene\",\"schema\":1,\"medic\":\"0.1.0\"}", "damaged scene: missing field"),
        ("[1, 2]", "no line of a history"),
        ("{\"kind\":\"scene\",\"schema\":9,\"medic\":\"\\u001b[31m\"}", "scaleset-medic \u{fffd}[31m"),
    ] {
        let file = healed.changed(|mut lines| {
            damage.clone_into(&mut lines[1]);
            lines.join("\n")
        });
        let output = healed.replay(&[file.to_str().unwrap()]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(error.contains("line 2 is left out") && error.contains(expected), "{error}");
        assert!(told(&output).contains("0 differ; 1 unreadable"), "{}", told(&output));
    }
    // The last line was cut off, and other events of a history are in between.
    let file = healed.changed(|mut lines| {
        let last = lines.pop().unwrap();
        lines.insert(1, "{\"at\":1,\"kind\":\"diagnosis\",\"manager\":\"garm\",\"detail\":{}}".to_owned());
        lines.push(last[..last.len() / 2].to_owned());
        lines.join("\r\n")
    });
    let output = healed.replay(&[file.to_str().unwrap(), "--output", "json"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let last = report["unreadable_lines"].as_object().unwrap().values().next().unwrap().as_str().unwrap();
    assert!(last.contains("cut off"), "{report:#}");
    assert_eq!((&report["other_events"], &report["unreadable"], &report["differ"]), (&json!(1), &json!(1), &json!(0)));
}

#[test]
fn what_holds_nothing_to_replay_is_wrong_usage_and_nothing_is_written() {
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
        ("garbage", "line 1 is left out: it is no UTF-8 text"),
        ("events", "its 1 events are no scenes"),
        ("database", "could not be read (corrupt)"),
        ("missing", "cannot read missing"),
        (".", "cannot read ."),
    ] {
        let output = medic(dir.path(), &["replay", "--recorded-policy", file], Stdio::null());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{file}: {}", told(&output));
        assert!(told(&output).contains(expected), "{file}: {}", told(&output));
    }
    // A configuration is wanted, but nothing that it names.
    let output = medic(dir.path(), &["replay", "events"], Stdio::null());
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("manager"), "{}", told(&output));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5, "nothing was written");
}

async fn its_history_tells_decisions_with_their_evidence_and_acts_with_their_answers(healed: &Healed) {
    let json = healed.medic.run(&["history", "--output", "json"]).await;
    let events: Vec<Value> =
        String::from_utf8(json.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).map(|event| &event["detail"]).collect();
    let acts: Vec<&Value> = of("act");
    let asked: Vec<_> = acts.iter().map(|act| act["request"].as_str().unwrap()).collect();
    assert_eq!(asked, ["disable", "enable", "disable", "enable"], "{acts:?}");
    assert!(acts.iter().all(|act| act["answer"] == "done" && act["step"].is_string()), "{acts:?}");
    let decisions: Vec<&Value> = of("decision");
    let act = decisions.iter().find(|detail| detail["decision"] == "act").unwrap();
    assert!(act["finding"]["evidence"].as_array().is_some_and(|all| !all.is_empty()), "{act:#}");
    assert_eq!(decisions.last().unwrap()["decision"], "leave", "the end of it is told too");

    let text = healed.medic.run(&["history", "--set", "linux-1"]).await;
    let said = String::from_utf8_lossy(&text.stdout);
    assert!(said.contains("act: disable the set: done") && said.contains("because conflict_abandoned"), "{said}");
    assert!(said.lines().all(|line| line.starts_with("20") && line.contains("Z  garm linux-1 (set 2)  ")), "{said}");
    assert!(said.contains("recovery: recovered, ill for") && said.contains("then toggle #"), "{said}");
    assert!(said.contains("treatment: toggle #") && !said.contains("disabled: disabled"), "{said}");
    let unknown = healed.medic.run(&["history", "--set", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(2), "{}", told(&unknown));
    let nowhere = tempfile::tempdir().unwrap();
    let elsewhere = fs::read_to_string(&healed.medic.config).unwrap();
    let state = nowhere.path().join("state");
    fs::write(
        &healed.medic.config,
        elsewhere.replace(
            &format!("state_dir = \"{}\"", healed.medic.dir.path().display()),
            &format!("state_dir = \"{}\"", state.display()),
        ),
    )
    .unwrap();
    let none = healed.medic.run(&["history"]).await;
    assert_eq!((none.status.code(), none.stdout.len()), (Some(0), 0), "{}", told(&none));
    assert!(!state.exists(), "a look makes nothing");
}

/// What may be put anywhere.
fn anything() -> impl Strategy<Value = Value> {
    let texts = ["", "toggle", "up", "18446744073709551616", "\u{0}", "garm"].map(|text| json!(text));
    let numbers = [json!(0), json!(1), json!(-1), json!(u64::MAX), json!(u32::MAX), json!(1e300), json!(0.5)];
    let others = [json!(null), json!(true), json!([]), json!({}), json!([[[]]])];
    proptest::sample::select([texts.to_vec(), numbers.to_vec(), others.to_vec()].concat())
}

/// Puts a value at some place of a document, or takes what is there away.
fn mutate(document: &mut Value, path: &[Index], with: Option<Value>) {
    let Some((step, rest)) = path.split_first() else {
        if let Some(with) = with {
            *document = with;
        }
        return;
    };
    match document {
        Value::Array(items) if !items.is_empty() => {
            let at = step.index(items.len());
            match (rest, &with) {
                ([], None) => drop(items.remove(at)),
                _ => mutate(&mut items[at], rest, with),
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            let key = fields.keys().nth(step.index(fields.len())).unwrap().clone();
            match (rest, &with) {
                ([], None) => drop(fields.remove(&key)),
                _ => mutate(&mut fields[&key], rest, with),
            }
        }
        leaf => {
            if let Some(with) = with {
                *leaf = with;
            }
        }
    }
}

/// Scenes of an incident, recorded once.
fn recorded() -> &'static [String] {
    static SCENES: OnceLock<Vec<String>> = OnceLock::new();
    SCENES.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async { incident().await.scenes() })
    })
}

/// Bounded: so many cases, or so much time.
#[test]
fn no_scene_however_mutated_makes_a_replay_panic() {
    let scenes = recorded();
    let edit = (proptest::collection::vec(any::<Index>(), 1..9), proptest::option::of(anything()));
    let case = (any::<Index>(), proptest::collection::vec(edit, 1..4), proptest::option::of(any::<Index>()));
    let config = Config { cases: 3_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let begun = Instant::now();
    let counts = std::cell::Cell::new((0_u32, 0_u32));
    let outcome = runner.run(&case, |(which, edits, cut)| {
        if begun.elapsed() > Duration::from_secs(8) {
            return Ok(());
        }
        let mut document: Value = serde_json::from_str(&scenes[which.index(scenes.len())]).unwrap();
        for (path, with) in edits {
            mutate(&mut document, &path, with);
        }
        let mut line = document.to_string().into_bytes();
        if let Some(cut) = cut {
            let at = cut.index(line.len());
            line[at] = line[at].wrapping_add(1);
        }
        let (mut parsed, mut failed) = counts.get();
        match parse(&String::from_utf8_lossy(&line)) {
            Ok(Some(scene)) => {
                parsed += 1;
                for rules in [Rules::default(), Rules { policy: Some(Policy::default()), mode: None }] {
                    let report = serde_json::to_string(&replay(&scene, &rules));
                    prop_assert!(report.is_ok());
                }
            }
            Ok(None) => {}
            Err(error) => {
                failed += 1;
                prop_assert!(!error.to_string().is_empty());
            }
        }
        counts.set((parsed, failed));
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
    let (parsed, failed) = counts.get();
    assert!(parsed > 20 && failed > 20, "{parsed} were replayed, {failed} refused: the mutations say little");
}
