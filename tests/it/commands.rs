//! The commands that an operator types in an incident, against the simulators over real sockets. They must work while
//! something else does not.

use super::bench::{ConfigText, all_listen};
use super::sockets::{Medic, Servers, assert_shows, printed, until};
use medic_lab::garm::{Build, ManagerFault, ManagerRoute};
use medic_lab::github::FaultKind;

#[tokio::test]
async fn pause_and_resume_need_neither_secrets_nor_garm() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    std::fs::remove_file(medic.dir.path().join("password")).unwrap();
    let pause_set = |set| ["pause", "--manager", "garm", "--set", set, "--reason", "upgrade"];
    assert_shows(&medic.exits(0, &pause_set("3")).await, &["scale set 3 of garm paused"]);
    medic.exits(0, &["pause", "--reason", "upgrade"]).await;
    assert_shows(&medic.exits(12, &pause_set("linux-0")).await, &["give the set's id"]);
    // Without USER the author is the user id.
    let resumed = medic.exits(0, &["resume"]).await;
    assert_shows(&resumed, &["everything resumed", "still paused", ", by uid "]);
}

#[tokio::test]
async fn pause_is_shown_everywhere_and_the_breaker_is_no_pause() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.until_all_listen().await;
    let medic = Medic::of(&servers.garm, "heal");
    let _running = medic.serving().await;
    let paused = medic.prints(&["pause", "--reason", "upgrade", "--author", "alice", "--for", "3d"]).await;
    assert_shows(&paused, &["until 20"]);
    assert_shows(&medic.prints(&["resume", "--breaker"]).await, &["still paused: everything, by alice"]);
    medic.sees(|status| status["managers"][0]["pauses"].as_array().is_some_and(|all| all.len() == 1)).await;
    let status = medic.prints(&["status"]).await;
    assert_shows(&status, &["healing of everything is paused by alice until 20", "(scaleset-medic resume)"]);
    assert_shows(&medic.get("/").await.unwrap().1, &["healing of everything is paused by alice"]);
    medic.exports("scaleset_medic_paused{manager=\"garm\"} 1").await;
    assert_shows(&medic.prints(&["status", "--nagios"]).await, &["healing is paused"]);
}

#[tokio::test]
async fn malformed_pause_file_pauses_everything() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    let parts = ["healing of everything is paused", "no manager gram is configured", "remove the file"];
    std::fs::write(medic.dir.path().join("pause"), "manager = \"gram\"\n").unwrap();
    assert_shows(&medic.prints(&["status"]).await, &parts);
    std::fs::write(medic.dir.path().join("pause"), "author = \"alice\"\nreason = \"upgrade\"\n").unwrap();
    let said = medic.prints(&["status"]).await;
    assert_shows(&said, &["is paused by alice, while the file exists: upgrade"]);
}

/// A reason or the name of a scale set must not clear the reader's screen or add a line.
#[tokio::test]
async fn foreign_text_cannot_control_the_terminal() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    medic.exits(0, &["pause", "--reason", "up\u{1b}[2Jgrade", "--author", "al\u{9b}2Jice\ngarm: forged"]).await;
    let _running = medic.serving().await;
    medic.sees(|status| status["managers"][0]["sets"][0]["decision"]["decision"] == "blocked").await;
    for args in [
        vec!["status", "--color", "never"],
        vec!["explain", "linux-0"],
        vec!["history"],
        vec!["resume", "--breaker"],
        vec!["doctor"],
    ] {
        let shown = medic.run(&args).await;
        let said = String::from_utf8(shown.stdout.clone()).unwrap();
        assert!(said.contains("up\u{fffd}[2Jgrade"), "{args:?}: {}", printed(&shown));
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {said:?}");
        assert!(!said.lines().any(|line| line.starts_with("garm: forged")), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn empty_pause_and_unknown_manager_are_refused() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    for (args, why) in [
        (vec!["pause", "--reason", "upgrade", "--for", "0"], "a pause needs a length"),
        (vec!["pause", "--reason", "upgrade", "--manager", "gram"], "there is garm"),
        (vec!["status", "--manager", "gram"], "there is garm"),
        (vec!["explain", "linux-0", "--manager", "gram"], "there is garm"),
    ] {
        assert_shows(&medic.exits(2, &args).await, &[why]);
    }
}

#[tokio::test]
async fn set_of_an_absent_manager_is_not_a_usage_error() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    for args in [vec!["explain", "linux-0"], vec!["heal", "linux-0", "--yes"]] {
        assert_shows(&medic.exits(12, &args).await, &["garm cannot be asked (", "doctor"]);
    }
    let servers = Servers::start(Build::PreFix, 1);
    Medic::of(&servers.garm, "heal").exits(2, &["explain", "nobody"]).await;
}

/// As a cron job finds it: between two runs only the state directory knows the history.
#[tokio::test]
async fn status_without_a_running_medic_reads_its_records() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    medic.prints(&["pause", "--reason", "upgrade", "--author", "alice"]).await;
    let explained = medic.prints(&["explain", "linux-0"]).await;
    assert_shows(&explained, &["everything paused by alice: upgrade"]);
    assert!(!explained.contains("mode is observe"), "{explained}");
    medic.prints(&["resume"]).await;
    let status = medic.exits(10, &["status"]).await;
    assert_shows(&status, &["toggle is due"]);
    assert!(!status.contains("INFO") && !status.contains("WARN"), "log lines are printed: {status}");
    assert_eq!(servers.writes(), 0, "{status}");

    // Killed while its set is disabled.
    let running = medic.spawn(&["run"]);
    servers.until_one_is_disabled().await;
    drop(running);
    let writes = servers.writes();
    let status = medic.prints(&["status"]).await;
    assert_shows(&status, &["disabled_by_medic", "is under way"]);
    assert!(!status.contains("disabled by an operator"), "{status}");
    assert_eq!(servers.writes(), writes, "{status}");
}

