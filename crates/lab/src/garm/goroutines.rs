//! `/debug/pprof/goroutine?debug=2` (`docs/reference/garm-api.md` §10): one `keepListenerAlive` for each worker that
//! runs, one listener `loop` for each listener, and a few goroutines that a reader must not count.

use super::process::Process;
use std::fmt::Write as _;

const SCALESET: &str = "github.com/cloudbase/garm/workers/scaleset";
const CLIENT: &str = "github.com/cloudbase/garm/util/github/scalesets";

struct Dump {
    out: String,
    last: u64,
}

impl Dump {
    fn goroutine(&mut self, state: &str, frames: &[(String, &str)], created_by: &str) {
        self.last = self.last.saturating_add(1);
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        let _ = writeln!(self.out, "goroutine {} [{state}]:", self.last);
        for (function, place) in frames {
            let _ = writeln!(self.out, "{function}\n\t/build/garm/{place}");
        }
        let _ = writeln!(self.out, "created by {created_by} in goroutine 1\n\t/build/garm/created.go:41 +0x1d8");
    }
}

impl Process {
    pub(super) fn goroutines(&self) -> String {
        let mut dump = Dump { out: String::new(), last: 0 };
        let own =
            ("runtime/pprof.writeGoroutineStacks({0x7f00a77a6e00, 0x3fcc2988c980})".to_owned(), "pprof.go:819 +0x6b");
        dump.goroutine("running", &[own], "net/http.(*Server).Serve");
        for _ in self.controllers.values().filter(|controller| controller.registered) {
            let frame = (format!("{SCALESET}.(*Controller).loop(0x31c4c5d4ea80)"), "controller.go:231 +0x18b");
            dump.goroutine("select", &[frame], &format!("{SCALESET}.(*Controller).Start"));
        }
        for worker in self.workers.values().filter(|worker| worker.runs) {
            for (function, place) in
                [("loop", "scaleset.go:699 +0x165"), ("keepListenerAlive", "scaleset.go:794 +0x385")]
            {
                let frame = (format!("{SCALESET}.(*Worker).{function}(0x31c4c5d4ea80)"), place);
                dump.goroutine("select", &[frame], &format!("{SCALESET}.(*Worker).Start"));
            }
            if worker.listener.is_some() {
                let frames = [
                    ("net/http.(*Client).Do(...)".to_owned(), "client.go:592"),
                    (
                        format!("{CLIENT}.(*MessageSession).GetMessage(0x31c4c5d4ea80)"),
                        "message_sessions.go:201 +0x69e",
                    ),
                    (format!("{SCALESET}.(*scaleSetListener).loop(0x31c4c5d4ea80)"), "scaleset_listener.go:263 +0x427"),
                ];
                dump.goroutine("select", &frames, &format!("{SCALESET}.(*scaleSetListener).Start"));
                // Not a listener: it renews the session.
                let refresh =
                    (format!("{CLIENT}.(*MessageSession).loop(0x31c4c5d4ea80)"), "message_sessions.go:82 +0x28b");
                dump.goroutine("select", &[refresh], &format!("{CLIENT}.(*ScaleSetClient).CreateMessageSession"));
            }
        }
        dump.out
    }
}
