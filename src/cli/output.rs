//! Writing to the two streams, and how a command fails.
//!
//! Names, reasons and errors come from elsewhere and may hold control characters. Text is cleaned here ([`prose`],
//! [`diagnostic`]); coloured text piece by piece ([`one_line`]) before it is coloured; [`data`] stays as it is.

use crate::config::Report;
use crate::exit::ExitCode;
use std::io::{ErrorKind, Write as _};

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Config(#[from] Report),
    /// The arguments do not fit together; what to change.
    #[error("{0}")]
    Usage(String),
    /// What was asked for could not be read; what to do.
    #[error("{0}")]
    Blind(String),
    /// A fault of ours or of the machine.
    #[error("{0:#}")]
    Internal(#[from] anyhow::Error),
    /// As `head` does: no failure.
    #[error("the reader of stdout has gone")]
    ReaderGone,
}

impl Failure {
    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::Internal(error.into())
    }

    /// Prints it once, and returns the exit code.
    pub(super) fn report(self) -> ExitCode {
        let code = match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::Usage,
            Self::Blind(_) => ExitCode::Blind,
            Self::Internal(_) => ExitCode::Internal,
            Self::ReaderGone => return ExitCode::Well,
        };
        diagnostic(&format!("error: {}\n", self.to_string().trim_end()));
        code
    }
}

pub fn data(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::ReaderGone),
        Err(error) => Err(Failure::Internal(anyhow::Error::new(error).context("cannot write to stdout"))),
    }
}

/// Writes text to stdout, without control characters.
pub(super) fn prose(text: &str) -> Result<(), Failure> {
    data(&harmless(text))
}

/// Writes a diagnostic to stderr. A failure to write cannot be reported.
pub fn diagnostic(text: &str) {
    drop(std::io::stderr().lock().write_all(harmless(text).as_bytes()));
}

/// Without control characters; lines and tabs stay.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if is_control(c) && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// As a part of one line: without control characters and line ends.
pub(super) fn one_line(text: &str) -> String {
    harmless(text).replace(['\n', '\t'], " ")
}

/// Control characters, and those that change the direction of what is around them.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Help and version go to stdout and are no failure; wrong usage goes to stderr.
pub(super) fn parser_stop(stop: &clap::Error) -> ExitCode {
    // A reader that has gone is no failure here either.
    drop(stop.print());
    if stop.use_stderr() { ExitCode::Usage } else { ExitCode::Well }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced() {
        let said = "a\u{1b}[2J\u{9b}2J\u{7}\u{202e}b\r\n\tc ä";
        assert_eq!(harmless(said), "a\u{fffd}[2J\u{fffd}2J\u{fffd}\u{fffd}b\u{fffd}\n\tc ä");
        assert_eq!(one_line("a\nforged: well\u{1b}"), "a forged: well\u{fffd}");
    }
}
