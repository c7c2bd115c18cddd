//! GARM as a client of GitHub. Every operation on the Actions service is three requests: registration token, runner
//! registration, and the operation itself, because GARM makes a new client each time
//! (`docs/reference/actions-service.md` §1.7). There is no time-out: an answer that never comes hangs its caller.
//!
//! An operation is a [`Chain`] that takes time: each answer arrives at its date, and the next request is sent then.

use super::counters::{Counters, Op};
use super::db::SetRow;
use super::env::Env;
use super::log::go_quote;
use crate::github::EntityKey;
use crate::wire::{Answer, Delivery, HungUp, PollId, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method};
use medic_core::model::{Span, Wall};
use serde_json::{Value, json};

const AGENT: HeaderValue = HeaderValue::from_static("Go-http-client/1.1");
const CAPACITY: HeaderName = HeaderName::from_static("x-scalesetmaxcapacity");
const VERSION: &str = "api-version=6.0-preview";
/// The most that is read of a huge body.
const MAX_BODY: u64 = 1 << 20;

/// A session as GARM holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub id: String,
    pub queue: String,
    pub token: String,
    /// The scale set that GitHub said the session is of.
    pub set: u64,
    ends: Result<Option<u64>, &'static str>,
}

impl Session {
    fn read(body: &Bytes) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| Some(body.get(name)?.as_str()?.to_owned());
        let token = text("messageQueueAccessToken")?;
        Some(Self {
            id: text("sessionId")?,
            queue: text("messageQueueUrl")?,
            ends: expiry(&token),
            token,
            set: body.get("runnerScaleSet")?.get("id")?.as_u64()?,
        })
    }

    /// When the queue's token ends: `Ok(None)` when it is a JWT without `exp`.
    pub(super) const fn expires(&self) -> Result<Option<u64>, &'static str> {
        self.ends
    }

    /// The address of a poll from after a message; keys come sorted, as Go encodes them.
    pub(super) fn poll_url(&self, after: u64) -> String {
        if after == 0 {
            return self.queue.clone();
        }
        let Ok(mut url) = url::Url::parse(&self.queue) else { return self.queue.clone() };
        let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        pairs.push(("lastMessageId".to_owned(), after.to_string()));
        pairs.sort();
        url.query_pairs_mut().clear().extend_pairs(pairs);
        url.to_string()
    }

    fn message_url(&self, message: u64) -> String {
        match url::Url::parse(&self.queue) {
            Ok(mut url) => {
                let path = format!("{}/{message}", url.path().trim_end_matches('/'));
                url.set_path(&path);
                url.to_string()
            }
            Err(_) => self.queue.clone(),
        }
    }
}

/// `exp` of a JWT whose signature nobody checks.
fn expiry(token: &str) -> Result<Option<u64>, &'static str> {
    let wrong = "token contains an invalid number of segments";
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(wrong);
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| wrong)?;
    let claims: Value = serde_json::from_slice(&claims).map_err(|_| wrong)?;
    Ok(claims.get("exp").and_then(Value::as_u64))
}

/// The Actions service of an entity, and an admin token for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    url: String,
    token: String,
}

/// An operation on the Actions service.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ask {
    FindSet,
    CreateSet,
    OpenSession,
    CloseSession(Session),
    RefreshSession(Session),
    JitConfig(String),
    RemoveRunner(u64),
}

impl Ask {
    const fn op(&self) -> Op {
        match self {
            Self::FindSet => Op::GetRunnerScaleSetByNameAndRunnerGroup,
            Self::CreateSet => Op::CreateRunnerScaleSet,
            Self::OpenSession => Op::CreateMessageSession,
            Self::CloseSession(_) => Op::DeleteMessageSession,
            Self::RefreshSession(_) => Op::RefreshMessageSession,
            Self::JitConfig(_) => Op::GenerateJitRunnerConfig,
            Self::RemoveRunner(_) => Op::RemoveRunner,
        }
    }

