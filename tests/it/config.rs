//! Configuration: every mistake is reported with its line and fix, sources override each other in the stated order,
//! secrets stay out, and each declared key is known everywhere.

use expect_test::{expect, expect_file};
use medic_core::model::Span;
use medic_core::policy::{Mode, Policy};
use medic_core::settings::{Key, Kind, Limit, Need};
use scaleset_medic::config::{
    Checked, Config, Depth, FlagValue, Report, Section, Sources, check, describe, kind, schema,
};
use std::collections::BTreeMap;
use std::path::Path;

const FIXTURES: &str = "tests/fixtures/config";

/// The smallest configuration; none of its files exists.
const LEAST: &str =
    "[[manager]]\nname = 'garm'\nurl = 'http://localhost:9997'\nusername = 'admin'\npassword_file = 'pw'\n";

fn text(text: &str) -> Sources {
    Sources::of_text("c.toml", text)
}

fn checked(sources: &Sources) -> Result<Checked, Report> {
    check(sources, Depth::Values)
}

fn config(content: &str) -> Config {
    checked(&text(content)).unwrap().config
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn open(path: &str) -> Sources {
    Sources::open(Some(Path::new(path)), BTreeMap::new(), Vec::new()).unwrap()
}

#[test]
fn bad_files_give_their_reports() {
    let mut seen = 0;
    let mut names: Vec<_> = std::fs::read_dir(FIXTURES)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("bad-") && Path::new(name).extension().is_some_and(|kind| kind == "toml"))
        .collect();
    names.sort();
    for name in names {
        let path = format!("{FIXTURES}/{name}");
        let report = check(&open(&path), Depth::Machine).expect_err(&path).to_string();
        assert!(!report.contains("swordfish") && !report.contains("ghp_"), "{name} shows a secret:\n{report}");
        let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join(path).with_extension("txt");
        expect_file![expected].assert_eq(&report);
        seen += 1;
    }
    assert!(seen >= 25, "only {seen} bad files were found");
}

#[test]
fn good_file_passes_all_checks() {
    let found = check(&open(&format!("{FIXTURES}/good.toml")), Depth::Machine).unwrap();
    let config = found.config;
    assert_eq!(config.run.mode, Mode::Heal);
    assert_eq!(config.http.listen.port(), 9811);
    assert_eq!(config.managers.len(), 2);
    assert!(config.managers[0].metrics && !config.managers[1].metrics);
    assert_eq!(config.managers[0].password_file.load().unwrap().expose(), "swordfish");
    assert_eq!(config.github[0].entities, ["acme", "acme/app"]);
    assert_eq!((config.github[1].app_id, config.github[1].installation_id), (Some(1), Some(2)));
    assert_eq!(config.policy.backoff, [Span::mins(10), Span::hours(1)]);
    assert_eq!(config.policy.verify_timeout, Span::secs(630), "it follows stale_session_limit");
    assert!(!Path::new("target/scaleset-medic-test-state").exists(), "the check left a directory behind");
}

#[test]
fn in_flight_share_is_0_when_max_in_flight_is_given() {
    let of = |policy: &str| {
        let policy = config(&format!("{LEAST}[policy]\n{policy}")).policy;
        (policy.max_in_flight, policy.in_flight_share)
    };
    assert_eq!(of(""), (10, 0.05));
    assert_eq!(of("max_in_flight = 3"), (3, 0.0));
    assert_eq!(of("max_in_flight = 3\nin_flight_share = 0.1"), (3, 0.1));
    assert_eq!(of("in_flight_share = 0"), (10, 0.0));
}

