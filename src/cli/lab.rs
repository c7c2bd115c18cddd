//! `lab`: the medic on embedded simulators of GARM and GitHub, over real sockets, in scaled time.

mod console;

use super::args::{LabArgs, LabBuild};
use super::output::data;
use super::{Failure, medic};
use crate::config::{Config, Depth, ManagerConfig, Sources, check};
use crate::engine::assemble::{Runtime, Shared, engines, real_carrier};
use crate::engine::lease::Lease;
use crate::engine::service::{Publisher, run as serve};
use crate::exit::ExitCode;
use crate::metrics::Metrics;
use crate::status::ManagerStatus;
use crate::text::words;
use crate::web::server::Board;
use anyhow::{Context as _, anyhow};
use console::Command;
use medic_clock::{ScaledClock, system_wall};
use medic_core::clock::Clock;
use medic_core::model::{Decision, Diagnosis, ManagerName, ScaleSetId, Span, Wall};
use medic_lab::backend::ServerId;
use medic_lab::endpoint_http::{HttpEndpoints, Sockets};
use medic_lab::garm::Build;
use medic_lab::hub::{Hub, Pump};
use medic_lab::scenario::{Ending, SCENARIOS, Scenario, Step};
use medic_lab::world::{Fleet, MEDIC_TOKEN, World};
use medic_store::Store;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// The default speed of simulated time.
const SPEED: f64 = 10.0;
/// The default with `--serve`: the other commands go by the same clock.
const REAL_TIME: f64 = 1.0;
/// The default scenario with `--serve`: it starts soon, and its sets are stuck long enough to be inspected.
const SERVED: &str = "crash-soon";
/// Where the status page is served, if the port is free.
const LISTEN: &str = "127.0.0.1:9810";
/// The medic's configuration, in the directory of its state.
const CONFIG: &str = "config.toml";
/// How often the simulated servers and the status are read.
const TICK: Span = Span::millis(500);
/// How often the sets are checked for one that the medic disabled: it must be noticed before it is enabled again.
const DISABLED_TICK: Span = Span::millis(50);

pub(super) fn run(args: &LabArgs) -> Result<ExitCode, Failure> {
    if args.list {
        for scenario in SCENARIOS {
            data(&format!("{:<22} {}\n", scenario.name, scenario.about))?;
        }
        return Ok(ExitCode::Well);
    }
    let scenario = match (&args.scenario, args.serve) {
        (Some(name), _) => Scenario::named(name),
        (None, true) => Scenario::named(SERVED),
        (None, false) => SCENARIOS.first(),
    };
    let scenario =
        scenario.ok_or_else(|| Failure::Usage("no such scenario; `lab --list` shows all scenarios".to_owned()))?;
    medic::runtime()?.block_on(play(args, scenario))?
}

