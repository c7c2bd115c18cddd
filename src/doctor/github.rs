//! GitHub, per endpoint: whether its lists can be read, and how long the credential lasts.

use super::facts::{Facts, GithubFacts};
use super::{Check, Finding, Subject};
use crate::text::sources;
use medic_core::model::{
    Enablement, EndpointName, EntityKind, EntityRef, FailureKind, GithubId, GithubSet, RequestFailure, ScaleSet,
    Source, Span,
};
use std::collections::{BTreeMap, BTreeSet};

/// A credential that ends within this is reported.
const ENDS_SOON: Span = Span::hours(14 * 24);
/// An App's token is refused when the clocks differ by more (`docs/reference/actions-service.md` §1.2).
const CLOCK_LIMIT: Span = Span::secs(30);

const WITHOUT: &str = sources::text(Source::ActionsService).without;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let homes = homes(facts);
    let mut all = Vec::new();
    for github in &facts.github {
        let known = homes.get(&github.endpoint);
        all.push(actions_service(facts, github, known));
        all.extend(credential(facts, github));
    }
    let is_configured = |endpoint: &EndpointName| facts.config.github.iter().any(|table| table.endpoint == *endpoint);
    all.extend(homes.iter().filter(|(at, _)| !is_configured(at)).map(|(at, entities)| unconfigured(at, entities)));
    all
}

/// The entities of all managers' enabled sets, per endpoint.
fn homes(facts: &Facts) -> BTreeMap<EndpointName, BTreeSet<EntityRef>> {
    let mut homes: BTreeMap<EndpointName, BTreeSet<EntityRef>> = BTreeMap::new();
    for set in enabled(facts) {
        if let Some(entity) = set.entity_ref() {
            homes.entry(entity.endpoint.clone()).or_default().insert(entity);
        }
    }
    homes
}

fn enabled(facts: &Facts) -> impl Iterator<Item = &ScaleSet> {
    let all = facts.managers.iter().flat_map(super::facts::ManagerFacts::sets);
    all.filter(|set| set.enabled == Enablement::Enabled)
}

fn unconfigured(endpoint: &EndpointName, entities: &BTreeSet<EntityRef>) -> Finding {
    let seen = format!("no [[github]] table: {} of {endpoint} cannot be asked about", counted(entities.len()));
    let table = format!("endpoint = \"{endpoint}\"");
    Check::ActionsService.warn(Subject::Endpoint(endpoint.clone()), seen).risks(WITHOUT).step(
        "in the medic's configuration, with a token of its own, so that it does not use up GARM's quota (or app_id, \
         installation_id and private_key_file of an App):",
        &["[[github]]", &table, "token_file = \"/run/secrets/github-token\""],
    )
}

fn actions_service(facts: &Facts, github: &GithubFacts, known: Option<&BTreeSet<EntityRef>>) -> Finding {
    let failures: Vec<(&EntityRef, &RequestFailure)> =
        github.entities.iter().filter_map(|(entity, seen)| Some((entity, seen.failure()?))).collect();
    if let Some((entity, failure)) = failures.first() {
        let count = failures.len();
        let seen = format!("{count} of {} failed; {entity}: {failure}", counted(github.entities.len()));
        return advise(Check::ActionsService.fail(github, seen).risks(WITHOUT), entity, failure);
    }
    if github.entities.is_empty() {
        return unused(facts, github, known);
    }
    let asked: BTreeSet<_> = github.entities.iter().map(|(entity, _)| entity).collect();
    let bare = known.map_or(0, |known| known.iter().filter(|entity| !asked.contains(entity)).count());
    let uncovered = bare.saturating_sub(github.not_asked);
    let gone = gone(facts, github);
    let lists = github.entities.iter().filter_map(|(_, seen)| seen.known());
    let sets = lists.map(Vec::len).fold(0_usize, usize::saturating_add);
    let rest = if github.not_asked > 0 { format!("; {} more not asked here", github.not_asked) } else { String::new() };
    let seen = format!("{} list {sets} sets{rest}", counted(github.entities.len()));
    if uncovered > 0 {
        return Check::ActionsService
            .warn(github, format!("{seen}; `entities` leaves {uncovered} out"))
            .risks(WITHOUT)
            .advice("leave `entities` out to ask about all of the endpoint, or add them");
    }
    if let Some(first) = gone.first() {
        let count = gone.len();
        return Check::ActionsService
            .warn(github, format!("{seen}; {count} enabled sets are not listed, {first} first"))
            .risks("GitHub does not know them: they get no jobs, and a listener on one of them ends in a crash of GARM")
            .step(
                "see `scaleset-medic explain SET`; restart GARM when its runners are idle, which creates them again",
                &[],
            );
    }
    Check::ActionsService.ok(github, seen)
}

