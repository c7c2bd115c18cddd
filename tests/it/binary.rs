//! The built binary against the simulators over real sockets: exit codes, signals, two medics at once.

use medic_clock::{ScaledClock, system_wall};
use medic_core::clock::Clock;
use medic_core::model::Span;
use medic_lab::backend::ServerId;
use medic_lab::endpoint_http::{HttpEndpoints, Sockets};
use medic_lab::garm::Build;
use medic_lab::github::Route;
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::{Fleet, World};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Nothing here takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A port to listen at, of a program that is told it. Below those that the kernel gives to outgoing connections, of which
/// the other tests have many: one of them could take it before the program does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let begin = u16::try_from(std::process::id() % 10_000).unwrap();
        let port = 10_000 + begin + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) struct Servers {
    pub(crate) hub: Arc<Hub<World>>,
    pub(crate) garm: String,
    _pump: Pump,
    _doors: HttpEndpoints,
}

impl Servers {
    pub(crate) fn start(generation: Build, sets: u32) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(system_wall(), 1.0));
        let sockets = Sockets::on_loopback(&[ServerId::Manager(0), ServerId::Github]).unwrap();
        let (garm, github) = (sockets.url(ServerId::Manager(0)).unwrap(), sockets.url(ServerId::Github).unwrap());
        let mut fleet = Fleet::new(generation, sets, &github);
        fleet.github.stale_lifetime = Span::secs(5);
        let hub = Hub::new(World::new(&fleet, clock.now().wall), clock);
        hub.with(|world, now| world.start(0, now));
        Self { _pump: Pump::start(&hub), _doors: HttpEndpoints::serve(&hub, sockets), hub, garm }
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut World) -> R) -> R {
        self.hub.with(|world, _| look(world))
    }

    pub(crate) async fn until(&self, what: &str, so: impl Fn(&World) -> bool) {
        let waiting = async {
            while !self.with(|world| so(world)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    pub(crate) async fn crash(&self) {
        self.until("all sets listen", |world| world.listening(0).0 == world.listening(0).1).await;
        self.hub.with(|world, now| world.kill(0, now));
        self.hub.with(|world, now| world.start(0, now));
        // As with the real one, the API listens a little after the process has begun.
        self.until("the manager answers again", |world| world.garm(0).unwrap().is_up()).await;
    }

    pub(crate) fn writes(&self) -> usize {
        self.with(|world| world.garm(0).unwrap().writes().len())
    }
}

pub(crate) struct Medic {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: PathBuf,
    pub(crate) address: String,
}

impl Medic {
    pub(crate) fn of(garm: &str, mode: &str) -> Self {
        Self::with(garm, mode, "", "")
    }

    /// With more lines for `[run]` and for the manager.
    pub(crate) fn with(garm: &str, mode: &str, run: &str, manager: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, "correct horse battery staple").unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut text = format!("[run]\nmode = \"{mode}\"\nstate_dir = \"{}\"\n{run}\n", dir.path().display());
        let _ = write!(
            text,
            "[http]\nlisten = \"{address}\"\n[[manager]]\nname = \"garm\"\nurl = \"{garm}\"\nusername = \"admin\"\n\
             password_file = \"{}\"\nrequest_timeout = \"1s\"\nconnect_timeout = \"1s\"\n{manager}\n[policy]\nsettle = \"1s\"\n",
            password.display()
        );
        let config = dir.path().join("medic.toml");
        std::fs::write(&config, text).unwrap();
        Self { dir, config, address }
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        self.spawn_where("LC_ALL", "C", args)
    }

    fn spawn_where(&self, variable: &str, value: &str, args: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
        command.arg("--config").arg(&self.config).args(args).env_clear().current_dir(self.dir.path());
        Running(Some(
            command
                .env(variable, value)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        ))
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        finish(self.spawn(args)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: medic\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }

    /// Waits until the status document is so.
    pub(crate) async fn sees(&self, so: impl Fn(&serde_json::Value) -> bool) {
        let seen = async || {
            let (_, answer) = self.get("/api/v1/status").await?;
            let (_, body) = answer.split_once("\r\n\r\n")?;
            serde_json::from_str(body).ok().filter(|status| so(status))
        };
        let waiting = async {
            while seen().await.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }

    pub(crate) async fn ready(&self) {
        let waiting = async {
            while self.get("/readyz").await.is_none_or(|(status, _)| status != 200) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }
}

/// A medic that dies with its test.
pub(crate) struct Running(pub(crate) Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
        }
    }
}

pub(crate) async fn finish(mut running: Running) -> Output {
    let child = running.0.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap()
}

pub(crate) fn told(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn signal(running: &Running, signal: &str) {
    let id = running.0.as_ref().unwrap().id().to_string();
    let sent = Command::new("kill").arg(signal).arg(id).status().unwrap();
    assert!(sent.success());
}

#[tokio::test]
async fn a_healthy_fleet_is_exit_0_and_sees_no_write() {
    let servers = Servers::start(Build::PreFix, 3);
    servers.until("all sets listen", |world| world.listening(0) == (3, 3)).await;
    let medic = Medic::of(&servers.garm, "heal");
    let output = medic.run(&["once", "--output", "json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["exit_code"], 0);
    assert_eq!(document["status"]["managers"][0]["sets"][2]["finding"]["diagnosis"], "listening");
    assert_eq!(servers.writes(), 0);
}

#[tokio::test]
async fn a_stuck_fleet_is_healed_in_one_shot() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    let output = medic.run(&["once"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(servers.with(|world| world.listening(0)), (2, 2), "{}", told(&output));
    assert_eq!(servers.writes(), 4);
}

#[tokio::test]
async fn in_a_dry_run_a_stuck_fleet_is_exit_10_and_sees_no_write() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "observe");
    let output = medic.run(&["once", "--observe", "12"]).await;
    assert_eq!(output.status.code(), Some(10), "{}", told(&output));
    assert!(told(&output).contains("dry_run"), "{}", told(&output));
    assert_eq!(servers.writes(), 0);
}

#[tokio::test]
async fn a_manager_that_is_down_hangs_or_talks_garbage_is_exit_12() {
    let down = Medic::of("http://127.0.0.1:9", "heal");
    let output = down.run(&["once", "--observe", "1"]).await;
    assert_eq!(output.status.code(), Some(12), "{}", told(&output));
    let output = down.run(&["once", "--observe", "1", "--nagios"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert!(output.stdout.starts_with(b"SCALESETS UNKNOWN - "), "{}", told(&output));
    assert!(told(&output).contains("refused"), "{}", told(&output));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    for (name, answer) in [
        ("hangs", String::new()),
        ("is no HTTP", "\u{0}\u{1}garbage\r\n\r\n".to_owned()),
        ("is no JSON", format!("{head}content-length: 7\r\n\r\n<html>!")),
        ("is cut off", format!("{head}content-length: 700\r\n\r\n{{\"token\":")),
        ("redirects", "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("fails", "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_owned()),
    ] {
        let url = talker(answer).await;
        let medic = Medic::of(&url, "heal");
        let output = medic.run(&["once", "--observe", "1"]).await;
        assert_eq!(output.status.code(), Some(12), "{name}: {}", told(&output));
        assert!(!told(&output).contains("panicked"), "{name}: {}", told(&output));
        assert!(!told(&output).contains("correct horse"), "{name}: the password is told");
    }
}

/// A server that gives every connection the same answer, or none at all.
async fn talker(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if answer.is_empty() {
                        std::future::pending::<()>().await;
                    }
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn sigterm_enables_the_set_and_a_second_medic_exits() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    let child = medic.spawn(&["run"]);
    medic.ready().await;
    assert_eq!(medic.get("/healthz").await.unwrap().0, 200);
    assert!(medic.get("/metrics").await.unwrap().1.contains("scaleset_medic_manager_up{manager=\"garm\"} 1"));
    let second = medic.run(&["once"]).await;
    assert_eq!(second.status.code(), Some(13), "{}", told(&second));
    servers.until("the set is disabled", |world| world.listening(0).1 == 0).await;
    let asked = std::time::Instant::now();
    signal(&child, "-TERM");
    let output = finish(child).await;
    assert_eq!(output.status.code(), Some(143), "{}", told(&output));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(servers.with(|world| world.listening(0).1), 1, "the set is enabled again: {}", told(&output));
}

#[tokio::test]
async fn hanging_log_share_delays_neither_treatment_nor_exit() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.crash().await;
    // To open a FIFO that nobody writes to never ends.
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("garm.log");
    assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
    let medic = Medic::with(&servers.garm, "heal", "", &format!("log_file = \"{}\"", log.display()));
    let child = medic.spawn(&["run"]);
    servers.until("all sets listen", |world| world.listening(0) == (2, 2)).await;
    medic.sees(|status| status["managers"][0]["sources"]["log"].to_string().contains("hang")).await;
    let asked = std::time::Instant::now();
    signal(&child, "-TERM");
    let output = finish(child).await;
    assert_eq!(output.status.code(), Some(143), "{}", told(&output));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn hanging_secret_share_delays_neither_treatment_nor_exit() {
    let servers = Servers::start(Build::PreFix, 2);
    let medic = Medic::of(&servers.garm, "heal");
    let child = medic.spawn(&["run"]);
    medic.ready().await;
    // To open a FIFO that nobody writes to never ends.
    let password = medic.dir.path().join("password");
    std::fs::remove_file(&password).unwrap();
    assert!(Command::new("mkfifo").arg(&password).status().unwrap().success());
    let refused = async {
        let metric = "scaleset_medic_config_last_reload_successful 0";
        while medic.get("/metrics").await.is_none_or(|(_, metrics)| !metrics.contains(metric)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("nothing says that the configuration cannot be read");
    servers.crash().await;
    servers
        .until("all sets listen", |world| world.listening(0) == (2, 2) && !world.garm(0).unwrap().writes().is_empty())
        .await;
    let asked = std::time::Instant::now();
    signal(&child, "-TERM");
    let output = finish(child).await;
    assert_eq!(output.status.code(), Some(143), "{}", told(&output));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(told(&output).contains("does the file system it is on hang?"), "{}", told(&output));
}

#[tokio::test]
async fn status_and_explain_ask_the_running_medic() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.until("all sets listen", |world| world.listening(0) == (2, 2)).await;
    let medic = Medic::of(&servers.garm, "observe");
    let child = medic.spawn(&["run"]);
    medic.ready().await;
    let status = medic.run(&["status"]).await;
    assert!(told(&status).contains("linux-1"), "{}", told(&status));
    assert!(!told(&status).contains("no medic runs"), "{}", told(&status));
    medic
        .sees(|status| {
            let sets = status["managers"][0]["sets"].as_array();
            sets.is_some_and(|sets| sets.iter().all(|set| set["finding"]["diagnosis"] == "listening"))
        })
        .await;
    let nagios = medic.run(&["status", "--nagios"]).await;
    assert_eq!(nagios.status.code(), Some(0), "{}", told(&nagios));
    let line = "SCALESETS OK - All 2 scale sets are healthy | ill=0;;0;0;2 unknown=0;0;;0;2\n";
    assert_eq!(String::from_utf8_lossy(&nagios.stdout), line);
    let explained = medic.run(&["explain", "linux-1"]).await;
    assert!(told(&explained).contains("Diagnosis:") && told(&explained).contains("Because:"), "{}", told(&explained));
    let unknown = medic.run(&["explain", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(2), "{}", told(&unknown));
    signal(&child, "-INT");
    assert_eq!(finish(child).await.status.code(), Some(130));
}

#[tokio::test]
async fn what_a_person_changes_is_seen_at_once_by_its_event() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.until("all sets listen", |world| world.listening(0) == (2, 2)).await;
    // Between two passes of its own it would not look for an hour.
    let run = "interval = \"1h\"\nurgent_interval = \"1s\"";
    let medic = Medic::with(&servers.garm, "observe", run, "");
    let child = medic.spawn(&["run"]);
    medic.ready().await;
    // Calm.
    medic
        .sees(|status| {
            let manager = &status["managers"][0];
            manager["state"] == "up"
                && manager["sets"]
                    .as_array()
                    .is_some_and(|sets| sets.iter().all(|s| s["finding"]["diagnosis"] == "listening"))
        })
        .await;
    let set = servers.with(|world| world.garm(0).unwrap().scale_sets().next().unwrap().0);
    servers.hub.with(|world, now| world.garm_mut(0).unwrap().0.operator_sets_enabled(set, false, now));
    medic.sees(|status| status["managers"][0]["sets"][0]["finding"]["diagnosis"] == "disabled").await;
    signal(&child, "-TERM");
    assert_eq!(finish(child).await.status.code(), Some(143));
}

#[tokio::test]
async fn refusals_that_go_on_are_proven_by_the_log_websocket() {
    let servers = Servers::start(Build::PostFix, 2);
    servers.with(|world| world.github.reconfigure(|github| github.stale_lifetime = Span::mins(10)));
    servers.crash().await;
    let medic = Medic::with(&servers.garm, "heal", "", "log_stream = true");
    let child = medic.spawn(&["run"]);
    medic.ready().await;
    medic
        .sees(|status| {
            let set = &status["managers"][0]["sets"][1]["finding"];
            set["diagnosis"] == "conflict_retrying" && set["confidence"] == "proof"
        })
        .await;
    signal(&child, "-TERM");
    assert_eq!(finish(child).await.status.code(), Some(143));
    assert_eq!(servers.writes(), 0);
}

#[tokio::test]
async fn heal_is_handed_to_the_running_medic_and_lifts_its_mode() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "observe");
    let _child = medic.spawn(&["run"]);
    medic.ready().await;
    let reasons = |status: &serde_json::Value| {
        status["managers"][0]["sets"][0]["not_deleted"].as_array().is_some_and(|all| !all.is_empty())
    };
    medic.sees(reasons).await;
    let explained = medic.run(&["explain", "linux-0"]).await;
    let said = told(&explained);
    assert!(said.contains("not deleted, because") && said.contains("was never seen"), "{said}");
    let asked = medic.run(&["heal", "linux-0"]).await;
    assert_eq!(asked.status.code(), Some(2), "without a terminal nobody can be asked: {}", told(&asked));
    let healed = medic.run(&["heal", "linux-0", "--yes", "--author", "alice"]).await;
    assert_eq!(healed.status.code(), Some(0), "{}", told(&healed));
    assert!(told(&healed).contains("handed to the running medic"), "{}", told(&healed));
    assert_eq!(servers.writes(), 2, "the other set is left alone: {}", told(&healed));
    assert_eq!(servers.with(|world| world.listening(0)), (1, 2));
}

#[tokio::test]
async fn heal_does_it_itself_where_no_medic_runs() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "observe");
    let healed = medic.run(&["heal", "linux-0", "--yes"]).await;
    assert_eq!(healed.status.code(), Some(0), "{}", told(&healed));
    assert_eq!((servers.writes(), servers.with(|world| world.listening(0))), (2, (1, 1)));
}

#[tokio::test]
async fn heal_never_deletes_a_session_of_the_living_run() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.until("it listens", |world| world.listening(0) == (1, 1)).await;
    let session = servers.with(|world| {
        let forge = world.garm(0).unwrap().scale_sets().next().unwrap().2;
        world.github.holder(forge).unwrap().session.to_string()
    });
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, medic_lab::world::MEDIC_TOKEN).unwrap();
    let github = format!("[[github]]\nendpoint = \"github.com\"\ntoken_file = \"{}\"\n", token.display());
    let medic = Medic::with(&servers.garm, "heal", "", &github);
    let refused = medic.run(&["heal", "linux-0", "--session", &session, "--yes"]).await;
    assert_eq!(refused.status.code(), Some(10), "{}", told(&refused));
    assert!(told(&refused).contains("refused"), "{}", told(&refused));
    let deletions = servers.with(|world| {
        world.github.calls().filter(|call| call.actor.credential == "medic" && Route::is_write(call.route)).count()
    });
    assert_eq!(deletions, 0);
    assert_eq!(servers.with(|world| world.listening(0)), (1, 1));
}

#[tokio::test]
async fn a_changed_configuration_is_taken_over_and_a_bad_one_is_told() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.until("it listens", |world| world.listening(0) == (1, 1)).await;
    let medic = Medic::of(&servers.garm, "observe");
    let child = medic.spawn(&["run"]);
    medic.ready().await;
    let good = std::fs::read_to_string(&medic.config).unwrap();
    let shows = async |what: &str| {
        let waiting = async {
            while medic.get("/metrics").await.is_none_or(|(_, text)| !text.contains(what)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    };
    std::fs::write(&medic.config, good.replace("mode = ", "mood = ")).unwrap();
    shows("scaleset_medic_config_last_reload_successful 0").await;
    shows("build_info{mode=\"observe\"").await;
    std::fs::write(&medic.config, good.replace("\"observe\"", "\"heal\"")).unwrap();
    shows("build_info{mode=\"heal\"").await;
    shows("scaleset_medic_config_last_reload_successful 1").await;
    // Without mistakes, and yet of no use: somebody else listens there.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = good.replace(&medic.address, &taken.local_addr().unwrap().to_string());
    std::fs::write(&medic.config, elsewhere).unwrap();
    shows("scaleset_medic_config_last_reload_successful 0").await;
    shows("build_info{mode=\"heal\"").await;
    std::fs::write(&medic.config, good.replace("\"observe\"", "\"heal\"")).unwrap();
    shows("scaleset_medic_config_last_reload_successful 1").await;
    medic.ready().await;
    signal(&child, "-TERM");
    let output = finish(child).await;
    assert_eq!(output.status.code(), Some(143), "{}", told(&output));
    assert!(told(&output).contains("going on with the one that was read before"), "{}", told(&output));
    assert!(told(&output).contains("cannot be put to work"), "{}", told(&output));
}

#[tokio::test]
async fn log_level_reloads_and_log_format_needs_a_restart() {
    let servers = Servers::start(Build::PreFix, 1);
    let medic = Medic::of(&servers.garm, "observe");
    let good = std::fs::read_to_string(&medic.config).unwrap();
    std::fs::write(&medic.config, format!("{good}[log]\nlevel = \"error\"\n")).unwrap();
    let child = medic.spawn(&["run"]);
    medic.ready().await;
    let changed = format!("{good}[log]\nlevel = \"info\"\nformat = \"json\"\n").replace("\"observe\"", "\"heal\"");
    std::fs::write(&medic.config, changed).unwrap();
    medic.sees(|status| status["mode"] == "heal").await;
    signal(&child, "-TERM");
    let output = finish(child).await;
    assert!(!told(&output).contains("observe"), "info lines are hidden at first: {}", told(&output));
    assert!(told(&output).contains("the configuration has changed"), "{}", told(&output));
    assert!(told(&output).contains("needs a restart"), "{}", told(&output));
}

/// A server that speaks TLS and has nothing to say, and the PEM of its CA.
async fn tls_talker() -> (String, String) {
    let (acceptor, authority) = super::http_transport::tls_acceptor("localhost", false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (url, authority)
}

#[tokio::test]
async fn ca_file_replaces_system_certificates_and_is_reloaded() {
    let (url, right) = tls_talker().await;
    let (_, wrong) = super::http_transport::tls_acceptor("localhost", false);
    let dir = tempfile::tempdir().unwrap();
    let (ca, system) = (dir.path().join("ca.pem"), dir.path().join("system.pem"));
    std::fs::write(&system, &right).unwrap();
    std::fs::write(&ca, &wrong).unwrap();
    let medic = Medic::with(
        &url,
        "observe",
        "interval = \"1s\"\nurgent_interval = \"1s\"",
        &format!("ca_file = \"{}\"", ca.display()),
    );
    let child = medic.spawn_where("SSL_CERT_FILE", &system.display().to_string(), &["run"]);
    let api = |status: &serde_json::Value| status["managers"][0]["sources"]["api"].to_string();
    medic.sees(|status| api(status).contains("tls")).await;
    std::fs::write(&ca, &right).unwrap();
    medic.sees(|status| api(status).contains("holds no token")).await;
    // What cannot be used changes nothing, and mending it is enough.
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let shows = async |value: u8| {
        let what = format!("scaleset_medic_config_last_reload_successful {value}");
        let waiting = async {
            while medic.get("/metrics").await.is_none_or(|(_, text)| !text.contains(&what)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    };
    shows(0).await;
    medic.sees(|status| api(status).contains("holds no token")).await;
    std::fs::write(&ca, format!("{right}{wrong}")).unwrap();
    shows(1).await;
    medic.sees(|status| api(status).contains("holds no token")).await;
    signal(&child, "-TERM");
    let output = finish(child).await;
    assert_eq!(output.status.code(), Some(143), "{}", told(&output));
}

#[tokio::test]
async fn start_warns_of_a_password_sent_unencrypted() {
    for (url, is_told) in
        [("http://garm.invalid:9997", true), ("http://127.0.0.1:9", false), ("https://garm.invalid", false)]
    {
        let medic = Medic::of(url, "observe");
        let child = medic.spawn(&["run"]);
        medic.ready().await;
        signal(&child, "-TERM");
        let output = finish(child).await;
        assert_eq!(told(&output).contains("unencrypted"), is_told, "{url}: {}", told(&output));
    }
}

#[tokio::test]
async fn heal_treats_only_the_named_set() {
    let servers = Servers::start(Build::PreFix, 3);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    let healed = medic.run(&["heal", "linux-0", "--yes"]).await;
    assert_eq!(healed.status.code(), Some(0), "{}", told(&healed));
    assert_eq!(servers.writes(), 2, "nothing but the order was carried out: {}", told(&healed));
    assert_eq!(servers.with(|world| world.listening(0)), (1, 3), "no set is left disabled");
}

#[tokio::test]
async fn heal_that_is_stopped_leaves_its_set_enabled() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "observe");
    let child = medic.spawn(&["heal", "linux-0", "--yes"]);
    servers.until("the set is disabled", |world| world.listening(0).1 == 0).await;
    signal(&child, "-TERM");
    let output = finish(child).await;
    assert_eq!(output.status.code(), Some(143), "{}", told(&output));
    assert_eq!(servers.with(|world| world.listening(0).1), 1, "{}", told(&output));
}

#[tokio::test]
async fn resume_says_that_a_file_still_pauses() {
    let servers = Servers::start(Build::PreFix, 1);
    let medic = Medic::of(&servers.garm, "heal");
    std::fs::write(medic.dir.path().join("pause"), "reason = \"upgrade\"\n").unwrap();
    let resumed = medic.run(&["resume"]).await;
    assert!(told(&resumed).contains("still paused") && told(&resumed).contains("upgrade"), "{}", told(&resumed));
}
