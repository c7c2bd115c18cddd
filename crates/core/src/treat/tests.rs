//! The machine, in tables for each file of steps: what it is given, and what follows. Then from every step: every input
//! of a small alphabet, every answer that a request can have, a crash at any point. Whatever happens, the state read
//! right before a request allowed it.

mod deletion;
mod session_check;
mod toggle;
mod verify;

use super::audit::SentRequest;
use super::machine;
use super::testing::{
    List, NEXT_RUN, RUN, Seen, T0, after, disabled, enabled, failure, lost, now, refused, rev, session, treatment,
    warrant,
};
use super::transition::{Answer, Input, Request, Transition};
use crate::model::failure::WriteError;
use crate::model::{
    Diagnosis, Enablement, FailureKind, Incarnation, ManagerState, Note, OpenAnswer, Outcome, Owner, Remedy,
    RequestFailure, ScaleSet, Span, Step, Treatment, Wall, WorkerState,
};
use crate::policy::Policy;
use std::collections::{BTreeSet, VecDeque};

#[derive(Debug, Clone)]
enum Event {
    Sweep(Box<Seen>),
    Answer(Answer),
    Shutdown,
    Recover,
}

impl Event {
    fn input(&self) -> Input<'_> {
        match self {
            Self::Sweep(seen) => Input::Sweep(seen.view()),
            Self::Answer(answer) => Input::Answer(answer.clone()),
            Self::Shutdown => Input::Shutdown,
            Self::Recover => Input::Recover,
        }
    }
    fn reads(&self) -> Option<&ScaleSet> {
        if let Self::Answer(Answer::Read(Ok(Some(set)))) = self { Some(set) } else { None }
    }
}

fn sees(seen: Seen) -> Event {
    Event::Sweep(Box::new(seen))
}

fn ill() -> Event {
    sees(Seen::ill())
}

fn lists(set: ScaleSet) -> Event {
    sees(Seen::ill().with(set))
}

fn missing() -> Event {
    sees(Seen { list: List::Lacks, ..Seen::ill() })
}

fn restarted() -> Event {
    sees(Seen::ill().run(NEXT_RUN))
}

fn paused() -> Event {
    sees(Seen { paused: true, ..Seen::ill() })
}

fn listens(at: Wall) -> Event {
    sees(Seen::ill().listening(at))
}

fn manager(state: ManagerState) -> Event {
    sees(Seen::ill().manager(state))
}

fn read(set: impl Into<Option<ScaleSet>>) -> Event {
    Event::Answer(Answer::Read(Ok(set.into())))
}

fn unreadable() -> Event {
    Event::Answer(Answer::Read(Err(failure(FailureKind::Timeout))))
}

fn deleted(answer: Result<(), WriteError>) -> Event {
    Event::Answer(Answer::SessionDeleted(answer))
}

fn not_applied(kind: FailureKind, retry_at: impl Into<Option<Wall>>) -> WriteError {
    WriteError::NotApplied(RequestFailure { retry_at: retry_at.into(), ..failure(kind) })
}

