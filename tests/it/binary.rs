//! The built binary against the simulators over real sockets: exit codes, signals, reloads, two medics at once.

use super::bench::ConfigText;
use super::fault_proxy::{Authority, Fault, Proxy, Tls};
use super::sockets::{Medic, Running, Servers, assert_shows, finish, printed};
use medic_core::model::Span;
use medic_lab::garm::Build;
use medic_lab::github::Route;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[tokio::test]
async fn once_on_a_healthy_fleet_exits_0_and_writes_nothing() {
    let servers = Servers::start(Build::PreFix, 3);
    servers.until_all_listen().await;
    let medic = Medic::of(&servers.garm, "heal");
    let output = medic.run(&["once", "--output", "json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["exit_code"], 0);
    assert_eq!(document["status"]["managers"][0]["sets"][2]["finding"]["diagnosis"], "listening");
    assert_eq!(servers.writes(), 0);
}

#[tokio::test]
async fn once_in_observe_mode_exits_10_and_writes_nothing() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.crash().await;
    let text = Medic::of(&servers.garm, "observe").exits(10, &["once", "--observe", "12"]).await;
    assert_shows(&text, &["dry_run"]);
    assert_eq!(servers.writes(), 0);
}

#[tokio::test]
async fn once_exits_12_if_garm_is_down_hangs_or_sends_garbage() {
    let down = Medic::of("http://127.0.0.1:9", "heal");
    down.exits(12, &["once", "--observe", "1"]).await;
    let text = down.exits(3, &["once", "--observe", "1", "--nagios"]).await;
    assert!(text.starts_with("SCALESETS UNKNOWN - ") && text.contains("refused"), "{text}");
    let servers = Servers::start(Build::PreFix, 1);
    for fault in
        [Fault::HalfOpen, Fault::Garbage, Fault::HtmlPage, Fault::Truncated, Fault::RedirectLoop, Fault::Status(500)]
    {
        let (_proxy, at) = Proxy::before(&servers.garm, fault, None).await;
        let text = Medic::of(&format!("http://{at}"), "heal").exits(12, &["once", "--observe", "1"]).await;
        assert!(!text.contains("panicked"), "{fault:?}: {text}");
        assert!(!text.contains("correct horse"), "{fault:?}: the password is shown");
    }
}

/// SIGTERM must end the medic within 10 s.
async fn stops_quickly(medic: Running) -> String {
    let began = Instant::now();
    let text = medic.stop("-TERM").await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}: {text}", began.elapsed());
    text
}

#[tokio::test]
async fn sigterm_enables_the_set_and_a_second_medic_exits() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    let running = medic.serving().await;
    assert_eq!(medic.get("/healthz").await.unwrap().0, 200);
    medic.exports("scaleset_medic_manager_up{manager=\"garm\"} 1").await;
    medic.exits(13, &["once"]).await;
    servers.until_one_is_disabled().await;
    let text = stops_quickly(running).await;
    assert_eq!(servers.listening().1, 1, "the set is enabled again: {text}");
}

/// Opening a FIFO that has no writer blocks forever.
fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn hanging_shares_delay_neither_treatment_nor_exit() {
    let servers = Servers::start(Build::PreFix, 2);
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("garm.log");
    make_fifo(&log);
    let manager = format!("log_file = \"{}\"", log.display());
    let medic = Medic::with(&servers.garm, &ConfigText { mode: "heal", manager: &manager, ..ConfigText::default() });
    let running = medic.serving().await;
    let password = medic.dir.path().join("password");
    std::fs::remove_file(&password).unwrap();
    make_fifo(&password);
    medic.exports("scaleset_medic_config_last_reload_successful 0").await;
    servers.crash().await;
    servers
        .until("all sets were toggled", |world| {
            world.listening(0) == (2, 2) && !world.garm(0).unwrap().writes().is_empty()
        })
        .await;
    medic.sees(|status| status["managers"][0]["sources"]["log"].to_string().contains("hang")).await;
    assert_shows(&stops_quickly(running).await, &["does the file system hang?"]);
}

/// Whether all sets of the first manager are listening.
fn all_listening(status: &serde_json::Value) -> bool {
    let sets = status["managers"][0]["sets"].as_array();
    sets.is_some_and(|sets| sets.iter().all(|set| set["finding"]["diagnosis"] == "listening"))
}

