//! How the automation calls cargo: the cargo that runs us, from the workspace's root, in a clean environment.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables that `cargo run` sets about *this* package. A child cargo or a build script of another package must
/// not take them for its own. What the user set, such as CARGO_HOME or CARGO_TARGET_DIR, is kept.
const ABOUT_US: [&str; 6] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_CRATE_NAME",
    "CARGO_BIN_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
];

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// A cargo command with these arguments.
///
/// It never waits for the cargo that started us: on Unix `cargo run` becomes the program it runs, so its build lock
/// is gone by now.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    for (name, _) in env::vars_os() {
        let about_us = name
            .to_str()
            .is_some_and(|name| ABOUT_US.contains(&name) || name.starts_with("CARGO_PKG_"));
        if about_us {
            command.env_remove(name);
        }
    }
    command
}
