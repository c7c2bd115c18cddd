//! GARM's change events (`docs/reference/garm-api.md` §8.2), reduced to those about scale sets.
//!
//! An event is a reason to read, never a fact: neither order nor completeness is guaranteed. Its `endpoint` may be
//! zeroed, so only the id and the enablement are taken from it. An unknown or malformed message is ignored: it must not
//! stop the stream.

use super::wire::{Endpoints, WireScaleSet};
use medic_core::model::{Enablement, ScaleSetId};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Sent after connecting: GARM sends nothing before.
pub const SUBSCRIPTION: &str = r#"{"filters":[{"entity-type":"scaleset","operations":["create","update","delete"]}]}"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A set was created or changed. A missing `enabled` means disabled.
    ScaleSetChanged {
        id: ScaleSetId,
        enabled: Enablement,
    },
    ScaleSetDeleted {
        id: ScaleSetId,
    },
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "entity-type")]
    entity_type: &'a str,
    operation: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// The event of one message; `None` if it is not about a scale set.
pub fn parse(text: &str) -> Option<Event> {
    let frame: Frame<'_> =
        serde_json::from_str(text).ok().filter(|frame: &Frame<'_>| frame.entity_type == "scaleset")?;
    let set = serde_json::from_str::<WireScaleSet>(frame.payload.get()).ok()?.into_model(&mut Endpoints::default())?;
    match frame.operation {
        "create" | "update" => Some(Event::ScaleSetChanged { id: set.id, enabled: set.enabled }),
        "delete" => Some(Event::ScaleSetDeleted { id: set.id }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{BUILDS, recorded};

    #[test]
    fn recorded_toggle_is_a_disable_and_an_enable() {
        for build in BUILDS {
            let recorded = String::from_utf8(recorded(build, "ws/events-job-and-toggle.jsonl")).unwrap();
            let sets: Vec<_> = recorded
                .lines()
                .filter_map(|line| match parse(line)? {
                    Event::ScaleSetChanged { id, enabled } => Some((id.0, enabled)),
                    Event::ScaleSetDeleted { .. } => None,
                })
                .collect();
            assert_eq!(
                (sets.len(), recorded.lines().count()),
                (4, 16),
                "{build}: the others are about instances and jobs"
            );
            let toggled = sets.iter().position(|(_, enabled)| *enabled == Enablement::Disabled).unwrap();
            assert_eq!(sets[toggled + 1], (sets[toggled].0, Enablement::Enabled), "{build}");
        }
    }

    #[test]
    fn unknown_or_malformed_message_is_ignored() {
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
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(serde_json::from_str::<serde_json::Value>(SUBSCRIPTION).is_ok());
        let deleted = r#"{"entity-type":"scaleset","operation":"delete","payload":{"id":7,"endpoint":{"name":""}}}"#;
        assert_eq!(parse(deleted), Some(Event::ScaleSetDeleted { id: ScaleSetId(7) }));
    }
}