#[tokio::test]
async fn status_and_explain_ask_the_running_medic() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.until_all_listen().await;
    let medic = Medic::of(&servers.garm, "observe");
    let running = medic.serving().await;
    let status = medic.prints(&["status"]).await;
    assert!(status.contains("linux-1") && !status.contains("no medic is running"), "{status}");
    medic.sees(all_listening).await;
    let nagios = medic.run(&["status", "--nagios"]).await;
    assert_eq!(nagios.status.code(), Some(0), "{}", printed(&nagios));
    let line = "SCALESETS OK - All 2 scale sets are healthy | unhealthy=0;;0;0;2 unknown=0;0;;0;2\n";
    assert_eq!(String::from_utf8_lossy(&nagios.stdout), line);
    assert_shows(&medic.prints(&["explain", "linux-1"]).await, &["Diagnosis:", "Because:"]);
    medic.exits(2, &["explain", "nobody"]).await;
    running.stop("-INT").await;
}

#[tokio::test]
async fn operator_change_is_seen_at_once_by_its_event() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.until_all_listen().await;
    // The interval alone would take an hour.
    let run = "interval = \"1h\"\nurgent_interval = \"1s\"";
    let medic = Medic::with(&servers.garm, &ConfigText { mode: "observe", run, ..ConfigText::default() });
    let running = medic.serving().await;
    medic.sees(|status| status["managers"][0]["state"] == "up" && all_listening(status)).await;
    servers.hub.with(|world, now| {
        let set = world.garm(0).unwrap().scale_sets().next().unwrap().0;
        world.garm_mut(0).unwrap().0.operator_sets_enabled(set, false, now);
    });
    medic.sees(|status| status["managers"][0]["sets"][0]["finding"]["diagnosis"] == "disabled").await;
    running.stop("-TERM").await;
}

#[tokio::test]
async fn log_websocket_proves_repeated_refusals() {
    let servers = Servers::start(Build::PostFix, 2);
    servers.with(|world| world.github.reconfigure(|github| github.stale_lifetime = Span::mins(10)));
    servers.crash().await;
    let manager = "log_stream = true";
    let medic = Medic::with(&servers.garm, &ConfigText { mode: "heal", manager, ..ConfigText::default() });
    let running = medic.serving().await;
    medic
        .sees(|status| {
            let set = &status["managers"][0]["sets"][1]["finding"];
            set["diagnosis"] == "conflict_retrying" && set["confidence"] == "proof"
        })
        .await;
    running.stop("-TERM").await;
    assert_eq!(servers.writes(), 0);
}

#[tokio::test]
async fn running_medic_carries_out_a_manual_heal_in_any_mode() {
    let servers = Servers::start(Build::PreFix, 2);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "observe");
    let _running = medic.serving().await;
    let reasons = |status: &serde_json::Value| {
        status["managers"][0]["sets"][0]["not_deleted"].as_array().is_some_and(|all| !all.is_empty())
    };
    medic.sees(reasons).await;
    let explained = medic.prints(&["explain", "linux-0"]).await;
    assert_shows(&explained, &["not deleted, because", "was never seen"]);
    // Without a terminal nobody can confirm.
    medic.exits(2, &["heal", "linux-0"]).await;
    let healed = medic.exits(0, &["heal", "linux-0", "--yes", "--author", "alice"]).await;
    assert_shows(&healed, &["sent to the running medic"]);
    assert_eq!((servers.writes(), servers.listening()), (2, (1, 2)), "the other set is left alone: {healed}");
}

#[tokio::test]
async fn heal_without_a_running_medic_treats_only_the_named_set() {
    for (mode, sets) in [("observe", 1), ("heal", 3)] {
        let servers = Servers::start(Build::PreFix, sets);
        servers.crash().await;
        let healed = Medic::of(&servers.garm, mode).exits(0, &["heal", "linux-0", "--yes"]).await;
        assert_eq!((servers.writes(), servers.listening()), (2, (1, sets as usize)), "{healed}");
    }
}

#[tokio::test]
async fn heal_never_deletes_a_session_of_the_running_garm() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.until_all_listen().await;
    let session = servers.with(|world| {
        let set = world.garm(0).unwrap().scale_sets().next().unwrap().2;
        world.github.holder(set).unwrap().session.to_string()
    });
    let medic = Medic::with(&servers.garm, &ConfigText { mode: "heal", github: Some(""), ..ConfigText::default() });
    let refused = medic.exits(10, &["heal", "linux-0", "--session", &session, "--yes"]).await;
    assert_shows(&refused, &["refused"]);
    let deletions = servers.with(|world| {
        world.github.calls().filter(|call| call.actor.credential == "medic" && Route::is_write(call.route)).count()
    });
    assert_eq!((deletions, servers.listening()), (0, (1, 1)));
}

const RELOADED: &str = "scaleset_medic_config_last_reload_successful 1";
const NOT_RELOADED: &str = "scaleset_medic_config_last_reload_successful 0";

