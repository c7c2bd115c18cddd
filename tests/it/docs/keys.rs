//! The tables of `docs/configuration.md`: every key, and which keys must not contradict each other.

use super::{code, table};
use medic_core::model::Span;
use scaleset_medic::config::keys::{Key, Kind, Need, Section};
use scaleset_medic::config::raw::Raw;
use scaleset_medic::config::source::{FileText, Sources};
use scaleset_medic::config::{Checked, Depth, Origin, Report, check, schema};
use std::fmt::Write as _;
use std::time::Duration;

const LEAST: &str = "[[manager]]\nname = 'n'\nurl = 'http://h'\nusername = 'u'\npassword_file = 'f'\n";

/// The keys of a section.
pub(super) fn of(section: Section) -> String {
    let schema = schema::schema();
    let mut place = &schema["properties"][section.as_str()];
    if section.repeats() {
        place = &place["items"];
    }
    let rows = section.keys().iter().map(|key| {
        let (kind, bounds) = kind(key.kind);
        let default = match key.need {
            Need::Required => "required".to_owned(),
            Need::Optional => "not set".to_owned(),
            Need::Defaulted => {
                let default = code(&place["properties"][key.name]["default"]);
                leader(key).map_or_else(|| default.clone(), |leader| format!("{default}; follows `{leader}`"))
            }
        };
        [code(key.name), kind.to_owned(), default, bounds, key.doc.to_owned()]
    });
    table(["key", "type", "default", "bounds", "meaning"], rows)
}

fn kind(kind: Kind) -> (&'static str, String) {
    match kind {
        Kind::Span(least, most) => ("duration", format!("{} to {}", span(least), span(most))),
        Kind::Spans(least, most) => (
            "list of durations",
            format!("each {} to {}, at least one, none shorter than the one before", span(least), span(most)),
        ),
        Kind::Count(least, most) if most > u64::from(u32::MAX) => ("whole number", format!("at least {least}")),
        Kind::Count(least, most) => ("whole number", format!("{least} to {most}")),
        Kind::Part => ("share", "0 up to, but not including, 1".to_owned()),
        Kind::Share => ("share", "0 to 1".to_owned()),
        Kind::Boolean => ("`true` or `false`", String::new()),
        Kind::Choice(words) => ("text", words.iter().map(code).collect::<Vec<_>>().join(" or ")),
        Kind::Name => ("text", "1 to 64 letters, digits, `.`, `_`, `-`".to_owned()),
        Kind::Text => ("text", "not blank".to_owned()),
        Kind::Url => ("URL", "http or https; no user, password or query".to_owned()),
        Kind::Listen => ("address and port", "`IP:PORT` or `[IPV6]:PORT`".to_owned()),
        Kind::Path => ("path", "not blank".to_owned()),
        Kind::SecretFile => ("path of a secret", "a file of at most 64 KiB".to_owned()),
        Kind::Filter => {
            let levels = "error warn info debug trace off".split(' ').map(code).collect::<Vec<_>>().join(", ");
            ("log levels", format!("{levels}; or `target=level`, with commas"))
        }
        Kind::Names => ("list of texts", "none blank".to_owned()),
    }
}

fn span(span: Span) -> String {
    code(humantime::format_duration(Duration::from_millis(span.as_millis())))
}

/// The least configuration, with these settings in a table of the section.
fn read(section: Section, settings: &[(&Key, String)]) -> Result<Checked, Report> {
    let mut lines = String::new();
    for (key, value) in settings {
        let _ = writeln!(lines, "{} = {value}", key.name);
    }
    let text = match section {
        Section::Manager => format!("{LEAST}{lines}"),
        Section::Github => format!("{LEAST}[[github]]\nendpoint = 'e'\ntoken_file = 'f'\n{lines}"),
        Section::Run | Section::Log | Section::Http | Section::Policy => {
            format!("{}\n{lines}{LEAST}", section.header())
        }
    };
    let file = Some(FileText { name: "c.toml".to_owned(), text });
    check(&Raw::read(&Sources { file, ..Sources::default() }), Depth::Values)
}

fn quoted(span: Span) -> String {
    format!("'{}ms'", span.as_millis())
}

/// The key that a default follows: the one by whose change it changes.
fn leader(key: &Key) -> Option<&'static str> {
    key.section.keys().iter().filter(|other| other.name != key.name).find_map(|other| {
        let values = match other.kind {
            Kind::Span(least, most) => [quoted(least), quoted(most)],
            Kind::Count(least, most) => [least.to_string(), most.to_string()],
            Kind::Spans(..)
            | Kind::Part
            | Kind::Share
            | Kind::Boolean
            | Kind::Choice(_)
            | Kind::Name
            | Kind::Text
            | Kind::Url
            | Kind::Listen
            | Kind::Path
            | Kind::SecretFile
            | Kind::Filter
            | Kind::Names => return None,
        };
        values.into_iter().find_map(|value| {
            let checked = read(key.section, &[(other, value)]).ok()?;
            let (_, values) = checked.effective.iter().find(|(section, _)| *section == key.section)?;
            let found = values.iter().find(|value| value.key == key.name)?;
            if let Origin::Follows(leader) = &found.origin { Some(*leader) } else { None }
        })
    })
}

/// Which durations must not be longer than which others: found by trying every pair of a section.
pub(super) fn orders() -> String {
    let mut rows = Vec::new();
    for section in Section::ALL {
        for low in section.keys() {
            for high in section.keys().iter().filter(|high| high.name != low.name) {
                let (Kind::Span(least, most), Kind::Span(other_least, other_most)) = (low.kind, high.kind) else {
                    continue;
                };
                // A short value may contradict a third key first.
                let values = [least.max(other_least), Span::mins(10)].into_iter();
                let fits = |value: &Span| (least..most).contains(value) && (other_least..=other_most).contains(value);
                let values: Vec<Span> = values.filter(fits).collect();
                let refused = |more: Span| {
                    values.iter().any(|value| {
                        let report = read(*section, &[(low, quoted(value.plus(more))), (high, quoted(*value))]);
                        let report = report.err().map(|report| report.to_string()).unwrap_or_default();
                        let wrong = format!("{}: ", low.dotted());
                        let against = format!(" contradicts {} = ", high.name);
                        report.lines().any(|line| line.contains(&wrong) && line.contains(&against))
                    })
                };
                if refused(Span::secs(1)) {
                    let words = if refused(Span::ZERO) { "less than" } else { "at most" };
                    rows.push([code(low.dotted()), words.to_owned(), code(high.dotted())]);
                }
            }
        }
    }
    assert!(rows.len() >= 9, "the contradictions were not found: {rows:?}");
    table(["this", "must be", "that"], rows)
}
