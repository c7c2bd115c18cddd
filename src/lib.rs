//! scaleset-medic finds GitHub Actions runner scale sets that are stuck after a session conflict, and
//! heals them without doing harm.
//!
//! One direction, each arrow a plain data type (`docs/reference/design.md` §3):
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

pub mod cli;
pub mod config;
pub mod doctor;
pub mod engine;
pub mod exit;
pub mod metrics;
pub mod replay;
pub mod status;
pub mod telemetry;
pub mod text;
pub mod web;
