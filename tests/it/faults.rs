//! The built binary with a faulty connection to the manager or to GitHub: it keeps running in bounded memory, writes
//! nothing, names the fault, and heals the stuck sets when the fault ends.

use crate::fault_proxy::{Fault, Proxy, Tls};
use medic_clock::{ScaledClock, system_wall};
use medic_core::clock::Clock;
use medic_core::model::Span;
use medic_lab::backend::ServerId;
use medic_lab::endpoint_http::{HttpEndpoints, Sockets};
use medic_lab::garm::Build;
use medic_lab::github::Route;
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::{Fleet, MEDIC_TOKEN, World};
use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Longer than anything here takes on a slow machine.
const TIMEOUT: Duration = Duration::from_mins(3);
/// The most memory that the process has ever used, a debug build's code included.
const MEMORY_KB: u64 = 128 * 1024;

/// The faulty connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Manager,
    /// To the manager, over TLS.
    Tls,
    Github,
}

/// Each fault, with a part of the message about it.
const CASES: [(&str, Wire, Fault, &str); 25] = [
    ("reset", Wire::Manager, Fault::Reset, "reset"),
    ("half-open", Wire::Manager, Fault::HalfOpen, "no complete answer"),
    ("slow head", Wire::Manager, Fault::SlowHead, "no complete answer"),
    ("slow body", Wire::Manager, Fault::SlowBody, "no complete answer"),
    ("truncated", Wire::Manager, Fault::Truncated, "broke"),
    ("ten gigabytes", Wire::Manager, Fault::TenGigabytes, "answers with more than"),
    ("endless", Wire::Manager, Fault::Endless, "answers with more than"),
    ("HTML page", Wire::Manager, Fault::HtmlPage, "malformed"),
    ("redirect loop", Wire::Manager, Fault::RedirectLoop, "never followed"),
    ("429", Wire::Manager, Fault::TooMany(None), "rate_limited|held_back"),
    ("429 with Retry-After", Wire::Manager, Fault::TooMany(Some(3)), "rate_limited|held_back"),
    ("503", Wire::Manager, Fault::Status(503), "503"),
    ("garbage", Wire::Manager, Fault::Garbage, "not HTTP"),
    ("huge head", Wire::Manager, Fault::HugeHead, "manager"),
    ("deep JSON", Wire::Manager, Fault::DeepJson, "malformed"),
    ("gzip bomb", Wire::Manager, Fault::GzipBomb, "answers with more than"),
    ("expired certificate", Wire::Tls, Fault::BadCertificate, "renew"),
    ("certificate of another host", Wire::Tls, Fault::BadCertificate, "name"),
    ("GitHub resets", Wire::Github, Fault::Reset, "reset"),
    ("GitHub half-open", Wire::Github, Fault::HalfOpen, "no complete answer"),
    ("GitHub endless", Wire::Github, Fault::Endless, "answers with more than"),
    ("GitHub HTML page", Wire::Github, Fault::HtmlPage, "malformed"),
    ("GitHub redirect loop", Wire::Github, Fault::RedirectLoop, "never followed"),
    ("GitHub 429", Wire::Github, Fault::TooMany(Some(3)), "rate_limited|held_back"),
    ("GitHub 502", Wire::Github, Fault::Status(502), "502"),
];

/// Servers with two stuck sets behind a proxy, and a medic.
struct Case {
    name: &'static str,
    hub: Arc<Hub<World>>,
    proxy: Proxy,
    medic: Medic,
    _pump: Pump,
    _doors: HttpEndpoints,
}

struct Medic {
    child: Child,
    dir: tempfile::TempDir,
    address: String,
}

