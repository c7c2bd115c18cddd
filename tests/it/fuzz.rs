//! The properties of the fuzz targets (`fuzz/`), in a bounded run: recordings, and recordings mutated.

#[expect(unreachable_pub, reason = "the fuzz targets, another crate, include the file too")]
mod properties;
#[expect(unreachable_pub, reason = "the fuzz targets, another crate, include the file too")]
pub(crate) mod servers;

use crate::recordings::BUILDS;
use proptest::prelude::*;
use proptest::sample::{self, Index};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

/// The number of mutated recordings for each property, and the time after which there are no more.
const CASES: u32 = 2000;
const CASES_LEAST: u32 = 20;
const TIME: Duration = Duration::from_millis(1500);
/// Bytes of a recording that are used at once.
const SEED_MAX: usize = 4096;

/// What kind, where, and with what.
type Mutation = (u8, Index, Index, Index, Vec<u8>, &'static str);

fn mutation() -> impl Strategy<Value = Mutation> {
    const VALUES: [&str; 8] = ["-1", "0", "1e400", "NaN", "18446744073709551616", "null", "\"\"", "[]"];
    let at = any::<Index>;
    (0..7_u8, at(), at(), at(), proptest::collection::vec(any::<u8>(), 1..40), sample::select(&VALUES[..]))
}

fn range(bytes: &[u8], from: Index, to: Index) -> std::ops::Range<usize> {
    let (a, b) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
    a.min(b)..a.max(b)
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], (kind, at, from, to, part, value): Mutation) {
    let (at, piece) = (at.index(bytes.len() + 1), range(bytes, from, to));
    match kind {
        // Flip bits, cut a piece, keep the beginning, double a piece, insert one of another seed, insert anything.
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= part[0]),
        1 => drop(bytes.drain(piece)),
        2 => bytes.truncate(at),
        3 => drop(bytes.splice(piece.end..piece.end, bytes[piece.clone()].to_vec())),
        4 => drop(bytes.splice(at..at, other[range(other, from, to)].iter().copied())),
        5 => drop(bytes.splice(at..at, part)),
        // Replace the next number.
        _ => {
            if let Some(start) = (at..bytes.len()).find(|at| bytes[*at].is_ascii_digit()) {
                let end = (start..bytes.len()).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
                bytes.splice(start..end, value.bytes());
            }
        }
    }
}

/// The recordings that a target is seeded with, as `fuzz/seed.sh` copies them.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (folder, prefix) = match target {
        "log_line" | "log_tail" => ("logs", ""),
        "metrics_text" => ("http", "metrics-"),
        "goroutines" => ("http", "goroutines-"),
        "garm_json" | "actions_service_json" => ("http", "scalesets-"),
        "configuration" => ("", ""),
        other => panic!("no seeds for {other}"),
    };
    let folders = if folder.is_empty() {
        vec![fixtures.join("config")]
    } else {
        BUILDS.map(|build| crate::recordings::folder(build).join(folder)).into()
    };
    let mut paths: Vec<_> =
        folders.iter().flat_map(|f| std::fs::read_dir(f).unwrap()).map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    paths.retain(|path| target != "configuration" || path.extension().is_some_and(|kind| kind == "toml"));
    paths.sort();
    let mut seeds: Vec<Vec<u8>> = paths.iter().map(|path| body(&std::fs::read(path).unwrap())).collect();
    if target == "actions_service_json" {
        let texts = [
            r#"{"count":2,"value":[{"id":1,"name":"a","statistics":{"totalAssignedJobs":3}},{"id":2}]}"#,
            r#"{"sessionId":"c10668f2-3a2d-4650-8fa4-df61eabe420b","ownerName":"medic","runnerScaleSet":{"id":7},
                "messageQueueUrl":"http://q"}"#,
            r#"{"typeName":"GitHub.Actions.Runtime.WebApi.RunnerScaleSetSessionConflictException, X",
                "message":"already has an active session for owner garm-1."}"#,
        ];
        seeds.extend(texts.map(|text| text.as_bytes().to_vec()));
    }
    assert!(seeds.len() >= 3, "{target}");
    seeds
}

/// Of a recorded exchange, what the server answered.
fn body(recorded: &[u8]) -> Vec<u8> {
    let exchange = serde_json::from_slice::<serde_json::Value>(recorded).unwrap_or_default();
    exchange.get("response").map_or_else(|| recorded.to_vec(), |response| response["body"].to_string().into_bytes())
}

fn run(target: &str) {
    let property = properties::ALL.iter().find(|(name, _)| *name == target).unwrap().1;
    let seeds = seeds(target);
    for seed in &seeds {
        property(seed);
    }
    let case = (any::<Index>(), any::<Index>(), any::<Index>(), proptest::collection::vec(mutation(), 0..6));
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let (begun, ran) = (Instant::now(), Cell::new(0_u32));
    let piece = |seed: Index, from: Index| {
        let seed = &seeds[seed.index(seeds.len())];
        let from = if seed.len() > SEED_MAX { from.index(seed.len() - SEED_MAX) } else { 0 };
        &seed[from..seed.len().min(from + SEED_MAX)]
    };
    let outcome = runner.run(&case, |(seed, other, from, mutations)| {
        if begun.elapsed() > TIME && ran.get() >= CASES_LEAST {
            return Ok(());
        }
        ran.set(ran.get() + 1);
        let mut bytes = piece(seed, from).to_vec();
        for mutation in mutations {
            mutate(&mut bytes, piece(other, from), mutation);
        }
        property(&bytes);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{target}: {error}"));
    assert!(ran.get() >= CASES_LEAST, "{target}: {} cases", ran.get());
}

#[test]
fn scripted_servers_reach_every_parser() {
    let sets = |answers: servers::Answers<_>| answers.sets.map(|sets: Vec<medic_core::model::ScaleSet>| sets.len());
    let lists = seeds("garm_json");
    assert!(lists.iter().any(|seed| sets(servers::ask_garm(seed)) == Some(4)), "no list of four sets was taken");
    assert!(!servers::ask_garm(b"{").failures.is_empty());
    let answers: Vec<_> = seeds("actions_service_json").iter().map(|seed| servers::ask_github(seed)).collect();
    assert!(answers.iter().any(|answer| answer.sets.as_ref().is_some_and(|sets| sets.len() == 2)));
    assert!(answers.iter().any(|answer| answer.session.is_some()));
}

macro_rules! bounded_runs {
    ($($target:ident)*) => { $(#[test] fn $target() { run(stringify!($target)); })* };
}

bounded_runs! { log_line log_tail metrics_text goroutines garm_json actions_service_json configuration }
