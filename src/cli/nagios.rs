//! `--nagios`: the one line and the four exit codes of a Nagios plugin.
//!
//! The line is on stdout whatever happens, because a monitor shows nothing else; errors are on stderr.

use super::Failure;
use super::output::data;
use crate::exit::{ExitCode, Nagios};
use crate::status::Status;
use crate::text::words;
use medic_core::model::Diagnosis;
use std::ffi::OsString;

const FLAG: &str = "--nagios";
/// The longest line that monitors keep whole.
const LINE: usize = 1000;

/// Whether the flag is given, also where parsing failed.
pub(super) fn is_asked(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.any(|argument| argument == FLAG)
}

pub(super) fn line(status: &Status, nagios: Nagios) -> String {
    let known = status.managers.iter().filter_map(|manager| Some((&manager.name, manager.incident.as_deref()?)));
    let incidents: Vec<_> = known.map(|(manager, incident)| format!("{manager}: {incident}")).collect();
    let mut what = words::verdict(status);
    if !incidents.is_empty() {
        what = format!("{what}: {}", incidents.join("; "));
    }
    let sets = || status.managers.iter().flat_map(|manager| &manager.sets).map(|set| set.finding.diagnosis);
    let ill = sets().filter(|diagnosis| diagnosis.is_ill()).count();
    let unknown = sets().filter(|diagnosis| *diagnosis == Diagnosis::Unknown).count();
    let all = sets().count();
    format!("{} | unhealthy={ill};;0;0;{all} unknown={unknown};0;;0;{all}\n", head(nagios, &what))
}

pub(super) fn say(code: ExitCode, what: &str) -> Result<(), Failure> {
    data(&(head(code.into(), what) + "\n"))
}

/// The readable part, without what would end it or start the numbers.
fn head(nagios: Nagios, what: &str) -> String {
    let what: String = what.chars().map(|c| if c == '|' || c.is_control() { ' ' } else { c }).take(LINE).collect();
    format!("SCALESETS {} - {what}", nagios.word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nagios_line_replaces_separators() {
        assert_eq!(head(Nagios::Critical, "a|b\nc"), "SCALESETS CRITICAL - a b c");
        assert!(head(Nagios::Unknown, &"x".repeat(5000)).len() < 1100);
    }

    #[test]
    fn nagios_flag_is_seen_among_wrong_arguments() {
        let given = |words: &[&str]| is_asked(words.iter().map(OsString::from));
        assert!(given(&["status", "--bogus", "--nagios"]));
        assert!(!given(&["status", "--nagio"]));
    }
}