    /// Method, path below the service with its query, and body.
    fn request(&self, set: &SetRow, owner: &str) -> (Method, String, String) {
        let sets = "_apis/runtime/runnerscalesets";
        let one = format!("{sets}/{}", set.github_id);
        let body = |value: Value| value.to_string();
        match self {
            Self::FindSet => {
                let name: String = url::form_urlencoded::byte_serialize(set.name.as_bytes()).collect();
                (Method::GET, format!("{sets}?{VERSION}&name={name}&runnerGroupId=1"), String::new())
            }
            Self::CreateSet => (Method::POST, format!("{sets}?{VERSION}"), body(new_set(set))),
            Self::OpenSession => (Method::POST, format!("{one}/sessions?{VERSION}"), body(json!({"ownerName": owner}))),
            Self::CloseSession(session) => {
                (Method::DELETE, format!("{sets}/{}/sessions/{}?{VERSION}", session.set, session.id), String::new())
            }
            Self::RefreshSession(session) => {
                (Method::PATCH, format!("{sets}/{}/sessions/{}?{VERSION}", session.set, session.id), String::new())
            }
            Self::JitConfig(name) => {
                let wish = json!({"name": name, "workFolder": "_work"});
                (Method::POST, format!("{one}/generatejitconfig?{VERSION}"), body(wish))
            }
            Self::RemoveRunner(id) => {
                (Method::DELETE, format!("_apis/distributedtask/pools/0/agents/{id}?{VERSION}"), String::new())
            }
        }
    }
}

fn new_set(set: &SetRow) -> Value {
    json!({"name": set.name, "runnerGroupId": 1, "labels": [{"name": set.name, "type": "System"}],
        "runnerSetting": {"ephemeral": true, "isElastic": true, "disableUpdate": false}})
}

/// Why a call failed, with the text that GARM logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub text: String,
    pub status: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Got(u16, Bytes),
    /// The text of Go's network code.
    Broken(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// Its answer arrives at this date.
    At(Wall, Reply),
    /// A held long poll: asked again at this date, or when it is woken.
    Held(Wall),
    /// No answer will come.
    Never,
}

pub(super) fn send(
    env: &mut Env<'_>,
    (method, url): (&Method, &str),
    authorization: &str,
    body: String,
    extend: impl FnOnce(&mut Request),
) -> Sent {
    let arrives = env.now.plus(env.config.request.max(Span::millis(1)));
    let request = http::Request::builder()
        .method(method)
        .uri(path_of(url))
        .header(AUTHORIZATION, authorization)
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Bytes::from(body));
    let Ok(mut request) = request else { return Sent::At(arrives, Reply::Broken("invalid URL escape")) };
    extend(&mut request);
    let answer = env.github.handle(env.now, &request);
    delivered(answer, arrives)
}

/// Path and query of an address: the part that a simulator sees.
fn path_of(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    url[after_scheme..].find('/').map_or("/", |at| &url[after_scheme + at..])
}

fn delivered(answer: Answer, arrives: Wall) -> Sent {
    let status = answer.response.status().as_u16();
    let body = answer.response.into_body();
    match answer.delivery {
        Delivery::After(span) => Sent::At(arrives.plus(span), Reply::Got(status, body)),
        Delivery::Dripping(span) => {
            let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
            Sent::At(arrives.plus(span.times(bytes)), Reply::Got(status, body))
        }
        Delivery::Refused => Sent::At(arrives, Reply::Broken("dial tcp 127.0.0.1:443: connect: connection refused")),
        Delivery::Reset => Sent::At(arrives, Reply::Broken("read: connection reset by peer")),
        Delivery::Truncated(bytes) => Sent::At(arrives, Reply::Got(status, body.slice(..bytes.min(body.len())))),
        Delivery::Huge(bytes) => {
            let read = usize::try_from(bytes.min(MAX_BODY)).unwrap_or(0);
            Sent::At(arrives, Reply::Got(status, Bytes::from(vec![b'x'; read])))
        }
        Delivery::Never => Sent::Never,
        Delivery::Hold(until) => Sent::Held(until),
    }
}

