//! `mvm-ci image`: what was made for machines and lies in the cache.

use std::{
    io::Write,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use mvm_lab::storage;
use mvm_machine::cache::{Cache, Entry};
use serde_json::json;

use crate::cli::{ImageCommand, ImageListArgs, ImagePruneArgs};

pub(super) fn image(command: &ImageCommand) -> anyhow::Result<ExitCode> {
    let cache = Cache::for_user()?;
    match command {
        ImageCommand::List(arguments) => list(&cache, arguments),
        ImageCommand::Prune(arguments) => prune(&cache, arguments),
    }
}

fn list(cache: &Cache, arguments: &ImageListArgs) -> anyhow::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    let entries = storage::entries(cache);
    for entry in &entries {
        if arguments.json {
            writeln!(output, "{}", in_json(entry))?;
        } else {
            let in_use = if entry.in_use { "  in use" } else { "" };
            writeln!(
                output,
                "{:<14} {}  {:>9.1} MiB  used {} ago{in_use}",
                entry.shelf.name,
                entry.key.short(),
                mebibytes(entry.bytes),
                age(entry.used)
            )?;
        }
    }
    if !arguments.json {
        let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        writeln!(
            output,
            "{} entries, {:.1} MiB of at most {:.0} MiB in {}",
            entries.len(),
            mebibytes(bytes),
            mebibytes(storage::bytes_max()),
            cache.root().display()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn prune(cache: &Cache, arguments: &ImagePruneArgs) -> anyhow::Result<ExitCode> {
    let bytes_max = arguments
        .keep
        .map_or_else(storage::bytes_max, |gib| u64::from(gib) << 30);
    let freed = storage::shrink(cache, bytes_max);
    writeln!(
        std::io::stdout(),
        "removed {} entries, {:.1} MiB",
        freed.entries,
        mebibytes(freed.bytes)
    )?;
    Ok(ExitCode::SUCCESS)
}

fn in_json(entry: &Entry) -> serde_json::Value {
    let used = entry.used.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "shelf": entry.shelf.name,
        "key": entry.key.as_str(),
        "bytes": entry.bytes,
        "used_unix_s": used.as_secs(),
        "in_use": entry.in_use,
    })
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A time in the past, to the unit that tells enough.
fn age(used: SystemTime) -> String {
    let seconds = SystemTime::now()
        .duration_since(used)
        .unwrap_or_default()
        .as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
