//! The built binary with a faulty connection to the manager or to GitHub: it keeps running in bounded memory, writes
//! nothing, names the fault, and heals the stuck sets when the fault ends.

use crate::bench::{ConfigText, PASSWORD, started};
use crate::fault_proxy::{Fault, Proxy, Tls};
use crate::sockets::{Medic, Running, Servers, until};
use medic_core::model::Span;
use medic_lab::garm::Build;
use medic_lab::github::{Call, Route};
use medic_lab::world::Fleet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, LocalSet};

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

/// Servers with stuck sets behind a proxy, and a medic.
struct Case {
    name: &'static str,
    servers: Servers,
    proxy: Proxy,
    medic: Medic,
    running: Running,
}

impl Case {
    async fn start(name: &'static str, wire: Wire, fault: Fault, sets: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let servers = Servers::serve(|github, now| {
            let github = if wire == Wire::Github { format!("http://127.0.0.1:{port}") } else { github.to_owned() };
            let mut fleet = Fleet::new(Build::PreFix, sets, &github).each(|garm| garm.debug_server = true);
            fleet.github.stale_lifetime = Span::secs(3);
            started(&fleet, now)
        });
        servers.crash().await;
        let expired = name.starts_with("expired");
        let tls =
            (wire == Wire::Tls).then(|| Tls::new(if expired { "localhost" } else { "elsewhere.example" }, expired));
        let garm = match wire {
            Wire::Manager => format!("http://127.0.0.1:{port}"),
            Wire::Tls => format!("https://localhost:{port}"),
            Wire::Github => servers.garm.clone(),
        };
        let upstream = if wire == Wire::Github { &servers.github } else { &servers.garm };
        let medic = medic(&garm, &servers.log, wire, tls.as_ref());
        let proxy = Proxy::serve(listener, upstream, fault, tls);
        Self { name, running: medic.spawn_logging(), servers, proxy, medic }
    }

    /// Writes that arrived at the simulated servers.
    fn writes(&self) -> usize {
        let ours = |call: &&Call| {
            let is_write = call.route.is_write() && call.route != Route::Unknown;
            is_write && call.actor.user_agent.contains("scaleset-medic")
        };
        self.servers.writes() + self.servers.with(|world| world.github.calls().filter(ours).count())
    }

    /// The most memory ever resident, in kilobytes; at most [`MEMORY_KB`].
    fn memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.running.0.as_ref().unwrap().id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(memory <= MEMORY_KB, "{}: {memory} kB of memory", self.name);
        memory
    }

    async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let what = std::fmt::from_fn(|out| write!(out, "{}: {what}\n{}", self.name, self.medic.log()));
        until(what, condition).await;
    }

    /// The log and the status document.
    async fn output(&self) -> String {
        let status = self.medic.get("/api/v1/status").await;
        self.medic.log() + &status.map_or_else(String::new, |(_, text)| text)
    }

    /// Waits until one of these words is shown. The medic must answer then.
    async fn until_shown(&mut self, words: &str) {
        let shown = async || {
            let output = self.output().await;
            words.split('|').any(|word| output.contains(word))
        };
        self.until(words, shown).await;
        assert!(self.running.is_alive(), "{}: it ended\n{}", self.name, self.medic.log());
        let answers = async || self.medic.get("/healthz").await.is_some_and(|(status, _)| status == 200);
        self.until("/healthz answers 200", answers).await;
    }
}

fn medic(garm: &str, log: &Path, wire: Wire, tls: Option<&Tls>) -> Medic {
    let mut manager = "debug_server = true\n".to_owned();
    if wire != Wire::Github {
        let _ = writeln!(manager, "log_file = \"{}\"", log.display());
    }
    if let Some(tls) = tls {
        let ca = log.with_file_name("ca.pem");
        std::fs::write(&ca, &tls.authority).unwrap();
        let _ = writeln!(manager, "ca_file = \"{}\"", ca.display());
    }
    let github = "connect_timeout = \"1s\"\nrequest_timeout = \"1500ms\"\nrequests_per_second = 20";
    Medic::with(
        garm,
        &ConfigText {
            mode: "heal",
            run: "interval = \"1s\"\nurgent_interval = \"500ms\"",
            manager: &manager,
            github: (wire == Wire::Github).then_some(github),
            policy: "confirm_strong = 1\nbackoff = [\"1s\"]",
            ..ConfigText::default()
        },
    )
}

/// Runs one case. Returns peak memory in kB, bytes read of endless answers, connections and requests under the fault.
async fn play(name: &'static str, wire: Wire, fault: Fault, words: &str) -> (&'static str, u64, u64, u64) {
    let mut case = Case::start(name, wire, fault, 2).await;
    let seen = Arc::clone(&case.proxy.seen);
    let met = || seen.connections.load(Ordering::Relaxed) + seen.requests.load(Ordering::Relaxed);
    // A 429 blocks all requests for a minute, so it is met once.
    let times = if matches!(fault, Fault::TooMany(_)) { 2 } else { 6 };
    case.until("the fault is met", async || met() >= times).await;
    case.until_shown(words).await;
    let writes = case.writes() + usize::try_from(seen.writes.load(Ordering::Relaxed)).unwrap();
    assert_eq!(writes, 0, "{name}: it writes without evidence\n{}", case.output().await);
    let met = met();
    case.proxy.switch_to(Fault::None);
    case.until("healed after the fault", async || case.servers.listening() == (2, 2)).await;
    let output = case.output().await;
    assert!(case.running.is_alive() && !output.contains("panicked"), "{name}:\n{output}");
    assert!(!output.contains(PASSWORD), "{name}: the password is shown");
    (name, case.memory(), seen.taken.load(Ordering::Relaxed), met)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn medic_survives_every_fault_without_writes_and_recovers() {
    let (local, mut plays) = (LocalSet::new(), JoinSet::new());
    for (name, wire, fault, words) in CASES {
        plays.spawn_local_on(play(name, wire, fault, words), &local);
    }
    let mut broken = Vec::new();
    while let Some(played) = local.run_until(plays.join_next()).await {
        match played {
            Ok((name, memory, taken, met)) => {
                eprintln!("{name:<28} {memory:>6} kB at most, {taken:>10} bytes of endless answers, met {met} times");
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
    case.until("all are asked for, and again", async || seen.requests.load(Ordering::Relaxed) >= 32).await;
    assert!(case.running.is_alive(), "{}", case.medic.log());
    case.memory();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unresolvable_name_is_reported_and_survived() {
    let mut case = Case::start("unresolvable name", Wire::Github, Fault::None, 1).await;
    case.medic = medic("http://garm.invalid:9997", &case.servers.log, Wire::Github, None);
    case.running = case.medic.spawn_logging();
    case.until_shown("no connection to garm.invalid:9997").await;
    case.memory();
}
