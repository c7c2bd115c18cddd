//! The status page: one self-contained document, rendered from the same data as the JSON.
//!
//! The page needs no script; the script only replaces its content, so that scrolling, focus and opened parts stay.
//! Names and texts come from other servers: every one is escaped. No meaning is in a colour alone. Unhealthy sets come
//! first, and the rows are limited. The security policy allows the style and the script by their hashes, and nothing
//! else.

use crate::status::{ManagerStatus, Restart, SetStatus, SourceState, Status, TreatmentSummary};
use crate::text::{guards, sources, words};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use medic_core::model::{Class, Decision, Diagnosis, Enablement, EndpointState, ManagerState, Source, Wall};
use medic_core::policy::Mode;
use std::fmt::Write as _;
use std::sync::LazyLock;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Rows of healthy sets, per manager.
const HEALTHY_ROWS: usize = 200;
/// Rows of all sets, per manager.
const ALL_ROWS: usize = 1000;
/// Pieces of evidence shown per set.
const EVIDENCE: usize = 6;
/// Treatments shown per set.
const TREATMENTS: usize = 3;

pub fn security_policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let hash = |text: &str| STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
    });
    POLICY.clone()
}

/// Renders the page; `None` before the first sweep has ended.
pub fn render(status: Option<&Status>, now: Wall) -> String {
    let verdict = status.map_or_else(|| "The first sweep has not ended yet".to_owned(), words::verdict);
    let mut page = String::with_capacity(16 * 1024);
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    page.push_str("<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n");
    let _ = writeln!(page, "<title>{} · scaleset-medic</title>", escape(&verdict));
    let _ = writeln!(page, "<style>{STYLE}</style>\n</head>\n<body>");
    page.push_str("<a class=\"skip\" href=\"#main\">Skip to the scale sets</a>\n");
    page.push_str("<p id=\"say\" class=\"quiet\" role=\"status\"></p>\n<div id=\"live\">\n");
    let _ = writeln!(
        page,
        "<header>\n<h1>scaleset-medic</h1>\n<p class=\"verdict\" id=\"verdict\">{}.</p>",
        escape(&verdict)
    );
    if let Some(status) = status {
        let mode = if status.mode == Mode::Heal { "heals" } else { "only observes and shows what it would do" };
        let _ = writeln!(
            page,
            "<p class=\"meta\">Mode <strong>{}</strong>: it {mode}. Version {}. Swept at {}; all times are UTC.</p>",
            status.mode,
            escape(&status.version),
            date(status.at, now)
        );
    }
    page.push_str("</header>\n<main id=\"main\" tabindex=\"-1\">\n");
    for (index, manager) in status.iter().flat_map(|status| &status.managers).enumerate() {
        show_manager(&mut page, index, manager, now);
    }
    for name in status.iter().flat_map(|status| &status.not_swept_yet) {
        let name = escape(name.as_str());
        let _ = writeln!(
            page,
            "<section>\n<h2>{name} <small><span class=\"odd\">? not swept yet</span></small></h2>\n<p>Its first \
             sweep has not ended. Other GARMs are not delayed.</p>\n</section>"
        );
    }
    page.push_str(
        "</main>\n</div>\n<footer class=\"meta\">Times are UTC. Also as <a href=\"api/v1/status\">JSON</a> (",
    );
    page.push_str(
        "<a href=\"api/v1/status.schema.json\">schema</a>) and as <a href=\"metrics\">metrics</a>.</footer>\n",
    );
    let _ = writeln!(page, "<script>{SCRIPT}</script>\n</body>\n</html>");
    page
}

fn show_manager(page: &mut String, index: usize, manager: &ManagerStatus, now: Wall) {
    let (class, sign) = match manager.state {
        ManagerState::Up => ("ok", "✔"),
        ManagerState::Restarted => ("odd", "…"),
        ManagerState::Down | ManagerState::Unreachable => ("bad", "✖"),
    };
    let state = words::manager_state(manager.state);
    let name = escape(manager.name.as_str());
    let _ = writeln!(
        page,
        "<section aria-labelledby=\"m{index}\">\n<h2 id=\"m{index}\">{name} <small><span \
         class=\"{class}\">{sign} {state}</span></small></h2>"
    );
    if let Some(incident) = &manager.incident {
        let _ = writeln!(page, "<p class=\"incident\"><strong>Incident:</strong> {}</p>", escape(incident));
    }
    if let Some(again) = words::well_again(manager, |at| date(at, now)) {
        let _ = writeln!(page, "<p class=\"ok\">✔ The fleet is {again}.</p>");
    }
    if let Some(why) = &manager.breaker_open {
        let _ = writeln!(
            page,
            "<p class=\"incident\"><strong>Healing is stopped</strong>, the circuit breaker is open: {}. \
             <code>scaleset-medic resume --breaker --manager {name}</code> closes it.</p>",
            escape(why.trim_end_matches('.'))
        );
    }
    for pause in &manager.pauses {
        let _ = writeln!(
            page,
            "<p class=\"odd\">! Paused: {}. To end it: <code>{}</code>.</p>",
            escape(words::pause(pause, manager, now).trim_end_matches('.')),
            escape(&guards::how_to_end(pause))
        );
    }
    for (endpoint, state) in manager.endpoints.iter().filter(|(_, state)| **state != EndpointState::Up) {
        let state = words::endpoint_state(*state);
        let _ = writeln!(page, "<p class=\"odd\">! {} {state}.</p>", escape(endpoint.as_str()));
    }
    show_table(page, manager, now);
    show_sources(page, index, manager, now);
    page.push_str("</section>\n");
}

