//! The medic as the real program, a process of its own, and servers behind real sockets, by the real clock.
//!
//! Every way has its own world: a thread with its simulated GARM and GitHub on ports of their own, a directory of its
//! own, a medic of its own. The ways of a group wait for each other's minutes at the same time.

use super::stage::{Looks, Stage, Wires as Reach};
use super::ways::{Given, Outcome, Way};
use medic_clock::system_wall;
use medic_core::clock::Clock;
use medic_core::model::Span;
use medic_http::{ReqwestTransport, Transport, TransportOptions};
use medic_lab::backend::ServerId;
use medic_lab::endpoint_http::{HttpEndpoints, Sockets};
use scaleset_medic::exit::ExitCode;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// How long a medic may take to end when told to.
const END: Span = Span::secs(60);
/// Without an end, however long one waits.
const OFTEN: &[(Span, Span)] = &[(Span::hours(24), Span::millis(100))];

/// How long a fleet of so many sets is looked at.
pub(crate) fn looks(sets: u32) -> Looks {
    let patience = if sets > 100 { Span::mins(10) } else { Span::mins(5) };
    Looks { patience, every: OFTEN }
}

/// All of them at the same time.
pub(crate) fn measure(group: &[(&Way, u32)]) -> Vec<Outcome> {
    std::thread::scope(|threads| {
        let begun: Vec<_> = group.iter().map(|(way, sets)| threads.spawn(|| alone(way, *sets))).collect();
        begun.into_iter().map(|thread| thread.join().expect("a world that ends well")).collect()
    })
}

fn alone(way: &Way, sets: u32) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { stage(way, sets).run(way.healer, &looks(sets)).await })
}

fn stage(way: &Way, sets: u32) -> Stage {
    let sockets = Sockets::on_loopback(&[ServerId::Manager(0), ServerId::Github]).expect("free ports");
    let [garm, github] = [ServerId::Manager(0), ServerId::Github].map(|door| sockets.url(door).expect("an address"));
    let dir = tempfile::tempdir().expect("a directory");
    let wires = |hub: &_| Reach::Sockets(Wires { _doors: HttpEndpoints::serve(hub, sockets) });
    Stage::build(way, sets, system_wall(), [&garm, &github], dir, wires)
}

/// A client of its own: for the report's script.
pub(crate) fn client() -> Arc<dyn Transport> {
    Arc::new(ReqwestTransport::new(&TransportOptions::default()).expect("an HTTP client"))
}

pub(crate) struct Wires {
    _doors: HttpEndpoints,
}

impl Wires {
    /// The program, as cargo has built it for the bench.
    #[expect(clippy::unused_self, reason = "there are no servers to ask without them")]
    pub(crate) fn medic(&self, stage: &Stage, given: &Given) -> Medic {
        let dir = stage.dir.path();
        let config = dir.join("medic.toml");
        let text = format!("{}[http]\nlisten = \"127.0.0.1:0\"\n", stage.config(given));
        std::fs::write(&config, text).expect("a configuration");
        let told = dir.join("medic.log");
        let errors = std::fs::File::create(&told).expect("a file for what the medic says");
        let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
        command.arg("--config").arg(&config).arg("run").env_clear().current_dir(dir);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        Medic { child: child.expect("the medic"), told }
    }
}

/// The medic's process; killed when dropped.
pub(crate) struct Medic {
    child: Child,
    told: PathBuf,
}

impl Medic {
    /// SIGTERM, and its end. It must have lived until now, and end well: else the figure is of something else.
    pub(crate) async fn end(mut self, clock: &Arc<dyn Clock>) {
        assert!(self.ended().is_none(), "the medic ended by itself:\n{}", last_words(&self.told));
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill(1)");
        assert!(sent.success(), "SIGTERM could not be sent");
        for _ in 0..END.as_millis() / 50 {
            match self.ended() {
                Some(true) => return,
                Some(false) => panic!("the medic did not end well:\n{}", last_words(&self.told)),
                None => clock.sleep(Span::millis(50)).await,
            }
        }
        panic!("the medic did not end:\n{}", last_words(&self.told));
    }

    /// Whether it ended well, if it has.
    fn ended(&mut self) -> Option<bool> {
        let status = self.child.try_wait().expect("a process of ours")?;
        Some(status.code() == Some(ExitCode::Terminated.code().into()))
    }
}

impl Drop for Medic {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_words(told: &Path) -> String {
    let told = std::fs::read_to_string(told).unwrap_or_default();
    let lines: Vec<_> = told.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// How much of the machine's cores was busy, whoever it was, between two looks.
pub(crate) struct Load {
    busy: u64,
    all: u64,
}

impl Load {
    /// The look before. `None` where there is no `/proc/stat`.
    pub(crate) fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guests are counted in the first two.
        let all: u64 = ticks.iter().take(8).sum();
        Some(Self { busy: all - ticks.get(3)? - ticks.get(4)?, all })
    }

    /// Per cent since then.
    pub(crate) fn since(&self) -> Option<u64> {
        let now = Self::now()?;
        Some((now.busy - self.busy) * 100 / (now.all - self.all).max(1))
    }
}
