//! `doctor` by the built binary, against the simulators over real sockets: what it tells and how it ends.

use medic_clock::{ScaledClock, system_wall};
use medic_core::clock::Clock;
use medic_lab::backend::ServerId;
use medic_lab::endpoint_http::{HttpEndpoints, Sockets};
use medic_lab::garm::{Build, GarmConfig, LogLevel, LogStreamer, Metrics};
use medic_lab::github::Route;
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::{Fleet, MEDIC_TOKEN, World};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);
const PASSWORD: &str = "correct horse battery staple";

/// Two sets on a manager, a GitHub, and the files of a medic.
struct Site {
    hub: Arc<Hub<World>>,
    garm: String,
    dir: tempfile::TempDir,
    password: &'static str,
    token: Option<&'static str>,
    manager: &'static str,
    _pump: Pump,
    _doors: HttpEndpoints,
}

impl Site {
    async fn of(change: impl Fn(&mut GarmConfig)) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(system_wall(), 1.0));
        let sockets = Sockets::on_loopback(&[ServerId::Manager(0), ServerId::Github]).unwrap();
        let (garm, github) = (sockets.url(ServerId::Manager(0)).unwrap(), sockets.url(ServerId::Github).unwrap());
        let fleet = Fleet::new(Build::PostFix, 2, &github).each(|garm| {
            garm.debug_server = true;
            change(garm);
        });
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::new(World::new(&fleet, clock.now().wall), clock);
        hub.log_to_file(ServerId::Manager(0), &dir.path().join("garm.log")).unwrap();
        hub.with(|world, now| world.start(0, now));
        let pump = Pump::start(&hub);
        let doors = HttpEndpoints::serve(&hub, sockets);
        let listening = async {
            while hub.with(|world, _| world.listening(0)) != (2, 2) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.unwrap();
        let manager = "log_file = \"garm.log\"\ndebug_server = true";
        Self { hub, garm, dir, password: PASSWORD, token: Some(MEDIC_TOKEN), manager, _pump: pump, _doors: doors }
    }

    /// Runs the command in the site's folder.
    async fn doctor(&self, args: &[&str]) -> Output {
        self.doctor_at(&self.garm, args).await
    }

    async fn doctor_at(&self, url: &str, args: &[&str]) -> Output {
        let write = |name: &str, text: &str| std::fs::write(self.dir.path().join(name), text).unwrap();
        write("password", self.password);
        let github = self.token.map_or("", |token| {
            write("token", token);
            "[[github]]\nendpoint = \"github.com\"\ntoken_file = \"token\"\n"
        });
        let manager = self.manager;
        write(
            "medic.toml",
            &format!(
                "[run]\nmode = \"heal\"\nstate_dir = \"state\"\n[[manager]]\nname = \"garm\"\nurl = \"{url}\"\nusername = \
                 \"admin\"\npassword_file = \"password\"\nrequest_timeout = \"5s\"\nconnect_timeout = \"2s\"\n{manager}\n\
                 {github}"
            ),
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
        command.args(["--config", "medic.toml", "doctor"]).args(args).env_clear().current_dir(self.dir.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let output = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
        for secret in [PASSWORD, MEDIC_TOKEN, "wrong-secret"] {
            assert!(!told(&output).contains(secret), "{}", told(&output));
        }
        assert!(!told(&output).contains("panicked"), "{}", told(&output));
        output
    }

    /// The answers as a document.
    async fn answers(&self) -> Answers {
        let output = self.doctor(&["--output", "json"]).await;
        Answers(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output))))
    }
}

struct Answers(serde_json::Value);

impl Answers {
    fn state(&self, check: &str) -> &str {
        self.of(check)["state"].as_str().unwrap()
    }

    fn of(&self, check: &str) -> &serde_json::Value {
        let all = self.0["findings"].as_array().unwrap();
        all.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check} in {:#}", self.0))
    }

    fn exit(&self) -> u64 {
        self.0["exit_code"].as_u64().unwrap()
    }
}

