//! Counters of GitHub operations in one incarnation (`docs/reference/garm-api.md` §9). An operation counts when
//! it starts, an error when it returns, cancellation included. No scale set, no entity, only the kind of entity.

use medic_core::model::EntityKind;
use medic_core::model::closed::closed_enum;
use std::collections::BTreeMap;

closed_enum! {
    /// An operation, by its label.
    pub enum Op {
        CreateEntityRegistrationToken = "CreateEntityRegistrationToken",
        /// `POST …/sessions`.
        CreateMessageSession = "CreateMessageSession",
        /// `POST …/runnerscalesets`.
        CreateRunnerScaleSet = "CreateRunnerScaleSet",
        /// Acknowledgement of a message.
        DeleteMessage = "DeleteMessage",
        /// `DELETE …/sessions/{id}`.
        DeleteMessageSession = "DeleteMessageSession",
        /// `POST …/generatejitconfig`.
        GenerateJitRunnerConfig = "GenerateJitRunnerConfig",
        GetActionServiceInfo = "GetActionServiceInfo",
        GetMessage = "GetMessage",
        /// Only its errors count.
        GetRateLimit = "GetRateLimit",
        /// The list of sets with one name.
        GetRunnerScaleSetByNameAndRunnerGroup = "GetRunnerScaleSetByNameAndRunnerGroup",
        /// `GET …/actions/runners/downloads`.
        ListEntityRunnerApplicationDownloads = "ListEntityRunnerApplicationDownloads",
        /// `PATCH …/sessions/{id}`.
        RefreshMessageSession = "RefreshMessageSession",
        /// `DELETE …/agents/{id}`.
        RemoveRunner = "RemoveRunner",
    }
}

type Counts = BTreeMap<(&'static str, &'static str), u64>;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub operations: Counts,
    pub errors: Counts,
}

const fn scope(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Repository => "Repository",
        EntityKind::Organization => "Organization",
        EntityKind::Enterprise => "Enterprise",
    }
}

impl Counters {
    pub(super) fn begin(&mut self, op: Op, kind: EntityKind) {
        count(&mut self.operations, op, scope(kind));
    }

    pub(super) fn fail(&mut self, op: Op, kind: EntityKind) {
        count(&mut self.errors, op, scope(kind));
    }

    /// Attempts and failures of an operation, whatever its scope.
    pub(super) fn get(&self, operation: &str) -> (u64, u64) {
        let sum =
            |counts: &Counts| counts.iter().filter(|((name, _), _)| *name == operation).map(|(_, count)| *count).sum();
        (sum(&self.operations), sum(&self.errors))
    }
}

fn count(counts: &mut Counts, op: Op, scope: &'static str) {
    let count = counts.entry((op.as_str(), scope)).or_default();
    *count = count.saturating_add(1);
}
