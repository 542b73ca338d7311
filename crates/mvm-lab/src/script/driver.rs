//! The Python side, carried in this program.

use std::{io, path::Path};

/// The package beside the file that is run.
const PACKAGE: &str = "mvm_ci_driver";
/// What is run.
const MAIN: &str = include_str!("python/__main__.py");
/// The files of the package, by name.
const FILES: &[(&str, &str)] = &[
    (
        "__init__.py",
        include_str!("python/mvm_ci_driver/__init__.py"),
    ),
    (
        "duration.py",
        include_str!("python/mvm_ci_driver/duration.py"),
    ),
    ("engine.py", include_str!("python/mvm_ci_driver/engine.py")),
    ("errors.py", include_str!("python/mvm_ci_driver/errors.py")),
    ("log.py", include_str!("python/mvm_ci_driver/log.py")),
    (
        "machine.py",
        include_str!("python/mvm_ci_driver/machine.py"),
    ),
    (
        "network.py",
        include_str!("python/mvm_ci_driver/network.py"),
    ),
    ("repl.py", include_str!("python/mvm_ci_driver/repl.py")),
    ("script.py", include_str!("python/mvm_ci_driver/script.py")),
    (
        "waiting.py",
        include_str!("python/mvm_ci_driver/waiting.py"),
    ),
    ("world.py", include_str!("python/mvm_ci_driver/world.py")),
];

/// Writes the Python side into a folder.
pub(super) fn write(folder: &Path) -> io::Result<()> {
    let package = folder.join(PACKAGE);
    std::fs::create_dir(&package)?;
    std::fs::write(folder.join("__main__.py"), MAIN)?;
    FILES
        .iter()
        .try_for_each(|(name, text)| std::fs::write(package.join(name), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_carried() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/script/python/mvm_ci_driver");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".py"))
            .collect();
        there.sort();
        let carried: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(there, carried);
    }
}
