//! `lab`: the real medic on embedded simulators of GARM and GitHub, over real sockets, in scaled time.

mod console;

use super::args::{LabArgs, LabBuild};
use super::output::data;
use super::{Failure, medic};
use crate::config::raw::Raw;
use crate::config::source::{FileText, Sources};
use crate::config::{Config, Depth, ManagerConfig, check};
use crate::engine::assemble::{Chance, Shared, engines, real_carrier};
use crate::engine::lease::Lease;
use crate::engine::service::{Publisher, run as serve};
use crate::exit::ExitCode;
use crate::metrics::Metrics;
use crate::status::ManagerStatus;
use crate::text::words;
use crate::web::server::Board;
use anyhow::{Context as _, anyhow};
use console::Order;
use medic_clock::{ScaledClock, system_wall};
use medic_core::clock::Clock;
use medic_core::model::{Decision, Diagnosis, ManagerName, ScaleSetId, Span, Wall};
use medic_lab::backend::DoorId;
use medic_lab::endpoint_http::{HttpDoors, Sockets};
use medic_lab::garm::Build;
use medic_lab::hub::{Hub, Pump};
use medic_lab::log_file::Rotation;
use medic_lab::scenario::{Act, STORIES, Story};
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

/// How fast simulated time passes, unless told.
const SPEED: f64 = 10.0;
/// The same with `--serve`: there is time to look, and the clock is that of the tool's other commands.
const SPEED_OF_LIFE: f64 = 1.0;
/// The story with `--serve`, unless told: it begins soon, and goes on for long enough to be looked at.
const SERVED: &str = "crash-soon";
/// Where the status page is served, if the port is free.
const LISTEN: &str = "127.0.0.1:9810";
/// The medic's configuration, in the directory of its state.
const CONFIG: &str = "config.toml";
/// How often the stage is looked at.
const TICK: Span = Span::millis(500);
/// How soon a set that the medic disables is noticed: sooner than it can enable it again.
const NOTICED: Span = Span::millis(50);

pub(super) fn run(args: &LabArgs) -> Result<ExitCode, Failure> {
    if args.list {
        for story in STORIES {
            data(&format!("{:<16} {}\n", story.name, story.about))?;
        }
        return Ok(ExitCode::Well);
    }
    let story = match (&args.scenario, args.serve) {
        (Some(name), _) => Story::named(name),
        (None, true) => Story::named(SERVED),
        (None, false) => STORIES.first(),
    };
    let story = story.ok_or_else(|| Failure::Usage("no such story; `lab --list` shows them".to_owned()))?;
    medic::runtime()?.block_on(play(args, story))?
}

async fn play(args: &LabArgs, story: &'static Story) -> Result<ExitCode, Failure> {
    let build = match args.build {
        LabBuild::Prefix => Build::PreFix,
        LabBuild::Postfix => Build::PostFix,
        LabBuild::ListenerMetrics => Build::ListenerMetrics,
    };
    let speed = args.speed.unwrap_or(if args.serve { SPEED_OF_LIFE } else { SPEED });
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(system_wall(), speed));
    let managers = usize::from(args.managers);
    let doors: Vec<_> = (0..managers).map(DoorId::Manager).chain([DoorId::Github]).collect();
    let sockets = Sockets::on_loopback(&doors).context("no port for the simulators")?;
    let url = |door| sockets.url(door).ok_or_else(|| anyhow!("no address for {door}"));
    let (garm_url, github_url) = (url(DoorId::Manager(0))?, url(DoorId::Github)?);

    let hanging: Vec<_> = doors.iter().skip(1).filter(|door| **door != DoorId::Github).map(|door| url(*door)).collect();
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
    let _doors = HttpDoors::serve(&hub, sockets);

    let dir = tempfile::tempdir().context("no place for the lab's state")?;
    let log = dir.path().join("garm.log");
    hub.log_to_file(DoorId::Manager(0), &log).map_err(Failure::internal)?;
    let log = (story.ledger || args.ledger).then_some(log.as_path());
    let listener = listener(args.listen).await?;
    let page = listener.local_addr().map_err(Failure::internal)?;
    let password = fleet.managers.first().map(|manager| manager.password.clone()).unwrap_or_default();
    let config =
        Given { dir: dir.path(), log, garm: &garm_url, password: &password, mode: &args.mode, page }.config()?;
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
    let does = if args.mode == "heal" { "heals" } else { "watches and writes nothing" };
    data(&format!(
        "{}: {}.\n{} scale sets on a simulated GARM ({garm_url}) and GitHub ({github_url}); GitHub forgets a stale \
         session after {stale}.\nThe medic {does}; its status page is http://{page}/ . {}.\n{}\n",
        story.name,
        story.about,
        args.sets,
        pace(speed),
        timetable(story, speed, stale)
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
    let stage = Stage { story, build, hub, clock, board: Arc::clone(&publisher.board), began, places };
    let show = async {
        let shown = if args.serve { stage.serve().await } else { stage.show(&mut Told::default()).await };
        let _ = end.send(());
        shown
    };
    let (served, shown) = tokio::join!(service, show);
    served.map_err(Failure::internal)?;
    shown
}

/// When a crash of the story comes, and for how long its sets are stuck, in a spectator's seconds.
fn timetable(story: &Story, speed: f64, stale: Span) -> String {
    let Some((at, _)) = story.acts.iter().find(|(_, act)| *act == Act::Kill) else { return String::new() };
    let real = |span: Span| span.as_secs_f64() / speed;
    let end = if story.ledger {
        "the medic ends the stale sessions within seconds".to_owned()
    } else {
        format!(
            "its sets are stuck until GitHub forgets the stale sessions, about {:.0} s from now",
            real(at.plus(stale))
        )
    };
    format!("GARM is killed {:.0} s from now; {end}.\n", real(*at))
}

/// How fast the lab's time runs.
fn pace(speed: f64) -> String {
    if is_pace_of_life(speed) {
        "Time runs as it does for you".to_owned()
    } else {
        format!("Time runs {speed} times as fast")
    }
}

fn is_pace_of_life(speed: f64) -> bool {
    (speed - SPEED_OF_LIFE).abs() < f64::EPSILON
}

/// What is true of the other commands beside this lab, whose clocks are the machine's.
fn clocks(speed: f64) -> &'static str {
    if is_pace_of_life(speed) {
        ""
    } else {
        "At this speed the lab's clock leaves the machine's: the commands pause --for, heal and doctor go by the latter and \
         are wrong here. They want --speed 1.\n"
    }
}

