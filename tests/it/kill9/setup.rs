//! A world that kills the medic when its n-th request arrives.

use crate::bench::ConfigText;
use crate::sockets::{Servers, started};
use medic_core::model::{ManagerName, SessionId, Wall};
use medic_core::ports::write::Journal as _;
use medic_lab::backend::{Backend, ServerId};
use medic_lab::wire::{Answer, Request};
use medic_lab::world::{Fleet, World};
use medic_store::Store;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
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
pub(super) struct Victim(Arc<Mutex<Option<Child>>>);

impl Victim {
    pub(super) fn replace(&self, child: Child) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    }

    /// SIGKILL; waits for the end.
    pub(super) fn kill(&self) {
        if let Some(mut child) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn is_alive(&self) -> bool {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1 {
            self.kill();
        }
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
    dir: tempfile::TempDir,
    config: PathBuf,
}

/// The medic's sources besides API and metrics.
pub(super) struct Sources {
    pub(super) log: bool,
    pub(super) goroutines: bool,
    pub(super) github: bool,
}

impl Setup {
    pub(super) fn new(fleet: impl FnOnce(&str) -> Fleet, sources: &Sources) -> Self {
        let victim = Victim::default();
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("garm.log");
        let servers = Servers::serve(Some(&log), |github, now| {
            let world = started(&fleet(github).each(|garm| garm.debug_server = true), now);
            Trap { world, victim: victim.clone(), requests: 0, armed: None, killed_by: None }
        });
        let log_file = if sources.log { format!("log_file = \"{}\"\n", log.display()) } else { String::new() };
        let text = ConfigText {
            mode: "heal",
            run: "interval = \"1s\"\nurgent_interval = \"500ms\"",
            http: "listen = \"127.0.0.1:0\"",
            managers: &[("garm", &servers.garm)],
            manager: &format!(
                "request_timeout = \"5s\"\nrequests_per_second = 200\ndebug_server = {}\n{log_file}",
                sources.goroutines
            ),
            github: sources.github.then_some("requests_per_second = 200"),
            policy: "settle = \"0s\"\nconfirm_strong = 1\nbackoff = [\"1s\"]\nbackoff_jitter = 0.0\nset_budget = 1000\n\
                     breaker_after = 100\nrestart_timeout = \"10s\"",
            ..ConfigText::default()
        };
        let config = dir.path().join("medic.toml");
        std::fs::write(&config, text.write(dir.path())).unwrap();
        Self { servers, victim, dir, config }
    }

    pub(super) fn spawn(&self) {
        let errors =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("stderr")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
        command.arg("--config").arg(&self.config).arg("run").env_clear().current_dir(self.dir.path());
        self.victim.replace(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap());
    }

    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Trap, Wall) -> R) -> R {
        self.servers.hub.with(act)
    }

    pub(super) fn medic_is_alive(&self) -> bool {
        self.victim.is_alive()
    }

    /// The last lines of the medics' standard error.
    pub(super) fn stderr(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The steps of the open treatments in the journal.
    pub(super) fn open_steps(&self) -> Vec<String> {
        let Ok(store) = Store::open(self.dir.path()) else { return vec!["store unreadable".to_owned()] };
        let open = store.for_manager(&ManagerName::new("garm")).unfinished().unwrap_or_default();
        open.iter().map(|treatment| format!("{}/{}", treatment.remedy.kind(), treatment.step.label())).collect()
    }

    /// Sessions that the ledger calls alive.
    pub(super) fn known_sessions(&self) -> usize {
        let Ok(store) = Store::open(self.dir.path()) else { return 0 };
        store.for_manager(&ManagerName::new("garm")).live_sessions().map_or(0, |sessions| sessions.len())
    }
}
