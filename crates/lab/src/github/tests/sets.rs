//! Scale sets and the records (`docs/reference/actions-service.md` §3, §9 points 10 and 11, §10).

use super::super::Route;
use super::super::testing::{Bench, START, body, get, post, status};
use http::Method;
use medic_core::model::Span;
use serde_json::{Value, json};

const SETS: &str = "runtime/runnerscalesets";

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
    assert_eq!(bench.github.recent_calls(Route::RegistrationToken), 1);
    let session = bench.github.sessions().next().unwrap();
    assert_eq!((session.owner.as_str(), session.opened_by.user_agent.as_str()), ("medic", "medic/1"));
}

#[test]
fn unknown_paths_get_the_plain_404_of_the_router() {
    let mut bench = Bench::new();
    let admin = bench.admin.clone();
    for path in [
        "/",
        "/svc/acme",
        "/svc/acme/_apis/runtime/runnerscalesets/nine",
        "/svc/acme/_apis/runtime/runnerscalesets/9/sessions",
        "/scalesets/messages",
    ] {
        let answer = bench.send(&get(path, &admin));
        assert_eq!((status(&answer), answer.response.body().as_ref()), (404, &b"404 page not found\n"[..]), "{path}");
    }
}
