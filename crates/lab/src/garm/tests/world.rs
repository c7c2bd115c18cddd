//! The traps once more, seen through the world: the way the lab and its doors drive a manager.

use crate::backend::{Backend, ServerId};
use crate::garm::{Build, GarmState, WorkerTruth};
use crate::github::{Fault, FaultKind, GithubConfig, Route, UnknownSession};
use crate::world::{Fleet, World};
use bytes::Bytes;
use medic_core::model::{GithubId, ScaleSetId, SessionId, Span, Wall};
use serde_json::{Value, json};

const GARM: ServerId = ServerId::Manager(0);
const BOTH: [Build; 2] = [Build::PreFix, Build::PostFix];
const OPERATIONS: [&str; 10] = [
    "AcquireJobs",
    "CreateEntityRegistrationToken",
    "CreateMessageSession",
    "CreateRunnerScaleSet",
    "DeleteMessage",
    "DeleteMessageSession",
    "GenerateJitRunnerConfig",
    "GetActionServiceInfo",
    "GetMessage",
    "GetRunnerScaleSetByNameAndRunnerGroup",
];

/// One manager and GitHub.
struct Lab {
    world: World,
    now: Wall,
}

impl Lab {
    fn off(build: Build, sets: u32, github: impl FnOnce(&mut GithubConfig)) -> Self {
        let mut fleet = Fleet::new(build, sets, "http://github.test");
        github(&mut fleet.github);
        let now = Wall(1_764_000_000_000);
        Self { world: World::new(&fleet, now), now }
    }
    fn on(build: Build, sets: u32) -> Self {
        let mut lab = Self::off(build, sets, |_| {});
        lab.start();
        lab.wait(Span::secs(10));
        let (listening, enabled) = lab.world.listening(0);
        assert_eq!((listening, enabled), (enabled, usize::try_from(sets).unwrap()));
        lab
    }
    fn start(&mut self) {
        self.world.start(0, self.now);
    }
    fn wait(&mut self, span: Span) {
        self.now = self.now.plus(span);
        self.world.advance(self.now);
    }
    fn kill_and_start(&mut self) {
        self.world.kill(0, self.now);
        self.wait(Span::secs(1));
        self.start();
        self.wait(Span::secs(10));
    }
    fn garm(&self) -> &GarmState {
        self.world.garm(0).unwrap()
    }
    fn worker(&self, set: u64) -> WorkerTruth {
        self.garm().worker(ScaleSetId(set))
    }
    fn listens(&self, set: u64) -> bool {
        matches!(self.worker(set), WorkerTruth::Listening(_))
    }
    fn session(&self, set: u64) -> SessionId {
        let truth = self.worker(set);
        let WorkerTruth::Listening(session) = truth else { panic!("{truth:?}") };
        session
    }
    fn forge(&self, set: u64) -> GithubId {
        self.garm().scale_sets().find(|(id, _, _)| *id == ScaleSetId(set)).unwrap().2
    }
    /// GitHub hands them to the poll that waits.
    fn queue_jobs(&mut self, set: u64, n: u32) {
        let set = self.forge(set);
        self.world.github.queue_jobs(set, n, self.now);
        self.wait(Span::ZERO);
    }
    fn send(&mut self, method: &str, path: &str, body: &Value, token: &str) -> Value {
        let request = http::Request::builder().method(method).uri(path).header("authorization", token);
        let request = request.body(Bytes::from(body.to_string())).unwrap();
        let answer = self.world.handle(GARM, &request, self.now);
        assert_eq!(answer.response.status(), 200, "{method} {path}");
        serde_json::from_slice(answer.response.body()).unwrap()
    }
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let login = json!({"username": "admin", "password": "correct horse battery staple"});
        let token = self.send("POST", "/api/v1/auth/login", &login, "")["token"].as_str().unwrap().to_owned();
        self.send(method, path, body, &format!("Bearer {token}"))
    }
    fn put(&mut self, set: u64, enabled: bool) -> Value {
        self.ask("PUT", &format!("/api/v1/scalesets/{set}"), &json!({"enabled": enabled}))
    }
    /// As it should be done: with a pause.
    fn toggle(&mut self, set: u64) {
        self.put(set, false);
        self.wait(Span::secs(5));
        self.put(set, true);
    }
    fn calls(&self, route: Route) -> u64 {
        self.world.github.total_calls(route)
    }
    fn log(&mut self, message: &str) -> Vec<Value> {
        let lines = self.world.take_log(GARM);
        let lines = lines.iter().filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        lines.filter(|line| line["msg"] == message).collect()
    }
    fn errors_never_exceed_operations(&self) {
        for operation in OPERATIONS {
            let (operations, errors) = self.garm().operations(operation);
            assert!(errors <= operations, "{operation}: {errors} of {operations} failed");
        }
    }
}

