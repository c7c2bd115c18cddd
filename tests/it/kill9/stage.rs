//! A small world over sockets, whose servers kill the medic when its n-th request reaches them.

use medic_clock::{ScaledClock, system_wall};
use medic_core::clock::Clock;
use medic_core::model::{ManagerName, SessionId, Wall};
use medic_core::ports::write::Journal as _;
use medic_lab::backend::{Backend, ServerId};
use medic_lab::endpoint_http::{HttpEndpoints, Sockets};
use medic_lab::hub::{Hub, Pump};
use medic_lab::wire::{Answer, Request};
use medic_lab::world::{Fleet, MEDIC_TOKEN, World};
use medic_store::Store;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// When the n-th request kills its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// It has arrived and has no effect.
    Before,
    /// It has had its effect and is not answered.
    After,
    /// So many milliseconds after its answer.
    Later(u64),
}

/// The medic's process, killable from wherever its request arrives.
#[derive(Clone, Default)]
pub(super) struct Victim(Arc<Mutex<Option<Child>>>);

impl Victim {
    pub(super) fn is(&self, child: Child) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    }

    /// SIGKILL, and the end of it.
    pub(super) fn kill(&self) {
        if let Some(mut child) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn lives(&self) -> bool {
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

/// A world that counts what is asked of it.
pub(super) struct Trap {
    pub(super) world: World,
    victim: Victim,
    pub(super) asked: u32,
    armed: Option<(u32, When)>,
    /// What was asked when it sprang.
    pub(super) sprung: Option<String>,
}

impl Trap {
    /// Counts from here on.
    pub(super) fn arm(&mut self, point: Option<(u32, When)>) {
        (self.asked, self.armed) = (0, point);
    }

    fn spring(&mut self, request: &Request) {
        self.armed = None;
        self.sprung = Some(format!("{} {}", request.method(), request.uri().path()));
    }
}

impl Backend for Trap {
    fn handle(&mut self, door: ServerId, request: &Request, now: Wall) -> Answer {
        self.asked += 1;
        let due = self.armed.filter(|(at, _)| self.asked >= *at).map(|(_, when)| when);
        match due {
            None => self.world.handle(door, request, now),
            Some(When::Before) => {
                self.victim.kill();
                self.spring(request);
                Answer::empty(503)
            }
            Some(When::After) => {
                let answer = self.world.handle(door, request, now);
                self.victim.kill();
                self.spring(request);
                answer
            }
            Some(When::Later(millis)) => {
                let answer = self.world.handle(door, request, now);
                let victim = self.victim.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    victim.kill();
                });
                self.spring(request);
                answer
            }
        }
    }
    fn is_up(&self, door: ServerId) -> bool {
        self.world.is_up(door)
    }
    fn advance(&mut self, now: Wall) {
        self.world.advance(now);
    }
    fn next_deadline(&self) -> Option<Wall> {
        self.world.next_deadline()
    }
    fn polled_session(&self, door: ServerId, request: &Request) -> Option<SessionId> {
        self.world.polled_session(door, request)
    }
    fn take_wakes(&mut self) -> Vec<SessionId> {
        self.world.take_wakes()
    }
    fn take_log(&mut self, door: ServerId) -> Vec<bytes::Bytes> {
        self.world.take_log(door)
    }
    fn take_events(&mut self, door: ServerId) -> Vec<bytes::Bytes> {
        self.world.take_events(door)
    }
}

/// The world, its doors, and one medic's configuration and state.
pub(super) struct Stage {
    pub(super) hub: Arc<Hub<Trap>>,
    pub(super) victim: Victim,
    dir: tempfile::TempDir,
    config: PathBuf,
    _pump: Pump,
    _doors: HttpEndpoints,
}

/// What the medic is told besides the servers' addresses.
pub(super) struct Sight {
    pub(super) log: bool,
    pub(super) goroutines: bool,
    pub(super) github: bool,
}

impl Stage {
    pub(super) fn new(fleet: impl FnOnce(&str) -> Fleet, sight: &Sight) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(system_wall(), 1.0));
        let sockets = Sockets::on_loopback(&[ServerId::Manager(0), ServerId::Github]).unwrap();
        let (garm, github) = (sockets.url(ServerId::Manager(0)).unwrap(), sockets.url(ServerId::Github).unwrap());
        let world = World::new(&fleet(&github).each(|garm| garm.debug_server = true), clock.now().wall);
        let victim = Victim::default();
        let trap = Trap { world, victim: victim.clone(), asked: 0, armed: None, sprung: None };
        let hub = Hub::new(trap, clock);
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("garm.log");
        hub.log_to_file(ServerId::Manager(0), &log).unwrap();
        hub.with(|trap, now| trap.world.start(0, now));
        let (pump, doors) = (Pump::start(&hub), HttpEndpoints::serve(&hub, sockets));
        let config = write_config(dir.path(), &garm, sight);
        Self { _pump: pump, _doors: doors, hub, victim, dir, config }
    }

    pub(super) fn spawn(&self) {
        let errors =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("stderr")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
        command.arg("--config").arg(&self.config).arg("run").env_clear().current_dir(self.dir.path());
        self.victim.is(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap());
    }

    pub(super) fn with<R>(&self, look: impl FnOnce(&mut Trap, Wall) -> R) -> R {
        self.hub.with(look)
    }

    pub(super) fn medic_lives(&self) -> bool {
        self.victim.lives()
    }

    /// What the medics have said.
    pub(super) fn told(&self) -> String {
        let told = std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
        told.lines().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The steps of the treatments that the journal calls open.
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

fn write_config(dir: &std::path::Path, garm: &str, sight: &Sight) -> PathBuf {
    let (password, token) = (dir.join("password"), dir.join("token"));
    std::fs::write(&password, "correct horse battery staple").unwrap();
    std::fs::write(&token, MEDIC_TOKEN).unwrap();
    let mut text = format!(
        "[run]\nmode = \"heal\"\ninterval = \"1s\"\nurgent_interval = \"500ms\"\nstate_dir = \"{}\"\n[http]\nlisten = \
         \"127.0.0.1:0\"\n[[manager]]\nname = \"garm\"\nurl = \"{garm}\"\nusername = \"admin\"\npassword_file = \"{}\"\n\
         request_timeout = \"5s\"\nrequests_per_second = 200\ndebug_server = {}\n",
        dir.display(),
        password.display(),
        sight.goroutines
    );
    if sight.log {
        let _ = writeln!(text, "log_file = \"{}\"", dir.join("garm.log").display());
    }
    if sight.github {
        let _ = writeln!(
            text,
            "[[github]]\nendpoint = \"github.com\"\ntoken_file = \"{}\"\nrequests_per_second = 200",
            token.display()
        );
    }
    text.push_str(
        "[policy]\nsettle = \"0s\"\nconfirm_strong = 1\nbackoff = [\"1s\"]\nbackoff_jitter = 0.0\nset_budget = 1000\n\
         breaker_after = 100\nrestart_timeout = \"10s\"\n",
    );
    let config = dir.join("medic.toml");
    std::fs::write(&config, text).unwrap();
    config
}
