//! The logs of two real GARM builds, followed as the medic follows them: what they say must not depend on how the
//! bytes arrive, and must agree with the metrics and the goroutines that were recorded at the same moments.

use expect_test::{Expect, expect};
use medic_core::model::log_fact::{LogEvent, LogEvidence, LogFact, SetLog};
use medic_core::model::{GithubId, ScaleSetId};
use medic_core::ports::read::LogSource;
use medic_garm::log::parse::Parser;
use medic_garm::log::source::{Facts, LogFile};
use medic_garm::log::tail::{Reached, Tail};
use medic_garm::{goroutines, metrics_text};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const PRE_FIX: &str = "garm-2026-04-pre-fix";
const POST_FIX: &str = "garm-2026-07-post-fix";
const SITUATIONS: [&str; 12] = ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12"];

fn folder(build: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings").join(build)
}

fn recorded(build: &str, number: &str) -> Vec<u8> {
    let entries = std::fs::read_dir(folder(build).join("logs")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let path = paths.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(number)).unwrap();
    let mut log = std::fs::read(path).unwrap();
    if log.last() != Some(&b'\n') {
        log.push(b'\n');
    }
    log
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// What the log says when all its lines are there at once.
fn facts_of(log: &[u8]) -> Vec<LogFact> {
    let mut parser = Parser::default();
    log.split(|b| *b == b'\n').filter_map(|line| parser.line(line)).collect()
}

/// What happens to the medic between two arrivals of bytes.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    Restart,
}

/// A medic that follows a file.
struct Follower {
    folder: tempfile::TempDir,
    tail: Tail,
    parser: Parser,
}

impl Follower {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tail = Tail::new(folder.path().join("garm.log"), None);
        Self { folder, tail, parser: Parser::default() }
    }

    /// What is read while the file grows by these pieces.
    fn read<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>, between: Between) -> Vec<LogFact> {
        let path = self.folder.path().join("garm.log");
        let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let mut found = Vec::new();
        for piece in pieces {
            log.write_all(piece).unwrap();
            let Self { tail, parser, .. } = self;
            while tail.step(&mut |line| found.extend(parser.line(line))).unwrap().reached == Reached::Within {}
            if matches!(between, Between::Restart) {
                self.tail = Tail::new(&path, tail.position(parser.state()));
                self.parser = Parser::new(self.parser.state());
            }
        }
        found
    }
}

fn followed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, between: Between) -> Vec<LogFact> {
    Follower::new().read(pieces, between)
}

#[test]
fn whole_and_line_by_line_every_situation_says_the_same() {
    for build in [PRE_FIX, POST_FIX] {
        for number in SITUATIONS {
            let log = recorded(build, number);
            let wanted = facts_of(&log);
            assert!(!wanted.is_empty(), "{build} {number}");
            assert_eq!(followed([log.as_slice()], Between::Nothing), wanted, "{build} {number} whole");
            for between in [Between::Nothing, Between::Restart] {
                let lines = log.split_inclusive(|b| *b == b'\n');
                assert_eq!(followed(lines, between), wanted, "{build} {number} line by line, {between:?}");
                for size in [1000, 4093] {
                    let found = followed(log.chunks(size), between);
                    assert_eq!(found, wanted, "{build} {number} by {size} bytes, {between:?}");
                }
            }
        }
    }
}

/// The line with `mark`, the one before, and what follows, about a kilobyte in all.
fn window<'a>(log: &'a [u8], mark: &str) -> &'a [u8] {
    let at = log.windows(mark.len()).position(|bytes| bytes == mark.as_bytes()).unwrap();
    let begins = |at: usize| log[..at].iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let start = begins(begins(at).saturating_sub(1));
    let least = (start + 1000).max(at).min(log.len() - 1);
    let end = least + log[least..].iter().position(|b| *b == b'\n').unwrap() + 1;
    &log[start..end]
}

