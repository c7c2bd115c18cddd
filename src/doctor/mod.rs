//! `doctor`: what the medic can see, what it cannot see, and which settings are risky.
//!
//! [`gather`] asks the servers and makes [`facts`]; [`examine`] answers each question from them, in one function per
//! question. A [`Finding`] says what was seen, what that hides or risks, and what to do, with the exact lines.
//!
//! A manager that cannot be reached has one finding: what was not asked because of it is left out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod build;
mod cluster;
pub mod facts;
pub mod gather;
mod github;
mod lines;
mod log;
mod overlap;
mod reach;
mod settings;
pub mod skew;
mod sources;
#[cfg(test)]
mod tests;

use crate::exit::ExitCode;
use facts::{Facts, GithubFacts, ManagerFacts};
use medic_core::model::closed::closed_enum;
use medic_core::model::{EndpointName, ManagerName};
use serde::Serialize;

closed_enum! {
    pub enum State {
        Ok = "ok",
        /// Works, and could be better: slower healing, less to see, a risk.
        Warn = "warn",
        /// Hides evidence although it was configured, or prevents healing.
        Fail = "fail",
        /// Cannot be seen from here; the finding says how to find out.
        Unknown = "unknown",
    }
}

closed_enum! {
    /// The questions. The names are stable: scripts select by them.
    pub enum Check {
        /// Whether anything may be healed at all.
        Mode = "mode",
        Policy = "policy",
        /// The state directory and its rights.
        StateDir = "state_dir",
        /// The ledger of sessions and the journal.
        Ledger = "ledger",
        Pauses = "pauses",
        /// Sets that a treatment of ours has disabled and not enabled again.
        LeftDisabled = "left_disabled",
        /// Two managers for one set.
        Overlap = "overlap",
        Reach = "reach",
        /// Whether the way to it is safe from eavesdroppers.
        Transport = "transport",
        /// The login and how long it holds.
        Login = "login",
        Api = "api",
        Clock = "clock",
        /// What the manager's build does after a conflict.
        Build = "build",
        Metrics = "metrics",
        Goroutines = "goroutines",
        /// The log: by file, by websocket, or not at all.
        Log = "log",
        /// The websocket of changes.
        Events = "events",
        /// How the manager is stopped and rolled out.
        Rollout = "rollout",
        /// GitHub's lists of sets, per entity.
        ActionsService = "actions_service",
        /// The GitHub credential: its quota and its end.
        Credential = "credential",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    Medic,
    Manager(ManagerName),
    /// A GitHub endpoint, by the manager's name for it.
    Endpoint(EndpointName),
}

impl From<&ManagerFacts> for Subject {
    fn from(manager: &ManagerFacts) -> Self {
        Self::Manager(manager.config.name.clone())
    }
}

impl From<&GithubFacts> for Subject {
    fn from(github: &GithubFacts) -> Self {
        Self::Endpoint(github.endpoint.clone())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: Check,
    pub subject: Subject,
    pub state: State,
    pub seen: String,
    /// What it hides, slows or risks; empty when all is well.
    pub risk: String,
    /// What to do about it, with exact lines; empty when nothing is to be done.
    pub fix: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub what: String,
    /// Lines to put in or to type, as they are; may be empty.
    pub lines: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The medic, each manager, each endpoint, in this order.
    pub findings: Vec<Finding>,
    pub exit: ExitCode,
}

impl Check {
    fn ok(self, subject: impl Into<Subject>, seen: impl Into<String>) -> Finding {
        self.answered(State::Ok, subject.into(), seen.into())
    }
    fn warn(self, subject: impl Into<Subject>, seen: impl Into<String>) -> Finding {
        self.answered(State::Warn, subject.into(), seen.into())
    }
    fn fail(self, subject: impl Into<Subject>, seen: impl Into<String>) -> Finding {
        self.answered(State::Fail, subject.into(), seen.into())
    }
    fn unknown(self, subject: impl Into<Subject>, seen: impl Into<String>) -> Finding {
        self.answered(State::Unknown, subject.into(), seen.into())
    }
    fn answered(self, state: State, subject: Subject, seen: String) -> Finding {
        Finding { check: self, subject, state, seen, risk: String::new(), fix: Vec::new() }
    }
}

impl Finding {
    fn risks(mut self, risk: impl Into<String>) -> Self {
        self.risk = risk.into();
        self
    }
    fn advice(self, what: impl Into<String>) -> Self {
        self.step(what, &[])
    }
    fn step(mut self, what: impl Into<String>, lines: &[&str]) -> Self {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        self.fix.push(Step { what: what.into(), lines });
        self
    }
}

pub fn examine(facts: &Facts) -> Report {
    let mut findings = settings::findings(facts);
    findings.extend(overlap::findings(facts));
    let mut unreached = false;
    for manager in &facts.managers {
        let reach = reach::findings(facts, manager);
        let answers = manager.controller.known().is_some() || manager.scale_sets.known().is_some();
        unreached |= reach::is_unreached(manager);
        findings.extend(reach);
        if answers {
            findings.push(build::finding(facts.at, manager));
            findings.extend(sources::findings(facts, manager));
            findings.push(log::finding(facts, manager));
            findings.push(cluster::finding(facts, manager));
        }
    }
    findings.extend(github::findings(facts));
    let exit = exit(&findings, unreached);
    Report { findings, exit }
}

/// A manager that was not reached outweighs what fails: nothing could be asked of it.
fn exit(findings: &[Finding], unreached: bool) -> ExitCode {
    if unreached {
        return ExitCode::Blind;
    }
    let fails = findings.iter().any(|finding| finding.state == State::Fail);
    if fails { ExitCode::Unhealthy } else { ExitCode::Well }
}
