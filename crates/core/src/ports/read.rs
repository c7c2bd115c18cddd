//! Reads. No method here changes anything on any server, so a healthy fleet gets no writes (I4).

use crate::model::log_fact::LogEvidence;
use crate::model::{
    Controller, Endpoint, Entity, GithubSet, Goroutines, Lingering, ManagerMetrics, OwnQuota, RequestFailure, ScaleSet,
    ScaleSetId,
};
use async_trait::async_trait;
use std::collections::BTreeMap;

/// A manager's read side. Each call is one bounded request (a re-login after a 401 aside).
#[async_trait]
pub trait ManagerSource: Send + Sync {
    async fn controller(&self) -> Result<Controller, RequestFailure>;
    /// All scale sets in one call.
    async fn scale_sets(&self) -> Result<Vec<ScaleSet>, RequestFailure>;
    /// Instances of all sets in one call, reduced to counts.
    async fn lingering(&self) -> Result<BTreeMap<ScaleSetId, Lingering>, RequestFailure>;
    /// The counters of `/metrics`.
    async fn metrics(&self) -> Result<ManagerMetrics, RequestFailure>;
    /// Goroutine counts of the debug server.
    async fn goroutines(&self) -> Result<Goroutines, RequestFailure>;
}

#[async_trait]
pub trait GithubSource: Send + Sync {
    /// All scale sets of an entity, with statistics, in one call (token renewals aside).
    async fn github_sets(&self, endpoint: &Endpoint, entity: &Entity) -> Result<Vec<GithubSet>, RequestFailure>;
    /// Whether this client has a credential for the entity.
    fn covers(&self, endpoint: &Endpoint, entity: &Entity) -> bool;
    /// Calls left in the window of the credential for this endpoint, once GitHub reported them.
    fn remaining_quota(&self, endpoint: &Endpoint) -> Option<u64>;
    /// The quota left and how much of it is reserved, while the window that GitHub reported lasts.
    fn own_quota(&self, endpoint: &Endpoint) -> Option<OwnQuota>;
}

/// The log's facts so far; reading them sends no request.
pub trait LogSource: Send + Sync {
    fn evidence(&self) -> Result<LogEvidence, RequestFailure>;
}