async fn play(args: &LabArgs, scenario: &'static Scenario) -> Result<ExitCode, Failure> {
    let build = match args.build {
        LabBuild::Prefix => Build::PreFix,
        LabBuild::Postfix => Build::PostFix,
        LabBuild::ListenerMetrics => Build::ListenerMetrics,
    };
    let speed = args.speed.unwrap_or(if args.serve { REAL_TIME } else { SPEED });
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(system_wall(), speed));
    let managers = usize::from(args.managers);
    let servers: Vec<_> = (0..managers).map(ServerId::Manager).chain([ServerId::Github]).collect();
    let sockets = Sockets::on_loopback(&servers).context("no port for the simulators")?;
    let url = |server| sockets.url(server).ok_or_else(|| anyhow!("no address for {server}"));
    let (garm_url, github_url) = (url(ServerId::Manager(0))?, url(ServerId::Github)?);

    let hanging: Vec<_> = (1..managers).map(|manager| url(ServerId::Manager(manager))).collect();
    let fleet = Fleet::new(build, args.sets, &github_url).managers(managers);
    let mut fleet = fleet.each(|garm| garm.debug_server = true);
    if let Some(span) = args.stale_session {
        fleet.github.stale_lifetime = span;
    }
    let stale = fleet.github.stale_lifetime;
    let began = clock.now().wall;
    let hub = Hub::new(World::new(&fleet, began), Arc::clone(&clock));
    hub.with(|world, now| {
        for manager in 0..managers {
            world.start(manager, now);
        }
        for manager in 1..managers {
            if let Some((garm, _)) = world.garm_mut(manager) {
                garm.hang_until(now.plus(Span::hours(24 * 365)));
            }
        }
    });
    let _pump = Pump::start(&hub);
    let _endpoints = HttpEndpoints::serve(&hub, sockets);

    let dir = tempfile::tempdir().context("cannot create a directory for the lab's state")?;
    let log = dir.path().join("garm.log");
    hub.log_to_file(ServerId::Manager(0), &log).map_err(Failure::internal)?;
    let log =
        if scenario.ledger || args.ledger { format!("log_file = \"{}\"\n", log.display()) } else { String::new() };
    let listener = listener(args.listen).await?;
    let page = listener.local_addr().map_err(Failure::internal)?;
    let password = fleet.managers.first().map(|manager| manager.password.clone()).unwrap_or_default();
    let config = configure(dir.path(), &args.mode, page, (&garm_url, &password), &log)?;
    let config = with_hanging(config, hanging)?;
    let shared = shared(&config, &clock)?;
    let publisher = Arc::new(Publisher {
        board: Arc::new(Board::default()),
        metrics: Arc::clone(&shared.metrics),
        clock: Arc::clone(&clock),
        mode: config.run.mode,
        interval: config.run.interval,
        order: config.managers.iter().map(|manager| manager.name.clone()).collect(),
        latest: Mutex::default(),
    });
    let does = if args.mode == "heal" { "heals" } else { "only observes" };
    data(&format!(
        "{}: {}.\n{} scale sets on a simulated GARM ({garm_url}) and GitHub ({github_url}); GitHub forgets a stale \
         session after {stale}.\nThe medic {does}; its status page is http://{page}/ . {}.\n{}\n",
        scenario.name,
        scenario.about,
        args.sets,
        pace(speed),
        timetable(scenario, speed, stale)
    ))?;
    let places = format!(
        "Status page   http://{page}/\nMetrics       http://{page}/metrics\nAs JSON       http://{page}/api/v1/status\n\
         One set       {} --config {} explain linux-0\n{}",
        this_tool(),
        dir.path().join(CONFIG).display(),
        if args.serve { clocks(speed) } else { "" }
    );
    let engines = engines(&config, &shared, &real_carrier)?;
    let (end, ended) = oneshot::channel::<()>();
    let service = serve(
        engines,
        Arc::clone(&publisher),
        Arc::clone(&shared.lease),
        Some(listener),
        config.run.shutdown_limit,
        async {
            let _ = ended.await;
        },
    );
    let demo = Demo { scenario, build, hub, clock, board: Arc::clone(&publisher.board), began, places };
    let show = async {
        let shown = if args.serve { demo.serve().await } else { demo.show(&mut Shown::default()).await };
        let _ = end.send(());
        shown
    };
    let (served, shown) = tokio::join!(service, show);
    served.map_err(Failure::internal)?;
    shown
}

/// When the scenario's crash comes, and for how long its sets are stuck, in real seconds.
fn timetable(scenario: &Scenario, speed: f64, stale: Span) -> String {
    let Some((at, _)) = scenario.steps.iter().find(|(_, step)| *step == Step::Kill) else { return String::new() };
    let real = |span: Span| span.as_secs_f64() / speed;
    let end = if scenario.ledger {
        "the medic deletes the stale sessions within seconds".to_owned()
    } else {
        format!(
            "its sets are stuck until GitHub forgets the stale sessions, about {:.0} s from now",
            real(at.plus(stale))
        )
    };
    format!("GARM is killed {:.0} s from now; {end}.\n", real(*at))
}

