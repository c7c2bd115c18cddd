//! The simulated GARM against two real ones: the recorded situations (`tests/fixtures/recordings/README.md`) are played
//! on the simulators, and what they say is compared with what was recorded. Names, ids, dates and addresses may
//! differ; statuses, fields, types, families, labels, messages, levels and attributes may not, but for what
//! [`WAIVED`] lists with its reason.

use bytes::Bytes;
use http::Method;
use medic_core::model::{Entity, EntityKind, GithubId, Span, Wall};
use medic_garm::goroutines::GoroutineCounter;
use medic_http::BodySink;
use medic_lab::garm::{Build, GarmConfig, GarmState, LogFormat, LogLevel};
use medic_lab::github::{Credential, GithubConfig, GithubState, JobFlow, Leaving, Takeover, UnknownSession};
use medic_lab::wire::Answer;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PRE_FIX: (&str, Build) = ("garm-2026-04-pre-fix", Build::PreFix);
const POST_FIX: (&str, Build) = ("garm-2026-07-post-fix", Build::PostFix);
const START: Wall = Wall(1_795_459_531_600);
const ORIGIN: &str = "http://127.0.0.1:18101";
const PAT: &str = "ghp_conformance";
const PASSWORD: &str = "correct horse battery staple";

/// A line of a log without what may differ: level, message, and the keys of its attributes in their order, with the type
/// where it is not text.
type Kind = (String, String, String);

/// A difference that is left, and why.
struct Waived {
    /// The situations, by their numbers; empty: all.
    situations: &'static [&'static str],
    msg: &'static str,
    /// The attributes, where they matter.
    keys: Option<&'static str>,
    reason: &'static str,
}

const SOCKETS: &str = "the recorder's websockets came and went; their lives belong to the door, not to the simulator";
const RACE: &str = "two goroutines race in the original; the simulator always lets the same one win";
const JITTER: &str = "the list of runner downloads comes 0 to 3 s after the start, at random";

const WAIVED: &[Waived] = &[
    waived(&["02", "04"], "registering client", None, SOCKETS),
    waived(&["03", "04"], "unregistering client", None, SOCKETS),
    waived(&["03", "04"], "client disconnected", None, SOCKETS),
    waived(&["03", "04"], "current client count", None, SOCKETS),
    waived(&["03", "04"], "watcher closed", None, SOCKETS),
    waived(&["03"], "client done, stopping event handler", None, SOCKETS),
    waived(&["02"], "starting consumer", None, SOCKETS),
    waived(&["03", "04"], "removing consumer from watcher", None, SOCKETS),
    waived(&["02", "03"], "sending payload", Some("consumer_id"), SOCKETS),
    waived(&["07", "09"], "getting message", Some("error sub_worker worker entity endpoint"), RACE),
    waived(&["12"], "shutting down watcher", None, RACE),
    waived(&["12"], "closing producer", None, RACE),
    waived(&["12"], "entity not found in worker list", None, RACE),
    waived(&[], "tools not found in cache; waiting for tools", None, JITTER),
];

const fn waived(
    situations: &'static [&'static str],
    msg: &'static str,
    keys: Option<&'static str>,
    reason: &'static str,
) -> Waived {
    Waived { situations, msg, keys, reason }
}

/// One simulated GARM at work, with its GitHub.
struct Stage {
    github: GithubState,
    garm: GarmState,
    now: Wall,
    token: String,
}

/// What was said in one run through the situations.
#[derive(Default)]
struct Played {
    /// Lines by situation; those that are no record under `panics`.
    logs: BTreeMap<&'static str, Vec<Kind>>,
    panics: Vec<String>,
    /// Answers by the name of the recorded file.
    answers: BTreeMap<String, (u16, String, String)>,
    events: Vec<Value>,
}

