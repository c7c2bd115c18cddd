//! Statuses to word.

use crate::status::{ManagerStatus, SetStatus};

/// A set with nothing else of note.
pub(crate) fn set(diagnosis: &str, decision: &serde_json::Value) -> SetStatus {
    let finding = serde_json::json!({
        "set": 1, "diagnosis": diagnosis, "confidence": "strong", "rule": "nothing", "since": 0, "ill_since": null,
        "seen": 3, "evidence": [], "worker": {"state": "unknown", "since": 0},
    });
    serde_json::from_value(serde_json::json!({
        "id": 1, "github_id": 2, "name": "linux-0", "enabled": "enabled", "finding": finding, "decision": decision,
        "entity": {"endpoint": "github.com", "entity": {"kind": "organization", "name": "acme"}},
        "budget_remaining": 3, "treatments": [], "lingering": {"deleted": 0, "pending_delete": 0, "total": 0},
    }))
    .unwrap()
}

/// A manager that is up.
pub(crate) fn manager(sets: Vec<SetStatus>) -> ManagerStatus {
    let status = serde_json::json!({
        "name": "garm", "at": 0, "took": 1, "state": "up", "incarnation": null, "restart": null, "endpoints": {},
        "sources": {}, "sets": [], "breaker_open": null, "budget_remaining": 9, "open_intents": 0,
        "known_sessions": 0, "quota_remaining": {}, "incident": null,
    });
    ManagerStatus { sets, ..serde_json::from_value(status).unwrap() }
}
