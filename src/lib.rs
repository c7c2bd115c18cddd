//! scaleset-medic finds GitHub Actions runner scale sets that are stuck after a session conflict, and
//! heals them without doing harm.
//!
//! One direction, each arrow a plain data type (design §3):
//!
//! ```text
//! probe (adapters)        diagnose (pure)      decide (pure)           treat (pure machine + driver)
//! manager API, metrics, → observations →    →  finding + history →   → journal intent → effect →
//! goroutines, log, broker one finding per set  act|watch|withhold      read back → verify → close
//!         ↑                                                                    ↓
//!         └────────────── store (SQLite): ledger, journal, history ←───────────┘
//!                         export: metrics, status page, logs, exit codes
//! ```
//!
//! The modules, in the order of the flow; `ARCHITECTURE.md` has the map, the invariants and where each rule lives.
#![forbid(unsafe_code)]

pub mod model;

pub mod probe;

pub mod diagnose;

pub mod decide;

pub mod treat;

pub mod doctor;

pub mod run;

pub mod clock;
pub mod http;

pub mod garm;
pub mod github;

pub mod store;

pub mod export;

pub mod config;

pub mod cli;
pub mod exit;
pub mod telemetry;

#[cfg(feature = "lab")]
pub mod lab;
