//! The series of scale sets, written from one row per set.
//!
//! A set has more than twenty series, most of them the zeroes of its one-hot state. In a registry each series keeps its
//! labels, its help and a place in a map: 25 KiB a set, which at ten thousand sets was nearly all of the medic's memory.
//! So a row is kept, and the lines are written when somebody asks for them.
//!
//! Edge cases: a family without a series is left out, as the registry does; a manager that a picture does not hold
//! keeps its rows; label values are escaped as the text format wants it.

use super::{PREFIX, UNDER_WAY};
use crate::status::{ManagerStatus, SetStatus, Status, TreatmentSummary};
use medic_core::model::{Diagnosis, Enablement, ManagerName, Outcome, Wall};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// What the series of one set say.
struct Row {
    /// The labels that name the set: `manager="…",scale_set="…"`.
    labels: Box<str>,
    /// All labels of `scale_set_info`.
    info: Box<str>,
    state: Diagnosis,
    enabled: bool,
    healthy: bool,
    stuck_since: Option<Wall>,
    lingering: u32,
    /// Its latest treatment: the labels that name it, and when it began.
    last_remedy: Option<(Box<str>, Wall)>,
}

/// One family of such series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Info,
    Enabled,
    Healthy,
    State,
    StuckSince,
    DisabledByMedic,
    Lingering,
    LastRemedy,
}

/// The rows of all sets, by manager.
#[derive(Default)]
pub(super) struct SetSeries(Mutex<BTreeMap<ManagerName, Vec<Row>>>);

impl SetSeries {
    /// Takes the picture's sets in place of those shown before.
    pub(super) fn show(&self, status: &Status) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for manager in &status.managers {
            let rows = manager.sets.iter().map(|set| Row::of(manager, set)).collect();
            shown.insert(manager.name.clone(), rows);
        }
    }

    /// Adds one family to the exposition.
    pub(super) fn write(&self, family: Family, name: &str, help: &str, out: &mut String) {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_series = |row: &&Row| family != Family::LastRemedy || row.last_remedy.is_some();
        let mut rows = shown.values().flatten().filter(has_series).peekable();
        if rows.peek().is_some() {
            let _ = writeln!(out, "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} gauge");
        }
        for row in rows {
            let _ = row.write(family, name, out);
        }
    }
}

impl Row {
    fn of(manager: &ManagerStatus, set: &SetStatus) -> Self {
        let labels = format!("manager=\"{}\",scale_set=\"{}\"", escaped(manager.name.as_str()), set.id);
        let (entity, endpoint) =
            set.entity.as_ref().map_or(("", ""), |of| (of.entity.name.as_str(), of.endpoint.as_str()));
        let github_id = set.github_id.map_or_else(String::new, |id| id.to_string());
        let info = format!(
            "endpoint=\"{}\",entity=\"{}\",github_id=\"{github_id}\",manager=\"{}\",name=\"{}\",scale_set=\"{}\"",
            escaped(endpoint),
            escaped(entity),
            escaped(manager.name.as_str()),
            escaped(&set.name),
            set.id
        );
        Self {
            labels: labels.into_boxed_str(),
            info: info.into_boxed_str(),
            state: set.finding.diagnosis,
            enabled: set.enabled == Enablement::Enabled,
            healthy: set.is_healthy(),
            stuck_since: set.finding.ill_since,
            lingering: set.lingering.deleted,
            last_remedy: set.treatments.first().map(|last| (last_labels(last), last.opened)),
        }
    }

    fn write(&self, family: Family, name: &str, out: &mut String) -> std::fmt::Result {
        let labels = &self.labels;
        let mut flag = |value: bool| writeln!(out, "{PREFIX}_{name}{{{labels}}} {}", u8::from(value));
        match family {
            Family::Info => writeln!(out, "{PREFIX}_{name}{{{}}} 1", self.info),
            Family::Enabled => flag(self.enabled),
            Family::Healthy => flag(self.healthy),
            Family::DisabledByMedic => flag(self.state == Diagnosis::DisabledByMedic),
            Family::State => Diagnosis::ALL.iter().try_for_each(|state| {
                writeln!(out, "{PREFIX}_{name}{{{labels},state=\"{state}\"}} {}", u8::from(*state == self.state))
            }),
            Family::StuckSince => {
                let since = self.stuck_since.map_or(0.0, Wall::as_secs_f64);
                writeln!(out, "{PREFIX}_{name}{{{labels}}} {since}")
            }
            Family::Lingering => writeln!(out, "{PREFIX}_{name}{{{labels}}} {}", self.lingering),
            Family::LastRemedy => self.last_remedy.iter().try_for_each(|(last, opened)| {
                writeln!(out, "{PREFIX}_{name}{{{labels},{last}}} {}", opened.as_secs_f64())
            }),
        }
    }
}

fn last_labels(last: &TreatmentSummary) -> Box<str> {
    let outcome = Outcome::ALL.iter().map(|outcome| outcome.as_str()).find(|outcome| *outcome == last.state);
    let outcome = outcome.unwrap_or(UNDER_WAY);
    format!("remedy=\"{}\",outcome=\"{outcome}\"", escaped(&last.remedy)).into_boxed_str()
}

/// A label's value in the text format: `\`, `"` and the line's end are escaped.
fn escaped(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        Cow::Owned(value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
    } else {
        Cow::Borrowed(value)
    }
}
