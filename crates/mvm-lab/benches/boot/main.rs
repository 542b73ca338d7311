//! How long machines take to be there, from one to a hundred, beside the bare kernel and the cold boot.
//!
//! Measures each thing once and prints one line of JSON per measurement; `cargo xtask bench boot` repeats it
//! and prints the medians. One machine by itself is in `one`, labs are in `labs`.
//!
//! By hand, `cargo bench -p mvm-lab --bench boot -- crowds` measures one part only: `one`, `crowds` or `live`; and
//! `crowds 20` one crowd.

// The lines are this program's output, and a measurement that cannot be made ends it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod labs;
mod one;

use serde_json::json;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        match words[..] {
            [] => {
                one::measure().await;
                labs::crowds(None).await;
                labs::live().await;
            }
            ["one"] => one::measure().await,
            ["crowds"] => labs::crowds(None).await,
            ["crowds", machines] => labs::crowds(Some(machines.parse().unwrap())).await,
            ["live"] => labs::live().await,
            [..] => panic!("there is no part {}", words.join(" ")),
        }
    });
}

fn print(name: &str, unit: &str, value: f64, at_most: Option<f64>) {
    println!(
        "{}",
        json!({ "name": name, "unit": unit, "value": value, "at_most": at_most })
    );
}
