//! The token chain, token types and ages, and the REST quota (`docs/reference/actions-service.md` §1, §7.3, §9 points
//! 1-3).

use super::super::testing::{Bench, ORIGIN, PAT, START, body, exception, get, header, post, request, status};
use super::super::{Credential, Fault, FaultKind, QuotaAnswer, Route};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use medic_core::model::Span;
use serde_json::{Value, json};

fn pat() -> String {
    format!("Bearer {PAT}")
}

/// The claims of a JWT, read without a check of the signature.
fn claims(token: &str) -> Value {
    let payload = token.trim_start_matches("Bearer ").split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn registration_token(bench: &mut Bench) -> String {
    let answer = bench.send(&post("/api/v3/orgs/acme/actions/runners/registration-token", &pat(), &Value::Null));
    body(&answer)["token"].as_str().unwrap().to_owned()
}

fn register(bench: &mut Bench, path: &str, token: &str, entity: &str) -> crate::wire::Answer {
    let wish = json!({"url": format!("{ORIGIN}/{entity}"), "runner_event": "register"});
    bench.send(&post(path, &format!("RemoteAuth {token}"), &wish))
}

fn app_jwt(issuer: &Value, issued: u64, expires: u64) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iss": issuer, "iat": issued, "exp": expires});
    format!("Bearer {}.{}.c2ln", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims))
}

#[test]
fn rest_is_served_with_and_without_the_enterprise_prefix() {
    let mut bench = Bench::new();
    for prefix in ["", "/api/v3"] {
        for scope in ["orgs/acme", "repos/acme/app", "enterprises/big"] {
            let path = format!("{prefix}/{scope}/actions/runners/registration-token");
            let answer = bench.send(&post(&path, &pat(), &Value::Null));
            assert_eq!(status(&answer), 201, "{path}");
            let token = body(&answer)["token"].as_str().unwrap().to_owned();
            let entity = scope.trim_start_matches("orgs/").trim_start_matches("repos/");
            let answer = register(&mut bench, &format!("{prefix}/actions/runner-registration"), &token, entity);
            assert_eq!(status(&answer), 200, "{path}");
            assert_eq!(body(&answer)["url"], format!("{ORIGIN}/svc/{entity}/"));
        }
    }
}

#[test]
fn admin_and_queue_tokens_are_jwts_with_exp() {
    let mut bench = Bench::with(|config| config.admin_token_lifetime = Span::mins(17));
    assert_eq!(claims(&bench.admin)["exp"], START.0 / 1000 + 17 * 60);
    let set = bench.set("gpu");
    let session = bench.opened(set);
    assert_eq!(claims(&session.token)["exp"], START.0 / 1000 + 3600);
}

#[test]
fn registration_faults_change_the_answer() {
    let mut bench = Bench::new();
    let token = registration_token(&mut bench);
    let mut odd = |kind| {
        bench.github.inject(Fault::on(Route::RunnerRegistration, kind).times(1));
        register(&mut bench, "/actions/runner-registration", &token, "acme")
    };
    assert!(odd(FaultKind::Bom).response.body().starts_with(b"\xEF\xBB\xBF{"));
    assert_eq!(claims(body(&odd(FaultKind::TokenWithoutExp))["token"].as_str().unwrap()).get("exp"), None);
    let opaque = body(&odd(FaultKind::TokenNotJwt))["token"].as_str().unwrap().to_owned();
    assert_eq!(opaque.split('.').count(), 1);
    bench.admin = format!("Bearer {opaque}");
    let listed = bench.ask(&Method::GET, "runtime/runnerscalesets", &Value::Null);
    assert_eq!(status(&listed), 200, "an odd token still works: only its form is odd");
}

#[test]
fn app_gets_an_installation_token_by_either_issuer() {
    let mut bench = Bench::with(|config| config.credentials.push(Credential::app("app", 12, "Iv1.abc", 34)));
    let now = START.0 / 1000;
    for issuer in [json!(12), json!("12"), json!("Iv1.abc")] {
        let jwt = app_jwt(&issuer, now - 60, now + 480);
        let answer = bench.send(&post("/app/installations/34/access_tokens", &jwt, &Value::Null));
        assert_eq!(status(&answer), 201, "{issuer}");
        let token = body(&answer)["token"].as_str().unwrap().to_owned();
        assert!(body(&answer)["expires_at"].as_str().unwrap().ends_with('Z'));
        for scheme in ["Bearer", "token"] {
            let path = "/orgs/acme/actions/runners/registration-token";
            assert_eq!(status(&bench.send(&post(path, &format!("{scheme} {token}"), &Value::Null))), 201);
        }
    }
}

