//! The message queue and the course of jobs (`docs/reference/actions-service.md` §5, §9 points 6, 8, 9).

use super::super::testing::{Bench, Opened, START, body, exception, held, request, status};
use super::super::{GithubConfig, JobCounts, Route};
use crate::wire::Answer;
use http::Method;
use medic_core::model::{GithubId, Span};
use serde_json::{Value, json};

const BOOT: Span = Span::secs(20);
const JOB: Span = Span::secs(60);

fn bench(change: impl FnOnce(&mut GithubConfig)) -> (Bench, GithubId, Opened) {
    let mut bench = Bench::with(|config| {
        (config.runner_boot, config.job_length) = (BOOT, JOB);
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
    let read = |message: &Value| {
        (message["messageType"].as_str().unwrap().to_owned(), message["runnerRequestId"].as_u64().unwrap())
    };
    messages.iter().map(read).collect()
}

fn with_capacity(mut request: crate::wire::Request, header: &str, capacity: u64) -> crate::wire::Request {
    let name = http::HeaderName::from_bytes(header.as_bytes()).unwrap();
    request.headers_mut().insert(name, capacity.into());
    request
}

fn ack(bench: &mut Bench, session: &Opened, message: u64) -> u16 {
    let path = format!("{}/{message}", session.queue);
    status(&bench.send(&request(&Method::DELETE, &path, &session.bearer(), "")))
}

fn jit(bench: &mut Bench, set: GithubId, name: &str) -> Answer {
    let tail = format!("runtime/runnerscalesets/{}/generatejitconfig", set.0);
    bench.ask(&Method::POST, &tail, &json!({"name": name, "workFolder": "_work"}))
}

#[test]
fn idle_poll_is_held_and_then_answered_with_an_empty_202() {
    let (mut bench, set, session) = bench(|_| {});
    let until = START.plus(Span::secs(50));
    assert_eq!(held(&bench.poll(&session)), Some(until));
    bench.wait(Span::secs(49));
    assert_eq!(held(&bench.poll(&session)), Some(until), "asked again too early: the same poll");
    bench.wait(Span::secs(1));
    let answer = bench.poll(&session);
    assert_eq!((status(&answer), held(&answer), answer.response.body().len()), (202, None, 0));
    assert_eq!((bench.github.polls(set), bench.github.total_calls(Route::Poll)), (1, 1), "one call");
    assert_eq!(held(&bench.poll(&session)), Some(until.plus(Span::secs(50))), "a new poll");
}

#[test]
fn job_wakes_the_poll_with_an_envelope_and_statistics() {
    let (mut bench, set, session) = bench(|_| {});
    bench.poll(&session);
    assert!(bench.github.take_wakes().is_empty());
    bench.wait(Span::secs(5));
    bench.github.queue_jobs(set, 2, bench.now);
    assert_eq!(bench.github.take_wakes().len(), 1);
    let answer = bench.poll(&session);
    assert_eq!(jobs(&answer), [("JobAssigned".to_owned(), 1), ("JobAssigned".to_owned(), 2)]);
    let envelope = body(&answer);
    assert_eq!(
        (&envelope["messageId"], &envelope["statistics"]["totalAssignedJobs"]),
        (&json!(100_000_001), &json!(2))
    );
    assert_eq!(envelope["messageType"], "RunnerScaleSetJobMessages");
    assert_eq!(envelope["statistics"]["totalRunningJobs"], 0);
}

#[test]
fn message_is_delivered_until_it_is_acknowledged() {
    let (mut bench, set, session) = bench(|_| {});
    bench.github.queue_jobs(set, 1, bench.now);
    assert_eq!(status(&bench.poll(&session)), 200);
    assert_eq!(status(&bench.poll(&session)), 200, "not deleted: delivered again");
    assert!(held(&bench.send(&session.poll(100_000_001))).is_some(), "not beyond the cursor");
    bench.hang_up(&session);
    bench.on_session(&Method::DELETE, set, &session.id);
    let next = bench.opened(set);
    assert_eq!(status(&bench.poll(&next)), 200, "delivered to a later session");
    assert_eq!(ack(&mut bench, &next, 100_000_001), 204);
    assert_eq!(ack(&mut bench, &next, 100_000_001), 204, "twice is no error");
    assert_eq!(bench.github.undeleted_messages(set), 0);
    assert!(held(&bench.poll(&next)).is_some());
}

#[test]
fn jobs_wait_for_capacity() {
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
fn runner_takes_an_assigned_job_finishes_it_and_is_removed() {
    let (mut bench, set, session) = bench(|_| {});
    bench.github.queue_jobs(set, 1, bench.now);
    bench.poll(&session);
    ack(&mut bench, &session, 100_000_001);
    let made = body(&jit(&mut bench, set, "gpu-1"));
    assert_eq!(made["runner"]["runnerScaleSetId"], set.0);
    assert_eq!(exception(&jit(&mut bench, set, "gpu-1")), (409, "AgentExistsException".to_owned()));
    let (runner, online) = bench.github.runners(set)[0];
    assert!(!online, "registered from the JIT configuration on");
    bench.wait(BOOT);
    assert_eq!(bench.github.jobs(set).running, 1);
    assert_eq!(jobs(&bench.poll(&session)), [("JobStarted".to_owned(), 1)]);
    ack(&mut bench, &session, 100_000_002);
    let delete = format!("distributedtask/pools/0/agents/{runner}");
    let refused = bench.ask(&Method::DELETE, &delete, &Value::Null);
    assert_eq!(exception(&refused), (400, "JobStillRunningException".to_owned()));
    bench.wait(JOB);
    let done = bench.poll(&session);
    assert_eq!(jobs(&done), [("JobCompleted".to_owned(), 1)]);
    assert!(body(&done)["body"].as_str().unwrap().contains(r#""result":"succeeded""#));
    assert_eq!(body(&done)["statistics"]["totalAssignedJobs"], 0);
    assert_eq!(bench.github.jobs(set), JobCounts { completed: 1, ..JobCounts::default() });
    assert!(bench.github.runners(set).is_empty());
    assert_eq!(status(&bench.ask(&Method::DELETE, &delete, &Value::Null)), 204, "deleted already: no error");
}