impl Stage {
    fn new(generation: Build, change: impl FnOnce(&mut GarmConfig, &mut GithubConfig)) -> Self {
        let mut github = GithubConfig::new(ORIGIN).with(Credential::pat("garm", PAT));
        github.stale_lifetime = Span::secs(25);
        github.unknown_session = UnknownSession::NotFound;
        github.job_flow = JobFlow::Told;
        let mut config = GarmConfig::new(generation, ORIGIN, PAT);
        "fake".clone_into(&mut config.endpoint);
        config.initialised = false;
        config.debug_server = true;
        config.metrics_period = Span::secs(5);
        change(&mut config, &mut github);
        let (github, garm) = (GithubState::new(github), GarmState::new(config));
        Self { github, garm, now: START, token: String::new() }
    }

    fn wait(&mut self, span: Span) {
        let end = self.now.plus(span);
        loop {
            self.hand_over();
            let next = [self.garm.next_deadline(), self.github.next_deadline()].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.github.advance(self.now);
            self.hand_over();
            self.garm.advance(self.now, &mut self.github);
        }
        self.now = end;
    }

    fn hand_over(&mut self) {
        for session in self.github.take_wakes() {
            self.garm.wake(&session, self.now);
        }
    }

    fn start(&mut self) {
        self.garm.start(self.now, &mut self.github);
    }

    fn send(&mut self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = http::Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        request = request.header("user-agent", "Python-urllib/3.11");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Bytes::from(body)).unwrap();
        let answer = self.garm.handle(self.now, &request, &mut self.github);
        self.hand_over();
        answer
    }

    fn admin(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let token = self.token.clone();
        let answer = self.send(method, path, &token, body);
        assert_eq!(answer.response.status(), 200, "{method} {path}: {answer:?}");
        serde_json::from_slice(answer.response.body()).unwrap()
    }

    fn log_in(&mut self) {
        let answer = self.admin("POST", "/api/v1/auth/login", &json!({"username": "admin", "password": PASSWORD}));
        answer["token"].as_str().unwrap().clone_into(&mut self.token);
    }

    fn enable(&mut self, set: u64, enabled: bool) {
        self.admin("PUT", &format!("/api/v1/scalesets/{set}"), &json!({"enabled": enabled}));
    }

    /// The way from an empty database to two organisations with their sets, as in the recordings.
    fn bring_up(&mut self, organisations: &[&[&str]]) {
        let first = json!({"username": "admin", "password": PASSWORD, "email": "a@example.com", "full_name": "A"});
        self.admin("POST", "/api/v1/first-run", &first);
        self.log_in();
        let own = "http://127.0.0.1:19101";
        let urls = json!({"metadata_url": format!("{own}/api/v1/metadata"), "webhook_url": format!("{own}/webhooks"),
            "callback_url": format!("{own}/api/v1/callbacks")});
        self.admin("PUT", "/api/v1/controller", &urls);
        self.admin("POST", "/api/v1/github/endpoints", &json!({"name": "fake"}));
        self.admin("POST", "/api/v1/github/credentials", &json!({"name": "pat"}));
        for (n, sets) in organisations.iter().enumerate() {
            let wish = json!({"name": format!("acme{n}"), "credentials_name": "pat"});
            let entity = self.admin("POST", "/api/v1/organizations", &wish);
            self.wait(Span::millis(20));
            for name in *sets {
                let path = format!("/api/v1/organizations/{}/scalesets", entity["id"].as_str().unwrap());
                let wish = json!({"name": name, "provider_name": "stub", "image": "ubuntu:22.04", "flavor": "default",
                    "os_type": "linux", "os_arch": "amd64", "max_runners": 5, "enabled": true});
                self.admin("POST", &path, &wish);
                self.wait(Span::millis(10));
            }
        }
    }

    fn github_id(&self, set: u64) -> GithubId {
        self.garm.scale_sets().find(|(id, _, _)| id.0 == set).unwrap().2
    }
}

