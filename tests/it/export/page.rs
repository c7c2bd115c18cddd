//! The status page.

use super::{AT, everything, manager, set, status};
use medic_core::model::{Diagnosis, Span};
use scaleset_medic::status::Recovered;
use scaleset_medic::web::page::{render, security_policy};

fn page(status: &scaleset_medic::status::Status) -> String {
    render(Some(status), AT.plus(Span::secs(1)))
}

#[test]
fn page_shows_an_incident_with_evidence_and_next_action() {
    let page = page(&everything());
    for words in [
        "GARM crashed 14:03:12; 3 of 4 sets were refused",
        "Healing is stopped",
        "scaleset-medic resume",
        "blocked by<ul><li>confirmation: more sweeps must agree (1 of 2; limit: 2)</li>",
        "backoff: this set was treated too recently (1 of 2; limit: 2; passes at 22:13:20)",
        "treatment #8 is under way: waiting for the listener to come back",
        "Its session is not deleted: its session is not known; the manager &lt;may&gt; hold it",
        "<br>GitHub has kept such sessions 61\u{2013}92 s here<br>",
        "waiting: a stale session to end",
        "refused: another session held by garm-x is active",
        "garm-x has held its session for 6 min",
        "toggle #7: recovered<br><small>it polls again</small>",
        "data-label=\"Since\">healthy again since <time datetime=\"2023-11-14T22:10:20.000Z\">22:10:20</time> <small>(3 min 1 s ago)</small>, after 2 min",
        "3 of 3 treatments in 24 h left for this set",
        "does not answer: HTTP 404",
        "not configured; it would show session ids. To enable it: in the medic",
        "<time datetime=\"2023-11-14T22:10:20.000Z\">22:10:20</time> <small>(3 min 1 s ago)</small>",
        "1 of 2 GARMs cannot be reached",
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
}

#[test]
fn page_of_a_healthy_fleet_is_one_sentence() {
    let page =
        page(&status(vec![manager("garm", vec![set(1, "a", Diagnosis::Listening), set(2, "b", Diagnosis::Disabled)])]));
    assert!(page.contains("<title>All 2 scale sets are healthy · scaleset-medic</title>"), "{page}");
    assert!(!page.contains("class=\"incident\"") && !page.contains("healthy again"));
    assert!(render(None, AT).contains("The first sweep has not ended yet"));
}

#[test]
fn page_shows_since_when_a_fleet_is_healthy_again() {
    let mut healed = set(1, "a", Diagnosis::Listening);
    healed.recovered = Some(Recovered { ill_since: AT.minus(Span::mins(5)), at: AT.minus(Span::mins(3)) });
    let page = page(&status(vec![manager("garm", vec![healed, set(2, "b", Diagnosis::Listening)])]));
    let since = "<time datetime=\"2023-11-14T22:10:20.000Z\">22:10:20</time> <small>(3 min 1 s ago)</small>";
    let shown =
        format!("The fleet is healthy again since {since}: 1 of 2 scale sets had been unhealthy, for up to 2 min.");
    assert!(page.contains(&shown), "{page}");
}

#[test]
fn unhealthy_sets_come_first_and_rows_are_limited() {
    let mut sets: Vec<_> = (1..=10_000).map(|id| set(id, &format!("healthy-{id}"), Diagnosis::Listening)).collect();
    sets.push(set(20_000, "unhealthy-one", Diagnosis::Unheld));
    let page = page(&status(vec![manager("garm", sets)]));
    assert!(page.find("unhealthy-one").unwrap() < page.find("healthy-1<").unwrap());
    assert!(page.contains("1 unhealthy or unclear, 10000 healthy; 9800 of them are only in the JSON"));
    assert!(page.len() < 400_000, "{}", page.len());
}

#[test]
fn text_from_outside_never_becomes_markup() {
    let evil = "<script>alert(1)</script>\"'&\u{202e}\0";
    let mut picture = everything();
    picture.version = evil.to_owned();
    let manager = &mut picture.managers[0];
    manager.name = medic_core::model::ManagerName::new(evil);
    manager.incident = Some(evil.to_owned());
    manager.breaker_open = Some(evil.to_owned());
    for set in &mut manager.sets {
        set.name = evil.to_owned();
        if let Some(of) = &mut set.entity {
            of.entity.name = evil.to_owned();
        }
        for treatment in &mut set.treatments {
            treatment.why = Some(evil.to_owned());
        }
    }
    for state in manager.sources.values_mut() {
        *state = scaleset_medic::status::SourceState::Down { why: evil.to_owned() };
    }
    let page = page(&picture);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\u{fffd}\u{fffd}"));
    assert!(!page.contains("<script>alert") && !page.contains('\u{202e}') && !page.contains('\0'));
    assert_eq!(page.matches("<script>").count(), 1, "only our own");
}

/// Start and end tags match. `p`-like omissions are not used on the page.
#[test]
fn markup_is_well_formed() {
    let page = page(&everything());
    let (head, rest) = page.split_once("<style>").unwrap();
    let (_, rest) = rest.split_once("</style>").unwrap();
    let (body, tail) = rest.split_once("<script>").unwrap();
    let (_, tail) = tail.split_once("</script>").unwrap();
    let mut open = Vec::new();
    for tag in [head, body, tail].iter().flat_map(|part| part.split('<').skip(1)).map(|t| t.split('>').next().unwrap())
    {
        let name = tag.split([' ', '\n']).next().unwrap();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{tag}"),
            None if ["meta", "br", "!doctype"].contains(&name) => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn page_is_readable_aloud_and_without_colours() {
    let page = page(&everything());
    assert_eq!(page.matches("<table").count(), page.matches("<caption>").count());
    assert_eq!(page.matches("scope=\"row\"").count(), Diagnosis::ALL.len());
    for diagnosis in Diagnosis::ALL {
        assert!(page.contains(&format!("</span> {diagnosis}</span>")), "{diagnosis} is shown as a word");
    }
    assert!(page.contains("width=device-width"));
    for colour in ["class=\"ok\">✔", "class=\"bad\">✖", "class=\"odd\">–"] {
        assert!(page.contains(colour), "{colour}");
    }
}

#[test]
fn page_needs_no_script_and_allows_only_its_own() {
    let page = page(&everything());
    assert!(page.contains("<noscript><meta http-equiv=\"refresh\""));
    for outside in ["src=", "http://", "https://", " style=", " onclick=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let policy = security_policy();
    let policy = policy.to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("script-src 'sha256-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    for (tag, directive) in [("style", "style-src"), ("script", "script-src")] {
        let text = page.split_once(&format!("<{tag}>")).unwrap().1.split_once(&format!("</{tag}>")).unwrap().0;
        assert!(policy.contains(&format!("{directive} 'sha256-{}'", sha256(text))), "{tag}");
    }
}

fn sha256(text: &str) -> String {
    use base64::Engine as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}