#[tokio::test]
async fn good_configuration_is_reloaded_and_a_bad_one_reported() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.until_all_listen().await;
    let medic = Medic::of(&servers.garm, "observe");
    let running = medic.serving().await;
    let observe = std::fs::read_to_string(&medic.config).unwrap();
    let heal = observe.replace("\"observe\"", "\"heal\"");
    // Valid, but unusable: the address is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = observe.replace(&medic.address, &taken.local_addr().unwrap().to_string());
    for (text, result, mode) in [
        (observe.replace("mode = ", "mood = "), NOT_RELOADED, "build_info{mode=\"observe\""),
        (heal.clone(), RELOADED, "build_info{mode=\"heal\""),
        (elsewhere, NOT_RELOADED, "build_info{mode=\"heal\""),
        (heal, RELOADED, "build_info{mode=\"heal\""),
    ] {
        std::fs::write(&medic.config, text).unwrap();
        medic.exports(result).await;
        medic.exports(mode).await;
    }
    medic.ready().await;
    let text = running.stop("-TERM").await;
    assert_shows(&text, &["keeping the previous one", "cannot be used; keeping"]);
}

#[tokio::test]
async fn log_level_reloads_and_log_format_needs_a_restart() {
    let servers = Servers::start(Build::PreFix, 1);
    let medic = Medic::of(&servers.garm, "observe");
    let good = std::fs::read_to_string(&medic.config).unwrap();
    std::fs::write(&medic.config, format!("{good}[log]\nlevel = \"error\"\n")).unwrap();
    let running = medic.serving().await;
    let changed = format!("{good}[log]\nlevel = \"info\"\nformat = \"json\"\n").replace("\"observe\"", "\"heal\"");
    std::fs::write(&medic.config, changed).unwrap();
    medic.sees(|status| status["mode"] == "heal").await;
    running.signal("-TERM");
    let text = printed(&finish(running).await);
    assert!(!text.contains("observe"), "info lines are hidden at first: {text}");
    assert_shows(&text, &["the configuration has changed", "takes effect after a restart"]);
}

#[tokio::test]
async fn ca_file_replaces_system_certificates_and_is_reloaded() {
    let servers = Servers::start(Build::PreFix, 1);
    let tls = Tls::new("localhost", false);
    let (right, wrong) = (tls.authority.clone(), Authority::new().pem());
    let (_proxy, at) = Proxy::before(&servers.garm, Fault::None, Some(tls)).await;
    let url = format!("https://localhost:{}", at.port());
    let dir = tempfile::tempdir().unwrap();
    let (ca, system) = (dir.path().join("ca.pem"), dir.path().join("system.pem"));
    std::fs::write(&system, &right).unwrap();
    std::fs::write(&ca, &wrong).unwrap();
    let medic = Medic::with(
        &url,
        &ConfigText {
            mode: "observe",
            run: "interval = \"1s\"\nurgent_interval = \"1s\"",
            manager: &format!("ca_file = \"{}\"", ca.display()),
            ..ConfigText::default()
        },
    );
    let running = medic.spawn_with(("SSL_CERT_FILE", &system.display().to_string()), &["run"]);
    let api_shows = |part: &'static str| {
        medic.sees(move |status| status["managers"][0]["sources"]["api"].to_string().contains(part))
    };
    api_shows("tls").await;
    std::fs::write(&ca, &right).unwrap();
    api_shows("\"up\"").await;
    // An unusable file changes nothing, and a usable one is enough afterwards.
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    medic.exports(NOT_RELOADED).await;
    api_shows("\"up\"").await;
    std::fs::write(&ca, format!("{right}{wrong}")).unwrap();
    medic.exports(RELOADED).await;
    api_shows("\"up\"").await;
    running.stop("-TERM").await;
}

#[tokio::test]
async fn start_warns_of_a_password_sent_unencrypted() {
    for (url, warns) in
        [("http://garm.invalid:9997", true), ("http://127.0.0.1:9", false), ("https://garm.invalid", false)]
    {
        let text = Medic::of(url, "observe").serving().await.stop("-TERM").await;
        assert_eq!(text.contains("unencrypted"), warns, "{url}: {text}");
    }
}

#[tokio::test]
async fn heal_that_is_stopped_leaves_its_set_enabled() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "observe");
    let running = medic.spawn(&["heal", "linux-0", "--yes"]);
    servers.until_one_is_disabled().await;
    let text = running.stop("-TERM").await;
    assert_eq!(servers.listening().1, 1, "{text}");
}

#[tokio::test]
async fn resume_warns_that_a_file_still_pauses() {
    let medic = Medic::of(&Servers::start(Build::PreFix, 1).garm, "heal");
    std::fs::write(medic.dir.path().join("pause"), "reason = \"upgrade\"\n").unwrap();
    assert_shows(&medic.prints(&["resume"]).await, &["still paused", "upgrade"]);
}
