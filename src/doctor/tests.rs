//! Each case changes one thing in a deployment without faults, and names the answer that it leads to.

use super::facts::{Facts, GithubFacts, ManagerFacts, Place, StateDir, StoreFacts, StreamFacts};
use super::skew::Skew;
use super::{Check, Finding, State, Subject, examine};
use crate::config::{Config, Depth, ManagerConfig, Sources, check};
use crate::exit::ExitCode;
use medic_core::model::log_fact::{LogEvidence, SetLog};
use medic_core::model::{
    Controller, EndpointName, Entity, EntityKind, FailureKind, GithubSet, Goroutines, Incarnation, ListenerMetrics,
    ManagerMetrics, ManagerName, Note, Operation, Owner, Pause, PauseId, PauseScope, Revision, ScaleSet, ScaleSetId,
    ScopeCounters, Seen, Span, Step, Treatment, Wall,
};
use medic_core::policy::Mode;

const NOW: Wall = Wall(1_764_000_000_000);

const CONFIG: &str = r#"
[run]
mode = "heal"
state_dir = "/var/lib/scaleset-medic"
[[manager]]
name = "garm"
url = "http://127.0.0.1:9997"
username = "admin"
password_file = "/run/secrets/garm-password"
log_file = "/var/log/garm/garm.log"
debug_server = true
[[github]]
endpoint = "github.com"
token_file = "/run/secrets/github-token"
"#;

fn config(text: &str) -> Config {
    check(&Sources::of_text("test.toml", text), Depth::Values).unwrap().config
}

fn scale_set(id: u64, entity: &str) -> ScaleSet {
    let entity = Entity { kind: EntityKind::Organization, name: entity.to_owned() };
    let set = medic_core::decide::testing::scale_set(id);
    ScaleSet { name: format!("linux-{id}"), entity: Some(entity), updated_at: None, ..set }
}

fn manager(config: &ManagerConfig, id: &str) -> ManagerFacts {
    ManagerFacts {
        config: config.clone(),
        controller: Seen::Known(Controller { id: id.to_owned(), version: "v0.2.1".to_owned() }),
        scale_sets: Seen::Known(vec![scale_set(1, "acme"), scale_set(2, "acme")]),
        metrics: Seen::Known(ManagerMetrics {
            incarnation: Some(Incarnation(NOW.minus(Span::hours(3)))),
            has_set_gauges: true,
            ..ManagerMetrics::default()
        }),
        goroutines: Seen::Known(Goroutines { listeners: 2, workers: 2 }),
        log_file: Seen::Known(LogEvidence {
            run_started: Some(NOW.minus(Span::hours(3))),
            last_stop: Some(NOW.minus(Span::hours(3))),
            debug: true,
            newest: Some(NOW),
            ..LogEvidence::default()
        }),
        log_stream: Seen::Known(StreamFacts { lines: 9, debug: true }),
        events: Seen::Known(()),
        login_until: Some(NOW.plus(Span::hours(24))),
        skew: Some(Skew::of(NOW, NOW, NOW)),
    }
}

fn healthy() -> Facts {
    let config = config(CONFIG);
    let manager = manager(&config.managers[0], "60b611f2");
    let sets = manager.sets();
    let entity = sets[0].entity_ref().unwrap();
    let listed =
        sets.iter().map(|set| GithubSet { id: set.github_id.unwrap(), name: set.name.clone(), statistics: None });
    let entities = vec![(entity, Seen::Known(listed.collect()))];
    Facts {
        at: NOW,
        config,
        place: Place::Elsewhere,
        state_dir: StateDir::Writable { mode: Some(0o700) },
        store: StoreFacts::Readable { live_sessions: 2, open_treatments: 0, pauses: Vec::new(), holder: None },
        left_disabled: Vec::new(),
        pause_file: None,
        github: vec![GithubFacts {
            endpoint: EndpointName::new("github.com"),
            entities,
            not_asked: 0,
            remaining: Some(4_900),
            ends: None,
            skew: Some(Skew::of(NOW, NOW, NOW)),
        }],
        managers: vec![manager],
    }
}

