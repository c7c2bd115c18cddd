//! `doctor`. It asks the sources itself, even where a medic runs: the running one may be what cannot see.

use super::args::Output;
use super::output::{data, one_line};
use super::{Failure, medic};
use crate::config::Config;
use crate::doctor::facts::Place;
use crate::doctor::gather::gather;
use crate::doctor::{Finding, Report, State, Subject, examine};
use crate::engine::assemble::real_carrier;
use crate::exit::ExitCode;
use crate::text::exit::meaning_for_doctor as meaning;
use crate::text::wrapped;
use medic_clock::SystemClock;
use medic_core::clock::Clock;
use std::fmt::Write as _;
use std::sync::Arc;

/// The version of the JSON document.
const SCHEMA: u32 = 1;
/// Prose is wrapped at this width, on any terminal and in a log.
const WIDTH: usize = 100;
/// Columns before the prose of a finding.
const INDENT: usize = 22;

pub(super) fn run(output: Output, config: &Config, color: bool) -> Result<ExitCode, Failure> {
    // Kubernetes sets this variable in every container.
    let place = std::env::var_os("KUBERNETES_SERVICE_HOST").map_or(Place::Elsewhere, |_| Place::Kubernetes);
    let gathered = medic::runtime()?.block_on(async {
        // Made within the runtime, whose clock it reads.
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        tokio::select! {
            facts = gather(config, &clock, place, &real_carrier) => Ok(facts),
            signal = medic::signal() => Err(signal),
        }
    })?;
    let facts = match gathered {
        Ok(facts) => facts?,
        Err(signal) => return Ok(signal),
    };
    let report = examine(&facts);
    match output {
        Output::Text => data(&text(&report, color))?,
        Output::Json => {
            let document = serde_json::json!({
                "schema": SCHEMA,
                "version": env!("CARGO_PKG_VERSION"),
                "at": facts.at,
                "exit_code": report.exit.code(),
                "meaning": meaning(report.exit),
                "findings": report.findings,
            });
            data(&format!("{document:#}\n"))?;
        }
    }
    Ok(report.exit)
}

fn text(report: &Report, color: bool) -> String {
    let mut out = String::new();
    let mut subject = None;
    for finding in &report.findings {
        if subject != Some(&finding.subject) {
            let gap = if subject.is_some() { "\n" } else { "" };
            let _ = writeln!(out, "{gap}{}", title(&finding.subject));
            subject = Some(&finding.subject);
        }
        show(&mut out, finding, color);
    }
    let count = |state| report.findings.iter().filter(|finding| finding.state == state).count();
    let (ok, warn) = (count(State::Ok), count(State::Warn));
    let (fail, unknown) = (count(State::Fail), count(State::Unknown));
    let exit = report.exit;
    let _ =
        writeln!(out, "\n{ok} ok, {warn} warn, {fail} fail, {unknown} unknown: {} ({})", meaning(exit), exit.code());
    out
}

fn title(subject: &Subject) -> String {
    match subject {
        Subject::Medic => "the medic".to_owned(),
        Subject::Manager(name) => format!("manager {name}"),
        Subject::Endpoint(name) => format!("endpoint {name}"),
    }
}

fn show(out: &mut String, finding: &Finding, color: bool) {
    let word = format!("{:<7}", finding.state.as_str().to_uppercase());
    let paint = match finding.state {
        State::Ok => "32",
        State::Warn => "33",
        State::Fail => "1;31",
        State::Unknown => "36",
    };
    let word = if color { format!("\u{1b}[{paint}m{word}\u{1b}[0m") } else { word };
    let _ = write!(out, "  {word}  {:<11}", finding.check);
    out.push_str(indented(&finding.seen).trim_start());
    if !finding.risk.is_empty() {
        out.push_str(&indented(&format!("risk: {}", finding.risk)));
    }
    for step in &finding.fix {
        out.push_str(&indented(&format!("do: {}", step.what)));
        for line in &step.lines {
            let _ = writeln!(out, "{:INDENT$}    {}", "", one_line(line));
        }
    }
}

/// Indented lines of at most [`WIDTH`] columns.
fn indented(prose: &str) -> String {
    let words: Vec<_> = prose.split_whitespace().map(one_line).collect();
    let lines = wrapped(&words.join(" "), WIDTH - INDENT);
    lines.iter().flat_map(|line| [" ".repeat(INDENT), line.clone(), "\n".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Check, Step};
    use medic_core::model::ManagerName;

    fn finding(state: State) -> Finding {
        Finding {
            check: Check::Log,
            subject: Subject::Manager(ManagerName::new("garm")),
            state,
            seen: "word ".repeat(40),
            risk: "it hides".to_owned(),
            fix: vec![Step { what: "put in".to_owned(), lines: vec!["log_level = \"debug\"".to_owned()] }],
        }
    }

    #[test]
    fn state_is_a_word_with_or_without_colour() {
        let report = Report { findings: vec![finding(State::Fail)], exit: ExitCode::Unhealthy };
        let plain = text(&report, false);
        assert!(plain.contains("FAIL") && !plain.contains('\u{1b}'), "{plain}");
        let coloured = text(&report, true);
        assert!(coloured.contains("FAIL") && coloured.contains("\u{1b}[1;31m"), "{coloured}");
    }

    #[test]
    fn prose_is_wrapped_and_lines_to_copy_are_not() {
        let report = Report { findings: vec![finding(State::Warn)], exit: ExitCode::Well };
        let shown = text(&report, false);
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
        assert!(shown.lines().any(|line| line.trim() == "log_level = \"debug\""), "{shown}");
        assert!(shown.contains("0 ok, 1 warn, 0 fail, 0 unknown"), "{shown}");
    }

    #[test]
    fn server_texts_cannot_control_the_terminal() {
        let seen = "GARM v1\u{1b}[2J\u{7}".to_owned();
        let report = Report { findings: vec![Finding { seen, ..finding(State::Ok) }], exit: ExitCode::Well };
        let shown = text(&report, false);
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    }
}
