//! `lab --serve`, as a person uses it: it says where to look, obeys what is typed, and ends when asked to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

/// A lab that dies with its test.
struct Lab(Child);

impl Drop for Lab {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lab(speed: &str, flags: &[&str]) -> Lab {
    started(&[&["--scenario", "quiet", "--speed", speed], flags].concat())
}

fn started(flags: &[&str]) -> Lab {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
    command.args(["lab", "--serve", "--listen", "127.0.0.1:0"]).args(flags);
    Lab(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Reads what the lab says up to a line with each of these, in their order.
fn hears(lines: &mut impl Iterator<Item = std::io::Result<String>>, expected: &[&str]) {
    let mut heard = String::new();
    for part in expected {
        loop {
            let Some(Ok(line)) = lines.next() else { unreachable!("it never said {part:?}, only:\n{heard}") };
            heard.push_str(&line);
            heard.push('\n');
            if line.contains(part) {
                break;
            }
        }
    }
}

#[test]
fn a_crash_that_is_typed_is_seen_and_healed_before_the_eyes_of_the_person() {
    let mut lab = lab("5", &["--sets", "2", "--ledger"]);
    let mut input = lab.0.stdin.take().unwrap();
    let mut lines = BufReader::new(lab.0.stdout.take().unwrap()).lines();
    hears(&mut lines, &["Status page   http://127.0.0.1:", "/metrics", "explain linux-0", "crash", "quit"]);
    hears(&mut lines, &["linux-1: listening"]);
    writeln!(input, "crash").unwrap();
    hears(&mut lines, &["GARM is killed", "garm is restarted", "linux-1: conflict_abandoned", "linux-1: listening"]);
    writeln!(input, "where").unwrap();
    hears(&mut lines, &["Status page"]);
    writeln!(input, "quit").unwrap();
    assert_eq!(lab.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_word_that_is_no_fault_is_answered_and_a_closed_terminal_ends_nothing() {
    let mut lab = lab("20", &["--sets", "1", "--mode", "observe"]);
    let mut input = lab.0.stdin.take().unwrap();
    let mut errors = BufReader::new(lab.0.stderr.take().unwrap()).lines();
    writeln!(input, "explode\nkill").unwrap();
    drop(input);
    hears(&mut errors, &["there is no \"explode\"; `help` lists the commands"]);
    let mut lines = BufReader::new(lab.0.stdout.take().unwrap()).lines();
    hears(&mut lines, &["watches and writes nothing", "GARM is killed", "garm is down"]);
    assert_eq!(lab.0.try_wait().unwrap(), None, "it serves on");
    let told = Command::new("kill").args(["-TERM", &lab.0.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(lab.0.wait().unwrap().code(), Some(143));
}

/// A newcomer who opens the page half a minute later still finds the sets stuck, and can paste what is said.
#[test]
fn unless_told_the_lab_runs_at_the_speed_of_life_and_tells_when_to_look() {
    let mut lab = started(&["--sets", "1"]);
    let mut lines = BufReader::new(lab.0.stdout.take().unwrap()).lines();
    let hint = format!("{} --config ", env!("CARGO_BIN_EXE_scaleset-medic"));
    hears(
        &mut lines,
        &[
            "Time runs as it does for you.",
            "GARM is killed 20 s from now; its sets are stuck until GitHub forgets the stale sessions, about 110 s from",
            &hint,
        ],
    );
}

#[test]
fn at_another_speed_it_says_which_commands_go_by_the_machines_clock() {
    let mut lab = started(&["--sets", "1", "--speed", "10"]);
    let mut lines = BufReader::new(lab.0.stdout.take().unwrap()).lines();
    hears(&mut lines, &["Time runs 10 times", "GARM is killed 2 s from now", "pause --for, heal and doctor"]);
}

#[test]
fn what_waits_for_a_disable_keeps_no_other_order_waiting() {
    let mut lab = lab("20", &["--sets", "1"]);
    let mut input = lab.0.stdin.take().unwrap();
    let mut lines = BufReader::new(lab.0.stdout.take().unwrap()).lines();
    hears(&mut lines, &["linux-0: listening"]);
    writeln!(input, "refuse-enable\nwhere\ncrash").unwrap();
    hears(
        &mut lines,
        &["GARM will refuse every update once", "Status page", "GARM is killed", "GARM refuses every update"],
    );
    writeln!(input, "quit").unwrap();
    assert_eq!(lab.0.wait().unwrap().code(), Some(0));
}
