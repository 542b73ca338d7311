//! How long machines take to be there, from one to a hundred, beside the bare kernel and the cold boot.
//!
//! Measures each thing once and prints one line of JSON per measurement; `cargo xtask bench boot` repeats it
//! and prints the medians. One machine by itself is in `one`, labs are in `labs`.

// The lines are this program's output, and a measurement that cannot be made ends it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod labs;
mod one;

use serde_json::json;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(one::measure());
    runtime.block_on(labs::measure());
}

fn print(name: &str, unit: &str, value: f64, at_most: Option<f64>) {
    println!(
        "{}",
        json!({ "name": name, "unit": unit, "value": value, "at_most": at_most })
    );
}
