use super::*;
use medic_core::model::{ScaleSetId, SessionId};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

const BUILDS: [&str; 2] = ["garm-2026-04-pre-fix", "garm-2026-07-post-fix"];

/// The recorded logs of one run of a build, one after the other as in one file.
fn recorded(build: &str, numbers: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .join("tests/fixtures/recordings")
        .join(build)
        .join("logs");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let wanted = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        numbers.contains(&name[..2].parse().unwrap())
    };
    files.into_iter().filter(wanted).flat_map(|file| std::fs::read(file).unwrap()).collect()
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn read_all(log: &LogFile) {
    while log.step() {}
}

fn whole(build: &str) -> LogEvidence {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garm.log");
    append(&path, &recorded(build, 1..=11));
    let log = LogFile::new(&path, None, Facts::Taken);
    read_all(&log);
    log.evidence().unwrap()
}

#[test]
fn a_recorded_day_is_summed_up_alike_at_once_and_in_pieces_with_restarts() {
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
fn the_last_run_is_what_the_evidence_is_about() {
    let seen = whole(BUILDS[1]);
    assert!(seen.debug && seen.last_panic.is_some() && seen.last_stop < seen.last_panic);
    assert!(seen.run_started > seen.last_panic);
    assert_eq!(seen.by_id[&ScaleSetId(2)].conflict_count, 9);
    assert_eq!(
        seen.by_id[&ScaleSetId(1)].session.as_ref().unwrap().1,
        SessionId::new("bc82df76-c845-434d-91e4-de46bf43974d")
    );
}

#[test]
fn at_info_level_the_evidence_says_that_sessions_cannot_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garm.log");
    append(&path, &recorded(BUILDS[0], 12..=12));
    let log = LogFile::new(&path, None, Facts::Taken);
    read_all(&log);
    let seen = log.evidence().unwrap();
    assert!(!seen.debug && seen.run_started.is_some() && seen.last_stop.is_some());
}

#[test]
fn a_missing_log_says_what_to_do_and_is_picked_up_when_it_comes() {
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
    assert_eq!(log.batch().facts, [], "nobody wanted them");
}

#[test]
fn facts_that_nobody_takes_stop_the_reading_and_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garm.log");
    let line = "time=2026-11-23T18:46:19.180Z level=DEBUG msg=\"checking if message session token needs refresh\" \
                session_id=36c2c648-2cbf-4a6d-9fe9-01442c376037 worker=scaleset-worker-a-1\n";
    let lines = 120_000;
    append(&path, &line.as_bytes().repeat(lines));
    let log = LogFile::new(&path, None, Facts::Taken);
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
async fn catching_up_reads_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garm.log");
    append(&path, &recorded(BUILDS[1], 1..=3));
    let log = Arc::new(LogFile::new(&path, None, Facts::Dropped));
    log.catch_up(Span::mins(1)).await;
    assert_eq!(log.evidence().unwrap().by_id.len(), 4);
}

/// A FIFO without a writer stands for a share that hangs: opening it blocks.
#[tokio::test]
async fn a_log_that_hangs_is_a_failed_source_that_holds_nobody_up_until_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (path, aside) = (folder.path().join("garm.log"), folder.path().join("fifo"));
    append(&path, &recorded(BUILDS[1], 1..=3));
    let log = Arc::new(LogFile::new(&path, None, Facts::Taken));
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
