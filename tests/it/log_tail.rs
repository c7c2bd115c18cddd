//! The manager's log, from the file to the ledger, with the medic dying at every kind of moment.

use medic_core::model::log_fact::LogEvidence;
use medic_core::model::session::LedgerSession;
use medic_core::model::{
    Endpoint, EndpointName, Entity, EntityKind, GithubId, GithubPlace, ManagerName, Owner, ScaleSetId,
};
use medic_core::ports::read::LogSource;
use medic_garm::log::ledger_feed::{Feed, Known, Timeline};
use medic_garm::log::source::{Facts, LogFile};
use medic_store::{ManagerStore, Store};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BUILDS: [&str; 2] = ["garm-2026-04-pre-fix", "garm-2026-07-post-fix"];

fn recorded(build: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings").join(build).join("logs");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files.into_iter().flat_map(|file| std::fs::read(file).unwrap()).collect()
}

fn places() -> BTreeMap<ScaleSetId, GithubPlace> {
    let endpoint = Arc::new(Endpoint {
        name: EndpointName::new("fake"),
        base_url: "http://forge".to_owned(),
        api_base_url: "http://forge/api".to_owned(),
    });
    (1..=4)
        .map(|id| {
            let entity = Entity { kind: EntityKind::Organization, name: format!("acme{}", (id - 1) / 2) };
            (ScaleSetId(id), GithubPlace { endpoint: endpoint.clone(), entity, github_id: GithubId(id) })
        })
        .collect()
}

/// One life of the medic: reads what is there, and dies after so many of its three durable steps.
fn live(path: &Path, store: &ManagerStore, steps: usize) {
    let (timeline, places, owner) = (Timeline::default(), places(), Owner::new("garm-c1"));
    let known = Known { timeline: &timeline, places: &places, owner: Some(&owner) };
    let name = path.display().to_string();
    let kept = store.load_log_position(&name).unwrap();
    let evidence = kept.as_ref().map_or_else(LogEvidence::default, |(_, evidence)| evidence.clone());
    let mut feed = Feed::resume(&evidence, &store.live_sessions().unwrap());
    let log = LogFile::new(path, kept, Facts::Taken);
    while log.step() {}
    let batch = log.batch();
    let changes = feed.absorb(&batch.facts, known);
    if steps >= 1 {
        store.apply(&changes).unwrap();
    }
    if steps >= 2 {
        store.save_log_position(&name, &batch.position.unwrap(), &batch.evidence).unwrap();
    }
}

fn ledger(store: &ManagerStore) -> Vec<LedgerSession> {
    (1..=4).flat_map(|id| store.of_set(ScaleSetId(id)).unwrap()).collect()
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn whatever_moment_the_medic_dies_the_ledger_ends_with_the_same_sessions() {
    for build in BUILDS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("garm.log");
        append(&path, &recorded(build));
        let whole = Store::in_memory().unwrap().for_manager(&ManagerName::new("m"));
        live(&path, &whole, 2);
        let wanted = ledger(&whole);
        assert!(wanted.len() >= 16, "{build}");

        for seed in 1..=20_u64 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("garm.log");
            let store = Store::in_memory().unwrap().for_manager(&ManagerName::new("m"));
            let log = recorded(build);
            let (mut state, mut rest, mut rotations) = (seed, log.as_slice(), 0);
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).unwrap() % below
            };
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((1 + random(20_000)).min(rest.len()));
                append(&path, piece);
                rest = after;
                live(&path, &store, random(3));
                // Rotated between two lines, as GARM does it.
                if piece.ends_with(b"\n") || random(4) == 0 {
                    let end = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
                    let (line, after) = rest.split_at(end);
                    append(&path, line);
                    rest = after;
                    rotations += 1;
                    let name = format!("garm-2026-11-24T00-00-{rotations:06}.log");
                    std::fs::rename(&path, folder.path().join(name)).unwrap();
                }
            }
            if !path.exists() {
                append(&path, b"");
            }
            live(&path, &store, 2);
            let found = ledger(&store);
            let ids =
                |rows: &[LedgerSession]| rows.iter().map(|row| (row.id.clone(), row.opened_by)).collect::<Vec<_>>();
            assert_eq!(ids(&found), ids(&wanted), "{build} seed {seed}");
            for (found, wanted) in found.iter().zip(&wanted) {
                assert_eq!(found.ended.is_some(), wanted.ended.is_some(), "{build} seed {seed}: {found:?} {wanted:?}");
            }
        }
    }
}

#[test]
fn the_evidence_after_a_recorded_day_names_the_sets_that_are_stuck() {
    for (build, stuck_by) in BUILDS.into_iter().zip(["forge id", "manager id"]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("garm.log");
        append(&path, &recorded(build));
        let log = LogFile::new(&path, None, Facts::Dropped);
        while log.step() {}
        let seen = log.evidence().unwrap();
        for (id, entity) in [(2, "acme0"), (3, "acme1"), (4, "acme1")] {
            let set = seen.about(ScaleSetId(id), Some(entity), Some(GithubId(id))).unwrap();
            assert!(set.conflicts.is_some(), "{build} set {id} by {stuck_by}");
            assert_eq!(set.gave_up.is_some(), build == BUILDS[0], "{build} set {id}");
        }
        let one = seen.about(ScaleSetId(1), Some("acme0"), Some(GithubId(1))).unwrap();
        assert!(one.conflicts.is_none() && one.session.is_some() && one.last_poll.is_some(), "{build}");
    }
}
