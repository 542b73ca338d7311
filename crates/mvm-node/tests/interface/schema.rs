//! Judges JSON by JSON Schema, as far as the node's document uses it; it refuses to judge by words it does not know.
//!
//! Small on purpose: the validators there are turn on features of the store's dependencies in every build.

use std::{cell::RefCell, collections::HashMap};

use regex::Regex;
use serde_json::{Map, Value};

/// Says where a value is not as a schema has it. `root` is the document that references point into.
pub(crate) fn validate(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = schema.as_object().expect("a schema is an object");
    for (keyword, told) in schema {
        check(root, schema, keyword, told, value)
            .map_err(|problem| format!("{problem} in {value}"))?;
    }
    Ok(())
}

fn check(
    root: &Value,
    schema: &Map<String, Value>,
    keyword: &str,
    told: &Value,
    value: &Value,
) -> Result<(), String> {
    let fits = match keyword {
        "$ref" => {
            let pointer = told
                .as_str()
                .and_then(|told| told.strip_prefix('#'))
                .expect("a local reference");
            let target = root
                .pointer(pointer)
                .unwrap_or_else(|| panic!("{pointer} leads nowhere"));
            return validate(root, target, value);
        }
        "type" => is_of_type(told.as_str().expect("one type"), value),
        "enum" => told.as_array().expect("a list").contains(value),
        "const" => told == value,
        "anyOf" => return any_of(root, told, value),
        "oneOf" => fitting(root, told, value) == 1,
        "properties" => return properties(root, schema, told, value),
        // Judged with the properties.
        "additionalProperties" => told == false,
        "required" => {
            let named = |name: &Value| value.get(name.as_str().expect("a name")).is_some();
            !value.is_object() || told.as_array().expect("a list").iter().all(named)
        }
        "items" => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            return items.iter().try_for_each(|item| validate(root, told, item));
        }
        "maxItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 <= told.as_u64().expect("a number")),
        "uniqueItems" => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            items
                .iter()
                .enumerate()
                .all(|(place, item)| !items[..place].contains(item))
        }
        "minimum" => {
            integer(value).is_none_or(|number| number >= integer(told).expect("an integer"))
        }
        "maximum" => {
            integer(value).is_none_or(|number| number <= integer(told).expect("an integer"))
        }
        "minLength" => {
            characters(value).is_none_or(|count| count >= told.as_u64().expect("a number"))
        }
        "maxLength" => {
            characters(value).is_none_or(|count| count <= told.as_u64().expect("a number"))
        }
        "pattern" => {
            let pattern = told.as_str().expect("a pattern");
            value.as_str().is_none_or(|text| matches(pattern, text))
        }
        "description" | "format" => true,
        other => panic!("a schema says {other}, which is not judged here"),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{keyword} {told} does not hold"))
    }
}

thread_local! {
    /// Reading a pattern takes far longer than asking it.
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::default();
}

fn matches(pattern: &str, text: &str) -> bool {
    PATTERNS.with_borrow_mut(|patterns| {
        let read = || Regex::new(pattern).expect("a pattern");
        let known = patterns.entry(pattern.to_owned()).or_insert_with(read);
        known.is_match(text)
    })
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => integer(value).is_some(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("there is no type {other}"),
    }
}

/// Numbers with a fraction or an exponent are none here, as they are none to the node.
fn integer(value: &Value) -> Option<i128> {
    value
        .as_i64()
        .map(i128::from)
        .or(value.as_u64().map(i128::from))
}

fn characters(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

fn fitting(root: &Value, schemas: &Value, value: &Value) -> usize {
    let schemas = schemas.as_array().expect("a list");
    schemas
        .iter()
        .filter(|schema| validate(root, schema, value).is_ok())
        .count()
}

fn any_of(root: &Value, schemas: &Value, value: &Value) -> Result<(), String> {
    let first = &schemas[0];
    match fitting(root, schemas, value) {
        0 => Err(format!(
            "nothing of anyOf holds: {}",
            validate(root, first, value).unwrap_err()
        )),
        _ => Ok(()),
    }
}

fn properties(
    root: &Value,
    schema: &Map<String, Value>,
    told: &Value,
    value: &Value,
) -> Result<(), String> {
    for (name, field) in value.as_object().into_iter().flatten() {
        match told.get(name) {
            Some(known) => {
                validate(root, known, field).map_err(|problem| format!("{name}: {problem}"))?
            }
            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                return Err(format!("{name} is not told"));
            }
            None => {}
        }
    }
    Ok(())
}
