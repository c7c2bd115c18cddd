//! scaleset-medic finds GitHub Actions runner scale sets that are stuck after a session conflict, and
//! heals them without doing harm.
//!
//! Data flows one way, and each arrow is a plain data type (`docs/reference/design.md` §3):
//!
//! ```text
//! sources (adapters)      diagnose (pure)      decide (pure)           treat (pure) + driver
//! GARM's API, metrics,  → sweep + state     →  findings + journal   →  journal intent → request →
//! goroutines, log,        one finding for      one decision for        read back → verify → close
//! GitHub's lists          each scale set       each scale set
//!         ↑                                                                    ↓
//!         └────────────── store (SQLite): ledger, journal, history ←───────────┘
//!                         metrics, status page, logs, exit codes
//! ```
//!
//! `ARCHITECTURE.md` has the crates, the invariants and where each rule lives.
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