#[test]
fn cut_at_every_byte_the_decisive_lines_say_the_same() {
    let situations = [
        ("03", "closing message session"),
        ("04", "already has an active session"),
        ("06", "starting message session refresh loop"),
        ("10", "panic: "),
        ("12", "already has an active session"),
    ];
    let mut table = String::new();
    for build in [PRE_FIX, POST_FIX] {
        for (number, mark) in situations {
            let log = recorded(build, number);
            let bytes = window(&log, mark);
            let wanted = facts_of(bytes);
            writeln!(table, "{number} {build}, {} cuts", bytes.len()).unwrap();
            for fact in &wanted {
                writeln!(table, "  {:?}", fact.what).unwrap();
            }
            for between in [Between::Nothing, Between::Restart] {
                // One file for all cuts: what is followed goes on behind the cut before.
                let mut follower = Follower::new();
                for cut in 0..bytes.len() {
                    follower.parser = Parser::default();
                    let (head, rest) = bytes.split_at(cut);
                    let found = follower.read([head, rest], between);
                    assert_eq!(found, wanted, "{build} {number} cut at {cut}, {between:?}");
                }
            }
        }
    }
    expect![[r#"
        03 garm-2026-04-pre-fix, 1275 cuts
          SessionClosing { set: Manager(ScaleSetId(2)) }
        04 garm-2026-04-pre-fix, 1002 cuts
          Conflict { set: Forge { entity: "acme1", github_id: GithubId(3) }, owner: None, gave_up: true }
        06 garm-2026-04-pre-fix, 1052 cuts
          Poll { set: Manager(ScaleSetId(1)), cursor: 1 }
          SessionOpened { set: Manager(ScaleSetId(1)), session: SessionId("c10668f2-3a2d-4650-8fa4-df61eabe420b") }
        10 garm-2026-04-pre-fix, 1009 cuts
          ListenerStopped { set: Manager(ScaleSetId(1)) }
          Panic
        12 garm-2026-04-pre-fix, 1021 cuts
          Conflict { set: Forge { entity: "acme0", github_id: GithubId(1) }, owner: None, gave_up: true }
        03 garm-2026-07-post-fix, 1025 cuts
          SessionClosing { set: Manager(ScaleSetId(2)) }
          ListenerStopped { set: Manager(ScaleSetId(2)) }
          ListenerStopped { set: Manager(ScaleSetId(2)) }
        04 garm-2026-07-post-fix, 1174 cuts
          Conflict { set: Manager(ScaleSetId(1)), owner: None, gave_up: false }
          WorkerStarted { set: Manager(ScaleSetId(4)) }
        06 garm-2026-07-post-fix, 1577 cuts
          SessionOpened { set: Manager(ScaleSetId(4)), session: SessionId("b53481fc-528e-4011-ae25-431918dda1ca") }
          Poll { set: Manager(ScaleSetId(4)), cursor: 0 }
          Conflict { set: Manager(ScaleSetId(1)), owner: None, gave_up: false }
        10 garm-2026-07-post-fix, 1046 cuts
          Panic
        12 garm-2026-07-post-fix, 1544 cuts
          Conflict { set: Manager(ScaleSetId(1)), owner: None, gave_up: false }
          Conflict { set: Manager(ScaleSetId(1)), owner: None, gave_up: false }
    "#]]
    .assert_eq(&table);
}

/// The set as a person would put it.
fn state(set: &SetLog) -> String {
    let conflicts = format!("{} conflicts", set.conflict_count);
    let how = if let Some((_, session)) = &set.session {
        format!("session {}", session.as_str())
    } else if set.gave_up.is_some() {
        format!("gave up after {conflicts}")
    } else if set.conflicts.is_some() {
        format!("retries after {conflicts}")
    } else if set.last_closed.is_some() {
        "closed".to_owned()
    } else if set.idle.is_some() {
        "idle".to_owned()
    } else if set.started.is_some() {
        "started".to_owned()
    } else {
        "nothing".to_owned()
    };
    format!("{how}, opened {}", set.opened_count)
}

/// The day of a build as the log tells it, situation after situation in one growing file.
fn story(build: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garm.log");
    let log = LogFile::new(&path, None, Facts::Dropped);
    let (mut text, mut panics) = (String::new(), None);
    for number in &SITUATIONS[..11] {
        append(&path, &recorded(build, number));
        while log.step() {}
        let seen = log.evidence().unwrap();
        let panicked = if seen.last_panic == panics { "" } else { ", panic" };
        panics = seen.last_panic;
        let stopped = if seen.last_stop > seen.run_started { ", stopped" } else { "" };
        writeln!(text, "{number} run of {}{panicked}{stopped}", seen.run_started.unwrap().0).unwrap();
        for (id, entity) in [(1, "acme0"), (2, "acme0"), (3, "acme1"), (4, "acme1")] {
            let told = seen.about(ScaleSetId(id), Some(entity), Some(GithubId(id)));
            writeln!(text, "  {id} {}", told.map_or_else(|| "not named".to_owned(), |set| state(&set))).unwrap();
        }
    }
    text
}

fn check(build: &str, expected: &Expect) {
    expected.assert_eq(&story(build));
}

#[test]
fn the_day_of_the_build_that_gives_up() {
    check(
        PRE_FIX,
        &expect![[r"
        01 run of 1795459531651
          1 session 36c2c648-2cbf-4a6d-9fe9-01442c376037, opened 1
          2 session 772c84b0-3f24-4d5b-9d45-968dc82e0259, opened 1
          3 session 02cb17b5-7bc6-48e2-8e51-3ba708a79890, opened 1
          4 session a776f05e-0d92-4bb6-9d49-1b4b1e900a17, opened 1
        02 run of 1795459531651
          1 session 36c2c648-2cbf-4a6d-9fe9-01442c376037, opened 1
          2 session 772c84b0-3f24-4d5b-9d45-968dc82e0259, opened 1
          3 session 02cb17b5-7bc6-48e2-8e51-3ba708a79890, opened 1
          4 session a776f05e-0d92-4bb6-9d49-1b4b1e900a17, opened 1
        03 run of 1795459531651
          1 session 36c2c648-2cbf-4a6d-9fe9-01442c376037, opened 1
          2 session b69ddd0e-b56c-4071-a111-0bd62c7b50ec, opened 2
          3 session 02cb17b5-7bc6-48e2-8e51-3ba708a79890, opened 1
          4 session a776f05e-0d92-4bb6-9d49-1b4b1e900a17, opened 1
        04 run of 1795459567099
          1 gave up after 1 conflicts, opened 0
          2 gave up after 1 conflicts, opened 0
          3 gave up after 1 conflicts, opened 0
          4 gave up after 1 conflicts, opened 0
        05 run of 1795459567099
          1 retries after 2 conflicts, opened 0
          2 gave up after 1 conflicts, opened 0
          3 gave up after 1 conflicts, opened 0
          4 gave up after 1 conflicts, opened 0
        06 run of 1795459567099
          1 session c10668f2-3a2d-4650-8fa4-df61eabe420b, opened 1
          2 gave up after 1 conflicts, opened 0
          3 gave up after 1 conflicts, opened 0
          4 gave up after 1 conflicts, opened 0
        07 run of 1795459567099
          1 session c10668f2-3a2d-4650-8fa4-df61eabe420b, opened 1
          2 session 83f4219a-c496-46fc-8974-8698770aa866, opened 1
          3 session 7242c349-aad5-4745-ad91-3f97348ca0cc, opened 1
          4 session c57125f0-f0ee-41c7-8eb7-64dc51bdb3b6, opened 1
        08 run of 1795459642229
          1 session dffcfc27-382a-42ae-90aa-0912061b7fff, opened 1
          2 session 280eb652-9682-43ce-8ad3-4acc4b8ee216, opened 1
          3 gave up after 1 conflicts, opened 0
          4 session 60bf36ef-40ca-41e9-bbb4-73809ed8c895, opened 1
        09 run of 1795459642229, stopped
          1 closed, opened 1
          2 closed, opened 1
          3 gave up after 1 conflicts, opened 0
          4 closed, opened 1
        10 run of 1795459650671, panic
          1 closed, opened 1
          2 session 3efc678f-1521-4c47-8673-9567955aeb3b, opened 1
          3 gave up after 1 conflicts, opened 0
          4 session 41d09627-7685-4c06-944d-1b40dd313a62, opened 1
        11 run of 1795459665086
          1 session 02dcdd12-d85b-452e-9d97-efafaf1e8b23, opened 1
          2 gave up after 1 conflicts, opened 0
          3 gave up after 1 conflicts, opened 0
          4 gave up after 1 conflicts, opened 0
    "]],
    );
}

#[test]
fn the_day_of_the_build_that_retries() {
    check(
        POST_FIX,
        &expect![[r"
        01 run of 1795459531702
          1 session cd3f8e35-852e-4b66-8812-ef454af7eade, opened 1
          2 session e3eff5cb-de63-4e3e-8adf-43e48d1625f6, opened 1
          3 session cc6a20d3-98bc-4cff-88f3-1fd3a4447edc, opened 1
          4 session 11c72d22-f19a-489d-941b-007752bf675a, opened 1
        02 run of 1795459531702
          1 session cd3f8e35-852e-4b66-8812-ef454af7eade, opened 1
          2 session e3eff5cb-de63-4e3e-8adf-43e48d1625f6, opened 1
          3 session cc6a20d3-98bc-4cff-88f3-1fd3a4447edc, opened 1
          4 session 11c72d22-f19a-489d-941b-007752bf675a, opened 1
        03 run of 1795459531702
          1 session cd3f8e35-852e-4b66-8812-ef454af7eade, opened 1
          2 session 11227318-9973-4646-83f7-640e72fb194e, opened 2
          3 session cc6a20d3-98bc-4cff-88f3-1fd3a4447edc, opened 1
          4 session 11c72d22-f19a-489d-941b-007752bf675a, opened 1
        04 run of 1795459567163
          1 retries after 5 conflicts, opened 0
          2 retries after 5 conflicts, opened 0
          3 retries after 5 conflicts, opened 0
          4 retries after 5 conflicts, opened 0
        05 run of 1795459567163
          1 retries after 8 conflicts, opened 0
          2 retries after 8 conflicts, opened 0
          3 retries after 8 conflicts, opened 0
          4 retries after 8 conflicts, opened 0
        06 run of 1795459567163
          1 session 3fb7f6d2-1364-459d-90aa-92a0c51c1d04, opened 1
          2 session 0ea8482c-2a6f-4199-999b-0028b058ef94, opened 1
          3 session 52a20259-751b-490c-8561-216edd109f55, opened 1
          4 session b53481fc-528e-4011-ae25-431918dda1ca, opened 1
        07 run of 1795459567163
          1 session 3fb7f6d2-1364-459d-90aa-92a0c51c1d04, opened 1
          2 session 17435e66-9c84-4fe7-8b5b-127dd5006028, opened 2
          3 session aea2500b-0f3d-4203-96f4-c4ef78ea6354, opened 2
          4 session 2204dd86-a4db-4183-8de8-5949da75c388, opened 2
        08 run of 1795459642429
          1 session 60ba7dce-b283-48f3-8ee4-c68e328dc536, opened 1
          2 session 40a46e74-9433-4831-a04d-d5dfe6d03863, opened 1
          3 retries after 5 conflicts, opened 0
          4 session 634ef08a-c890-42dd-b651-dde0256ec8e9, opened 1
        09 run of 1795459642429, stopped
          1 closed, opened 1
          2 closed, opened 1
          3 retries after 5 conflicts, opened 0
          4 closed, opened 1
        10 run of 1795459651024, panic
          1 closed, opened 1
          2 session 0f63bdb1-6d74-44a3-9d84-944d224b4250, opened 1
          3 retries after 5 conflicts, opened 0
          4 session a3694b69-205d-4a5f-8e5c-b5675d655fd8, opened 1
        11 run of 1795459665411
          1 session bc82df76-c845-434d-91e4-de46bf43974d, opened 1
          2 retries after 9 conflicts, opened 0
          3 retries after 9 conflicts, opened 0
          4 retries after 9 conflicts, opened 0
    "]],
    );
}

/// What the log had said when a recorded answer was served: up to the access line of that answer.
fn until_served(build: &str, logs: &[&str], metrics: &[u8]) -> Vec<LogFact> {
    let log: Vec<u8> = logs.iter().flat_map(|number| recorded(build, number)).collect();
    let served = format!("\"bytes\":{},", metrics.len());
    let lines: Vec<&[u8]> = log.split(|b| *b == b'\n').collect();
    let is_it = |line: &&[u8]| {
        let line = String::from_utf8_lossy(line).replace(": ", ":");
        line.contains("\"/metrics\"") && line.contains(&served)
    };
    let at = lines.iter().rposition(is_it).unwrap_or_else(|| panic!("{build} {logs:?}: no scrape of {served}"));
    facts_of(&lines[..at].join(&b'\n'))
}

/// How many facts of the manager's current run fit.
fn count(facts: &[LogFact], fits: impl Fn(&LogEvent) -> bool) -> u64 {
    let start = facts.iter().rposition(|fact| fact.what == LogEvent::ManagerStarted).unwrap();
    facts[start..].iter().filter(|fact| fits(&fact.what)).count() as u64
}

#[test]
fn metrics_and_goroutines_of_the_same_moment_agree_with_the_log() {
    let mut table = String::new();
    for build in [PRE_FIX, POST_FIX] {
        for (moment, logs) in [
            ("healthy", &["01", "02"][..]),
            ("stuck", &["04", "05"]),
            ("after-stale-sessions-expired", &["04", "05", "06"]),
        ] {
            let read = |kind| std::fs::read(folder(build).join(format!("http/{kind}-{moment}.txt"))).unwrap();
            let text = read("metrics");
            let facts = until_served(build, logs, &text);
            let metrics = metrics_text::parse(&text).unwrap();
            let live = goroutines::count(&read("goroutines")).unwrap();
            let total = |pick: fn(&medic_core::model::ScopeCounters) -> u64| metrics.scopes.values().map(pick).sum();
            let (creates, errors, polls): (u64, u64, u64) =
                (total(|c| c.create), total(|c| c.create_errors), total(|c| c.poll));

            let conflicts = count(&facts, |what| matches!(what, LogEvent::Conflict { .. }));
            let opened = count(&facts, |what| matches!(what, LogEvent::SessionOpened { .. }));
            let closed = count(&facts, |what| matches!(what, LogEvent::SessionClosing { .. }));
            let polled = count(&facts, |what| matches!(what, LogEvent::Poll { .. }));
            assert_eq!(conflicts, errors, "{build} {moment}: conflicts and errors of CreateMessageSession");
            assert_eq!(opened, creates - errors, "{build} {moment}: sessions opened");
            assert_eq!(polled, polls, "{build} {moment}: polls");
            assert_eq!(opened - closed, u64::from(live.listeners), "{build} {moment}: living listeners");

            let mut evidence = LogEvidence::default();
            for fact in &facts {
                evidence.absorb(fact);
            }
            let started = evidence.by_id.values().filter(|set| set.started.is_some() && set.gave_up.is_none()).count();
            assert_eq!(started as u64, u64::from(live.workers), "{build} {moment}: living workers");
            let process = metrics.incarnation.unwrap().0;
            let delay = evidence.run_started.unwrap().since(process).as_millis();
            assert!(delay <= 2000, "{build} {moment}: the log begins {delay} ms after its process");
            writeln!(
                table,
                "{build} {moment}: {conflicts} conflicts, {opened} opened, {closed} closed, {polled} polls, {} listeners, \
                 {} workers",
                live.listeners, live.workers
            )
            .unwrap();
        }
    }
    expect![[r"
        garm-2026-04-pre-fix healthy: 0 conflicts, 4 opened, 0 closed, 4 polls, 4 listeners, 4 workers
        garm-2026-04-pre-fix stuck: 4 conflicts, 0 opened, 0 closed, 0 polls, 0 listeners, 0 workers
        garm-2026-04-pre-fix after-stale-sessions-expired: 11 conflicts, 1 opened, 0 closed, 1 polls, 1 listeners, 1 workers
        garm-2026-07-post-fix healthy: 0 conflicts, 4 opened, 0 closed, 4 polls, 4 listeners, 4 workers
        garm-2026-07-post-fix stuck: 16 conflicts, 0 opened, 0 closed, 0 polls, 0 listeners, 4 workers
        garm-2026-07-post-fix after-stale-sessions-expired: 50 conflicts, 4 opened, 0 closed, 4 polls, 4 listeners, 4 workers
    "]].assert_eq(&table);
}
