//! The log. Lines are compared as (level, message, attribute names in order): every such triple that the simulator
//! writes with a message that a reader can depend on (`reference/garm-api.md` §12) is a recorded one, and every such
//! message that was recorded in a situation is written in it. How often and in which order is not compared.

use super::stage::{Stage, VERSIONS, recorded, recording};
use scaleset_medic::lab::garm::{LogFormat, LogLevel};
use scaleset_medic::model::Span;
use std::collections::BTreeSet;

/// The messages of `reference/garm-api.md` §12.
const MESSAGES: &[&str] = &[
    "starting scale set worker",
    "creating scale set listener",
    "starting scale set listener",
    "scale set is disabled; not starting listener",
    "starting scale set worker loops",
    "failed to handle scale set create operation",
    "failed to handle scale set update operation",
    "retrying failed scale set",
    "scale set worker successfully started after retry",
    "retry failed: starting scale set worker",
    "retry failed: creating scale set worker",
    "creating new message session",
    "starting message session refresh loop",
    "starting scale set listener loop",
    "getting message",
    "no messages available in queue",
    "handling message",
    "job available",
    "new job assigned",
    "job started",
    "job completed",
    "acquired jobs",
    "message is older than last message, ignoring",
    "checking if message session token needs refresh",
    "refreshing message session token",
    "refreshed message session token",
    "failed to refresh message queue token",
    "got unauthorized error, retrying",
    "unauthorized, stopping listener",
    "stopping scale set listener",
    "closing message session",
    "error deleting message session",
    "error getting scale set client",
    "acquiring jobs",
    "deleting message",
    "setting last message ID",
    "setting desired runner count",
    "message session refresh loop done",
    "listener is stopped; attempting to restart",
    "attempting to restart",
    "error starting listener",
    "backing off restart attempt",
    "error restarting listener",
    "worker is stopped; exiting keepListenerAlive",
    "desired runner count reached",
    "scaling up",
    "attempting to scale down",
    "got update operation",
    "got update operation for scale set",
    "access_log",
];

/// Level, message, attribute names.
type Shape = (String, String, Vec<String>);

/// The names of a JSON object's fields and its texts, in order and with repetitions, which a map would lose.
fn fields(line: &str) -> Option<Vec<(String, String)>> {
    struct Fields;
    impl<'de> serde::de::Visitor<'de> for Fields {
        type Value = Vec<(String, String)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a log line")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                fields.push((name, value.as_str().unwrap_or_default().to_owned()));
            }
            Ok(fields)
        }
    }
    serde::Deserializer::deserialize_map(&mut serde_json::Deserializer::from_str(line), Fields).ok()
}

fn shape(line: &str) -> Option<Shape> {
    let fields = fields(line)?;
    assert_eq!(fields.iter().map(|(name, _)| name.as_str()).take(3).collect::<Vec<_>>(), ["time", "level", "msg"]);
    let (level, message) = (fields[1].1.clone(), fields[2].1.clone());
    let attributes = fields.into_iter().skip(3).map(|(name, _)| name).collect();
    MESSAGES.contains(&message.as_str()).then_some((level, message, attributes))
}

fn shapes<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeSet<Shape> {
    lines.into_iter().filter_map(shape).collect()
}

