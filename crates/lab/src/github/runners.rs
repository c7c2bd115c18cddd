//! Runners and the course of jobs: E8, E19 (`docs/reference/actions-service.md` §3.3). A runner comes up after its
//! boot, takes one job, finishes it and is removed.

use super::exception::{Exception, bad_request, set_not_found};
use super::set::{JobState, Runner, RunnerState};
use super::sets::body_of;
use super::{Ask, Due, GithubState};
use crate::wire::Answer;
use medic_core::model::Wall;
use serde::Deserialize;
use serde_json::{Value, json};

impl GithubState {
    pub(super) fn jit_config(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        #[derive(Deserialize)]
        struct Body {
            name: String,
        }
        let id = self.admin_of_set(ask)?;
        let body: Body = body_of(ask)?;
        let Some(entity) = self.sets.get(&id).map(|set| set.entity.clone()) else { return Err(set_not_found(id)) };
        if body.name.is_empty() {
            return Err(bad_request("The runner needs a name."));
        }
        if self.sets_of(&entity).flat_map(|set| set.runners.values()).any(|runner| runner.name == body.name) {
            let message = format!("A runner exists with the same name {}.", body.name);
            return Err(Exception::AGENT_EXISTS.answer(&message));
        }
        self.counters.runner = self.counters.runner.saturating_add(1);
        let number = self.counters.runner;
        let runner = Runner { id: number, name: body.name, state: RunnerState::Offline };
        let Some(set) = self.sets.get_mut(&id) else { return Err(set_not_found(id)) };
        let answer = json!({
            "runner": {"id": number, "name": runner.name, "runnerScaleSetId": id},
            "encodedJITConfig": "e30=",
        });
        set.runners.insert(number, runner);
        self.runner_home.insert(number, id);
        self.agenda.insert((ask.now.plus(self.config.runner_boot), Due::RunnerUp(number)));
        Ok(Answer::json(200, &answer))
    }

    /// A runner that is not there is no error (`docs/reference/actions-service.md` §3.3 E19).
    pub(super) fn delete_agent(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let entity = self.admin_of(ask)?;
        let number = ask.matched.number.unwrap_or_default();
        let home = self.runner_home.get(&number).copied().and_then(|id| self.sets.get_mut(&id));
        let Some(set) = home.filter(|set| set.entity == entity) else { return Ok(Answer::empty(204)) };
        if set.runners.get(&number).is_some_and(|runner| matches!(runner.state, RunnerState::Busy(_))) {
            let message = format!("The runner {number} is still running a job.");
            return Err(Exception::JOB_STILL_RUNNING.answer(&message));
        }
        set.runners.remove(&number);
        self.runner_home.remove(&number);
        Ok(Answer::empty(204))
    }

    /// A runner comes online and takes a job, if one is assigned and free.
    pub(super) fn runner_up(&mut self, number: u64, now: Wall) {
        let Some(id) = self.runner_home.get(&number).copied() else { return };
        let runner = self.sets.get_mut(&id).and_then(|set| set.runners.get_mut(&number));
        if let Some(runner) = runner.filter(|runner| runner.state == RunnerState::Offline) {
            runner.state = RunnerState::Idle;
        }
        self.match_jobs(id, now);
    }

    /// Gives assigned jobs to idle runners.
    pub(super) fn match_jobs(&mut self, id: u64, now: Wall) {
        while let Some((job, runner)) = self.next_match(id) {
            self.start_job(id, job, runner, now);
        }
    }

    fn next_match(&self, id: u64) -> Option<(u64, u64)> {
        let set = self.sets.get(&id)?;
        let job = set.jobs.values().find(|job| job.state == JobState::Assigned)?;
        let runner = set.runners.values().find(|runner| runner.state == RunnerState::Idle)?;
        Some((job.id, runner.id))
    }

    fn start_job(&mut self, id: u64, number: u64, runner: u64, now: Wall) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        let mut name = String::new();
        if let Some(runner) = set.runners.get_mut(&runner) {
            runner.state = RunnerState::Busy(number);
            name.clone_from(&runner.name);
        }
        if let Some(job) = set.jobs.get_mut(&number) {
            (job.state, job.started) = (JobState::Running(runner), Some(now));
        }
        let more = json!({"runnerId": runner, "runnerName": name});
        let messages: Vec<Value> =
            set.jobs.get(&number).map(|job| set.job_message("JobStarted", job, None, more)).into_iter().collect();
        set.post(messages);
        self.wake(id);
        self.agenda.insert((now.plus(self.config.job_length), Due::JobDone(runner)));
    }

    /// A runner's job ends, and the ephemeral runner with it.
    pub(super) fn job_done(&mut self, number: u64, now: Wall) {
        let Some(id) = self.runner_home.get(&number).copied() else { return };
        let Some(set) = self.sets.get_mut(&id) else { return };
        let Some(runner) = set.runners.get(&number) else { return };
        let RunnerState::Busy(job) = runner.state else { return };
        let more = json!({"result": "succeeded", "runnerId": number, "runnerName": runner.name});
        if let Some(job) = set.jobs.remove(&job) {
            let messages = set.job_message("JobCompleted", &job, Some(now), more);
            set.post(vec![messages]);
            set.completed = set.completed.saturating_add(1);
        }
        set.runners.remove(&number);
        self.runner_home.remove(&number);
        self.wake(id);
    }
}