fn broken<T>(operation: Operation, kind: FailureKind) -> Seen<T> {
    Seen::Failed(medic_core::diagnose::testing::failure(operation, kind))
}

/// The cases of one question: the state of its answer, words that the answer holds, and what leads to it.
struct Question(Check);

impl Question {
    #[track_caller]
    fn ok(self, words: &[&str], change: impl FnOnce(&mut Facts)) -> Self {
        self.answers(State::Ok, words, change)
    }
    #[track_caller]
    fn warn(self, words: &[&str], change: impl FnOnce(&mut Facts)) -> Self {
        self.answers(State::Warn, words, change)
    }
    #[track_caller]
    fn fail(self, words: &[&str], change: impl FnOnce(&mut Facts)) -> Self {
        self.answers(State::Fail, words, change)
    }
    #[track_caller]
    fn unknown(self, words: &[&str], change: impl FnOnce(&mut Facts)) -> Self {
        self.answers(State::Unknown, words, change)
    }
    #[track_caller]
    fn answers(self, state: State, words: &[&str], change: impl FnOnce(&mut Facts)) -> Self {
        let mut facts = healthy();
        change(&mut facts);
        let report = examine(&facts);
        let answers: Vec<_> = report.findings.iter().filter(|finding| finding.check == self.0).collect();
        let fits = |finding: &&Finding| finding.state == state && words.iter().all(|word| text(finding).contains(word));
        assert!(answers.iter().any(fits), "{} {state} {words:?}: {answers:#?}", self.0);
        assert!(state != State::Ok || answers.len() == 1, "{}: {answers:#?}", self.0);
        for finding in report.findings.iter().filter(|finding| finding.state != State::Ok) {
            assert!(!finding.risk.is_empty() && !finding.fix.is_empty(), "no risk or no step: {finding:?}");
        }
        self
    }
}

fn text(finding: &Finding) -> String {
    let steps = finding.fix.iter().flat_map(|step| std::iter::once(&step.what).chain(&step.lines));
    let all: Vec<_> = [&finding.seen, &finding.risk].into_iter().chain(steps).map(String::as_str).collect();
    all.join("\n")
}

fn metrics(facts: &mut Facts) -> &mut ManagerMetrics {
    let Seen::Known(metrics) = &mut facts.managers[0].metrics else { panic!("metrics") };
    metrics
}

fn log(facts: &mut Facts) -> &mut LogEvidence {
    let Seen::Known(log) = &mut facts.managers[0].log_file else { panic!("a log") };
    log
}

fn with_config(facts: &mut Facts, from: &str, to: &str) {
    facts.config = config(&CONFIG.replace(from, to));
    facts.managers[0].config = facts.config.managers[0].clone();
}

fn with_policy(facts: &mut Facts, lines: &str) {
    facts.config = config(&format!("{CONFIG}[policy]\n{lines}\n"));
}

fn with_stream(facts: &mut Facts, stream: Seen<StreamFacts>) {
    with_config(facts, "log_file = \"/var/log/garm/garm.log\"", "log_stream = true");
    facts.managers[0].log_stream = stream;
}

fn with_version(facts: &mut Facts, version: &str) {
    metrics(facts).has_set_gauges = false;
    facts.managers[0].controller = Seen::Known(Controller { id: "x".to_owned(), version: version.to_owned() });
}

fn without_login(facts: &mut Facts, kind: FailureKind) {
    facts.managers[0].controller = broken(Operation::Login, kind);
    facts.managers[0].scale_sets = Seen::NotAsked;
}

fn with_second(facts: &mut Facts, url: &str, id: &str, entity: &str, set: u64) {
    let table = "[[manager]]\nname = \"two\"\nusername = \"admin\"\npassword_file = \"/p\"\n";
    facts.config = config(&format!("{CONFIG}{table}url = \"{url}\"\n"));
    let mut second = manager(&facts.config.managers[1], id);
    second.scale_sets = Seen::Known(vec![scale_set(set, entity)]);
    facts.managers.push(second);
}