/// How this program can be called again: by its name where the search path leads to it, else by its place.
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

/// Where it was asked for, else the usual place, else any.
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

/// What the medic's configuration is made of.
struct Given<'a> {
    dir: &'a Path,
    log: Option<&'a Path>,
    garm: &'a str,
    password: &'a str,
    mode: &'a str,
    page: SocketAddr,
}

impl Given<'_> {
    /// Writes it to a file, for other commands of the tool, and reads it.
    fn config(&self) -> Result<Config, Failure> {
        let dir = self.dir.display();
        let garm = self.garm;
        self.write("password", self.password)?;
        self.write("token", MEDIC_TOKEN)?;
        let log = self.log.map_or_else(String::new, |path| format!("log_file = \"{}\"\n", path.display()));
        let text = format!(
            "[run]\nmode = \"{}\"\nstate_dir = \"{dir}\"\n[http]\nlisten = \"{}\"\n[[manager]]\nname = \"garm\"\nurl = \
             \"{garm}\"\nusername = \"admin\"\npassword_file = \"{dir}/password\"\ndebug_server = true\n{log}[[github]]\n\
             endpoint = \"github.com\"\ntoken_file = \"{dir}/token\"\n",
            self.mode, self.page
        );
        self.write(CONFIG, &text)?;
        let file = Some(FileText { name: "the lab's configuration".to_owned(), text });
        Ok(check(&Raw::read(&Sources { file, ..Sources::default() }), Depth::Files)?.config)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        let mut options = std::fs::OpenOptions::new();
        // Secrets of simulators too, so that the tool does not warn of its own lab.
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// With managers that hang, beside the one on stage.
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
    Ok(Shared { store, lease, clock: Arc::clone(clock), metrics, chance: Chance::default() })
}

/// The stage, as a spectator sees it.
struct Stage {
    story: &'static Story,
    build: Build,
    hub: Arc<Hub<World>>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
    began: Wall,
    places: String,
}

impl Stage {
    /// Plays the story, obeys what is typed meanwhile and afterwards, and ends when told to.
    async fn serve(&self) -> Result<ExitCode, Failure> {
        data(&format!("{}\n{}\n", self.places, console::help()))?;
        let mut told = Told::default();
        let mut orders = console::typed();
        tokio::select! {
            shown = self.show(&mut told) => drop(shown?),
            () = self.obey(&mut orders) => return Ok(ExitCode::Well),
            signal = medic::signal() => return Ok(signal.exit_code()),
        }
        data(&format!("\nEverything keeps running; stop with Ctrl-C.\n{}", self.places))?;
        let watch = async {
            loop {
                self.tell(&mut told)?;
                self.clock.sleep(TICK).await;
            }
        };
        tokio::select! {
            failed = watch => failed,
            () = self.obey(&mut orders) => Ok(ExitCode::Well),
            signal = medic::signal() => Ok(signal.exit_code()),
        }
    }