fn pace(speed: f64) -> String {
    if is_real_time(speed) {
        "The lab runs in real time".to_owned()
    } else {
        format!("The lab runs {speed} times as fast as real time")
    }
}

fn is_real_time(speed: f64) -> bool {
    (speed - REAL_TIME).abs() < f64::EPSILON
}

/// A warning about the commands that go by the machine's clock.
fn clocks(speed: f64) -> &'static str {
    if is_real_time(speed) {
        ""
    } else {
        "The commands pause --for, heal and doctor go by the machine's clock: use them with --speed 1 only.\n"
    }
}

/// How to call this program: by its name if the search path finds it, else by its path.
fn this_tool() -> String {
    const NAME: &str = "scaleset-medic";
    let Ok(here) = std::env::current_exe() else { return NAME.to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(NAME)).find(|file| file.is_file());
    let is_here = |file: std::path::PathBuf| {
        file.canonicalize().is_ok_and(|file| here.canonicalize().is_ok_and(|here| here == file))
    };
    if found.is_some_and(is_here) { NAME.to_owned() } else { here.display().to_string() }
}

/// At the requested address, else at the default one, else at any.
async fn listener(asked: Option<SocketAddr>) -> Result<TcpListener, Failure> {
    if let Some(address) = asked {
        let listener = TcpListener::bind(address).await;
        return Ok(listener.with_context(|| format!("cannot listen on {address} (--listen)"))?);
    }
    match TcpListener::bind(LISTEN).await {
        Ok(listener) => Ok(listener),
        Err(_) => Ok(TcpListener::bind("127.0.0.1:0").await.context("no port for the status page")?),
    }
}