fn pause(id: PauseId, author: &str) -> Pause {
    let scope = match id {
        PauseId::FILE => PauseScope::All,
        PauseId(_) => PauseScope::Manager { manager: ManagerName::new("garm") },
    };
    Pause { id, scope, reason: "migration".to_owned(), author: author.to_owned(), created: NOW, expires: None }
}

fn with_entity_answer(facts: &mut Facts, answer: Seen<Vec<GithubSet>>) {
    facts.github[0].entities[0].1 = answer;
}

fn with_skew(date: Wall) -> Skew {
    Skew::of(NOW, NOW, date)
}

#[test]
fn answers_about_the_medic_itself() {
    Question(Check::Mode).warn(&["mode = \"heal\""], |f| f.config.run.mode = Mode::Observe);
    Question(Check::Policy)
        .warn(&["allow_risky = false"], |f| with_policy(f, "allow_risky = true"))
        .warn(&["allow_undated = false"], |f| with_policy(f, "allow_undated = true"))
        .warn(&["stale_session_limit = \"5m\""], |f| {
            with_policy(f, "stale_session_limit = \"60s\"\nstale_session_odd = \"30s\"");
        })
        .warn(&["settle = \"20s\""], |f| with_policy(f, "settle = \"1s\""))
        .warn(&["heals_per_hour = 1000"], |f| with_policy(f, "heals_per_hour = 1"));
    Question(Check::StateDir)
        .ok(&[], |f| f.state_dir = StateDir::Writable { mode: None })
        .ok(&[], |f| f.state_dir = StateDir::Writable { mode: Some(0o700) })
        .ok(&[], |f| f.state_dir = StateDir::Writable { mode: Some(0o2770) })
        .warn(&[], |f| f.state_dir = StateDir::Writable { mode: Some(0o777) })
        .fail(&[], |f| f.state_dir = StateDir::Unusable("read-only".to_owned()));
    Question(Check::Ledger)
        .ok(&[], |f| f.store = StoreFacts::Absent)
        .fail(&[], |f| f.store = StoreFacts::Unreadable("damaged".to_owned()));
    Question(Check::Pauses)
        .warn(&["ann", "migration", "scaleset-medic resume --manager garm"], |f| {
            let pauses = vec![pause(PauseId(1), "ann")];
            f.store = StoreFacts::Readable { live_sessions: 0, open_treatments: 0, pauses, holder: None };
        })
        .warn(&["a file", "remove the file"], |f| {
            f.store = StoreFacts::Absent;
            f.pause_file = Some(pause(PauseId::FILE, "a file"));
        });
    Question(Check::LeftDisabled).fail(&["11 times", "HTTP 500", "garm-cli scaleset update 3 --enabled=true"], |f| {
        let step = Step::Enabling { ours: Revision::new("r"), since: None, attempts: 11, not_before: NOW };
        let row = medic_core::decide::testing::open(1, 3, NOW.minus(Span::mins(4)), step);
        let row = Treatment { refusal: Some(Note::Text { text: "HTTP 500".to_owned() }), ..row };
        f.left_disabled = vec![(ManagerName::new("garm"), row)];
    });
}

#[test]
fn answers_about_overlapping_managers() {
    Question(Check::Overlap)
        .fail(&[], |f| with_second(f, "http://127.0.0.1:9997", "other", "elsewhere", 9))
        .fail(&[], |f| with_second(f, "http://garm.example", "60b611f2", "elsewhere", 9))
        .fail(&[], |f| with_second(f, "http://garm.example", "other", "ACME", 1))
        .warn(&[], |f| with_second(f, "http://garm.example", "other", "acme", 9))
        .ok(&[], |f| with_second(f, "http://garm.example", "other", "elsewhere", 1))
        .ok(&[], |f| with_owner(f, "garm-60b611f2"))
        .fail(&["garm-9999"], |f| with_owner(f, "garm-9999"));
}

