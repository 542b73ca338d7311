//! Judges the history of a run again: `cargo run -p mvm-check --example judge -- HISTORY [LEASE_MS]`. Without a lease, jobs are only
//! expected to be kept.

// A program for people.
#![allow(clippy::print_stdout)]

use std::{error::Error, process::ExitCode, time::Duration};

use mvm_check::{Ends, History, Rules, judge};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("the history's file is missing")?;
    let lease = arguments.next().map(|lease| lease.parse()).transpose()?;
    let rules = Rules {
        lease: lease.map(Duration::from_millis),
        ends: match lease {
            Some(_) => Ends::Completed,
            None => Ends::Kept,
        },
    };
    let history = History::parse(&std::fs::read_to_string(file)?)?;
    let violations = judge(&history, rules);
    for violation in &violations {
        println!("{violation}");
    }
    println!(
        "{} operations, {} violations",
        history.operations().len(),
        violations.len()
    );
    Ok(match violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
