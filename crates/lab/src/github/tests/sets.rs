//! Scale sets, groups, what GARM asks besides, and the records (`docs/reference/actions-service.md` §3, §9 points 10
//! and 11, §10).

use super::super::testing::{Bench, PAT, START, body, entity, exception, get, post, status};
use super::super::{GithubConfig, Route};
use http::Method;
use medic_core::model::{GithubId, Span};
use serde_json::{Value, json};

const SETS: &str = "runtime/runnerscalesets";

#[test]
fn a_set_is_created_found_changed_and_removed() {
    let mut bench = Bench::with(|config| config.groups = vec!["fast".to_owned()]);
    let wish = json!({"name": "gpu", "runnerGroupId": 2, "labels": [{"type": "System", "name": "gpu"}],
        "RunnerSetting": {"ephemeral": true, "disableUpdate": true}, "enabled": true,
        "createdOn": "0001-01-01T00:00:00Z"});
    let made = body(&bench.ask(&Method::POST, SETS, &wish));
    let id = made["id"].as_u64().unwrap();
    assert_eq!((&made["runnerGroupName"], &made["RunnerSetting"]["disableUpdate"]), (&json!("fast"), &json!(true)));
    let found = body(&bench.ask(&Method::GET, &format!("{SETS}?runnerGroupId=2&name=gpu"), &Value::Null));
    assert_eq!((&found["count"], &found["value"][0]["id"]), (&json!(1), &json!(id)));
    for other in ["?runnerGroupId=1&name=gpu", "?runnerGroupId=2&name=cpu"] {
        let none = body(&bench.ask(&Method::GET, &format!("{SETS}{other}"), &Value::Null));
        assert_eq!(none, json!({"count": 0, "value": []}), "{other}");
    }
    let changed = body(&bench.ask(&Method::PATCH, &format!("{SETS}/{id}"), &json!({"name": "gpu2"})));
    assert_eq!((&changed["name"], &changed["runnerGroupId"]), (&json!("gpu2"), &json!(2)));
    let removed = bench.ask(&Method::DELETE, &format!("{SETS}/{id}"), &Value::Null);
    assert_eq!((status(&removed), removed.response.body().len()), (204, 0));
    let gone = bench.ask(&Method::GET, &format!("{SETS}/{id}"), &Value::Null);
    assert_eq!(exception(&gone), (404, "RunnerScaleSetNotFoundException".to_owned()));
    assert_eq!(body(&gone)["message"], format!("No runner scale set found with identifier {id}."));
}

#[test]
fn a_name_is_taken_once_per_group() {
    let mut bench = Bench::with(|config| config.groups = vec!["fast".to_owned()]);
    bench.set("gpu");
    let taken = bench.ask(&Method::POST, SETS, &json!({"name": "gpu", "runnerGroupId": 1}));
    assert_eq!(exception(&taken), (400, "RunnerScaleSetExistsException".to_owned()));
    assert_eq!(status(&bench.ask(&Method::POST, SETS, &json!({"name": "gpu", "runnerGroupId": 2}))), 200);
    assert_eq!(status(&bench.ask(&Method::POST, SETS, &json!({"labels": [{"name": "by-label"}]}))), 200);
    assert_eq!(status(&bench.ask(&Method::POST, SETS, &json!({}))), 400, "neither name nor label");
}

#[test]
fn a_removed_set_that_is_made_anew_has_another_id() {
    let mut bench = Bench::new();
    let old = bench.set("gpu");
    bench.github.remove_set(old, START);
    let made = body(&bench.ask(&Method::POST, SETS, &json!({"name": "gpu", "runnerGroupId": 1})));
    assert_ne!(made["id"], old.0);
    assert!(!bench.github.exists(old));
    assert_eq!(bench.github.find_set(&entity("acme"), "gpu").map(|GithubId(id)| json!(id)), Some(made["id"].clone()));
}

#[test]
fn one_list_tells_all_sets_of_an_entity_with_their_statistics() {
    let mut bench = Bench::new();
    let (gpu, _) = (bench.set("gpu"), bench.set("cpu"));
    bench.github.queue_jobs(gpu, 3, START);
    let all = body(&bench.ask(&Method::GET, SETS, &Value::Null));
    assert_eq!(all["count"], 2);
    assert_eq!(all["value"][0]["statistics"]["totalAvailableJobs"], 3);
    bench.log_in("acme/app");
    let admin = bench.admin.clone();
    let others = body(&bench.send(&get("/svc/acme/app/_apis/runtime/runnerscalesets", &admin)));
    assert_eq!(others["count"], 0);
}

