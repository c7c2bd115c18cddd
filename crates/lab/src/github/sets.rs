//! Scale sets and runner groups: E1-E7 (`docs/reference/actions-service.md` §3.3).

use super::exception::{Exception, bad_request};
use super::record::Ended;
use super::route::{EntityKey, query};
use super::set::Set;
use super::{Ask, GithubState};
use crate::wire::Answer;
use medic_core::model::Wall;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The fields of E4 and E5 that have a meaning; zero values mean "not given".
#[derive(Debug, Deserialize)]
struct SetBody {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "runnerGroupId")]
    group: u64,
    #[serde(default)]
    labels: Vec<Value>,
    #[serde(default, rename = "RunnerSetting", alias = "runnerSetting")]
    setting: Map<String, Value>,
    #[serde(default)]
    enabled: Option<bool>,
}

impl GithubState {
    pub(super) fn list_sets(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let entity = self.admin_of(ask)?;
        let name = query(ask.request, "name").filter(|name| !name.is_empty());
        let group = query(ask.request, "runnerGroupId").and_then(|group| group.parse::<u64>().ok());
        let found: Vec<Value> = self
            .sets_of(&entity)
            .filter(|set| name.as_ref().is_none_or(|name| *name == set.name))
            .filter(|set| group.is_none_or(|group| group == set.group))
            .map(|set| self.set_json(set))
            .collect();
        Ok(list(&found))
    }

    pub(super) fn get_set(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let id = self.admin_of_set(ask)?;
        self.set_answer(id)
    }

    pub(super) fn create_set(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let entity = self.admin_of(ask)?;
        let body = set_body(ask)?;
        let label = body.labels.first().and_then(|label| label.get("name")).and_then(Value::as_str);
        let name = if body.name.is_empty() { label.unwrap_or_default().to_owned() } else { body.name.clone() };
        if name.is_empty() {
            return Err(bad_request("runner scale set must have a name or at least one label"));
        }
        let group = if body.group == 0 { 1 } else { body.group };
        self.check_name(&entity, &name, group, None)?;
        let id = self.insert_set(&entity, &name, group, ask.now);
        self.apply(id, body);
        self.set_answer(id)
    }

    pub(super) fn update_set(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let id = self.admin_of_set(ask)?;
        let body = set_body(ask)?;
        if let Some(set) = self.sets.get(&id) {
            let name = if body.name.is_empty() { set.name.clone() } else { body.name.clone() };
            let group = if body.group == 0 { set.group } else { body.group };
            self.check_name(&set.entity, &name, group, Some(id))?;
        }
        self.apply(id, body);
        self.set_answer(id)
    }

    pub(super) fn delete_set(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let id = self.admin_of_set(ask)?;
        self.drop_set(id, ask.now);
        Ok(Answer::empty(204))
    }

    pub(super) fn runner_groups(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        self.admin_of(ask)?;
        let name = query(ask.request, "groupName").filter(|name| !name.is_empty());
        let found: Vec<Value> = self
            .groups()
            .filter(|(_, group)| name.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(group)))
            .map(|(id, group)| json!({"id": id, "name": group, "size": 0, "isDefaultGroup": id == 1}))
            .collect();
        Ok(list(&found))
    }

    /// Runner groups with their ids, `Default` first.
    pub(super) fn groups(&self) -> impl Iterator<Item = (u64, &str)> {
        let others = self.config.groups.iter().map(String::as_str);
        (1..).zip(std::iter::once("Default").chain(others))
    }

    pub(super) fn group_name(&self, id: u64) -> &str {
        self.groups().find(|(group, _)| *group == id).map_or("", |(_, name)| name)
    }

    pub(super) fn sets_of(&self, entity: &EntityKey) -> impl Iterator<Item = &Set> {
        self.by_entity.get(entity).into_iter().flatten().filter_map(|id| self.sets.get(id))
    }

    pub(super) fn service_url(&self, entity: &EntityKey) -> String {
        format!("{}/svc/{}", self.config.origin, entity.as_str())
    }

    pub(super) fn set_json(&self, set: &Set) -> Value {
        set.json(&self.service_url(&set.entity), self.group_name(set.group))
    }

    pub(super) fn insert_set(&mut self, entity: &EntityKey, name: &str, group: u64, now: Wall) -> u64 {
        self.counters.set = self.counters.set.saturating_add(1);
        let id = self.counters.set;
        self.sets.insert(id, Set::new(id, entity.clone(), name, group, now));
        self.by_entity.entry(entity.clone()).or_default().insert(id);
        id
    }

    /// Removes a set with its session, messages, jobs and runners.
    pub(super) fn drop_set(&mut self, id: u64, now: Wall) {
        self.end_session(id, now, Ended::SetRemoved);
        if let Some(set) = self.sets.remove(&id) {
            for runner in set.runners.keys() {
                self.runner_home.remove(runner);
            }
            if let Some(ids) = self.by_entity.get_mut(&set.entity) {
                ids.remove(&id);
            }
        }
    }

    fn set_answer(&self, id: u64) -> Result<Answer, Answer> {
        let set = self.sets.get(&id).ok_or_else(|| super::exception::set_not_found(id))?;
        Ok(Answer::json(200, &self.set_json(set)))
    }

    fn check_name(&self, entity: &EntityKey, name: &str, group: u64, own: Option<u64>) -> Result<(), Answer> {
        if self.group_name(group).is_empty() {
            return Err(bad_request(&format!("No runner group found with identifier {group}.")));
        }
        let taken = self.sets_of(entity).any(|s| s.name == name && s.group == group && Some(s.id) != own);
        if taken {
            let message = format!("The runner scale set {name} already exists in runner group {group}.");
            return Err(Exception::SetExists.answer(&message));
        }
        Ok(())
    }

    fn apply(&mut self, id: u64, body: SetBody) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        if !body.name.is_empty() {
            set.name = body.name;
        }
        if body.group != 0 {
            set.group = body.group;
        }
        if !body.labels.is_empty() {
            set.labels = Value::from(body.labels);
        }
        set.setting.extend(body.setting);
        set.enabled = body.enabled.or(set.enabled);
    }
}

/// The list wrapper of the service: `count` always agrees with `value`.
pub(super) fn list(found: &[Value]) -> Answer {
    Answer::json(200, &json!({"count": found.len(), "value": found}))
}

fn set_body(ask: &Ask<'_>) -> Result<SetBody, Answer> {
    serde_json::from_slice(ask.request.body()).map_err(|error| bad_request(&format!("The body is not valid: {error}.")))
}