fn fixture(build: &str, file: &str) -> String {
    let path = format!("{}/tests/fixtures/recordings/{build}/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn files(build: &str, folder: &str) -> Vec<String> {
    let path = format!("{}/tests/fixtures/recordings/{build}/{folder}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

impl Played {
    fn close(&mut self, situation: &'static str, stage: &mut Stage) {
        let mut lines = Vec::new();
        for line in stage.garm.take_log() {
            let line = String::from_utf8(line.to_vec()).unwrap();
            match kind_of_json(&line) {
                Some(kind) => lines.push(kind),
                None => self.panics.push(line),
            }
        }
        self.logs.insert(situation, lines);
        let events = stage.garm.take_events();
        self.events.extend(events.iter().map(|event| serde_json::from_slice::<Value>(event).unwrap()));
    }

    /// Replays a recorded request, and keeps its answer.
    fn ask(&mut self, build: &str, name: &str, stage: &mut Stage) {
        let recorded: Value = serde_json::from_str(&fixture(build, &format!("http/{name}.json"))).unwrap();
        let request = &recorded["request"];
        let mut body = request["body"].clone();
        if body["password"] == "REDACTED" {
            body["password"] = json!(PASSWORD);
        }
        let token = if request["authenticated"] == true { stage.token.clone() } else { String::new() };
        let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
        let answer = stage.send(method, path, &token, &body);
        self.keep(format!("{name}.json"), &answer);
    }

    fn keep(&mut self, file: String, answer: &Answer) {
        let kind = answer.response.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap());
        let body = String::from_utf8(answer.response.body().to_vec()).unwrap();
        self.answers.insert(file, (answer.response.status().as_u16(), kind.to_owned(), body));
    }

    fn pages(&mut self, name: &str, stage: &mut Stage) {
        let token = stage.admin("GET", "/api/v1/metrics-token", &Value::Null)["token"].as_str().unwrap().to_owned();
        let answer = stage.send("GET", "/metrics", &token, &Value::Null);
        self.keep(format!("metrics-{name}.txt"), &answer);
        let answer = stage.send("GET", "/debug/pprof/goroutine?debug=2", "", &Value::Null);
        self.keep(format!("goroutines-{name}.txt"), &answer);
    }
}

/// The situations 1 to 11, in their order.
fn play((build, generation): (&str, Build)) -> Played {
    let mut stage = Stage::new(generation, |_, _| {});
    let mut played = Played::default();
    first_boot(build, &mut stage, &mut played);
    jobs_and_a_toggle(build, &mut stage, &mut played);
    crash_and_toggles(build, &mut stage, &mut played);
    endings(&mut stage, &mut played);
    played
}

fn first_boot(build: &str, stage: &mut Stage, played: &mut Played) {
    stage.start();
    stage.wait(Span::millis(150));
    played.ask(build, "controller-info-before-first-run", stage);
    played.ask(build, "login-before-first-run", stage);
    stage.bring_up(&[&["set-0-0", "set-0-1"], &["set-1-0", "set-1-1"]]);
    stage.wait(Span::millis(7_600));
    for name in [
        "login-ok",
        "login-bad-password",
        "controller-info",
        "scalesets-unauthenticated",
        "scalesets-list-healthy",
        "scaleset-get",
        "scaleset-get-unknown",
        "scaleset-get-bad-id",
        "scaleset-update-unknown",
        "organizations-list",
        "repositories-list-empty",
        "enterprises-list-empty",
        "github-endpoints-list",
        "github-credentials-list",
        "providers-list",
        "metrics-token",
    ] {
        played.ask(build, name, stage);
    }
    let answer = stage.send("GET", "/metrics", "", &Value::Null);
    played.keep("metrics-unauthenticated.txt".to_owned(), &answer);
    played.pages("healthy", stage);
    played.close("01", stage);
}

fn jobs_and_a_toggle(build: &str, stage: &mut Stage, played: &mut Played) {
    let set = stage.github_id(1);
    stage.github.queue_jobs(set, 3, stage.now);
    stage.wait(Span::secs(12));
    for name in ["scalesets-list-with-jobs", "scaleset-instances", "instances-list", "jobs-list"] {
        played.ask(build, name, stage);
    }
    played.close("02", stage);
    played.ask(build, "scaleset-update-disable", stage);
    stage.wait(Span::secs(3));
    played.ask(build, "scaleset-update-noop-disable", stage);
    stage.wait(Span::secs(1));
    played.ask(build, "scaleset-update-enable", stage);
    stage.wait(Span::secs(10));
    played.close("03", stage);
}

fn crash_and_toggles(build: &str, stage: &mut Stage, played: &mut Played) {
    stage.garm.kill(stage.now, &mut stage.github);
    stage.wait(Span::secs(1));
    stage.start();
    stage.wait(Span::millis(150));
    // The recorder looks whether the API is there again.
    stage.send("GET", "/api/v1/controller-info", "", &Value::Null);
    stage.wait(Span::secs(8));
    played.ask(build, "scalesets-list-stuck", stage);
    played.pages("stuck", stage);
    played.close("04", stage);
    played.ask(build, "scaleset-update-noop-enable-stuck", stage);
    played.ask(build, "scaleset-update-disable-stuck", stage);
    stage.wait(Span::secs(1));
    played.ask(build, "scaleset-update-enable-stuck", stage);
    stage.wait(Span::secs(5));
    played.close("05", stage);
    stage.wait(Span::secs(25));
    played.pages("after-stale-sessions-expired", stage);
    played.close("06", stage);
    for set in 2..=4 {
        stage.enable(set, false);
        stage.wait(Span::millis(500));
        stage.enable(set, true);
    }
    stage.wait(Span::secs(8));
    played.close("07", stage);
    for set in 1..=4 {
        let holder = stage.github.holder(stage.github_id(set));
        assert!(holder.is_some_and(|holder| holder.polling), "set {set} listens again");
    }
}

fn endings(stage: &mut Stage, played: &mut Played) {
    let look = |stage: &mut Stage| {
        stage.wait(Span::millis(150));
        stage.send("GET", "/api/v1/controller-info", "", &Value::Null);
    };
    stage.garm.kill(stage.now, &mut stage.github);
    let until = stage.now.plus(Span::secs(90));
    let how = (Takeover::AtOnce, Leaving::Deletes);
    stage.github.foreign_owner_takes(stage.github_id(3), "garm-of-somebody-else", how, stage.now, until);
    stage.wait(Span::secs(30));
    stage.start();
    look(stage);
    stage.wait(Span::secs(8));
    played.close("08", stage);
    stage.garm.stop(stage.now, &mut stage.github);
    played.close("09", stage);
    stage.wait(Span::secs(1));
    stage.start();
    look(stage);
    stage.wait(Span::secs(8));
    stage.github.evict_session(stage.github_id(1), stage.now);
    stage.wait(Span::secs(1));
    assert!(!stage.garm.is_up(), "the process has died");
    played.close("10", stage);
    stage.wait(Span::secs(5));
    stage.start();
    look(stage);
    stage.wait(Span::secs(12));
    played.close("11", stage);
    // In the recording the stand-in did not end the poll of the vanished set, and nothing more was seen.
    let set = stage.github_id(1);
    stage.github.remove_set(set, stage.now);
    stage.wait(Span::secs(1));
    assert!(!stage.garm.is_up(), "a set that vanishes kills the process too");
    let name = Entity { kind: EntityKind::Organization, name: "acme0".to_owned() };
    stage.start();
    stage.wait(Span::secs(1));
    assert_ne!(stage.github.find_set(&name, "set-0-0"), Some(set), "made anew at the next start");
}

fn kind_of_json(line: &str) -> Option<Kind> {
    // Keys may repeat: the text is scanned, so that none is lost.
    let value: Value = serde_json::from_str(line).ok()?;
    let keys = keys_in_order(line).into_iter().filter(|key| !["time", "level", "msg"].contains(&key.as_str()));
    let keys = keys.map(|key| match &value[&key] {
        Value::String(_) => key,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            format!("{key}:{}", shape(&value[&key]).as_str().unwrap_or("structure"))
        }
    });
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Some((text("level")?, text("msg")?, keys.collect::<Vec<_>>().join(" ")))
}

/// Keys of the outermost object, repeated ones too.
fn keys_in_order(line: &str) -> Vec<String> {
    let (mut keys, mut depth, mut chars) = (Vec::new(), 0_u32, line.char_indices().peekable());
    while let Some((begin, c)) = chars.next() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            '"' => {
                let mut end = begin;
                while let Some((at, c)) = chars.next() {
                    if c == '\\' {
                        chars.next();
                    } else if c == '"' {
                        end = at;
                        break;
                    }
                }
                if depth == 1 && chars.peek().is_some_and(|(_, c)| *c == ':') {
                    keys.push(line[begin + 1..end].to_owned());
                }
            }
            _ => {}
        }
    }
    keys
}

