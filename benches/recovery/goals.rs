//! The goals: with a ledger under a tenth of the stale lifetime at 4 sets, under a third of it at 50, and never later
//! than what there is without one. Judged by what was measured, not by what is printed.

use super::ways::{Outcome, STALE, Way};
use medic_core::model::Span;

/// A way, at a size, and what came of it.
pub(crate) struct Row {
    pub(crate) way: &'static Way,
    pub(crate) sets: u32,
    pub(crate) outcome: Outcome,
}

impl Row {
    fn all(&self) -> Option<Span> {
        self.outcome.listening[2]
    }
}

/// A line for each goal of each row with a ledger.
pub(crate) fn judged(rows: &[Row], patience: impl Fn(u32) -> Span) -> Vec<String> {
    let with_ledger = rows.iter().filter(|row| row.way.healer.has_ledger());
    with_ledger
        .flat_map(|row| {
            let limit = patience(row.sets);
            let goals = [bound(row.sets).map(|bound| below(row, bound, limit)), no_later(row, rows, limit)];
            goals.into_iter().flatten().map(|told| format!("{} sets, {}: {told}", row.sets, row.way.name))
        })
        .collect()
}

/// Less than this, where the goal names a bound.
fn bound(sets: u32) -> Option<Span> {
    match sets {
        4 => Some(Span::millis(STALE.as_millis() / 10)),
        50 => Some(Span::millis(STALE.as_millis() / 3)),
        _ => None,
    }
}

fn below(row: &Row, bound: Span, limit: Span) -> String {
    let met = row.all().is_some_and(|all| all < bound);
    format!("{}: {}, under {} wanted", word(met), exact(row.all(), limit), exact(Some(bound), limit))
}

/// Compared with the soonest of all ways without a ledger of the same size and run.
fn no_later(row: &Row, rows: &[Row], limit: Span) -> Option<String> {
    let others = rows.iter().filter(|other| other.sets == row.sets && !other.way.healer.has_ledger());
    let soonest = others.min_by_key(|other| other.all().unwrap_or(Span::hours(1000)))?;
    let met = match (row.all(), soonest.all()) {
        (Some(own), Some(other)) => own <= other,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let (own, other) = (exact(row.all(), limit), exact(soonest.all(), limit));
    Some(format!("{}: {own}, not later than any without a ledger wanted: {other} ({})", word(met), soonest.way.name))
}

const fn word(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn exact(span: Option<Span>, limit: Span) -> String {
    span.map_or_else(|| never(limit), |span| format!("{:.3} s", span.as_secs_f64()))
}

/// Not within what was waited for.
pub(crate) fn never(limit: Span) -> String {
    format!("not within {} min", limit.as_millis() / 60_000)
}