#[test]
fn app_with_a_wrong_jwt_or_installation_is_refused() {
    let mut bench = Bench::with(|config| config.credentials.push(Credential::app("app", 12, "Iv1.abc", 34)));
    let now = START.0 / 1000;
    let mut asked = |installation: u64, jwt: &str| {
        let path = format!("/app/installations/{installation}/access_tokens");
        status(&bench.send(&post(&path, jwt, &Value::Null)))
    };
    assert_eq!(asked(34, &app_jwt(&json!(13), now, now + 60)), 401, "another app");
    assert_eq!(asked(34, &app_jwt(&json!(12), now, now)), 401, "expired");
    assert_eq!(asked(34, &app_jwt(&json!(12), now, now + 700)), 401, "more than ten minutes ahead");
    assert_eq!(asked(35, &app_jwt(&json!(12), now, now + 60)), 404, "another installation");
    assert_eq!(asked(34, "Bearer nonsense"), 401);
}

#[test]
fn registration_token_is_valid_for_its_entity_and_time() {
    let mut bench = Bench::new();
    let token = registration_token(&mut bench);
    let path = "/actions/runner-registration";
    assert_eq!(status(&register(&mut bench, path, &token, "other")), 404);
    assert_eq!(status(&register(&mut bench, path, PAT, "acme")), 401, "a PAT is not a registration token");
    bench.wait(Span::hours(1));
    assert_eq!(status(&register(&mut bench, path, &token, "acme")), 401);
}

#[test]
fn service_routes_take_only_their_kind_of_token() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let session = bench.opened(set);
    let (admin, queue) = (bench.admin.clone(), session.bearer());
    let sets = format!("runtime/runnerscalesets/{}", set.0);
    let jit = json!({"name": "r1"}).to_string();
    let for_admin = [
        (Method::GET, "runtime/runnerscalesets".to_owned(), String::new()),
        (Method::GET, sets.clone(), String::new()),
        (Method::POST, "runtime/runnerscalesets".to_owned(), json!({"name": "new"}).to_string()),
        (Method::POST, format!("{sets}/generatejitconfig"), jit),
        (Method::PATCH, format!("{sets}/sessions/{}", session.id), String::new()),
        (Method::DELETE, "distributedtask/pools/0/agents/1".to_owned(), String::new()),
    ];
    for (method, tail, text) in for_admin {
        let path = format!("/svc/acme/_apis/{tail}");
        let refused = bench.send(&request(&method, &path, &queue, &text));
        assert_eq!(exception(&refused), (401, "InvalidTokenException".to_owned()), "{method} {tail}");
        let taken = status(&bench.send(&request(&method, &path, &admin, &text)));
        assert!((200..300).contains(&taken), "{method} {tail}: {taken}");
    }
    let for_queue = [(Method::GET, session.queue.clone(), ""), (Method::DELETE, format!("{}/5", session.queue), "")];
    for (method, path, text) in for_queue {
        let refused = bench.send(&request(&method, &path, &admin, text));
        assert_eq!(exception(&refused), (401, "InvalidTokenException".to_owned()), "{method} {path}");
        let taken = status(&bench.send(&request(&method, &path, &queue, text)));
        assert!((200..300).contains(&taken), "{method} {path}: {taken}");
    }
    for missing in ["", "Bearer", "Bearer nonsense", &pat()] {
        let refused = bench.send(&get("/svc/acme/_apis/runtime/runnerscalesets", missing));
        assert_eq!(exception(&refused).0, 401, "{missing:?}");
    }
}

#[test]
fn admin_token_is_valid_for_its_entity_only() {
    let mut bench = Bench::new();
    bench.log_in("acme/app");
    let admin = bench.admin.clone();
    let refused = bench.send(&get("/svc/acme/_apis/runtime/runnerscalesets", &admin));
    assert_eq!(exception(&refused), (401, "InvalidTokenException".to_owned()));
    let own = bench.send(&get("/svc/acme/app/_apis/runtime/runnerscalesets", &admin));
    assert_eq!(status(&own), 200);
}

#[test]
fn tokens_expire_at_their_exp_or_all_at_once() {
    let mut bench = Bench::with(|config| config.admin_token_lifetime = Span::mins(17));
    let list = |bench: &mut Bench| status(&bench.ask(&Method::GET, "runtime/runnerscalesets", &Value::Null));
    bench.wait(Span::mins(17).plus(Span::millis(0)));
    assert_eq!(list(&mut bench), 401);
    bench.log_in("acme");
    assert_eq!(list(&mut bench), 200);
    bench.github.expire_tokens();
    assert_eq!(list(&mut bench), 401);
    bench.log_in("acme");
    assert_eq!(list(&mut bench), 200);
}