fn with_owner(facts: &mut Facts, owner: &str) {
    let refused = SetLog { conflict_owner: Some(Owner::new(owner)), ..SetLog::default() };
    log(facts).by_id.insert(ScaleSetId(1), refused);
}

#[test]
fn answers_about_the_connection_to_a_manager() {
    Question(Check::Reach)
        .fail(&["curl"], |f| without_login(f, FailureKind::Connect))
        .fail(&["curl"], |f| without_login(f, FailureKind::Timeout))
        .fail(&["curl"], |f| without_login(f, FailureKind::Server))
        .fail(&["without /api/v1"], |f| without_login(f, FailureKind::Malformed))
        .fail(&["ca_file = "], |f| without_login(f, FailureKind::Tls));
    Question(Check::Login)
        .fail(&["password_file"], |f| without_login(f, FailureKind::Unauthorized))
        .fail(&["administrator"], |f| without_login(f, FailureKind::Forbidden))
        .fail(&["garm-cli init"], |f| without_login(f, FailureKind::NotInitialised));
    Question(Check::Transport)
        .ok(&[], |_| {})
        .ok(&[], |f| with_config(f, "http://127.0.0.1:9997", "http://[::1]:9997"))
        .ok(&[], |f| with_config(f, "http://127.0.0.1:9997", "http://localhost:9997"))
        .ok(&[], |f| with_config(f, "http://127.0.0.1:9997", "https://garm.example"))
        .warn(&[], |f| with_config(f, "http://127.0.0.1:9997", "http://garm.example"));
    Question(Check::Login)
        .ok(&[], |f| f.managers[0].login_until = None)
        .warn(&[], |f| f.managers[0].login_until = Some(NOW.plus(Span::mins(3))))
        .ok(&[], |f| f.managers[0].login_until = Some(NOW.plus(Span::hours(24))));
    Question(Check::Api)
        .warn(&[], |f| f.managers[0].scale_sets = Seen::Known(Vec::new()))
        .fail(&[], |f| f.managers[0].scale_sets = broken(Operation::ListScaleSets, FailureKind::Server))
        .warn(&["update GARM"], |f| {
            let Seen::Known(sets) = &mut f.managers[0].scale_sets else { panic!("sets") };
            sets[0].endpoint = None;
        });
    Question(Check::Clock)
        .unknown(&[], |f| f.managers[0].skew = None)
        .ok(&["agrees"], |f| f.managers[0].skew = Some(with_skew(NOW.plus(Span::secs(1)))))
        .warn(&["ahead of"], |f| f.managers[0].skew = Some(with_skew(NOW.plus(Span::mins(1)))))
        .warn(&["behind"], |f| f.managers[0].skew = Some(with_skew(NOW.minus(Span::mins(1)))));
}

#[test]
fn answers_about_metrics_goroutines_and_events() {
    const METRICS_LINES: &[&str] = &["[metrics]", "enable = true", "disable_auth = true"];
    Question(Check::Metrics)
        .fail(METRICS_LINES, |f| f.managers[0].metrics = Seen::NotAsked)
        .fail(METRICS_LINES, |f| f.managers[0].metrics = broken(Operation::Metrics, FailureKind::NotEnabled))
        .fail(&["metrics_auth = true"], |f| {
            f.managers[0].metrics = broken(Operation::Metrics, FailureKind::Unauthorized);
        })
        .warn(&["process_start_time_seconds"], |f| *metrics(f) = ManagerMetrics::default());
    Question(Check::Goroutines)
        .warn(&["debug_server = true"], |f| f.managers[0].goroutines = Seen::NotAsked)
        .fail(&["debug_server = true"], |f| {
            f.managers[0].goroutines = broken(Operation::Goroutines, FailureKind::NotEnabled);
        })
        .fail(&["/debug/pprof/goroutine"], |f| {
            f.managers[0].goroutines = broken(Operation::Goroutines, FailureKind::Forbidden);
        });
    Question(Check::Events)
        .warn(&["websockets"], |f| f.managers[0].events = broken(Operation::Websocket, FailureKind::Rejected));
}

