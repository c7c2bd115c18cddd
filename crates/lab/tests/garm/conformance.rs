//! The simulated GARM against two real ones. The recorded situations (`tests/fixtures/recordings/README.md`) are played
//! on the simulators. What the medic's parsers read of both must be the same: log events, metrics, events, goroutines,
//! and the statuses and fields of answers. Ids, dates and what nothing reads may differ.

use super::*;
use medic_core::model::ManagerMetrics;
use medic_garm::log::parse::Parser;
use medic_garm::{events, goroutines, metrics_text};
use medic_lab::garm::{LogFormat, LogLevel};
use medic_lab::github::{Takeover, UnknownSession};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const PRE_FIX: (&str, Build) = ("garm-2026-04-pre-fix", Build::PreFix);
const POST_FIX: (&str, Build) = ("garm-2026-07-post-fix", Build::PostFix);
/// The fields that the medic reads of GARM's answers.
const READ: &str = "api_base_url base_url controller_id desired_runner_count details enabled endpoint enterprise_name \
    error id max_runners name org_name repo_name scale_set_id token updated_at version";

/// Situations in which two goroutines of GARM race. The simulator always lets the same one win: its log lacks the error
/// line of the poll that a closed session ends.
const RACES: [&str; 2] = ["07", "09"];

/// What was recorded of one run through the situations.
#[derive(Default)]
struct Played {
    /// By situation.
    logs: BTreeMap<&'static str, BTreeSet<String>>,
    /// Likewise.
    periodic: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// By the name of the recorded file.
    answers: BTreeMap<String, (u16, String, String)>,
    events: BTreeSet<String>,
}

/// Configured as in the recordings, without sets and not started.
fn bench(build: Build, change: impl FnOnce(&mut GarmConfig, &mut GithubConfig)) -> Bench {
    Bench::down(build, 0, |garm, github| {
        github.stale_lifetime = Span::secs(25);
        github.unknown_session = UnknownSession::NotFound;
        github.runner_boot = Span::hours(24);
        "fake".clone_into(&mut garm.endpoint);
        garm.debug_server = true;
        garm.metrics_period = Span::secs(5);
        change(garm, github);
    })
}

impl Bench {
    fn boot(&mut self) {
        self.start();
        self.wait(Span::millis(150));
    }

    /// As many sets of each organisation.
    fn add_sets(&mut self, organisations: u32, sets: u32) {
        self.log_in();
        for organisation in 0..organisations {
            let (entity, now) = (acme(organisation), self.now);
            self.garm_mut().add_entity(&entity, now);
            self.wait(Span::millis(20));
            for n in 0..sets {
                let (name, now) = (format!("set-{organisation}-{n}"), self.now);
                let id = self.world.github.add_set(&NewSet { entity: entity.clone(), name: name.clone() }, now);
                self.garm_mut().add_scale_set(&entity, &name, id, now);
                self.wait(Span::millis(10));
            }
        }
    }
}

fn recordings(build: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/recordings").join(build)
}

fn fixture(build: &str, file: &str) -> String {
    std::fs::read_to_string(recordings(build).join(file)).unwrap()
}

/// The text of a value without what differs from run to run: UUIDs, and the cursors of the message queue.
fn normalised(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let words = text.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let words = words.map(|word| match word.get(..36) {
        Some(id) if uuid::Uuid::parse_str(id).is_ok() => word.replacen(id, "UUID", 1),
        Some(_) | None => word.to_owned(),
    });
    let text: String = words.collect();
    match text.split_once("cursor: ") {
        Some((before, _)) => format!("{before}cursor"),
        None => text,
    }
}

/// What the medic reads of a log.
fn log_events<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> BTreeSet<String> {
    let mut parser = Parser::default();
    let facts = lines.into_iter().filter_map(|line| parser.line(line));
    facts.map(|fact| normalised(&fact.what)).collect()
}

/// Lines that come whatever happens, without dates and numbers of jobs, and how often they come.
fn periodic<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for mut line in lines.into_iter().filter_map(|line| serde_json::from_slice::<Value>(line).ok()) {
        let msg = line["msg"].as_str().unwrap_or_default();
        if msg.starts_with("collecting ")
            || ["found queued jobs", "removing instances in pending_delete"].contains(&msg)
        {
            (line["time"], line["job_count"]) = (Value::Null, Value::Null);
            *found.entry(line.to_string()).or_default() += 1;
        }
    }
    found
}

