//! Counting living listeners and workers in a goroutine dump (`/debug/pprof/goroutine?debug=2`,
//! `docs/reference/garm-api.md` §10).
//!
//! A dump is blocks separated by empty lines; each begins with `goroutine N [state]:`, then comes a line per frame,
//! each followed by an indented line with its source location. A living listener has one goroutine with a frame
//! `(*scaleSetListener).loop`, a living worker one with `(*Worker).keepListenerAlive`. Edge cases: `created by` lines
//! name functions that may have ended; a frame may repeat in one goroutine by recursion; `loop.func1` is another
//! function. The dump comes in pieces of any size, and no piece is kept.

use medic_core::model::Goroutines;
use medic_http::BodySink;

const LISTENER: &[u8] = b"workers/scaleset.(*scaleSetListener).loop(";
const WORKER: &[u8] = b"workers/scaleset.(*Worker).keepListenerAlive(";

/// Bytes kept of a line; frames are far shorter.
const LINE_BOUND: usize = 1024;

#[derive(Debug, Clone, Default)]
pub struct GoroutineCounter {
    counts: Goroutines,
    blocks: u64,
    line: Vec<u8>,
    in_listener: bool,
    in_worker: bool,
}

impl BodySink for GoroutineCounter {
    fn begin(&mut self) {
        *self = Self::default();
    }
    fn piece(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                Some(_) | None => (part, false),
            };
            let free = LINE_BOUND.saturating_sub(self.line.len());
            self.line.extend_from_slice(text.get(..free).unwrap_or(text));
            if ended {
                self.end_line();
            }
        }
    }
}

impl GoroutineCounter {
    /// The counts; `None` if this is no goroutine dump, or one that was cut off within a line and counts too few.
    pub fn finish(self) -> Option<Goroutines> {
        (self.blocks > 0 && self.line.is_empty()).then_some(self.counts)
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.starts_with(b"goroutine ") && line.ends_with(b":") {
            self.blocks = self.blocks.saturating_add(1);
            (self.in_listener, self.in_worker) = (false, false);
        } else if self.blocks > 0 && !line.starts_with(b"created by ") && !line.starts_with(b"\t") {
            if !self.in_listener && contains(line, LISTENER) {
                self.in_listener = true;
                self.counts.listeners = self.counts.listeners.saturating_add(1);
            }
            if !self.in_worker && contains(line, WORKER) {
                self.in_worker = true;
                self.counts.workers = self.counts.workers.saturating_add(1);
            }
        }
    }
}

pub fn count(dump: &[u8]) -> Option<Goroutines> {
    let mut counter = GoroutineCounter::default();
    counter.piece(dump);
    counter.finish()
}

fn contains(line: &[u8], frame: &[u8]) -> bool {
    line.windows(frame.len()).any(|window| window == frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{POST_FIX, PRE_FIX};

    fn recorded(build: &str, name: &str) -> Vec<u8> {
        crate::testing::recorded(build, &format!("http/goroutines-{name}.txt"))
    }

    #[test]
    fn recorded_dumps_give_their_listeners_and_workers() {
        for (version, name, listeners, workers) in [
            (PRE_FIX, "healthy", 4, 4),
            (PRE_FIX, "stuck", 0, 0),
            (PRE_FIX, "after-stale-sessions-expired", 1, 1),
            (POST_FIX, "healthy", 4, 4),
            (POST_FIX, "stuck", 0, 4),
            (POST_FIX, "after-stale-sessions-expired", 4, 4),
        ] {
            let counts = count(&recorded(version, name));
            assert_eq!(counts, Some(Goroutines { listeners, workers }), "{version} {name}");
        }
    }

    #[test]
    fn goroutine_counts_once_and_its_creator_not_at_all() {
        let dump = "goroutine 1 [select]:\n\
            github.com/cloudbase/garm/workers/scaleset.(*scaleSetListener).loop(0xc0)\n\
            \t/garm/workers/scaleset/scaleset_listener.go:258 +0x465\n\
            github.com/cloudbase/garm/workers/scaleset.(*scaleSetListener).loop(0xc0)\n\n\
            goroutine 2 [select]:\n\
            github.com/cloudbase/garm/workers/scaleset.(*scaleSetListener).loop.func1(0xc0)\n\
            created by github.com/cloudbase/garm/workers/scaleset.(*Worker).keepListenerAlive(0xc0) in goroutine 3\n";
        assert_eq!(count(dump.as_bytes()), Some(Goroutines { listeners: 1, workers: 0 }));
        assert_eq!(count(dump.replace('\n', "\r\n").as_bytes()), Some(Goroutines { listeners: 1, workers: 0 }));
    }

    #[test]
    fn truncated_dump_or_other_text_gives_no_counts() {
        let dump = recorded(PRE_FIX, "healthy");
        let cut = dump.iter().rposition(|byte| *byte == b'(').unwrap();
        assert_eq!(count(&dump[..cut]), None);
        assert_eq!(count(b""), None);
        assert_eq!(count(b"<html>workers/scaleset.(*scaleSetListener).loop(</html>"), None);
    }
}