fn show_table(page: &mut String, manager: &ManagerStatus, now: Wall) {
    if manager.sets.is_empty() {
        page.push_str("<p>No scale sets are known.</p>\n");
        return;
    }
    let (healthy, unhealthy): (Vec<_>, Vec<_>) = manager.sets.iter().partition(|set| set.is_healthy());
    let shown = || unhealthy.iter().take(ALL_ROWS).chain(healthy.iter().take(HEALTHY_ROWS));
    let _ = write!(
        page,
        "<table role=\"table\">\n<caption>Scale sets of {}: {} unhealthy or unclear, {} healthy",
        escape(manager.name.as_str()),
        unhealthy.len(),
        healthy.len()
    );
    let hidden = manager.sets.len().saturating_sub(shown().count());
    if hidden > 0 {
        let _ = write!(page, "; {hidden} of them are only in the JSON");
    }
    page.push_str("</caption>\n<thead role=\"rowgroup\"><tr role=\"row\">");
    for title in ["Scale set", "State", "Since", "Evidence", "What happens next", "Last treatments"] {
        let _ = write!(page, "<th scope=\"col\" role=\"columnheader\">{title}</th>");
    }
    page.push_str("</tr></thead>\n<tbody role=\"rowgroup\">\n");
    for set in shown() {
        show_set(page, set, manager.stale_lifetimes.as_deref(), now);
    }
    page.push_str("</tbody>\n</table>\n");
}

fn show_set(page: &mut String, set: &SetStatus, lifetimes: Option<&str>, now: Wall) {
    let finding = &set.finding;
    let (class, sign) = if set.left_disabled.is_some() { ("bad", "✖") } else { sign(finding.diagnosis) };
    let entity = set.entity.as_ref().map_or_else(String::new, |of| format!(" of {}", escape(&of.to_string())));
    let disabled = if set.enabled == Enablement::Disabled { ", disabled" } else { "" };
    let _ = writeln!(
        page,
        "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">{}<br><small>no. {}{entity}{disabled}</small></th>",
        escape(&set.name),
        set.id
    );
    let _ = writeln!(
        page,
        "<td role=\"cell\" data-label=\"State\"><span class=\"state {class}\"><span aria-hidden=\"true\">{sign}</span> \
         {}\
         </span><br><small>{} ({})</small></td>",
        finding.diagnosis,
        words::state(set),
        words::confidence(finding.confidence)
    );
    let unhealthy = match finding.ill_since {
        Some(since) if since != finding.since => format!("<br><small>unhealthy since {}</small>", date(since, now)),
        Some(_) | None => String::new(),
    };
    let since = match words::recovered(set, |at| date(at, now)) {
        Some(again) if set.recovered.is_some_and(|last| last.at == finding.since) => again,
        Some(again) => format!("{}<br><small>{again}</small>", date(finding.since, now)),
        None => date(finding.since, now),
    };
    let _ = writeln!(page, "<td role=\"cell\" data-label=\"Since\">{since}{unhealthy}</td>");
    page.push_str("<td role=\"cell\" data-label=\"Evidence\"><ul>");
    for evidence in finding.evidence.iter().take(EVIDENCE) {
        let _ = write!(page, "<li>{}</li>", escape(&words::evidence(evidence)));
    }
    page.push_str("</ul></td>\n<td role=\"cell\" data-label=\"What happens next\">");
    show_next(page, set, lifetimes, now);
    page.push_str("</td>\n<td role=\"cell\" data-label=\"Last treatments\">");
    if set.treatments.is_empty() {
        page.push_str("none");
    } else {
        page.push_str("<ul>");
        for treatment in set.treatments.iter().take(TREATMENTS) {
            let open = set.decision == Decision::Treating { treatment: treatment.id };
            show_treatment(page, treatment, open, now);
        }
        page.push_str("</ul>");
    }
    page.push_str("</td></tr>\n");
}

