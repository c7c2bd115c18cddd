use super::*;
use crate::testing::{BUILDS, folder, recorded_log as recorded};
use expect_test::expect_file;
use medic_core::model::log_fact::LogEvidence;
use std::fmt::Write as _;

fn facts(log: &[u8]) -> Vec<LogFact> {
    let mut parser = Parser::default();
    log.split(|b| *b == b'\n').filter_map(|line| parser.line(line)).collect()
}

fn evidence(logs: &[Vec<u8>]) -> LogEvidence {
    let mut evidence = LogEvidence::default();
    let mut parser = Parser::default();
    for line in logs.iter().flat_map(|log| log.split(|b| *b == b'\n')) {
        if let Some(fact) = parser.line(line) {
            evidence.absorb(&fact);
        }
    }
    evidence
}

/// Every fact of the recorded logs, in `facts.txt` beside them.
#[test]
fn recorded_logs_give_the_expected_facts() {
    for build in BUILDS {
        let mut text = String::new();
        for part in 1..=12 {
            writeln!(text, "part {part}").unwrap();
            for fact in facts(&recorded(build, &format!("{part:02}"))) {
                writeln!(text, "{} {:?}", fact.at.0, fact.what).unwrap();
            }
        }
        expect_file![folder(build).join("facts.txt")].assert_eq(&text);
    }
}

fn first(line: &str) -> Option<LogEvent> {
    Parser::default().line(line.as_bytes()).map(|fact| fact.what)
}

fn set(id: u64) -> LogSet {
    LogSet::Manager(ScaleSetId(id))
}

#[test]
fn recorded_pre_fix_logs_give_the_expected_evidence() {
    let logs: Vec<_> = ["04", "05"].iter().map(|number| recorded(BUILDS[0], number)).collect();
    let seen = evidence(&logs);
    assert_eq!(seen.run_started, wall("2026-11-23T18:46:07.099Z"));
    assert_eq!(seen.last_panic, None);
    // Set 1 was toggled: its worker lives and tries again. Set 2 was given up on.
    let one = seen.about(ScaleSetId(1), Some("acme0"), Some(GithubId(1))).unwrap();
    assert_eq!((one.gave_up, one.conflict_count, one.idle.is_some()), (None, 2, true));
    let two = seen.about(ScaleSetId(2), Some("acme0"), Some(GithubId(2))).unwrap();
    assert_eq!(two.gave_up, wall("2026-11-23T18:46:07.139Z"));
    assert_eq!(two.conflict_count, 1);
    // After the toggle's session, the conflict is over.
    let seen = evidence(&[logs[0].clone(), logs[1].clone(), recorded(BUILDS[0], "06")]);
    let one = seen.about(ScaleSetId(1), Some("acme0"), Some(GithubId(1))).unwrap();
    assert!(seen.debug);
    assert_eq!((one.conflicts, one.opened_count), (None, 1));
    assert_eq!(one.session.unwrap().1, SessionId::new("c10668f2-3a2d-4650-8fa4-df61eabe420b"));
}

#[test]
fn panic_is_dated_by_the_line_before_and_reported_once() {
    assert_eq!(first("panic: runtime error"), None, "without a date before it, a panic cannot be dated");
    let mut parser = Parser::default();
    parser.line(b"time=2026-11-23T18:46:07.139Z level=INFO msg=x a=b");
    assert!(parser.line(b"fatal error: concurrent map iteration and map write").is_some());
    assert!(parser.line(b"panic: again").is_none());
    parser.line(b"time=2026-11-23T18:46:08Z level=INFO msg=x a=b");
    assert_eq!(parser.line(b"panic: another run").map(|fact| Some(fact.at)), Some(wall("2026-11-23T18:46:08Z")));
}

#[test]
fn conflict_is_recognised_in_both_wordings() {
    let line = |said: &str| {
        format!(
            r#"{{"time":"2026-11-23T18:46:19.180584707Z","level":"ERROR","msg":"error starting listener","error":"creating message session: failed to execute request to https://x/_apis/runtime/runnerscalesets/9/sessions?api-version=6.0-preview: conflict while calling https://x: \"{{\\\"message\\\": \\\"{said}\\\"}}\"","consumer_id":"scaleset-worker-a-1-22","worker":"scaleset-worker-a-1-22","entity":"acme/app"}}"#
        )
    };
    for (said, owner) in [
        ("The actions runner scaleset a-1 already has an active session.", None),
        ("The runner scale set a-1 already has an active session for owner garm-0a1b.2.", Some("garm-0a1b.2")),
        ("The runner scale set a-1 already has an active session for owner .", None),
        ("words nobody has seen yet", None),
    ] {
        let conflict = LogEvent::Conflict { set: set(22), owner: owner.map(Owner::new), gave_up: false };
        assert_eq!(first(&line(said)), Some(conflict), "{said}");
    }
}