/// Seconds after the decision, an input, and what follows.
type Row = (i64, Event, &'static str);

/// A treatment under test, decided at [`T0`].
#[derive(Debug, Clone)]
struct Case {
    treatment: Treatment,
    policy: Policy,
}

impl Case {
    fn of(step: Step) -> Self {
        Self { treatment: treatment(step), policy: Policy::default() }
    }
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
    fn remedy(self, remedy: Remedy) -> Self {
        self.with(|case| case.treatment.remedy = remedy)
    }
    /// What follows, in words: `request, step or outcome: note`.
    fn given(&mut self, seconds: i64, event: &Event) -> String {
        let at = Wall(T0.0.saturating_add_signed(seconds * 1000));
        let next = machine::step(&self.treatment, event.input(), now(at), &self.policy);
        self.treatment = next.treatment;
        let request = next.request.map(|request| format!("{}, ", text_of(&SentRequest::from(request), &["request"])));
        let note = next.note.map(|note| format!(": {}", text_of(&note, &["attempts", "what", "note"])));
        format!("{}{}{}", request.unwrap_or_default(), self.treatment.step.state(), note.unwrap_or_default())
    }
    fn run(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        for (seconds, event, follows) in rows {
            assert_eq!(self.given(seconds, &event), follows, "{seconds} s: {event:?}");
        }
        self
    }
}

/// The first of these fields that a fact has, and whether something was sent before.
fn text_of(fact: &impl serde::Serialize, fields: &[&str]) -> String {
    let json = serde_json::to_value(fact).unwrap();
    let name = fields.iter().find_map(|field| json.get(field)).unwrap_or(&json);
    let sent = if json.get("sent") == Some(&true.into()) { " (sent)" } else { "" };
    format!("{}{sent}", name.as_str().map_or_else(|| format!("given up after {name}"), str::to_owned))
}

/// Cases of one input each, by name.
fn check_each(cases: impl IntoIterator<Item = (&'static str, Case, i64, Event, &'static str)>) {
    for (name, mut case, seconds, event, follows) in cases {
        assert_eq!(case.given(seconds, &event), follows, "{name}");
    }
}

/// When a request goes out that fails each time, if the machine is asked every second: until `times`, or the end.
fn sent_at(case: &mut Case, sweep: &Event, answers: &[Event], times: usize) -> Vec<i64> {
    let (mut sent, mut second) = (Vec::new(), 0);
    while sent.len() < times && !case.treatment.step.is_closed() {
        if case.given(second, sweep).contains(", ") {
            sent.push(second);
            for answer in answers {
                case.given(second, answer);
            }
        }
        second += 1;
        assert!(second < 1_000, "no end: {sent:?}");
    }
    sent
}

/// The longest history, and how far its clock runs.
const DEPTH: usize = 7;
const HORIZON: Span = Span::secs(90);
/// The most requests in one reconcile.
const CHAIN: usize = 5;

#[derive(Debug, Clone)]
struct State {
    treatment: Treatment,
    pending: Option<Request>,
    chain: usize,
    at: Wall,
}

fn starts() -> Vec<Treatment> {
    let mut starts = vec![deletion::deleting(0), deletion::then_toggle(0), verify::toggled()];
    starts.extend([toggle::disabling(), toggle::unknown(), toggle::disabled(), toggle::enabling()]);
    starts.extend([session_check::opening(), session_check::opened()]);
    starts.push(Case::of(Step::Closed { outcome: Outcome::Failed, why: Note::DisableLost }));
    starts.into_iter().map(|case| case.treatment).collect()
}

fn sets() -> [ScaleSet; 5] {
    [
        enabled("seen"),
        enabled("other"),
        disabled("ours", after(1)),
        disabled("other", after(1)),
        disabled("old", Wall(1)),
    ]
}

fn sweeps(at: Wall) -> Vec<Event> {
    let mut seen: Vec<Seen> = sets().into_iter().map(|set| Seen::ill().with(set)).collect();
    seen.extend([
        Seen { list: List::Lacks, ..Seen::ill() },
        Seen::ill().manager(ManagerState::Down),
        Seen::ill().manager(ManagerState::Unreachable),
        Seen::ill().run(NEXT_RUN),
        Seen::ill().run(NEXT_RUN).with(disabled("ours", after(1))),
        Seen { stale: false, ..Seen::ill() },
        Seen::ill().listening(at),
        Seen::ill().diagnosis(Diagnosis::ConflictRetrying, at).worker(WorkerState::Retrying, at),
        Seen::ill().with(disabled("ours", after(1))).worker(WorkerState::Idle, at),
    ]);
    seen.into_iter().map(sees).collect()
}

fn errors() -> Vec<WriteError> {
    vec![
        refused(),
        lost(),
        not_applied(FailureKind::NotFound, None),
        not_applied(FailureKind::HeldBack, None),
        not_applied(FailureKind::RateLimited, Wall(u64::MAX)),
    ]
}

/// Every answer that a request can have.
fn answers(request: &Request) -> Vec<Event> {
    let written = |wrap: fn(Result<ScaleSet, WriteError>) -> Answer| -> Vec<Answer> {
        sets().into_iter().map(Ok).chain(errors().into_iter().map(Err)).map(wrap).collect()
    };
    let answers = match request {
        Request::Disable => written(Answer::Disabled),
        Request::Enable => written(Answer::Enabled),
        Request::ReadSet => {
            let failed = [Ok(None), Err(failure(FailureKind::Timeout))];
            sets().into_iter().map(|set| Ok(Some(set))).chain(failed).map(Answer::Read).collect()
        }
        Request::CheckIncarnation { warrant } => [Ok(RUN), Ok(NEXT_RUN), Err(failure(FailureKind::Timeout))]
            .map(|incarnation| Answer::Incarnation { incarnation, warrant: warrant.clone() })
            .to_vec(),
        Request::DeleteSession { .. } | Request::DeleteOwnSession { .. } => {
            std::iter::once(Ok(())).chain(errors().into_iter().map(Err)).map(Answer::SessionDeleted).collect()
        }
        Request::OpenSession { .. } => {
            let told = [OpenAnswer::Opened(session()), OpenAnswer::Held { owner: None }, OpenAnswer::SetGone];
            told.into_iter().map(Ok).chain(errors().into_iter().map(Err)).map(Answer::SessionOpened).collect()
        }
    };
    answers.into_iter().map(Event::Answer).collect()
}

/// What may come next, and how long it takes.
fn events(state: &State) -> Vec<(Span, Event)> {
    let mut events = Vec::new();
    for pause in [Span::secs(2), Span::secs(31)] {
        let at = state.at.plus(pause);
        match &state.pending {
            Some(request) => events.extend(answers(request).into_iter().map(|answer| (pause, answer))),
            None => events.extend(sweeps(at).into_iter().map(|sweep| (pause, sweep))),
        }
        // A crash, or a reconcile dropped at shutdown: the request may or may not have been sent.
        events.extend([(pause, Event::Shutdown), (pause, Event::Recover)]);
    }
    events
}

#[test]
fn machine_sends_only_what_the_last_read_allows() {
    let policy = Policy::default();
    let mut queue: VecDeque<(usize, State)> =
        starts().into_iter().map(|treatment| (0, State { treatment, pending: None, chain: 0, at: T0 })).collect();
    let mut known = BTreeSet::new();
    let mut sent = BTreeSet::new();
    let mut labels = BTreeSet::new();
    while let Some((depth, state)) = queue.pop_front() {
        if depth >= DEPTH || state.at.since(T0) > HORIZON {
            continue;
        }
        for (pause, event) in events(&state) {
            let at = state.at.plus(pause);
            let next = machine::step(&state.treatment, event.input(), now(at), &policy);
            let chain = if matches!(event, Event::Answer(_)) { state.chain + 1 } else { 0 };
            check(&state, &event, &next, at);
            assert!(chain <= CHAIN || next.request.is_none(), "{chain} requests without a sweep in between: {next:?}");
            sent.extend(next.request.as_ref().map(|request| format!("{request:?}")));
            labels.insert(next.treatment.step.label());
            let state = State { treatment: next.treatment, pending: next.request, chain, at };
            let key = format!("{:?} {:?} {}", state.treatment, state.pending, state.at.0);
            if known.insert(key) {
                queue.push_back((depth + 1, state));
            }
        }
    }
    assert_eq!(labels.len(), 9, "every step was reached: {labels:?}");
    assert_eq!(sent.len(), 7, "every request was sent: {sent:?}");
}

fn check(state: &State, event: &Event, next: &Transition, at: Wall) {
    let (before, after) = (&state.treatment, &next.treatment);
    let what = || format!("{before:?}\n  {event:?}\n  → {next:?}");
    assert!(after.step_at <= at, "{}", what());
    assert_eq!((before.id, before.set, &before.remedy), (after.id, after.set, &after.remedy), "{}", what());
    if before.step.is_closed() {
        assert!(next.request.is_none() && after == before, "closed is the end\n{}", what());
    }
    if after.step.is_closed() {
        assert_eq!(next.request, None, "{}", what());
    }
    match &next.request {
        None | Some(Request::ReadSet | Request::CheckIncarnation { .. }) => {}
        Some(Request::Enable) => {
            let Step::Enabling { ours, attempts, .. } = &after.step else { panic!("{}", what()) };
            let read = event.reads().unwrap_or_else(|| panic!("an enable without a read\n{}", what()));
            assert!(read.enabled == Enablement::Disabled && read.revision == *ours && *attempts > 0, "{}", what());
        }
        Some(Request::Disable) => {
            let Step::Disabling { seen, sent: Some(_) } = &after.step else { panic!("{}", what()) };
            let read = event.reads().unwrap_or_else(|| panic!("a disable without a read\n{}", what()));
            assert!(read.enabled == Enablement::Enabled && read.revision == *seen, "{}", what());
            assert_eq!(after.step_at, at, "dated by its sending\n{}", what());
        }
        Some(Request::DeleteSession { warrant }) => {
            let stale = warrant.session();
            let is_named = matches!(&after.step, Step::Deleting { session, attempts: 1.., .. } if session == stale);
            assert!(is_named, "{}", what());
            let Event::Answer(Answer::Incarnation { incarnation: Ok(run), .. }) = event else { panic!("{}", what()) };
            assert_eq!(Some(*run), after.incarnation, "another incarnation\n{}", what());
        }
        Some(Request::OpenSession { owner }) => {
            assert_eq!(after.step, Step::CheckOpening { owner: owner.clone() }, "{}", what());
            assert!(matches!(event, Event::Sweep(_)), "never sent again blindly\n{}", what());
        }
        Some(Request::DeleteOwnSession { warrant }) => {
            let ours = warrant.session();
            assert!(matches!(&after.step, Step::CheckOpened { session, .. } if session == ours), "{}", what());
        }
    }
    if let (Step::Disabled { ours, .. } | Step::Enabling { ours, .. }, true) = (&before.step, after.step.is_closed()) {
        let theirs = |set: &ScaleSet| set.enabled == Enablement::Disabled && set.revision != *ours;
        let let_go = match event {
            Event::Sweep(seen) => seen.set().is_some_and(theirs),
            Event::Answer(Answer::Read(Ok(set))) => set.as_ref().is_none_or(theirs),
            Event::Answer(_) | Event::Shutdown | Event::Recover => false,
        };
        assert!(let_go && after.outcome() == Some(Outcome::Aborted), "a set of ours was left disabled\n{}", what());
    }
    if let (Step::CheckOpened { .. }, true) = (&before.step, after.step.is_closed()) {
        assert!(matches!(event, Event::Answer(Answer::SessionDeleted(Ok(())))), "our session lives\n{}", what());
    }
}