fn log_file(version: &str, situation: &str) -> String {
    let files = std::fs::read_dir(recording(version, "logs")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let name = names.into_iter().find(|name| name.starts_with(&format!("{situation}-"))).unwrap();
    recorded(version, &format!("logs/{name}"))
}

/// Compares what was written since the last situation; the lines themselves.
fn compare(stage: &mut Stage, version: &str, situation: &str) -> Vec<String> {
    let lines = stage.take_log();
    let real = shapes(log_file(version, situation).lines());
    let simulated = shapes(lines.iter().map(String::as_str));
    let kinds = |shapes: &BTreeSet<Shape>| -> BTreeSet<(String, String)> {
        shapes.iter().map(|(level, message, _)| (level.clone(), message.clone())).collect()
    };
    let mut found: BTreeSet<String> = simulated
        .difference(&real)
        .map(|(level, message, attributes)| format!("{level} `{message}` {attributes:?} is not GARM's"))
        .collect();
    let missing = kinds(&real).difference(&kinds(&simulated)).cloned().collect::<Vec<_>>();
    found.extend(missing.iter().map(|(level, message)| format!("{level} `{message}` is missing")));
    stage.settle(version, situation, &found);
    lines
}

#[test]
fn lines_are_the_recorded_ones() {
    for (version, generation) in VERSIONS {
        let mut stage = Stage::new(generation, |_| {});
        stage.start();
        stage.wait(Span::secs(8));
        stage.ask("GET", "/api/v1/scalesets", &serde_json::Value::Null, true);
        compare(&mut stage, version, "01");
        stage.queue_jobs(1, 3);
        stage.wait(Span::secs(12));
        stage.take_log();
        for enabled in [false, false, true] {
            stage.put_enabled(2, enabled);
            stage.wait(Span::secs(3));
        }
        compare(&mut stage, version, "03");
        stage.kill_and_start();
        stage.wait(Span::secs(10));
        stage.ask("GET", "/api/v1/scalesets", &serde_json::Value::Null, true);
        compare(&mut stage, version, "04");
        stage.put_enabled(2, true);
        stage.put_enabled(1, false);
        stage.wait(Span::millis(2_500));
        stage.put_enabled(1, true);
        stage.wait(Span::secs(3));
        compare(&mut stage, version, "05");
        stage.finish();
    }
}

#[test]
fn lines_of_a_graceful_stop_and_of_a_panic_are_the_recorded_ones() {
    for (version, generation) in VERSIONS {
        let mut stage = Stage::new(generation, |_| {});
        stage.another_owner_takes(3, Span::secs(60));
        stage.start();
        stage.wait(Span::secs(12));
        stage.take_log();
        stage.stop();
        compare(&mut stage, version, "09");
        stage.start();
        stage.wait(Span::secs(8));
        stage.ask("GET", "/api/v1/scalesets", &serde_json::Value::Null, true);
        stage.third_party_deletes_session(1);
        stage.wait(Span::secs(1));
        assert_eq!(stage.world.garm(0).unwrap().crashes(), 1, "{version}");
        let lines = compare(&mut stage, version, "10");
        let panic = log_file(version, "10").lines().find(|line| line.starts_with("panic:")).unwrap().to_owned();
        assert!(lines.contains(&panic), "{version}");
        stage.start();
        stage.wait(Span::secs(4));
        assert!(!stage.take_log().is_empty(), "it can be started again");
        stage.finish();
    }
}

/// There is no recording of the text format; its shape is slog's: `key=value`, values quoted when they need it.
#[test]
fn the_text_format_says_the_same_as_the_json_format() {
    for (version, generation) in VERSIONS {
        let say = |format| {
            let mut stage = Stage::new(generation, |garm| (garm.log_format, garm.log_level) = (format, LogLevel::Info));
            stage.start();
            stage.wait(Span::secs(8));
            stage.kill_and_start();
            stage.wait(Span::secs(4));
            stage.take_log()
        };
        let (json, text) = (say(LogFormat::Json), say(LogFormat::Text));
        assert_eq!(json.len(), text.len(), "{version}");
        for (json, text) in json.iter().zip(&text) {
            let names: Vec<String> = fields(json).unwrap().into_iter().map(|(name, _)| name).collect();
            assert_eq!(text_names(text), names, "{text}");
        }
        assert!(text.iter().any(|line| line.contains(" level=ERROR msg=\"")), "{version}");
    }
}

/// The names of `key=value` pairs; a value is bare up to the next blank, or quoted with backslash escapes.
fn text_names(line: &str) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), line);
    while let Some((name, value)) = rest.split_once('=') {
        names.push(name.to_owned());
        let mut escaped = true;
        let end = |c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        };
        let value = if value.starts_with('"') { value.split_at(value.find(end).unwrap()).1 } else { value };
        rest = value.split_once(' ').map_or("", |(_, rest)| rest);
    }
    names
}
