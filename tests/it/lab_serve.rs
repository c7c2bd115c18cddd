//! `lab --serve` as an operator uses it: it prints its addresses, carries out typed commands, and ends on request.

use crate::sockets::Running;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

fn quiet_lab(speed: &str, flags: &[&str]) -> (Running, ChildStdin, Lines<BufReader<ChildStdout>>) {
    lab(&[&["--scenario", "quiet", "--speed", speed], flags].concat())
}

fn lab(flags: &[&str]) -> (Running, ChildStdin, Lines<BufReader<ChildStdout>>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
    command.args(["lab", "--serve", "--listen", "127.0.0.1:0"]).args(flags);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    (Running(Some(child)), input, BufReader::new(output).lines())
}

fn ended(lab: &mut Running) -> Option<i32> {
    lab.0.as_mut().unwrap().wait().unwrap().code()
}

/// Reads lines up to one with each of these, in their order.
fn expect(lines: &mut impl Iterator<Item = std::io::Result<String>>, expected: &[&str]) {
    let mut read = String::new();
    for part in expected {
        loop {
            let Some(Ok(line)) = lines.next() else { unreachable!("no {part:?}, only:\n{read}") };
            read.push_str(&line);
            read.push('\n');
            if line.contains(part) {
                break;
            }
        }
    }
}

#[test]
fn lab_serve_shows_a_typed_crash_and_its_healing() {
    let (mut lab, mut input, mut lines) = quiet_lab("5", &["--sets", "2", "--ledger"]);
    expect(&mut lines, &["Status page   http://127.0.0.1:", "/metrics", "explain linux-0", "crash", "quit"]);
    expect(&mut lines, &["linux-1: listening"]);
    writeln!(input, "crash").unwrap();
    expect(
        &mut lines,
        &["GARM is killed", "\"garm\" is restarted", "linux-1: conflict_abandoned", "linux-1: listening"],
    );
    writeln!(input, "where").unwrap();
    expect(&mut lines, &["Status page"]);
    writeln!(input, "quit").unwrap();
    assert_eq!(ended(&mut lab), Some(0));
}

#[test]
fn lab_serve_reports_unknown_commands_and_outlives_its_input() {
    let (mut lab, mut input, mut lines) = quiet_lab("20", &["--sets", "1", "--mode", "observe"]);
    let mut errors = BufReader::new(lab.0.as_mut().unwrap().stderr.take().unwrap()).lines();
    writeln!(input, "explode\nkill").unwrap();
    drop(input);
    expect(&mut errors, &["unknown command \"explode\"; `help` lists the commands"]);
    expect(&mut lines, &["only observes", "GARM is killed", "\"garm\" is down"]);
    assert!(lab.is_alive(), "it still serves");
    lab.signal("-TERM");
    assert_eq!(ended(&mut lab), Some(143));
}

/// A user who opens the page half a minute later still finds the sets stuck, and can paste the printed command.
#[test]
fn lab_serve_runs_in_real_time_by_default() {
    let (_lab, _input, mut lines) = lab(&["--sets", "1"]);
    let stuck = "GARM is killed 20 s from now; its sets are stuck until GitHub forgets the stale sessions, about 110 s";
    let hint = format!("{} --config ", env!("CARGO_BIN_EXE_scaleset-medic"));
    expect(&mut lines, &["The lab runs in real time.", stuck, &hint]);
    let (_lab, _input, mut lines) = lab(&["--sets", "1", "--speed", "10"]);
    expect(&mut lines, &["The lab runs 10 times", "GARM is killed 2 s from now", "pause --for, heal and doctor"]);
}

#[test]
fn lab_serve_carries_out_commands_while_refuse_enable_waits() {
    let (mut lab, mut input, mut lines) = quiet_lab("20", &["--sets", "1"]);
    expect(&mut lines, &["linux-0: listening"]);
    writeln!(input, "refuse-enable\nwhere\ncrash").unwrap();
    expect(
        &mut lines,
        &["GARM will refuse every update once", "Status page", "GARM is killed", "GARM refuses every update"],
    );
    writeln!(input, "quit").unwrap();
    assert_eq!(ended(&mut lab), Some(0));
}