#[test]
fn a_409_about_a_set_is_no_session_conflict() {
    let line = r#"time=2026-11-23T18:46:19.180Z level=ERROR msg="retry failed: starting scale set worker" scale_set_id=5 error="creating scale set: conflict while calling https://x/_apis/runtime/runnerscalesets: exists" worker=scaleset-controller-45676fbf-a489-47e7-9d37-2f3444ccb62d entity=acme"#;
    let failed = LogEvent::StartFailed { set: set(5), kind: ListenerErrorKind::Other, gave_up: false };
    assert_eq!(first(line), Some(failed));
}

#[test]
fn set_is_named_only_by_certain_attributes() {
    let line = |attributes: &str| format!("time=2026-11-23T18:46:19.180Z level=INFO msg=\"job started\" {attributes}");
    for (attributes, named) in [
        ("worker=scaleset-worker-with-many-dashes-12", Some(12)),
        ("consumer_id=scaleset-worker-a-3 worker=other", Some(3)),
        ("worker=scaleset-worker-a-", None),
        ("worker=scaleset-worker-a-b", None),
        ("worker=scaleset-worker-7", None),
        ("worker=scaleset-controller-4567", None),
        // GitHub's id in a listener's line.
        ("scale_set_id=9", None),
    ] {
        assert_eq!(first(&line(attributes)), named.map(|id| LogEvent::JobSeen { set: set(id) }), "{attributes}");
    }
}

#[test]
fn alpha_names_a_refused_set_by_entity_and_github_id() {
    let line = r#"time=2026-11-23T18:46:19.180Z level=ERROR msg="failed to handle scale set create operation" error="error starting scale set worker: error starting listener: creating message session: failed to execute request to https://x/runnerscalesets/31/sessions?a=b: conflict while calling https://x" worker=scaleset-controller-45676fbf-a489-47e7-9d37-2f3444ccb62d"#;
    let named = LogSet::Github { entity: "45676fbf-a489-47e7-9d37-2f3444ccb62d".to_owned(), github_id: GithubId(31) };
    assert_eq!(first(line), Some(LogEvent::Conflict { set: named, owner: None, gave_up: true }));
}

#[test]
fn meaning_of_a_message_depends_on_its_level() {
    let line = |level: &str, message: &str| {
        format!(
            "time=2026-11-23T18:46:19.180Z level={level} msg=\"{message}\" last_message_id=4 \
             error=\"unauthorized while calling x\" worker=scaleset-worker-a-1"
        )
    };
    assert_eq!(first(&line("DEBUG", "getting message")), Some(LogEvent::Poll { set: set(1), cursor: 4 }));
    let failed = LogEvent::ListenerFailed { set: set(1), kind: ListenerErrorKind::Unauthorized, refresh: false };
    assert_eq!(first(&line("ERROR", "getting message")), Some(failed));
    assert_eq!(first(&line("DEBUG", "closing message session")), Some(LogEvent::SessionClosing { set: set(1) }));
    assert_eq!(first(&line("ERROR", "closing message session")), None);
    assert_eq!(first(&line("DEBUG", "acquiring jobs")), None);
    assert_eq!(first(&line("ERROR", "acquiring jobs")), Some(LogEvent::MessageFailed { set: set(1) }));
}

#[test]
fn session_id_must_look_like_a_uuid() {
    let line = |id: &str| {
        format!(
            "time=2026-11-23T18:46:19.180Z level=DEBUG msg=\"checking if message session token needs refresh\" \
             session_id={id} worker=scaleset-worker-a-1"
        )
    };
    let id = "36c2c648-2cbf-4a6d-9fe9-01442c376037";
    assert_eq!(first(&line(id)), Some(LogEvent::SessionHeld { set: set(1), session: SessionId::new(id) }));
    for bad in ["", "../../x", "36c2c648?a=b", &"a".repeat(65)] {
        assert_eq!(first(&line(bad)), None, "{bad}");
    }
}

