//! The result of a diagnosis: the manager, its endpoints and its sets.

use super::diagnosis::{ConflictBehaviour, EndpointState, Findings, ManagerState, RestartKind};
use super::ids::{EndpointName, Incarnation, Owner, ScaleSetId};
use super::observation::ScaleSet;
use super::time::{Now, Span, Wall};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Restarts are counted over this.
pub const LOOP_WINDOW: Span = Span::mins(15);
/// This many restarts within [`LOOP_WINDOW`] are a crash loop.
pub const CRASH_LOOP: u32 = 3;

/// A set that listens again after it was ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    pub set: ScaleSetId,
    pub ill_since: Wall,
    /// When it was seen to listen.
    pub at: Wall,
}

/// Made by [`diagnose`](crate::diagnose::diagnose()): what permits a deletion is read from it. Other crates cannot make
/// one, except with the feature `testing`; its fields are open, and the program only reads them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fleet {
    pub at: Now,
    pub manager: ManagerState,
    /// A restart of the manager, in the one sweep that finds out how the incarnation before ended.
    pub restart: Option<(RestartKind, Incarnation)>,
    /// Restarts within [`LOOP_WINDOW`].
    pub restarts: u32,
    pub incarnation: Option<Incarnation>,
    /// Its GitHub endpoints, where anything is known of them.
    pub endpoints: BTreeMap<EndpointName, EndpointState>,
    pub findings: Findings,
    /// The sets, as last seen.
    pub sets: Arc<BTreeMap<ScaleSetId, ScaleSet>>,
    /// Whether most sources do not answer.
    pub blind: bool,
    /// Whether several entities fail at once: a fault at GitHub.
    pub fault_at_github: bool,
    pub conflict_behaviour: ConflictBehaviour,
    pub owner: Option<Owner>,
    pub recoveries: Vec<Recovery>,
}