/// What happens next and when, which guards block it, and why nothing stronger is done.
fn show_next(page: &mut String, set: &SetStatus, lifetimes: Option<&str>, now: Wall) {
    if let Some(left) = &set.left_disabled {
        let _ = write!(page, "<strong>Left disabled</strong>: {}<br>", escape(&words::left_disabled(left, now)));
    }
    if let Decision::Blocked { remedy, guards } = &set.decision {
        let _ = write!(page, "{} blocked by<ul>", escape(&words::remedy_name(remedy)));
        for guard in guards {
            let _ = write!(page, "<li>{}</li>", escape(&words::guard_in_full(guard, now)));
        }
        page.push_str("</ul>");
    } else {
        page.push_str(&escape(&words::action(set, now, words::guard_briefly)));
    }
    if let Some(lasts) = words::stale_lasts(set, lifetimes) {
        let _ = write!(page, "<br>{}", escape(&lasts));
    }
    if !set.not_deleted.is_empty() {
        let _ = write!(page, "<br><small>Its session is not deleted: {}</small>", escape(&set.not_deleted.join("; ")));
    }
    let _ = write!(page, "<br><small>{}</small>", words::budget(set));
}

fn treatments(left: u64) -> String {
    format!("{left} treatment{}", if left == 1 { "" } else { "s" })
}

fn show_treatment(page: &mut String, treatment: &TreatmentSummary, open: bool, now: Wall) {
    let why = treatment.why.as_ref().map_or_else(String::new, |why| format!("<br><small>{}</small>", escape(why)));
    let _ = write!(
        page,
        "<li>{}: {} #{}: {}{why}</li>",
        date(treatment.opened, now),
        treatment.remedy,
        treatment.id,
        escape(if open { "under way" } else { words::step(treatment.state) })
    );
}

/// The sources, and what the medic may still do.
fn show_sources(page: &mut String, index: usize, manager: &ManagerStatus, now: Wall) {
    let blind = manager.sources.values().filter(|state| **state != SourceState::Up).count();
    let _ = writeln!(
        page,
        "<details id=\"d{index}\"{}>\n<summary id=\"s{index}\">What the medic sees: {} of {} sources</summary>\n<ul>",
        if manager.sources.values().any(|state| matches!(state, SourceState::Down { .. })) { " open" } else { "" },
        manager.sources.len().saturating_sub(blind),
        manager.sources.len()
    );
    for (source, state) in &manager.sources {
        show_source(page, *source, state);
    }
    page.push_str("</ul>\n");
    let _ = write!(
        page,
        "<p class=\"meta\">{} left in this hour; {}. {} session ids known.",
        treatments(manager.budget_remaining),
        if manager.open_intents == 1 {
            "1 is unfinished".to_owned()
        } else {
            format!("{} are unfinished", manager.open_intents)
        },
        manager.known_sessions
    );
    if let Some(Restart { kind, at }) = manager.restart {
        let _ = write!(page, " GARM started {}, {}.", date(at, now), words::restart(kind));
    }
    for (endpoint, left) in &manager.quota_remaining {
        let _ = write!(page, " {left} requests left at {}.", escape(endpoint.as_str()));
    }
    let _ = writeln!(page, " This reconcile took {}.</p>\n</details>", manager.took);
}

fn show_source(page: &mut String, source: Source, state: &SourceState) {
    let name = sources::text(source).name;
    let line = match state {
        SourceState::Up => format!("<span class=\"ok\">✔ {name}</span>: answers"),
        SourceState::Down { why } => {
            format!("<span class=\"bad\">✖ {name}</span>: does not answer: {}", escape(why))
        }
        SourceState::NotConfigured { would_show } => format!(
            "<span class=\"odd\">– {name}</span>: not configured; it would show {}. To enable it: {}",
            escape(would_show),
            escape(&sources::how_to_enable(source))
        ),
    };
    let _ = writeln!(page, "<li>{line}.</li>");
}

const fn sign(diagnosis: Diagnosis) -> (&'static str, &'static str) {
    match (diagnosis, diagnosis.class()) {
        (Diagnosis::Settling | Diagnosis::DisabledByMedic, _) => ("odd", "…"),
        (_, Class::Well) => ("ok", "✔"),
        (_, Class::Idle) => ("odd", "–"),
        (_, Class::Unseen) => ("odd", "?"),
        (_, Class::Refused | Class::Broken) => ("bad", "✖"),
    }
}

/// `14:03:12 (3 min ago)`, with the full date for programs.
fn date(at: Wall, now: Wall) -> String {
    format!("<time datetime=\"{}\">{}</time> <small>({})</small>", at.rfc3339(), at.near(now), words::ago(at, now))
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
            // Invisible marks could make a name read as another.
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}
