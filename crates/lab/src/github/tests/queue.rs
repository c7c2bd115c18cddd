//! The message queue and the course of jobs (`docs/reference/actions-service.md` §5, §9 points 6, 8, 9).

use super::super::testing::{Bench, Opened, START, body, exception, get, held, post, request, status};
use super::super::{JobCounts, JobFlow, QueueStyle};
use crate::wire::Answer;
use http::Method;
use medic_core::model::{GithubId, Span};
use serde_json::{Value, json};

fn bench(change: impl FnOnce(&mut super::super::GithubConfig)) -> (Bench, GithubId, Opened) {
    let mut bench = Bench::with(|config| {
        config.job_flow = JobFlow::Told;
        change(config);
    });
    let set = bench.set("gpu");
    let session = bench.opened(set);
    (bench, set, session)
}

/// The job messages of an envelope: their types and requests.
fn jobs(answer: &Answer) -> Vec<(String, u64)> {
    let envelope = body(answer);
    let messages: Vec<Value> = serde_json::from_str(envelope["body"].as_str().unwrap()).unwrap();
    let told = |message: &Value| {
        (message["messageType"].as_str().unwrap().to_owned(), message["runnerRequestId"].as_u64().unwrap())
    };
    messages.iter().map(told).collect()
}

fn with_capacity(mut request: crate::wire::Request, header: &str, capacity: u64) -> crate::wire::Request {
    let name = http::HeaderName::from_bytes(header.as_bytes()).unwrap();
    request.headers_mut().insert(name, capacity.into());
    request
}

fn ack(bench: &mut Bench, session: &Opened, message: u64) -> u16 {
    let path = match session.queue.split_once('?') {
        Some((path, query)) => format!("{path}/{message}?{query}"),
        None => format!("{}/{message}", session.queue),
    };
    status(&bench.send(&request(&Method::DELETE, &path, &session.bearer(), "")))
}

fn jit(bench: &mut Bench, set: GithubId, name: &str) -> Answer {
    let tail = format!("runtime/runnerscalesets/{}/generatejitconfig", set.0);
    bench.ask(&Method::POST, &tail, &json!({"name": name, "workFolder": "_work"}))
}

#[test]
fn an_idle_poll_is_held_for_its_length_and_then_answered_with_an_empty_202() {
    let (mut bench, _, session) = bench(|_| {});
    let until = START.plus(Span::secs(50));
    assert_eq!(held(&bench.poll(&session)), Some(until));
    bench.wait(Span::secs(49));
    assert_eq!(held(&bench.poll(&session)), Some(until), "asked again too early: the same poll");
    bench.wait(Span::secs(1));
    let answer = bench.poll(&session);
    assert_eq!((status(&answer), held(&answer), answer.response.body().len()), (202, None, 0));
    assert_eq!(held(&bench.poll(&session)), Some(until.plus(Span::secs(50))), "a new poll");
}

#[test]
fn a_long_poll_is_one_call_however_often_it_is_asked_again() {
    let (mut bench, set, session) = bench(|_| {});
    for _ in 0..5 {
        bench.poll(&session);
        bench.wait(Span::secs(10));
    }
    assert_eq!(status(&bench.poll(&session)), 202);
    assert_eq!(bench.github.polls(set), 1);
    assert_eq!(bench.github.total_calls(super::super::Route::Poll), 1);
}

#[test]
fn a_job_wakes_the_poll_with_an_envelope_and_statistics() {
    let (mut bench, set, session) = bench(|_| {});
    bench.poll(&session);
    assert!(bench.github.take_wakes().is_empty());
    bench.wait(Span::secs(5));
    bench.github.queue_jobs(set, 2, bench.now);
    assert_eq!(bench.github.take_wakes().len(), 1);
    let answer = bench.poll(&session);
    assert_eq!(jobs(&answer), [("JobAssigned".to_owned(), 1), ("JobAssigned".to_owned(), 2)]);
    let envelope = body(&answer);
    assert_eq!(envelope["messageId"], 100_000_001);
    assert_eq!(envelope["messageType"], "RunnerScaleSetJobMessages");
    assert_eq!(envelope["statistics"]["totalAssignedJobs"], 2);
    assert_eq!(envelope["statistics"]["totalRunningJobs"], 0);
    let messages: Vec<Value> = serde_json::from_str(envelope["body"].as_str().unwrap()).unwrap();
    assert_eq!(messages[0]["ownerName"], "acme");
    assert_eq!(messages[0]["finishTime"], "0001-01-01T00:00:00Z", "not yet");
}