/// What the medic reads of an event: its kind and its object, not its revision.
fn event_kind(text: &str) -> Option<String> {
    let event = events::parse(text)?;
    let text = format!("{event:?}");
    Some(text.split(", revision").next().unwrap_or_default().to_owned())
}

impl Played {
    fn end_of(&mut self, situation: &'static str, bench: &mut Bench) {
        let lines = bench.garm_mut().take_log();
        self.logs.insert(situation, log_events(lines.iter().map(AsRef::as_ref)));
        self.periodic.insert(situation, periodic(lines.iter().map(AsRef::as_ref)));
        let events = bench.garm_mut().take_events();
        self.events.extend(events.iter().filter_map(|event| event_kind(std::str::from_utf8(event).unwrap())));
    }

    /// Repeats recorded requests, and keeps their answers.
    fn ask(&mut self, build: &str, names: &[&str], bench: &mut Bench) {
        for name in names {
            let recorded: Value = serde_json::from_str(&fixture(build, &format!("http/{name}.json"))).unwrap();
            let request = &recorded["request"];
            let mut body = request["body"].clone();
            if body["password"] == "REDACTED" {
                body["password"] = json!("correct horse battery staple");
            }
            let token = if request["authenticated"] == true { bench.admin.clone() } else { String::new() };
            let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
            let answer = bench.send(method, path, &token, &body);
            self.keep(format!("{name}.json"), &answer);
        }
    }

    fn keep(&mut self, file: String, answer: &Answer) {
        let kind = answer.response.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap());
        let body = String::from_utf8(answer.response.body().to_vec()).unwrap();
        self.answers.insert(file, (answer.response.status().as_u16(), kind.to_owned(), body));
    }

    fn pages(&mut self, name: &str, bench: &mut Bench) {
        let answer = bench.scrape();
        self.keep(format!("metrics-{name}.txt"), &answer);
        let answer = bench.send("GET", GOROUTINES, "", &Value::Null);
        self.keep(format!("goroutines-{name}.txt"), &answer);
    }
}

static PRE_FIX_PLAYED: LazyLock<Played> = LazyLock::new(|| play(PRE_FIX));
static POST_FIX_PLAYED: LazyLock<Played> = LazyLock::new(|| play(POST_FIX));