/// Nothing was asked: no manager was seen to have a set there.
fn unused(facts: &Facts, github: &GithubFacts, known: Option<&BTreeSet<EntityRef>>) -> Finding {
    let endpoint = &github.endpoint;
    if known.is_some() {
        return Check::ActionsService
            .warn(github, format!("`entities` covers none of the sets on {endpoint}"))
            .risks(WITHOUT)
            .advice("write names as GARM does (\"acme\" or \"acme/app\"), or leave `entities` out");
    }
    if facts.managers.iter().any(|manager| manager.scale_sets.known().is_none()) {
        return Check::ActionsService
            .unknown(github, "not asked: only GARM knows which entities there are")
            .risks(WITHOUT)
            .advice("first fix the connection to GARM");
    }
    let others: Vec<_> = homes(facts).into_keys().map(|name| name.as_str().to_owned()).collect();
    let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
    Check::ActionsService
        .warn(github, format!("no GARM has an enabled set on an endpoint {endpoint} (known endpoints: {others})"))
        .risks("this credential is never used; if the name is misspelt, what it should show is not seen")
        .step("use GARM's own name of the endpoint:", &["garm-cli github endpoint list"])
}

/// Enabled sets whose id their entity's list lacks.
fn gone(facts: &Facts, github: &GithubFacts) -> Vec<String> {
    let lists: BTreeMap<&EntityRef, BTreeSet<GithubId>> = github
        .entities
        .iter()
        .filter_map(|(entity, seen)| Some((entity, seen.known()?.iter().map(|set: &GithubSet| set.id).collect())))
        .collect();
    let is_gone = |set: &&ScaleSet| {
        let (Some(entity), Some(id)) = (set.entity_ref(), set.github_id) else { return false };
        lists.get(&entity).is_some_and(|ids| !ids.contains(&id))
    };
    enabled(facts).filter(is_gone).map(|set| set.name.clone()).collect()
}

fn advise(found: Finding, entity: &EntityRef, failure: &RequestFailure) -> Finding {
    let right = match entity.entity.kind {
        EntityKind::Repository => "classic: scope repo; fine-grained or App: repository Administration, read and write",
        EntityKind::Organization => {
            "classic: scope admin:org; fine-grained or App: Self-hosted runners, read and write"
        }
        EntityKind::Enterprise => "classic only: scope manage_runners:enterprise",
    };
    match failure.kind {
        FailureKind::Unauthorized => found.step(
            "the credential is refused: it is wrong, revoked or has ended. Put a new one into the file that \
             `token_file` or `private_key_file` names; it is read at each use, no restart is needed",
            &[],
        ),
        FailureKind::Forbidden | FailureKind::NotFound => {
            found.advice(format!("give the credential the right to manage runners there ({right})"))
        }
        FailureKind::RateLimited | FailureKind::HeldBack => {
            found.advice("wait until the quota's window ends; give the medic a credential that nobody else uses")
        }
        FailureKind::Tls => found.step(
            "name the authority that signed the server's certificate, in the medic's [[github]] table:",
            &["ca_file = \"/etc/ssl/github-ca.pem\""],
        ),
        _ => found.step(
            "check that the medic may reach GitHub's API and its Actions service (egress rules, proxy):",
            &["curl -sS -o /dev/null -w '%{http_code}\\n' https://api.github.com/"],
        ),
    }
}

/// Faults of the credential or of the clock that it depends on; `None` where GitHub showed nothing.
fn credential(facts: &Facts, github: &GithubFacts) -> Option<Finding> {
    if let Some(skew) = github.skew.map(super::skew::Skew::at_least).filter(|skew| *skew > CLOCK_LIMIT) {
        return Some(
            Check::Credential
                .warn(github, format!("GitHub's clock and ours differ by at least {skew}"))
                .risks("GitHub refuses an App's tokens that are dated wrongly, and lives of tokens are misjudged")
                .step("synchronise this machine's clock by NTP", &["timedatectl set-ntp true"]),
        );
    }
    if let Some(ends) = github.ends {
        let left = ends.since(facts.at);
        let days = left.as_millis() / Span::hours(24).as_millis();
        if left < ENDS_SOON {
            return Some(
                Check::Credential
                    .warn(github, format!("the token ends in {days} days"))
                    .risks(format!("from then on: {WITHOUT}"))
                    .advice("make a new one and put it into the file that `token_file` names; no restart is needed"),
            );
        }
        return Some(Check::Credential.ok(github, format!("the token holds for {days} days{}", left_of(github))));
    }
    github.remaining.map(|_| Check::Credential.ok(github, format!("GitHub shows no end of it{}", left_of(github))))
}

fn left_of(github: &GithubFacts) -> String {
    github.remaining.map_or_else(String::new, |calls| format!("; {calls} calls are left in this hour"))
}

fn counted(entities: usize) -> String {
    if entities == 1 { "1 entity".to_owned() } else { format!("{entities} entities") }
}
