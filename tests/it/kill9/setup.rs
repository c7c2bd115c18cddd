//! A world that kills the medic when its n-th request arrives.

use crate::bench::{ConfigText, started};
use crate::sockets::{Medic, Running, Servers};
use medic_core::model::{ManagerName, SessionId, Span, Wall};
use medic_core::ports::write::Journal as _;
use medic_lab::backend::{Backend, ServerId};
use medic_lab::garm::Build;
use medic_lab::wire::{Answer, Request};
use medic_lab::world::{Fleet, World};
use medic_store::Store;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When the n-th request kills the medic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before it has an effect.
    Before,
    /// After its effect, before its answer.
    After,
    /// Milliseconds after its answer.
    Later(u64),
}

/// The medic's process. The handler of a request can kill it.
#[derive(Clone, Default)]
pub(super) struct Victim(Arc<Mutex<Option<Running>>>);

impl Victim {
    /// SIGKILL; waits for the end.
    pub(super) fn kill(&self) {
        drop(self.present().take());
    }

    fn present(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the requests to the servers.
pub(super) struct Trap {
    pub(super) world: World,
    victim: Victim,
    pub(super) requests: u32,
    armed: Option<(u32, When)>,
    /// The request that killed.
    pub(super) killed_by: Option<String>,
}

impl Trap {
    /// Counts from now on.
    pub(super) fn arm(&mut self, point: Option<(u32, When)>) {
        (self.requests, self.armed) = (0, point);
    }
}

impl Backend for Trap {
    fn handle(&mut self, server: ServerId, request: &Request, now: Wall) -> Answer {
        self.requests += 1;
        let due = self.armed.filter(|(at, _)| self.requests >= *at).map(|(_, when)| when);
        if due.is_some() {
            self.armed = None;
            self.killed_by = Some(format!("{} {}", request.method(), request.uri().path()));
        }
        if due == Some(When::Before) {
            self.victim.kill();
            return Answer::empty(503);
        }
        let answer = self.world.handle(server, request, now);
        match due {
            None | Some(When::Before) => {}
            Some(When::After) => self.victim.kill(),
            Some(When::Later(millis)) => {
                let victim = self.victim.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    victim.kill();
                });
            }
        }
        answer
    }
    fn is_up(&self, server: ServerId) -> bool {
        self.world.is_up(server)
    }
    fn advance(&mut self, now: Wall) {
        self.world.advance(now);
    }
    fn next_deadline(&self) -> Option<Wall> {
        self.world.next_deadline()
    }
    fn polled_session(&self, server: ServerId, request: &Request) -> Option<SessionId> {
        self.world.polled_session(server, request)
    }
    fn take_wakes(&mut self) -> Vec<SessionId> {
        self.world.take_wakes()
    }
    fn take_log(&mut self, server: ServerId) -> Vec<bytes::Bytes> {
        self.world.take_log(server)
    }
    fn take_events(&mut self, server: ServerId) -> Vec<bytes::Bytes> {
        self.world.take_events(server)
    }
}

/// The servers, and one medic's configuration and state.
pub(super) struct Setup {
    servers: Servers<Trap>,
    pub(super) victim: Victim,
    medic: Medic,
}

impl Setup {
    /// `logged`: the medic reads the log and the goroutines; `github`: it asks GitHub, too.
    pub(super) fn new(build: Build, stale: Span, logged: bool, github: bool) -> Self {
        let victim = Victim::default();
        let servers = Servers::serve(|origin, now| {
            let mut fleet = Fleet::new(build, 2, origin).each(|garm| garm.debug_server = true);
            fleet.github.stale_lifetime = stale;
            let world = started(&fleet, now);
            Trap { world, victim: victim.clone(), requests: 0, armed: None, killed_by: None }
        });
        let log_file = if logged { format!("log_file = \"{}\"\n", servers.log.display()) } else { String::new() };
        let medic = Medic::of_config(&ConfigText {
            mode: "heal",
            run: "interval = \"1s\"\nurgent_interval = \"500ms\"",
            managers: &[("garm", &servers.garm)],
            manager: &format!(
                "request_timeout = \"5s\"\nrequests_per_second = 200\ndebug_server = {logged}\n{log_file}"
            ),
            github: github.then_some("requests_per_second = 200"),
            policy: "settle = \"0s\"\nconfirm_strong = 1\nbackoff = [\"1s\"]\nbackoff_jitter = 0.0\nset_budget = 1000\n\
                     breaker_after = 100\nrestart_timeout = \"10s\"",
            ..ConfigText::default()
        });
        Self { servers, victim, medic }
    }

    pub(super) fn spawn(&self) {
        *self.victim.present() = Some(self.medic.spawn_logging());
    }

    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Trap, Wall) -> R) -> R {
        self.servers.hub.with(act)
    }

    pub(super) fn medic_is_alive(&self) -> bool {
        self.victim.present().as_mut().is_some_and(Running::is_alive)
    }

    /// The last lines of the medics' standard error.
    pub(super) fn stderr(&self) -> String {
        let text = self.medic.log();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The steps of the open treatments in the journal.
    pub(super) fn open_steps(&self) -> Vec<String> {
        let Ok(store) = Store::open(self.medic.dir.path()) else { return vec!["store unreadable".to_owned()] };
        let open = store.for_manager(&ManagerName::new("garm")).unfinished().unwrap_or_default();
        open.iter().map(|treatment| format!("{}/{}", treatment.remedy.kind(), treatment.step.label())).collect()
    }

    /// Sessions that the ledger calls alive.
    pub(super) fn known_sessions(&self) -> usize {
        let Ok(store) = Store::open(self.medic.dir.path()) else { return 0 };
        store.for_manager(&ManagerName::new("garm")).live_sessions().map_or(0, |sessions| sessions.len())
    }
}
