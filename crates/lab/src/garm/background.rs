//! What GARM does besides its scale sets, as far as its log, its metrics or GitHub show it: the start and the end of
//! the process, pool managers, runner downloads, the quota, the collector of gauges. Recorded from real processes.

use super::config::LogLevel::{Debug, Error, Info, Warn};
use super::config::{Background, Metrics};
use super::counters::Op;
use super::db::{EntityRow, SetRow};
use super::deliver::say_instance_manager;
use super::env::{Env, Operation};
use super::log::{Attr, Attrs, By, attrs};
use super::process::{Died, Process, Task};
use super::render::Rate;
use super::stamp::scramble;
use super::worker::{Phase, say_closing};
use medic_core::model::{EntityKind, Span, Wall};
use serde_json::Value;
use std::sync::Arc;

/// Where GARM looks for its own agent. Nothing answers in the simulation, as in the recordings.
pub(super) const RELEASES: &str = "https://api.github.com/repos/cloudbase/garm-agent/releases";
const NO_AGENT_URL: &str = "failed to infer agent URL; please update controller info with proper URL";
const LOOPS: [&str; 9] = [
    "stale_job_reconciler",
    "timeout_reaper",
    "scale_down",
    "consolidate[delete_pending]",
    "consolidate[add_pending]",
    "consolidate[ensure_min_idle]",
    "consolidate[retry_failed]",
    "update_tools",
    "job_queue_consumer",
];

fn say_no_agent_url(times: usize, env: &mut Env<'_>) {
    if env.db.urls.callback.is_empty() {
        for _ in 0..times {
            env.say(Warn, NO_AGENT_URL, attrs!["error" => "URL cannot be empty"], By::Garm);
        }
    }
}

fn say_consumer(consumer: &str, env: &mut Env<'_>) {
    env.say(Info, "starting consumer", attrs!["consumer_id" => consumer], By::Watcher);
}

fn client_of(entity: &EntityRow, env: &Env<'_>) -> Attrs {
    attrs![
        "entity" => &entity.entity.name,
        "base_url" => env.config.api_base(),
        "upload_url" => env.config.upload_base(),
    ]
}

/// GARM builds a client of GitHub for an API call, and asks for the quota with it.
pub(super) fn say_client(entity: &EntityRow, env: &mut Env<'_>) {
    let attrs = client_of(entity, env);
    env.say(Debug, "creating client for entity", attrs, By::Garm);
}

pub(super) fn say_starting(env: &mut Env<'_>) {
    say_no_agent_url(2, env);
    let provider = || attrs!["provider" => "stub"];
    env.say(Info, "Loading provider", provider(), By::Garm);
    let entities: Vec<Arc<EntityRow>> = env.db.entities.values().map(Arc::clone).collect();
    for entity in &entities {
        let msg = format!("creating pool manager for {}", entity.entity.kind);
        let name = match entity.entity.kind {
            EntityKind::Repository => "repo_name",
            EntityKind::Organization => "org_name",
            EntityKind::Enterprise => "enterprise_name",
        };
        env.say(Info, &msg, vec![(name, Attr::from(&entity.entity.name))], By::Garm);
    }
    env.say(Debug, "starting cache worker", attrs![], By::Named("cache"));
    say_no_agent_url(1, env);
    env.say(Info, "Loading provider", provider(), By::Garm);
    for consumer in ["cache", "garm-tools-sync"] {
        say_consumer(consumer, env);
    }
    for name in env.db.instances.values().map(|row| row.name.clone()).collect::<Vec<_>>() {
        say_instance_manager(&name, env);
    }
    for consumer in ["provider-worker", "entity-controller"] {
        say_consumer(consumer, env);
    }
    say_no_agent_url(1, env);
}

impl Process {
    /// An entity's pool manager begins, and the updater of its runner downloads.
    pub(super) fn watch_pool(&mut self, number: u64, writes_state: Wall, env: &mut Env<'_>) {
        let Some(entity) = env.db.entities.get(&number).cloned() else { return };
        let by = By::Pool(&entity);
        let attrs = client_of(&entity, env);
        env.say(Debug, "creating client for entity", attrs, by);
        let consumer = || attrs!["consumer_id" => entity.pool_manager()];
        env.say(Info, "registering consumer", consumer(), by);
        env.say(Info, "starting consumer", consumer(), By::Watcher);
        let updater = entity.tools_updater();
        let attrs = attrs!["entity" => &entity.entity.name, "forge_type" => "github"];
        env.say(Debug, "starting tools updater", attrs, By::Named(&updater));
        env.say(Info, "cleaning up instances that were interrupted in flight", attrs![], by);
        env.say(Info, "running initial tool update", attrs![], By::Garm);
        self.wait_for_tools(number, false, env);
        let jitter = Span::millis(scramble(number ^ self.started.0) % 3_000);
        self.at(env.now.plus(jitter), Task::Tools(number));
        self.at(writes_state, Task::PoolState(number));
    }

