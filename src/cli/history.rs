//! `history`. It only reads the store, and creates none.

use super::Failure;
use super::args::{HistoryArgs, Output};
use super::output::{data, diagnostic, one_line, prose};
use super::picture::known_manager;
use crate::config::Config;
use crate::exit::ExitCode;
use crate::replay;
use crate::replay::snapshot::NOT_KEPT;
use crate::text::{self, guards, words};
use medic_clock::system_wall;
use medic_core::model::{
    Confidence, Decision, Diagnosis, Evidence, ManagerName, RestartKind, ScaleSetId, Span, Treatment, Wall,
};
use medic_core::ports::write::Journal as _;
use medic_core::treat::audit::RequestRecord;
use medic_store::{Event, HistoryFilter, ManagerStore, Store};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// How far back by default.
const SINCE: Span = Span::hours(24);
const LIMIT: u32 = 10_000;
/// The most events of one set that `explain` shows.
const OF_SET: u32 = 25;

pub(super) fn run(args: &HistoryArgs, config: &Config) -> Result<ExitCode, Failure> {
    let Some(store) = Store::open_read_only(&config.run.state_dir).map_err(Failure::internal)? else {
        diagnostic(&format!("no medic has run with {} yet\n", config.run.state_dir.display()));
        return Ok(ExitCode::Well);
    };
    let since = system_wall().minus(args.since.unwrap_or(SINCE));
    if let Some(name) = &args.manager {
        known_manager(name, config.managers.iter().map(|manager| &manager.name))?;
    }
    let chosen = config.managers.iter().map(|manager| &manager.name);
    let chosen = chosen.filter(|name| args.manager.as_deref().is_none_or(|only| only == name.as_str()));
    let stores: Vec<_> = chosen.map(|name| store.for_manager(name)).collect();
    if args.snapshots {
        return snapshots(&stores, since);
    }
    let mut events: Vec<(ManagerName, Event)> = Vec::new();
    let mut known = BTreeMap::new();
    let mut sets_found = 0_usize;
    for store in &stores {
        let names = names(store)?;
        let sets = match &args.set {
            None => vec![None],
            Some(name) => named(&names, name).into_iter().map(Some).collect(),
        };
        known.insert(store.manager().clone(), names);
        sets_found = sets_found.saturating_add(sets.len());
        for set in sets {
            let found = store.history(HistoryFilter { set, since, limit: LIMIT }).map_err(Failure::internal)?;
            if u32::try_from(found.len()).is_ok_and(|count| count >= LIMIT) {
                let manager = store.manager();
                diagnostic(&format!(
                    "only the newest {LIMIT} events of {manager} are shown; --since, --manager and --set choose \
                     others\n"
                ));
            }
            events.extend(found.into_iter().map(|event| (store.manager().clone(), event)));
        }
    }
    if sets_found == 0
        && let Some(name) = &args.set
    {
        return Err(Failure::Usage(format!(
            "the history knows no set {name}; name it by its id, which `status` shows"
        )));
    }
    events.sort_by_key(|(_, event)| (event.at, event.id));
    for (manager, event) in &events {
        match args.output {
            Output::Text => prose(&text(manager, known.get(manager).unwrap_or(&Names::new()), event))?,
            Output::Json => data(&format!("{}\n", json(manager, event)))?,
        }
    }
    Ok(ExitCode::Well)
}

/// Every snapshot: one JSON document per line.
fn snapshots(stores: &[ManagerStore], since: Wall) -> Result<ExitCode, Failure> {
    for store in stores {
        for id in store.snapshots(since).map_err(Failure::internal)? {
            match store.snapshot(id) {
                Ok(Some(json)) => data(&format!("{json}\n"))?,
                // Pruned since it was listed.
                Ok(None) => {}
                Err(error) => diagnostic(&format!("error: {error}\n")),
            }
        }
    }
    Ok(ExitCode::Well)
}

fn named(names: &Names, name: &str) -> BTreeSet<ScaleSetId> {
    match name.parse::<u64>() {
        Ok(id) => BTreeSet::from([ScaleSetId(id)]),
        Err(_) => names.iter().filter(|(_, known)| *known == name).map(|(id, _)| *id).collect(),
    }
}

/// The names of sets, from treatments and the newest snapshot.
type Names = BTreeMap<ScaleSetId, String>;

