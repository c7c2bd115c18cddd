//! The published schema describes the status document, and nothing else does it allow.
#![expect(clippy::panic, reason = "a rule that the test does not know must not pass unseen")]

use super::{everything, facts};
use medic_core::model::{Diagnosis, FailureKind, Guard, RemedyKind, Source, Waiting};
use scaleset_medic::web::server::STATUS_SCHEMA_JSON;
use serde_json::Value;

/// The part of JSON Schema that the schema uses. Returns the first thing that is wrong.
fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |why: String| Err(format!("{at}: {why}"));
    for (key, rule) in schema.as_object().unwrap() {
        match key.as_str() {
            "$ref" => check(root, root.pointer(&rule.as_str().unwrap()[1..]).unwrap(), value, at)?,
            "type" => {
                let fits = match rule.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("the test does not know the type {other}"),
                };
                if !fits {
                    return wrong(format!("{value} is no {rule}"));
                }
            }
            "const" if value != rule => return wrong(format!("{value} is not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => return wrong(format!("{value} is not of {rule}")),
            "minimum" if value.as_u64().is_none() => return wrong(format!("{value} is negative")),
            "oneOf" => {
                let tried: Vec<_> = rule.as_array().unwrap().iter().map(|s| check(root, s, value, at)).collect();
                if tried.iter().filter(|result| result.is_ok()).count() != 1 {
                    return wrong(format!("{value} fits not exactly one of {tried:?}"));
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        return wrong(format!("{name} is missing"));
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}/{index}"))?;
                }
            }
            "prefixItems" => {
                for (index, rule) in rule.as_array().unwrap().iter().enumerate() {
                    check(root, rule, &value[index], &format!("{at}/{index}"))?;
                }
            }
            "minItems" | "maxItems" => {
                if value.as_array().is_some_and(|items| items.len() as u64 != rule.as_u64().unwrap()) {
                    return wrong("has another length".to_owned());
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(root, rule, value, &format!("{at}/{name}"))?;
                    }
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (name, value) in value.as_object().into_iter().flatten() {
                    match rule {
                        _ if known.is_some_and(|known| known.contains_key(name)) => {}
                        Value::Bool(false) => return wrong(format!("{name} is not in the schema")),
                        rule => check(root, rule, value, &format!("{at}/{name}"))?,
                    }
                }
            }
            "const" | "enum" | "minimum" | "$schema" | "title" | "description" | "$defs" => {}
            other => panic!("the test does not know the rule {other}"),
        }
    }
    Ok(())
}

fn schema() -> Value {
    serde_json::from_str(STATUS_SCHEMA_JSON).unwrap()
}

#[test]
fn the_status_document_fits_its_schema() {
    let (schema, document) = (schema(), serde_json::to_value(everything()).unwrap());
    assert_eq!(check(&schema, &schema, &document, ""), Ok(()));
}

#[test]
fn a_field_that_is_not_in_the_schema_or_is_missing_is_found() {
    let schema = schema();
    let mut document = serde_json::to_value(everything()).unwrap();
    document["managers"][0]["surprise"] = Value::from(1);
    assert!(check(&schema, &schema, &document, "").unwrap_err().contains("surprise"));
    let mut document = serde_json::to_value(everything()).unwrap();
    document["managers"][0].as_object_mut().unwrap().remove("took");
    assert!(check(&schema, &schema, &document, "").unwrap_err().contains("took"));
}

#[test]
fn closed_lists_are_complete_in_the_schema() {
    let schema = schema();
    let listed = |name: &str| -> Vec<String> { serde_json::from_value(schema["$defs"][name]["enum"].clone()).unwrap() };
    let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(listed("Diagnosis"), names(&Diagnosis::ALL.iter().map(|d| d.as_str()).collect::<Vec<_>>()));
    assert_eq!(listed("Guard"), names(&Guard::ALL.iter().map(|g| g.as_str()).collect::<Vec<_>>()));
    assert_eq!(listed("Source"), names(&Source::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>()));
    assert_eq!(listed("Waiting"), names(&Waiting::ALL.iter().map(|w| w.as_str()).collect::<Vec<_>>()));
    assert_eq!(listed("FailureKind"), names(&FailureKind::ALL.iter().map(|k| k.as_str()).collect::<Vec<_>>()));
    assert_eq!(listed("RemedyKind"), names(&RemedyKind::ALL.iter().map(|k| k.as_str()).collect::<Vec<_>>()));
    assert_eq!(schema["$defs"]["Fact"]["oneOf"].as_array().unwrap().len(), facts().len());
}

#[test]
fn the_copy_in_the_documentation_is_current() {
    expect_test::expect_file!["../../../docs/status.schema.json"].assert_eq(STATUS_SCHEMA_JSON);
}
