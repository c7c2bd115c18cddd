//! Configuration: every mistake is named with its line and its mend, sources win in the stated order, and secrets
//! stay out.

use expect_test::{expect, expect_file};
use medic_core::model::Span;
use medic_core::policy::{Mode, Policy};
use scaleset_medic::config::raw::Raw;
use scaleset_medic::config::source::{FileText, FlagValue, Sources};
use scaleset_medic::config::{
    Checked, Config, DEFAULTS, Depth, GithubAuth, Report, check, describe, keys, keys::Section, schema,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const FIXTURES: &str = "tests/fixtures/config";

/// The least that is a configuration; nothing of it is looked for on the disk.
const LEAST: &str =
    "[[manager]]\nname = 'garm'\nurl = 'http://localhost:9997'\nusername = 'admin'\npassword_file = 'pw'\n";

fn text(text: &str) -> Sources {
    Sources { file: Some(FileText { name: "c.toml".into(), text: text.into() }), ..Sources::default() }
}

fn checked(sources: &Sources) -> Result<Checked, Report> {
    check(&Raw::read(sources), Depth::Values)
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
fn every_bad_file_has_its_report() {
    let mut seen = 0;
    let mut names: Vec<_> = std::fs::read_dir(FIXTURES)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("bad-") && Path::new(name).extension().is_some_and(|kind| kind == "toml"))
        .collect();
    names.sort();
    for name in names {
        let path = format!("{FIXTURES}/{name}");
        let report = check(&Raw::read(&open(&path)), Depth::Machine).expect_err(&path).to_string();
        assert!(!report.contains("swordfish") && !report.contains("ghp_"), "{name} tells a secret:\n{report}");
        let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join(path).with_extension("txt");
        expect_file![expected].assert_eq(&report);
        seen += 1;
    }
    assert!(seen >= 25, "only {seen} bad files were found");
}

#[test]
fn a_good_file_is_good_down_to_the_disk() {
    let found = check(&Raw::read(&open(&format!("{FIXTURES}/good.toml"))), Depth::Machine).unwrap();
    let config = found.config;
    assert_eq!(config.run.mode, Mode::Heal);
    assert_eq!(config.http.listen.port(), 9811);
    assert_eq!(config.managers.len(), 2);
    assert!(config.managers[0].metrics && !config.managers[1].metrics);
    assert_eq!(config.managers[0].password_file.load().unwrap().expose(), "swordfish");
    assert_eq!(config.github[0].entities, ["acme", "acme/app"]);
    assert!(matches!(config.github[1].auth, GithubAuth::App { app_id: 1, installation_id: 2, .. }));
    assert_eq!(config.policy.backoff, [Span::mins(10), Span::hours(1)]);
    assert_eq!(config.policy.verify_timeout, Span::secs(630), "it follows stale_session_limit");
    assert!(!Path::new("target/scaleset-medic-test-state").exists(), "the check left a directory behind");
}

#[test]
fn who_names_a_number_in_flight_gets_no_share_beyond_it() {
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
fn what_is_unwise_is_said() {
    let found = check(&Raw::read(&text(&LEAST.replace("localhost", "garm.example"))), Depth::Values).unwrap();
    expect![[r#"
        mode is observe: nothing is changed anywhere; set run.mode = "heal" to heal
        no [[github]]: sets missing at GitHub are not noticed, and no stale session is ended
        manager garm: no log_file and no log_stream: session ids are not seen, so a stale session is waited for
        manager garm: the password crosses the network unencrypted (http)"#]]
    .assert_eq(&describe::notes(&found).join("\n"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_of_its_own() {
    let report = Sources::open(Some(Path::new("/nowhere.toml")), BTreeMap::new(), Vec::new()).unwrap_err();
    expect![[r"
        the configuration has 1 mistake:
        flag --config: cannot read /nowhere.toml: No such file or directory (os error 2)
            mend: check the path, and that this user may read the file
    "]]
    .assert_eq(&report.to_string());
    let by_env = Sources::open(None, env(&[("SCALESET_MEDIC_CONFIG", "/nowhere.toml")]), Vec::new()).unwrap_err();
    assert!(by_env.to_string().contains("environment variable SCALESET_MEDIC_CONFIG: cannot read"), "{by_env}");
    assert_eq!(Sources::open(None, env(&[("SCALESET_MEDIC_CONFIG", "")]), Vec::new()).unwrap().file, None);
}

#[test]
fn an_international_host_is_taken_in_its_ascii_form() {
    let manager = &config(&LEAST.replace("localhost", "xn--grm-qla.example")).managers[0];
    assert_eq!(manager.url.as_str(), "http://xn--grm-qla.example:9997/");
    let report = checked(&text(&LEAST.replace("localhost", "gärm.example"))).unwrap_err().to_string();
    assert!(report.contains("manager.url") && report.contains("xn-- form"), "{report}");
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let file = format!("{LEAST}[run]\nmode = 'observe'\n");
    let flag = FlagValue { key: &keys::run::MODE, flag: "--mode", value: "observe".into() };
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
fn the_environment_alone_can_configure_one_manager() {
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
fn mistakes_in_the_environment_name_the_variable() {
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
        environment variable SCALESET_MEDIC_MANAGER_PASSWORD: manager.password: a secret does not belong into the configuration
            mend: put it into a file of its own and name that file with `password_file`
        environment variable SCALESET_MEDIC_MANAGER_URL: manager.url: there are 2 [[manager]] tables, and this cannot say which
            mend: set it in the file
        environment variable SCALESET_MEDIC_POLICY_SET_BUDGET: policy.set_budget: a whole number is needed, not a string
            mend: write a whole number from 1 to 1000, without quotes
        environment variable SCALESET_MEDIC_RUN_MOED: run.moed: unknown key
            mend: did you mean `mode`?
        environment variable SCALESET_MEDIC_SWORDFISH: sets no known key
            mend: write SCALESET_MEDIC_TABLE_KEY, for example SCALESET_MEDIC_RUN_MODE
    "]]
    .assert_eq(&report);
}

#[test]
fn print_shows_every_value_with_its_origin_and_no_secret() {
    let mut sources = open(&format!("{FIXTURES}/good.toml"));
    sources.env = env(&[("SCALESET_MEDIC_POLICY_SETTLE", "5s")]);
    sources.flags = vec![FlagValue { key: &keys::log::LEVEL, flag: "--log-level", value: "debug".into() }];
    let found = checked(&sources).unwrap();
    let printed = describe::print(&found);
    assert!(!printed.contains("swordfish") && !printed.contains("ghp_"), "{printed}");
    expect_file!["../fixtures/config/good.printed.toml"].assert_eq(&printed);
    for section in Section::ALL {
        for key in section.keys() {
            let shown =
                printed.lines().any(|line| line.trim_start_matches('#').starts_with(&format!("{} =", key.name)));
            assert!(shown, "{} is not printed", key.dotted());
        }
    }
    assert_eq!(config(&printed), found.config, "what is printed means what is in effect");
}

/// The shipped file with its settings in effect: a line that begins with `#` and no blank is a setting.
fn uncommented() -> String {
    let plain = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    DEFAULTS.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_documents_every_key_and_no_other() {
    let table: toml::Table = uncommented().parse().unwrap();
    let documented: BTreeSet<String> = table
        .iter()
        .flat_map(|(section, value)| {
            let one = value.as_array().map_or(value, |items| &items[0]).as_table().unwrap();
            one.keys().map(move |key| format!("{section}.{key}"))
        })
        .collect();
    let known: BTreeSet<String> =
        Section::ALL.iter().flat_map(|section| section.keys()).map(|key| key.dotted()).collect();
    assert_eq!(documented, known);
    let mut explained = false;
    for line in DEFAULTS.lines() {
        let is_setting = line.trim_start_matches('#').contains(" = ") && !line.starts_with("# ");
        assert!(!is_setting || explained, "no comment above: {line}");
        // A comment may explain the two settings that follow it.
        explained = line.starts_with("# ") || (is_setting && explained);
    }
}

#[test]
fn the_shipped_file_equals_the_defaults_of_the_code() {
    let shipped = DEFAULTS.to_owned() + "\n" + LEAST;
    let from_file = config(&shipped);
    let from_code = config(LEAST);
    assert_eq!(from_file, from_code);
    assert_eq!(from_code.policy, Policy::default());

    // The repeated tables: all of their settings, save the ones without a default, against the least ones.
    let without_app = uncommented()
        .lines()
        .filter(|line| {
            !line.starts_with("app_id") && !line.starts_with("installation_id") && !line.starts_with("private_key")
        })
        .collect::<Vec<_>>()
        .join("\n");
    let shipped = config(&without_app);
    let least = config(
        "[[manager]]\nname = 'garm'\nurl = 'http://127.0.0.1:9997'\nusername = 'admin'\n\
         password_file = '/run/secrets/garm-password'\nca_file = '/etc/scaleset-medic/garm-ca.pem'\n\
         log_file = '/var/log/garm/garm.log'\n[[github]]\nendpoint = 'github.com'\n\
         token_file = '/run/secrets/github-token'\nca_file = '/etc/scaleset-medic/github-ca.pem'\n",
    );
    assert_eq!(shipped, least);
}

#[test]
fn the_schema_knows_every_key_with_its_type_and_default() {
    let schema = schema::schema();
    let json_type = |value: &toml::Value| match value {
        toml::Value::String(_) => "string",
        toml::Value::Integer(_) => "integer",
        toml::Value::Float(_) => "number",
        toml::Value::Boolean(_) => "boolean",
        toml::Value::Array(_) => "array",
        toml::Value::Datetime(_) | toml::Value::Table(_) => "object",
    };
    let defaults: toml::Table = uncommented().parse().unwrap();
    for section in Section::ALL {
        let mut table = &schema["properties"][section.as_str()];
        let mut shipped = &defaults[section.as_str()];
        if section.repeats() {
            (table, shipped) = (&table["items"], &shipped[0]);
        }
        assert_eq!(table["additionalProperties"], false, "{section} takes unknown keys");
        let properties = table["properties"].as_object().unwrap();
        assert_eq!(properties.len(), section.keys().len(), "{section}");
        for key in section.keys() {
            let found = &properties[key.name];
            let value = &shipped[key.name];
            assert_eq!(found["type"], json_type(value), "{}", key.dotted());
            match key.need {
                keys::Need::Defaulted => {
                    let same = match (&found["default"], value) {
                        // One duration has several spellings.
                        (serde_json::Value::String(default), toml::Value::String(shipped)) => {
                            default == shipped
                                || humantime::parse_duration(default) == humantime::parse_duration(shipped)
                        }
                        (default, shipped) => *default == serde_json::to_value(shipped).unwrap(),
                    };
                    assert!(same, "{}: {} is not {value}", key.dotted(), found["default"]);
                }
                keys::Need::Required => {
                    assert!(table["required"].as_array().unwrap().contains(&key.name.into()), "{}", key.dotted());
                }
                keys::Need::Optional => assert!(found.get("default").is_none(), "{}", key.dotted()),
            }
        }
    }
}