#[test]
fn answers_about_the_log() {
    const LEVEL: &[&str] = &["stale session cannot be deleted", "log_level = \"debug\"", "log_format = \"json\""];
    Question(Check::Log)
        .ok(&["level debug"], |_| {})
        .warn(LEVEL, |f| log(f).debug = false)
        .fail(&["10 min old"], |f| log(f).newest = Some(NOW.minus(Span::mins(10))))
        .fail(&["no line of a GARM"], |f| log(f).newest = None)
        .fail(&["log_file = \"/var/log/garm/garm.log\"", "mountPath: /var/log/garm, readOnly: true", "emptyDir"], |f| {
            f.managers[0].log_file = broken(Operation::LogFile, FailureKind::NotFound);
        })
        .fail(&["fsGroup"], |f| f.managers[0].log_file = broken(Operation::LogFile, FailureKind::Forbidden))
        .unknown(&[], |f| f.managers[0].log_file = broken(Operation::LogFile, FailureKind::HeldBack))
        .ok(&["the websocket is read"], |f| with_stream(f, Seen::Known(StreamFacts { lines: 3, debug: true })))
        .warn(LEVEL, |f| with_stream(f, Seen::Known(StreamFacts { lines: 3, debug: false })))
        .warn(LEVEL, |f| with_stream(f, Seen::Known(StreamFacts::default())))
        .fail(&["enable_log_streamer = true"], |f| {
            with_stream(f, broken(Operation::Websocket, FailureKind::NotEnabled));
        })
        .fail(&["Upgrade"], |f| with_stream(f, broken(Operation::Websocket, FailureKind::Broken)))
        .warn(&["log_level = \"debug\"", "log_stream = true"], |f| {
            with_config(f, "log_file = \"/var/log/garm/garm.log\"", "");
        });
}

#[test]
fn answers_about_the_build_of_the_manager() {
    Question(Check::Build)
        .ok(&["retries"], |f| {
            f.managers[0].controller =
                Seen::Known(Controller { id: "x".to_owned(), version: "v0.0.0-unknown".to_owned() });
        })
        .ok(&["last poll"], |f| _ = metrics(f).listeners.insert(ScaleSetId(1), ListenerMetrics::default()))
        .warn(&["gives up for good"], |f| with_version(f, "v0.2.0-alpha"))
        .ok(&["retries"], |f| with_version(f, "v0.2.1"))
        .warn(&["probably"], |f| with_version(f, "v0.2.0-alpha-200-g53ec618c"))
        .warn(&["probably"], |f| with_version(f, "v0.0.0-unknown"))
        .unknown(&["without a version"], |f| {
            with_version(f, "");
            metrics(f).incarnation = Some(Incarnation(NOW.minus(Span::mins(1))));
        })
        .unknown(&[], |f| {
            with_version(f, "");
            f.managers[0].metrics = Seen::NotAsked;
        })
        .warn(&["gives up for good"], |f| {
            metrics(f).has_set_gauges = false;
            log(f).by_id.insert(ScaleSetId(1), SetLog { gave_up: Some(Wall(1)), ..SetLog::default() });
        });
}

/// A log of the present run of GARM, with the end of the run before it.
fn with_end(facts: &mut Facts, last_stop: Option<Wall>, last_panic: Option<Wall>) {
    *log(facts) = LogEvidence { run_started: Some(NOW), last_stop, last_panic, ..LogEvidence::default() };
}

fn with_create_errors(facts: &mut Facts) {
    let counters = ScopeCounters { create: 40, create_errors: 38, ..ScopeCounters::default() };
    metrics(facts).scopes.insert(EntityKind::Organization, counters);
}

