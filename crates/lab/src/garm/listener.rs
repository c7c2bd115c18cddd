//! A listener: its polls, the messages they bring, and the refresh of its session (`docs/reference/garm-api.md` §11.4,
//! `docs/reference/actions-service.md` §5.5, §6.3).
//!
//! A 202 means to ask again at once. 401 and 403 are tried once more. Any other failure ends the listener: it deletes
//! its session and is restarted without a pause, so polls that fail at once make an endless loop.

use super::calls::{self, Ask, Reply, Sent, Service, Session, read_session};
use super::config::LogLevel::{Debug, Error, Info};
use super::counters::Op;
use super::db::{InstanceStatus, SetRow};
use super::env::{Env, Operation};
use super::log::{By, attrs};
use super::process::{Died, Process, Task};
use super::render::View;
use super::stamp::Ticker;
use super::worker::{Closing, Phase, Purpose};
use crate::random::scramble;
use medic_core::model::{Span, Wall};
use serde_json::Value;
use std::sync::Arc;

/// A queue token is renewed when less than this is left, plus jitter.
const RENEWED_BEFORE: Span = Span::mins(10);
/// The service and its token are reused for this long.
const SERVICE_LIFE: Span = Span::mins(50);

/// A listener with its session.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    /// Unique in this incarnation.
    pub number: u64,
    pub session: Session,
    /// The number of its present poll.
    pub poll: u64,
    /// The answer on its way.
    arriving: Option<Reply>,
    /// The last poll was refused as unauthorized.
    unauthorized: bool,
    /// The client that opened the session keeps its tokens for refreshes.
    service: Option<(Service, Wall)>,
}

impl Process {
    /// A session is open: polls and refreshes begin.
    pub(super) fn start_polling(
        &mut self,
        set: &SetRow,
        session: Session,
        service: Option<Service>,
        env: &mut Env<'_>,
    ) {
        let number = self.number();
        let id = session.id.clone();
        let twice = attrs!["session_id" => &id];
        env.say(Debug, "starting message session refresh loop", twice, By::Session(set, &id));
        let Some(worker) = self.workers.get_mut(&set.id) else { return };
        worker.last_success = worker.last_success.or(Some(env.now));
        worker.listener = Some(Listening {
            number,
            session,
            poll: 0,
            arriving: None,
            unauthorized: false,
            service: service.map(|service| (service, env.now)),
        });
        self.at(env.now.plus(Span::mins(1)), Task::Refresh(set.id, number));
        self.poll_again(set.id, env);
    }

    fn poll_again(&mut self, id: u64, env: &mut Env<'_>) {
        let poll = self.number();
        let Some(set) = env.db.set(id) else { return };
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let max_runners = worker.known.max_runners;
        let Some(listener) = &mut worker.listener else { return };
        listener.poll = poll;
        let attrs = attrs!["last_message_id" => set.last_message, "max_runners" => max_runners];
        env.say(Debug, "getting message", attrs, By::Listener(&set));
        self.counters.begin(Op::GetMessage, set.entity.entity.kind);
        match calls::poll(env, &listener.session, set.last_message, max_runners, poll) {
            Sent::At(at, reply) => {
                listener.arriving = Some(reply);
                self.at(at, Task::Poll(id, poll));
            }
            Sent::Held(until) => self.at(until, Task::Poll(id, poll)),
            // No time-out: the listener is stalled from now on.
            Sent::Never => {}
        }
    }

    /// A held poll is to be asked again.
    pub(super) fn wake(&mut self, session: &str, now: Wall) {
        let held = self.workers.iter().find_map(|(id, worker)| {
            let listener = worker.listener.as_ref().filter(|listener| listener.session.id == session)?;
            (listener.arriving.is_none() && worker.phase == Phase::Listening).then_some((*id, listener.poll))
        });
        if let Some((id, poll)) = held {
            self.at(now, Task::Poll(id, poll));
        }
    }

