//! `explain`.

use super::args::{ExplainArgs, Output};
use super::output::{data, diagnostic, one_line, prose};
use super::picture::{By, entity, find, picture};
use super::{Failure, history, render};
use crate::config::Config;
use crate::exit::ExitCode;
use crate::status::{ManagerStatus, Restart, SetStatus, SourceState, Status, TreatmentSummary};
use crate::text::{rules, words};
use medic_core::model::{Decision, Guard, ManagerName, Span, Wall};
use std::fmt::Write as _;

/// How long before the present state began its past is told.
const BEFORE: Span = Span::mins(10);

pub(super) fn run(args: &ExplainArgs, config: &Config) -> Result<ExitCode, Failure> {
    let (status, by) = picture(config)?;
    let (manager, set) = find(&status, &args.set.set, args.set.manager.as_deref())?;
    match args.output {
        Output::Text => {
            let since = set.finding.ill_since.unwrap_or(set.finding.since).minus(BEFORE);
            let past = history::of_set(config, manager, set.id, since);
            prose(&text(&status, manager, set, past))?;
        }
        Output::Json => data(&(serde_json::to_string_pretty(set).map_err(Failure::internal)? + "\n"))?,
    }
    if by == By::Ourselves {
        diagnostic("no medic runs here; this is what one short look shows, and nothing was done\n");
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
        let _ = writeln!(out, "Not well since {}.", words::dated(ill_since, now));
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
    let _ = writeln!(out, "\nDecision: {}", one_line(&decision(set, now)));
    guards(&mut out, set, now);
    let _ = writeln!(out, "Next: {}", rules::next(set, now));
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
    let lifetimes = status.managers.iter().find(|m| m.name == *manager).and_then(|m| m.stale_lifetimes.as_deref());
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
    if let Some(manager) = status.managers.iter().find(|m| m.name == *manager) {
        let _ = writeln!(out, "\nSources:");
        for (source, state) in &manager.sources {
            let words = match state {
                SourceState::Up => "answers".to_owned(),
                SourceState::Down { why } => format!("does not answer: {}", one_line(why)),
                SourceState::NotConfigured { would_show } => format!("not available; it would show {would_show}"),
            };
            let _ = writeln!(out, "  {:<16}  {words}", source.as_str());
        }
    }
    out
}

/// The decision, with its guards by name: what they say follows.
fn decision(set: &SetStatus, now: Wall) -> String {
    match &set.decision {
        Decision::Blocked { remedy, guards } => {
            let names: Vec<_> = guards.iter().map(|held| held.guard.as_str()).collect();
            format!("{} withheld by {}", words::remedy_name(remedy), names.join(", "))
        }
        Decision::Leave
        | Decision::Watch { .. }
        | Decision::Escalate { .. }
        | Decision::Treat { .. }
        | Decision::Treating { .. } => render::decision(set, now),
    }
}

/// Every guard: those that hold, with what they see and ask for, and those that let it pass.
fn guards(out: &mut String, set: &SetStatus, now: Wall) {
    if let Decision::Blocked { guards, .. } = &set.decision {
        for held in guards {
            let _ = writeln!(out, "  {}", one_line(&words::held(held, Some(now))));
        }
    }
    let passed: Vec<_> = rules::passed(&set.decision).into_iter().map(Guard::as_str).collect();
    if matches!(set.decision, Decision::Treating { .. }) {
        let _ = writeln!(out, "  the guards have let it pass");
    } else if passed.is_empty() {
        let _ = writeln!(out, "  no remedy is proposed now, so no guard is asked");
    } else {
        let _ = writeln!(out, "  these guards let it pass: {}", passed.join(", "));
    }
}

/// What is known to have happened, the oldest first: the evidence by its own dates, the manager's restart, and what was
/// recorded.
fn timeline(manager: Option<&ManagerStatus>, set: &SetStatus, past: Vec<(Wall, String)>) -> Vec<(Wall, String)> {
    let finding = &set.finding;
    let evidence = finding
        .evidence
        .iter()
        .map(|evidence| (evidence.at, format!("{}: {}", words::source(evidence.source), words::fact(&evidence.fact))));
    let mut told: Vec<_> = evidence.chain(past).collect();
    told.push((finding.since, format!("found {} from here on", finding.diagnosis)));
    told.extend(finding.ill_since.map(|at| (at, "not well from here on".to_owned())));
    if let Some(Restart { kind, at }) = manager.and_then(|manager| manager.restart) {
        told.push((at, format!("the manager started anew, {}", words::restart(kind))));
    }
    let treatment =
        |row: &TreatmentSummary| (row.opened, format!("{} ({}) began", words::treatment(row.id), row.remedy));
    told.extend(set.treatments.iter().map(treatment));
    told.sort();
    told.dedup();
    told
}