#[test]
fn groups_are_found_by_name_whatever_the_case_and_slash() {
    let mut bench = Bench::new();
    for path in ["runtime/runnergroups/?groupName=default", "runtime/runnergroups?groupName=Default"] {
        let found = body(&bench.ask(&Method::GET, path, &Value::Null));
        assert_eq!((&found["count"], &found["value"][0]["id"]), (&json!(1), &json!(1)), "{path}");
    }
    let none = body(&bench.ask(&Method::GET, "runtime/runnergroups/?groupName=none", &Value::Null));
    assert_eq!(none["count"], 0);
}

#[test]
fn what_garm_asks_before_it_runs_a_set_is_answered() {
    let mut bench = Bench::new();
    let pat = format!("Bearer {PAT}");
    let tools = body(&bench.send(&get("/api/v3/orgs/acme/actions/runners/downloads", &pat)));
    for (os, architecture) in [("linux", "x64"), ("linux", "arm64"), ("win", "x64")] {
        let tool = tools.as_array().unwrap().iter().find(|t| t["os"] == os && t["architecture"] == architecture);
        assert!(tool.is_some_and(|tool| tool["download_url"].as_str().unwrap().starts_with("http")), "{os}");
    }
    let groups = body(&bench.send(&get("/api/v3/orgs/acme/actions/runner-groups", &pat)));
    assert_eq!(
        (&groups["runner_groups"][0]["id"], &groups["runner_groups"][0]["name"]),
        (&json!(1), &json!("Default"))
    );
    let runners = body(&bench.send(&get("/api/v3/repos/acme/app/actions/runners?per_page=100", &pat)));
    assert_eq!(runners, json!({"total_count": 0, "runners": []}));
}

#[test]
fn every_call_is_recorded_with_its_date_asker_and_status() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    bench.wait(Span::secs(7));
    let mut request = post(
        &format!("/svc/acme/_apis/runtime/runnerscalesets/{}/sessions", set.0),
        &bench.admin.clone(),
        &json!({"ownerName": "medic"}),
    );
    request.headers_mut().insert("user-agent", "medic/1".parse().unwrap());
    bench.send(&request);
    bench.send(&request);
    let calls: Vec<_> = bench.github.calls().filter(|call| call.route == Route::CreateSession).cloned().collect();
    assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [200, 409]);
    assert_eq!((calls[0].at, calls[0].set), (START.plus(Span::secs(7)), Some(set.0)));
    assert_eq!((calls[0].actor.credential.as_str(), calls[0].actor.user_agent.as_str()), ("garm", "medic/1"));
    assert_eq!(bench.github.total_calls(Route::RegistrationToken), 1);
    let session = bench.github.sessions().next().unwrap();
    assert_eq!((session.owner.as_str(), session.opened_by.user_agent.as_str()), ("medic", "medic/1"));
}

#[test]
fn the_records_are_bounded_and_the_totals_are_not() {
    let mut bench = Bench::with(|config: &mut GithubConfig| config.records_kept = 3);
    for _ in 0..10 {
        bench.ask(&Method::GET, SETS, &Value::Null);
    }
    assert_eq!(bench.github.calls().count(), 3);
    assert_eq!(bench.github.total_calls(Route::ListSets), 10);
}

#[test]
fn unknown_paths_and_methods_get_the_routers_plain_404() {
    let mut bench = Bench::new();
    let admin = bench.admin.clone();
    for path in ["/", "/svc/acme", "/svc/acme/_apis/runtime/runnerscalesets/nine", "/scalesets/messages", "/api/v3"] {
        let answer = bench.send(&get(path, &admin));
        assert_eq!((status(&answer), answer.response.body().as_ref()), (404, &b"404 page not found\n"[..]), "{path}");
    }
}

#[test]
fn the_same_calls_at_the_same_dates_give_the_same_bytes() {
    let run = || {
        let mut bench = Bench::new();
        let set = bench.set("gpu");
        let session = bench.opened(set);
        bench.github.queue_jobs(set, 2, START);
        let answer = bench.poll(&session);
        (session.id, session.token, answer.response.body().clone())
    };
    assert_eq!(run(), run());
}
