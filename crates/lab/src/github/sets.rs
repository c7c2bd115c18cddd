//! Scale sets: E1-E4, E6 (`docs/reference/actions-service.md` §3.3).

use super::exception::{Exception, bad_request};
use super::record::Ended;
use super::route::{EntityKey, query};
use super::set::Set;
use super::{Ask, GithubState};
use crate::wire::Answer;
use medic_core::model::Wall;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

impl GithubState {
    pub(super) fn list_sets(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let entity = self.admin_of(ask)?;
        let name = query(ask.request, "name").filter(|name| !name.is_empty());
        let found: Vec<Value> = self
            .sets_of(&entity)
            .filter(|set| name.as_ref().is_none_or(|name| *name == set.name))
            .map(Set::json)
            .collect();
        Ok(list(&found))
    }

    pub(super) fn get_set(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let id = self.admin_of_set(ask)?;
        self.set_answer(id)
    }

    pub(super) fn create_set(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        #[derive(Deserialize)]
        struct Body {
            name: String,
        }
        let entity = self.admin_of(ask)?;
        let Body { name } = body_of(ask)?;
        if self.sets_of(&entity).any(|set| set.name == name) {
            let message = format!("The runner scale set {name} already exists in runner group 1.");
            return Err(Exception::SET_EXISTS.answer(&message));
        }
        let id = self.insert_set(&entity, &name, ask.now);
        self.set_answer(id)
    }

    pub(super) fn delete_set(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let id = self.admin_of_set(ask)?;
        self.drop_set(id, ask.now);
        Ok(Answer::empty(204))
    }

    pub(super) fn sets_of(&self, entity: &EntityKey) -> impl Iterator<Item = &Set> {
        self.by_entity.get(entity).into_iter().flatten().filter_map(|id| self.sets.get(id))
    }

    pub(super) fn insert_set(&mut self, entity: &EntityKey, name: &str, now: Wall) -> u64 {
        self.counters.set = self.counters.set.saturating_add(1);
        let id = self.counters.set;
        self.sets.insert(id, Set::new(id, entity.clone(), name, now));
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
        Ok(Answer::json(200, &set.json()))
    }
}

/// The list wrapper of the service: `count` always agrees with `value`.
pub(super) fn list(found: &[Value]) -> Answer {
    Answer::json(200, &json!({"count": found.len(), "value": found}))
}

/// A request's JSON body.
pub(super) fn body_of<T: DeserializeOwned>(ask: &Ask<'_>) -> Result<T, Answer> {
    serde_json::from_slice(ask.request.body()).map_err(|error| bad_request(&format!("The body is not valid: {error}.")))
}
