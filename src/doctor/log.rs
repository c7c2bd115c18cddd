//! The manager's log: the only source that names a session or the set of a refusal.
//!
//! At level debug it names sessions; GARM's default is info. A file that does not grow while the manager is asked
//! things is some other file. A file beats the websocket, which loses what is written before it has reconnected.

use super::facts::{Facts, ManagerFacts, StreamFacts};
use super::lines::LOG_PATH;
use super::{Check, Finding, Subject};
use medic_core::model::log_fact::LogEvidence;
use medic_core::model::{FailureKind, RequestFailure, Seen, Span, Wall};
use std::path::Path;

/// A log is behind when its newest line is older than this: we asked the manager things just before it was read, and
/// that shows at level info.
const BEHIND: Span = Span::mins(2);

const NO_IDS: &str = "the ids of sessions stay unknown, so a stale session cannot be deleted: after a crash every set \
                      waits until GitHub forgets it, 50 to 92 s or more, instead of seconds";
const NO_NAMES: &str = "which set is refused, by whom and why is not seen, only how many; and the ids of sessions stay \
                        unknown, so a stale session cannot be deleted: after a crash every set waits until GitHub \
                        forgets it, 50 to 92 s or more, instead of seconds";

pub(super) fn finding(facts: &Facts, manager: &ManagerFacts) -> Finding {
    let subject = Subject::Manager(manager.name.clone());
    let config = facts.config_of(manager);
    match (config.and_then(|config| config.log_file.as_deref()), config.is_some_and(|config| config.log_stream)) {
        (Some(path), _) => by_file(facts.at, manager, path, &subject),
        (None, true) => by_stream(&manager.log_stream, &subject),
        (None, false) => Finding::warn(Check::Log, &subject, "not configured, neither log_file nor log_stream")
            .risks(NO_NAMES)
            .with_garm_log_file(LOG_PATH)
            .with_shared_volume(LOG_PATH)
            .with_medic_line(&format!("log_file = \"{LOG_PATH}\""))
            .step(
                "where no file can be shared, the websocket is second best: enable_log_streamer = true under \
                 [logging] in GARM's config.toml, and in the medic's [[manager]] table:",
                &["log_stream = true"],
            ),
    }
}

fn by_file(now: Wall, manager: &ManagerFacts, path: &Path, subject: &Subject) -> Finding {
    let shown = path.display().to_string();
    match &manager.log_file {
        Seen::Failed(failure) => unreadable(failure, &shown, subject),
        Seen::NotAsked => Finding::unknown(Check::Log, subject, format!("{shown} was not read"))
            .risks(NO_NAMES)
            .step("run this command again", &[]),
        Seen::Known(log) => match log.newest {
            None => not_its_log(format!("{shown} holds no line of a GARM"), &shown, subject),
            Some(newest) => {
                let skew = manager.skew.map_or(Span::ZERO, super::skew::Skew::at_least);
                let age = now.since(newest);
                if age > BEHIND.plus(skew) {
                    let seen =
                        format!("the newest line of {shown} is {age} old, though the manager was asked just now");
                    return not_its_log(seen, &shown, subject);
                }
                by_level(log, &shown, subject)
            }
        },
    }
}

fn by_level(log: &LogEvidence, path: &str, subject: &Subject) -> Finding {
    if log.debug {
        return Finding::ok(Check::Log, subject, format!("{path} is read, at level debug: it names sets and sessions"));
    }
    Finding::warn(Check::Log, subject, format!("{path} is read, and holds no line of level debug"))
        .risks(NO_IDS)
        .with_garm_log_level()
}

fn not_its_log(seen: String, path: &str, subject: &Subject) -> Finding {
    Finding::fail(Check::Log, subject, seen)
        .risks(NO_NAMES)
        .step("see that this is the file which the running GARM writes, on the same volume, and that its level is not error:", &[])
        .with_garm_log_file(path)
        .with_shared_volume(path)
}

fn unreadable(failure: &RequestFailure, path: &str, subject: &Subject) -> Finding {
    if failure.kind == FailureKind::HeldBack {
        return Finding::unknown(Check::Log, subject, failure.detail.clone())
            .risks("a log this long is read by the running medic in several passes")
            .step("run this command again, or let GARM's log be rotated", &[]);
    }
    let found = Finding::fail(Check::Log, subject, failure.detail.clone()).risks(NO_NAMES);
    if failure.kind == FailureKind::Forbidden {
        return found.with_shared_volume(path).step(
            "outside a pod: run the medic as the user that owns the file, or as a member of its group if that may read it:",
            &[&format!("stat -c '%U:%G %a' {path}")],
        );
    }
    found.with_garm_log_file(path).with_shared_volume(path)
}

