//! Searches the logs of the medics for secrets.

use crate::bench::Given;
use medic_lab::world::{GARM_TOKEN, MEDIC_TOKEN};
use memchr::memmem;
use std::io;
use std::sync::{Arc, Mutex};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone)]
pub(super) struct LogSearch {
    secrets: Arc<Vec<String>>,
    shown: bool,
    leaked: Arc<Mutex<Option<String>>>,
}

impl LogSearch {
    pub(super) fn new(given: &Given) -> Self {
        let password = given.fleet.managers[0].password.clone();
        let secrets = vec![MEDIC_TOKEN.to_owned(), GARM_TOKEN.to_owned(), password];
        let shown = std::env::var_os("SCALESET_MEDIC_SHOW_LOG").is_some();
        Self { secrets: Arc::new(secrets), shown, leaked: Arc::default() }
    }

    /// A secret that the text shows.
    pub(super) fn secret_in(&self, text: &[u8]) -> Option<&str> {
        // Every token of the servers holds `{"alg":` or `{"scope":` in Base64. A shorter part would also occur by
        // chance in compressed data.
        let mut all = self.secrets.iter().map(String::as_str).chain(["eyJhbGciOi", "eyJzY29wZSI6"]);
        all.find(|secret| memmem::find(text, secret.as_bytes()).is_some())
    }

    /// A line of the log that showed a secret.
    pub(super) fn leaked(&self) -> Option<String> {
        self.leaked.lock().unwrap().take()
    }

    /// Searches the log lines of this thread meanwhile.
    pub(super) fn during<R>(&self, act: impl FnOnce() -> R) -> R {
        let reader = tracing_subscriber::fmt().with_ansi(false).without_time().with_max_level(Level::INFO);
        tracing::subscriber::with_default(reader.with_writer(self.clone()).finish(), act)
    }
}

impl io::Write for LogSearch {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.secret_in(line).is_some() {
            *self.leaked.lock().unwrap() = Some(String::from_utf8_lossy(line).into_owned());
        }
        if self.shown {
            print!("{}", String::from_utf8_lossy(line));
        }
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogSearch {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
