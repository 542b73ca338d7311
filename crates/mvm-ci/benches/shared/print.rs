//! One line of JSON per measurement, as `cargo xtask bench` reads them.

use std::time::Duration;

use serde_json::json;

pub(crate) fn say(clients: usize) -> String {
    let plural = if clients == 1 { "" } else { "s" };
    format!("{clients} client{plural}")
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(crate) fn print(name: &str, unit: &str, value: f64) {
    println!("{}", json!({ "name": name, "unit": unit, "value": value }));
}

pub(crate) fn print_at_least(name: &str, unit: &str, value: f64, at_least: f64) {
    println!(
        "{}",
        json!({ "name": name, "unit": unit, "value": value, "at_least": at_least })
    );
}

pub(crate) fn print_at_most(name: &str, unit: &str, value: f64, at_most: f64) {
    println!(
        "{}",
        json!({ "name": name, "unit": unit, "value": value, "at_most": at_most })
    );
}
