//! The status page: one self-contained document, readable without scripts, rendered from the same data as the JSON.

use crate::model::status::{ManagerStatus, SetStatus, SourceState, Status};
use crate::model::{Decision, Wall};
use std::fmt::Write as _;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--ok:#197a3d;--bad:#b3261e;--odd:#8a5a00}\
@media(prefers-color-scheme:dark){:root{--ok:#6fd08c;--bad:#ff8a80;--odd:#ffc46b}}\
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:72rem;padding:1rem}\
h1{font-size:1.4rem}h2{font-size:1.15rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid var(--line)}\
.ok{color:var(--ok)}.bad{color:var(--bad);font-weight:600}.odd{color:var(--odd);font-weight:600}\
.scroll{overflow-x:auto}ul{margin:.2rem 0;padding-left:1.2rem}small{opacity:.8}";

/// Renders the page; `None` before the first pass.
#[must_use]
pub fn render(status: Option<&Status>, now: Wall) -> String {
    let mut page = String::with_capacity(8 * 1024);
    page.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    page.push_str("<meta http-equiv=\"refresh\" content=\"5\"><title>scaleset-medic</title><style>");
    page.push_str(STYLE);
    page.push_str("</style></head><body><main><h1>scaleset-medic</h1>");
    match status {
        None => page.push_str("<p>The first look at the managers is not done yet.</p>"),
        Some(status) => {
            let _ = write!(
                page,
                "<p>Mode <strong>{}</strong>, version {}, seen at {} UTC.</p>",
                escape(&status.mode),
                escape(&status.version),
                status.at
            );
            for manager in &status.managers {
                show_manager(&mut page, manager, now);
            }
        }
    }
    page.push_str("</main></body></html>");
    page
}

fn show_manager(page: &mut String, manager: &ManagerStatus, now: Wall) {
    let _ = write!(page, "<section><h2>{}: {}</h2>", escape(manager.name.as_str()), manager.state);
    if let Some(incident) = &manager.incident {
        let _ = write!(page, "<p role=\"status\" class=\"bad\">{}</p>", escape(incident));
    }
    if let Some(why) = &manager.breaker_open {
        let _ = write!(page, "<p class=\"bad\">Healing is stopped, the breaker is open: {}</p>", escape(why));
    }
    page.push_str("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Scale sets\"><table><thead><tr><th scope=\"col\">Scale set<th scope=\"col\">Diagnosis<th scope=\"col\">Since<th scope=\"col\">Evidence<th scope=\"col\">What is done<th scope=\"col\">Last treatments</tr></thead><tbody>");
    for set in &manager.sets {
        show_set(page, set, now);
    }
    page.push_str("</tbody></table></div><p>Sources: ");
    let mut first = true;
    for (source, state) in &manager.sources {
        let words = match state {
            SourceState::Up => format!("{source} <span class=\"ok\">up</span>"),
            SourceState::Down { why } => format!("{source} <span class=\"bad\">down</span> ({})", escape(why)),
            SourceState::NotConfigured { would_show } => {
                format!("{source} not configured (would show {})", escape(would_show))
            }
        };
        let _ = write!(page, "{}{words}", if first { "" } else { "; " });
        first = false;
    }
    page.push_str(".</p></section>");
}

fn show_set(page: &mut String, set: &SetStatus, now: Wall) {
    let finding = &set.finding;
    let class = if finding.diagnosis.is_ill() {
        "bad"
    } else if set.is_healthy() {
        "ok"
    } else {
        "odd"
    };
    let entity =
        set.entity.as_ref().map_or_else(String::new, |e| format!("<br><small>{}</small>", escape(&e.to_string())));
    let _ = write!(
        page,
        "<tr><th scope=\"row\">{} <small>#{}</small>{entity}</th><td class=\"{class}\">{}<br><small>{}</small></td><td>{} <small>({})</small></td><td><ul>",
        escape(&set.name),
        set.id,
        finding.diagnosis,
        finding.confidence,
        finding.since,
        now.since(finding.since)
    );
    for evidence in finding.evidence.iter().take(6) {
        let _ = write!(page, "<li>{} <small>{}</small></li>", escape(&format!("{:?}", evidence.fact)), evidence.source);
    }
    let _ = write!(page, "</ul></td><td>{}</td><td><ul>", escape(&decision_words(&set.decision)));
    for treatment in set.treatments.iter().take(3) {
        let _ =
            write!(page, "<li>{} {} {}</li>", treatment.opened, escape(&treatment.remedy), escape(&treatment.state));
    }
    page.push_str("</ul></td></tr>");
}

/// A decision in a sentence.
#[must_use]
pub fn decision_words(decision: &Decision) -> String {
    match decision {
        Decision::Leave => "nothing to do".to_owned(),
        Decision::Watch { waiting, until } => match until {
            Some(until) => format!("waits ({waiting}) until {until}"),
            None => format!("waits ({waiting})"),
        },
        Decision::Escalate { escalation } => format!("a person is needed: {}", escalation.as_str()),
        Decision::Withhold { remedy, guards } => {
            let mut words = format!("{} is held back by ", remedy.kind());
            for (index, held) in guards.iter().enumerate() {
                let until = held.until.map_or_else(String::new, |until| format!(", until {until}"));
                let _ = write!(
                    words,
                    "{}{} ({}, limit {}{until})",
                    if index == 0 { "" } else { "; " },
                    held.guard,
                    held.value,
                    held.limit
                );
            }
            words
        }
        Decision::Act { remedy, canary } => {
            format!("{}{}", remedy.kind(), if *canary { " (the first, alone)" } else { "" })
        }
        Decision::Treating { treatment } => format!("treatment {treatment} is under way"),
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_the_servers_cannot_inject_markup() {
        assert_eq!(escape("<script>\"&'"), "&lt;script&gt;&quot;&amp;&#39;");
    }
}
