//! Scale sets and the records (`docs/reference/actions-service.md` §3, §9 points 10 and 11, §10).

use super::super::testing::{Bench, START, body, entity, exception, get, post, status};
use super::super::{GithubConfig, Route};
use http::Method;
use medic_core::model::{GithubId, Span};
use serde_json::{Value, json};

const SETS: &str = "runtime/runnerscalesets";

#[test]
fn set_is_created_found_and_removed() {
    let mut bench = Bench::new();
    let made = body(&bench.ask(&Method::POST, SETS, &json!({"name": "gpu", "runnerGroupId": 1})));
    let id = made["id"].as_u64().unwrap();
    assert_eq!(bench.github.find_set(&entity("acme"), "gpu"), Some(GithubId(id)));
    let twin = bench.ask(&Method::POST, SETS, &json!({"name": "gpu", "runnerGroupId": 1}));
    assert_eq!(exception(&twin), (400, "RunnerScaleSetExistsException".to_owned()));
    let found = body(&bench.ask(&Method::GET, &format!("{SETS}?runnerGroupId=1&name=gpu"), &Value::Null));
    assert_eq!((&found["count"], &found["value"][0]["id"]), (&json!(1), &json!(id)));
    let none = body(&bench.ask(&Method::GET, &format!("{SETS}?runnerGroupId=1&name=cpu"), &Value::Null));
    assert_eq!(none, json!({"count": 0, "value": []}));
    let removed = bench.ask(&Method::DELETE, &format!("{SETS}/{id}"), &Value::Null);
    assert_eq!((status(&removed), removed.response.body().len()), (204, 0));
    let gone = bench.ask(&Method::GET, &format!("{SETS}/{id}"), &Value::Null);
    assert_eq!(exception(&gone), (404, "RunnerScaleSetNotFoundException".to_owned()));
    assert_eq!(body(&gone)["message"], format!("No runner scale set found with identifier {id}."));
    let again = body(&bench.ask(&Method::POST, SETS, &json!({"name": "gpu", "runnerGroupId": 1})));
    assert_ne!(again["id"], id, "another id");
    assert!(!bench.github.exists(GithubId(id)));
}

#[test]
fn list_has_all_sets_of_an_entity_with_their_statistics() {
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
fn calls_are_recorded_with_date_client_and_status() {
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
fn records_are_bounded_and_totals_are_not() {
    let mut bench = Bench::with(|config: &mut GithubConfig| config.records_kept = 3);
    for _ in 0..10 {
        bench.ask(&Method::GET, SETS, &Value::Null);
    }
    assert_eq!(bench.github.calls().count(), 3);
    assert_eq!(bench.github.total_calls(Route::ListSets), 10);
}

#[test]
fn unknown_paths_get_the_plain_404_of_the_router() {
    let mut bench = Bench::new();
    let admin = bench.admin.clone();
    for path in ["/", "/svc/acme", "/svc/acme/_apis/runtime/runnerscalesets/nine", "/scalesets/messages", "/api/v3"] {
        let answer = bench.send(&get(path, &admin));
        assert_eq!((status(&answer), answer.response.body().as_ref()), (404, &b"404 page not found\n"[..]), "{path}");
    }
}

#[test]
fn equal_calls_at_equal_dates_give_equal_bytes() {
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