/// GARM's text for an answer of the Actions service that is no success (`docs/reference/actions-service.md` §7.2).
fn refusal(method: &Method, url: &str, reply: &Reply) -> Failure {
    let (status, body) = match reply {
        Reply::Broken(text) => {
            let method = match method.as_str() {
                "GET" => "Get",
                "POST" => "Post",
                "PATCH" => "Patch",
                _ => "Delete",
            };
            let text = format!("failed to dispatch HTTP request: {method} {}: {text}", go_quote(url));
            return Failure { text, status: None };
        }
        Reply::Got(status, body) => (*status, go_quote(&String::from_utf8_lossy(body))),
    };
    let text = match status {
        404 => format!("resource {url} not found: {body}"),
        400 => format!("bad request while calling {url}: {body}"),
        409 => format!("conflict while calling {url}: {body}"),
        401 | 403 => "Unauthorized".to_owned(),
        _ => format!("request to {url} failed with status code {status}: {body}"),
    };
    Failure { text, status: Some(status) }
}

/// The body of a success.
fn accepted(method: &Method, url: &str, reply: &Reply) -> Result<Bytes, Failure> {
    match reply {
        Reply::Got(200..=299, body) => Ok(body.clone()),
        Reply::Got(..) | Reply::Broken(_) => Err(refusal(method, url, reply)),
    }
}

/// An operation under way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chain {
    ask: Ask,
    step: Step,
    sent: Sent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Token,
    Register,
    Operate(Service),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Progress {
    /// Its next answer arrives at this date.
    Until(Wall, Chain),
    /// It hangs, for ever.
    Hangs,
    Done(Result<Bytes, Failure>, Option<Service>),
}

impl Chain {
    /// Begins an operation. With a known service, its own request is the first.
    pub(super) fn begin(
        env: &mut Env<'_>,
        counters: &mut Counters,
        set: &SetRow,
        ask: Ask,
        service: Option<Service>,
    ) -> Progress {
        counters.begin(ask.op(), set.entity.entity.kind);
        let (step, sent) = match service {
            Some(service) => {
                let sent = operate(env, set, &ask, &service);
                (Step::Operate(service), sent)
            }
            None => (Step::Token, token(env, counters, set)),
        };
        Self { ask, step, sent }.wait()
    }

    fn wait(self) -> Progress {
        match &self.sent {
            Sent::At(at, _) => Progress::Until(*at, self),
            Sent::Never | Sent::Held(_) => Progress::Hangs,
        }
    }

    /// Takes the answer that has arrived, and sends the next request.
    pub(super) fn go_on(self, env: &mut Env<'_>, counters: &mut Counters, set: &SetRow) -> Progress {
        let kind = set.entity.entity.kind;
        let Sent::At(_, reply) = self.sent else { return Progress::Hangs };
        let fail = |counters: &mut Counters, op: Option<Op>, failure: Failure| {
            for op in op.into_iter().chain([self.ask.op()]) {
                counters.fail(op, kind);
            }
            Progress::Done(Err(failure), None)
        };
        match self.step {
            Step::Token => match read_token(env, set, &reply) {
                Ok(token) => {
                    let sent = register(env, counters, set, &token);
                    Self { ask: self.ask, step: Step::Register, sent }.wait()
                }
                Err(failure) => fail(counters, Some(Op::CreateEntityRegistrationToken), failure),
            },
            Step::Register => match read_service(env, &reply) {
                Ok(service) => {
                    let sent = operate(env, set, &self.ask, &service);
                    Self { ask: self.ask, step: Step::Operate(service), sent }.wait()
                }
                Err(failure) => fail(counters, Some(Op::GetActionServiceInfo), failure),
            },
            Step::Operate(service) => {
                let (method, path, _) = self.ask.request(set, "");
                let url = join(&service.url, &path);
                match accepted(&method, &url, &reply) {
                    Ok(body) => Progress::Done(Ok(body), Some(service)),
                    Err(failure) => {
                        let text = format!("failed to execute request to {url}: {}", failure.text);
                        fail(counters, None, Failure { text, ..failure })
                    }
                }
            }
        }
    }
}

