//! The connection to a manager: whether it answers, accepts the login, lists its sets, and has the same time.

use super::facts::{Facts, ManagerFacts};
use super::{Check, Finding};
use crate::config::describe::is_loopback;
use medic_core::model::{Enablement, FailureKind, RequestFailure, Source, Span};

/// A login that ends within this is renewed suspiciously often: GARM gives at least a day.
const SHORT_LOGIN: Span = Span::hours(1);
/// Clocks that differ by this much or less agree.
const AGREES: Span = Span::secs(2);

/// Whether nothing that is a GARM answered at all.
pub(super) fn is_unreached(manager: &ManagerFacts) -> bool {
    refusal(manager).is_some_and(|failure| !is_refused_login(failure.kind))
}

pub(super) fn findings(facts: &Facts, manager: &ManagerFacts) -> Vec<Finding> {
    let url = &manager.config.url;
    match refusal(manager) {
        Some(failure) if is_refused_login(failure.kind) => {
            vec![Check::Reach.ok(manager, format!("{url} answers")), refused(manager, failure)]
        }
        Some(failure) => vec![unreached(manager, failure)],
        None => {
            let reach = Check::Reach.ok(manager, format!("{url} answers"));
            let transport = transport(manager);
            vec![reach, transport, login(facts, manager), api(manager), clock(manager)]
        }
    }
}

/// Why neither the controller nor its sets could be read.
fn refusal(manager: &ManagerFacts) -> Option<&RequestFailure> {
    if manager.controller.known().is_some() || manager.scale_sets.known().is_some() {
        return None;
    }
    manager.controller.failure().or_else(|| manager.scale_sets.failure())
}

const fn is_refused_login(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Unauthorized | FailureKind::Forbidden | FailureKind::NotInitialised)
}

fn unreached(manager: &ManagerFacts, failure: &RequestFailure) -> Finding {
    let found = Check::Reach.fail(manager, failure.to_string()).hides(Source::Api);
    let url = manager.config.url.as_str().trim_end_matches('/');
    let ask = format!("curl -sS -o /dev/null -w '%{{http_code}}\\n' {url}/api/v1/controller");
    match failure.kind {
        FailureKind::Tls => found.step(
            "name the authority that signed its certificate, in the medic's [[manager]] table:",
            &["ca_file = \"/etc/ssl/garm-ca.pem\""],
        ),
        FailureKind::NotFound | FailureKind::Malformed | FailureKind::Redirect => found.step(
            "what answers there is no GARM: set `url` to GARM's root, without /api/v1; a GARM answers 401 to",
            &[&ask],
        ),
        _ => found.step(
            "check that GARM runs, that [apiserver] bind and port in its config.toml match the medic's `url`, and that \
             no network policy blocks it; from where the medic runs, a GARM answers 401 to",
            &[&ask],
        ),
    }
}

fn refused(manager: &ManagerFacts, failure: &RequestFailure) -> Finding {
    let found = Check::Login.fail(manager, failure.to_string()).hides(Source::Api);
    match failure.kind {
        FailureKind::NotInitialised => found.step(
            "finish GARM's set-up:",
            &[
                "garm-cli init --name garm --url URL",
                "garm-cli controller update --metadata-url URL --callback-url URL",
            ],
        ),
        FailureKind::Forbidden => found.advice("configure an administrator of GARM as `username`"),
        _ => found.step(
            "put GARM's administrator and that user's password into the medic's [[manager]] table (the file is read \
             at each login):",
            &["username = \"admin\"", "password_file = \"/run/secrets/garm-password\""],
        ),
    }
}

fn transport(manager: &ManagerFacts) -> Finding {
    let url = &manager.config.url;
    let is_near = is_loopback(url);
    if url.scheme() == "https" || is_near {
        let how = if is_near { "stays on this machine" } else { "is encrypted" };
        return Check::Transport.ok(manager, format!("the connection {how}"));
    }
    Check::Transport
        .warn(manager, "the password and the tokens cross the network unencrypted")
        .risks("anybody who reads the traffic becomes administrator of GARM")
        .step(
            "run the medic as a sidecar of GARM, or let GARM speak TLS and use https in the medic's `url`:",
            &[
                "[apiserver]",
                "use_tls = true",
                "[apiserver.tls]",
                "certificate = \"/etc/garm/tls.crt\"",
                "key = \"/etc/garm/tls.key\"",
            ],
        )
}

fn login(facts: &Facts, manager: &ManagerFacts) -> Finding {
    match manager.login_until.map(|until| until.since(facts.at)) {
        Some(left) if left < SHORT_LOGIN => Check::Login
            .warn(manager, format!("the login ends in {left}, though GARM gives a day"))
            .risks("the medic logs in that often; or one of the two clocks is wrong, which misleads it about restarts")
            .step("compare the clocks, and see in GARM's config.toml:", &["[jwt_auth]", "time_to_live = \"24h\""]),
        Some(left) => {
            Check::Login.ok(manager, format!("accepted; the token holds for {left} and is renewed automatically"))
        }
        None => Check::Login.ok(manager, "accepted; the token shows no end and is renewed when refused"),
    }
}

fn api(manager: &ManagerFacts) -> Finding {
    let Some(sets) = manager.scale_sets.known() else {
        let why = manager.scale_sets.failure().map_or_else(|| "the sets were not read".to_owned(), ToString::to_string);
        return Check::Api
            .fail(manager, why)
            .risks("without the list of sets nothing can be judged")
            .advice("read GARM's log for the reason");
    };
    let enabled = sets.iter().filter(|set| set.enabled == Enablement::Enabled).count();
    let seen = format!("{} scale sets, {enabled} enabled", sets.len());
    if sets.is_empty() || enabled == 0 {
        return Check::Api
            .warn(manager, seen)
            .risks("there is nothing to watch")
            .step("check that this is the right GARM", &["garm-cli scaleset list --all"]);
    }
    let homeless = sets.iter().filter(|set| set.endpoint.is_none()).count();
    if homeless > 0 {
        return Check::Api
            .warn(manager, format!("{seen}; {homeless} have no GitHub endpoint"))
            .risks("those sets cannot be asked about at GitHub, and no session of theirs is deleted")
            .advice("update GARM: only v0.2.0-alpha leaves this out");
    }
    if let Some(failure) = manager.controller.failure() {
        return Check::Api
            .warn(manager, format!("{seen}; the controller's id could not be read: {failure}"))
            .risks("no session can be proven to be this controller's, so none is deleted")
            .advice("read GARM's log for the reason");
    }
    Check::Api.ok(manager, seen)
}

fn clock(manager: &ManagerFacts) -> Finding {
    let Some(skew) = manager.skew else {
        return Check::Clock
            .unknown(manager, "its answers hold no date")
            .risks("dates in its log and its start date cannot be compared with ours")
            .step("compare the clocks of both machines:", &["date -u"]);
    };
    let off = skew.at_least();
    if off <= AGREES {
        return Check::Clock.ok(manager, "agrees with ours");
    }
    let direction = if skew.is_ahead() { "ahead of" } else { "behind" };
    Check::Clock
        .warn(manager, format!("its clock is at least {off} {direction} ours"))
        .risks(
            "the age of a refusal, and which run of GARM opened a session, are wrong by that much; the medic then \
                waits longer than necessary",
        )
        .step("keep both clocks by NTP", &["timedatectl set-ntp true"])
}
