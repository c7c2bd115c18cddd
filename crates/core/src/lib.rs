//! The rules, pure: observations in, diagnosis and decision out. No clock, randomness, files, network or runtime; time
//! and chance are arguments, and what must be done in the world stands behind the traits of [`ports`].
//!
//! - [`model`]: what the words mean.
//! - [`policy`]: every number that a rule uses, with its default; [`settings`]: how one is declared.
//! - [`due`]: which sources the next sweep asks.
//! - [`diagnose`]: observations to one finding for each scale set.
//! - [`decide`]: findings to one decision for each scale set.
//! - [`treat`]: what a treatment does next.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

pub mod clock;
pub mod decide;
pub mod diagnose;
pub mod due;
pub mod model;
pub mod policy;
pub mod ports;
pub mod settings;
pub mod treat;

/// For [`model::closed::closed_enum`].
#[doc(hidden)]
pub use schemars;