/// A whole operation in no time, where its duration does not matter. `Err(None)`: it hangs.
pub(super) fn at_once(
    env: &mut Env<'_>,
    counters: &mut Counters,
    set: &SetRow,
    ask: Ask,
    service: Option<Service>,
) -> Result<(Bytes, Option<Service>), Option<Failure>> {
    let mut progress = Chain::begin(env, counters, set, ask, service);
    loop {
        match progress {
            Progress::Until(_, chain) => progress = chain.go_on(env, counters, set),
            Progress::Hangs => return Err(None),
            Progress::Done(Ok(body), service) => return Ok((body, service)),
            Progress::Done(Err(failure), _) => return Err(Some(failure)),
        }
    }
}

fn token(env: &mut Env<'_>, counters: &mut Counters, set: &SetRow) -> Sent {
    counters.begin(Op::CreateEntityRegistrationToken, set.entity.entity.kind);
    let url = token_url(env, set);
    let pat = format!("Bearer {}", env.config.github_token);
    send(env, (&Method::POST, &url), &pat, String::new(), |_| {})
}

fn token_url(env: &Env<'_>, set: &SetRow) -> String {
    format!("{}/{}/actions/runners/registration-token", env.config.api_base(), set.entity.rest_path())
}

fn read_token(env: &Env<'_>, set: &SetRow, reply: &Reply) -> Result<String, Failure> {
    let url = token_url(env, set);
    let text = "failed to get registration token";
    match reply {
        Reply::Broken(why) => Err(Failure { text: format!("{text}: Post {}: {why}", go_quote(&url)), status: None }),
        Reply::Got(status, body) => {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let token = body.get("token").and_then(Value::as_str).filter(|_| (200..300).contains(status));
            token.map(str::to_owned).ok_or_else(|| {
                let message = body.get("message").and_then(Value::as_str).unwrap_or_default();
                let text = match status {
                    401 | 403 if !message.contains("rate limit") => format!("{text}: Unauthorized"),
                    _ => format!("{text}: POST {url}: {status} {message} []"),
                };
                Failure { text, status: Some(*status) }
            })
        }
    }
}

fn register(env: &mut Env<'_>, counters: &mut Counters, set: &SetRow, token: &str) -> Sent {
    counters.begin(Op::GetActionServiceInfo, set.entity.entity.kind);
    // GARM resolves the absolute path against the API's address, and so loses `/api/v3`.
    let url = format!("{}/actions/runner-registration", env.config.github_origin);
    let wish = json!({
        "url": format!("{}/{}", env.config.github_origin, EntityKey::of(&set.entity.entity).as_str()),
        "runner_event": "register",
    });
    let authorization = format!("RemoteAuth {token}");
    send(env, (&Method::POST, &url), &authorization, wish.to_string(), |_| {})
}

fn read_service(env: &Env<'_>, reply: &Reply) -> Result<Service, Failure> {
    let url = format!("{}/actions/runner-registration", env.config.github_origin);
    let body = accepted(&Method::POST, &url, reply).map_err(|failure| Failure {
        text: format!("failed to get actions service admin info: {}", failure.text),
        ..failure
    })?;
    // Here, and only here, GARM strips a byte order mark.
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&body);
    let wrong = |why: &str| Failure { text: format!("failed to get actions service admin info: {why}"), status: None };
    let body: Value = serde_json::from_slice(body).map_err(|_| wrong("failed to decode response"))?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    match (text("url").filter(|url| !url.is_empty()), text("token")) {
        (Some(url), Some(token)) => Ok(Service { url, token }),
        (None, _) | (_, None) => Err(wrong("failed to get pipeline URL: no url specified")),
    }
}

fn operate(env: &mut Env<'_>, set: &SetRow, ask: &Ask, service: &Service) -> Sent {
    let owner = format!("garm-{}", env.config.controller_id);
    let (method, path, body) = ask.request(set, &owner);
    let url = join(&service.url, &path);
    let authorization = format!("Bearer {}", service.token);
    send(env, (&method, &url), &authorization, body, |_| {})
}

fn join(service: &str, path: &str) -> String {
    format!("{}/{path}", service.trim_end_matches('/'))
}