/// The same of slog's text: `key=value` and `key="quoted value"`.
fn kind_of_text(line: &str) -> Option<Kind> {
    let (mut level, mut msg, mut keys, mut rest) = (String::new(), String::new(), Vec::new(), line);
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.char_indices().find(|(_, c)| {
                    let ends = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    ends
                })?;
                (&quoted[..end.0], quoted[end.0 + 1..].trim_start())
            }
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        match key {
            "time" => {}
            "level" => value.clone_into(&mut level),
            "msg" => value.clone_into(&mut msg),
            key => keys.push(key.to_owned()),
        }
        rest = next;
    }
    (!level.is_empty()).then(|| (level, msg, keys.join(" ")))
}

/// The entry that excuses a difference, by its place.
fn excuse(situation: &str, (_, msg, keys): &Kind) -> Option<usize> {
    WAIVED.iter().position(|waived| {
        let is_here = waived.situations.is_empty() || waived.situations.contains(&situation);
        is_here && msg == waived.msg && waived.keys.is_none_or(|waived| waived == keys) && !waived.reason.is_empty()
    })
}
/// Kinds of lines that one side has and the other has not, in every situation.
fn differences((build, _): (&str, Build), logs: &BTreeMap<&'static str, Vec<Kind>>) -> Vec<(String, Kind, String)> {
    let mut all = Vec::new();
    for name in files(build, "logs") {
        let situation = &name[..2];
        let Some(simulated) = logs.get(situation) else { continue };
        let read = if situation == "12" { kind_of_text } else { kind_of_json };
        let recorded: BTreeSet<Kind> = fixture(build, &format!("logs/{name}")).lines().filter_map(read).collect();
        let simulated: BTreeSet<Kind> = simulated.iter().cloned().collect();
        for kind in recorded.symmetric_difference(&simulated) {
            let which = if recorded.contains(kind) { "missing" } else { "added" };
            all.push((situation.to_owned(), kind.clone(), format!("{situation}: {which} {kind:?}\n")));
        }
    }
    all
}

