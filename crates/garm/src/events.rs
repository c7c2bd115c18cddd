//! GARM's change events (`docs/reference/garm-api.md` §8.2), reduced to what bears on scale sets.
//!
//! Rules. An event is a wake-up, never the truth: neither order nor completeness is guaranteed, so whoever acts reads
//! again. Its `endpoint` may be zeroed, so nothing but identity, enablement and revision is taken from it. What is
//! unknown or malformed is no event: it must not stop the stream.

use super::wire::{Endpoints, WireInstance, WireScaleSet};
use medic_core::model::{Enablement, Revision, ScaleSetId};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What is asked for after connecting: nothing is sent before. Jobs, users and the like stay away.
pub const SUBSCRIPTION: &str = r#"{"filters":[{"entity-type":"scaleset","operations":["create","update","delete"]},{"entity-type":"instance","operations":["update","delete"]}]}"#;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A set was created or changed.
    ScaleSetChanged {
        id: ScaleSetId,
        /// As it then was. A missing `enabled` means disabled.
        enabled: Enablement,
        /// Its `updated_at` then.
        revision: Revision,
    },
    /// A set was removed from the manager.
    ScaleSetDeleted { id: ScaleSetId },
    /// An instance of a set changed or is gone.
    InstanceChanged { set: ScaleSetId, removal: Removal },
}

/// How far an instance's removal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is not being removed.
    None,
    /// `pending_delete`, `pending_force_delete` or `deleting`.
    Pending,
    /// `deleted`: only a living worker of its set clears it.
    Deleted,
    /// Its row is gone: a worker has cleared it.
    Cleared,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "entity-type")]
    entity_type: &'a str,
    operation: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// The event of one message; `None` when it says nothing that matters here, or nothing at all.
#[must_use]
pub fn parse(text: &str) -> Option<Event> {
    let frame: Frame<'_> = serde_json::from_str(text).ok()?;
    match (frame.entity_type, frame.operation) {
        ("scaleset", "create" | "update") => {
            let set = scale_set(frame.payload)?;
            Some(Event::ScaleSetChanged { id: set.id, enabled: set.enabled, revision: set.revision })
        }
        ("scaleset", "delete") => Some(Event::ScaleSetDeleted { id: scale_set(frame.payload)?.id }),
        ("instance", operation @ ("create" | "update" | "delete")) => {
            let instance: WireInstance = serde_json::from_str(frame.payload.get()).ok()?;
            let removal = if operation == "delete" { Removal::Cleared } else { removal(instance.status()) };
            Some(Event::InstanceChanged { set: instance.set()?, removal })
        }
        _ => None,
    }
}

fn scale_set(payload: &RawValue) -> Option<medic_core::model::ScaleSet> {
    serde_json::from_str::<WireScaleSet>(payload.get()).ok()?.into_model(&mut Endpoints::default())
}

fn removal(status: &str) -> Removal {
    match status {
        "deleted" => Removal::Deleted,
        "pending_delete" | "pending_force_delete" | "deleting" => Removal::Pending,
        _ => Removal::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(version: &str) -> Vec<Option<Event>> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let path = format!("{root}/tests/fixtures/recordings/{version}/ws/events-job-and-toggle.jsonl");
        std::fs::read_to_string(path).unwrap().lines().map(parse).collect()
    }

    #[test]
    fn a_recorded_toggle_is_seen_as_a_disable_and_an_enable() {
        for version in ["garm-2026-04-pre-fix", "garm-2026-07-post-fix"] {
            let events = recorded(version);
            let seen: Vec<_> = events.iter().flatten().collect();
            let sets: Vec<_> = seen
                .iter()
                .filter_map(|event| match event {
                    Event::ScaleSetChanged { id, enabled, revision } if !revision.as_str().is_empty() => {
                        Some((id.0, *enabled))
                    }
                    _ => None,
                })
                .collect();
            assert_eq!(sets.len(), 4, "{version}: {sets:?}");
            let toggled = sets.iter().position(|(_, enabled)| *enabled == Enablement::Disabled).unwrap();
            assert_eq!(sets[toggled + 1], (sets[toggled].0, Enablement::Enabled), "{version}");
            let instances = seen.iter().filter(|event| matches!(event, Event::InstanceChanged { .. })).count();
            assert_eq!(instances, 9, "{version}");
            assert_eq!(events.iter().filter(|event| event.is_none()).count(), 3, "{version}: three are about jobs");
        }
    }

    #[test]
    fn instances_tell_how_far_their_removal_is() {
        let event = |operation: &str, status: &str| {
            parse(&format!(
                r#"{{"entity-type":"instance","operation":"{operation}","payload":{{"scale_set_id":3,"status":"{status}"}}}}"#
            ))
        };
        let changed = |removal| Some(Event::InstanceChanged { set: ScaleSetId(3), removal });
        assert_eq!(event("update", "running"), changed(Removal::None));
        assert_eq!(event("update", "deleting"), changed(Removal::Pending));
        assert_eq!(event("update", "deleted"), changed(Removal::Deleted));
        assert_eq!(event("delete", "deleted"), changed(Removal::Cleared));
    }

    #[test]
    fn what_is_unknown_or_broken_is_no_event() {
        for text in [
            "",
            "null",
            "{}",
            "[1]",
            r#"{"entity-type":"scaleset","operation":"update"}"#,
            r#"{"entity-type":"scaleset","operation":"update","payload":null}"#,
            r#"{"entity-type":"scaleset","operation":"update","payload":{"id":0}}"#,
            r#"{"entity-type":"scaleset","operation":"explode","payload":{"id":1}}"#,
            r#"{"entity-type":"proxy","operation":"update","payload":{"id":1}}"#,
            r#"{"entity-type":"instance","operation":"update","payload":{"pool_id":"x","status":"running"}}"#,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let deleted = r#"{"entity-type":"scaleset","operation":"delete","payload":{"id":7,"endpoint":{"name":""}}}"#;
        assert_eq!(parse(deleted), Some(Event::ScaleSetDeleted { id: ScaleSetId(7) }));
    }

    #[test]
    fn the_subscription_is_json_of_the_documented_form() {
        let asked: serde_json::Value = serde_json::from_str(SUBSCRIPTION).unwrap();
        assert_eq!(asked["filters"][0]["entity-type"], "scaleset");
        assert_eq!(asked["filters"][1]["entity-type"], "instance");
    }
}
