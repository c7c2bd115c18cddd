//! The meaning of one line of the manager's log: the table of `docs/reference/garm-api.md` §12 as code.
//!
//! **A line that does not say for certain which set it is about, and when, is no fact.** Edge cases: set names contain
//! dashes and repeat across entities, so the id after the last dash of the worker's name counts; `scale_set_id` is the
//! manager's id in the controller's lines and GitHub's id in the listener's; `getting message` is a heartbeat at debug
//! level and a failure at error level; a panic's lines carry no date and take that of the line before; "Loading
//! provider" is logged more than once per start, the first one counts.

use super::format::{Attributes, Head, attributes, head, second_beginning};
use medic_core::model::log_fact::{ListenerErrorKind, LogEvent, LogFact, LogSet, ParserState};
use medic_core::model::{GithubId, Owner, ScaleSetId, SessionId, Span, Wall};

/// Bytes of an error text that are searched.
const ERROR_MAX: usize = 16 * 1024;
const NAME_MAX: usize = 256;
/// A start that stands still this long before its second "Loading provider" is a new start.
const OPENING_PAUSE: Span = Span::secs(30);

/// The parser of one log, fed line by line in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parser {
    state: ParserState,
    debug: bool,
}

/// Messages that matter, by what they may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    LoadingProvider,
    StartingConsumer,
    ShuttingDown,
    GaveUp,
    Refused,
    RetryFailed,
    SessionOpened,
    SessionHeld,
    Closing,
    CloseFailed,
    Stopped,
    Polling,
    Unauthorized,
    RefreshFailed,
    Job,
    Idle,
    Started,
    StartedByController,
    HandlingFailed,
}

impl Message {
    fn of(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"Loading provider" => Self::LoadingProvider,
            b"starting consumer" => Self::StartingConsumer,
            b"shutting down http server" => Self::ShuttingDown,
            b"failed to handle scale set create operation" | b"failed to handle scale set update operation" => {
                Self::GaveUp
            }
            b"error starting listener" | b"error restarting listener" => Self::Refused,
            b"retry failed: starting scale set worker" | b"retry failed: creating scale set worker" => {
                Self::RetryFailed
            }
            b"starting message session refresh loop" => Self::SessionOpened,
            b"checking if message session token needs refresh" | b"refreshed message session token" => {
                Self::SessionHeld
            }
            b"closing message session" => Self::Closing,
            b"error deleting message session" => Self::CloseFailed,
            b"stopping scale set listener" | b"listener is stopped; attempting to restart" => Self::Stopped,
            b"getting message" => Self::Polling,
            b"unauthorized, stopping listener" => Self::Unauthorized,
            b"failed to refresh message queue token" => Self::RefreshFailed,
            b"job available" | b"new job assigned" | b"job started" | b"job completed" => Self::Job,
            b"scale set is disabled; not starting listener" => Self::Idle,
            b"starting scale set worker loops" => Self::Started,
            b"scale set worker successfully started after retry" => Self::StartedByController,
            b"acquiring jobs"
            | b"deleting message"
            | b"setting last message ID"
            | b"setting desired runner count"
            | b"getting jobs from body"
            | b"error handling completed jobs"
            | b"error handling started jobs" => Self::HandlingFailed,
            _ => return None,
        })
    }
}

impl Parser {
    pub const fn new(state: ParserState) -> Self {
        Self { state, debug: false }
    }

    pub const fn state(&self) -> ParserState {
        self.state
    }

    /// Whether debug lines were seen in the manager's current run.
    pub const fn debug(&self) -> bool {
        self.debug
    }

    /// The fact of a line without its line feed. Any bytes are accepted.
    pub fn line(&mut self, line: &[u8]) -> Option<LogFact> {
        let line = trimmed(line);
        let Some(start) = head(line) else { return self.undated(line) };
        let at = wall(start.time)?;
        let before = self.state.last_dated.replace(at);
        self.state.in_trace = false;
        self.debug |= start.level.starts_with("DEBUG");
        let what = match self.event(line, start, at, before) {
            Reading::Nothing => return None,
            Reading::Event(what) => what,
            // The torn last line of a run that died, followed by the first line of a new run.
            Reading::Torn => return second_beginning(line).and_then(|rest| self.line(rest)),
        };
        Some(LogFact { at, what })
    }