    /// A poll is answered, or asked again.
    pub(super) fn step_poll(&mut self, id: u64, poll: u64, env: &mut Env<'_>) -> Result<(), Died> {
        let Some(set) = env.db.set(id) else { return Ok(()) };
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.phase == Phase::Listening) else {
            return Ok(());
        };
        let max_runners = worker.known.max_runners;
        let Some(listener) = worker.listener.as_mut().filter(|listener| listener.poll == poll) else { return Ok(()) };
        let reply = match listener.arriving.take() {
            Some(reply) => reply,
            None => match calls::poll(env, &listener.session, set.last_message, max_runners, poll) {
                Sent::At(_, reply) => reply,
                Sent::Held(until) => {
                    self.at(until, Task::Poll(id, poll));
                    return Ok(());
                }
                Sent::Never => return Ok(()),
            },
        };
        self.polled(&set, &reply, env)
    }

    fn polled(&mut self, set: &Arc<SetRow>, reply: &Reply, env: &mut Env<'_>) -> Result<(), Died> {
        match reply {
            Reply::Got(202, _) => {
                env.say(Debug, "no messages available in queue", attrs![], By::Listener(set));
                self.poll_succeeded(set.id, env);
                Ok(())
            }
            Reply::Got(401 | 403, _) => self.unauthorized(set, env),
            Reply::Got(200..=299, body) => match serde_json::from_slice::<Value>(body) {
                Ok(message) => {
                    self.message(set, &message, env);
                    Ok(())
                }
                Err(_) => self.poll_failed(set, reply, env),
            },
            Reply::Got(..) | Reply::Broken(_) => self.poll_failed(set, reply, env),
        }
    }

    fn poll_succeeded(&mut self, id: u64, env: &mut Env<'_>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.last_success = Some(env.now);
            if let Some(listener) = &mut worker.listener {
                listener.unauthorized = false;
            }
        }
        self.poll_again(id, env);
    }

    /// Tried once more with the current token; then the listener stops.
    fn unauthorized(&mut self, set: &SetRow, env: &mut Env<'_>) -> Result<(), Died> {
        self.counters.fail(Op::GetMessage, set.entity.entity.kind);
        let listener = self.workers.get_mut(&set.id).and_then(|worker| worker.listener.as_mut());
        let Some(listener) = listener else { return Ok(()) };
        if std::mem::replace(&mut listener.unauthorized, true) {
            env.say(Debug, "unauthorized, stopping listener", attrs![], By::Listener(set));
            return self.stop_after_poll(set, env);
        }
        env.say(Debug, "got unauthorized error, retrying", attrs![], By::Listener(set));
        self.poll_again(set.id, env);
        Ok(())
    }

    fn poll_failed(&mut self, set: &SetRow, reply: &Reply, env: &mut Env<'_>) -> Result<(), Died> {
        self.counters.fail(Op::GetMessage, set.entity.entity.kind);
        let listener = self.workers.get(&set.id).and_then(|worker| worker.listener.as_ref());
        let Some(listener) = listener else { return Ok(()) };
        let failure = calls::poll_failure(&listener.session, set.last_message, reply);
        env.say(Error, "getting message", attrs!["error" => failure.text], By::Listener(set));
        self.stop_after_poll(set, env)
    }

    fn stop_after_poll(&mut self, set: &SetRow, env: &mut Env<'_>) -> Result<(), Died> {
        env.say(Debug, "stopping scale set listener", attrs![], By::Listener(set));
        self.close_session(set, Closing::PollFailed, env)
    }

    /// The poll in flight is cancelled; that counts as an error.
    pub(super) fn cancel_poll(&mut self, set: &SetRow, env: &mut Env<'_>) {
        let listener = self.workers.get(&set.id).and_then(|worker| worker.listener.as_ref());
        if let Some(listener) = listener {
            calls::hang_up(env, &listener.session, set.last_message, listener.poll);
            self.counters.fail(Op::GetMessage, set.entity.entity.kind);
        }
    }

    fn message(&mut self, set: &Arc<SetRow>, message: &Value, env: &mut Env<'_>) {
        let id = message.get("messageId").and_then(Value::as_u64).unwrap_or(0);
        let kind = message.get("messageType").and_then(Value::as_str).unwrap_or_default();
        if id == 0 || kind != "RunnerScaleSetJobMessages" {
            // Neither acknowledged nor counted: it is delivered again at once.
            self.poll_succeeded(set.id, env);
            return;
        }
        if !env.config.build.retries() && id < set.last_message {
            let ids = attrs!["received_msg_id" => id, "recorded_msg_id" => set.last_message];
            env.say(Info, "message is older than last message, ignoring", ids, By::Listener(set));
            self.poll_succeeded(set.id, env);
            return;
        }
        let assigned = message.pointer("/statistics/totalAssignedJobs").and_then(Value::as_u64).unwrap_or(0);
        let jobs: Vec<Value> = message
            .get("body")
            .and_then(Value::as_str)
            .and_then(|body| serde_json::from_str(body).ok())
            .unwrap_or_default();
        if env.db.poisoned.contains(&set.id) && !jobs.is_empty() {
            self.poisoned(set, env);
            return;
        }
        self.handle_jobs(set, &jobs, env);
        self.acknowledge(set, id, assigned, env);
    }

    /// A change of an instance's state is refused: the message is not acknowledged, and is delivered again at once
    /// (`docs/reference/failure-modes.md` F12).
    fn poisoned(&mut self, set: &SetRow, env: &mut Env<'_>) {
        let error = "updating runner: invalid instance status transition from deleted to pending_delete";
        env.say(Error, "error handling completed jobs", attrs!["error" => error], By::Worker(set));
        let Some(worker) = self.workers.get_mut(&set.id) else { return };
        worker.last_success = Some(env.now);
        let (attrs, poll) = (
            attrs!["last_message_id" => set.last_message, "max_runners" => worker.known.max_runners],
            worker.listener.as_ref().map_or(0, |listener| listener.poll),
        );
        env.say(Debug, "getting message", attrs, By::Listener(set));
        self.counters.begin(Op::GetMessage, set.entity.entity.kind);
        self.at(env.now.plus(env.config.restart), Task::Poll(set.id, poll));
    }

    fn handle_jobs(&mut self, set: &SetRow, jobs: &[Value], env: &mut Env<'_>) {
        for job in jobs {
            say_job(set, job, env);
        }
        let of_kind = |kind: &str| jobs.iter().filter(|job| text(job, "messageType") == kind).collect::<Vec<_>>();
        for job in of_kind("JobStarted") {
            if let Some(id) = instance_of(job, env) {
                env.db.write_instance(id, env.now, |row| row.runner_status = "active");
                env.instance_changed(id, Operation::Update);
            }
        }
        for job in of_kind("JobCompleted") {
            if let Some(id) = instance_of(job, env) {
                self.give_up_instance(id, env);
            }
        }
    }

    /// Two updates of the set write the cursor and the desired number; then the message is deleted.
    fn acknowledge(&mut self, set: &SetRow, message: u64, assigned: u64, env: &mut Env<'_>) {
        env.db.write_set(set.id, env.now, |row| row.last_message = message);
        env.set_changed(set.id, Operation::Update, View::AfterMessage);
        env.db.write_set(set.id, env.now, |row| row.desired = assigned);
        env.set_changed(set.id, Operation::Update, View::AfterMessage);
        let kind = set.entity.entity.kind;
        let listener = self.workers.get(&set.id).and_then(|worker| worker.listener.as_ref());
        let Some(session) = listener.map(|listener| listener.session.clone()) else { return };
        self.counters.begin(Op::DeleteMessage, kind);
        match calls::acknowledge(env, &session, message) {
            Ok(()) => {}
            Err(Some(failure)) => {
                self.counters.fail(Op::DeleteMessage, kind);
                env.say(Error, "deleting message", attrs!["error" => failure.text], By::Listener(set));
            }
            Err(None) => return,
        }
        self.poll_succeeded(set.id, env);
    }

    /// Each minute: a queue token close to its end is renewed. Failures are logged and tried again, for ever.
    pub(super) fn step_refresh(&mut self, id: u64, number: u64, env: &mut Env<'_>) -> Result<(), Died> {
        let Some(set) = env.db.set(id) else { return Ok(()) };
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        let Some(listener) = worker.listener.as_mut().filter(|listener| listener.number == number) else {
            return Ok(());
        };
        if matches!(worker.phase, Phase::Asking(Purpose::Close(_), _)) {
            return Ok(());
        }
        let session = listener.session.clone();
        let again = env.now.plus(Span::mins(1));
        let failed = |text: &str, env: &mut Env<'_>| {
            let error = attrs!["error" => text];
            env.say(Error, "failed to refresh message queue token", error, By::Session(&set, &session.id));
        };
        let expires = match session.expires() {
            Ok(Some(seconds)) => Wall(seconds.saturating_mul(1000)),
            Ok(None) => return Err(Died::TokenWithoutExpiry),
            Err(text) => {
                failed(text, env);
                self.at(again, Task::Refresh(id, number));
                return Ok(());
            }
        };
        let by = By::Session(&set, &session.id);
        let checked = attrs!["expires_at" => Ticker::default().at(expires).nano()];
        env.say(Debug, "checking if message session token needs refresh", checked, by);
        let jitter = Span::millis(scramble(number) % 30_000);
        if expires.since(env.now) <= RENEWED_BEFORE.plus(jitter) {
            let service = listener.service.take().filter(|(_, since)| env.now.since(*since) < SERVICE_LIFE);
            let held = service.as_ref().map(|(service, _)| service.clone());
            let ask = Ask::RefreshSession(session.clone());
            match calls::at_once(env, &mut self.counters, &set, ask, held) {
                Ok((body, fresh)) => match read_session(&body) {
                    Ok(session) => {
                        let since = service.map_or(env.now, |(_, since)| since);
                        if let Some(l) = self.workers.get_mut(&id).and_then(|w| w.listener.as_mut()) {
                            (l.session, l.service) = (session, fresh.map(|service| (service, since)));
                        }
                        env.say(Debug, "refreshed message session token", attrs![], by);
                    }
                    Err(failure) => failed(&failure.text, env),
                },
                Err(Some(failure)) => failed(&failure.text, env),
                // It hangs; the polls go on.
                Err(None) => return Ok(()),
            }
        }
        // Checks that would only write a debug line that is not logged are left out.
        let minutes = expires.since(env.now).minus(RENEWED_BEFORE.plus(jitter)).as_millis() / 60_000;
        let logged = env.config.log_level == Debug;
        self.at(
            if logged { again } else { again.plus(Span::mins(minutes.saturating_sub(1))) },
            Task::Refresh(id, number),
        );
        Ok(())
    }
}

fn text<'a>(job: &'a Value, name: &str) -> &'a str {
    job.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn say_job(set: &SetRow, job: &Value, env: &mut Env<'_>) {
    let mut attrs = attrs!["job_id" => text(job, "jobId"), "job_name" => text(job, "jobDisplayName")];
    let runner = attrs!["runner_name" => text(job, "runnerName")];
    let msg = match text(job, "messageType") {
        "JobAssigned" => "new job assigned",
        "JobStarted" => {
            attrs.extend(runner);
            "job started"
        }
        "JobCompleted" => {
            attrs.extend(runner);
            "job completed"
        }
        _ => return,
    };
    env.say(Info, msg, attrs, By::Listener(set));
}

/// The instance that a job runs on.
fn instance_of(job: &Value, env: &Env<'_>) -> Option<u64> {
    let name = text(job, "runnerName");
    let found = env.db.instances.iter().find(|(_, row)| row.name == name && row.status != InstanceStatus::Deleted);
    found.map(|(id, _)| *id)
}
