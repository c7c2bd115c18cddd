use super::*;
use crate::testing::{BUILDS, append, recorded_log};
use medic_core::model::{ScaleSetId, SessionId};
use std::fs::OpenOptions;

/// The recorded logs of one run of a build, concatenated.
fn recorded(build: &str, numbers: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    numbers.flat_map(|number| recorded_log(build, &format!("{number:02}"))).collect()
}

/// A log file with these lines, and a follower of it.
fn log_of(lines: &[u8], facts: Facts) -> (tempfile::TempDir, PathBuf, Arc<LogFile>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garm.log");
    append(&path, lines);
    let log = Arc::new(LogFile::new(&path, None, facts));
    (folder, path, log)
}

fn read_all(log: &LogFile) {
    while log.step() {}
}

fn whole(build: &str) -> LogEvidence {
    let (_folder, _, log) = log_of(&recorded(build, 1..=11), Facts::Taken);
    read_all(&log);
    log.evidence().unwrap()
}

#[test]
fn evidence_is_the_same_in_pieces_with_restarts() {
    for build in BUILDS {
        let wanted = whole(build);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("garm.log");
        let (mut kept, mut facts) = (None, Vec::new());
        for piece in recorded(build, 1..=11).chunks(7919) {
            append(&path, piece);
            let log = LogFile::new(&path, kept, Facts::Taken);
            read_all(&log);
            let batch = log.batch();
            assert_eq!(batch.notices, []);
            facts.extend(batch.facts);
            kept = batch.position.map(|position| (position, batch.evidence));
        }
        assert_eq!(kept.unwrap().1, wanted, "{build}");
        let opened = facts.iter().filter(|fact| matches!(fact.what, LogEvent::SessionOpened { .. })).count();
        assert_eq!(opened, if build == BUILDS[0] { 16 } else { 19 }, "{build}");
    }
}

#[test]
fn evidence_is_about_the_last_run() {
    let seen = whole(BUILDS[1]);
    assert!(seen.debug && seen.last_panic.is_some() && seen.last_stop < seen.last_panic);
    assert!(seen.run_started > seen.last_panic);
    assert_eq!(seen.by_id[&ScaleSetId(2)].conflict_count, 9);
    assert_eq!(
        seen.by_id[&ScaleSetId(1)].session.as_ref().unwrap().1,
        SessionId::new("bc82df76-c845-434d-91e4-de46bf43974d")
    );
    let (_folder, _, log) = log_of(&recorded(BUILDS[0], 12..=12), Facts::Taken);
    read_all(&log);
    let seen = log.evidence().unwrap();
    assert!(!seen.debug && seen.run_started.is_some() && seen.last_stop.is_some());
}

#[test]
fn missing_log_is_a_failure_until_it_appears() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garm.log");
    let log = LogFile::new(&path, None, Facts::Dropped);
    assert_eq!(log.evidence().unwrap_err().kind, FailureKind::HeldBack, "nothing was read yet");
    read_all(&log);
    let failure = log.evidence().unwrap_err();
    assert_eq!((failure.kind, failure.operation), (FailureKind::NotFound, Operation::LogFile));
    assert!(failure.detail.contains("garm.log") && failure.detail.contains("log_file"), "{}", failure.detail);
    append(&path, &recorded(BUILDS[0], 4..=4));
    read_all(&log);
    assert_eq!(log.evidence().unwrap().by_github.len(), 2);
    assert_eq!(log.batch().facts, [], "no ledger is kept");
}

#[test]
fn reading_stops_while_facts_are_not_taken() {
    let line = "time=2026-11-23T18:46:19.180Z level=DEBUG msg=\"checking if message session token needs refresh\" \
                session_id=36c2c648-2cbf-4a6d-9fe9-01442c376037 worker=scaleset-worker-a-1\n";
    let lines = 120_000;
    let (_folder, _, log) = log_of(&line.as_bytes().repeat(lines), Facts::Taken);
    read_all(&log);
    assert_eq!(log.evidence().unwrap_err().kind, FailureKind::HeldBack);
    let mut taken = 0;
    while log.evidence().is_err() {
        taken += log.batch().facts.len();
        read_all(&log);
    }
    taken += log.batch().facts.len();
    assert_eq!(taken, lines);
}

#[tokio::test]
async fn catch_up_reads_to_the_end() {
    let (_folder, _, log) = log_of(&recorded(BUILDS[1], 1..=3), Facts::Dropped);
    log.catch_up(Span::mins(1)).await;
    assert_eq!(log.evidence().unwrap().by_id.len(), 4);
}

/// A FIFO without a writer stands for a share that hangs: opening it blocks.
#[tokio::test]
async fn hanging_log_is_a_failed_source_and_blocks_nobody() {
    let (folder, path, log) = log_of(&recorded(BUILDS[1], 1..=3), Facts::Taken);
    let aside = folder.path().join("fifo");
    log.catch_up(Span::mins(1)).await;
    let read = log.batch();
    std::fs::rename(&path, folder.path().join("gone")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());

    log.catch_up(Span::millis(50)).await;
    let failure = log.evidence().unwrap_err();
    assert_eq!((failure.kind, failure.operation), (FailureKind::Timeout, Operation::LogFile));
    assert_eq!(log.batch().position, read.position, "what was read before can still be kept");
    tokio::time::timeout(std::time::Duration::from_secs(5), log.catch_up(Span::hours(1)))
        .await
        .expect("nobody waits a second time");

    std::fs::rename(&path, &aside).unwrap();
    append(&path, &recorded(BUILDS[1], 4..=4));
    drop(OpenOptions::new().write(true).open(&aside).unwrap());
    let answers = async {
        while log.evidence().is_err() {
            log.catch_up(Span::mins(1)).await;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), answers).await.expect("it is read again");
}