#[test]
fn the_message_log_belongs_to_the_set_and_an_ack_prunes_it() {
    let (mut bench, set, session) = bench(|_| {});
    bench.github.queue_jobs(set, 1, bench.now);
    assert_eq!(status(&bench.poll(&session)), 200);
    assert_eq!(status(&bench.poll(&session)), 200, "not deleted: it comes again");
    assert!(held(&bench.send(&session.poll(100_000_001))).is_some(), "not beyond the cursor");
    bench.hang_up(&session);
    bench.on_session(&Method::DELETE, set, &session.id);
    let next = bench.opened(set);
    assert_eq!(status(&bench.poll(&next)), 200, "replayed to a later session");
    assert_eq!(ack(&mut bench, &next, 100_000_001), 204);
    assert_eq!(ack(&mut bench, &next, 100_000_001), 204, "twice is no error");
    assert_eq!(bench.github.undeleted_messages(set), 0);
    assert!(held(&bench.poll(&next)).is_some());
}

#[test]
fn jobs_are_held_back_without_capacity_and_let_out_as_it_grows() {
    let (mut bench, set, session) = bench(|_| {});
    bench.github.queue_jobs(set, 3, bench.now);
    let ask = |header, capacity| with_capacity(session.poll(0), header, capacity);
    assert!(held(&bench.send(&ask("X-ScaleSetMaxCapacity", 0))).is_some());
    assert_eq!(bench.github.capacity(set), Some(0));
    assert_eq!(bench.github.jobs(set), JobCounts { waiting: 3, ..JobCounts::default() });
    bench.hang_up(&session);
    assert_eq!(jobs(&bench.send(&ask("x-scalesetmaxcapacity", 2))).len(), 2, "any letter case");
    ack(&mut bench, &session, 100_000_001);
    assert!(held(&bench.send(&ask("X-Scalesetmaxcapacity", 2))).is_some());
    bench.hang_up(&session);
    assert_eq!(jobs(&bench.send(&ask("X-Scalesetmaxcapacity", 3))).len(), 1);
}

#[test]
fn one_envelope_holds_fifty_jobs_at_most() {
    let (mut bench, set, session) = bench(|_| {});
    bench.github.queue_jobs(set, 60, bench.now);
    assert_eq!(jobs(&bench.poll(&session)).len(), 50);
    assert_eq!(jobs(&bench.send(&session.poll(100_000_001))).len(), 10);
}

#[test]
fn a_classic_queue_offers_jobs_which_are_acquired_once_with_the_queue_token() {
    let (mut bench, set, session) = bench(|config| config.queue_style = QueueStyle::Classic);
    assert!(session.queue.contains(&format!("sessionId={}", session.id)));
    bench.github.queue_jobs(set, 2, bench.now);
    let offer = bench.poll(&session);
    assert_eq!(jobs(&offer), [("JobAvailable".to_owned(), 1), ("JobAvailable".to_owned(), 2)]);
    let listed = bench.ask(&Method::GET, &format!("runtime/runnerscalesets/{}/acquirablejobs", set.0), &Value::Null);
    assert_eq!(body(&listed)["count"], 2);
    let path = format!("/svc/acme/_apis/runtime/runnerscalesets/{}/acquirejobs", set.0);
    let mut acquire = |wish: Value| {
        let answer = bench.send(&post(&path, &session.bearer(), &wish));
        body(&answer)
    };
    assert_eq!(acquire(json!([2, 77])), json!({"count": 1, "value": [2]}));
    assert_eq!(acquire(json!([2])), json!({"count": 0, "value": []}), "somebody has it already");
    assert_eq!(bench.github.jobs(set), JobCounts { waiting: 1, assigned: 1, ..JobCounts::default() });
    assert_eq!(ack(&mut bench, &session, 100_000_001), 204);
    assert_eq!(jobs(&bench.poll(&session)), [("JobAssigned".to_owned(), 2)]);
}

#[test]
fn the_broker_does_not_know_the_way_to_acquire_jobs() {
    let (mut bench, set, session) = bench(|_| {});
    let path = format!("/svc/acme/_apis/runtime/runnerscalesets/{}/acquirejobs", set.0);
    let answer = bench.send(&post(&path, &session.bearer(), &json!([1])));
    assert_eq!(status(&answer), 404);
    assert_eq!(answer.response.body().as_ref(), b"404 page not found\n");
    let listed = bench.ask(&Method::GET, &format!("runtime/runnerscalesets/{}/acquirablejobs", set.0), &Value::Null);
    assert_eq!(status(&listed), 204, "nothing to acquire");
}