#[test]
fn answers_about_the_rollout_of_the_manager() {
    const JUST: Option<Wall> = Some(Wall(NOW.0 - 3_000));
    const LONG: Option<Wall> = Some(Wall(NOW.0 - 10_800_000));
    Question(Check::Rollout)
        .ok(&[], |f| with_end(f, JUST, None))
        .warn(&["panic"], |f| with_end(f, None, JUST))
        .warn(&["panic"], |f| with_end(f, JUST, JUST))
        .unknown(&[], |f| with_end(f, LONG, LONG))
        .unknown(&[], |f| with_end(f, None, None))
        .warn(&["type: Recreate", "kubectl get"], |f| {
            f.place = Place::Kubernetes;
            with_end(f, Some(NOW), None);
            log(f).by_id.insert(ScaleSetId(1), SetLog { conflicts: Some((NOW, NOW)), ..SetLog::default() });
        })
        .unknown(&["TimeoutStopSec=60"], |f| f.managers[0].log_file = Seen::NotAsked)
        .ok(&[], with_create_errors)
        .warn(&["38 times"], |f| {
            with_create_errors(f);
            f.managers[0].log_file = Seen::NotAsked;
        });
}

#[test]
fn answers_about_github() {
    Question(Check::ActionsService)
        .warn(&["endpoint = \"github.com\""], |f| {
            f.config = config(CONFIG.split("[[github]]").next().unwrap());
            f.github = Vec::new();
        })
        .fail(&["Put a new one"], |f| {
            with_entity_answer(f, broken(Operation::RegistrationToken, FailureKind::Unauthorized));
        })
        .fail(&["admin:org"], |f| with_entity_answer(f, broken(Operation::RegistrationToken, FailureKind::NotFound)))
        .fail(&["egress"], |f| with_entity_answer(f, broken(Operation::ListGithubSets, FailureKind::Connect)))
        .warn(&["linux-2"], |f| {
            let Seen::Known(listed) = &mut f.github[0].entities[0].1 else { panic!("a list") };
            listed.retain(|set| set.name != "linux-2");
        })
        .warn(&["covers none"], |f| f.github[0].entities.clear())
        .warn(&["an endpoint githb"], misspelt)
        .warn(&["no [[github]] table"], misspelt)
        .warn(&["`entities`"], with_other_entity)
        .ok(&[], |f| {
            with_other_entity(f);
            f.github[0].not_asked = 1;
        });
    Question(Check::Credential)
        .warn(&["3 days"], |f| f.github[0].ends = Some(NOW.plus(Span::hours(72))))
        .ok(&["100 days"], |f| f.github[0].ends = Some(NOW.plus(Span::hours(2400))))
        .warn(&["NTP"], |f| f.github[0].skew = Some(with_skew(NOW.plus(Span::mins(5)))));
}

fn misspelt(facts: &mut Facts) {
    with_config(facts, "\"github.com\"", "\"githb\"");
    facts.github[0].entities.clear();
    facts.github[0].endpoint = EndpointName::new("githb");
}

fn with_other_entity(facts: &mut Facts) {
    let Seen::Known(sets) = &mut facts.managers[0].scale_sets else { panic!("sets") };
    sets.push(scale_set(3, "other"));
}

#[test]
fn a_deployment_without_faults_has_no_finding() {
    let report = examine(&healthy());
    let bad: Vec<_> = report.findings.iter().filter(|f| matches!(f.state, State::Fail | State::Warn)).collect();
    assert_eq!(bad, Vec::<&Finding>::new());
    assert_eq!(report.exit, ExitCode::Well);
}

#[test]
fn an_unreached_manager_has_one_finding_and_decides_the_exit() {
    for (kind, exit, check) in [
        (FailureKind::Connect, ExitCode::Blind, Check::Reach),
        (FailureKind::Server, ExitCode::Blind, Check::Reach),
        (FailureKind::Unauthorized, ExitCode::Unhealthy, Check::Login),
        (FailureKind::NotInitialised, ExitCode::Unhealthy, Check::Login),
    ] {
        let mut facts = healthy();
        without_login(&mut facts, kind);
        let report = examine(&facts);
        assert_eq!(report.exit, exit, "{kind}");
        let subject = Subject::from(&facts.managers[0]);
        let fails = report.findings.iter().filter(|f| f.subject == subject && f.state == State::Fail);
        assert_eq!(fails.map(|f| f.check).collect::<Vec<_>>(), [check], "{kind}");
    }
}