/// Each build with what was played of it, once for all tests.
fn builds() -> [((&'static str, Build), &'static Played); 2] {
    [(PRE_FIX, &PRE_FIX_PLAYED), (POST_FIX, &POST_FIX_PLAYED)]
}

/// The situations 1 to 12.
fn play((name, build): (&'static str, Build)) -> Played {
    let mut played = Played::default();
    played.logs.insert("12", play_as_text((name, build)));
    let mut empty = bench(build, |garm, _| garm.initialised = false);
    empty.boot();
    played.ask(name, &["controller-info-before-first-run", "login-before-first-run"], &mut empty);
    let mut bench = bench(build, |_, _| {});
    first_boot_and_jobs(name, &mut bench, &mut played);
    crash_and_toggles(name, &mut bench, &mut played);
    endings(&mut bench, &mut played);
    played
}

fn first_boot_and_jobs(build: &str, bench: &mut Bench, played: &mut Played) {
    bench.boot();
    bench.add_sets(2, 2);
    bench.wait(Span::millis(7_600));
    let names = [
        "login-ok",
        "login-bad-password",
        "controller-info",
        "scalesets-unauthenticated",
        "scalesets-list-healthy",
        "scaleset-get",
        "scaleset-get-unknown",
        "scaleset-get-bad-id",
        "scaleset-update-unknown",
        "metrics-token",
    ];
    played.ask(build, &names, bench);
    let answer = bench.send("GET", METRICS, "", &Value::Null);
    played.keep("metrics-unauthenticated.txt".to_owned(), &answer);
    played.pages("healthy", bench);
    played.end_of("01", bench);
    let set = bench.github_id(ScaleSetId(1));
    bench.world.github.queue_jobs(set, 3, bench.now);
    bench.wait(Span::secs(12));
    played.ask(build, &["scalesets-list-with-jobs", "instances-list"], bench);
    played.end_of("02", bench);
    played.ask(build, &["scaleset-update-disable"], bench);
    bench.wait(Span::secs(3));
    played.ask(build, &["scaleset-update-noop-disable"], bench);
    bench.wait(Span::secs(1));
    played.ask(build, &["scaleset-update-enable"], bench);
    bench.wait(Span::secs(10));
    played.end_of("03", bench);
}

fn crash_and_toggles(build: &str, bench: &mut Bench, played: &mut Played) {
    bench.world.kill(0, bench.now);
    bench.wait(Span::secs(1));
    bench.boot();
    bench.wait(Span::secs(8));
    played.ask(build, &["scalesets-list-stuck"], bench);
    played.pages("stuck", bench);
    played.end_of("04", bench);
    played.ask(build, &["scaleset-update-noop-enable-stuck", "scaleset-update-disable-stuck"], bench);
    bench.wait(Span::secs(1));
    played.ask(build, &["scaleset-update-enable-stuck"], bench);
    bench.wait(Span::secs(5));
    played.end_of("05", bench);
    bench.wait(Span::secs(25));
    played.pages("after-stale-sessions-expired", bench);
    played.end_of("06", bench);
    for set in (2..=4).map(ScaleSetId) {
        bench.enable(set, false);
        bench.wait(Span::millis(500));
        bench.enable(set, true);
    }
    bench.wait(Span::secs(8));
    played.end_of("07", bench);
    for set in (1..=4).map(ScaleSetId) {
        assert!(bench.listens(set), "set {set} listens again");
    }
}

fn endings(bench: &mut Bench, played: &mut Played) {
    bench.world.kill(0, bench.now);
    let until = bench.now.plus(Span::secs(90));
    let (set, owner) = (bench.github_id(ScaleSetId(3)), "garm-of-somebody-else");
    bench.world.github.foreign_owner_takes(set, owner, Takeover::AtOnce, bench.now, until);
    bench.wait(Span::secs(30));
    bench.boot();
    bench.wait(Span::secs(8));
    played.end_of("08", bench);
    bench.world.stop(0, bench.now);
    played.end_of("09", bench);
    bench.wait(Span::secs(1));
    bench.boot();
    bench.wait(Span::secs(8));
    bench.world.github.evict_session(bench.github_id(ScaleSetId(1)), bench.now);
    bench.wait(Span::secs(1));
    assert!(!bench.garm().is_up(), "the process has died");
    played.end_of("10", bench);
    bench.wait(Span::secs(5));
    bench.boot();
    bench.wait(Span::secs(12));
    played.end_of("11", bench);
    // In the recording the stand-in did not end the poll of the removed set, and nothing more happened.
    let set = bench.github_id(ScaleSetId(1));
    bench.world.github.remove_set(set, bench.now);
    bench.wait(Span::secs(1));
    assert!(!bench.garm().is_up(), "a removed set kills the process too");
    bench.boot();
    bench.wait(Span::secs(1));
    assert_ne!(bench.github_id(FIRST), set, "created again at the next start");
}

/// Situation 12: text at info level, one set, in a run of its own.
fn play_as_text((_, build): (&str, Build)) -> BTreeSet<String> {
    let mut bench = bench(build, |garm, github| {
        (garm.log_format, garm.log_level) = (LogFormat::Text, LogLevel::Info);
        github.stale_lifetime = Span::secs(15);
    });
    bench.boot();
    bench.add_sets(1, 1);
    bench.wait(Span::secs(7));
    bench.world.kill(0, bench.now);
    bench.wait(Span::secs(1));
    bench.boot();
    bench.wait(Span::secs(22));
    bench.enable(FIRST, false);
    bench.wait(Span::secs(3));
    bench.enable(FIRST, true);
    bench.wait(Span::secs(6));
    bench.world.stop(0, bench.now);
    log_events(bench.garm_mut().take_log().iter().map(AsRef::as_ref))
}

#[test]
fn log_parser_reads_the_recorded_events() {
    let mut raced = BTreeSet::new();
    for (build, played) in builds() {
        let (mut compared, mut failures) = (0, String::new());
        for entry in std::fs::read_dir(recordings(build.0).join("logs")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let (situation, text) = (&name[..2], fixture(build.0, &format!("logs/{name}")));
            let (recorded, simulated) = (log_events(text.lines().map(str::as_bytes)), &played.logs[situation]);
            for event in recorded.symmetric_difference(simulated) {
                if RACES.contains(&situation) && event.starts_with("ListenerFailed") {
                    raced.insert(situation.to_owned());
                } else {
                    let side = if recorded.contains(event) { "missing" } else { "added" };
                    let _ = writeln!(failures, "{situation}: {side} {event}");
                }
            }
            compared += 1;
        }
        assert!(failures.is_empty(), "{}:\n{failures}", build.0);
        assert_eq!(compared, 12);
    }
    assert_eq!(Vec::from_iter(raced), RACES);
}

/// Fields that are read, with their types, at all depths; of a list, the shapes that its elements have.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(elements) => {
            let shapes: BTreeSet<String> = elements.iter().map(|element| shape(element).to_string()).collect();
            shapes.into_iter().collect()
        }
        Value::Object(fields) => {
            let read = fields.iter().filter(|(name, _)| READ.split(' ').any(|read| read == *name));
            read.map(|(name, value)| (name.clone(), shape(value))).collect()
        }
    }
}

