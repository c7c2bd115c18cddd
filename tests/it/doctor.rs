//! `doctor` by the built binary, against the simulators over real sockets: its findings and exit codes.

use super::bench::{ConfigText, PASSWORD, started};
use super::sockets::{Medic, Servers, assert_shows, printed};
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
        let servers = Servers::serve(|github, now| {
            let fleet = Fleet::new(Build::PostFix, 2, github).each(|garm| {
                garm.debug_server = true;
                change(garm);
            });
            started(&fleet, now)
        });
        servers.until_all_listen().await;
        let medic = Medic::of(&servers.garm, "heal");
        std::os::unix::fs::symlink(&servers.log, medic.dir.path().join("garm.log")).unwrap();
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
    let checks =
        "mode policy state_dir ledger overlap reach transport login api clock metrics goroutines log events broker";
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
async fn doctor_names_each_fault_and_its_fix() {
    type Change = (fn(&mut GarmConfig), fn(&mut Site));
    /// Checks, their states, and what they show.
    type Expected<'a> = &'a [(&'a str, &'a str, &'a str)];
    let none: fn(&mut GarmConfig) = |_| {};
    let cases: [(Change, u64, Expected<'_>); 6] = [
        (
            (|garm| garm.log_level = LogLevel::Info, |_| {}),
            0,
            &[("log", "warn", "log_level = \\\"debug\\\""), ("log", "warn", "50 to 92 s")],
        ),
        (
            (
                |garm| {
                    (garm.metrics, garm.log_streamer) = (Metrics::Off, LogStreamer::Off);
                    garm.debug_server = false;
                },
                |site| site.manager = "log_stream = true\ndebug_server = true",
            ),
            10,
            &[
                ("metrics", "fail", "enable = true"),
                ("goroutines", "fail", "debug_server = true"),
                ("log", "fail", "enable_log_streamer = true"),
            ],
        ),
        (
            (none, |site| site.manager = "log_file = \"/nowhere/garm/garm.log\""),
            10,
            &[("log", "fail", "mountPath: /nowhere/garm, readOnly: true")],
        ),
        ((none, |site| site.password = "wrong-secret"), 10, &[("reach", "ok", ""), ("login", "fail", "401")]),
        ((none, |site| site.token = Some("wrong-secret")), 10, &[("broker", "fail", ""), ("log", "ok", "")]),
        ((none, |site| site.token = None), 0, &[("broker", "warn", "")]),
    ];
    for ((change, set), exit, expected) in cases {
        let mut site = Site::of(change).await;
        set(&mut site);
        let answers = site.answers().await;
        assert_eq!(answers.exit(), exit, "{:#}", answers.0);
        for (check, state, part) in expected {
            assert_eq!(answers.state(check), *state, "{:#}", answers.of(check));
            assert!(answers.of(check).to_string().contains(part), "{part}: {:#}", answers.of(check));
        }
    }
}

#[tokio::test]
async fn unreachable_manager_exits_12() {
    let site = Site::of(|_| {}).await;
    let output = site.doctor_at("http://127.0.0.1:9", &[]).await;
    assert_eq!(output.status.code(), Some(12), "{}", printed(&output));
    let text = printed(&output);
    assert_shows(&text, &["refused", "could not be reached"]);
    assert!(!text.contains('\u{1b}'), "colour on a pipe: {text}");
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
