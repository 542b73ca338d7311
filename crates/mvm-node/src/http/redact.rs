//! Keeps secrets in payloads from whoever only looks at jobs.

use std::borrow::Cow;

use mvm_queue::JobSpec;
use serde_json::Value;

/// The field of a payload, of any kind, whose values only workers see.
pub(super) const SECRET_FIELD: &str = "secret_environment";

/// Stands for a value.
const HIDDEN: &str = "***";

/// What of a job may be shown: all but the values of [`SECRET_FIELD`].
pub(super) fn shown(spec: &JobSpec) -> Cow<'_, JobSpec> {
    if spec.payload.get(SECRET_FIELD).is_none() {
        return Cow::Borrowed(spec);
    }
    let mut spec = spec.clone();
    match spec.payload.get_mut(SECRET_FIELD) {
        Some(Value::Object(secrets)) => secrets
            .values_mut()
            .for_each(|value| *value = HIDDEN.into()),
        // Of a kind that means something else by it; no reason to show that.
        Some(other) => *other = HIDDEN.into(),
        None => {}
    }
    Cow::Owned(spec)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_hidden_and_names_are_not() {
        for (payload, expected) in [
            (json!({"script": "x"}), json!({"script": "x"})),
            (
                json!({"script": "x", "secret_environment": {"A": "hush", "B": {"c": 1}}}),
                json!({"script": "x", "secret_environment": {"A": "***", "B": "***"}}),
            ),
            (
                json!({"secret_environment": ["hush"]}),
                json!({"secret_environment": "***"}),
            ),
            (json!("text"), json!("text")),
        ] {
            assert_eq!(shown(&JobSpec::new("any", payload)).payload, expected);
        }
    }
}