#[test]
fn answers_have_the_recorded_status_and_read_fields() {
    for (build, played) in builds() {
        let answers = played.answers.iter().filter(|(name, _)| name.ends_with("json"));
        assert_eq!(answers.clone().count(), 21);
        for (name, (status, kind, body)) in answers {
            let recorded: Value = serde_json::from_str(&fixture(build.0, &format!("http/{name}"))).unwrap();
            let recorded = &recorded["response"];
            assert_eq!(json!(status), recorded["status"], "{}: {name}", build.0);
            assert_eq!(json!(kind), recorded["content_type"], "{}: {name}", build.0);
            let simulated: Value = serde_json::from_str(body).unwrap();
            assert_eq!(shape(&simulated), shape(&recorded["body"]), "{}: {name}\n{simulated}", build.0);
            if recorded["status"] != 200 {
                assert_eq!(simulated, recorded["body"], "{}: {name}: errors have the same text", build.0);
            }
        }
        let (status, _, body) = &played.answers["metrics-unauthenticated.txt"];
        let recorded: Value = serde_json::from_str(&fixture(build.0, "http/metrics-unauthenticated.txt")).unwrap();
        assert_eq!((*status, serde_json::from_str::<Value>(body).unwrap()), (401, recorded));
    }
}

#[test]
fn metrics_give_the_recorded_counters_and_quotas() {
    let read = |text: &str| -> ManagerMetrics {
        let mut metrics = metrics_text::parse(text.as_bytes()).unwrap();
        assert!(metrics.incarnation.take().is_some(), "the start of the process");
        for quota in &mut metrics.quotas {
            (quota.limit, quota.remaining, quota.reset) = (0, 0, None);
        }
        metrics
    };
    for (build, played) in builds() {
        for name in ["healthy", "stuck", "after-stale-sessions-expired"] {
            let file = format!("metrics-{name}.txt");
            let (_, kind, simulated) = &played.answers[&file];
            assert!(kind.starts_with("text/plain; version=0.0.4"));
            let (mut recorded, mut simulated) = (read(&fixture(build.0, &format!("http/{file}"))), read(simulated));
            // How often a worker tries depends on the time until the scrape.
            if build == POST_FIX && name != "healthy" || name == "after-stale-sessions-expired" {
                assert_eq!(simulated.scopes.len(), recorded.scopes.len(), "{}: {file}", build.0);
                (recorded.scopes, simulated.scopes) = (BTreeMap::new(), BTreeMap::new());
            }
            assert_eq!(simulated, recorded, "{}: {file}", build.0);
        }
    }
}

#[test]
fn goroutine_dumps_count_the_recorded_listeners() {
    for (build, played) in builds() {
        for name in ["healthy", "stuck", "after-stale-sessions-expired"] {
            let file = format!("goroutines-{name}.txt");
            let recorded = goroutines::count(fixture(build.0, &format!("http/{file}")).as_bytes()).unwrap();
            let simulated = goroutines::count(played.answers[&file].2.as_bytes()).unwrap();
            assert_eq!(simulated, recorded, "{}: {file}", build.0);
        }
    }
}

#[test]
fn event_parser_reads_the_recorded_events() {
    for (build, played) in builds() {
        let text = fixture(build.0, "ws/events-job-and-toggle.jsonl");
        let recorded: BTreeSet<String> = text.lines().filter_map(event_kind).collect();
        let simulated = &played.events;
        let missing: Vec<_> = recorded.difference(simulated).collect();
        assert!(recorded.len() >= 2 && missing.is_empty(), "{}: {missing:#?}", build.0);
    }
}

#[test]
fn periodic_debug_lines_come_as_often_as_recorded() {
    for (build, played) in builds() {
        let text = fixture(build.0, "logs/06-after-the-stale-sessions-expired.jsonl");
        let (recorded, simulated) = (periodic(text.lines().map(str::as_bytes)), &played.periodic["06"]);
        assert!(recorded.keys().eq(simulated.keys()), "{}: {recorded:#?}\n{simulated:#?}", build.0);
        for (line, count) in recorded {
            assert!(count.abs_diff(simulated[&line]) <= 1, "{}: {count} times {line}", build.0);
        }
    }
}
