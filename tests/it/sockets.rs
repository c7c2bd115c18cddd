//! Simulated servers behind real sockets, and the built binary.

use super::bench::{ConfigText, all_listen, started};
use medic_clock::{ScaledClock, system_wall};
use medic_core::clock::Clock;
use medic_core::model::{Span, Wall};
use medic_http::Duplex;
use medic_lab::backend::{Backend, ServerId};
use medic_lab::endpoint_http::{HttpEndpoints, Sockets};
use medic_lab::garm::Build;
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::{Fleet, World};
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Nothing here takes longer on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// Serves each connection to a port of its own, over TLS if there is an acceptor.
pub(crate) async fn listen<F: Future<Output = ()> + Send + 'static>(
    tls: Option<TlsAcceptor>,
    serve: impl Fn(Box<dyn Duplex>) -> F + Send + Sync + Clone + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (serve, tls) = (serve.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => serve(Box::new(stream)).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        serve(Box::new(stream)).await;
                    }
                }
            });
        }
    });
    at
}

/// Sends `request` as it stands and reads until the server closes; `None` if there is no server.
pub(crate) async fn exchange(address: &str, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).ok()
}

/// Reads one request's head.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A port for a program that gets it by configuration. It is below the range of outgoing connections: one of those
/// could take the port before the program does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let begin = u16::try_from(std::process::id() % 10_000).unwrap();
        let port = 10_000 + begin + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `condition` holds; fails after [`PATIENCE`].
pub(crate) async fn until(what: impl Display, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) fn assert_shows(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

/// One GARM and GitHub.
pub(crate) struct Servers<B = World> {
    pub(crate) hub: Arc<Hub<B>>,
    pub(crate) garm: String,
    pub(crate) github: String,
    /// GARM's log.
    pub(crate) log: PathBuf,
    _dir: tempfile::TempDir,
    _pump: Pump,
    _endpoints: HttpEndpoints,
}

impl<B: Backend> Servers<B> {
    /// `build` gets GitHub's address.
    pub(crate) fn serve(build: impl FnOnce(&str, Wall) -> B) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(system_wall(), 1.0));
        let sockets = Sockets::on_loopback(&[ServerId::Manager(0), ServerId::Github]).unwrap();
        let [garm, github] = [ServerId::Manager(0), ServerId::Github].map(|server| sockets.url(server).unwrap());
        let backend = build(&github, clock.now().wall);
        let hub = Hub::new(backend, clock);
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("garm.log");
        hub.log_to_file(ServerId::Manager(0), &log).unwrap();
        let (pump, endpoints) = (Pump::start(&hub), HttpEndpoints::serve(&hub, sockets));
        Self { hub, garm, github, log, _dir: dir, _pump: pump, _endpoints: endpoints }
    }
}

impl Servers {
    pub(crate) fn start(build: Build, sets: u32) -> Self {
        Self::serve(|github, now| {
            let mut fleet = Fleet::new(build, sets, github);
            fleet.github.stale_lifetime = Span::secs(5);
            started(&fleet, now)
        })
    }

    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut World) -> R) -> R {
        self.hub.with(|world, _| act(world))
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&World) -> bool) {
        until(what, async || self.with(|world| condition(world))).await;
    }

    pub(crate) async fn until_all_listen(&self) {
        self.until("all sets listen", all_listen).await;
    }

    pub(crate) async fn until_one_is_disabled(&self) {
        self.until("a set is disabled", |world| world.listening(0).1 < world.garm(0).unwrap().scale_sets().count())
            .await;
    }

    pub(crate) async fn crash(&self) {
        self.until_all_listen().await;
        self.hub.with(|world, now| world.kill(0, now));
        self.hub.with(|world, now| world.start(0, now));
        // The real GARM, too, serves its API some time after the process has started.
        self.until("GARM answers again", |world| world.garm(0).unwrap().is_up()).await;
    }

    /// PUTs that GARM received.
    pub(crate) fn writes(&self) -> usize {
        self.with(|world| world.garm(0).unwrap().writes().len())
    }

    pub(crate) fn listening(&self) -> (usize, usize) {
        self.with(|world| world.listening(0))
    }
}

