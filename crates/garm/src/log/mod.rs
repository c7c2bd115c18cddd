//! The manager's log: the only source that names a session or the set of a refusal (`docs/reference/design.md` §1, §4).
//!
//! [`format`](mod@format) reads one line's attributes, [`parse`] says what a line means, [`tail`] follows a file
//! through rotations, [`source`] folds it all into evidence, and [`ledger_feed`] turns facts into the ledger's rows.
//! Nothing of a log is kept but the facts.

pub mod format;
pub mod ledger_feed;
pub mod parse;
mod rotated;
pub mod source;
pub mod stream;
pub mod tail;
