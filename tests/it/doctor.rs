//! `doctor` by the built binary, against the simulators over real sockets: its findings and exit codes.

use super::bench::{ConfigText, PASSWORD};
use super::sockets::{Medic, Servers, assert_shows, printed, started};
use medic_lab::garm::{Build, GarmConfig, LogLevel, LogStreamer, Metrics};
use medic_lab::github::Route;
use medic_lab::world::{Fleet, MEDIC_TOKEN};
use std::process::Output;

/// Two sets of a GARM, and a medic's configuration.
struct Site {
    servers: Servers,
    medic: Medic,
    password: &'static str,
    token: Option<&'static str>,
    manager: &'static str,
}

impl Site {
    async fn of(change: impl Fn(&mut GarmConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let servers = Servers::serve(Some(&dir.path().join("garm.log")), |github, now| {
            let fleet = Fleet::new(Build::PostFix, 2, github).each(|garm| {
                garm.debug_server = true;
                change(garm);
            });
            started(&fleet, now)
        });
        servers.until_all_listen().await;
        let medic = Medic { config: dir.path().join("medic.toml"), dir, address: String::new() };
        let manager = "log_file = \"garm.log\"\ndebug_server = true";
        Self { servers, medic, password: PASSWORD, token: Some(MEDIC_TOKEN), manager }
    }

    async fn doctor(&self, args: &[&str]) -> Output {
        self.doctor_at(&self.servers.garm, args).await
    }

    async fn doctor_at(&self, url: &str, args: &[&str]) -> Output {
        let dir = self.medic.dir.path();
        let manager = format!("request_timeout = \"5s\"\nconnect_timeout = \"2s\"\n{}", self.manager);
        let text = ConfigText {
            mode: "heal",
            state: "state",
            managers: &[("garm", url)],
            manager: &manager,
            github: self.token.map(|_| ""),
            ..ConfigText::default()
        };
        std::fs::write(&self.medic.config, text.write(dir)).unwrap();
        std::fs::write(dir.join("password"), self.password).unwrap();
        std::fs::write(dir.join("token"), self.token.unwrap_or_default()).unwrap();
        let output = self.medic.run(&[&["doctor"], args].concat()).await;
        let text = printed(&output);
        for secret in [PASSWORD, MEDIC_TOKEN, "wrong-secret", "panicked"] {
            assert!(!text.contains(secret), "{text}");
        }
        output
    }

    async fn answers(&self) -> Answers {
        let output = self.doctor(&["--output", "json"]).await;
        Answers(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", printed(&output))))
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

#[tokio::test]
async fn doctor_of_a_full_setup_finds_and_writes_nothing() {
    let site = Site::of(|_| {}).await;
    let answers = site.answers().await;
    assert_eq!(answers.exit(), 0, "{:#}", answers.0);
    let checks = "mode policy state_dir ledger overlap reach transport login api clock metrics goroutines log events actions_service";
    for check in checks.split(' ') {
        assert_eq!(answers.state(check), "ok", "{check}: {:#}", answers.of(check));
    }
    let writes = site.servers.with(|world| {
        let calls = world.github.calls().filter(|call| call.actor.credential == "medic");
        world.garm(0).unwrap().writes().len() + calls.filter(|call| Route::is_write(call.route)).count()
    });
    assert_eq!(writes, 0);
    assert!(!site.medic.dir.path().join("state").exists(), "doctor has made a state directory");
}

#[tokio::test]
async fn log_at_info_level_is_a_warning_with_the_lines_to_change() {
    let site = Site::of(|garm| garm.log_level = LogLevel::Info).await;
    let output = site.doctor(&[]).await;
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in ["[logging]", "log_level = \"debug\"", "log_format = \"json\""] {
        assert!(text.lines().any(|shown| shown.trim() == line), "{line}: {text}");
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
        assert!(answers.of(check)["fix"].to_string().contains(line), "{:#}", answers.of(check));
    }
}

#[tokio::test]
async fn log_websocket_is_judged_by_its_lines() {
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
    let fix = answers.of("log")["fix"].to_string();
    assert!(fix.contains("mountPath: /nowhere/garm, readOnly: true"), "{fix}");
}

#[tokio::test]
async fn unreachable_manager_exits_12() {
    let site = Site::of(|_| {}).await;
    let output = site.doctor_at("http://127.0.0.1:9", &[]).await;
    assert_eq!(output.status.code(), Some(12), "{}", printed(&output));
    assert_shows(&printed(&output), &["refused", "could not be reached"]);
}

#[tokio::test]
async fn wrong_password_fails_login_but_not_reach() {
    let mut site = Site::of(|_| {}).await;
    site.password = "wrong-secret";
    let answers = site.answers().await;
    assert_eq!((answers.exit(), answers.state("reach"), answers.state("login")), (10, "ok", "fail"));
    assert!(answers.of("login")["seen"].as_str().unwrap().contains("401"), "{:#}", answers.of("login"));
}

#[tokio::test]
async fn bad_github_token_fails_only_its_own_check() {
    let mut site = Site::of(|_| {}).await;
    site.token = Some("wrong-secret");
    let answers = site.answers().await;
    assert_eq!((answers.exit(), answers.state("actions_service"), answers.state("log")), (10, "fail", "ok"));
    site.token = None;
    let answers = site.answers().await;
    assert_eq!((answers.exit(), answers.state("actions_service")), (0, "warn"));
}

#[tokio::test]
async fn broken_configuration_exits_2_but_a_damaged_ledger_10() {
    let site = Site::of(|_| {}).await;
    let output = site.doctor_at("not an address", &[]).await;
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    std::fs::create_dir(site.medic.dir.path().join("state")).unwrap();
    std::fs::write(site.medic.dir.path().join("state/medic.db"), "not a database").unwrap();
    let answers = site.answers().await;
    assert_eq!((answers.exit(), answers.state("ledger"), answers.state("state_dir")), (10, "fail", "ok"));
}
