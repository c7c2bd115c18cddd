//! Changes of the database reach their consumers, the scale set controller and the workers
//! (`docs/reference/garm-api.md` §6.6, §8.2). A consumer that is not registered receives nothing.

use super::config::LogLevel::Debug;
use super::db::EntityRow;
use super::env::{About, Change, Env, Operation};
use super::log::{By, attrs};
use super::process::{Died, Process, Task};
use medic_core::model::Span;
use std::sync::Arc;

impl Process {
    pub(super) fn deliver(&mut self, change: &Change, env: &mut Env<'_>) -> Result<(), Died> {
        match &change.about {
            About::Entity(entity) => self.entity_created(entity, env),
            About::Set(set) => {
                if self.controllers.get(&set.entity.number).is_some_and(|controller| controller.registered) {
                    self.offer_set_event(change.operation, set, env);
                }
                // A worker that this very event made is registered later: it already knows the set.
                if change.operation == Operation::Update && self.workers.get(&set.id).is_some_and(|w| w.registered) {
                    env.say(Debug, "got update operation", attrs![], By::Worker(set));
                    return self.receive_event(set, env);
                }
            }
            About::Instance { name } => {
                let instance = attrs!["instance_name" => name, "operation" => change.operation.as_str()];
                env.say(Debug, "handling instance event", instance, By::Named("provider-worker"));
            }
        }
        Ok(())
    }

    fn entity_created(&mut self, entity: &Arc<EntityRow>, env: &Env<'_>) {
        if env.config.build.retries() {
            // Its controller is started by the next tick.
            let tick = env.config.tick.max(Span::millis(1)).as_millis();
            let ticks = env.now.since(self.started).as_millis() / tick;
            let next = Span::millis(ticks.saturating_add(1).saturating_mul(tick));
            self.at(self.started.plus(next), Task::Entity(entity.number));
        } else {
            self.at(env.now.plus(env.config.event.times(2)), Task::Entity(entity.number));
        }
        self.plan_tools(entity.number, env);
    }
}