    /// Looks each second until the downloads are known.
    pub(super) fn wait_for_tools(&mut self, number: u64, again: bool, env: &mut Env<'_>) {
        let Some(entity) = env.db.entities.get(&number).cloned() else { return };
        let by = By::Pool(&entity);
        if !self.tools.contains(&number) {
            if !again || env.config.is_noisy() {
                env.say(Debug, "waiting for tools to be available", attrs![], by);
            }
            self.at(env.now.plus(Span::secs(1)), Task::WaitForTools(number, true));
            return;
        }
        env.say(Debug, "successfully updated tools", attrs![], by);
        for name in LOOPS {
            env.say(Info, "starting loop for entity", attrs!["loop_name" => name], by);
        }
        self.pools.insert(number);
        let updated = env.db.stamp(env.now);
        let mut row = (*entity).clone();
        row.updated = updated;
        let row = Arc::new(row);
        env.db.entities.insert(number, Arc::clone(&row));
        env.entity_changed(&row, Operation::Update);
        if env.config.is_noisy() {
            self.at(env.now.plus(Span::secs(5)), Task::Pool(number));
        }
    }

    pub(super) fn fetch_tools(&mut self, number: u64, env: &mut Env<'_>) {
        let Some(entity) = env.db.entities.get(&number).cloned() else { return };
        let updater = entity.tools_updater();
        let by = By::Named(&updater);
        let late = vec![("last_update", Attr::Never), ("deadline", Attr::from("0001-01-01T00:40:00Z"))];
        env.say(Debug, "last update after deadline", late, by);
        let mut attrs = vec![("last_update", Attr::Never)];
        attrs.extend(attrs!["entity" => &entity.entity.name, "forge_type" => "github"]);
        env.say(Debug, "updating tools", attrs, by);
        let attrs = client_of(&entity, env);
        env.say(Debug, "creating client for entity", attrs, by);
        let op = Op::ListEntityRunnerApplicationDownloads;
        self.counters.begin(op, entity.entity.kind);
        if super::calls::rest(env, &format!("{}/actions/runners/downloads", entity.rest_path())).is_some() {
            env.say(Debug, "updating tools cache", attrs!["entity" => &entity.entity.name], by);
            self.tools.insert(number);
        } else {
            self.counters.fail(op, entity.entity.kind);
            env.say(Error, "failed to update tools", attrs!["error" => "failed to list runner downloads"], by);
            // Tried again at the next look, which comes each minute or three.
            let wait = Span::millis(60_000 + scramble(env.now.0) % 120_000);
            self.at(env.now.plus(wait), Task::Tools(number));
        }
    }

    /// The entity's worker and its scale set controller begin.
    pub(super) fn say_entity_starts(&self, entity: &EntityRow, env: &mut Env<'_>) {
        let worker = entity.worker();
        let controller = By::Named("entity-controller");
        if env.config.build.retries() {
            env.say(Info, "retrying failed worker", attrs!["entity_id" => &entity.uuid], controller);
        } else if self.is_open {
            let attrs = attrs!["entity_id" => &entity.uuid, "entity_type" => entity.entity.kind.as_str()];
            env.say(Info, "starting entity worker", attrs, controller);
        }
        let by = By::Named(&worker);
        env.say(Debug, "starting entity worker", attrs!["entity" => &worker], by);
        let attrs = client_of(entity, env);
        env.say(Debug, "creating client for entity", attrs, by);
        let by = By::Controller(entity);
        env.say(Debug, "starting scale set controller", attrs!["scale_set" => entity.controller()], by);
        // Spelt so in the original.
        env.say(Debug, "loaging scale sets", attrs!["entity" => &entity.entity.name], by);
    }

    /// The API listens from now on.
    pub(super) fn open(&mut self, env: &mut Env<'_>) {
        self.is_open = true;
        env.say(Info, "WebUI is disabled, skipping webapp routes", attrs![], By::Garm);
        match env.config.metrics {
            Metrics::Off => {}
            Metrics::Open | Metrics::Token => {
                for msg in ["setting up metric routes", "register metrics", "start metrics collection"] {
                    env.say(Info, msg, attrs![], By::Garm);
                }
                say_no_agent_url(1, env);
                self.collect(env);
            }
        }
        if env.config.debug_server {
            env.say(Info, "setting up debug routes", attrs![], By::Garm);
        }
    }
}