/// Writes the medic's configuration to a file, for the other commands, and reads it.
fn configure(
    dir: &Path,
    mode: &str,
    page: SocketAddr,
    (garm, password): (&str, &str),
    log: &str,
) -> Result<Config, Failure> {
    let here = dir.display();
    write(dir, "password", password)?;
    write(dir, "token", MEDIC_TOKEN)?;
    let text = format!(
        "[run]\nmode = \"{mode}\"\nstate_dir = \"{here}\"\n[http]\nlisten = \"{page}\"\n[[manager]]\nname = \"garm\"\n\
         url = \"{garm}\"\nusername = \"admin\"\npassword_file = \"{here}/password\"\ndebug_server = true\n{log}\
         [[github]]\nendpoint = \"github.com\"\ntoken_file = \"{here}/token\"\n"
    );
    write(dir, CONFIG, &text)?;
    Ok(check(&Sources::of_text("the lab's configuration", text), Depth::Files)?.config)
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(name);
    let mut options = std::fs::OpenOptions::new();
    // The medic warns about secrets that others can read.
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Adds managers that accept requests and never answer.
fn with_hanging(mut config: Config, hanging: Vec<anyhow::Result<String>>) -> Result<Config, Failure> {
    let Some(first) = config.managers.first().cloned() else { return Ok(config) };
    for (number, address) in (2..).zip(hanging) {
        let url = address?.parse().map_err(Failure::internal)?;
        let name = ManagerName::new(format!("hangs-{number}"));
        config.managers.push(ManagerConfig { name, url, log_file: None, ..first.clone() });
    }
    Ok(config)
}

fn shared(config: &Config, clock: &Arc<dyn Clock>) -> Result<Shared, Failure> {
    let store = Store::open(&config.run.state_dir).map_err(Failure::internal)?;
    let names: Vec<_> = config.managers.iter().map(|manager| manager.name.clone()).collect();
    let metrics = Arc::new(Metrics::new(&names, config.run.mode).map_err(Failure::internal)?);
    let lease = Arc::new(Lease::new(store.clone(), "lab".to_owned(), Arc::clone(clock)));
    Ok(Shared { store, lease, clock: Arc::clone(clock), metrics, runtime: Runtime::default() })
}

struct Demo {
    scenario: &'static Scenario,
    build: Build,
    hub: Arc<Hub<World>>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
    began: Wall,
    places: String,
}

impl Demo {
    /// Runs the scenario, carries out typed commands meanwhile and afterwards, and ends on `quit` or a signal.
    async fn serve(&self) -> Result<ExitCode, Failure> {
        data(&format!("{}\n{}\n", self.places, console::help()))?;
        let mut shown = Shown::default();
        let mut commands = console::typed();
        tokio::select! {
            ended = self.show(&mut shown) => drop(ended?),
            () = self.carry_out_all(&mut commands) => return Ok(ExitCode::Well),
            signal = medic::signal() => return Ok(signal),
        }
        data(&format!("\nEverything keeps running; stop with Ctrl-C.\n{}", self.places))?;
        let watch = async {
            loop {
                self.print_changes(&mut shown)?;
                self.clock.sleep(TICK).await;
            }
        };
        tokio::select! {
            failed = watch => failed,
            () = self.carry_out_all(&mut commands) => Ok(ExitCode::Well),
            signal = medic::signal() => Ok(signal),
        }
    }

    /// Carries out typed commands until `quit`. Never ends once the input has ended.
    async fn carry_out_all(&self, commands: &mut mpsc::Receiver<Command>) {
        // Updates are refused once fewer sets than this are enabled.
        let mut refuse_below: Option<usize> = None;
        let mut is_open = true;
        loop {
            let command = tokio::select! {
                biased;
                () = self.disabled(refuse_below.unwrap_or_default()), if refuse_below.is_some() => {
                    refuse_below = None;
                    Command::RefuseUpdates
                }
                command = commands.recv(), if is_open => {
                    let Some(command) = command else {
                        is_open = false;
                        continue;
                    };
                    command
                }
                else => return std::future::pending().await,
            };
            if command == Command::RefuseEnable {
                refuse_below = Some(self.hub.with(|world, _| world.listening(0).1));
            } else if command == Command::Clear {
                refuse_below = None;
            }
            if command == Command::Quit || self.carry_out(command).await.is_err() {
                return;
            }
        }
    }

    /// Resolves once fewer sets than this are enabled.
    async fn disabled(&self, below: usize) {
        while self.hub.with(|world, _| world.listening(0).1) >= below {
            self.clock.sleep(DISABLED_TICK).await;
        }
    }

    async fn carry_out(&self, command: Command) -> Result<(), Failure> {
        let (now, text) = self.hub.with(|world, now| (now, command.apply(world, self.build, now)));
        match text {
            Some(text) => self.print(now, &text)?,
            None if command == Command::Help => data(&console::help())?,
            None => data(&self.places)?,
        }
        if command == Command::Crash {
            self.clock.sleep(console::DOWN).await;
            let (now, text) = self.hub.with(|world, now| (now, Step::Start.apply(world, self.build, now)));
            self.print(now, &text)?;
        }
        Ok(())
    }

    /// Prints what has changed in the medic's status.
    fn print_changes(&self, shown: &mut Shown) -> Result<(), Failure> {
        let now = self.clock.now().wall;
        if let Some(status) = self.board.status() {
            for line in status.managers.iter().flat_map(|manager| shown.changes(manager)) {
                self.print(now, &line)?;
            }
        }
        shown.jobs(&self.hub).map_or(Ok(()), |line| self.print(now, &line))
    }

    /// Runs the scenario and prints what happens, until the medic sees its ending too.
    async fn show(&self, shown: &mut Shown) -> Result<ExitCode, Failure> {
        let mut steps = self.scenario.steps.iter().peekable();
        let mut stuck: Option<Wall> = None;
        let mut recovered: Option<Wall> = None;
        loop {
            let now = self.clock.now().wall;
            let passed = now.since(self.began);
            if let Some((_, step)) = steps.next_if(|(at, _)| *at <= passed) {
                if *step == Step::RotateLog {
                    self.hub.rotate_log(ServerId::Manager(0)).map_err(Failure::internal)?;
                }
                let text = self.hub.with(|world, now| step.apply(world, self.build, now));
                self.print(now, &text)?;
            }
            self.print_changes(shown)?;
            let (listening, enabled) = self.hub.with(|world, _| world.listening(0));
            if listening < enabled && passed > Span::secs(10) {
                stuck.get_or_insert(now);
                recovered = None;
            }
            if listening == enabled && steps.peek().is_none() {
                recovered.get_or_insert(now);
            }
            if steps.peek().is_none() && self.hub.with(|world, _| self.scenario.has_ended(world)) {
                recovered.get_or_insert(now);
                if shown.agrees(self.scenario, enabled) {
                    return self.summary(stuck, recovered, now);
                }
            }
            if passed > self.scenario.steps_end().plus(self.scenario.limit) {
                self.print(now, "The scenario did not end in time.")?;
                return Ok(ExitCode::Internal);
            }
            self.clock.sleep(TICK).await;
        }
    }

    fn print(&self, now: Wall, text: &str) -> Result<(), Failure> {
        let passed = now.since(self.began).as_secs_f64();
        data(&format!("{passed:>7.1} s  {text}\n"))
    }

    fn summary(&self, stuck: Option<Wall>, recovered: Option<Wall>, now: Wall) -> Result<ExitCode, Failure> {
        let (writes, crashes) =
            self.hub.with(|world, _| world.garm(0).map_or((0, 0), |garm| (garm.writes().len(), garm.crashes())));
        self.table(stuck)?;
        let took = match (stuck, recovered) {
            (Some(stuck), Some(recovered)) => format!(
                "{} from the first set that stopped listening to the last that listened again",
                recovered.since(stuck)
            ),
            (_, _) => "no set stopped listening for long".to_owned(),
        };
        let alone = if self.build.retries() {
            "recovers once GitHub has forgotten the stale sessions"
        } else {
            "never recovers"
        };
        self.print(
            now,
            &format!(
                "End: {took}. The medic sent {writes} updates to GARM; GARM crashed {crashes} times. Without the \
                 medic, this build {alone}."
            ),
        )?;
        Ok(ExitCode::Well)
    }

    /// Every set at the end: its diagnosis, its treatment and its jobs.
    fn table(&self, stuck: Option<Wall>) -> Result<(), Failure> {
        let Some(status) = self.board.status() else { return Ok(()) };
        let mut out =
            String::from("\n  SET         NOW          OUT FOR     TREATED BY   JOBS DONE  WAITING  TO CLEAN UP\n");
        for set in status.managers.iter().flat_map(|manager| &manager.sets) {
            let jobs = self.hub.with(|world, _| set.github_id.map(|id| world.github.jobs(id))).unwrap_or_default();
            let well = matches!(set.finding.diagnosis, Diagnosis::Listening);
            let out_for = match stuck {
                Some(stuck) if well && set.finding.since > stuck => set.finding.since.since(stuck).to_string(),
                Some(_) | None => "-".to_owned(),
            };
            let treated = set.treatments.first().map_or("-", |row| row.remedy.as_str());
            let _ = writeln!(
                out,
                "  {:<11} {:<12} {out_for:<11} {treated:<12} {:<10} {:<8} {}",
                set.name,
                set.finding.diagnosis.as_str(),
                jobs.completed,
                jobs.waiting.saturating_add(jobs.assigned),
                set.lingering.deleted
            );
        }
        out.push('\n');
        data(&out)
    }
}

/// A runner finishes its job also while its set is stuck; only sets that listen receive new jobs.
fn finished(more: u64, done: u64, listening: usize, enabled: usize) -> Option<String> {
    let jobs = if more == 1 { "1 job finishes".to_owned() } else { format!("{more} jobs finish") };
    let text = match listening {
        _ if more == 0 => return None,
        0 => format!("{jobs} that had started before; no set receives new jobs."),
        some if some < enabled => format!("{jobs}; {some} of {enabled} sets receive new jobs."),
        _ => format!("{jobs}, {done} in all."),
    };
    Some(text)
}

/// What was printed already.
#[derive(Default)]
struct Shown {
    jobs: u64,
    diagnoses: BTreeMap<ScaleSetId, Diagnosis>,
    states: BTreeMap<ScaleSetId, String>,
    managers: BTreeMap<ManagerName, String>,
}

impl Shown {
    fn changes(&mut self, manager: &ManagerStatus) -> Vec<String> {
        let mut lines = Vec::new();
        let state = manager.state.to_string();
        if self.managers.get(&manager.name) != Some(&state) {
            lines.push(format!("The medic sees that GARM \"{}\" is {state}.", manager.name));
            self.managers.insert(manager.name.clone(), state);
        }
        for set in &manager.sets {
            let diagnosis = set.finding.diagnosis;
            let because = set.finding.evidence.first().map(|evidence| words::fact(&evidence.fact)).unwrap_or_default();
            let before = self.diagnoses.insert(set.id, diagnosis);
            if before != Some(diagnosis) && (before.is_some() || diagnosis != Diagnosis::Unknown) {
                lines.push(format!("  {}: {diagnosis} ({}): {because}", set.name, set.finding.confidence));
            }
            let doing = match &set.decision {
                Decision::Treating { treatment } => set
                    .treatments
                    .iter()
                    .find(|row| row.id == *treatment)
                    .map(|row| format!("{}: {}", row.remedy, row.state)),
                Decision::Escalate { escalation } => {
                    Some(format!("needs an operator: {}", words::escalation(escalation)))
                }
                Decision::Leave | Decision::Watch { .. } | Decision::Blocked { .. } | Decision::Treat { .. } => None,
            };
            match doing {
                Some(doing) if self.states.get(&set.id) != Some(&doing) => {
                    lines.push(format!("  {}: {doing}", set.name));
                    self.states.insert(set.id, doing);
                }
                Some(_) | None => {}
            }
        }
        lines
    }

    fn jobs(&mut self, hub: &Hub<World>) -> Option<String> {
        let (done, (listening, enabled)) = hub.with(|world, _| {
            let sets: Vec<_> = world.garm(0)?.scale_sets().map(|(_, _, set)| set).collect();
            Some((sets.iter().map(|set| world.github.jobs(*set).completed).sum(), world.listening(0)))
        })?;
        let more = u64::saturating_sub(done, std::mem::replace(&mut self.jobs, done));
        finished(more, done, listening, enabled)
    }

    /// Whether the medic has seen the ending of the scenario.
    fn agrees(&self, scenario: &Scenario, enabled: usize) -> bool {
        let listening = self.diagnoses.values().filter(|diagnosis| **diagnosis == Diagnosis::Listening).count();
        match scenario.ending {
            Ending::AllListen | Ending::AllListenAndJobsDone => listening >= enabled,
            Ending::AllButTheFirst => {
                listening.saturating_add(1) >= enabled
                    && self.diagnoses.values().any(|diagnosis| *diagnosis == Diagnosis::HeldElsewhere)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_reports_new_jobs_only_where_sets_listen() {
        assert_eq!(finished(0, 7, 4, 4), None);
        assert_eq!(finished(3, 7, 4, 4).unwrap(), "3 jobs finish, 7 in all.");
        assert_eq!(finished(1, 7, 1, 4).unwrap(), "1 job finishes; 1 of 4 sets receive new jobs.");
        let stuck = finished(3, 3, 0, 4).unwrap();
        assert_eq!(stuck, "3 jobs finish that had started before; no set receives new jobs.");
    }
}
