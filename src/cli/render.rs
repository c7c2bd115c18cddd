//! Pictures as text for a terminal: what `once` and `status` print.

use crate::exit::ExitCode;
use crate::model::status::{ManagerStatus, SetStatus, SourceState};
use crate::model::{Decision, Diagnosis, Enablement, ManagerState, Remedy, Wall};
use crate::run::once::Summary;
use std::fmt::Write as _;

/// The text of a one-shot.
pub(super) fn summary(summary: &Summary, code: ExitCode, now: Wall) -> String {
    let mut out = String::new();
    for manager in &summary.managers {
        out.push_str(&manager_text(manager, now));
    }
    for (manager, treatment) in &summary.closed {
        let outcome = treatment.outcome().map_or("open", |outcome| outcome.as_str());
        let why = treatment.why().unwrap_or_default();
        let _ = writeln!(out, "{manager}: {} of {}: {outcome}: {why}", treatment.remedy.kind(), treatment.name);
    }
    let _ = writeln!(out, "{} ({})", code.meaning(), code.code());
    out
}

/// One manager: a headline, the incident if there is one, what cannot be seen, and a table of its sets.
pub(super) fn manager_text(manager: &ManagerStatus, now: Wall) -> String {
    let mut out = format!("{}: {}", manager.name, manager.state);
    if let Some(incarnation) = manager.incarnation {
        let _ = write!(out, ", up for {}", now.since(incarnation.0));
    }
    out.push('\n');
    if let Some(incident) = &manager.incident {
        let _ = writeln!(out, "  {incident}");
    }
    if let Some(why) = &manager.breaker_open {
        let _ = writeln!(out, "  the circuit breaker is open: {why}");
    }
    for (source, state) in &manager.sources {
        if let SourceState::Down { why } = state {
            let _ = writeln!(out, "  {source} cannot be read: {why}");
        }
    }
    if matches!(manager.state, ManagerState::Up | ManagerState::Restarted) || !manager.sets.is_empty() {
        out.push_str(&table(&manager.sets, now));
    }
    out
}

fn table(sets: &[SetStatus], now: Wall) -> String {
    let mut rows = vec![["ID", "NAME", "ENTITY", "STATE", "SINCE", "WHAT IS DONE"].map(str::to_owned)];
    rows.extend(sets.iter().map(|set| {
        let mark = if set.is_healthy() { "" } else { "! " };
        let entity = set.entity.as_ref().map_or_else(String::new, |entity| entity.entity.name.clone());
        let sure = match set.finding.diagnosis {
            Diagnosis::Listening | Diagnosis::Disabled => String::new(),
            _ => format!(" ({})", set.finding.confidence),
        };
        [
            set.id.to_string(),
            set.name.clone(),
            entity,
            format!("{mark}{}{sure}", set.finding.diagnosis),
            now.since(set.finding.since).to_string(),
            decision(set),
        ]
    }));
    let mut widths = [0_usize; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "  {cell:<width$}");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A decision in a few words.
pub(super) fn decision(set: &SetStatus) -> String {
    match &set.decision {
        Decision::Leave if set.enabled == Enablement::Disabled => "left alone: disabled by a person".to_owned(),
        Decision::Leave => "nothing to do".to_owned(),
        Decision::Watch { waiting, until: Some(until) } => format!("waits: {waiting}, until {until}"),
        Decision::Watch { waiting, until: None } => format!("waits: {waiting}"),
        Decision::Escalate { escalation } => format!("needs a person: {}", escalation.as_str()),
        Decision::Withhold { remedy, guards } => {
            let guards: Vec<_> = guards.iter().map(|held| format!("{} ({})", held.guard, held.value)).collect();
            format!("{} withheld by {}", remedy_words(remedy), guards.join(", "))
        }
        Decision::Act { remedy, .. } => format!("{} begins", remedy_words(remedy)),
        Decision::Treating { treatment } => match set.treatments.iter().find(|row| row.id == *treatment) {
            Some(row) => format!("{} under way: {}", row.remedy, row.state),
            None => format!("treatment {treatment} under way"),
        },
    }
}

fn remedy_words(remedy: &Remedy) -> String {
    match remedy {
        Remedy::Toggle => "toggle".to_owned(),
        Remedy::DeleteSession { session } => format!("deletion of stale session {session}"),
        Remedy::DeleteThenToggle { session } => format!("deletion of stale session {session} and toggle"),
        Remedy::SessionProbe => "session probe".to_owned(),
    }
}
