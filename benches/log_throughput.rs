//! How fast a manager's log is followed, and what an idle one costs (`docs/performance.md`, "Following a log").
//!
//! `cargo bench --bench log_throughput -- [MEGABYTES]` writes logs of that size (default 256) by repeating recorded
//! lines of two real GARM builds, and follows them as the medic does: tail, parser, evidence, ledger feed, `SQLite`.
//! The time counted is the process's own on a core, so that a busy machine does not blur it. Fails when a goal is
//! missed.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark for a terminal")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use medic_core::model::log_fact::{LogEvidence, LogPosition};
use medic_core::model::{ManagerName, Owner};
use medic_garm::log::ledger_feed::{Feed, Known, Timeline};
use medic_garm::log::source::{Facts, LogFile};
use medic_store::Store;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The goal, in megabytes (10^6 bytes) for each second of one core.
const GOAL: f64 = 100.0;
/// What following may add to the peak of the resident memory: a few buffers, and the database's first pages.
const MEMORY_GOAL_KB: u64 = 4 * 1024;
/// What a check of an unchanged log may cost.
const IDLE_GOAL: Duration = Duration::from_micros(20);
const IDLE_POLLS: u32 = 100_000;

fn main() {
    let megabytes: u64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(256);
    let folder = tempfile::tempdir().unwrap();
    let recorded = recorded_lines();
    let quiet: Vec<u8> = recorded.iter().filter(|line| !is_debug(line)).flatten().copied().collect();
    let rare: Vec<u8> = recorded.iter().filter(|line| !is_debug(line)).take(1).flatten().copied().collect();
    let whole: Vec<u8> = recorded.concat();
    let mut met = true;
    // The first run also pays for what is set up once.
    follow(&write(folder.path(), &whole, 4), "warm-up");
    for (name, lines) in [("debug level", whole), ("info level", quiet), ("one unknown line", rare)] {
        let path = write(folder.path(), &lines, megabytes);
        met &= follow(&path, name);
        std::fs::remove_file(path).unwrap();
    }
    met &= idle(folder.path());
    println!("goals: {}", if met { "reached" } else { "MISSED" });
    std::process::exit(i32::from(!met));
}

fn recorded_lines() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings");
    let mut files: Vec<PathBuf> = ["garm-2026-04-pre-fix", "garm-2026-07-post-fix"]
        .iter()
        .flat_map(|build| std::fs::read_dir(root.join(build).join("logs")).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let logs = files.iter().map(|file| std::fs::read(file).unwrap());
    logs.flat_map(|log| log.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
}

fn is_debug(line: &[u8]) -> bool {
    line.windows(7).take(120).any(|w| w == b"\"DEBUG\"" || w == b"=DEBUG ")
}

fn write(folder: &Path, lines: &[u8], megabytes: u64) -> PathBuf {
    let path = folder.join("garm.log");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    for _ in 0..(megabytes * 1_000_000).div_ceil(lines.len() as u64) {
        file.write_all(lines).unwrap();
    }
    file.flush().unwrap();
    path
}

/// Follows the log from its first byte to its end, as the medic does from sweep to sweep.
fn follow(path: &Path, name: &str) -> bool {
    let store = Store::in_memory().unwrap().for_manager(&ManagerName::new("m"));
    let (timeline, places, owner) = (Timeline::default(), BTreeMap::new(), Owner::new("garm"));
    let known = Known { timeline: &timeline, places: &places, owner: Some(&owner) };
    let mut feed = Feed::default();
    // From the first byte: a log without a saved position is started near its end.
    let metadata = std::fs::metadata(path).unwrap();
    let start = LogPosition { device: metadata.dev(), inode: metadata.ino(), ..LogPosition::default() };
    let log = LogFile::new(path, Some((start, LogEvidence::default())), Facts::Taken);
    let (before, begun, clock) = (peak_kb(), on_core(), Instant::now());
    let (mut facts, mut steps) = (0_usize, 0_u32);
    loop {
        let more = log.step();
        steps += 1;
        let batch = log.batch();
        facts += batch.facts.len();
        store.apply(&feed.absorb(&batch.facts, known)).unwrap();
        if !more {
            break;
        }
    }
    let (core, wall) = (on_core().saturating_sub(begun), clock.elapsed());
    let grown = peak_kb().saturating_sub(before);
    let read = log.batch().position.unwrap().offset;
    assert!(read + 4096 > metadata.len(), "{read} of {} bytes were read", metadata.len());
    let rate = read as f64 / 1e6 / core.as_secs_f64();
    println!(
        "{name}: {:.0} MB in {steps} steps, {:.2} s of one core ({:.2} s elapsed): {rate:.0} MB/s; \
         {facts} facts for the ledger; peak memory {before} kB before, +{grown} kB",
        read as f64 / 1e6,
        core.as_secs_f64(),
        wall.as_secs_f64(),
    );
    name == "warm-up" || (rate > GOAL && grown <= MEMORY_GOAL_KB)
}

fn idle(folder: &Path) -> bool {
    let path = write(folder, b"time=2026-11-23T18:46:07.139Z level=INFO msg=x a=b\n", 1);
    let log = LogFile::new(&path, None, Facts::Taken);
    while log.step() {}
    let (faults, begun) = (page_faults(), on_core());
    for _ in 0..IDLE_POLLS {
        log.step();
    }
    let each = on_core().saturating_sub(begun) / IDLE_POLLS;
    let faults = page_faults() - faults;
    println!("idle: {each:?} of one core for a check of an unchanged log; {faults} page faults in {IDLE_POLLS} checks");
    each < IDLE_GOAL
}

/// CPU time of this process, of one thread: the kernel counts it in hundredths of a second.
fn on_core() -> Duration {
    Duration::from_millis((stat(11) + stat(12)) * 10)
}

/// The peak of the resident memory.
fn peak_kb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn page_faults() -> u64 {
    stat(7)
}

/// A field of `/proc/self/stat`, counted from the process's state on.
fn stat(field: usize) -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    text.rsplit_once(") ").unwrap().1.split(' ').nth(field).unwrap().parse().unwrap()
}