impl Process {
    pub(super) fn collect(&mut self, env: &mut Env<'_>) {
        if !env.config.is_noisy() {
            return;
        }
        let sets = env.config.build.retries().then_some("scale set");
        let what = ["", "organization", "enterprise", "repository", "provider", "pool"].into_iter();
        for what in what.chain(sets).chain(["instance", "health", "jobs"]) {
            let msg =
                if what.is_empty() { "collecting metrics".to_owned() } else { format!("collecting {what} metrics") };
            env.say(Debug, &msg, attrs![], By::Garm);
        }
        self.at(env.now.plus(env.config.metrics_period.max(Span::secs(1))), Task::Collect);
    }

    pub(super) fn pool_loops(&mut self, number: u64, env: &mut Env<'_>) {
        let Some(entity) = env.db.entities.get(&number).cloned() else { return };
        let by = By::Pool(&entity);
        let jobs: Vec<_> = self.jobs.range((number, 0)..=(number, u64::MAX)).map(|(_, since)| *since).collect();
        let count = u64::try_from(jobs.len()).unwrap_or(u64::MAX);
        env.say(Debug, "found queued jobs", attrs!["job_count" => count], by);
        let young = jobs.iter().filter(|since| env.now.since(**since) < Span::secs(30)).count();
        for _ in 0..young {
            let attrs = attrs!["backoff_interval" => 30_u64, "job_id" => 0_u64];
            env.say(Debug, "job backoff not reached", attrs, by);
        }
        env.say(Debug, "removing instances in pending_delete", attrs![], by);
        self.at(env.now.plus(Span::secs(5)), Task::Pool(number));
    }

    /// Every 30 s; it costs no quota.
    pub(super) fn ask_rate(&mut self, env: &mut Env<'_>) {
        let pause = match env.config.background {
            Background::AsRecorded => Span::secs(30),
            Background::StartOnly => Span::mins(5),
        };
        self.at(env.now.plus(pause), Task::Rate);
        // One credential serves all; its failures count under the scope of the first entity.
        let Some(kind) = env.db.entities.values().next().map(|row| row.entity.kind) else { return };
        if self.rate.is_none() {
            let attrs = attrs!["base_url" => env.config.api_base(), "upload_url" => env.config.upload_base()];
            env.say(Debug, "creating rate limit client", attrs, By::Named("cache"));
        }
        let answer = super::calls::rest(env, "rate_limit");
        let core = answer.as_ref().and_then(|answer| answer.pointer("/resources/core"));
        let Some(core) = core else {
            self.counters.fail(Op::GetRateLimit, kind);
            return;
        };
        let number = |name: &str| core.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.rate = Some(Rate {
            limit: number("limit"),
            used: number("used"),
            remaining: number("remaining"),
            reset: number("reset"),
        });
    }
}

/// GARM looks for its own agent, in vain.
pub(super) fn look_for_release(env: &mut Env<'_>) {
    if env.config.build.retries() {
        say_no_release("failed initial sync of GARM agent tools", env);
        return;
    }
    let by = By::Named("garm-tools-sync");
    let attrs = attrs!["url" => RELEASES, "sync_enabled" => false];
    env.say(Info, "fetching latest GARM agent release", attrs, by);
    let error = format!("failed to fetch latest release: {}", no_connection());
    env.say(Error, "failed initial sync of GARM agent tools", attrs!["error" => error], by);
}

/// A pool manager has written its state.
pub(super) fn pool_state(number: u64, env: &mut Env<'_>) {
    if let Some(entity) = env.db.entities.get(&number).cloned() {
        env.entity_changed(&entity, Operation::Update);
    }
}

pub(super) fn say_no_release(msg: &str, env: &mut Env<'_>) {
    let by = By::Named("garm-tools-sync");
    let mut attrs = attrs!["url" => RELEASES, "had_index" => false];
    attrs.push(("fetched_at", Attr::Never));
    env.say(Info, "refreshing GARM agent release index", attrs, by);
    let error = format!("failed to fetch release index: {}", no_connection());
    env.say(Error, msg, attrs!["error" => error], by);
}

fn no_connection() -> String {
    format!("failed to fetch URL {RELEASES}: Get \"{RELEASES}\": dial tcp 127.0.0.1:443: connect: connection refused")
}