fn names(store: &ManagerStore) -> Result<Names, Failure> {
    let treatments = store.since(Wall(0)).map_err(Failure::internal)?;
    let mut names: Names = treatments.into_iter().map(|row| (row.set, row.name)).collect();
    let newest = store.newest_snapshot().map_err(Failure::internal)?;
    if let Some(Ok(Some(snapshot))) = newest.as_deref().map(replay::parse) {
        let known = snapshot.sweep.scale_sets.known().into_iter().flatten();
        names.extend(known.map(|set| (set.id, set.name.clone())));
    }
    Ok(names)
}

/// The events of one set, for `explain`; empty if they cannot be read here.
pub(super) fn of_set(config: &Config, manager: &ManagerName, set: ScaleSetId, since: Wall) -> Vec<(Wall, String)> {
    let Ok(Some(store)) = Store::open_read_only(&config.run.state_dir) else { return Vec::new() };
    let filter = HistoryFilter { set: Some(set), since, limit: OF_SET };
    let events = store.for_manager(manager).history(filter).unwrap_or_default();
    events.into_iter().map(|event| (event.at, one_line(&format!("{}: {}", event.kind, words(&event))))).collect()
}

fn text(manager: &ManagerName, names: &Names, event: &Event) -> String {
    let set = event.set.map_or_else(String::new, |set| match names.get(&set) {
        Some(name) => format!(" {name} (set {set})"),
        None => format!(" set {set}"),
    });
    one_line(&format!("{}  {manager}{set}  {}: {}", event.at.date(), event.kind, words(event))) + "\n"
}

/// An event as text; one that this release does not understand stays JSON.
fn words(event: &Event) -> String {
    understood(event).unwrap_or_else(|| event.detail.to_string())
}

fn understood(event: &Event) -> Option<String> {
    let detail = &event.detail;
    Some(match event.kind.as_str() {
        "diagnosis" => found(&Found::deserialize(detail).ok()?),
        "decision" => {
            let decision = guards::decision(Decision::deserialize(detail).ok()?);
            let decision = words::decision(&decision, event.at, |held| words::guard_in_full(held, event.at));
            match detail.get("finding").and_then(|finding| Found::deserialize(finding).ok()) {
                Some(finding) => format!("{decision}; because {}", found(&finding)),
                None => decision,
            }
        }
        "recovery" => {
            let ill_since = Wall::deserialize(detail.get("ill_since")?).ok()?;
            format!("{}, unhealthy for {}", detail.get("outcome")?.as_str()?, event.at.since(ill_since))
        }
        "restart" => {
            let kind = RestartKind::deserialize(detail.get("kind")?).ok()?;
            let at = Wall::deserialize(detail.get("at")?).ok()?;
            format!("GARM restarted at {}, {}", at.near(event.at), words::restart(kind))
        }
        "request" => text::request::request(&RequestRecord::deserialize(detail).ok()?),
        "treatment" => {
            let treatment = Treatment::deserialize(detail).ok()?;
            let outcome = treatment.outcome().map_or("open", |outcome| outcome.as_str());
            let why = treatment.why().unwrap_or_default();
            format!("{} #{}: {outcome}: {why}", treatment.remedy.kind(), treatment.id)
        }
        NOT_KEPT => format!("the snapshot is longer than {} bytes", detail.get("limit")?),
        _ => return None,
    })
}

/// The part of a finding that is shown.
#[derive(Deserialize)]
struct Found {
    diagnosis: Diagnosis,
    confidence: Confidence,
    evidence: Vec<Evidence>,
}

fn found(found: &Found) -> String {
    let facts: Vec<_> = found.evidence.iter().map(|evidence| words::fact(&evidence.fact)).collect();
    let because = if facts.is_empty() { String::new() } else { format!(": {}", facts.join("; ")) };
    format!("{} ({}){because}", found.diagnosis, found.confidence)
}

fn json(manager: &ManagerName, event: &Event) -> serde_json::Value {
    serde_json::json!({
        "at": event.at,
        "manager": manager,
        "kind": event.kind,
        "scale_set": event.set,
        "detail": event.detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_text_of_unknown_events_is_their_json() {
        let text = |detail| words(&Event { id: 1, at: Wall(60_000), kind: "restart".to_owned(), set: None, detail });
        assert_eq!(
            text(serde_json::json!({"at": 59_000, "kind": "crash"})),
            "GARM restarted at 00:00:59, after a crash: it left its sessions behind"
        );
        assert_eq!(text(serde_json::json!({"kind": "of later"})), r#"{"kind":"of later"}"#);
    }
}
