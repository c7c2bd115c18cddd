//! GitHub's JSON, as it is on the wire (`docs/reference/actions-service.md` §1.3-1.5, §2, §3, §4, §6.1), and its
//! translation into the model. Unknown fields are ignored, `null` may stand for an absent value. Lists are checked
//! strictly: one without its `value`, or whose `count` disagrees, is no list, because an empty one means that every set
//! is gone.

use medic_core::model::{GithubId, GithubSet, GithubStatistics, Owner, SessionId, Wall};
use medic_http::list::List;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The answer of the token routes.
#[derive(Deserialize)]
pub(super) struct WireToken {
    pub(super) token: String,
    pub(super) expires_at: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct WireRegistration {
    pub(super) url: String,
    pub(super) token: String,
}

/// All error shapes in one: exceptions of the service, the message queue's, the REST API's.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WireError {
    message: Option<String>,
    #[serde(rename = "typeName")]
    type_name: Option<String>,
    #[serde(rename = "typeKey")]
    type_key: Option<String>,
    #[serde(rename = "errorKind")]
    error_kind: Option<String>,
    #[serde(rename = "errorMessage")]
    error_message: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireList {
    count: Option<u64>,
    value: List<WireSet>,
}

#[derive(Debug, Deserialize)]
struct WireSet {
    id: u64,
    name: Option<String>,
    statistics: Option<WireStatistics>,
}

#[derive(Debug, Deserialize)]
struct WireStatistics {
    #[serde(rename = "totalAvailableJobs")]
    available_jobs: Option<i64>,
    #[serde(rename = "totalAssignedJobs")]
    assigned_jobs: Option<i64>,
    #[serde(rename = "totalRunningJobs")]
    running_jobs: Option<i64>,
    #[serde(rename = "totalRegisteredRunners")]
    registered_runners: Option<i64>,
    #[serde(rename = "totalBusyRunners")]
    busy_runners: Option<i64>,
    #[serde(rename = "totalIdleRunners")]
    idle_runners: Option<i64>,
}

/// A session, without what only a listener needs.
#[derive(Debug, Deserialize)]
pub(super) struct WireSession {
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "ownerName")]
    owner: Option<String>,
    #[serde(rename = "runnerScaleSet")]
    set: Option<WireSessionSet>,
}

#[derive(Debug, Deserialize)]
struct WireSessionSet {
    id: Option<u64>,
}

impl WireError {
    /// The class of the error, without its namespace; empty when none is named.
    pub(super) fn class(&self) -> &str {
        let named = [&self.type_key, &self.type_name, &self.error_kind];
        let named = named.into_iter().flatten().map(String::as_str).find(|text| !text.is_empty()).unwrap_or_default();
        let bare = named.split(',').next().unwrap_or_default();
        bare.rsplit('.').next().unwrap_or_default().trim()
    }

    pub(super) fn message(&self) -> &str {
        self.message.as_deref().or(self.error_message.as_deref()).unwrap_or_default()
    }
}

impl WireToken {
    pub(super) fn expires(&self) -> Option<Wall> {
        let at: jiff::Timestamp = self.expires_at.as_deref()?.parse().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Wall)
    }
}

impl WireList {
    /// The sets, or what is wrong with the list.
    pub(super) fn into_model(self) -> Result<Vec<GithubSet>, &'static str> {
        if self.count.is_some_and(|count| usize::try_from(count) != Ok(self.value.0.len())) {
            return Err("the list's count is not the number of its sets");
        }
        let mut seen = BTreeSet::new();
        let sets = self.value.0.into_iter().map(|set| set.into_model().filter(|set| seen.insert(set.id)));
        sets.collect::<Option<_>>().ok_or("the list holds a set without an id, or one id twice")
    }
}

impl WireSet {
    /// `None` when the id is 0, which GitHub never gives.
    fn into_model(self) -> Option<GithubSet> {
        (self.id > 0).then(|| GithubSet {
            id: GithubId(self.id),
            name: self.name.unwrap_or_default(),
            statistics: self.statistics.map(|wire| GithubStatistics {
                available_jobs: count(wire.available_jobs),
                assigned_jobs: count(wire.assigned_jobs),
                running_jobs: count(wire.running_jobs),
                registered_runners: count(wire.registered_runners),
                busy_runners: count(wire.busy_runners),
                idle_runners: count(wire.idle_runners),
            }),
        })
    }
}

impl WireSession {
    /// The session's id, if the answer is about the requested set and names no other owner: only then is the session ours.
    pub(super) fn of(self, set: GithubId, owner: &Owner) -> Result<SessionId, &'static str> {
        let session = SessionId::new(self.session);
        if !super::address::is_session_id(&session) {
            return Err("the answer holds no session id");
        }
        if self.set.and_then(|set| set.id).is_some_and(|id| id != set.0) {
            return Err("the answer is about another set than the requested one");
        }
        if self.owner.is_some_and(|named| !named.is_empty() && named != owner.as_str()) {
            return Err("the answer is about a session of another owner");
        }
        Ok(session)
    }
}

fn count(wire: Option<i64>) -> u64 {
    wire.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Result<Vec<GithubSet>, String> {
        let list: WireList = serde_json::from_str(json).map_err(|error| error.to_string())?;
        list.into_model().map_err(str::to_owned)
    }

    #[test]
    fn incomplete_list_is_refused() {
        assert_eq!(list(r#"{"count":0,"value":[]}"#), Ok(Vec::new()));
        let sets = list(r#"{"count":1,"value":[{"id":7,"name":null,"statistics":{"totalAssignedJobs":-1}}]}"#).unwrap();
        assert_eq!((sets[0].id, sets[0].name.as_str()), (GithubId(7), ""));
        assert_eq!(sets[0].statistics, Some(GithubStatistics::default()));
        for odd in [
            "{}",
            "[]",
            "null",
            r#"{"count":0}"#,
            r#"{"count":0,"value":null}"#,
            r#"{"count":2,"value":[{"id":7}]}"#,
            r#"{"count":1,"value":[{"id":0}]}"#,
            r#"{"count":1,"value":[{"name":"a"}]}"#,
            r#"{"count":2,"value":[{"id":7},{"id":7}]}"#,
        ] {
            assert!(list(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn session_of_another_set_or_owner_is_refused() {
        let session = |more: &str| {
            let json = format!(r#"{{"sessionId":"5e551011-0000-4000-8000-00000000002a"{more}}}"#);
            serde_json::from_str::<WireSession>(&json).unwrap().of(GithubId(7), &Owner::new("me"))
        };
        assert!(session("").is_ok());
        assert!(session(r#","ownerName":"me","runnerScaleSet":{"id":7}"#).is_ok());
        assert!(session(r#","ownerName":"garm-1""#).is_err());
        assert!(session(r#","runnerScaleSet":{"id":8}"#).is_err());
    }

    #[test]
    fn error_class_is_its_bare_name() {
        for (json, class, words) in [
            (r#"{"typeKey":"AException","message":"m"}"#, "AException", "m"),
            (r#"{"typeName":"GitHub.Actions.Runtime.WebApi.AException, GitHub.Actions"}"#, "AException", ""),
            (r#"{"errorKind":"RunnerSessionInvalid","errorMessage":"m"}"#, "RunnerSessionInvalid", "m"),
            (r#"{"message":"Not Found","status":"404"}"#, "", "Not Found"),
            ("{}", "", ""),
        ] {
            let error: WireError = serde_json::from_str(json).unwrap();
            assert_eq!((error.class(), error.message()), (class, words), "{json}");
        }
    }
}