#[test]
fn a_runner_takes_an_assigned_job_finishes_it_and_goes() {
    let (mut bench, set, session) = bench(|_| {});
    bench.github.queue_jobs(set, 1, bench.now);
    bench.poll(&session);
    ack(&mut bench, &session, 100_000_001);
    assert_eq!(status(&jit(&mut bench, set, "gpu-1")), 200);
    let (runner, online) = bench.github.runners(set)[0];
    assert!(!online, "there from the JIT configuration on");
    bench.github.runner_online(runner, bench.now);
    assert_eq!(jobs(&bench.poll(&session)), [("JobStarted".to_owned(), 1)]);
    ack(&mut bench, &session, 100_000_002);
    bench.github.complete_job(runner, "failed", bench.now);
    let done = bench.poll(&session);
    assert_eq!(jobs(&done), [("JobCompleted".to_owned(), 1)]);
    assert!(body(&done)["body"].as_str().unwrap().contains(r#""result":"failed""#));
    assert_eq!(body(&done)["statistics"]["totalAssignedJobs"], 0);
    assert_eq!(bench.github.jobs(set), JobCounts { completed: 1, ..JobCounts::default() });
    assert!(bench.github.runners(set).is_empty());
}

#[test]
fn jobs_flow_by_themselves_at_their_dates() {
    let (boot, work) = (Span::secs(20), Span::secs(60));
    let (mut bench, set, session) = bench(|config| config.job_flow = JobFlow::ByItself { boot, work });
    bench.github.queue_jobs(set, 1, bench.now);
    bench.poll(&session);
    jit(&mut bench, set, "gpu-1");
    bench.wait(boot);
    assert_eq!(bench.github.jobs(set).running, 1);
    bench.wait(work);
    assert_eq!(bench.github.jobs(set).completed, 1);
}

#[test]
fn every_runner_with_a_jit_configuration_is_listed_offline_ones_too() {
    let (mut bench, set, _) = bench(|_| {});
    let made = body(&jit(&mut bench, set, "gpu-1"));
    assert_eq!(made["runner"]["runnerScaleSetId"], set.0);
    assert_eq!(exception(&jit(&mut bench, set, "gpu-1")), (409, "AgentExistsException".to_owned()));
    jit(&mut bench, set, "gpu-2");
    let all = body(&bench.ask(&Method::GET, "distributedtask/pools/0/agents", &Value::Null));
    assert_eq!(all["count"], 2);
    assert_eq!(all["value"][0]["status"], "offline");
    let one = body(&bench.ask(&Method::GET, "distributedtask/pools/0/agents?agentName=gpu-2", &Value::Null));
    assert_eq!((&one["count"], &one["value"][0]["name"]), (&json!(1), &json!("gpu-2")));
    let id = one["value"][0]["id"].as_u64().unwrap();
    let tail = format!("distributedtask/pools/0/agents/{id}");
    assert_eq!(status(&bench.ask(&Method::GET, &tail, &Value::Null)), 200);
    assert_eq!(status(&bench.ask(&Method::DELETE, &tail, &Value::Null)), 204);
    assert_eq!(exception(&bench.ask(&Method::GET, &tail, &Value::Null)), (404, "AgentNotFoundException".to_owned()));
    assert_eq!(status(&bench.ask(&Method::DELETE, &tail, &Value::Null)), 204, "gone already is no error");
    bench.log_in("acme");
    let rest = bench.send(&get(
        "/api/v3/orgs/acme/actions/runners?per_page=100",
        &format!("Bearer {}", super::super::testing::PAT),
    ));
    assert_eq!(body(&rest)["total_count"], 1);
}

#[test]
fn a_busy_runner_cannot_be_deleted() {
    let (mut bench, set, session) = bench(|_| {});
    bench.github.queue_jobs(set, 1, bench.now);
    bench.poll(&session);
    jit(&mut bench, set, "gpu-1");
    let (runner, _) = bench.github.runners(set)[0];
    bench.github.runner_online(runner, bench.now);
    let refused = bench.ask(&Method::DELETE, &format!("distributedtask/pools/0/agents/{runner}"), &Value::Null);
    assert_eq!(exception(&refused), (400, "JobStillRunningException".to_owned()));
}
