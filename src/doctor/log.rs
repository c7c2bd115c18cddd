//! GARM's log: the only source that names a session or the set of a refusal.
//!
//! At level debug it names sessions; GARM's default is info. A file that does not grow while GARM is asked is
//! some other file. A file beats the websocket, which loses what is written before it has reconnected.

use super::facts::{Facts, ManagerFacts, StreamFacts};
use super::{Check, Finding};
use crate::text::sources::{LOG_LEVEL, LOG_STREAM, WITHOUT_SESSION_IDS};
use medic_core::model::{FailureKind, RequestFailure, Seen, Source, Span, Wall};
use std::path::Path;

/// A log is behind when its newest line is older than this: GARM was asked just before it was read, and that shows
/// at level info.
const BEHIND: Span = Span::mins(2);

pub(super) fn finding(facts: &Facts, manager: &ManagerFacts) -> Finding {
    match (&manager.config.log_file, manager.config.log_stream) {
        (Some(path), _) => by_file(facts.at, manager, path),
        (None, true) => by_stream(manager),
        (None, false) => Finding::log_not_configured(manager),
    }
}

fn by_file(now: Wall, manager: &ManagerFacts, path: &Path) -> Finding {
    let path = path.display().to_string();
    let log = match &manager.log_file {
        Seen::Failed(failure) => return unreadable(failure, &path, manager),
        Seen::NotAsked => return not_read(manager, &format!("{path} was not read")),
        Seen::Known(log) => log,
    };
    let skew = manager.skew.map_or(Span::ZERO, super::skew::Skew::at_least);
    let wrong = match log.newest.map(|newest| now.since(newest)) {
        None => Some(format!("{path} holds no line of a GARM")),
        Some(age) if age > BEHIND.plus(skew) => {
            Some(format!("the newest line of {path} is {age} old, although GARM was asked just now"))
        }
        Some(_) => None,
    };
    if let Some(seen) = wrong {
        return Check::Log
            .fail(manager, seen)
            .hides(Source::Log)
            .step(
                "check that the running GARM writes this file, on the same volume, and that its level is not error:",
                &[],
            )
            .with_garm_log_file(&path)
            .with_shared_volume(&path);
    }
    if log.debug {
        return Check::Log.ok(manager, format!("{path} is read, at level debug: it names sets and sessions"));
    }
    without_debug(manager, format!("{path} is read, and holds no line of level debug"))
}

fn not_read(manager: &ManagerFacts, seen: &str) -> Finding {
    Check::Log.unknown(manager, seen).hides(Source::Log).advice("run this command again")
}

fn without_debug(manager: &ManagerFacts, seen: String) -> Finding {
    Check::Log.warn(manager, seen).risks(WITHOUT_SESSION_IDS).with_garm_lines(LOG_LEVEL)
}

fn unreadable(failure: &RequestFailure, path: &str, manager: &ManagerFacts) -> Finding {
    if failure.kind == FailureKind::HeldBack {
        return Check::Log
            .unknown(manager, failure.detail.clone())
            .risks("the running medic reads a log of this length in several sweeps")
            .advice("run this command again, or let GARM's log be rotated");
    }
    let found = Check::Log.fail(manager, failure.detail.clone()).hides(Source::Log);
    if failure.kind == FailureKind::Forbidden {
        return found.with_shared_volume(path).step(
            "outside a pod: run the medic as the user that owns the file, or as a member of its group if that may read \
             it:",
            &[&format!("stat -c '%U:%G %a' {path}")],
        );
    }
    found.with_garm_log_file(path).with_shared_volume(path)
}

fn by_stream(manager: &ManagerFacts) -> Finding {
    let fail = |seen: String| Check::Log.fail(manager, seen).hides(Source::Log);
    match &manager.log_stream {
        Seen::Failed(failure) if failure.kind == FailureKind::NotEnabled => {
            fail("log_stream is configured, and GARM's log streamer is switched off".to_owned())
                .with_garm_lines(LOG_STREAM.0)
        }
        Seen::Failed(failure) => fail(failure.to_string())
            .advice("let a reverse proxy in front of GARM pass websockets (Upgrade and Connection headers)"),
        Seen::NotAsked => not_read(manager, "the websocket was not tried"),
        Seen::Known(StreamFacts { debug: true, .. }) => Check::Log.ok(
            manager,
            "the websocket is read, at level debug: it names sets and sessions (what GARM writes in the first second \
             after a restart is lost; a log_file would show it)",
        ),
        Seen::Known(StreamFacts { lines, debug: false }) => {
            without_debug(manager, format!("the websocket is read: {lines} lines came, none of level debug"))
        }
    }
}
