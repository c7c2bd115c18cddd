//! A decision in a few words.

use medic_core::model::Decision;

/// A decision without what changes from one reconcile to the next: equal labels, no news.
#[must_use]
pub fn label(decision: &Decision) -> String {
    match decision {
        Decision::Leave => "leave".to_owned(),
        Decision::Watch { waiting, .. } => format!("watch: {waiting}"),
        Decision::Escalate { escalation } => format!("escalate: {}", escalation.as_str()),
        Decision::Blocked { remedy, guards } => {
            let guards: Vec<_> = guards.iter().map(|blocked| blocked.guard().as_str()).collect();
            format!("blocked {}: {}", remedy.kind(), guards.join(", "))
        }
        Decision::Treat { remedy, canary: true } => format!("treat: {} (canary)", remedy.kind()),
        Decision::Treat { remedy, canary: false } => format!("treat: {}", remedy.kind()),
        Decision::Treating { treatment } => format!("treating: {}", super::words::treatment(*treatment)),
    }
}
