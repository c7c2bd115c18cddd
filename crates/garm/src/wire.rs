//! GARM's JSON, as it is on the wire (`docs/reference/garm-api.md` §3-§7), and its translation into the model.
//!
//! GARM leaves out what is zero or false: a missing `enabled` means *disabled*, a missing number means 0. Some answers
//! carry a zeroed `endpoint` object, which means "not given here". `null` may stand for an empty list or text. Unknown
//! fields are ignored. The oldest release with scale sets (v0.2.0-alpha, §1.1) has neither `endpoint` nor
//! `updated_at`: such a set has no endpoint and an empty revision.

use medic_core::model::{
    Controller, Enablement, Endpoint, EndpointName, Entity, EntityKind, GithubId, Lingering, Revision, ScaleSet,
    ScaleSetId, Wall,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// `{"error": "<class>", "details": "<text>"}` (`docs/reference/garm-api.md` §2).
#[derive(Debug, Deserialize)]
pub(super) struct WireError {
    pub(super) error: Option<String>,
    pub(super) details: Option<String>,
}

/// The answer of `/auth/login` and `/metrics-token`.
#[derive(Deserialize)]
pub(super) struct WireToken {
    pub(super) token: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireController {
    controller_id: String,
    version: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireScaleSet {
    id: u64,
    scale_set_id: Option<i64>,
    name: Option<String>,
    enabled: Option<bool>,
    desired_runner_count: Option<i64>,
    max_runners: Option<i64>,
    updated_at: Option<String>,
    endpoint: Option<WireEndpoint>,
    repo_name: Option<String>,
    org_name: Option<String>,
    enterprise_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WireEndpoint {
    name: Option<String>,
    base_url: Option<String>,
    api_base_url: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireInstance {
    scale_set_id: Option<u64>,
    status: Option<String>,
}

impl WireController {
    /// `None` when the id is empty.
    pub(super) fn into_model(self) -> Option<Controller> {
        let version = self.version.unwrap_or_default();
        (!self.controller_id.is_empty()).then_some(Controller { id: self.controller_id, version })
    }
}

/// Shares equal endpoints, so that ten thousand sets hold one.
#[derive(Debug, Default)]
pub(super) struct Endpoints(BTreeMap<(String, String, String), Arc<Endpoint>>);

impl Endpoints {
    fn shared(&mut self, wire: WireEndpoint) -> Option<Arc<Endpoint>> {
        let name = wire.name.filter(|name| !name.is_empty())?;
        let key = (name, wire.base_url.unwrap_or_default(), wire.api_base_url.unwrap_or_default());
        let endpoint = self.0.entry(key).or_insert_with_key(|(name, base_url, api_base_url)| {
            Arc::new(Endpoint {
                name: EndpointName::new(name.clone()),
                base_url: base_url.clone(),
                api_base_url: api_base_url.clone(),
            })
        });
        Some(Arc::clone(endpoint))
    }
}

impl WireScaleSet {
    /// `None` when the id is 0, which GARM never uses.
    pub(super) fn into_model(self, endpoints: &mut Endpoints) -> Option<ScaleSet> {
        let entity = [
            (EntityKind::Repository, self.repo_name),
            (EntityKind::Organization, self.org_name),
            (EntityKind::Enterprise, self.enterprise_name),
        ]
        .into_iter()
        .find_map(|(kind, name)| Some(Entity { kind, name: name.filter(|name| !name.is_empty())? }));
        (self.id > 0).then(|| ScaleSet {
            id: ScaleSetId(self.id),
            github_id: self.scale_set_id.and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0).map(GithubId),
            name: self.name.unwrap_or_default(),
            entity,
            endpoint: self.endpoint.and_then(|endpoint| endpoints.shared(endpoint)),
            enabled: if self.enabled == Some(true) { Enablement::Enabled } else { Enablement::Disabled },
            desired_runners: small(self.desired_runner_count),
            max_runners: small(self.max_runners),
            updated_at: self.updated_at.as_deref().and_then(date),
            revision: Revision::new(self.updated_at.unwrap_or_default()),
        })
    }
}

/// Counts per set (GARM's id, `docs/reference/garm-api.md` §7); instances of pools have none.
pub(super) fn lingering(instances: Vec<WireInstance>) -> BTreeMap<ScaleSetId, Lingering> {
    let mut counts: BTreeMap<ScaleSetId, Lingering> = BTreeMap::new();
    for instance in instances {
        let Some(id) = instance.scale_set_id.filter(|id| *id > 0) else { continue };
        let count = counts.entry(ScaleSetId(id)).or_default();
        count.total = count.total.saturating_add(1);
        match instance.status.as_deref().unwrap_or_default() {
            "deleted" => count.deleted = count.deleted.saturating_add(1),
            "pending_delete" | "pending_force_delete" | "deleting" => {
                count.pending_delete = count.pending_delete.saturating_add(1);
            }
            _ => {}
        }
    }
    counts
}

fn small(count: Option<i64>) -> u32 {
    u32::try_from(count.unwrap_or(0).max(0)).unwrap_or(u32::MAX)
}

/// RFC 3339; dates before the epoch mean "never" (`docs/reference/garm-api.md` §2).
fn date(text: &str) -> Option<Wall> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(json: &str) -> ScaleSet {
        serde_json::from_str::<WireScaleSet>(json).unwrap().into_model(&mut Endpoints::default()).unwrap()
    }

    #[test]
    fn missing_enabled_means_disabled() {
        for json in [r#"{"id":1}"#, r#"{"id":1,"enabled":null}"#, r#"{"id":1,"enabled":false}"#] {
            assert_eq!(set(json).enabled, Enablement::Disabled, "{json}");
        }
        assert_eq!(set(r#"{"id":1,"enabled":true}"#).enabled, Enablement::Enabled);
    }

    #[test]
    fn zeroes_and_nulls_are_absent_values() {
        let zero =
            set(r#"{"id":3,"scale_set_id":0,"repo_name":"","org_name":"acme","status_messages":null,"tags":null,
                "updated_at":"0001-01-01T00:00:00Z","desired_runner_count":-4,
                "endpoint":{"name":"","base_url":"","created_at":"0001-01-01T00:00:00Z"}}"#);
        assert_eq!((zero.github_id, zero.endpoint, zero.updated_at), (None, None, None));
        assert_eq!((zero.desired_runners, zero.max_runners), (0, 0));
        assert_eq!(zero.entity, Some(Entity { kind: EntityKind::Organization, name: "acme".to_owned() }));
        // As the oldest release sends it.
        let old = set(r#"{"id":3,"scale_set_id":9,"name":"a","repo_name":"acme/app","enabled":true}"#);
        assert_eq!((old.endpoint, old.revision), (None, Revision::new("")));
        assert_eq!(old.entity, Some(Entity { kind: EntityKind::Repository, name: "acme/app".to_owned() }));
    }

    #[test]
    fn instances_are_counted_per_set() {
        let instances = serde_json::from_str(
            r#"[{"scale_set_id":1,"status":"deleted"},{"scale_set_id":1,"status":"deleting"},
                {"scale_set_id":1,"status":"pending_delete"},{"scale_set_id":1,"status":"pending_force_delete"},
                {"scale_set_id":1,"status":"running"},{"scale_set_id":2},{"pool_id":"x","status":"deleted"},
                {"scale_set_id":0,"status":"deleted"}]"#,
        )
        .unwrap();
        let counts = lingering(instances);
        assert_eq!(counts.get(&ScaleSetId(1)), Some(&Lingering { deleted: 1, pending_delete: 3, total: 5 }));
        assert_eq!(counts.get(&ScaleSetId(2)), Some(&Lingering { deleted: 0, pending_delete: 0, total: 1 }));
        assert_eq!(counts.len(), 2);
    }
}
