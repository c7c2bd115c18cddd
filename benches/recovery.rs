//! Time to recover after a manager's crash: from SIGKILL until every scale set listens again.
//!
//! Everything in one run, on the same simulated GARM and GitHub. The medic is the real one. Two modes:
//!
//! - `cargo bench --bench recovery` is in virtual time (a paused runtime: the servers' waits take no real time, and no
//!   figure depends on this machine). The medic is a task here: its clients, parsers, engine, service loop and store.
//! - `cargo bench --bench recovery -- sockets` is over real sockets by the real clock. The medic is the program, started
//!   with a configuration file and ended by SIGTERM; it reads the log file that GARM writes. This takes 20 minutes: 4
//!   and 50 sets are measured at the same time, then 500; "never" is what takes longer than a limit, which is said.
//!
//! Either prints the table, and whether the goals are met. `-- 4 50` takes only these numbers of sets, `-- 500 'pre-fix
//! GARM, ledger'` only the ways of such a name. `RECOVERY_POLICY` and `RECOVERY_PACE` are lines for `[policy]`, and for
//! the tables of GARM and GitHub, in place of the defaults: to see what a limit costs. `RECOVERY_REQUESTS=1` lists what
//! the medic asked, in virtual time. `-- growth 50` prints instead what a day of watching that many sets adds to the
//! medic's store, with no crash and with one.
#![expect(clippy::expect_used, clippy::panic, reason = "a bench that cannot go on has failed")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints, and tells whoever waits for it")]

#[path = "recovery/goals.rs"]
mod goals;
#[path = "recovery/in_virtual_time.rs"]
mod in_virtual_time;
#[path = "recovery/on_sockets.rs"]
mod on_sockets;
#[path = "recovery/script.rs"]
mod script;
#[path = "recovery/stage.rs"]
mod stage;
#[path = "recovery/ways.rs"]
mod ways;

use goals::{Row, judged, never};
use medic_core::model::Span;
use std::time::Instant;
use ways::{DOWN, Outcome, STALE, WAYS, Way};

/// With more sets than this, a size is measured by itself: its worlds have something to do.
const LARGE: u32 = 100;

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags of their own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let (numbers, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.parse::<u32>().is_ok());
    let asked: Vec<u32> = numbers.iter().filter_map(|word| word.parse().ok()).collect();
    if words.iter().any(|word| word == "growth") {
        in_virtual_time::growth(asked.first().copied().unwrap_or(50));
        return;
    }
    let (modes, names): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word == "sockets");
    let sizes = if asked.is_empty() { vec![4, 50, 500] } else { asked };
    let named = |way: &&Way| names.is_empty() || names.iter().any(|name| way.name.contains(name.as_str()));
    let ways: Vec<&'static Way> = WAYS.iter().filter(named).collect();
    println!(
        "From SIGKILL until all sets listen again; GARM starts again after {DOWN}; GitHub keeps stale sessions {STALE}."
    );
    if modes.is_empty() {
        virtual_time(&sizes, &ways);
    } else {
        sockets(&sizes, &ways);
    }
}

fn virtual_time(sizes: &[u32], ways: &[&'static Way]) {
    let patience = |_| in_virtual_time::LOOKS.patience;
    let mut rows = Vec::new();
    for &sets in sizes {
        head(sets);
        for &way in ways {
            let began = Instant::now();
            let outcome = in_virtual_time::measure(way, sets);
            line(way, &outcome, patience(sets));
            if std::env::var_os("RECOVERY_REQUESTS").is_some() {
                for (kind, count) in &outcome.requests {
                    println!("{count:7} {kind}");
                }
            }
            if began.elapsed().as_secs() > 60 {
                eprintln!("({} took {:.0} s of real time)", way.name, began.elapsed().as_secs_f64());
            }
            rows.push(Row { way, sets, outcome });
        }
    }
    tell_goals(&rows, patience);
}

fn sockets(sizes: &[u32], ways: &[&'static Way]) {
    let patience = |sets| on_sockets::looks(sets).patience;
    let (large, small): (Vec<u32>, Vec<u32>) = sizes.iter().partition(|sets| **sets > LARGE);
    let groups = std::iter::once(small).chain(large.into_iter().map(|sets| vec![sets]));
    let mut rows = Vec::new();
    for sizes in groups.filter(|sizes| !sizes.is_empty()) {
        let group: Vec<_> = sizes.iter().flat_map(|sets| ways.iter().map(|way| (*way, *sets))).collect();
        eprintln!("({} worlds at the same time, of {sizes:?} sets)", group.len());
        let (began, load) = (Instant::now(), on_sockets::Load::now());
        let outcomes = on_sockets::measure(&group);
        let busy = load.and_then(|load| load.since()).map_or_else(|| "?".to_owned(), |busy| busy.to_string());
        let late = outcomes.iter().map(|outcome| outcome.late).max().unwrap_or_default();
        let of_group: Vec<_> =
            group.into_iter().zip(outcomes).map(|((way, sets), outcome)| Row { way, sets, outcome }).collect();
        for sets in sizes {
            head(sets);
            for row in of_group.iter().filter(|row| row.sets == sets) {
                line(row.way, &row.outcome, patience(sets));
            }
        }
        println!(
            "\n{} worlds at the same time for {:.0} s; the machine's cores were {busy} % busy; of the looks every 100 ms \
             the latest was {} ms late",
            of_group.len(),
            began.elapsed().as_secs_f64(),
            late.as_millis()
        );
        rows.extend(of_group);
    }
    tell_goals(&rows, patience);
}

fn head(sets: u32) {
    println!("\n{sets} scale sets\n\n| way | first | half | all | of the stale lifetime | PUTs | GARM crashes |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
}

fn line(way: &Way, outcome: &Outcome, patience: Span) {
    let seconds = |span: Span| format!("{:.1} s", span.as_secs_f64());
    let [first, half, all] = outcome.listening.map(|span| span.map_or_else(|| never(patience), seconds));
    let of_stale = |span: Span| format!("{:.2}", span.as_secs_f64() / STALE.as_secs_f64());
    let ratio = outcome.listening[2].map_or_else(|| "\u{2013}".to_owned(), of_stale);
    println!("| {} | {first} | {half} | {all} | {ratio} | {} | {} |", way.name, outcome.writes, outcome.crashes);
}

fn tell_goals(rows: &[Row], patience: impl Fn(u32) -> Span) {
    println!("\nGoals, by unrounded times; the sets were looked at every 100 ms:\n");
    for told in judged(rows, patience) {
        println!("- {told}");
    }
}
