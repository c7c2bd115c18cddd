//! One world with one way to recover: the servers, the crash, and what is seen of the recovery. The same over sockets
//! and in virtual time, but for the wires and for how the medic is run.

use super::script::Script;
use super::ways::{DOWN, Given, Healer, Outcome, STALE, Way};
use super::{in_virtual_time, on_sockets};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{Span, Wall};
use medic_http::Transport;
use medic_lab::backend::ServerId;
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::{Fleet, MEDIC_TOKEN, World};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// From the start of everything to the crash: longer than a long poll, and than any settle time.
const CALM: Span = Span::secs(137);

/// How the servers are reached.
pub(crate) enum Wires {
    Inproc(in_virtual_time::Wires),
    Sockets(on_sockets::Wires),
}

/// A medic at work.
pub(crate) enum Medic {
    /// A task of this process.
    Task(in_virtual_time::Medic),
    /// A process of its own.
    Process(on_sockets::Medic),
}

impl Medic {
    /// SIGTERM, or what stands for it, and the end.
    pub(crate) async fn end(self, clock: &Arc<dyn Clock>) {
        match self {
            Self::Task(medic) => medic.end().await,
            Self::Process(medic) => medic.end(clock).await,
        }
    }
}

/// How long, and how closely, the sets are looked at.
pub(crate) struct Looks {
    /// After this, it is "never".
    pub(crate) patience: Span,
    /// Until when after the crash, how often.
    pub(crate) every: &'static [(Span, Span)],
}

/// The servers, and where the medic keeps its things.
pub(crate) struct Stage {
    pub(crate) hub: Arc<Hub<World>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: tempfile::TempDir,
    wires: Wires,
    garm: String,
    password: String,
    sets: usize,
    _pump: Pump,
}

impl Stage {
    /// GARM runs already, with a log file `garm.log` in a directory of its own. Needs a tokio runtime.
    pub(crate) fn build(
        way: &Way,
        sets: u32,
        start: Wall,
        addresses: [&str; 2],
        dir: tempfile::TempDir,
        wires: impl FnOnce(&Arc<Hub<World>>) -> Wires,
    ) -> Self {
        let [garm, github] = addresses;
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(start, 1.0));
        let mut fleet = Fleet::new(way.generation, sets, github);
        fleet.github.stale_lifetime = STALE;
        if way.doubling {
            fleet = fleet.each(|garm| (garm.retry, garm.retry_doubles_to) = (Span::secs(5), Some(Span::mins(5))));
        }
        let password = fleet.managers.first().map(|garm| garm.password.clone()).unwrap_or_default();
        let mut world = World::new(&fleet, start);
        world.start(0, start);
        let hub = Hub::new(world, Arc::clone(&clock));
        hub.log_to_file(ServerId::Manager(0), &dir.path().join("garm.log")).expect("GARM's log");
        Self {
            _pump: Pump::start(&hub),
            wires: wires(&hub),
            hub,
            clock,
            dir,
            garm: garm.to_owned(),
            password,
            sets: usize::try_from(sets).expect("a number of sets"),
        }
    }

    pub(crate) async fn run(self, healer: Healer, looks: &Looks) -> Outcome {
        let medic = healer.given().map(|given| self.medic(&given));
        self.clock.sleep(CALM).await;
        assert_eq!(self.hub.with(|world, _| world.listening(0)), (self.sets, self.sets), "all is well at first");
        self.wires.forget_requests();
        let killed = self.hub.with(|world, now| {
            world.kill(0, now);
            now
        });
        self.clock.sleep(DOWN).await;
        self.hub.with(|world, now| world.start(0, now));
        let script = Script {
            wires: self.wires.of_the_script(&self.hub),
            garm: self.garm.clone(),
            clock: Arc::clone(&self.clock),
            password: self.password.clone(),
            sets: u64::try_from(self.sets).expect("a number of sets"),
        };
        let script = tokio::spawn(script.run(healer));
        let (listening, late) = self.watch(killed, looks).await;
        script.abort();
        if let Some(medic) = medic {
            medic.end(&self.clock).await;
        }
        let (writes, crashes) =
            self.hub.with(|world, _| world.garm(0).map_or((0, 0), |garm| (garm.writes().len(), garm.crashes())));
        Outcome { requests: self.wires.forget_requests(), listening, writes, crashes, late }
    }

    /// When the first, half, and all of the sets listen; and by how much the latest look was late.
    async fn watch(&self, killed: Wall, looks: &Looks) -> ([Option<Span>; 3], Span) {
        let goals = [1, self.sets.div_ceil(2), self.sets];
        let (mut seen, mut late, mut due) = ([None; 3], Span::ZERO, killed);
        loop {
            let (now, (listening, enabled)) = self.hub.with(|world, now| (now, world.listening(0)));
            late = if due == killed { late } else { late.max(now.since(due)) };
            for (goal, seen) in goals.iter().zip(&mut seen) {
                if listening >= *goal && seen.is_none() {
                    *seen = Some(now.since(killed));
                }
            }
            let done = listening == self.sets && enabled == self.sets;
            if done || now.since(killed) >= looks.patience {
                seen[2] = done.then(|| now.since(killed));
                return (seen, late);
            }
            let every = looks.every.iter().find(|(until, _)| now.since(killed) < *until);
            let every = every.map_or(looks.patience, |(_, every)| *every);
            due = now.plus(every);
            self.clock.sleep(every).await;
        }
    }

    /// Starts a medic with the shipped defaults, but for what it is given.
    pub(crate) fn medic(&self, given: &Given) -> Medic {
        match &self.wires {
            Wires::Inproc(wires) => Medic::Task(wires.medic(self, given)),
            Wires::Sockets(wires) => Medic::Process(wires.medic(self, given)),
        }
    }

    /// The medic's configuration, without `[http]`; secrets are in files beside it.
    pub(crate) fn config(&self, given: &Given) -> String {
        let dir = self.dir.path();
        let secret = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).expect("a secret");
            dir.join(name).display().to_string()
        };
        let (password, token) = (secret("password", &self.password), secret("token", MEDIC_TOKEN));
        let Given { ledger, policy, pace } = given;
        let sight =
            if *ledger { format!("log_file = \"{}\"\n", dir.join("garm.log").display()) } else { String::new() };
        format!(
            "[run]\nmode = \"heal\"\nstate_dir = \"{}\"\n[policy]\n{policy}[[github]]\nendpoint = \"github.com\"\ntoken_file = \
             \"{token}\"\n{pace}[[manager]]\nname = \"garm\"\nurl = \"{}\"\nusername = \"admin\"\npassword_file = \
             \"{password}\"\n{pace}{sight}",
            self.state().display(),
            self.garm
        )
    }

    /// Where the medic keeps its store.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}

impl Wires {
    /// For the report's script: not the medic's.
    fn of_the_script(&self, hub: &Arc<Hub<World>>) -> Arc<dyn Transport> {
        match self {
            Self::Inproc(_) => in_virtual_time::doors(hub),
            Self::Sockets(_) => on_sockets::client(),
        }
    }

    /// What the medic asked so far, where it is counted; the count begins anew.
    fn forget_requests(&self) -> BTreeMap<String, usize> {
        match self {
            Self::Inproc(wires) => wires.forget_requests(),
            Self::Sockets(_) => BTreeMap::new(),
        }
    }
}