fn by_stream(stream: &Seen<StreamFacts>, subject: &Subject) -> Finding {
    match stream {
        Seen::Failed(failure) if failure.kind == FailureKind::NotEnabled => {
            Finding::fail(Check::Log, subject, "log_stream is configured, and GARM's log streamer is switched off")
                .risks(NO_NAMES)
                .with_garm_log_streamer()
        }
        Seen::Failed(failure) => Finding::fail(Check::Log, subject, failure.to_string())
            .risks(NO_NAMES)
            .step("let a reverse proxy in front of GARM pass websockets (Upgrade and Connection headers)", &[]),
        Seen::NotAsked => Finding::unknown(Check::Log, subject, "the websocket was not tried")
            .risks(NO_NAMES)
            .step("run this command again", &[]),
        Seen::Known(StreamFacts { debug: true, .. }) => Finding::ok(
            Check::Log,
            subject,
            "the websocket is read, at level debug: it names sets and sessions (what GARM writes in the first second \
             after a restart is lost; a log_file would show it)",
        ),
        Seen::Known(StreamFacts { lines, debug: false }) => Finding::warn(
            Check::Log,
            subject,
            format!("the websocket is read: {lines} lines came, none of level debug"),
        )
        .risks(NO_IDS)
        .with_garm_log_level(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::testing::{CONFIG, NOW, broken, config, healthy, lines};
    use super::*;
    use medic_core::model::Operation;

    fn with_file(log_file: Seen<LogEvidence>) -> Finding {
        let mut facts = healthy();
        facts.managers[0].log_file = log_file;
        finding(&facts, &facts.managers[0])
    }

    fn with_stream(log_stream: Seen<StreamFacts>) -> Finding {
        let text = CONFIG.replace("log_file = \"/var/log/garm/garm.log\"", "log_stream = true");
        let mut facts = Facts { config: config(&text), ..healthy() };
        facts.managers[0].log_stream = log_stream;
        finding(&facts, &facts.managers[0])
    }

    fn read(debug: bool, age: Span) -> Seen<LogEvidence> {
        Seen::Known(LogEvidence { debug, newest: Some(NOW.minus(age)), ..LogEvidence::default() })
    }

    #[test]
    fn a_log_at_info_hides_session_ids_and_the_lines_against_it_are_told() {
        let found = with_file(read(false, Span::secs(1)));
        assert_eq!(found.state, State::Warn);
        assert!(found.risk.contains("stale session cannot be deleted"), "{found:?}");
        assert_eq!(lines(&found), ["[logging]", "log_level = \"debug\"", "log_format = \"json\""]);
        assert_eq!(with_file(read(true, Span::secs(1))).state, State::Ok);
    }

    #[test]
    fn a_file_that_does_not_grow_is_not_the_running_managers() {
        for debug in [true, false] {
            assert_eq!(with_file(read(debug, Span::mins(10))).state, State::Fail);
        }
        assert_eq!(with_file(Seen::Known(LogEvidence::default())).state, State::Fail);
    }

    #[test]
    fn a_missing_file_is_told_what_to_put_into_garm_and_into_the_pod() {
        let found = with_file(broken(Operation::LogFile, FailureKind::NotFound));
        assert_eq!(found.state, State::Fail);
        let told = lines(&found);
        assert!(told.contains(&"log_file = \"/var/log/garm/garm.log\""), "{told:?}");
        assert!(told.iter().any(|line| line.contains("mountPath: /var/log/garm, readOnly: true")), "{told:?}");
        assert!(told.iter().any(|line| line.contains("emptyDir")), "{told:?}");
        let forbidden = with_file(broken(Operation::LogFile, FailureKind::Forbidden));
        assert!(lines(&forbidden).iter().any(|line| line.contains("fsGroup")), "{forbidden:?}");
    }

    #[test]
    fn a_backlog_is_not_a_fault() {
        assert_eq!(with_file(broken(Operation::LogFile, FailureKind::HeldBack)).state, State::Unknown);
    }

    #[test]
    fn a_websocket_is_judged_by_what_came() {
        for (stream, state) in [
            (Seen::Known(StreamFacts { lines: 3, debug: true }), State::Ok),
            (Seen::Known(StreamFacts { lines: 3, debug: false }), State::Warn),
            (Seen::Known(StreamFacts { lines: 0, debug: false }), State::Warn),
            (broken(Operation::Websocket, FailureKind::NotEnabled), State::Fail),
            (broken(Operation::Websocket, FailureKind::Broken), State::Fail),
        ] {
            assert_eq!(with_stream(stream.clone()).state, state, "{stream:?}");
        }
        let off = with_stream(broken(Operation::Websocket, FailureKind::NotEnabled));
        assert!(lines(&off).contains(&"enable_log_streamer = true"));
    }

    #[test]
    fn no_log_at_all_only_warns_and_tells_both_ways() {
        let text = CONFIG.replace("log_file = \"/var/log/garm/garm.log\"", "");
        let facts = Facts { config: config(&text), ..healthy() };
        let found = finding(&facts, &facts.managers[0]);
        assert_eq!(found.state, State::Warn);
        for line in ["log_level = \"debug\"", "log_stream = true"] {
            assert!(lines(&found).contains(&line), "{found:?}");
        }
    }
}