fn compare_logs(build: (&str, Build)) {
    let played = play(build);
    let all = differences(build, &played.logs);
    let left = all.iter().filter(|(situation, kind, _)| excuse(situation, kind).is_none());
    let left: String = left.map(|(_, _, words)| words.as_str()).collect();
    assert!(left.is_empty(), "{}:\n{left}", build.0);
    assert_eq!(played.logs.len(), 11);
    let panics =
        |text: &str| text.lines().filter(|line| kind_of_json(line).is_none()).map(shapeless).collect::<Vec<_>>();
    let recorded = panics(&fixture(build.0, "logs/10-live-session-deleted-by-a-third-party.jsonl"));
    let simulated: Vec<String> = played.panics.iter().map(|line| shapeless(line)).collect();
    assert_eq!(simulated, recorded, "the trace of the crash");
}

/// A line of a trace without addresses and numbers of goroutines.
fn shapeless(line: &str) -> String {
    let words = line.split(['(', ' ', ',', '{', '}', ')']).filter(|word| {
        !word.is_empty() && !word.starts_with("0x") && !word.starts_with("pc=") && word.parse::<u64>().is_err()
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_pre_fix_build_logs_what_the_real_one_logs() {
    compare_logs(PRE_FIX);
}

#[test]
fn the_post_fix_build_logs_what_the_real_one_logs() {
    compare_logs(POST_FIX);
}

/// The shape of a JSON value: fields and types at all depths; of a list, the shapes that its elements have.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(elements) => {
            let shapes: BTreeSet<String> = elements.iter().map(|element| shape(element).to_string()).collect();
            json!(shapes.iter().map(|shape| serde_json::from_str(shape).unwrap()).collect::<Vec<Value>>())
        }
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
    }
}