    /// Obeys what is typed, until that is to quit. Where nothing can be typed any more, for ever. Nothing that is waited
    /// for keeps other orders waiting.
    async fn obey(&self, orders: &mut mpsc::Receiver<Order>) {
        // While updates shall be refused once a set has been disabled: how many were enabled.
        let mut refuse_below: Option<usize> = None;
        let mut is_open = true;
        loop {
            let order = tokio::select! {
                biased;
                () = self.disabled(refuse_below.unwrap_or_default()), if refuse_below.is_some() => {
                    refuse_below = None;
                    Order::RefuseUpdates
                }
                order = orders.recv(), if is_open => {
                    let Some(order) = order else {
                        is_open = false;
                        continue;
                    };
                    order
                }
                else => return std::future::pending().await,
            };
            match order {
                Order::Quit => return,
                Order::RefuseEnable => refuse_below = Some(self.hub.with(|world, _| world.listening(0).1)),
                Order::Well => refuse_below = None,
                Order::Act(_)
                | Order::Crash
                | Order::Stale(_)
                | Order::RefuseUpdates
                | Order::RevokeManager
                | Order::NoQuota(_)
                | Order::Where
                | Order::Help => {}
            }
            if self.carry_out(order).await.is_err() {
                return;
            }
        }
    }

    /// Resolves once fewer sets than so many are enabled.
    async fn disabled(&self, below: usize) {
        while self.hub.with(|world, _| world.listening(0).1) >= below {
            self.clock.sleep(NOTICED).await;
        }
    }

    async fn carry_out(&self, order: Order) -> Result<(), Failure> {
        let (now, words) = self.hub.with(|world, now| (now, order.happen(world, self.build, now)));
        match order {
            Order::Help => data(&console::help())?,
            Order::Where => data(&self.places)?,
            Order::Act(_)
            | Order::Crash
            | Order::Stale(_)
            | Order::RefuseUpdates
            | Order::RefuseEnable
            | Order::RevokeManager
            | Order::NoQuota(_)
            | Order::Well
            | Order::Quit => words.map_or(Ok(()), |words| self.say(now, &words))?,
        }
        if order == Order::Crash {
            self.clock.sleep(console::DOWN).await;
            let (now, words) = self.hub.with(|world, now| (now, Act::Start.happen(world, self.build, now)));
            self.say(now, &words)?;
        }
        Ok(())
    }

    /// Says what has changed in the medic's eyes.
    fn tell(&self, told: &mut Told) -> Result<(), Failure> {
        let now = self.clock.now().wall;
        if let Some(status) = self.board.status() {
            for line in status.managers.iter().flat_map(|manager| told.changes(manager)) {
                self.say(now, &line)?;
            }
        }
        told.jobs(&self.hub).map_or(Ok(()), |line| self.say(now, &line))
    }

    /// Plays the story and tells what happens, until its ending is seen by the medic too.
    async fn show(&self, told: &mut Told) -> Result<ExitCode, Failure> {
        let mut acts = self.story.acts.iter().peekable();
        let mut hurt: Option<Wall> = None;
        let mut healed: Option<Wall> = None;
        loop {
            let now = self.clock.now().wall;
            let passed = now.since(self.began);
            if let Some((_, act)) = acts.next_if(|(at, _)| *at <= passed) {
                if *act == Act::RotateLog {
                    self.hub.rotate_log(DoorId::Manager(0), Rotation::Rename).map_err(Failure::internal)?;
                }
                let words = self.hub.with(|world, now| act.happen(world, self.build, now));
                self.say(now, &words)?;
            }
            self.tell(told)?;
            let (listening, enabled) = self.hub.with(|world, _| world.listening(0));
            if listening < enabled && passed > Span::secs(10) {
                hurt.get_or_insert(now);
                healed = None;
            }
            if listening == enabled && acts.peek().is_none() {
                healed.get_or_insert(now);
            }
            if acts.peek().is_none() && self.hub.with(|world, _| self.story.has_ended(world)) {
                healed.get_or_insert(now);
                if told.agrees(self.story, enabled) {
                    return self.summary(hurt, healed, now);
                }
            }
            if passed > self.story.acts_end().plus(self.story.limit) {
                self.say(now, "The story did not come to its ending in time.")?;
                return Ok(ExitCode::Internal);
            }
            self.clock.sleep(TICK).await;
        }
    }

