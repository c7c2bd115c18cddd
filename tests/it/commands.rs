//! The commands that a person types in an incident, against the simulators over real sockets: what they say, and that
//! they work while something else does not.

use super::binary::{Medic, Servers, told};
use scaleset_medic::lab::garm::Generation;

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
    let servers = Servers::start(Generation::PreFix, 1);
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
async fn a_pause_file_with_a_typing_error_pauses_everything_and_says_so() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    std::fs::write(medic.dir.path().join("pause"), "manager = \"gram\"\n").unwrap();
    let status = medic.run(&["status"]).await;
    let said = told(&status);
    assert!(
        said.contains("healing of everything is paused") && said.contains("no manager gram is configured"),
        "{said}"
    );
    assert!(said.contains("remove the file"), "{said}");
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
        assert!(said.contains("there is garm") || said.contains("over at once"), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn a_set_of_a_manager_that_is_away_cannot_be_judged_which_is_no_wrong_usage() {
    let medic = Medic::of("http://127.0.0.1:9", "heal");
    for args in [vec!["explain", "linux-0"], vec!["heal", "linux-0", "--yes"]] {
        let blind = medic.run(&args).await;
        assert_eq!(blind.status.code(), Some(12), "{args:?}: {}", told(&blind));
        assert!(told(&blind).contains("garm cannot be asked (") && told(&blind).contains("doctor"), "{}", told(&blind));
    }
    let servers = Servers::start(Generation::PreFix, 1);
    let medic = Medic::of(&servers.garm, "heal");
    let unknown = medic.run(&["explain", "nobody"]).await;
    assert_eq!(unknown.status.code(), Some(2), "{}", told(&unknown));
}