#[test]
fn notes_list_what_may_surprise() {
    let found = checked(&text(&LEAST.replace("localhost", "garm.example"))).unwrap();
    expect![[r#"
        mode is observe: nothing is changed anywhere; set run.mode = "heal" to heal
        no [[github]]: sets missing at GitHub and waiting jobs are not detected; no stale session is deleted, so healing takes 50 to 92 s or more
        manager garm: no log_file and no log_stream: which set is refused, by whom and why is not seen, only how many; and session ids stay unknown, so a stale session cannot be deleted: after a crash each set waits until GitHub forgets it, 50 to 92 s or more, instead of seconds
        manager garm: the password crosses the network unencrypted (http)"#]]
    .assert_eq(&describe::notes(&found).join("\n"));
}

#[test]
fn unreadable_file_is_reported() {
    let report = Sources::open(Some(Path::new("/nowhere.toml")), BTreeMap::new(), Vec::new()).unwrap_err();
    expect![[r"
        the configuration has 1 mistake:
        flag --config: cannot read /nowhere.toml: No such file or directory (os error 2)
            fix: check the path, and that this user may read the file
    "]]
    .assert_eq(&report.to_string());
    let by_env = Sources::open(None, env(&[("SCALESET_MEDIC_CONFIG", "/nowhere.toml")]), Vec::new()).unwrap_err();
    assert!(by_env.to_string().contains("environment variable SCALESET_MEDIC_CONFIG: cannot read"), "{by_env}");
    assert_eq!(Sources::open(None, env(&[("SCALESET_MEDIC_CONFIG", "")]), Vec::new()).unwrap().file, None);
}

#[test]
fn international_host_is_accepted_in_ascii_form() {
    let manager = &config(&LEAST.replace("localhost", "xn--grm-qla.example")).managers[0];
    assert_eq!(manager.url.as_str(), "http://xn--grm-qla.example:9997/");
    let report = checked(&text(&LEAST.replace("localhost", "gärm.example"))).unwrap_err().to_string();
    assert!(report.contains("manager.url") && report.contains("xn-- form"), "{report}");
}

#[test]
fn flags_override_env_overrides_file_overrides_default() {
    let file = format!("{LEAST}[run]\nmode = 'observe'\n");
    let flag = FlagValue { section: Section::Run, key: "mode", flag: "--mode", value: "observe".into() };
    let shown = |sources: &Sources| {
        let found = checked(sources).unwrap();
        let line = describe::print(&found).lines().find(|line| line.starts_with("mode =")).unwrap().to_owned();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut sources = text(LEAST);
    assert_eq!(shown(&sources), r#"mode = "observe" # default"#);
    sources = text(&file);
    assert_eq!(shown(&sources), r#"mode = "observe" # from c.toml:7"#);
    sources.env = env(&[("SCALESET_MEDIC_RUN_MODE", "heal")]);
    assert_eq!(shown(&sources), r#"mode = "heal" # env SCALESET_MEDIC_RUN_MODE"#);
    sources.flags = vec![flag];
    assert_eq!(shown(&sources), r#"mode = "observe" # flag --mode"#);
}

#[test]
fn environment_alone_configures_one_manager() {
    let sources = Sources {
        env: env(&[
            ("SCALESET_MEDIC_MANAGER_NAME", "garm"),
            ("SCALESET_MEDIC_MANAGER_URL", "http://garm:9997"),
            ("SCALESET_MEDIC_MANAGER_USERNAME", "admin"),
            ("SCALESET_MEDIC_MANAGER_PASSWORD_FILE", "/run/secrets/pw"),
            ("SCALESET_MEDIC_MANAGER_LOG_STREAM", "true"),
            ("SCALESET_MEDIC_MANAGER_REQUESTS_PER_SECOND", "7"),
            ("SCALESET_MEDIC_POLICY_BACKOFF", "1m, 2m"),
            ("SCALESET_MEDIC_POLICY_QUOTA_RESERVE", "0.5"),
            ("SCALESET_MEDIC_RUN_MODE", ""),
            // Kubernetes sets these for a Service of our name.
            ("SCALESET_MEDIC_PORT", "tcp://10.0.0.1:9810"),
            ("SCALESET_MEDIC_SERVICE_HOST", "10.0.0.1"),
            ("SCALESET_MEDIC_PORT_9810_TCP_ADDR", "10.0.0.1"),
        ]),
        ..Sources::default()
    };
    let config = checked(&sources).unwrap().config;
    assert!(config.managers[0].log_stream);
    assert_eq!(config.managers[0].requests_per_second, 7);
    assert_eq!(config.policy.backoff, [Span::mins(1), Span::mins(2)]);
    assert_eq!(config.policy.quota_reserve.to_string(), "0.5");
    assert_eq!(config.run.mode, Mode::Observe, "an empty variable counts as not given");
}

#[test]
fn environment_mistakes_name_the_variable() {
    let two = LEAST.replace("'garm'", "'other'");
    let sources = Sources {
        env: env(&[
            ("SCALESET_MEDIC_MANAGER_URL", "http://garm"),
            ("SCALESET_MEDIC_MANAGER_PASSWORD", "swordfish"),
            ("SCALESET_MEDIC_POLICY_SET_BUDGET", "many"),
            ("SCALESET_MEDIC_RUN_MOED", "heal"),
            ("SCALESET_MEDIC_SWORDFISH", "swordfish"),
        ]),
        ..text(&format!("{LEAST}{two}"))
    };
    let report = checked(&sources).unwrap_err().to_string();
    expect![[r"
        the configuration has 5 mistakes:
        environment variable SCALESET_MEDIC_MANAGER_PASSWORD: manager.password: a secret must not be in the configuration
            fix: put it into a file of its own and name that file with `password_file`
        environment variable SCALESET_MEDIC_MANAGER_URL: manager.url: there are 2 [[manager]] tables, and this does not say which
            fix: set it in the file
        environment variable SCALESET_MEDIC_POLICY_SET_BUDGET: policy.set_budget: expected whole number, found text
            fix: use a whole number, 1 to 1000, without quotes
        environment variable SCALESET_MEDIC_RUN_MOED: run.moed: unknown key
            fix: did you mean `mode`?
        environment variable SCALESET_MEDIC_SWORDFISH: sets no known key
            fix: write SCALESET_MEDIC_TABLE_KEY, for example SCALESET_MEDIC_RUN_MODE
    "]]
    .assert_eq(&report);
}

#[test]
fn print_shows_values_with_origin_and_no_secret() {
    let mut sources = open(&format!("{FIXTURES}/good.toml"));
    sources.env = env(&[("SCALESET_MEDIC_POLICY_SETTLE", "5s")]);
    sources.flags = vec![FlagValue { section: Section::Log, key: "level", flag: "--log-level", value: "debug".into() }];
    let found = checked(&sources).unwrap();
    let printed = describe::print(&found);
    assert!(!printed.contains("swordfish") && !printed.contains("ghp_"), "{printed}");
    expect_file!["../fixtures/config/good.printed.toml"].assert_eq(&printed);
    assert_eq!(config(&printed), found.config, "what is printed means what is in effect");
}

#[test]
fn shipped_file_equals_the_defaults() {
    let shipped = config(&(describe::defaults() + LEAST));
    assert_eq!(shipped, config(LEAST));
    assert_eq!(shipped.policy, Policy::default());
}

/// A least configuration with a table for this key, and the key set in it.
fn file_with(key: &Key, value: Option<&str>) -> String {
    let given = |pairs: &[(&str, &str)]| {
        let mut lines: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        lines.extend(value.map(|value| (key.name.to_owned(), value.to_owned())));
        lines.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join("\n") + "\n"
    };
    let is_app = ["app_id", "installation_id", "private_key_file"].contains(&key.name);
    match key.section {
        "manager" => {
            let least = [("name", "'n'"), ("url", "'http://h'"), ("username", "'u'"), ("password_file", "'f'")];
            format!("[[manager]]\n{}", given(&least))
        }
        "github" if is_app => {
            let app = [("endpoint", "'e'"), ("app_id", "1"), ("installation_id", "1"), ("private_key_file", "'f'")];
            format!("{LEAST}[[github]]\n{}", given(&app))
        }
        "github" => format!("{LEAST}[[github]]\n{}", given(&[("endpoint", "'e'"), ("token_file", "'f'")])),
        section => format!("{LEAST}[{section}]\n{}", given(&[])),
    }
}

/// Values of a kind, the later ones for where the first is the default, or contradicts one.
fn values(kind: Kind) -> Vec<String> {
    let span = |span: Span| format!("\"{}ms\"", span.as_millis());
    let texts = |texts: &[&str]| texts.iter().map(|text| format!("\"{text}\"")).collect();
    match kind {
        Kind::Span(least, most) => vec![span(least), span(most), span(least.plus(Span::secs(1)))],
        Kind::Spans(least, _) => vec![format!("[{}]", span(least))],
        Kind::Count(least, most) => vec![least.saturating_add(6).min(most).to_string()],
        Kind::Part | Kind::Share => vec!["0.125".to_owned()],
        Kind::Boolean => vec!["true".to_owned(), "false".to_owned()],
        Kind::Choice(words) => texts(words),
        Kind::Label | Kind::Text => texts(&["other"]),
        Kind::Url => texts(&["https://other.example/"]),
        Kind::Listen => texts(&["127.0.0.1:1"]),
        Kind::Path | Kind::StateDir | Kind::Certificates | Kind::SecretFile | Kind::KeyFile => texts(&["/other"]),
        Kind::Levels => texts(&["warn,medic_garm=debug"]),
        Kind::Entities => vec!["[\"acme\"]".to_owned()],
    }
}

#[test]
fn declared_key_is_known_everywhere() {
    let (schema, shipped) = (schema::schema(), describe::defaults());
    for key in Section::ALL.iter().flat_map(|section| section.keys()) {
        let (name, base) = (key.dotted(), config(&file_with(key, None)));
        // The reader: of the file, and of the environment.
        let read = |value: &String| Some((value.clone(), checked(&text(&file_with(key, Some(value)))).ok()?));
        let mut others = values(key.takes.kind).iter().filter_map(read).collect::<Vec<_>>().into_iter();
        let (value, by_file) =
            others.find(|(_, read)| read.config != base).unwrap_or_else(|| panic!("{name} is not read"));
        let mut by_env = text(&file_with(key, None));
        by_env.env = env(&[(&key.env(), &value.replace(['"', '[', ']'], ""))]);
        assert_eq!(checked(&by_env).unwrap().config, by_file.config, "{}", key.env());
        // What is printed.
        let printed = describe::print(&by_file);
        assert!(printed.lines().any(|line| line.starts_with(&format!("{} = ", key.name))), "{name}: {printed}");
        assert_eq!(config(&printed), by_file.config, "{name}: what is printed is what is in effect");
        // The shipped file and the schema.
        let section = key.section.parse::<Section>().unwrap();
        let mut lines = shipped.lines().skip_while(|line| line.trim_start_matches('#') != section.header());
        let line = lines.find(|line| line.trim_start_matches('#').starts_with(&format!("{} = ", key.name)));
        let table = &schema["properties"][key.section];
        let table = if section.repeats() { &table["items"] } else { table };
        let found = &table["properties"][key.name];
        assert!(found["description"].as_str().unwrap().starts_with(&describe::meaning(key)), "{name}");
        let sample: toml::Table = format!("value = {value}").parse().unwrap();
        let type_of = match &sample["value"] {
            toml::Value::Integer(_) => "integer",
            toml::Value::Float(_) => "number",
            toml::Value::Boolean(_) => "boolean",
            toml::Value::Array(_) => "array",
            _ => "string",
        };
        assert_eq!(found["type"], type_of, "{name}");
        match key.need {
            Need::Default(default) => {
                let default = kind::toml(key.takes.kind, &default());
                assert!(line.unwrap().ends_with(&format!(" = {default}")), "{line:?}");
                let leads = |other: &Key| other.takes.follows.is_some_and(|follows| follows.leader() == key.name);
                let is_alone = key.takes.follows.is_none() && !section.keys().iter().any(leads);
                assert!(!is_alone || config(&file_with(key, Some(&default))) == base, "{name}: {default}");
                assert_eq!(toml::Value::try_from(&found["default"]).unwrap().to_string(), default, "{name}");
            }
            Need::Required(_) => assert!(table["required"].as_array().unwrap().contains(&key.name.into()), "{name}"),
            Need::Optional(_) => assert!(line.is_some() && found.get("default").is_none(), "{name}"),
        }
    }
}

#[test]
fn declared_limit_is_checked() {
    let mut count = 0;
    for key in Section::ALL.iter().flat_map(|section| section.keys()) {
        let Some(limit) = key.takes.limit else { continue };
        let (Limit::AtMost(high) | Limit::Below(high)) = limit;
        let high = key.section.parse::<Section>().unwrap().key(high).unwrap();
        let (Kind::Span(low_least, _), Kind::Span(high_least, _)) = (key.takes.kind, high.takes.kind) else {
            panic!("{} is not a duration", key.dotted())
        };
        let is_refused = |more: Span| {
            // The least value may contradict a third key first.
            [low_least.max(high_least), Span::mins(10)].into_iter().any(|least| {
                let low = format!("'{}ms'\n{} = '{}ms'", least.plus(more).as_millis(), high.name, least.as_millis());
                let report = checked(&text(&file_with(key, Some(&low)))).err().map(|report| report.to_string());
                let (wrong, against) = (format!("{}: ", key.dotted()), format!(" contradicts {} = ", high.name));
                report.unwrap_or_default().lines().any(|line| line.contains(&wrong) && line.contains(&against))
            })
        };
        assert!(is_refused(Span::secs(1)), "{}", key.dotted());
        assert_eq!(is_refused(Span::ZERO), matches!(limit, Limit::Below(_)), "{}", key.dotted());
        count += 1;
    }
    assert!(count >= 9, "only {count} limits are declared");
}