/// The session in the answer to POST or PATCH. A body without one makes the real GARM panic or leak the session; here
/// it is an error.
pub(super) fn read_session(body: &Bytes) -> Result<Session, Failure> {
    Session::read(body).ok_or_else(|| Failure {
        text: "failed to decode response: unexpected end of JSON input".to_owned(),
        status: None,
    })
}

/// One poll, or the same again.
pub(super) fn poll(env: &mut Env<'_>, session: &Session, after: u64, capacity: u64, poll: u64) -> Sent {
    let url = session.poll_url(after);
    let bearer = format!("Bearer {}", session.token);
    send(env, (&Method::GET, &url), &bearer, String::new(), |request| {
        request.extensions_mut().insert(PollId(poll));
        request.headers_mut().insert(CAPACITY, HeaderValue::from(capacity));
    })
}

/// GARM's text for a poll that failed.
pub(super) fn poll_failure(session: &Session, after: u64, reply: &Reply) -> Failure {
    let url = session.poll_url(after);
    match reply {
        Reply::Got(200..=299, _) => Failure { text: "failed to decode response: EOF".to_owned(), status: None },
        Reply::Got(..) | Reply::Broken(_) => {
            let failure = refusal(&Method::GET, &url, reply);
            Failure { text: format!("request to {url} failed: {}", failure.text), ..failure }
        }
    }
}

/// The client of the poll disconnects.
pub(super) fn hang_up(env: &mut Env<'_>, session: &Session, after: u64, poll: u64) {
    let url = session.poll_url(after);
    let bearer = format!("Bearer {}", session.token);
    send(env, (&Method::GET, &url), &bearer, String::new(), |request| {
        request.extensions_mut().insert(PollId(poll));
        request.extensions_mut().insert(HungUp);
    });
}

/// Acknowledges a message, with the queue's token.
pub(super) fn acknowledge(env: &mut Env<'_>, session: &Session, message: u64) -> Result<(), Option<Failure>> {
    let url = session.message_url(message);
    let bearer = format!("Bearer {}", session.token);
    match send(env, (&Method::DELETE, &url), &bearer, String::new(), |_| {}) {
        Sent::At(_, reply) => accepted(&Method::DELETE, &url, &reply).map(drop).map_err(Some),
        Sent::Held(_) | Sent::Never => Err(None),
    }
}

/// A GET of the REST API with GARM's own token.
pub(super) fn rest(env: &mut Env<'_>, path: &str) -> Option<Value> {
    let url = format!("{}/{path}", env.config.api_base());
    let pat = format!("Bearer {}", env.config.github_token);
    match send(env, (&Method::GET, &url), &pat, String::new(), |_| {}) {
        Sent::At(_, Reply::Got(200, body)) => serde_json::from_slice(&body).ok(),
        Sent::At(..) | Sent::Held(_) | Sent::Never => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_url_sorts_its_query_and_omits_message_zero() {
        let session = |queue: &str| Session {
            id: "s".to_owned(),
            queue: queue.to_owned(),
            token: String::new(),
            set: 1,
            ends: Ok(None),
        };
        let classic = session("http://g/queue/1?sessionId=abc");
        assert_eq!(classic.poll_url(0), "http://g/queue/1?sessionId=abc");
        assert_eq!(classic.poll_url(7), "http://g/queue/1?lastMessageId=7&sessionId=abc");
        assert_eq!(classic.message_url(7), "http://g/queue/1/7?sessionId=abc");
        assert_eq!(session("http://g/scalesets/message").poll_url(7), "http://g/scalesets/message?lastMessageId=7");
    }

    #[test]
    fn refusal_has_the_recorded_text() {
        let url = "http://127.0.0.1:1/svc/a/_apis/runtime/runnerscalesets/1/sessions?api-version=6.0-preview";
        let body = Bytes::from_static(b"{\"message\": \"The set already has an active session.\"}");
        let conflict = refusal(&Method::POST, url, &Reply::Got(409, body));
        assert_eq!(
            conflict.text,
            format!(r#"conflict while calling {url}: "{{\"message\": \"The set already has an active session.\"}}""#)
        );
        assert_eq!(refusal(&Method::POST, url, &Reply::Got(403, Bytes::new())).text, "Unauthorized");
    }
}