#[test]
fn every_answer_has_the_status_the_fields_and_the_types_of_the_real_one() {
    for build in [PRE_FIX, POST_FIX] {
        let played = play(build);
        let files = files(build.0, "http");
        for name in files.iter().filter(|file| file.strip_suffix(".json").is_some()) {
            let recorded: Value = serde_json::from_str(&fixture(build.0, &format!("http/{name}"))).unwrap();
            let recorded = &recorded["response"];
            let (status, kind, body) = &played.answers[name];
            assert_eq!(json!(status), recorded["status"], "{}: {name}", build.0);
            assert_eq!(json!(kind), recorded["content_type"], "{}: {name}", build.0);
            let simulated: Value = serde_json::from_str(body).unwrap();
            let (was, is) = (shape(&recorded["body"]), shape(&simulated));
            assert_eq!(is, was, "{}: {name}\nsimulated {simulated}\nrecorded {}", build.0, recorded["body"]);
            if recorded["status"] != 200 {
                assert_eq!(simulated, recorded["body"], "{}: {name}: errors are told in the same words", build.0);
            }
            assert!(body.ends_with('\n'));
        }
        let (status, _, body) = &played.answers["metrics-unauthenticated.txt"];
        let recorded = fixture(build.0, "http/metrics-unauthenticated.txt");
        assert_eq!((*status, body.trim_end()), (401, recorded.trim_end()));
    }
}

/// Families with their help and type, and the label names of their series.
fn families(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let name = comment.split(' ').nth(1).unwrap().to_owned();
            found.entry(name).or_default().insert(comment.to_owned());
        } else if let Some((series, _)) = line.rsplit_once(' ') {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name);
            found
                .entry(name.to_owned())
                .or_default()
                .insert(format!("labels {}", labels.collect::<Vec<_>>().join(" ")));
        }
    }
    found
}