impl Process {
    /// SIGTERM: sessions are deleted, entity by entity.
    pub(super) fn stop(&mut self, env: &mut Env<'_>) -> Result<(), Died> {
        let entities: Vec<Arc<EntityRow>> = self.controllers.values().map(|c| Arc::clone(&c.entity)).collect();
        for entity in &entities {
            if self.pools.contains(&entity.number) {
                for name in LOOPS {
                    env.say(Info, "pool loop exited", attrs!["loop_name" => name], By::Pool(entity));
                }
            }
        }
        say_stopping(&entities, env);
        for (id, set) in self.workers.keys().filter_map(|id| Some((*id, env.db.set(*id)?))).collect::<Vec<_>>() {
            self.stop_worker(id, &set, env)?;
        }
        for entity in &entities {
            let name = entity.controller();
            let attrs = || attrs!["entity" => &entity.entity.name];
            env.say(Debug, "stopped scale set controller", attrs(), By::Controller(entity));
            for consumer in [name, entity.worker(), entity.pool_manager()] {
                say_removed(&consumer, env);
            }
            let worker = entity.worker();
            env.say(Debug, "entity worker stopped", attrs!["entity" => &worker], By::Named(&worker));
        }
        for consumer in ["entity-controller", "provider-worker", "garm-tools-sync", "cache"] {
            say_removed(consumer, env);
        }
        let own = || attrs!["entity" => "entity-controller"];
        env.say(Debug, "stopped entity controller", own(), By::Named("entity-controller"));
        env.say(Info, "shutting down provider worker", attrs![], By::Garm);
        let waiting = if env.config.build.retries() { attrs![] } else { vec![("error", Attr::Json(Value::Null))] };
        env.say(Info, "waiting for runner to stop", waiting, By::Garm);
        Ok(())
    }

    fn stop_worker(&mut self, id: u64, set: &SetRow, env: &mut Env<'_>) -> Result<(), Died> {
        let attrs = || attrs!["scale_set" => set.worker()];
        env.say(Debug, "stopping scale set worker", attrs(), By::Worker(set));
        let Some(worker) = self.workers.get(&id) else { return Ok(()) };
        if worker.phase == Phase::Idle && env.config.build.retries() {
            env.say(Info, "worker is stopped; exiting keepListenerAlive", attrs![], By::Worker(set));
        }
        // A worker that hangs keeps its session, and dies with the process.
        if let Some(session) = worker.listener.as_ref().map(|listener| listener.session.clone())
            && worker.phase == Phase::Listening
        {
            say_closing(set, &session.id, env);
            let ask = super::calls::Ask::CloseSession(session);
            match super::calls::at_once(env, &mut self.counters, set, ask, None) {
                Ok(_) | Err(None) => {}
                Err(Some(failure)) if failure.status == Some(404) => return Err(Died::SessionNotFound),
                Err(Some(failure)) => {
                    let error = attrs!["error" => failure.text];
                    env.say(Error, "error deleting message session", error, By::Listener(set));
                }
            }
            self.cancel_poll(set, env);
            env.say(Debug, "stopping scale set listener", attrs![], By::Listener(set));
        }
        env.say(Debug, "context done", attrs![], By::Worker(set));
        say_removed(&set.worker(), env);
        Ok(())
    }
}

fn say_removed(consumer: &str, env: &mut Env<'_>) {
    env.say(Info, "removing consumer from watcher", attrs!["consumer_id" => consumer], By::Watcher);
}

fn say_stopping(entities: &[Arc<EntityRow>], env: &mut Env<'_>) {
    let cache = By::Named("cache");
    env.say(Debug, "context done", attrs![], cache);
    env.say(Debug, "stopping cache worker", attrs![], cache);
    let controller = By::Named("entity-controller");
    env.say(Debug, "stopping entity controller", attrs!["entity" => "entity-controller"], controller);
    env.say(Debug, "stopping entity controller", attrs![], controller);
    for entity in entities {
        let (worker, updater) = (entity.worker(), entity.tools_updater());
        env.say(Debug, "stopping tools updater", attrs![], By::Named(&updater));
        env.say(Debug, "stopping entity worker", attrs!["entity" => &worker], By::Named(&worker));
        env.say(Debug, "stopping entity worker", attrs![], By::Named(&worker));
        let by = By::Controller(entity);
        env.say(Debug, "stopping scale set controller", attrs!["scale_set" => entity.controller()], by);
        env.say(Debug, "stopping scaleset controller", attrs!["entity" => &entity.entity.name], by);
    }
    env.say(Info, "closing producer", attrs![], By::Watcher);
    env.say(Info, "removing producer from watcher", attrs!["consumer_id" => "sql"], By::Watcher);
    env.say(Info, "shutting down http server", attrs![], By::Garm);
    env.say(Info, "shutting down entity controller", attrs![], By::Garm);
}