#[test]
fn error_kind_depends_on_the_text() {
    use ListenerErrorKind as Kind;
    for (error, kind) in [
        (
            "scale set already exists in github and it differs from the ID we know (github: 3 vs local: 2)",
            Kind::Mismatch,
        ),
        (
            "failed to dispatch HTTP request: Post \"https://x\": dial tcp 10.0.0.1:443: connect: connection refused",
            Kind::Network,
        ),
        ("Post \"https://api.github.com/\": context deadline exceeded", Kind::Network),
        ("bad request while calling x: RunnerScaleSetSessionExpiredException", Kind::SessionExpired),
        ("POST https://api.github.com/x: 403 API rate limit of 5000 still exceeded until 2026", Kind::Other),
        ("request to x failed with status code 503: \"\"", Kind::Server),
        ("POST https://api.github.com/x: 401 Bad credentials []", Kind::Unauthorized),
        ("unauthorized while calling x", Kind::Unauthorized),
        ("Unauthorized", Kind::Unauthorized),
        ("resource x not found: \"RunnerScaleSetSessionNotFoundException\"", Kind::NotFound),
        ("something else", Kind::Other),
        ("", Kind::Other),
    ] {
        assert_eq!(error_kind(error), kind, "{error}");
    }
    assert_eq!(error_kind(&"é".repeat(ERROR_MAX)), Kind::Other);
}

#[test]
fn torn_line_does_not_hide_the_next_runs_start() {
    for build in BUILDS {
        for number in ["04", "12"] {
            let log = recorded(build, number);
            let lines: Vec<&[u8]> = log.split(|b| *b == b'\n').collect();
            let start = lines.iter().position(|line| line.windows(16).any(|w| w == b"Loading provider")).unwrap();
            let torn = lines.iter().rfind(|line| line.len() > 40).unwrap();
            for cut in 0..torn.len() {
                let joined = [&torn[..cut], lines[start]].concat();
                let found = Parser::default().line(&joined).map(|fact| fact.what);
                // Cut within an unquoted text value, the line reads as a whole one.
                if number == "04" || found.is_some() {
                    assert_eq!(found, Some(LogEvent::ManagerStarted), "{build} {number} cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn quoted_line_is_no_line() {
    let start = "time=2026-11-23T18:46:07Z level=INFO msg=\"Loading provider\" provider=x";
    let mut line = format!("time=2026-11-23T18:46:07Z level=INFO msg=access_log user_agent=\"{start}");
    line.push_str(&"x".repeat(super::super::format::LINE_MAX));
    line.truncate(super::super::format::LINE_MAX);
    assert_eq!(first(&line), None);
    let whole =
        format!("{{\"time\":\"2026-11-23T18:46:07Z\",\"level\":\"INFO\",\"msg\":\"access_log\",\"a\":{start:?}}}");
    assert_eq!(first(&whole), None);
}

#[test]
fn prefix_of_a_recorded_line_gives_no_new_fact() {
    for build in BUILDS {
        for number in ["04", "10", "12"] {
            let log = recorded(build, number);
            let whole = facts(&log);
            for line in log.split(|b| *b == b'\n').filter(|line| line.windows(8).any(|w| w == b"listener")) {
                for cut in 0..line.len() {
                    let found = Parser::default().line(&line[..cut]);
                    // Text lines may end within a value: then the value must still be one that occurs.
                    if let Some(fact) = found.filter(|_| number != "12") {
                        assert!(whole.contains(&fact), "{build} {number}: {fact:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn crash_during_a_start_does_not_hide_the_next_start() {
    let starts = |lines: &[&str]| {
        let mut parser = Parser::default();
        lines
            .iter()
            .filter_map(|line| parser.line(line.as_bytes()))
            .filter(|f| f.what == LogEvent::ManagerStarted)
            .count()
    };
    let at = |second: u32| format!("time=2026-11-23T18:46:{second:02}Z level=INFO msg=\"Loading provider\" provider=x");
    assert_eq!(starts(&[&at(1), &at(2)]), 1, "two providers");
    assert_eq!(starts(&[&at(1), &at(40)]), 2, "stood still");
    assert_eq!(starts(&[&at(1), "panic: x", &at(2)]), 2);
}
