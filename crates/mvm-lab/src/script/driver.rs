//! The Python side, carried in this program.

use std::{io, path::Path};

/// The files of the folder that `python3` is given, by name.
const FILES: &[(&str, &str)] = &[
    ("__main__.py", include_str!("python/__main__.py")),
    ("duration.py", include_str!("python/duration.py")),
    ("engine.py", include_str!("python/engine.py")),
    ("errors.py", include_str!("python/errors.py")),
    ("log.py", include_str!("python/log.py")),
    ("machine.py", include_str!("python/machine.py")),
    ("network.py", include_str!("python/network.py")),
    ("repl.py", include_str!("python/repl.py")),
    ("script.py", include_str!("python/script.py")),
    ("waiting.py", include_str!("python/waiting.py")),
    ("world.py", include_str!("python/world.py")),
];

/// Writes the Python side into a folder.
pub(super) fn write(folder: &Path) -> io::Result<()> {
    FILES
        .iter()
        .try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_carried() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/script/python");
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