#[test]
fn an_enable_sent_while_the_worker_starts_is_lost() {
    let mut lab = Lab::on(Build::PreFix, 1);
    lab.kill_and_start();
    assert_eq!(lab.worker(1), WorkerTruth::Absent);
    lab.world.github.reconfigure(|github| github.latency = Span::millis(100));
    lab.put(1, false);
    lab.wait(Span::millis(100));
    lab.put(1, true);
    lab.wait(Span::mins(10));
    assert_eq!(lab.worker(1), WorkerTruth::Idle, "it believes that it is disabled");
    assert!(lab.garm().is_enabled(ScaleSetId(1)), "and the API says enabled");
    lab.put(1, true);
    lab.wait(Span::secs(10));
    assert_eq!(lab.worker(1), WorkerTruth::Idle, "saying it again changes nothing");
    lab.toggle(1);
    lab.wait(Span::secs(5));
    assert!(lab.listens(1));
}

#[test]
fn a_put_that_changes_nothing_wakes_nobody() {
    for build in BOTH {
        let mut lab = Lab::on(build, 1);
        let before = lab.ask("GET", "/api/v1/scalesets/1", &Value::Null);
        lab.world.take_events(GARM);
        lab.wait(Span::secs(1));
        assert_eq!(lab.put(1, true)["updated_at"], before["updated_at"]);
        assert!(lab.world.take_events(GARM).is_empty());
        assert_ne!(lab.put(1, false)["updated_at"], before["updated_at"]);
        assert_eq!(lab.world.take_events(GARM).len(), 1);
    }
    let mut lab = Lab::on(Build::PreFix, 1);
    lab.kill_and_start();
    let attempts = lab.calls(Route::CreateSession);
    lab.put(1, true);
    lab.wait(Span::mins(10));
    assert_eq!((lab.worker(1), lab.calls(Route::CreateSession)), (WorkerTruth::Absent, attempts));
}

