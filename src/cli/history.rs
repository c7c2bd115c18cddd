//! `history`.

use super::args::{HistoryArgs, Output};
use super::output::data;
use super::{Failure, medic};
use crate::config::Config;
use crate::exit::ExitCode;
use crate::model::{ManagerName, Span, Treatment};
use crate::store::{Event, HistoryFilter};

/// How far back, unless told.
const SINCE: Span = Span::hours(24);
/// The most events shown of one manager.
const LIMIT: u32 = 10_000;

/// Runs the command.
pub(super) fn run(args: &HistoryArgs, config: &Config) -> Result<ExitCode, Failure> {
    let shared = medic::shared(config)?;
    let since = shared.clock.now().wall.minus(args.since.unwrap_or(SINCE));
    let mut events: Vec<(ManagerName, Event)> = Vec::new();
    for manager in &config.managers {
        let set = match args.set.as_deref().map(str::parse::<u64>) {
            None => None,
            Some(Ok(id)) => Some(crate::model::ScaleSetId(id)),
            Some(Err(_)) => return Err(Failure::Usage("name the set by its id; `status` shows it".to_owned())),
        };
        let found = shared.store.for_manager(&manager.name).history(HistoryFilter { set, since, limit: LIMIT });
        events.extend(found.map_err(Failure::internal)?.into_iter().map(|event| (manager.name.clone(), event)));
    }
    events.sort_by_key(|(_, event)| (event.at, event.id));
    for (manager, event) in &events {
        match args.output {
            Output::Text => data(&text(manager, event))?,
            Output::Json => data(&format!("{}\n", json(manager, event)))?,
        }
    }
    Ok(ExitCode::Well)
}

/// One event, one line.
fn text(manager: &ManagerName, event: &Event) -> String {
    let set = event.set.map_or_else(String::new, |set| format!(" set {set}"));
    format!("{}  {manager}{set}  {}: {}\n", event.at, event.kind, words(event))
}

fn words(event: &Event) -> String {
    let part = |name: &str| event.detail.get(name).and_then(serde_json::Value::as_str);
    match event.kind.as_str() {
        "diagnosis" => format!("{} ({})", part("diagnosis").unwrap_or("?"), part("confidence").unwrap_or("?")),
        "treatment" => match serde_json::from_value::<Treatment>(event.detail.clone()) {
            Ok(treatment) => {
                let outcome = treatment.outcome().map_or("open", |outcome| outcome.as_str());
                format!("{}: {outcome}: {}", treatment.remedy.kind(), treatment.why().unwrap_or_default())
            }
            Err(_) => event.detail.to_string(),
        },
        _ => event.detail.to_string(),
    }
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
