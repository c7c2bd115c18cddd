//! What the medic itself did and learnt that bears on a diagnosis.

use crate::model::session::LedgerSession;
use crate::model::{Owner, ScaleSetId, Treatment, Wall};
use std::collections::BTreeMap;

/// What GitHub answered to a session check.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CheckAnswer {
    /// Somebody holds the set's session; by name, where GitHub gave it.
    Held {
        owner: Option<Owner>,
    },
    Unheld,
}

#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub treatments: &'a [Treatment],
    /// The latest answer of a session check, by set.
    pub checks: &'a BTreeMap<ScaleSetId, (Wall, CheckAnswer)>,
    /// Living sessions of the ledger.
    pub ledger: &'a [LedgerSession],
}
