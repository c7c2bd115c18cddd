//! The commands that a person types in an incident, against the simulators over real sockets: what they say, and that
//! they work while something else does not.

use super::binary::{Medic, Servers, finish, signal, told};
use medic_lab::garm::{Build, ManagerFault, ManagerRoute};
use medic_lab::github::FaultKind;

#[tokio::test]
async fn the_emergency_stop_needs_no_secret_and_no_manager() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    std::fs::remove_file(medic.dir.path().join("password")).unwrap();
    let paused = medic.run(&["pause", "--manager", "garm", "--set", "3", "--reason", "upgrade"]).await;
    assert_eq!(paused.status.code(), Some(0), "{}", told(&paused));
    assert!(told(&paused).contains("scale set 3 of garm paused"), "{}", told(&paused));
    let paused = medic.run(&["pause", "--reason", "upgrade"]).await;
    assert_eq!(paused.status.code(), Some(0), "{}", told(&paused));
    let named = medic.run(&["pause", "--manager", "garm", "--set", "linux-0", "--reason", "upgrade"]).await;
    assert_eq!(named.status.code(), Some(12), "{}", told(&named));
    assert!(told(&named).contains("by its number"), "{}", told(&named));
    let resumed = medic.run(&["resume"]).await;
    assert_eq!(resumed.status.code(), Some(0), "{}", told(&resumed));
    let said = told(&resumed);
    assert!(said.contains("everything resumed") && said.contains("still paused"), "{said}");
    assert!(said.contains(", by uid "), "without USER the author is who runs it: {said}");
}

#[tokio::test]
async fn a_pause_shows_while_all_is_well_and_the_breaker_is_no_pause() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.until("it listens", |world| world.listening(0) == (1, 1)).await;
    let medic = Medic::of(&servers.garm, "heal");
    let _child = medic.spawn(&["run"]);
    medic.ready().await;
    let paused = medic.run(&["pause", "--reason", "upgrade", "--author", "alice", "--for", "3d"]).await;
    assert!(told(&paused).contains("until 20"), "with its day: {}", told(&paused));
    let closed = medic.run(&["resume", "--breaker"]).await;
    assert!(told(&closed).contains("still paused: everything, by alice"), "{}", told(&closed));
    medic.sees(|status| status["managers"][0]["pauses"].as_array().is_some_and(|all| all.len() == 1)).await;
    let status = medic.run(&["status"]).await;
    let said = told(&status);
    assert!(said.contains("healing of everything is paused by alice until 20"), "{said}");
    assert!(said.contains("(scaleset-medic resume)"), "{said}");
    assert!(medic.get("/").await.unwrap().1.contains("healing of everything is paused by alice"));
    assert!(medic.get("/metrics").await.unwrap().1.contains("scaleset_medic_paused{manager=\"garm\"} 1"));
    let nagios = medic.run(&["status", "--nagios"]).await;
    assert!(told(&nagios).contains("healing is paused"), "{}", told(&nagios));
}

#[tokio::test]
async fn malformed_pause_file_pauses_everything() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    std::fs::write(medic.dir.path().join("pause"), "manager = \"gram\"\n").unwrap();
    let status = medic.run(&["status"]).await;
    let said = told(&status);
    assert!(
        said.contains("healing of everything is paused") && said.contains("no manager gram is configured"),
        "{said}"
    );
    assert!(said.contains("remove the file"), "{said}");
    std::fs::write(medic.dir.path().join("pause"), "author = \"alice\"\nreason = \"upgrade\"\n").unwrap();
    let status = medic.run(&["status"]).await;
    let said = told(&status);
    assert!(said.contains("is paused by alice, while the file exists: upgrade"), "{said}");
}

/// Who may write a reason, or name a scale set, may not clear the screen of who reads it, nor add a line of his own.
#[tokio::test]
async fn what_others_wrote_cannot_steer_the_terminal() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    let paused = medic.run(&["pause", "--reason", "up\u{1b}[2Jgrade", "--author", "al\u{9b}2Jice\ngarm: forged"]).await;
    assert_eq!(paused.status.code(), Some(0), "{}", told(&paused));
    let _child = medic.spawn(&["run"]);
    medic.ready().await;
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
        assert!(said.contains("up\u{fffd}[2Jgrade"), "{args:?}: {}", told(&shown));
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {said:?}");
        let forged = said.lines().any(|line| line.starts_with("garm: forged"));
        assert!(!forged, "{args:?}: {said}");
    }
}

