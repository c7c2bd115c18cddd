//! `config schema`: JSON Schema of the configuration, from the table of keys, for editors and for checks before a
//! roll-out. It knows shapes and bounds; what depends on several keys only `config check` can tell.

use super::keys::{Key, Kind, Need, Section};
use super::raw::Raw;
use super::source::{FileText, Sources};
use super::{Depth, check};
use serde_json::{Map, Value, json};

/// A configuration in which everything that can be left out is left out: what the schema's defaults are read from.
const LEAST: &str = "[[manager]]\nname = 'n'\nurl = 'http://h'\nusername = 'u'\npassword_file = 'f'\n\
                     [[github]]\nendpoint = 'e'\ntoken_file = 'f'\n";

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let defaults = defaults();
    let sections = Section::ALL.iter().map(|section| (section.to_string(), section_schema(*section, &defaults)));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of scaleset-medic",
        "type": "object",
        "additionalProperties": false,
        "required": ["manager"],
        "properties": sections.collect::<Map<_, _>>(),
    })
}

/// Defaults by dotted key, as JSON.
fn defaults() -> Map<String, Value> {
    let file = FileText { name: String::new(), text: LEAST.into() };
    let sources = Sources { file: Some(file), ..Sources::default() };
    let Ok(checked) = check(&Raw::read(&sources), Depth::Values) else { return Map::new() };
    let mut found = Map::new();
    for (section, values) in checked.effective {
        for value in values {
            let line = value.value.and_then(|text| format!("v = {text}").parse::<toml::Table>().ok());
            if let (super::Origin::Default, Some(line)) = (value.origin, line)
                && let Ok(Value::Object(mut object)) = serde_json::to_value(line)
                && let Some(json) = object.remove("v")
            {
                found.insert(format!("{section}.{}", value.key), json);
            }
        }
    }
    found
}

fn section_schema(section: Section, defaults: &Map<String, Value>) -> Value {
    let keys = section.keys();
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), key_schema(key, defaults.get(&key.dotted())))).collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.need == Need::Required).map(|key| key.name).collect();
    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if let Value::Object(table) = &mut table {
        if !required.is_empty() {
            table.insert("required".into(), json!(required));
        }
        if section == Section::Github {
            table.insert(
                "oneOf".into(),
                json!([
                    { "required": ["token_file"] },
                    { "required": ["app_id", "installation_id", "private_key_file"] },
                ]),
            );
        }
    }
    match section {
        Section::Manager => json!({ "type": "array", "minItems": 1, "items": table }),
        Section::Github => json!({ "type": "array", "items": table }),
        Section::Run | Section::Log | Section::Http | Section::Policy => table,
    }
}

fn key_schema(key: &Key, default: Option<&Value>) -> Value {
    let duration = "^\\s*([0-9]+\\s*[a-zA-Z]+\\s*)+$";
    let mut schema = match key.kind {
        Kind::Span(..) => json!({ "type": "string", "pattern": duration }),
        Kind::Spans(..) => {
            json!({ "type": "array", "minItems": 1, "items": { "type": "string", "pattern": duration } })
        }
        Kind::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Part => json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 }),
        Kind::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Name => json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" }),
        Kind::Url => json!({ "type": "string", "pattern": "^https?://" }),
        Kind::Text | Kind::Listen | Kind::Path | Kind::SecretFile | Kind::Filter => {
            json!({ "type": "string", "minLength": 1 })
        }
        Kind::Names => json!({ "type": "array", "items": { "type": "string", "minLength": 1 } }),
    };
    if let Value::Object(object) = &mut schema {
        object.insert("description".into(), json!(format!("{} Environment: {}", key.doc, key.env())));
        if let Some(default) = default {
            object.insert("default".into(), default.clone());
        }
    }
    schema
}
