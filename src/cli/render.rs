//! The status as text for a terminal: what `once` and `status` print.

use super::args::Color;
use super::output::one_line;
use crate::engine::once::Summary;
use crate::exit::ExitCode;
use crate::status::{ManagerStatus, SetStatus, SourceState};
use crate::text::{self, exit, guards, words, wrapped};
use medic_core::model::{Diagnosis, EndpointState, ManagerState, Wall};
use std::fmt::Write as _;
use std::io::IsTerminal;

/// Columns that the last column needs.
const LAST_COLUMN: usize = 28;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Style {
    pub color: bool,
    /// The terminal's columns; `None` in a pipe.
    pub width: Option<usize>,
}

impl Style {
    pub(super) fn of_stdout(color: Color) -> Self {
        let stdout = std::io::stdout();
        Self {
            color: uses_color(color, &stdout),
            width: terminal_size::terminal_size_of(&stdout).map(|(width, _)| usize::from(width.0)),
        }
    }

    fn paint(self, text: &str, diagnosis: Diagnosis) -> String {
        let color = match diagnosis {
            Diagnosis::Listening => "32",
            Diagnosis::Disabled => "2",
            _ if diagnosis.is_ill() => "31",
            _ => "33",
        };
        if self.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub(super) fn uses_color(color: Color, stream: &impl IsTerminal) -> bool {
    let variable = |name| std::env::var(name).ok();
    color.applies(stream.is_terminal(), variable("NO_COLOR").as_deref(), variable("TERM").as_deref())
}

pub(super) fn summary(summary: &Summary, code: ExitCode, now: Wall, style: Style) -> String {
    let mut out = String::new();
    for manager in &summary.managers {
        out.push_str(&manager_text(manager, now, style));
    }
    for (manager, treatment) in &summary.closed {
        let (remedy, name) = (treatment.remedy.kind(), one_line(&treatment.name));
        let _ = writeln!(out, "{manager}: {remedy} of {name}: {}", one_line(&text::treatment::end(treatment)));
    }
    let _ = writeln!(out, "{} ({})", exit::meaning(code), code.code());
    out
}

/// One manager: a headline, the incident if there is one, what cannot be seen, and a table of its sets.
pub(super) fn manager_text(manager: &ManagerStatus, now: Wall, style: Style) -> String {
    let mut out = format!("{}: {}", manager.name, words::manager_state(manager.state));
    let is_up = matches!(manager.state, ManagerState::Up | ManagerState::Restarted);
    if let Some(incarnation) = manager.incarnation.filter(|_| is_up) {
        let _ = write!(out, ", up for {}", now.since(incarnation.0));
    }
    out.push('\n');
    if let Some(incident) = &manager.incident {
        let _ = writeln!(out, "  {}", one_line(incident));
    }
    if let Some(again) = words::well_again(manager, |at| words::dated(at, now)) {
        let _ = writeln!(out, "  {again}");
    }
    if let Some(why) = &manager.breaker_open {
        let _ = writeln!(out, "  the circuit breaker is open: {}", one_line(why));
    }
    for pause in &manager.pauses {
        let _ = writeln!(out, "  {} ({})", one_line(&words::pause(pause, manager, now)), guards::how_to_end(pause));
    }
    for (endpoint, state) in manager.endpoints.iter().filter(|(_, state)| **state != EndpointState::Up) {
        let _ = writeln!(out, "  {} {}", one_line(endpoint.as_str()), words::endpoint_state(*state));
    }
    for (source, state) in &manager.sources {
        if let SourceState::Down { why } = state {
            let _ = writeln!(out, "  {source} cannot be read: {}", one_line(why));
        }
    }
    if is_up || !manager.sets.is_empty() {
        out.push_str(&table(&manager.sets, now, style));
    }
    out
}

fn table(sets: &[SetStatus], now: Wall, style: Style) -> String {
    let mut rows = vec![(["ID", "NAME", "ENTITY", "STATE", "FOR", "WHAT IS DONE"].map(str::to_owned), None)];
    rows.extend(sets.iter().map(|set| (cells(set, now), Some(set.finding.diagnosis))));
    let mut widths = [0_usize; 5];
    for (row, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let taken =
        |widths: [usize; 5]| widths.iter().filter(|width| **width > 0).map(|width| width + 2).sum::<usize>() + 2;
    let width_left = |widths| style.width.map(|width| width.saturating_sub(taken(widths)));
    // A narrow terminal hides the entity, then wraps the last column.
    if width_left(widths).is_some_and(|width| width < LAST_COLUMN) {
        widths[2] = 0;
    }
    let beside = width_left(widths).is_none_or(|width| width >= LAST_COLUMN);
    let mut out = String::new();
    for ([first @ .., last], diagnosis) in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in first.iter().zip(widths).enumerate().filter(|(_, (_, width))| *width > 0) {
            let cell = format!("{cell:<width$}");
            let cell =
                diagnosis.filter(|_| column == 3).map_or(cell.clone(), |diagnosis| style.paint(&cell, diagnosis));
            let _ = write!(line, "  {cell}");
        }
        let (indent, width) = match (beside, style.width) {
            (_, None) => (taken(widths), usize::MAX),
            (true, Some(width)) => (taken(widths), width.saturating_sub(taken(widths))),
            (false, Some(width)) => (6, width.saturating_sub(6)),
        };
        for (number, part) in wrapped(last, width.max(1)).iter().enumerate() {
            if number == 0 && beside {
                let _ = write!(line, "  {part}");
            } else {
                line.truncate(line.trim_end().len());
                let _ = write!(line, "\n{:indent$}{part}", "");
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn cells(set: &SetStatus, now: Wall) -> [String; 6] {
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
        action(set, now),
    ]
    .map(|cell| one_line(&cell))
}

/// What is done about a set, with brief guards.
pub(super) fn action(set: &SetStatus, now: Wall) -> String {
    match &set.left_disabled {
        Some(left) => format!("LEFT DISABLED: {}", words::left_disabled(left, now)),
        None => words::action(set, now, words::guard_briefly),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::testing;

    fn blocked_set() -> SetStatus {
        let guard = serde_json::json!({"guard": "backoff", "value": "2 min ago", "limit": "5 min", "until": null});
        let blocked = serde_json::json!({"decision": "blocked", "remedy": {"kind": "toggle"}, "guards": [guard]});
        SetStatus { name: "linux-large".to_owned(), ..testing::set("conflict_abandoned", &blocked) }
    }

    #[test]
    fn table_fits_its_terminal_and_loses_no_word() {
        let table = |width| table(&[blocked_set()], Wall(61_000), Style { color: false, width });
        let piped = table(None);
        assert_eq!(piped.lines().count(), 2, "one line per set for other programs:\n{piped}");
        let blocked = "toggle blocked by backoff: this set was treated too recently (2 min ago)";
        assert!(piped.contains("acme") && piped.contains(blocked), "{piped}");
        for width in [40, 60, 80, 100, 200] {
            let shown = table(Some(width));
            let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            for needed in ["linux-large", "! conflict_abandoned (strong)", "1 min 1 s", "backoff"] {
                assert!(words.contains(needed), "{width}: {needed}\n{shown}");
            }
            let longest = shown.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width.max(59)), "{width}:\n{shown}");
        }
        assert!(!table(Some(60)).contains("acme") && table(Some(200)).contains("acme"));
    }

    #[test]
    fn set_name_cannot_control_terminal_or_table() {
        let set = SetStatus { name: "a\u{1b}[2J\nb".to_owned(), ..blocked_set() };
        let shown = table(&[set], Wall(61_000), Style { color: true, width: None });
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(shown.contains("a\u{fffd}[2J b") && shown.contains("\u{1b}[31m"), "{shown:?}");
    }

    #[test]
    fn colour_only_adds_to_the_text() {
        let plain = Style::default();
        let coloured = Style { color: true, width: None };
        for diagnosis in Diagnosis::ALL {
            assert_eq!(plain.paint("! state", *diagnosis), "! state");
            assert!(coloured.paint("! state", *diagnosis).contains("m! state\x1b[0m"), "{diagnosis}");
        }
    }
}