#[tokio::test]
async fn a_pause_of_no_length_and_a_manager_that_is_none_are_refused() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    for args in [
        vec!["pause", "--reason", "upgrade", "--for", "0"],
        vec!["pause", "--reason", "upgrade", "--manager", "gram"],
        vec!["status", "--manager", "gram"],
        vec!["explain", "linux-0", "--manager", "gram"],
    ] {
        let refused = medic.run(&args).await;
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {}", told(&refused));
        let said = told(&refused);
        assert!(said.contains("there is garm") || said.contains("a pause needs a length"), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn set_of_an_absent_manager_is_not_a_usage_error() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    for args in [vec!["explain", "linux-0"], vec!["heal", "linux-0", "--yes"]] {
        let blind = medic.run(&args).await;
        assert_eq!(blind.status.code(), Some(12), "{args:?}: {}", told(&blind));
        assert!(told(&blind).contains("garm cannot be asked (") && told(&blind).contains("doctor"), "{}", told(&blind));
    }
    let servers = Servers::start(Build::PreFix, 1);
    let medic = Medic::of(&servers.garm, "heal");
    let unknown = medic.run(&["explain", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(2), "{}", told(&unknown));
}

/// As a cron job finds it: between two runs nobody serves a picture, and the state directory knows more than one look.
#[tokio::test]
async fn status_without_a_running_medic_reads_its_records() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    medic.run(&["pause", "--reason", "upgrade", "--author", "alice"]).await;
    let explained = medic.run(&["explain", "linux-0"]).await;
    let said = told(&explained);
    assert!(said.contains("everything paused by alice: upgrade"), "{said}");
    assert!(!said.contains("mode is observe"), "{said}");
    medic.run(&["resume"]).await;
    let status = medic.run(&["status"]).await;
    assert!(told(&status).contains("toggle is due"), "{}", told(&status));
    assert!(!told(&status).contains("INFO") && !told(&status).contains("WARN"), "no log beside it: {}", told(&status));
    assert_eq!(status.status.code(), Some(10), "{}", told(&status));
    assert_eq!(servers.writes(), 0, "{}", told(&status));

    // Killed with its set disabled.
    let mut child = medic.spawn(&["run"]);
    servers.until("the set is disabled", |world| world.listening(0).1 == 0).await;
    child.0.take().unwrap().kill().unwrap();
    let writes = servers.writes();
    let status = medic.run(&["status"]).await;
    let said = told(&status);
    assert!(said.contains("disabled_by_medic") && said.contains("toggle under way"), "{said}");
    assert!(!said.contains("disabled by an operator"), "{said}");
    assert_eq!(servers.writes(), writes, "{said}");
}

#[tokio::test]
async fn piped_watch_prints_documents_and_outlives_an_unready_medic() {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    let listener = std::net::TcpListener::bind(&medic.address).unwrap();
    std::thread::spawn(move || {
        let answer = |body: &str, status: &str| {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut piece) = (Vec::new(), [0; 256]);
            while !request.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..read]);
            }
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        };
        answer("the first pass is not done\n", "503 Service Unavailable");
        let body = serde_json::to_string(&super::export::everything()).unwrap();
        for _ in 0..2 {
            answer(&body, "200 OK");
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
    medic.run(&["pause", "--reason", "upgrade", "--author", "alice"]).await;
    let _child = medic.spawn(&["run"]);
    medic.ready().await;
    medic.sees(|status| status["managers"][0]["sets"][0]["decision"]["decision"] == "blocked").await;
    let explained = medic.run(&["explain", "linux-0"]).await;
    let said = told(&explained);
    for part in [
        "Rules, in their order",
        "decides: conflict_abandoned",
        "Timeline:",
        "unhealthy from here on",
        "do not block: ",
        "Next: disable and enable it, once these no longer block: paused",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    medic.run(&["resume"]).await;
    servers
        .until("it is healed", |world| world.listening(0) == (1, 1) && world.garm(0).unwrap().writes().len() == 2)
        .await;
    medic.sees(|status| status["managers"][0]["sets"][0]["recovered"]["at"].is_string()).await;
    let explained = medic.run(&["explain", "linux-0"]).await;
    assert!(told(&explained).contains("It is listening now; healthy again since "), "{}", told(&explained));
    let status = medic.run(&["status"]).await;
    assert!(told(&status).contains("  healthy again since "), "{}", told(&status));
    assert!(told(&explained).contains("decision: "), "what was recorded is in it: {}", told(&explained));
    let history = medic.run(&["history", "--manager", "garm"]).await;
    assert!(told(&history).contains("garm linux-0 (set 1)  decision: "), "{}", told(&history));
    let refused = medic.run(&["history", "--manager", "gram"]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
}

#[tokio::test]
async fn a_set_that_cannot_be_enabled_again_is_loud_everywhere() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    let text =
        std::fs::read_to_string(&medic.config).unwrap() + "disabled_limit = \"45s\"\ntoggle_gap_limit = \"5s\"\n";
    std::fs::write(&medic.config, text).unwrap();
    let _child = medic.spawn(&["run"]);
    medic.ready().await;
    servers.until("the set is disabled", |world| world.listening(0).1 == 0).await;
    servers.with(|world| {
        let (garm, _) = world.garm_mut(0).unwrap();
        garm.inject(ManagerFault::on(ManagerRoute::UpdateSet, FaultKind::status(500)));
    });
    medic.sees(|status| status["managers"][0]["sets"][0]["left_disabled"]["answer"].is_string()).await;
    let status = medic.run(&["status"]).await;
    assert!(told(&status).contains("LEFT DISABLED: ") && told(&status).contains("500"), "{}", told(&status));
    let nagios = medic.run(&["status", "--nagios"]).await;
    assert_eq!(nagios.status.code(), Some(2), "{}", told(&nagios));
    assert!(told(&nagios).contains("garm: ") && told(&nagios).contains("is left disabled"), "{}", told(&nagios));
    let explained = medic.run(&["explain", "linux-0"]).await;
    assert!(told(&explained).contains("By hand: garm-cli scaleset update"), "{}", told(&explained));
    let doctor = medic.run(&["doctor"]).await;
    assert!(told(&doctor).contains("is disabled by our treatment"), "{}", told(&doctor));
    assert!(medic.get("/").await.unwrap().1.contains("Left disabled"));
}

/// A pause holds the order back; then whoever gave it thinks better of it.
#[tokio::test]
async fn interrupted_heal_is_withdrawn_unless_it_has_begun() {
    use medic_core::model::manual::{ManualHeal, ManualHealAnswer};
    use medic_core::model::{ManagerName, Wall};
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "observe");
    medic.run(&["pause", "--reason", "upgrade"]).await;
    let _child = medic.spawn(&["run"]);
    medic.ready().await;
    let store = medic_store::Store::open_read_only(medic.dir.path()).unwrap().unwrap();
    let store = store.for_manager(&ManagerName::new("garm"));
    let answered = async |so: fn(&ManualHealAnswer) -> bool| {
        let found = || -> Option<ManualHeal> { store.manual_heals(Wall(0)).unwrap().pop() };
        let waiting = async {
            loop {
                let order =
                    found().filter(|order| store.manual_heal_answer(order.id).unwrap().is_some_and(|said| so(&said)));
                match order {
                    Some(order) => return order,
                    None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_mins(1), waiting).await.unwrap()
    };
    let healing = medic.spawn(&["heal", "linux-0", "--yes"]);
    let order = answered(|said| matches!(said, ManualHealAnswer::Waiting { .. })).await;
    signal(&healing, "-INT");
    let called_off = finish(healing).await;
    assert_eq!(called_off.status.code(), Some(130), "{}", told(&called_off));
    assert!(told(&called_off).contains("the manual heal is withdrawn: nothing was done"), "{}", told(&called_off));
    assert_eq!(store.manual_heals(order.created).unwrap(), [], "nobody takes it up any more");
    medic.run(&["resume"]).await;

    let healing = medic.spawn(&["heal", "linux-0", "--yes"]);
    servers.until("the set is disabled", |world| world.listening(0).1 == 0).await;
    signal(&healing, "-TERM");
    let late = finish(healing).await;
    assert_eq!(late.status.code(), Some(143), "{}", told(&late));
    assert!(told(&late).contains("too late to withdraw the order: treatment"), "{}", told(&late));
    servers.until("it is carried out", |world| world.listening(0) == (1, 1)).await;
    assert_eq!(servers.writes(), 2, "the second order alone was carried out");
}

/// Opened, a named pipe waits for a writer for ever.
#[tokio::test]
async fn named_pipe_as_pause_file_pauses_everything() {
    let servers = Servers::start(Build::PreFix, 1);
    servers.crash().await;
    let medic = Medic::of(&servers.garm, "heal");
    let made = std::process::Command::new("mkfifo").arg(medic.dir.path().join("pause")).status().unwrap();
    assert!(made.success());
    let child = medic.spawn(&["run"]);
    medic.sees(|status| status["managers"][0]["pauses"].to_string().contains("it is a named pipe, not a file")).await;
    assert!(medic.get("/healthz").await.is_some_and(|(status, _)| status == 200));
    signal(&child, "-TERM");
    let ended = finish(child).await;
    assert_eq!(ended.status.code(), Some(143), "{}", told(&ended));
    assert_eq!(servers.writes(), 0, "{}", told(&ended));
}
