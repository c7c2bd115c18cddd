//! `/debug/pprof/goroutine?debug=2` (`docs/reference/garm-api.md` §10): one `keepListenerAlive` for each worker that
//! runs, one listener `loop` for each listener, no names. Frames are those of the recordings; addresses are made up.

use super::process::Process;
use super::stamp::scramble;
use super::worker::Phase;
use std::fmt::Write as _;

const GO: &str = "/usr/local/go/src";
const SCALESET: &str = "github.com/cloudbase/garm/workers/scaleset";

struct Dump {
    out: String,
    last: u64,
}

/// A frame: function with its arguments, and its place.
type Frame = (String, &'static str);

impl Dump {
    fn goroutine(&mut self, state: &str, frames: &[Frame], created_by: Option<(&str, &str)>) {
        self.last = self.last.saturating_add(1);
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        let _ = writeln!(self.out, "goroutine {} [{state}]:", self.last);
        for (function, place) in frames {
            let _ = writeln!(self.out, "{function}\n\t{place}");
        }
        if let Some((function, place)) = created_by {
            let _ = writeln!(self.out, "created by {function} in goroutine 1\n\t{place}");
        }
    }

    fn address(&self) -> String {
        format!("{:#x}", 0x31c4_0000_0000 | (scramble(self.last) & 0xffff_fff8))
    }
}

fn frame(function: String, place: &'static str) -> Frame {
    (function, place)
}

impl Process {
    pub(super) fn goroutines(&self) -> String {
        let mut dump = Dump { out: String::new(), last: 0 };
        say_ambient(&mut dump);
        for controller in self.controllers.values().filter(|controller| controller.registered) {
            let _ = controller;
            let loops = frame(
                format!("{SCALESET}.(*Controller).loop({})", dump.address()),
                "/build/garm/workers/scaleset/controller.go:231 +0x18b",
            );
            let parent = format!("{SCALESET}.(*Controller).Start");
            dump.goroutine(
                "select",
                &[loops],
                Some((&parent, "/build/garm/workers/scaleset/controller.go:150 +0x719")),
            );
        }
        for worker in self.workers.values().filter(|worker| worker.runs) {
            say_worker(&mut dump, matches!(worker.phase, Phase::Listening));
            if worker.listener.is_some() {
                say_listener(&mut dump);
            }
        }
        dump.out
    }
}

fn say_worker(dump: &mut Dump, listens: bool) {
    let parent = format!("{SCALESET}.(*Worker).Start");
    let place = if listens {
        "/build/garm/workers/scaleset/scaleset.go:759 +0xf5"
    } else {
        "/build/garm/workers/scaleset/scaleset.go:794 +0x385"
    };
    for (function, place, started) in [
        ("loop", "/build/garm/workers/scaleset/scaleset.go:699 +0x165", "scaleset.go:343 +0x1d4d"),
        ("keepListenerAlive", place, "scaleset.go:344 +0x1d8f"),
        ("handleAutoScale", "/build/garm/workers/scaleset/scaleset.go:1003 +0x13f", "scaleset.go:345 +0x1dd1"),
    ] {
        let frames = [frame(format!("{SCALESET}.(*Worker).{function}({})", dump.address()), place)];
        dump.goroutine("select", &frames, Some((&parent, &format!("/build/garm/workers/scaleset/{started}"))));
    }
}

fn say_listener(dump: &mut Dump) {
    let client = "github.com/cloudbase/garm/util/github/scalesets";
    let address = dump.address();
    let poll = [
        frame(
            format!("net/http.(*persistConn).roundTrip({address}, {address})"),
            "/usr/local/go/src/net/http/transport.go:2911 +0x83d",
        ),
        frame(
            format!("net/http.(*Client).do({address}, {address})"),
            "/usr/local/go/src/net/http/client.go:733 +0x9d7",
        ),
        frame("net/http.(*Client).Do(...)".to_owned(), "/usr/local/go/src/net/http/client.go:592"),
        frame(
            format!("{client}.(*ScaleSetClient).Do(0x103b240?, {address})"),
            "/build/garm/util/github/scalesets/client.go:89 +0x57",
        ),
        frame(
            format!("{client}.(*MessageSession).GetMessage({address}, {{0x11650d8, {address}}}, 0x0, 0x5)"),
            "/build/garm/util/github/scalesets/message_sessions.go:201 +0x69e",
        ),
        frame(
            format!("{SCALESET}.(*scaleSetListener).loop({address})"),
            "/build/garm/workers/scaleset/scaleset_listener.go:263 +0x427",
        ),
    ];
    let parent = format!("{SCALESET}.(*scaleSetListener).Start");
    let place = "/build/garm/workers/scaleset/scaleset_listener.go:102 +0x7e5";
    dump.goroutine("select", &poll, Some((&parent, place)));
    let refresh = [frame(
        format!("{client}.(*MessageSession).loop({address})"),
        "/build/garm/util/github/scalesets/message_sessions.go:82 +0x28b",
    )];
    let parent = format!("{client}.(*ScaleSetClient).CreateMessageSession");
    dump.goroutine(
        "select",
        &refresh,
        Some((&parent, "/build/garm/util/github/scalesets/message_sessions.go:300 +0x94d")),
    );
}

/// The goroutines of every Go server, and some of GARM's.
fn say_ambient(dump: &mut Dump) {
    let own = [
        frame(
            "runtime/pprof.writeGoroutineStacks({0x7f00a77a6e00, 0x3fcc2988c980})".to_owned(),
            "/usr/local/go/src/runtime/pprof/pprof.go:819 +0x6b",
        ),
        frame(
            "net/http/pprof.Index({0x15372b0, 0x3fcc2988c980}, 0x3fcc28bb6140?)".to_owned(),
            "/usr/local/go/src/net/http/pprof/pprof.go:397 +0xda",
        ),
    ];
    let serve = format!("{GO}/net/http/server.go:3462 +0x485");
    dump.goroutine("running", &own, Some(("net/http.(*Server).Serve", &serve)));
    let main = [
        frame(
            "github.com/cloudbase/garm/cmd/garm/cmd.runServer()".to_owned(),
            "/build/garm/cmd/garm/cmd/run.go:110 +0x785",
        ),
        frame("main.main()".to_owned(), "/build/garm/cmd/garm/main.go:20 +0xf"),
    ];
    dump.goroutine("chan receive", &main, None);
    for (state, function, place, parent, started) in [
        (
            "syscall",
            "os/signal.signal_recv()",
            "/usr/local/go/src/runtime/sigqueue.go:152 +0x98",
            "os/signal.Notify.func1.1",
            "/usr/local/go/src/os/signal/signal.go:152 +0x1f",
        ),
        (
            "select",
            "github.com/cloudbase/garm/database/watcher.(*watcher).loop(0x0?)",
            "/build/garm/database/watcher/watcher.go:197 +0x98",
            "github.com/cloudbase/garm/database/watcher.InitWatcher",
            "/build/garm/database/watcher/watcher.go:41 +0x1d8",
        ),
        (
            "select",
            "github.com/cloudbase/garm/websocket.(*Hub).run(0x3fcc28c54050)",
            "/build/garm/websocket/websocket.go:54 +0x138",
            "github.com/cloudbase/garm/websocket.(*Hub).Start",
            "/build/garm/websocket/websocket.go:150 +0xbc",
        ),
        (
            "select",
            "github.com/cloudbase/garm/workers/cache.(*Worker).loop(0x31c4c5d4ea80)",
            "/build/garm/workers/cache/cache.go:548 +0x154",
            "github.com/cloudbase/garm/workers/cache.(*Worker).Start",
            "/build/garm/workers/cache/cache.go:290 +0x625",
        ),
        (
            "IO wait",
            "internal/poll.runtime_pollWait(0x7f010545c200, 0x72)",
            "/usr/local/go/src/runtime/netpoll.go:351 +0x85",
            "net/http.(*Transport).dialConn",
            "/usr/local/go/src/net/http/transport.go:1994 +0x16ac",
        ),
    ] {
        dump.goroutine(state, &[frame(function.to_owned(), place)], Some((parent, started)));
    }
}