    fn event(&mut self, line: &[u8], start: Head<'_>, at: Wall, before: Option<Wall>) -> Reading {
        // A torn line does not parse. Of unknown messages only those with a second date in them are tried again.
        let Some(message) = Message::of(start.message) else {
            return if second_beginning(line).is_some() && attributes(line).is_none() {
                Reading::Torn
            } else {
                Reading::Nothing
            };
        };
        let Some(attributes) = attributes(line) else { return Reading::Torn };
        let event = match message {
            Message::LoadingProvider => self.opening(at, before),
            Message::StartingConsumer => {
                if attributes.consumer_id == "provider-worker" {
                    self.state.in_opening = false;
                }
                None
            }
            Message::ShuttingDown => {
                self.state.in_opening = false;
                Some(LogEvent::ManagerStopping)
            }
            _ => about_a_set(message, start.level, &attributes),
        };
        event.map_or(Reading::Nothing, Reading::Event)
    }

    /// The first "Loading provider" of a run; the provider worker, which starts after the last one, ends the opening.
    fn opening(&mut self, at: Wall, before: Option<Wall>) -> Option<LogEvent> {
        let stood_still = before.is_some_and(|before| at.since(before) >= OPENING_PAUSE);
        if self.state.in_opening && !stood_still {
            return None;
        }
        self.state.in_opening = true;
        self.debug = false;
        Some(LogEvent::ManagerStarted)
    }

    /// A line without a date: part of a panic, or junk, or the torn end of a line.
    fn undated(&mut self, line: &[u8]) -> Option<LogFact> {
        if line.starts_with(b"panic: ") || line.starts_with(b"fatal error: ") {
            let reported = std::mem::replace(&mut self.state.in_trace, true);
            self.state.in_opening = false;
            let at = self.state.last_dated.filter(|_| !reported)?;
            return Some(LogFact { at, what: LogEvent::Panic });
        }
        let rest = second_beginning(line)?;
        self.line(rest)
    }
}

enum Reading {
    Nothing,
    Event(LogEvent),
    Torn,
}

fn about_a_set(message: Message, level: &str, line: &Attributes<'_>) -> Option<LogEvent> {
    let failed = level.starts_with("ERROR");
    Some(match message {
        Message::GaveUp => {
            let set = worker_set(line).or_else(|| github_set(line))?;
            refusal(set, line, true)
        }
        Message::Refused => refusal(worker_set(line)?, line, false),
        Message::RetryFailed => refusal(controller_set(line)?, line, false),
        Message::SessionOpened => LogEvent::SessionOpened { set: worker_set(line)?, session: session(line)? },
        Message::SessionHeld => LogEvent::SessionHeld { set: worker_set(line)?, session: session(line)? },
        Message::Closing if failed => return None,
        Message::Closing => LogEvent::SessionClosing { set: worker_set(line)? },
        Message::CloseFailed => LogEvent::SessionCloseFailed { set: worker_set(line)?, kind: error_kind(&line.error) },
        Message::Stopped => LogEvent::ListenerStopped { set: worker_set(line)? },
        Message::Polling if failed => {
            LogEvent::ListenerFailed { set: worker_set(line)?, kind: error_kind(&line.error), refresh: false }
        }
        Message::Polling => LogEvent::Poll { set: worker_set(line)?, cursor: line.last_message_id? },
        Message::Unauthorized => {
            LogEvent::ListenerFailed { set: worker_set(line)?, kind: ListenerErrorKind::Unauthorized, refresh: false }
        }
        Message::RefreshFailed => {
            LogEvent::ListenerFailed { set: worker_set(line)?, kind: error_kind(&line.error), refresh: true }
        }
        Message::Job => LogEvent::JobSeen { set: worker_set(line)? },
        Message::Idle => LogEvent::WorkerIdle { set: worker_set(line)? },
        Message::Started => LogEvent::WorkerStarted { set: worker_set(line)? },
        Message::StartedByController => LogEvent::WorkerStarted { set: controller_set(line)? },
        // At debug level the same message announces the step.
        Message::HandlingFailed if failed => LogEvent::MessageFailed { set: worker_set(line)? },
        Message::HandlingFailed | Message::LoadingProvider | Message::StartingConsumer | Message::ShuttingDown => {
            return None;
        }
    })
}

fn refusal(set: LogSet, line: &Attributes<'_>, gave_up: bool) -> LogEvent {
    if is_conflict(&line.error) {
        LogEvent::Conflict { set, owner: conflict_owner(&line.error), gave_up }
    } else {
        LogEvent::StartFailed { set, kind: error_kind(&line.error), gave_up }
    }
}