    fn say(&self, now: Wall, words: &str) -> Result<(), Failure> {
        let passed = now.since(self.began).as_secs_f64();
        data(&format!("{passed:>7.1} s  {words}\n"))
    }

    fn summary(&self, hurt: Option<Wall>, healed: Option<Wall>, now: Wall) -> Result<ExitCode, Failure> {
        let (writes, crashes) =
            self.hub.with(|world, _| world.garm(0).map_or((0, 0), |garm| (garm.writes().len(), garm.crashes())));
        self.table(hurt)?;
        let took = match (hurt, healed) {
            (Some(hurt), Some(healed)) => format!(
                "{} from the first set that stopped listening to the last that \
                                                   listened again",
                healed.since(hurt)
            ),
            (_, _) => "no set stopped listening for long".to_owned(),
        };
        let alone = if self.build.retries() {
            "comes back by itself once GitHub has forgotten the stale sessions"
        } else {
            "never comes back"
        };
        self.say(
            now,
            &format!(
                "The end: {took}. The medic sent {writes} updates to GARM; GARM crashed {crashes} times. Without the \
                 medic, such a build {alone}."
            ),
        )?;
        Ok(ExitCode::Well)
    }
}

impl Stage {
    /// Every set at the end: what it is, what was done, and whether its jobs ran.
    fn table(&self, hurt: Option<Wall>) -> Result<(), Failure> {
        let Some(status) = self.board.status() else { return Ok(()) };
        let mut out =
            String::from("\n  SET         NOW          OUT FOR     TREATED BY   JOBS DONE  WAITING  TO CLEAN UP\n");
        for set in status.managers.iter().flat_map(|manager| &manager.sets) {
            let jobs = self.hub.with(|world, _| set.github_id.map(|id| world.github.jobs(id))).unwrap_or_default();
            let well = matches!(set.finding.diagnosis, Diagnosis::Listening);
            let out_for = match hurt {
                Some(hurt) if well && set.finding.since > hurt => set.finding.since.since(hurt).to_string(),
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

/// Jobs that have finished. A runner finishes its job also while its set is stuck: jobs flow only where sets listen.
fn finished(more: u64, done: u64, listening: usize, enabled: usize) -> Option<String> {
    let jobs = if more == 1 { "1 job finishes".to_owned() } else { format!("{more} jobs finish") };
    let told = match listening {
        _ if more == 0 => return None,
        0 => format!("{jobs} that had begun before; no set receives new ones."),
        some if some < enabled => format!("{jobs}; {some} of {enabled} sets receive new ones."),
        _ => format!("Jobs flow: {more} more finished, {done} in all."),
    };
    Some(told)
}

/// What the spectator knows already.
#[derive(Default)]
struct Told {
    jobs: u64,
    diagnoses: BTreeMap<ScaleSetId, Diagnosis>,
    states: BTreeMap<ScaleSetId, String>,
    managers: BTreeMap<ManagerName, String>,
}

impl Told {
    fn changes(&mut self, manager: &ManagerStatus) -> Vec<String> {
        let mut lines = Vec::new();
        let state = manager.state.to_string();
        if self.managers.get(&manager.name) != Some(&state) {
            lines.push(format!("The medic sees that the manager {} is {state}.", manager.name));
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
                Decision::Escalate { .. } => Some(words::decision(&set.decision)),
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

    /// Jobs that have run since the last time.
    fn jobs(&mut self, hub: &Hub<World>) -> Option<String> {
        let (done, (listening, enabled)) = hub.with(|world, _| {
            let sets: Vec<_> = world.garm(0)?.scale_sets().map(|(_, _, forge)| forge).collect();
            Some((sets.iter().map(|set| world.github.jobs(*set).completed).sum(), world.listening(0)))
        })?;
        let more = u64::saturating_sub(done, std::mem::replace(&mut self.jobs, done));
        finished(more, done, listening, enabled)
    }

    /// Whether the medic has seen what the story came to.
    fn agrees(&self, story: &Story, enabled: usize) -> bool {
        use medic_lab::scenario::Ending;
        let listening = self.diagnoses.values().filter(|diagnosis| **diagnosis == Diagnosis::Listening).count();
        match story.ending {
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
    fn jobs_flow_only_where_sets_listen() {
        assert_eq!(finished(0, 7, 4, 4), None);
        assert_eq!(finished(3, 7, 4, 4).unwrap(), "Jobs flow: 3 more finished, 7 in all.");
        assert_eq!(finished(1, 7, 1, 4).unwrap(), "1 job finishes; 1 of 4 sets receive new ones.");
        let stuck = finished(3, 3, 0, 4).unwrap();
        assert_eq!(stuck, "3 jobs finish that had begun before; no set receives new ones.");
    }
}
