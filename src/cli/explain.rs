//! `explain`.

use super::args::{ExplainArgs, Output};
use super::output::{data, diagnostic};
use super::picture::{By, entity, find, picture};
use super::{Failure, render};
use crate::config::Config;
use crate::exit::ExitCode;
use crate::export::words;
use crate::model::status::{SetStatus, SourceState, Status};
use crate::model::{Decision, ManagerName, Wall};
use std::fmt::Write as _;

/// Runs the command.
pub(super) fn run(args: &ExplainArgs, config: &Config) -> Result<ExitCode, Failure> {
    let (status, by) = picture(config)?;
    let (manager, set) = find(&status, &args.set.set, args.set.manager.as_deref())?;
    match args.output {
        Output::Text => data(&text(&status, manager, set))?,
        Output::Json => data(&(serde_json::to_string_pretty(set).map_err(Failure::internal)? + "\n"))?,
    }
    if by == By::Ourselves {
        diagnostic("no medic runs here; this is what one short look shows, and nothing was done\n");
    }
    Ok(ExitCode::Well)
}

fn text(status: &Status, manager: &ManagerName, set: &SetStatus) -> String {
    let now = status.at;
    let mut out = String::new();
    let forge_id = set.forge_id.map_or_else(|| "not created at GitHub".to_owned(), |id| format!("{id} at GitHub"));
    let _ = writeln!(out, "{} (id {} at {manager}, {forge_id}), of {}", set.name, set.id, entity(set));
    let finding = &set.finding;
    let _ = writeln!(
        out,
        "\nDiagnosis: {} ({}), for {}, {} sweeps in a row",
        finding.diagnosis,
        finding.confidence,
        now.since(finding.since),
        finding.seen
    );
    if let Some(ill_since) = finding.ill_since {
        let _ = writeln!(out, "Not well since {ill_since}, {} ago.", now.since(ill_since));
    }
    let _ = writeln!(out, "\nBecause:");
    for evidence in &finding.evidence {
        let _ = writeln!(out, "  {}", words::evidence(evidence));
    }
    let _ = writeln!(out, "\nDecision: {}", render::decision(set, now));
    if let Decision::Withhold { guards, .. } = &set.decision {
        for held in guards {
            let _ =
                writeln!(out, "  {}: {}; asks for {}{}", held.guard, held.value, held.limit, until(held.until, now));
        }
    }
    if !set.not_deleted.is_empty() {
        let _ = writeln!(out, "\nIts session is not deleted, because:");
        for reason in &set.not_deleted {
            let _ = writeln!(out, "  {reason}");
        }
    }
    let lifetimes = status.managers.iter().find(|m| m.name == *manager).and_then(|m| m.stale_lifetimes.as_deref());
    if let Some(lifetimes) = lifetimes {
        let _ = writeln!(out, "{lifetimes}.");
    }
    let _ = writeln!(out, "Treatments left in the window: {}", set.budget_remaining);
    if !set.treatments.is_empty() {
        let _ = writeln!(out, "\nTreatments, newest first:");
        for row in &set.treatments {
            let why = row.why.as_deref().unwrap_or_default();
            let _ = writeln!(out, "  {}  {}: {} {why}", row.opened, row.remedy, row.state);
        }
    }
    if let Some(manager) = status.managers.iter().find(|m| m.name == *manager) {
        let _ = writeln!(out, "\nSources:");
        for (source, state) in &manager.sources {
            let words = match state {
                SourceState::Up => "answers".to_owned(),
                SourceState::Down { why } => format!("does not answer: {why}"),
                SourceState::NotConfigured { would_show } => format!("not available; it would show {would_show}"),
            };
            let _ = writeln!(out, "  {:<16}  {words}", source.as_str());
        }
    }
    out
}

fn until(until: Option<Wall>, now: Wall) -> String {
    until.map_or_else(String::new, |at| format!("; passes at {at}, in {}", at.since(now)))
}