/// Both wordings of GitHub's 409 for sessions (`docs/reference/failure-modes.md` §1d). A bare 409 counts only for a
/// session: a set that exists already is a conflict too, of another kind.
fn is_conflict(error: &str) -> bool {
    let error = searched(error);
    error.contains("already has an active session")
        || error.contains("RunnerScaleSetSessionConflictException")
        || (error.contains("creating message session") && error.contains("conflict while calling"))
}

/// The owner in GitHub's second wording: `… already has an active session for owner OWNER.`
fn conflict_owner(error: &str) -> Option<Owner> {
    let (_, rest) = searched(error).rsplit_once("already has an active session for owner ")?;
    let end = rest.find(['"', '\\', '\n', ' ']).unwrap_or(rest.len());
    let name = rest.get(..end)?.trim_end_matches('.');
    (!name.is_empty() && name.len() <= NAME_MAX).then(|| Owner::new(name))
}

/// Why something failed, by the texts of GARM's client, Go's network code and GitHub.
pub fn error_kind(error: &str) -> ListenerErrorKind {
    let error = searched(error);
    let any = |words: &[&str]| words.iter().any(|word| error.contains(word));
    if any(&["differs from the ID we know"]) {
        ListenerErrorKind::Mismatch
    } else if any(&["failed to dispatch HTTP request", "dial tcp", "no such host", "connection re", "i/o timeout"])
        || any(&["TLS handshake", "context deadline exceeded", "broken pipe", "x509:", "unexpected EOF"])
    {
        ListenerErrorKind::Network
    } else if any(&["SessionExpired", "session expired", "session has expired"]) {
        ListenerErrorKind::SessionExpired
    } else if any(&["rate limit"]) {
        // A 403 or 429 that says nothing about the credential.
        ListenerErrorKind::Other
    } else if any(&["status code 5", ": 500 ", ": 502 ", ": 503 ", ": 504 "]) {
        ListenerErrorKind::Server
    } else if any(&["nauthorized", "Bad credentials", "forbidden while calling", ": 401 ", ": 403 "]) {
        ListenerErrorKind::Unauthorized
    } else if any(&["not found", "Not Found", "NotFoundException", ": 404 "]) {
        ListenerErrorKind::NotFound
    } else {
        ListenerErrorKind::Other
    }
}

fn searched(error: &str) -> &str {
    let mut end = error.len().min(ERROR_MAX);
    while !error.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    error.get(..end).unwrap_or_default()
}

/// `scaleset-worker-NAME-ID`, of the context or, in lines of the worker's loops, of the call.
fn worker_set(line: &Attributes<'_>) -> Option<LogSet> {
    let id = |name: &str| name.strip_prefix("scaleset-worker-")?.rsplit_once('-')?.1.parse().ok();
    id(&line.worker).or_else(|| id(&line.consumer_id)).map(|id| LogSet::Manager(ScaleSetId(id)))
}

/// `scale_set_id` of a controller's line, which is the manager's id.
fn controller_set(line: &Attributes<'_>) -> Option<LogSet> {
    let controller = line.worker.starts_with("scaleset-controller-");
    line.scale_set_id.filter(|_| controller).map(|id| LogSet::Manager(ScaleSetId(id)))
}

/// Entity and the id in the request's URL, for lines that name the set in no other way.
fn github_set(line: &Attributes<'_>) -> Option<LogSet> {
    let (_, rest) = searched(&line.error).split_once("/runnerscalesets/")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let github_id = GithubId(rest.get(..end)?.parse().ok()?);
    let entity = if line.entity.is_empty() { line.worker.strip_prefix("scaleset-controller-")? } else { &*line.entity };
    (entity.len() <= NAME_MAX).then(|| LogSet::Github { entity: entity.to_owned(), github_id })
}

/// A session id may get into a URL, so only characters of a UUID are accepted.
fn session(line: &Attributes<'_>) -> Option<SessionId> {
    let id = &*line.session_id;
    let plain = id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (plain && (8..=64).contains(&id.len())).then(|| SessionId::new(id))
}

fn wall(time: &str) -> Option<Wall> {
    let at: jiff::Timestamp = time.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Wall)
}

/// Without the NULs of a truncated file, and without a carriage return.
fn trimmed(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|b| !matches!(b, 0 | b' ' | b'\t')).unwrap_or(line.len());
    let line = line.get(start..).unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests;