#[test]
fn poll_in_flight_outlives_its_token() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let session = bench.opened(set);
    bench.poll(&session);
    bench.github.expire_tokens();
    bench.wait(Span::secs(50));
    assert_eq!(status(&bench.poll(&session)), 202, "the end of the poll in flight");
    assert_eq!(exception(&bench.poll(&session)), (401, "InvalidTokenException".to_owned()));
}

#[test]
fn revoked_credential_is_refused_and_its_tokens_stay_valid() {
    let mut bench = Bench::new();
    bench.github.revoke_credentials("garm");
    let path = "/orgs/acme/actions/runners/registration-token";
    let refused = bench.send(&post(path, &pat(), &Value::Null));
    assert_eq!((status(&refused), body(&refused)["message"].as_str()), (401, Some("Bad credentials")));
    assert_eq!(status(&bench.ask(&Method::GET, "runtime/runnerscalesets", &Value::Null)), 200);
    bench.github.restore_credentials("garm");
    assert_eq!(status(&bench.send(&post(path, &pat(), &Value::Null))), 201);
}

#[test]
fn rest_calls_cost_quota_and_service_calls_do_not() {
    let mut bench = Bench::new();
    assert_eq!(bench.github.quota_used("garm"), 1, "the log-in was one REST call");
    let answer = bench.send(&post("/orgs/acme/actions/runners/registration-token", &pat(), &Value::Null));
    assert_eq!(header(&answer, "x-ratelimit-limit"), Some("5000"));
    assert_eq!(header(&answer, "x-ratelimit-remaining"), Some("4998"));
    assert_eq!(header(&answer, "x-ratelimit-used"), Some("2"));
    assert_eq!(header(&answer, "x-ratelimit-resource"), Some("core"));
    assert_eq!(header(&answer, "x-ratelimit-reset"), Some((START.0 / 1000 + 3600).to_string().as_str()));
    let listed = bench.ask(&Method::GET, "runtime/runnerscalesets", &Value::Null);
    assert_eq!(header(&listed, "x-ratelimit-limit"), None);
    assert!(header(&listed, "activityid").is_some() && header(&listed, "x-github-request-id").is_some());
    let asked = bench.send(&get("/api/v3/rate_limit", &pat()));
    assert_eq!(body(&asked)["resources"]["core"]["remaining"], 4998, "asking for the quota is free");
}

#[test]
fn exhausted_quota_is_refused_until_its_reset() {
    for (code, retry_after) in [(403, false), (429, false), (403, true), (429, true)] {
        let mut bench = Bench::with(|config| config.quota_answer = QuotaAnswer { status: code, retry_after });
        bench.github.exhaust_quota("garm", START.plus(Span::mins(10)));
        let path = "/orgs/acme/actions/runners/registration-token";
        let refused = bench.send(&post(path, &pat(), &Value::Null));
        assert_eq!(status(&refused), code);
        assert_eq!(header(&refused, "x-ratelimit-remaining"), Some("0"));
        assert_eq!(header(&refused, "retry-after"), retry_after.then_some("600"));
        assert!(body(&refused)["message"].as_str().unwrap().contains("rate limit"));
        bench.wait(Span::mins(10));
        let answer = bench.send(&post(path, &pat(), &Value::Null));
        assert_eq!((status(&answer), header(&answer, "x-ratelimit-remaining")), (201, Some("4999")));
    }
}

#[test]
fn quota_is_charged_to_its_own_credential_only() {
    let mut bench = Bench::with(|config| {
        let mut small = Credential::pat("small", "ghp_small");
        small.limit = 2;
        config.credentials.push(small);
    });
    let path = "/orgs/acme/actions/runners/registration-token";
    let codes: Vec<u16> = (0..3).map(|_| status(&bench.send(&post(path, "Bearer ghp_small", &Value::Null)))).collect();
    assert_eq!(codes, [201, 201, 403]);
    assert_eq!(status(&bench.send(&post(path, &pat(), &Value::Null))), 201);
}

#[test]
fn secondary_limit_ends_at_its_date() {
    let mut bench = Bench::new();
    let until = START.plus(Span::secs(90));
    bench.github.secondary_limit("garm", until, QuotaAnswer { status: 429, retry_after: true });
    let path = "/orgs/acme/actions/runners/registration-token";
    let refused = bench.send(&post(path, &pat(), &Value::Null));
    assert_eq!((status(&refused), header(&refused, "retry-after")), (429, Some("90")));
    assert_ne!(header(&refused, "x-ratelimit-remaining"), Some("0"), "quota is left");
    assert!(body(&refused)["message"].as_str().unwrap().contains("secondary rate limit"));
    bench.wait(Span::secs(90));
    assert_eq!(status(&bench.send(&post(path, &pat(), &Value::Null))), 201);
}
