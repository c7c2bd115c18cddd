//! The command line as a script sees it: exit codes, streams, help.

use expect_test::{expect, expect_file};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const GOOD: &str = "tests/fixtures/config/good.toml";

fn medic(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
    command.args(args).env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    medic(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_matches_the_fixtures() {
    for (args, file) in [
        (vec!["--help"], "help.txt"),
        (vec!["run", "--help"], "help-run.txt"),
        (vec!["once", "--help"], "help-once.txt"),
        (vec!["lab", "--help"], "help-lab.txt"),
        (vec!["config", "--help"], "help-config.txt"),
    ] {
        let output = run(&args);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{args:?}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cli").join(file);
        expect_file![path].assert_eq(&stdout(&output));
    }
}

#[test]
fn version_names_the_program_and_its_version() {
    let output = run(&["--version"]);
    assert_eq!(stdout(&output), format!("scaleset-medic {}\n", env!("CARGO_PKG_VERSION")));
}

/// A monitor may show the first line of stdout only.
#[test]
fn nagios_check_that_cannot_run_is_unknown() {
    for args in [
        vec!["status", "--nagios", "--bogus"],
        vec!["status", "--nagios", "--watch"],
        vec!["status", "--nagios", "--config", "tests/fixtures/config/bad-two-managers.toml"],
        vec!["once", "--nagios", "--config", "no/such/file.toml"],
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert!(stdout(&output).starts_with("SCALESETS UNKNOWN - "), "{args:?}: {}", stdout(&output));
        assert!(stderr(&output).contains("error"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn wrong_usage_is_exit_code_2_on_stderr() {
    for args in [
        vec![],
        vec!["bogus"],
        vec!["--bogus"],
        vec!["config"],
        vec!["config", "check", "--log-format", "xml"],
        vec!["once", "--mode", "destroy"],
        vec!["once", "--observe", "soon"],
        vec!["lab", "--sets", "0"],
        vec!["lab", "--speed", "nan"],
        vec!["lab", "--conflict_behaviour", "newest"],
        vec!["man", "bogus"],
        vec!["completions", "bogus"],
    ] {
        let output = run(&args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{args:?}");
        assert!(!stderr(&output).is_empty(), "{args:?} prints nothing");
    }
}

#[test]
fn config_check_prints_the_limits_of_a_good_configuration() {
    let output = run(&["config", "check", "--config", GOOD]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    expect![[r"
        good: mode heal; managers garm, second; GitHub asked for github.com, ghes
        At most 3 heals of one set in a day (9 writes, retries aside), 72 if it recovers for long enough in between.
        At most 1440 session checks of one set in a day.
        At most 10 open treatments (or 5.0 % of the sets, if that is more), one until the first worker has restarted, and 1000 heals in an hour.
        A set is disabled by us for at most 2 min and one sweep while GARM answers; if it refuses the enable for longer, no other set is disabled.
    "]]
    .assert_eq(&stdout(&output));
}

#[test]
fn bad_configuration_is_reported_on_stderr_with_exit_code_2() {
    for args in [
        vec!["config", "check", "--config", "tests/fixtures/config/bad-two-managers.toml"],
        vec!["config", "print", "--config", "tests/fixtures/config/bad-two-managers.toml"],
        vec!["run", "--config", "tests/fixtures/config/bad-two-managers.toml"],
        vec!["once", "--config", "tests/fixtures/config/bad-two-managers.toml"],
    ] {
        let output = run(&args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{args:?}");
        expect![[r#"
            error: the configuration has 1 mistake:
            tests/fixtures/config/bad-two-managers.toml:7: manager.name: "garm" is used twice (line 2)
                fix: give each manager a name of its own
        "#]]
        .assert_eq(&stderr(&output));
    }
}

#[test]
fn environment_and_flags_override_the_configuration() {
    let output = medic(&["config", "print", "--log-level", "warn"])
        .env("SCALESET_MEDIC_CONFIG", GOOD)
        .env("SCALESET_MEDIC_LOG_LEVEL", "error")
        .env("SCALESET_MEDIC_LOG_FORMAT", "text")
        .output()
        .unwrap();
    let printed = stdout(&output);
    let line = |start: &str| {
        let line = printed.lines().find(|line| line.starts_with(start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("level"), r#"level = "warn" # flag --log-level"#);
    assert_eq!(line("format"), r#"format = "text" # env SCALESET_MEDIC_LOG_FORMAT"#);
    assert_eq!(line("interval"), r#"interval = "30s" # from tests/fixtures/config/good.toml:3"#);
    assert!(!printed.contains("swordfish"), "{printed}");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    for args in [vec!["completions", "bash"], vec!["completions", "zsh"], vec!["completions", "fish"], vec!["man"]] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        for command in ["run", "once", "config", "completions", "man"] {
            assert!(stdout(&output).contains(command), "{args:?} lacks {command}");
        }
    }
    let page = stdout(&run(&["man", "config", "check"]));
    assert!(page.contains(".TH") && page.contains("exit code 2"), "{page}");
}

#[cfg(unix)]
#[test]
fn closed_pipe_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = medic(&["config", "schema"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn no_color_makes_errors_plain_text() {
    let output = medic(&["bogus"]).env("NO_COLOR", "1").output().unwrap();
    assert!(!stderr(&output).contains('\u{1b}'), "{}", stderr(&output));
}
