//! The token chain, token types and ages (`docs/reference/actions-service.md` §1, §9 points 1 and 2).

use super::super::Credential;
use super::super::testing::{Bench, ORIGIN, PAT, START, body, exception, get, post, request, status};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use medic_core::model::Span;
use serde_json::{Value, json};

fn pat() -> String {
    format!("Bearer {PAT}")
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