#[tokio::test]
async fn piped_watch_prints_documents_and_outlives_an_unready_medic() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    let listener = std::net::TcpListener::bind(&medic.address).unwrap();
    std::thread::spawn(move || {
        let body = serde_json::to_string(&super::export::everything()).unwrap();
        for (status, body) in [("503 Service Unavailable", "not ready\n"), ("200 OK", &body), ("200 OK", &body)] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        }
    });
    let mut watching = medic.spawn(&["status", "--watch", "--output", "json"]);
    let stdout = watching.0.as_mut().unwrap().stdout.take().unwrap();
    let lines: Vec<_> = BufReader::new(stdout).lines().take(2).map(Result::unwrap).collect();
    for line in lines {
        let document: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(document["schema"], scaleset_medic::status::STATUS_SCHEMA);
    }
}

#[tokio::test]
async fn explain_shows_timeline_rules_guards_and_next_action() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    medic.prints(&["pause", "--reason", "upgrade", "--author", "alice"]).await;
    let _running = medic.serving().await;
    medic.sees(|status| status["managers"][0]["sets"][0]["decision"]["decision"] == "blocked").await;
    let parts = [
        "Rules, in their order",
        "decides: conflict_abandoned",
        "Timeline:",
        "unhealthy from here on",
        "do not block: ",
        "Next: disable and enable it, once these no longer block: paused",
    ];
    assert_shows(&medic.prints(&["explain", "linux-0"]).await, &parts);
    medic.prints(&["resume"]).await;
    servers.until("it is healed", |world| all_listen(world) && world.garm(0).unwrap().writes().len() == 2).await;
    medic.sees(|status| !status["managers"][0]["sets"][0]["recovered"]["at"].is_null()).await;
    // The recorded decision is part of the explanation.
    let explained = medic.prints(&["explain", "linux-0"]).await;
    assert_shows(&explained, &["It is listening now; healthy again since ", "decision: "]);
    assert_shows(&medic.prints(&["status"]).await, &["  healthy again since "]);
    let history = medic.prints(&["history", "--manager", "garm"]).await;
    assert_shows(&history, &["garm linux-0 (set 1)  decision: "]);
    medic.exits(2, &["history", "--manager", "gram"]).await;
}

#[tokio::test]
async fn failing_enable_is_reported_everywhere() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let policy = "disabled_limit = \"45s\"\ntoggle_gap_limit = \"5s\"";
    let medic = Medic::with(&servers.garm, &ConfigText { mode: "heal", policy, ..ConfigText::default() });
    let _running = medic.serving().await;
    servers.until_one_is_disabled().await;
    servers.with(|world| {
        let (garm, _) = world.garm_mut(0).unwrap();
        garm.inject(ManagerFault::on(ManagerRoute::UpdateSet, FaultKind::status(500)));
    });
    medic.sees(|status| status["managers"][0]["sets"][0]["left_disabled"]["answer"].is_string()).await;
    assert_shows(&medic.prints(&["status"]).await, &["LEFT DISABLED: ", "500"]);
    assert_shows(&medic.exits(2, &["status", "--nagios"]).await, &["garm: ", "is left disabled"]);
    assert_shows(&medic.prints(&["explain", "linux-0"]).await, &["By hand: garm-cli scaleset update"]);
    assert_shows(&medic.prints(&["doctor"]).await, &["is disabled by our treatment"]);
    assert_shows(&medic.get("/").await.unwrap().1, &["Left disabled"]);
}

/// A pause blocks the manual heal until its author withdraws it.
#[tokio::test]
async fn interrupted_heal_is_withdrawn_unless_it_has_begun() {
    use medic_core::model::manual::ManualHealAnswer;
    use medic_core::model::{ManagerName, Wall};
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "observe");
    medic.prints(&["pause", "--reason", "upgrade"]).await;
    let _running = medic.serving().await;
    let store = medic_store::Store::open_read_only(medic.dir.path()).unwrap().unwrap();
    let store = store.for_manager(&ManagerName::new("garm"));
    let newest = || store.manual_heals(Wall(0)).unwrap().pop();
    let answer = || store.manual_heal_answer(newest()?.id).unwrap();
    let healing = medic.spawn(&["heal", "linux-0", "--yes"]);
    until("the heal waits", async || matches!(answer(), Some(ManualHealAnswer::Waiting { .. }))).await;
    let created = newest().unwrap().created;
    assert_shows(&healing.stop("-INT").await, &["the manual heal is withdrawn: nothing was done"]);
    assert_eq!(store.manual_heals(created).unwrap(), [], "the medic will not carry it out");
    medic.prints(&["resume"]).await;

    let healing = medic.spawn(&["heal", "linux-0", "--yes"]);
    servers.until_one_is_disabled().await;
    assert_shows(&healing.stop("-TERM").await, &["too late to withdraw: treatment"]);
    servers.until_all_listen().await;
    assert_eq!(servers.writes(), 2, "only the second heal was carried out");
}