/// Counters of GitHub operations, with their values.
fn operations(text: &str) -> BTreeMap<String, String> {
    let lines = text
        .lines()
        .filter(|line| line.starts_with("garm_github_operations") || line.starts_with("garm_github_errors"));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn metrics_have_the_families_labels_operations_and_counts_of_the_real_ones() {
    for build in [PRE_FIX, POST_FIX] {
        let played = play(build);
        for name in ["healthy", "stuck", "after-stale-sessions-expired"] {
            let file = format!("metrics-{name}.txt");
            let recorded = fixture(build.0, &format!("http/{file}"));
            let (_, kind, simulated) = &played.answers[&file];
            assert!(kind.starts_with("text/plain; version=0.0.4"));
            assert_eq!(families(simulated), families(&recorded), "{}: {file}", build.0);
            let (was, is) = (operations(&recorded), operations(simulated));
            assert_eq!(is.keys().collect::<Vec<_>>(), was.keys().collect::<Vec<_>>(), "{}: {file}", build.0);
            // How often a worker tries depends on how long one looked.
            if build == PRE_FIX && name != "after-stale-sessions-expired" || name == "healthy" {
                assert_eq!(is, was, "{}: {file}", build.0);
            }
        }
    }
}

#[test]
fn goroutine_dumps_count_the_same_listeners_and_workers() {
    for build in [PRE_FIX, POST_FIX] {
        let played = play(build);
        for name in ["healthy", "stuck", "after-stale-sessions-expired"] {
            let file = format!("goroutines-{name}.txt");
            let count = |text: &str| {
                let mut counter = GoroutineCounter::default();
                counter.begin();
                counter.piece(text.as_bytes());
                counter.finish().unwrap()
            };
            let recorded = count(&fixture(build.0, &format!("http/{file}")));
            assert_eq!(count(&played.answers[&file].2), recorded, "{}: {file}", build.0);
        }
    }
}

#[test]
fn events_carry_the_fields_of_the_real_ones() {
    for build in [PRE_FIX, POST_FIX] {
        let played = play(build);
        let shapes = |events: &[Value]| {
            let shapes = events.iter().filter(|event| event["entity-type"] != "organization").map(|event| {
                let which =
                    format!("{} {}", event["entity-type"].as_str().unwrap(), event["operation"].as_str().unwrap());
                (which, shape(&event["payload"]).to_string())
            });
            shapes.collect::<BTreeSet<(String, String)>>()
        };
        let text = fixture(build.0, "ws/events-job-and-toggle.jsonl");
        let recorded: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (was, is) = (shapes(&recorded), shapes(&played.events));
        let missing: Vec<_> = was.difference(&is).collect();
        assert!(missing.is_empty(), "{}: {missing:#?}", build.0);
    }
}

/// Situation 12: text at info level, one set, in a run of its own.
fn play_as_text((_, generation): (&str, Build)) -> BTreeMap<&'static str, Vec<Kind>> {
    let mut stage = Stage::new(generation, |garm, github| {
        garm.log_format = LogFormat::Text;
        garm.log_level = LogLevel::Info;
        garm.debug_server = false;
        github.stale_lifetime = Span::secs(15);
    });
    let look = |stage: &mut Stage| {
        stage.start();
        stage.wait(Span::millis(150));
        stage.send("GET", "/api/v1/controller-info", "", &Value::Null);
    };
    look(&mut stage);
    stage.bring_up(&[&["set-0-0"]]);
    stage.wait(Span::secs(7));
    stage.garm.kill(stage.now, &mut stage.github);
    stage.wait(Span::secs(1));
    look(&mut stage);
    stage.wait(Span::secs(22));
    stage.enable(1, false);
    stage.wait(Span::secs(3));
    stage.enable(1, true);
    stage.wait(Span::secs(6));
    stage.garm.stop(stage.now, &mut stage.github);
    let lines = stage.garm.take_log();
    let kinds = lines.iter().map(|line| kind_of_text(std::str::from_utf8(line).unwrap()).unwrap());
    BTreeMap::from([("12", kinds.collect())])
}

#[test]
fn text_at_info_level_has_the_lines_of_the_real_one() {
    for build in [PRE_FIX, POST_FIX] {
        let all = differences(build, &play_as_text(build));
        let left = all.iter().filter(|(situation, kind, _)| excuse(situation, kind).is_none());
        let left: String = left.map(|(_, _, words)| words.as_str()).collect();
        assert!(left.is_empty(), "{}:\n{left}", build.0);
    }
}

#[test]
fn every_waived_difference_is_one() {
    let mut used = BTreeSet::new();
    for build in [PRE_FIX, POST_FIX] {
        let all = [differences(build, &play(build).logs), differences(build, &play_as_text(build))];
        used.extend(all.iter().flatten().filter_map(|(situation, kind, _)| excuse(situation, kind)));
    }
    let idle: Vec<&str> = (0..WAIVED.len()).filter(|n| !used.contains(n)).map(|n| WAIVED[n].msg).collect();
    assert!(idle.is_empty(), "nothing differs any more: {idle:?}");
}
