//! `config schema`: JSON Schema of the configuration, for editors and for checks before a roll-out. It has shapes and
//! bounds; what depends on several keys is checked by `config check` only.

use super::describe::meaning;
use super::{Section, kind};
use medic_core::settings::{Key, Kind, Need};
use serde_json::{Map, Value, json};

pub fn schema() -> Value {
    let sections = Section::ALL.iter().map(|section| (section.to_string(), section_schema(*section)));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of scaleset-medic",
        "type": "object",
        "additionalProperties": false,
        "required": ["manager"],
        "properties": sections.collect::<Map<_, _>>(),
    })
}

fn section_schema(section: Section) -> Value {
    let keys = section.keys();
    let properties: Map<String, Value> = keys.iter().map(|key| (key.name.to_owned(), key_schema(key))).collect();
    let required: Vec<&str> =
        keys.iter().filter(|key| matches!(key.need, Need::Required(_))).map(|key| key.name).collect();
    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    match section {
        Section::Manager => json!({ "type": "array", "minItems": 1, "items": table }),
        Section::Github => {
            table["oneOf"] = json!([
                { "required": ["token_file"] },
                { "required": ["app_id", "installation_id", "private_key_file"] },
            ]);
            json!({ "type": "array", "items": table })
        }
        Section::Run | Section::Log | Section::Http | Section::Policy => table,
    }
}

fn key_schema(key: &Key) -> Value {
    let duration = json!({ "type": "string", "pattern": "^\\s*([0-9]+\\s*[a-zA-Z]+\\s*)+$" });
    let mut schema = match key.takes.kind {
        Kind::Span(..) => duration,
        Kind::Spans(..) => json!({ "type": "array", "minItems": 1, "items": duration }),
        Kind::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Part => json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 }),
        Kind::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Label => json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" }),
        Kind::Url => json!({ "type": "string", "pattern": "^https?://" }),
        Kind::Entities => json!({ "type": "array", "items": { "type": "string", "minLength": 1 } }),
        Kind::Text
        | Kind::Listen
        | Kind::Path
        | Kind::StateDir
        | Kind::Certificates
        | Kind::SecretFile
        | Kind::KeyFile
        | Kind::Levels => json!({ "type": "string", "minLength": 1 }),
    };
    schema["description"] = json!(format!("{} Environment: {}", meaning(key), key.env()));
    if let Some(default) = key.default() {
        schema["default"] = kind::written(key.takes.kind, &default);
    }
    schema
}
