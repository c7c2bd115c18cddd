//! `explain`.

use super::args::{ExplainArgs, Output};
use super::output::{data, diagnostic, one_line, prose};
use super::picture::{entity, find, picture};
use super::{Failure, history};
use crate::config::Config;
use crate::exit::ExitCode;
use crate::status::{ManagerStatus, Restart, SetStatus, SourceState, Status, TreatmentSummary};
use crate::text::{rules, sources, words};
use medic_core::model::{Decision, Guard, ManagerName, Span, Wall};
use std::fmt::Write as _;

/// How much history before the present state is shown.
const BEFORE: Span = Span::mins(10);

pub(super) fn run(args: &ExplainArgs, config: &Config) -> Result<ExitCode, Failure> {
    let (status, remark) = picture(config)?;
    let (manager, set) = find(&status, &args.set.set, args.set.manager.as_deref())?;
    match args.output {
        Output::Text => {
            let since = set.finding.ill_since.unwrap_or(set.finding.since).minus(BEFORE);
            let past = history::of_set(config, manager, set.id, since);
            prose(&text(&status, manager, set, past))?;
        }
        Output::Json => data(&(serde_json::to_string_pretty(set).map_err(Failure::internal)? + "\n"))?,
    }
    if let Some(remark) = remark {
        diagnostic(remark);
    }
    Ok(ExitCode::Well)
}

fn text(status: &Status, manager: &ManagerName, set: &SetStatus, past: Vec<(Wall, String)>) -> String {
    let shown = status.managers.iter().find(|shown| shown.name == *manager);
    let now = status.at;
    let mut out = String::new();
    let github_id = set.github_id.map_or_else(|| "not created at GitHub".to_owned(), |id| format!("{id} at GitHub"));
    let _ = writeln!(
        out,
        "{} (id {} at {manager}, {github_id}), of {}",
        one_line(&set.name),
        set.id,
        one_line(&entity(set))
    );
    let finding = &set.finding;
    let _ = writeln!(
        out,
        "\nDiagnosis: {} ({}), since {}, {}; times are UTC",
        finding.diagnosis,
        finding.confidence,
        words::dated(finding.since, now),
        if finding.seen == 1 { "seen in 1 sweep".to_owned() } else { format!("{} sweeps in a row", finding.seen) }
    );
    let _ = writeln!(out, "This means: {} ({}).", words::state(set), words::confidence(finding.confidence));
    if let Some(ill_since) = finding.ill_since {
        let _ = writeln!(out, "Unhealthy since {}.", words::dated(ill_since, now));
    }
    if let Some(again) = words::recovered(set, |at| words::dated(at, now)) {
        let _ = writeln!(out, "It is listening now; {again}.");
    }
    let _ = writeln!(out, "\nBecause:");
    for evidence in &finding.evidence {
        let _ = writeln!(out, "  {}", one_line(&words::evidence(evidence)));
    }
    if let Some(shown) = shown {
        let _ = writeln!(out, "\nRules, in their order; the first that answers decides:");
        for line in rules::rules(set, shown) {
            let _ = writeln!(out, "  {}", one_line(&line));
        }
    }
    let _ = writeln!(out, "\nTimeline:");
    for (at, what) in timeline(shown, set, past) {
        let _ = writeln!(out, "  {}  {}", at.near(now), one_line(&what));
    }
    let _ = writeln!(out, "\nDecision: {}", one_line(&words::action(set, now, |held| held.guard.to_string())));
    guards(&mut out, set, now);
    if let Some(left) = &set.left_disabled {
        let _ = writeln!(
            out,
            "By hand: garm-cli scaleset update {} --enabled=true; {}",
            set.id,
            words::left_disabled(left, now)
        );
    }
    if !set.not_deleted.is_empty() {
        let _ = writeln!(out, "\nIts session is not deleted, because:");
        for reason in &set.not_deleted {
            let _ = writeln!(out, "  {reason}");
        }
    }
    let lifetimes = shown.and_then(|shown| shown.stale_lifetimes.as_deref());
    if let Some(lasts) = words::stale_lasts(set, lifetimes) {
        let _ = writeln!(out, "{lasts}.");
    }
    let _ = writeln!(out, "Limit: {}", words::budget(set));
    if !set.treatments.is_empty() {
        let _ = writeln!(out, "\nTreatments, newest first:");
        for row in &set.treatments {
            let why = row.why.as_ref().map_or_else(String::new, |why| format!(": {}", one_line(why)));
            let state = words::progress(row, now);
            let _ = writeln!(out, "  {}  {} #{}: {state}{why}", row.opened.near(now), row.remedy, row.id);
        }
    }
    if let Some(shown) = shown {
        let _ = writeln!(out, "\nSources:");
        for (source, state) in &shown.sources {
            let words = match state {
                SourceState::Up => "answers".to_owned(),
                SourceState::Down { why } => format!("does not answer: {}", one_line(why)),
                SourceState::NotConfigured { would_show } => format!("not configured; it would show {would_show}"),
            };
            let _ = writeln!(out, "  {:<16}  {words}", source.as_str());
        }
    }
    out
}

/// Every guard: those that block, with value and limit, and those that do not; then when the remedy comes.
fn guards(out: &mut String, set: &SetStatus, now: Wall) {
    let blocking: &[_] = if let Decision::Blocked { guards, .. } = &set.decision { guards } else { &[] };
    for held in blocking {
        let _ = writeln!(out, "  {}", one_line(&words::guard_in_full(held, now)));
    }
    let passed: Vec<_> = rules::passed(&set.decision).into_iter().map(Guard::as_str).collect();
    if matches!(set.decision, Decision::Treating { .. }) {
        let _ = writeln!(out, "  no guard blocks it");
    } else if passed.is_empty() {
        let _ = writeln!(out, "  no remedy is proposed now, so no guard is asked");
    } else {
        let _ = writeln!(out, "  these guards do not block: {}", passed.join(", "));
    }
    if let Decision::Blocked { remedy, guards } = &set.decision {
        let _ = writeln!(out, "Next: {}", rules::next(remedy, guards, now));
    }
}

/// Evidence, GARM's restart and recorded events, oldest first.
fn timeline(manager: Option<&ManagerStatus>, set: &SetStatus, past: Vec<(Wall, String)>) -> Vec<(Wall, String)> {
    let finding = &set.finding;
    let evidence = finding.evidence.iter().map(|evidence| {
        (evidence.at, format!("{}: {}", sources::text(evidence.source).name, words::fact(&evidence.fact)))
    });
    let mut events: Vec<_> = evidence.chain(past).collect();
    events.push((finding.since, format!("{} from here on", finding.diagnosis)));
    events.extend(finding.ill_since.map(|at| (at, "unhealthy from here on".to_owned())));
    if let Some(Restart { kind, at }) = manager.and_then(|manager| manager.restart) {
        events.push((at, format!("GARM restarted, {}", words::restart(kind))));
    }
    let treatment =
        |row: &TreatmentSummary| (row.opened, format!("{} ({}) began", words::treatment(row.id), row.remedy));
    events.extend(set.treatments.iter().map(treatment));
    events.sort();
    events.dedup();
    events
}
