//! The published schema is that of the types, and the status document conforms to it.

use super::{everything, facts};
use medic_core::model::{Diagnosis, FailureKind, Guard, RemedyKind, Source, Waiting};
use scaleset_medic::status::schema;
use serde_json::Value;

fn parsed() -> Value {
    serde_json::from_str(&schema()).unwrap()
}

/// What is wrong with a changed document, as one text.
fn errors(change: impl FnOnce(&mut Value)) -> String {
    const PLACE: &str = "file:///status.schema.json";
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource(PLACE, parsed()).unwrap();
    let schema = compiler.compile(PLACE, &mut schemas).unwrap();
    let mut document = serde_json::to_value(everything()).unwrap();
    change(&mut document);
    schemas.validate(&document, schema).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn status_document_conforms_to_its_schema() {
    assert_eq!(errors(|_| ()), "");
}

#[test]
fn schema_finds_what_does_not_belong_in_a_document() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 5] = [
        ("at '/managers/0': missing properties 'took'", |document| {
            document["managers"][0].as_object_mut().unwrap().remove("took");
        }),
        ("at '/managers/0/state'", |document| document["managers"][0]["state"] = "asleep".into()),
        ("at '/managers/0/sets/5/treatments/0/state'", |document| {
            document["managers"][0]["sets"][5]["treatments"][0]["state"] = "over".into();
        }),
        ("at '/at': 'yesterday' is not valid date-time", |document| document["at"] = "yesterday".into()),
        ("at '/at': want string, but got number", |document| document["at"] = 1_700_000_000_000_u64.into()),
    ];
    for (error, change) in cases {
        let found = errors(change);
        assert!(found.contains(error), "{error}\n{found}");
    }
}

#[test]
fn schema_lists_every_state_and_every_fact() {
    let schema = parsed();
    let listed = |name: &str| schema["$defs"][name]["enum"].clone();
    assert_eq!(listed("Diagnosis"), serde_json::json!(Diagnosis::ALL));
    assert_eq!(listed("Guard"), serde_json::json!(Guard::ALL));
    assert_eq!(listed("Source"), serde_json::json!(Source::ALL));
    assert_eq!(listed("Waiting"), serde_json::json!(Waiting::ALL));
    assert_eq!(listed("FailureKind"), serde_json::json!(FailureKind::ALL));
    assert_eq!(listed("RemedyKind"), serde_json::json!(RemedyKind::ALL));
    assert_eq!(schema["$defs"]["Fact"]["oneOf"].as_array().unwrap().len(), facts().len());
}

#[test]
fn dates_and_pairs_have_their_written_form() {
    let document = serde_json::to_value(everything()).unwrap();
    assert_eq!(document["at"], "2023-11-14T22:13:20.000Z");
    let manager = &document["managers"][0];
    assert_eq!(manager["restart"], serde_json::json!({"kind": "crash", "at": "2023-11-14T21:13:20.000Z"}));
    let worker = serde_json::json!({"state": "unknown", "since": "2023-11-14T22:13:20.000Z"});
    assert_eq!(manager["sets"][0]["finding"]["worker"], worker);
}

#[test]
fn published_schema_is_current() {
    expect_test::expect_file!["../../../docs/status.schema.json"].assert_eq(&schema());
}