/// What may go wrong when a worker starts for the first time.
type Trouble = (&'static str, fn(&mut World, Wall, GithubId));

const TROUBLES: [Trouble; 7] = [
    ("409", |world, now, set| world.github.phantom_conflict(set, now.plus(Span::secs(20)))),
    ("503 to the POST", |world, _, _| {
        world.github.inject(Fault::on(Route::CreateSession, FaultKind::status(503)));
    }),
    ("500 to the look-up", |world, _, _| world.github.inject(Fault::on(Route::ListSets, FaultKind::status(500)))),
    ("HTML", |world, _, _| world.github.inject(Fault::on(Route::RunnerRegistration, FaultKind::HtmlPage(502)))),
    ("401", |world, _, _| world.github.revoke_credentials("garm")),
    ("rate limit", |world, now, _| world.github.exhaust_quota("garm", now.plus(Span::secs(20)))),
    ("unreachable", |world, _, _| {
        for route in [Route::RegistrationToken, Route::RunnerRegistration, Route::CreateSession] {
            world.github.inject(Fault::on(route, FaultKind::Refused));
        }
    }),
];

/// A manager that was started into trouble, which is over by now.
fn started_into((name, trouble): Trouble, build: Build) -> Lab {
    let mut lab = Lab::off(build, 1, |_| {});
    let set = lab.forge(1);
    trouble(&mut lab.world, lab.now, set);
    lab.start();
    lab.wait(Span::secs(15));
    assert!(!lab.listens(1), "{build:?} {name}");
    lab.wait(Span::secs(6));
    lab.world.github.clear_faults();
    lab.world.github.restore_credentials("garm");
    lab
}

#[test]
fn any_error_of_the_first_start_leaves_a_dead_worker_in_the_old_build() {
    for trouble in TROUBLES {
        let mut lab = started_into(trouble, Build::PreFix);
        let said = lab.log("failed to handle scale set create operation");
        assert_eq!(said.len(), 1, "{}: one line, then silence: {said:?}", trouble.0);
        let attempts = lab.calls(Route::RegistrationToken);
        lab.wait(Span::hours(2));
        assert_eq!(
            (lab.worker(1), lab.calls(Route::RegistrationToken)),
            (WorkerTruth::Absent, attempts),
            "{}",
            trouble.0
        );
        lab.toggle(1);
        lab.wait(Span::secs(5));
        assert!(lab.listens(1), "{}", trouble.0);
        lab.errors_never_exceed_operations();
    }
}

#[test]
fn the_newer_build_comes_back_from_each_of_them_by_itself() {
    for trouble in TROUBLES {
        let mut lab = started_into(trouble, Build::PostFix);
        lab.wait(Span::mins(1));
        assert!(lab.listens(1), "{}", trouble.0);
        assert!(lab.garm().writes().is_empty());
        lab.errors_never_exceed_operations();
    }
}

#[test]
fn a_revived_worker_tries_every_two_seconds_until_the_slot_is_free() {
    let mut lab = Lab::on(Build::PreFix, 1);
    lab.kill_and_start();
    lab.toggle(1);
    lab.wait(Span::secs(5));
    assert_eq!(lab.worker(1), WorkerTruth::Retrying);
    let before = lab.calls(Route::CreateSession);
    lab.wait(Span::secs(20));
    assert_eq!(lab.calls(Route::CreateSession) - before, 10);
    lab.wait(Span::secs(60));
    assert!(lab.listens(1), "the stale session has ended");
}

#[test]
fn many_toggles_make_one_retry_loop() {
    for build in BOTH {
        let mut lab = Lab::on(build, 1);
        lab.kill_and_start();
        for _ in 0..5 {
            lab.toggle(1);
            lab.wait(Span::secs(3));
        }
        let before = lab.calls(Route::CreateSession);
        lab.wait(Span::secs(20));
        assert_eq!(lab.calls(Route::CreateSession) - before, 10, "{build:?}");
    }
}

#[test]
fn a_vanished_session_kills_the_process_and_leaves_the_others_behind() {
    for build in BOTH {
        let mut lab = Lab::on(build, 3);
        let others = [lab.session(2), lab.session(3)];
        lab.world.github.reconfigure(|github| github.unknown_session = UnknownSession::NotFound);
        let set = lab.forge(1);
        lab.world.github.evict_session(set, lab.now);
        lab.wait(Span::secs(1));
        lab.wait(Span::secs(1));
        assert_eq!((lab.garm().crashes(), lab.garm().is_up()), (1, false), "{build:?}");
        let held = [2, 3].map(|set| lab.world.github.holder(lab.forge(set)).unwrap().session);
        assert_eq!(held, others, "{build:?}: stale now");
        lab.start();
        lab.wait(Span::secs(10));
        assert!(lab.listens(1) && !lab.listens(2) && !lab.listens(3), "{build:?}");
    }
}

#[test]
fn to_disable_a_set_whose_session_is_gone_kills_the_process_too() {
    for build in BOTH {
        let mut lab = Lab::on(build, 2);
        let set = lab.forge(1);
        lab.world.github.inject(Fault::on(Route::DeleteSession, FaultKind::status(404)).for_set(set.0));
        lab.put(1, false);
        lab.wait(Span::secs(1));
        assert_eq!((lab.garm().crashes(), lab.garm().is_up()), (1, false), "{build:?}");
        assert!(!lab.garm().is_enabled(ScaleSetId(1)), "{build:?}: the write itself was done");
    }
}

#[test]
fn a_delete_that_is_never_answered_blocks_its_set_alone() {
    for build in BOTH {
        let mut lab = Lab::on(build, 2);
        let set = lab.forge(1);
        lab.world.github.inject(Fault::on(Route::DeleteSession, FaultKind::Never).for_set(set.0).times(1));
        lab.put(1, false);
        lab.wait(Span::secs(5));
        assert_eq!(lab.worker(1), WorkerTruth::Hanging, "{build:?}");
        lab.put(1, true);
        lab.wait(Span::hours(1));
        assert_eq!(lab.worker(1), WorkerTruth::Hanging, "{build:?}: enable events wait for ever");
        lab.toggle(2);
        lab.wait(Span::secs(5));
        assert!(lab.listens(2), "{build:?}");
    }
}

#[test]
fn instances_linger_while_no_worker_runs() {
    let mut lab = Lab::on(Build::PreFix, 1);
    lab.queue_jobs(1, 2);
    lab.wait(Span::secs(12));
    let count = |lab: &mut Lab| lab.ask("GET", "/api/v1/instances", &Value::Null).as_array().unwrap().len();
    assert_eq!(count(&mut lab), 2);
    lab.kill_and_start();
    assert_eq!(lab.worker(1), WorkerTruth::Absent);
    lab.world.garm_mut(0).unwrap().0.runners_vanish(ScaleSetId(1));
    lab.wait(Span::hours(1));
    assert_eq!(count(&mut lab), 2, "nobody removes them");
    lab.toggle(1);
    lab.wait(Span::secs(5));
    let left = lab.ask("GET", "/api/v1/instances", &Value::Null);
    assert!(left.as_array().unwrap().iter().all(|instance| instance["status"] != "deleted"), "{left}");
}

#[test]
fn a_set_removed_at_the_forge_is_created_anew_at_the_next_start() {
    for build in BOTH {
        let mut lab = Lab::on(build, 1);
        let old = lab.forge(1);
        lab.world.stop(0, lab.now);
        lab.world.github.remove_set(old, lab.now);
        lab.start();
        lab.wait(Span::secs(10));
        let new = lab.forge(1);
        assert_ne!(new, old, "{build:?}");
        assert!(lab.world.github.exists(new) && !lab.world.github.exists(old));
        assert_eq!(lab.ask("GET", "/api/v1/scalesets/1", &Value::Null)["scale_set_id"], json!(new.0));
        assert!(lab.listens(1), "{build:?}");
    }
}

#[test]
fn queue_tokens_are_refreshed_and_the_session_lives_on() {
    for build in BOTH {
        let mut lab = Lab::on(build, 1);
        let session = lab.session(1);
        lab.wait(Span::hours(5));
        assert_eq!(lab.session(1), session, "{build:?}");
        let (refreshed, failed) = lab.garm().operations("RefreshMessageSession");
        assert!((5..=6).contains(&refreshed), "{build:?}: {refreshed}");
        assert_eq!(failed, 0);
        assert_eq!(lab.log("refreshed message session token").len(), usize::try_from(refreshed).unwrap());
    }
}

#[test]
fn jobs_become_runners_and_finish() {
    for build in BOTH {
        let mut lab = Lab::on(build, 1);
        let set = lab.forge(1);
        lab.queue_jobs(1, 3);
        lab.wait(Span::secs(45));
        assert_eq!(lab.world.github.jobs(set).running, 3, "{build:?}");
        assert_eq!(lab.ask("GET", "/api/v1/scalesets/1", &Value::Null)["desired_runner_count"], 3);
        lab.wait(Span::mins(3));
        assert_eq!(lab.world.github.jobs(set).completed, 3, "{build:?}");
        let left = lab.ask("GET", "/api/v1/instances", &Value::Null);
        assert_eq!(left, json!([]), "{build:?}");
        assert!(lab.listens(1));
        lab.errors_never_exceed_operations();
    }
}

/// The waits that were said after failed restarts of a listener, in milliseconds.
fn backoffs(lab: &mut Lab) -> Vec<u64> {
    let lines = lab.log("error restarting listener");
    lines.iter().filter_map(|line| Some(line.get("backoff")?.as_u64()? / 1_000_000)).collect()
}

/// A listener that had run loses GitHub.
fn lose_github(lab: &mut Lab) {
    for route in [Route::Poll, Route::CreateSession] {
        lab.world.github.inject(Fault::on(route, FaultKind::status(500)));
    }
    lab.wait(Span::mins(12));
}

#[test]
fn a_lost_listener_waits_longer_each_time_as_its_build_does() {
    let expected: [(Build, &[u64]); 2] = [
        (Build::PreFix, &[5_000, 7_500, 11_250, 16_875, 25_312, 37_968, 56_952, 85_428, 60_000, 90_000, 60_000]),
        (Build::PostFix, &[5_000, 7_500, 11_250, 16_875, 25_312, 37_968, 56_952, 60_000, 60_000]),
    ];
    for (build, waits) in expected {
        let mut lab = Lab::on(build, 1);
        lose_github(&mut lab);
        let said = backoffs(&mut lab);
        assert_eq!(said[..waits.len()], *waits, "{build:?}");
        lab.world.github.clear_faults();
        lab.wait(Span::mins(2));
        assert!(lab.listens(1), "{build:?}");
        lab.world.take_log(GARM);
        lose_github(&mut lab);
        let again = backoffs(&mut lab)[0];
        match build {
            Build::PreFix => assert!(again >= 60_000, "its waits are never reset: {again}"),
            Build::PostFix | Build::ListenerMetrics => assert_eq!(again, 5_000),
        }
    }
}

#[test]
fn only_the_old_build_says_each_failed_restart_twice() {
    for (build, lines) in [(Build::PreFix, 2), (Build::PostFix, 1)] {
        let mut lab = Lab::on(build, 1);
        for route in [Route::Poll, Route::CreateSession] {
            lab.world.github.inject(Fault::on(route, FaultKind::status(500)));
        }
        lab.wait(Span::secs(53));
        let said = lab.log("error restarting listener");
        assert_eq!(said.len() % lines, 0);
        assert_eq!(said.iter().filter(|line| line.get("backoff").is_some()).count() * lines, said.len());
        assert!(!said.is_empty());
    }
}

#[test]
fn a_failing_start_of_the_newer_build_backs_off_and_a_real_change_clears_that() {
    let mut lab = Lab::off(Build::PostFix, 1, |_| {});
    lab.world.github.inject(Fault::on(Route::ListSets, FaultKind::status(500)));
    lab.start();
    lab.wait(Span::hours(1));
    let attempts = lab.log("retry failed: starting scale set worker").len();
    assert!((15..=20).contains(&attempts), "10 s growing by half to 5 min: {attempts} in an hour");
    lab.world.github.clear_faults();
    lab.put(1, true);
    lab.wait(Span::secs(6));
    assert!(!lab.listens(1), "a PUT that changes nothing does not hasten it");
    lab.put(1, false);
    lab.put(1, true);
    lab.wait(Span::secs(10));
    assert!(lab.listens(1));
}

#[test]
fn a_put_while_the_process_boots_is_written_and_starts_no_second_worker() {
    for build in BOTH {
        let mut lab = Lab::off(build, 1, |_| {});
        lab.start();
        lab.wait(Span::millis(100));
        lab.put(1, false);
        lab.put(1, true);
        lab.wait(Span::secs(10));
        assert!(lab.listens(1), "{build:?}");
        assert_eq!(lab.log("starting scale set worker").len(), 1, "{build:?}");
        assert_eq!(lab.calls(Route::CreateSession), 1, "{build:?}");
    }
}
