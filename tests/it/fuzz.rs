//! The properties of the fuzz targets (`fuzz/`), in a bounded run: recordings, and recordings mutated.

#[expect(unreachable_pub, reason = "the fuzz targets, another crate, include the file too")]
mod properties;
#[expect(unreachable_pub, reason = "the fuzz targets, another crate, include the file too")]
mod servers;

use crate::recordings::BUILDS;
use proptest::prelude::*;
use proptest::sample::Index;
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

#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Cut(Index, Index),
    Keep(Index),
    Double(Index, Index),
    Splice(Index, Index, Index),
    Insert(Index, Vec<u8>),
    Number(Index, String),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || any::<Index>();
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (at(), at()).prop_map(|(from, to)| Mutation::Cut(from, to)),
        at().prop_map(Mutation::Keep),
        (at(), at()).prop_map(|(from, to)| Mutation::Double(from, to)),
        (at(), at(), at()).prop_map(|(at, from, to)| Mutation::Splice(at, from, to)),
        (at(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (at(), prop_oneof!["-1", "0", "1e400", "NaN", "18446744073709551616", "null", "\"\"", "\\[\\]"])
            .prop_map(|(at, text)| Mutation::Number(at, text)),
    ]
}

fn range(bytes: &[u8], from: Index, to: Index) -> std::ops::Range<usize> {
    let (a, b) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
    a.min(b)..a.max(b)
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], mutation: Mutation) {
    match mutation {
        Mutation::Flip(at, bits) => {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
        }
        Mutation::Cut(from, to) => drop(bytes.drain(range(bytes, from, to))),
        Mutation::Keep(end) => bytes.truncate(end.index(bytes.len() + 1)),
        Mutation::Double(from, to) => {
            let range = range(bytes, from, to);
            let part = bytes[range.clone()].to_vec();
            bytes.splice(range.end..range.end, part);
        }
        Mutation::Splice(at, from, to) => {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, other[range(other, from, to)].iter().copied());
        }
        Mutation::Insert(at, part) => {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, part);
        }
        Mutation::Number(at, text) => {
            // The first number from there on.
            let from = at.index(bytes.len() + 1);
            let digit = bytes[from..].iter().position(u8::is_ascii_digit).map(|at| from + at);
            if let Some(start) = digit {
                let end = bytes[start..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |at| start + at);
                bytes.splice(start..end, text.into_bytes());
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
        seeds.push(
            br#"{"count":2,"value":[{"id":1,"name":"a","statistics":{"totalAssignedJobs":3}},{"id":2}]}"#.to_vec(),
        );
        seeds.push(br#"{"sessionId":"c10668f2-3a2d-4650-8fa4-df61eabe420b","ownerName":"medic","runnerScaleSet":{"id":7},"messageQueueUrl":"http://q"}"#.to_vec());
        seeds.push(br#"{"typeName":"GitHub.Actions.Runtime.WebApi.RunnerScaleSetSessionConflictException, X","message":"already has an active session for owner garm-1."}"#.to_vec());
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
    let outcome = runner.run(&case, |(seed, other, from, mutations)| {
        if begun.elapsed() > TIME && ran.get() >= CASES_LEAST {
            return Ok(());
        }
        ran.set(ran.get() + 1);
        let mut bytes = piece(&seeds[seed.index(seeds.len())], from).to_vec();
        let other = piece(&seeds[other.index(seeds.len())], from);
        for mutation in mutations {
            mutate(&mut bytes, other, mutation);
        }
        property(&bytes);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{target}: {error}"));
    assert!(ran.get() >= CASES_LEAST, "{target}: {} cases", ran.get());
}

fn piece(seed: &[u8], from: Index) -> &[u8] {
    let from = if seed.len() > SEED_MAX { from.index(seed.len() - SEED_MAX) } else { 0 };
    &seed[from..seed.len().min(from + SEED_MAX)]
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
