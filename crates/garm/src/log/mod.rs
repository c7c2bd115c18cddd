//! The manager's log: the only source that names a session or the set of a refusal (`docs/reference/design.md` §1, §4).
//!
//! [`format`](mod@format) reads one line's attributes, [`parse`] its meaning, [`tail`] follows a file through rotations,
//! [`source`] and [`stream`] sum the facts up as evidence, and [`ledger_feed`] turns them into the ledger's rows.

pub mod format;
pub mod ledger_feed;
pub mod parse;
mod rotated;
pub mod source;
pub mod stream;
pub mod tail;