fn told(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn doctor_of_a_full_setup_finds_and_writes_nothing() {
    let site = Site::of(|_| {}).await;
    let answers = site.answers().await;
    assert_eq!(answers.exit(), 0, "{:#}", answers.0);
    for check in [
        "mode",
        "policy",
        "state_dir",
        "ledger",
        "overlap",
        "reach",
        "transport",
        "login",
        "api",
        "clock",
        "metrics",
        "goroutines",
        "log",
        "events",
        "broker",
    ] {
        assert_eq!(answers.state(check), "ok", "{check}: {:#}", answers.of(check));
    }
    let writes = site.hub.with(|world, _| {
        let calls = world.github.calls().filter(|call| call.actor.credential == "medic");
        world.garm(0).unwrap().writes().len() + calls.filter(|call| Route::is_write(call.route)).count()
    });
    assert_eq!(writes, 0);
    assert!(!Path::new(&site.dir.path().join("state")).exists(), "the look has made a state directory");
}

#[tokio::test]
async fn a_log_at_info_is_told_with_the_lines_that_mend_it() {
    let site = Site::of(|garm| garm.log_level = LogLevel::Info).await;
    let output = site.doctor(&[]).await;
    let text = told(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in ["[logging]", "log_level = \"debug\"", "log_format = \"json\""] {
        assert!(text.lines().any(|told| told.trim() == line), "{line}: {text}");
    }
    assert!(text.contains("WARN") && text.contains("50 to 92 s"), "{text}");
    assert!(!text.contains('\u{1b}'), "colour on a pipe: {text}");
}

#[tokio::test]
async fn doctor_fails_sources_that_garm_switched_off() {
    let mut site = Site::of(|garm| {
        garm.metrics = Metrics::Off;
        garm.debug_server = false;
        garm.log_streamer = LogStreamer::Off;
    })
    .await;
    site.manager = "log_stream = true\ndebug_server = true";
    let answers = site.answers().await;
    assert_eq!(answers.exit(), 10);
    for (check, line) in
        [("metrics", "enable = true"), ("goroutines", "debug_server = true"), ("log", "enable_log_streamer = true")]
    {
        assert_eq!(answers.state(check), "fail", "{:#}", answers.of(check));
        assert!(answers.of(check)["mend"].to_string().contains(line), "{:#}", answers.of(check));
    }
}

#[tokio::test]
async fn the_log_websocket_is_judged_by_what_it_brings() {
    for (level, state) in [(LogLevel::Debug, "ok"), (LogLevel::Warn, "warn")] {
        let mut site = Site::of(|garm| garm.log_level = level).await;
        site.manager = "log_stream = true";
        let answers = site.answers().await;
        assert_eq!(answers.state("log"), state, "{:#}", answers.of("log"));
        assert_eq!(answers.state("goroutines"), "warn");
    }
}

#[tokio::test]
async fn doctor_names_the_missing_log_volume() {
    let mut site = Site::of(|_| {}).await;
    site.manager = "log_file = \"/nowhere/garm/garm.log\"";
    let answers = site.answers().await;
    assert_eq!((answers.exit(), answers.state("log")), (10, "fail"));
    let mend = answers.of("log")["mend"].to_string();
    assert!(mend.contains("mountPath: /nowhere/garm, readOnly: true"), "{mend}");
}

#[tokio::test]
async fn a_manager_that_is_not_there_is_exit_12() {
    let site = Site::of(|_| {}).await;
    let output = site.doctor_at("http://127.0.0.1:9", &[]).await;
    assert_eq!(output.status.code(), Some(12), "{}", told(&output));
    assert!(told(&output).contains("refused") && told(&output).contains("could not be reached"), "{}", told(&output));
}

#[tokio::test]
async fn a_wrong_password_is_told_apart_from_silence() {
    let mut site = Site::of(|_| {}).await;
    site.password = "wrong-secret";
    let answers = site.answers().await;
    assert_eq!((answers.exit(), answers.state("reach"), answers.state("login")), (10, "ok", "fail"));
    assert!(answers.of("login")["seen"].as_str().unwrap().contains("401"), "{:#}", answers.of("login"));
}

#[tokio::test]
async fn a_bad_github_token_fails_and_hides_no_other_answer() {
    let mut site = Site::of(|_| {}).await;
    site.token = Some("wrong-secret");
    let answers = site.answers().await;
    assert_eq!((answers.exit(), answers.state("broker"), answers.state("log")), (10, "fail", "ok"));
    site.token = None;
    let answers = site.answers().await;
    assert_eq!((answers.exit(), answers.state("broker")), (0, "warn"));
}

#[tokio::test]
async fn a_broken_configuration_is_exit_2_and_a_damaged_ledger_is_not() {
    let site = Site::of(|_| {}).await;
    let output = site.doctor_at("not an address", &[]).await;
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    std::fs::create_dir(site.dir.path().join("state")).unwrap();
    std::fs::write(site.dir.path().join("state/medic.db"), "no database, whatever its name may say").unwrap();
    let answers = site.answers().await;
    assert_eq!((answers.exit(), answers.state("ledger"), answers.state("state_dir")), (10, "fail", "ok"));
}