impl Drop for Medic {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Case {
    async fn start(name: &'static str, wire: Wire, fault: Fault, sets: u32) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(system_wall(), 1.0));
        let sockets = Sockets::on_loopback(&[ServerId::Manager(0), ServerId::Github]).unwrap();
        let upstream =
            sockets.address(if wire == Wire::Github { ServerId::Github } else { ServerId::Manager(0) }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = listener.local_addr().unwrap();
        let (garm, github) = match wire {
            Wire::Manager => (format!("http://{front}"), sockets.url(ServerId::Github).unwrap()),
            Wire::Tls => (format!("https://localhost:{}", front.port()), sockets.url(ServerId::Github).unwrap()),
            Wire::Github => (sockets.url(ServerId::Manager(0)).unwrap(), format!("http://{front}")),
        };
        let tls = (wire == Wire::Tls).then(|| {
            let expired = name.starts_with("expired");
            Tls::new(if expired { "localhost" } else { "elsewhere.example" }, expired)
        });
        let mut fleet = Fleet::new(Build::PreFix, sets, &github).each(|garm| garm.debug_server = true);
        fleet.github.stale_lifetime = Span::secs(3);
        let hub = Hub::new(World::new(&fleet, clock.now().wall), clock);
        let dir = tempfile::tempdir().unwrap();
        hub.log_to_file(ServerId::Manager(0), &dir.path().join("garm.log")).unwrap();
        hub.with(|world, now| world.start(0, now));
        let (pump, doors) = (Pump::start(&hub), HttpEndpoints::serve(&hub, sockets));
        let all = usize::try_from(sets).unwrap();
        until(name, "all sets listen", || hub.with(|world, _| world.listening(0) == (all, all)), String::new).await;
        hub.with(|world, now| world.kill(0, now));
        hub.with(|world, now| world.start(0, now));
        let medic = Medic::start(dir, &garm, wire, tls.as_ref());
        let proxy = Proxy::serve(listener, upstream, fault, tls);
        Self { name, hub, proxy, medic, _pump: pump, _doors: doors }
    }

    /// Writes that arrived at the simulated servers.
    fn writes(&self) -> u64 {
        self.hub.with(|world, _| {
            let ours = |call: &&medic_lab::github::Call| {
                call.actor.user_agent.contains("scaleset-medic")
                    && call.route.is_write()
                    && call.route != Route::Unknown
            };
            world.garm(0).unwrap().writes().len() as u64 + world.github.calls().filter(ours).count() as u64
        })
    }
}

impl Medic {
    fn start(dir: tempfile::TempDir, garm: &str, wire: Wire, tls: Option<&Tls>) -> Self {
        let (password, token, ca) = (dir.path().join("password"), dir.path().join("token"), dir.path().join("ca.pem"));
        std::fs::write(&password, "correct horse battery staple").unwrap();
        std::fs::write(&token, MEDIC_TOKEN).unwrap();
        let address = format!("127.0.0.1:{}", super::sockets::free_port());
        let mut text = format!(
            "[run]\nmode = \"heal\"\ninterval = \"1s\"\nurgent_interval = \"500ms\"\nstate_dir = \"{}\"\n[http]\nlisten = \
             \"{address}\"\n[[manager]]\nname = \"garm\"\nurl = \"{garm}\"\nusername = \"admin\"\npassword_file = \"{}\"\n\
             request_timeout = \"1500ms\"\nconnect_timeout = \"1s\"\ndebug_server = true\n",
            dir.path().display(),
            password.display(),
        );
        if let Some(tls) = tls {
            std::fs::write(&ca, &tls.authority).unwrap();
            let _ = writeln!(text, "ca_file = \"{}\"", ca.display());
        }
        if wire == Wire::Github {
            let _ = writeln!(
                text,
                "[[github]]\nendpoint = \"github.com\"\ntoken_file = \"{}\"\nconnect_timeout = \"1s\"\nrequest_timeout = \"1500ms\"\n\
                 requests_per_second = 20",
                token.display()
            );
        } else {
            let _ = writeln!(text, "log_file = \"{}\"", dir.path().join("garm.log").display());
        }
        text.push_str("[policy]\nsettle = \"0s\"\nconfirm_strong = 1\nbackoff = [\"1s\"]\n");
        std::fs::write(dir.path().join("medic.toml"), text).unwrap();
        let errors = std::fs::File::create(dir.path().join("stderr")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
        command.arg("--config").arg(dir.path().join("medic.toml")).arg("run").env_clear();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        Self { child, dir, address }
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// The most memory ever resident, in kilobytes.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: medic\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }
}

async fn until(name: &str, what: &str, done: impl Fn() -> bool, log: impl Fn() -> String) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("{name}: never: {what}\n{}", log()));
}

/// The log and the status document.
async fn output(medic: &Medic) -> String {
    format!("{}\n{}", medic.log(), medic.get("/api/v1/status").await.unwrap_or_default())
}

/// Runs one case. Returns peak memory in kB, bytes read of endless answers, connections and requests under the fault.
async fn play(name: &'static str, wire: Wire, fault: Fault, words: &str) -> (&'static str, u64, u64, u64) {
    let mut case = Case::start(name, wire, fault, 2).await;
    let seen = Arc::clone(&case.proxy.seen);
    let met = || seen.connections.load(Ordering::Relaxed) + seen.requests.load(Ordering::Relaxed);
    // A 429 blocks all requests for a minute, so it is met once.
    let times = if matches!(fault, Fault::TooMany(_)) { 2 } else { 6 };
    until(name, "the fault is met", || met() >= times, || case.medic.log()).await;
    let waiting = async {
        // After a 429, later requests are blocked.
        let says = |text: String| words.split('|').any(|word| text.contains(word));
        while !says(output(&case.medic).await) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let in_time = tokio::time::timeout(TIMEOUT, waiting).await.is_ok();
    assert!(in_time, "{name}: no message with {words:?}\n{}", output(&case.medic).await);
    assert!(case.medic.is_running(), "{name}: it ended\n{}", case.medic.log());
    assert!(
        case.medic.get("/healthz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")),
        "{name}: /healthz"
    );
    let writes = case.writes() + seen.writes.load(Ordering::Relaxed);
    assert_eq!(writes, 0, "{name}: it writes without evidence\n{}", output(&case.medic).await);
    let met = met();
    case.proxy.switch_to(Fault::None);
    let hub = Arc::clone(&case.hub);
    until(name, "healed after the fault", || hub.with(|world, _| world.listening(0) == (2, 2)), || case.medic.log())
        .await;
    assert!(case.medic.is_running() && !case.medic.log().contains("panicked"), "{name}:\n{}", case.medic.log());
    assert!(!output(&case.medic).await.contains("correct horse"), "{name}: the password is shown");
    let memory = case.medic.memory();
    assert!(memory <= MEMORY_KB, "{name}: {memory} kB of memory");
    (case.name, memory, seen.taken.load(Ordering::Relaxed), met)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn medic_survives_every_fault_without_writes_and_recovers() {
    let mut plays = JoinSet::new();
    for (name, wire, fault, words) in CASES {
        plays.spawn(play(name, wire, fault, words));
    }
    let mut broken = Vec::new();
    while let Some(played) = plays.join_next().await {
        match played {
            Ok((name, memory, taken, met)) => {
                eprintln!(
                    "{name:<28} {memory:>6} kB at most, {taken:>10} bytes of endless answers read, met {met} times"
                );
            }
            Err(error) => broken.push(error.to_string()),
        }
    }
    assert!(broken.is_empty(), "{} cases: {broken:#?}", broken.len());
}

/// Eight organisations are asked for at once, and every answer is large.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_answers_of_many_organisations_share_memory() {
    let mut case = Case::start("many organisations", Wire::Github, Fault::Endless, 80).await;
    let seen = Arc::clone(&case.proxy.seen);
    let met = || seen.requests.load(Ordering::Relaxed);
    until(case.name, "all are asked for, and again", || met() >= 32, || case.medic.log()).await;
    assert!(case.medic.is_running(), "{}", case.medic.log());
    let memory = case.medic.memory();
    eprintln!("{:<28} {memory:>6} kB at most, met {} times", case.name, met());
    assert!(memory <= MEMORY_KB, "{memory} kB of memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unresolvable_name_is_reported_and_survived() {
    let mut medic = Medic::start(tempfile::tempdir().unwrap(), "http://garm.invalid:9997", Wire::Github, None);
    let waiting = async {
        while !output(&medic).await.contains("no connection to garm.invalid:9997") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let in_time = tokio::time::timeout(TIMEOUT, waiting).await.is_ok();
    assert!(in_time, "not reported: {}", output(&medic).await);
    assert!(medic.is_running());
    assert!(medic.get("/healthz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    assert!(medic.memory() <= MEMORY_KB);
}