/// The program with a configuration and a state directory.
pub(crate) struct Medic {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: PathBuf,
    pub(crate) address: String,
}

impl Medic {
    pub(crate) fn of(garm: &str, mode: &str) -> Self {
        Self::with(garm, &ConfigText { mode, ..ConfigText::default() })
    }

    /// With short time-outs besides the given lines.
    pub(crate) fn with(garm: &str, given: &ConfigText<'_>) -> Self {
        Self::of_config(&ConfigText {
            managers: &[("garm", garm)],
            manager: &format!("request_timeout = \"1s\"\nconnect_timeout = \"1s\"\n{}", given.manager),
            policy: &format!("settle = \"1s\"\n{}", given.policy),
            ..*given
        })
    }

    /// With an address to listen on besides the given lines.
    pub(crate) fn of_config(given: &ConfigText<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let text = ConfigText { http: &format!("listen = \"{address}\""), ..*given };
        let config = dir.path().join("medic.toml");
        std::fs::write(&config, text.write(dir.path())).unwrap();
        Self { dir, config, address }
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        self.spawn_with(("LC_ALL", "C"), args)
    }

    pub(crate) fn spawn_with(&self, (variable, value): (&str, &str), args: &[&str]) -> Running {
        let mut command = self.command(args);
        command.env(variable, value).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    /// The service. It writes its log to a file, for [`Self::log`].
    pub(crate) fn spawn_logging(&self) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("stderr")).unwrap();
        Running(Some(self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap()))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
        command.arg("--config").arg(&self.config).args(args).env_clear().current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        finish(self.spawn(args)).await
    }

    /// What a command prints, whatever its exit code.
    pub(crate) async fn prints(&self, args: &[&str]) -> String {
        printed(&self.run(args).await)
    }

    /// Runs a command that must end with this exit code; returns what it printed.
    pub(crate) async fn exits(&self, code: i32, args: &[&str]) -> String {
        exited(&self.run(args).await, code, args)
    }

    /// The service, once it is ready.
    pub(crate) async fn serving(&self) -> Running {
        let running = self.spawn(&["run"]);
        self.ready().await;
        running
    }

    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: medic\r\nconnection: close\r\n\r\n");
        let answer = exchange(&self.address, &request).await?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }

    /// Waits until the status document meets the condition.
    pub(crate) async fn sees(&self, condition: impl Fn(&serde_json::Value) -> bool) {
        let met = async || {
            let (_, answer) = self.get("/api/v1/status").await?;
            let (_, body) = answer.split_once("\r\n\r\n")?;
            serde_json::from_str(body).ok().filter(|status| condition(status))
        };
        until("the status is as expected", async || met().await.is_some()).await;
    }

    /// Waits for a line of the metrics.
    pub(crate) async fn exports(&self, line: &str) {
        until(line, async || self.get("/metrics").await.is_some_and(|(_, text)| text.contains(line))).await;
    }

    pub(crate) async fn ready(&self) {
        until("the medic is ready", async || self.get("/readyz").await.is_some_and(|(status, _)| status == 200)).await;
    }
}

/// A process that is killed at the end of its test.
pub(crate) struct Running(pub(crate) Option<Child>);

impl Running {
    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.0.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").arg(signal).arg(id).status().unwrap().success());
    }

    /// Sends the signal and waits for the end; returns what was printed.
    pub(crate) async fn stop(self, signal: &str) -> String {
        self.signal(signal);
        let code = if signal == "-INT" { 130 } else { 143 };
        exited(&finish(self).await, code, &[signal])
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) async fn finish(mut running: Running) -> Output {
    let child = running.0.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap()
}

/// Standard output and standard error.
pub(crate) fn printed(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn exited(output: &Output, code: i32, args: &[&str]) -> String {
    let text = printed(output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    text
}
