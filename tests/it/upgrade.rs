//! A state file of schema version 3, left in the middle of a treatment: the upgraded medic finishes it. Snapshots with
//! earlier names are read.

use crate::bench::{Bench, Given};
use medic_core::model::{ManagerName, Outcome, ScaleSetId, Span, Step};
use medic_core::ports::write::Journal as _;
use medic_lab::garm::Build;
use medic_store::{FILE_NAME, Store};
use rusqlite::params;
use scaleset_medic::replay;
use std::path::Path;

/// A file of version 3 in `dir` that holds the open treatments of `store`, with the names of that version.
fn downgraded(store: &Store, manager: &ManagerName, dir: &Path) {
    let old = rusqlite::Connection::open(dir.join(FILE_NAME)).unwrap();
    old.execute_batch(include_str!("../../crates/store/fixtures/v3.sql")).unwrap();
    old.execute_batch("DELETE FROM treatments; DELETE FROM sessions; DELETE FROM orders; DELETE FROM pauses").unwrap();
    for treatment in store.for_manager(manager).unfinished().unwrap() {
        let mut body = serde_json::to_string(&treatment).unwrap();
        for (now, then) in [("github_id", "forge_id"), ("worker_restarted", "revived"), ("manual_heal", "ordered")] {
            body = body.replace(&format!("\"{now}\":"), &format!("\"{then}\":"));
        }
        assert!(body.contains("forge_id"), "{body}");
        let (id, set, opened) = (treatment.id.0, treatment.set.0, treatment.opened.0);
        let [id, set, opened] = [id, set, opened].map(|number| i64::try_from(number).unwrap());
        let row = params![id, manager.as_str(), set, opened, treatment.step.is_intent(), body];
        old.execute("INSERT INTO treatments VALUES (?1, ?2, ?3, ?4, NULL, NULL, ?5, ?6)", row).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn upgrade_enables_a_set_that_version_3_left_disabled() {
    let mut bench = Bench::after_a_crash(&Given::of(Build::PreFix, 3), Span::mins(1)).await;
    bench.run_until(Span::mins(2), |world| world.listening(0).1 < 3).await;
    let manager = bench.engine.name().clone();
    let open = bench.store.for_manager(&manager).unfinished().unwrap();
    let disabled: Vec<ScaleSetId> =
        open.iter().filter(|row| matches!(row.step, Step::Disabled { .. })).map(|row| row.set).collect();
    assert!(!disabled.is_empty(), "{open:?}");
    let dir = tempfile::tempdir().unwrap();
    downgraded(&bench.store, &manager, dir.path());
    bench.store = Store::open(dir.path()).unwrap();
    bench.restart_medic();
    let took = bench.run_until(Span::mins(2), |world| world.listening(0).1 == 3).await;
    assert!(took < Span::mins(1), "disabled for {took}");
    bench.until_all_listen(Span::mins(10)).await;
    bench.run(Span::mins(2)).await;
    assert_eq!(bench.listening(), (3, 3));
    let finished = bench.closed.iter().filter(|row| disabled.contains(&row.set));
    assert!(finished.clone().count() >= 1 && finished.into_iter().all(|row| row.outcome() == Some(Outcome::Recovered)));
}

#[tokio::test(start_paused = true)]
async fn replay_reads_snapshots_with_earlier_names() {
    let mut bench = Bench::after_a_crash(&Given::of(Build::PreFix, 3), Span::mins(1)).await;
    bench.run(Span::mins(1)).await;
    let store = bench.store.for_manager(bench.engine.name());
    let now = store.newest_snapshot().unwrap().unwrap();
    let names = [
        ("\"actions_service\"", "\"broker\""),
        ("\"write_access\":{\"state\":\"granted\"}", "\"footing\":{\"state\":\"firm\"}"),
        ("\"worker_restarted\":", "\"revived\":"),
        ("\"manual_heal\":", "\"ordered\":"),
    ];
    let mut before = now.clone();
    for (name, then) in names {
        assert!(before.contains(name), "{name} in {before}");
        before = before.replace(name, then);
    }
    let [now, before] = [now, before].map(|line| replay::parse(&line).unwrap().unwrap());
    assert_eq!((&before.sweep, &before.findings), (&now.sweep, &now.findings));
    assert_eq!((&before.treatments, &before.conditions), (&now.treatments, &now.conditions));
}
