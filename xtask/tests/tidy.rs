//! Rules about the project's own files, checked as tests. What clippy, rustfmt and cargo-deny check is not here.
//!
//! Each rule is a function from text to complaints, so that a planted breach can prove that the rule bites.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Larger files are artefacts, which do not belong into a repository.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The folder with a workspace of its own: modules that the engine runs, for a target of their own.
const GUESTS: &str = "guests";
/// The fuzz target, which is a workspace of its own too.
const FUZZ: &str = "fuzz";

/// The arrows between the crates: who may depend on whom. Anything not named here may not.
const ARROWS: [(&str, &[&str]); 12] = [
    (
        "mvm-ci",
        &[
            "mvm-lab",
            "mvm-client",
            "mvm-node",
            "mvm-check",
            "mvm-queue",
            "mvm-exec",
            "mvm-flow",
            "mvm-machine",
        ],
    ),
    ("mvm-client", &["mvm-queue"]),
    ("mvm-lab", &["mvm-machine", "mvm-fabric", "mvm-agent"]),
    ("mvm-machine", &["mvm-agent"]),
    ("mvm-node", &["mvm-queue", "mvm-exec", "mvm-flow"]),
    // Its simulation is judged by the checker.
    ("mvm-queue", &["mvm-check"]),
    ("mvm-check", &[]),
    ("mvm-exec", &[]),
    ("mvm-fabric", &[]),
    ("mvm-flow", &[]),
    ("mvm-agent", &[]),
    ("xtask", &["mvm-machine"]),
];

/// The crates of the lab, which must stay quick to build.
const LAB: [&str; 4] = ["mvm-fabric", "mvm-agent", "mvm-machine", "mvm-lab"];
/// What takes minutes to build and is none of the lab's business; a name stands for its family too (`iroh-blobs`).
const HEAVY: [&str; 4] = ["hiqlite", "openraft", "iroh", "wasmtime"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// The project's files relative to the root: all but what `.gitignore` names.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let is_root = [root(), root().join(GUESTS)].contains(&folder);
            // In a second working tree `.git` is a file.
            if is_root && is_ignored(&entry.file_name().to_string_lossy()) {
                continue;
            }
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path().strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

fn is_ignored(name: &str) -> bool {
    matches!(name, ".git" | "target" | "runs") || name.starts_with("target-")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()))
}

fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    let rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    files().into_iter().filter(rust).map(|path| {
        let text = read(&path);
        (path, text)
    })
}

/// The manifests of the workspace's members, by package name.
fn manifests() -> BTreeMap<String, Table> {
    manifests_where(|path| !path.starts_with(GUESTS) && !path.starts_with(FUZZ))
}

/// The manifests of the guests, which are a workspace of their own, by package name.
fn manifests_of_guests() -> BTreeMap<String, Table> {
    manifests_where(|path| path.starts_with(GUESTS))
}

fn manifests_where(wanted: impl Fn(&Path) -> bool) -> BTreeMap<String, Table> {
    let workspaces = [
        Path::new("Cargo.toml"),
        &Path::new(GUESTS).join("Cargo.toml"),
    ];
    let manifest = |path: &PathBuf| {
        let is_manifest = path.file_name().is_some_and(|name| name == "Cargo.toml");
        is_manifest && !workspaces.contains(&path.as_path()) && wanted(path)
    };
    let parsed = files().into_iter().filter(manifest).map(|path| {
        let table: Table = read(&path)
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = table["package"]["name"].as_str().unwrap().to_owned();
        assert_eq!(
            path.parent().and_then(Path::file_name),
            Some(name.as_ref()),
            "a crate's folder has its name"
        );
        (name, table)
    });
    parsed.collect()
}

/// Every dependency of a manifest, of any kind and for any target.
fn dependencies(manifest: &Table) -> Vec<(&str, &Value)> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table);
    let per_target = targets
        .into_iter()
        .flat_map(|targets| targets.values().filter_map(Value::as_table));
    let tables = std::iter::once(manifest).chain(per_target);
    let tables =
        tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    tables
        .flat_map(|table| table.iter().map(|(name, value)| (name.as_str(), value)))
        .collect()
}

#[track_caller]
fn assert_none(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(
        complaints.is_empty(),
        "{} complaints:\n  {}",
        complaints.len(),
        complaints.join("\n  ")
    );
}

fn forbidden_arrows(name: &str, manifest: &Table) -> Vec<String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(source, _)| *source == name) else {
        return vec![format!(
            "{name}: a new crate; draw its arrows here and in ARCHITECTURE.md"
        )];
    };
    let ours = |target: &str| ARROWS.iter().any(|(source, _)| *source == target);
    let targets = dependencies(manifest).into_iter().map(|(target, _)| target);
    let wrong = targets.filter(|target| ours(target) && !allowed.contains(target));
    wrong
        .map(|target| format!("{name} must not depend on {target}"))
        .collect()
}

#[test]
fn the_arrows_between_crates_hold() {
    assert_none(
        manifests()
            .iter()
            .flat_map(|(name, manifest)| forbidden_arrows(name, manifest)),
    );
    let members: Vec<_> = manifests().into_keys().collect();
    let drawn: BTreeSet<_> = ARROWS
        .iter()
        .map(|(source, _)| (*source).to_owned())
        .collect();
    assert_eq!(
        members,
        drawn.into_iter().collect::<Vec<_>>(),
        "an arrow's end has no crate"
    );
}

#[test]
fn a_wrong_arrow_is_caught() {
    let manifest: Table = "[target.'cfg(unix)'.dev-dependencies]\nmvm-node = { workspace = true }"
        .parse()
        .unwrap();
    assert_eq!(
        forbidden_arrows("mvm-lab", &manifest),
        ["mvm-lab must not depend on mvm-node"]
    );
    assert_eq!(forbidden_arrows("mvm-ci", &manifest), [""; 0]);
    assert_eq!(forbidden_arrows("mvm-new", &manifest).len(), 1);
}

fn heavy_dependencies(lock: &Table) -> Vec<String> {
    let packages = lock["package"].as_array().unwrap();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages {
        let targets = package
            .get("dependencies")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        // An entry is `name`, or `name version` where the name is not enough.
        let targets =
            targets.filter_map(|target| Some(target.as_str()?.split(' ').next()?.to_owned()));
        edges.entry(name(package)).or_default().extend(targets);
    }
    LAB.iter()
        .flat_map(|crate_name| heavy_reached_from(crate_name, &edges))
        .collect()
}

fn heavy_reached_from(crate_name: &str, edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let heavy = |name: &str| {
        HEAVY
            .iter()
            .any(|heavy| name == *heavy || name.starts_with(&format!("{heavy}-")))
    };
    let mut reached = BTreeSet::from([crate_name.to_owned()]);
    let mut pending = vec![crate_name.to_owned()];
    let mut complaints = Vec::new();
    while let Some(name) = pending.pop() {
        let targets = edges
            .get(&name)
            .unwrap_or_else(|| panic!("{name} is not in Cargo.lock"));
        for target in targets {
            if heavy(target) {
                complaints.push(format!("{crate_name} reaches {target} through {name}"));
            }
            if reached.insert(target.clone()) {
                pending.push(target.clone());
            }
        }
    }
    complaints
}

#[test]
fn the_lab_is_quick_to_build() {
    assert_none(heavy_dependencies(&read("Cargo.lock").parse().unwrap()));
}

#[test]
fn a_heavy_dependency_is_caught_behind_others() {
    let lock = r#"
        package = [
            { name = "mvm-fabric" },
            { name = "mvm-agent" },
            { name = "mvm-machine", dependencies = ["innocent 2.0.0"] },
            { name = "mvm-lab", dependencies = ["mvm-machine"] },
            { name = "innocent", dependencies = ["mvm-agent"] },
            { name = "innocent", dependencies = ["iroh-blobs"] },
            { name = "iroh-blobs" },
        ]
    "#;
    let expected = [
        "mvm-machine reaches iroh-blobs through innocent",
        "mvm-lab reaches iroh-blobs through innocent",
    ];
    assert_eq!(heavy_dependencies(&lock.parse().unwrap()), expected);
}

fn unshared_settings(name: &str, manifest: &Table) -> Vec<String> {
    let inherits = |value: Option<&Value>| {
        value.and_then(|value| value.get("workspace")?.as_bool()) == Some(true)
    };
    let mut complaints = Vec::new();
    if !inherits(manifest.get("lints")) {
        complaints.push(format!("{name}: lints.workspace = true is missing"));
    }
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        if !inherits(manifest["package"].get(key)) {
            complaints.push(format!("{name}: {key}.workspace = true is missing"));
        }
    }
    let own = dependencies(manifest)
        .into_iter()
        .filter(|(_, value)| !inherits(Some(value)));
    complaints.extend(own.map(|(target, _)| {
        format!("{name}: {target} has a version of its own; the workspace's root names versions")
    }));
    complaints
}

#[test]
fn versions_and_lints_have_one_place() {
    assert_none(
        manifests()
            .iter()
            .chain(&manifests_of_guests())
            .flat_map(|(name, manifest)| unshared_settings(name, manifest)),
    );
}

#[test]
fn a_version_of_its_own_is_caught() {
    let manifest = "dependencies = { tar = '1', ar = { version = '1' }, tempfile = { workspace = true } }\npackage = {}";
    let complaints = unshared_settings("x", &manifest.parse().unwrap());
    let versions: Vec<_> = complaints
        .iter()
        .filter(|line| line.contains("of its own"))
        .collect();
    assert_eq!(versions.len(), 2, "{complaints:?}");
    assert!(
        complaints.contains(&"x: lints.workspace = true is missing".to_owned()),
        "{complaints:?}"
    );
}

/// What is wrong with one Rust file. The words are put together here lest this file complain of itself.
fn source_complaints(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!(
            "{shown}: does not open with `//!` and what lives here"
        ));
    }
    let unfinished = [concat!("to", "do!("), concat!("unimple", "mented!(")];
    let reasonless = concat!("#[ign", "ore]");
    for (number, line) in text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
    {
        if unfinished.iter().any(|word| line.contains(word)) {
            complaints.push(format!("{shown}:{number}: unfinished"));
        }
        if line.contains(reasonless) {
            complaints.push(format!(
                "{shown}:{number}: an ignored test without a reason"
            ));
        }
    }
    complaints
}

#[test]
fn every_source_says_what_lives_there_and_is_finished() {
    assert_none(sources().flat_map(|(path, text)| source_complaints(&path, &text)));
}

#[test]
fn bad_sources_are_caught() {
    let bad = concat!(
        "use std::fmt;\n    to",
        "do!()\n#[test]\n  #[ign",
        "ore]\nfn x() {}\n"
    );
    assert_eq!(source_complaints(Path::new("bad.rs"), bad).len(), 3);
    let good = concat!("//! Good.\n#[ign", "ore = \"takes an hour\"]\n");
    assert_eq!(source_complaints(Path::new("good.rs"), good), [""; 0]);
}

/// Paths and names of the machine something was written on, which say nothing on any other.
fn machine_traces(text: &str) -> Vec<&'static str> {
    let paths = [concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    let word = concat!("fa", "rm");
    let words = |text: &str| {
        text.split(|c: char| !c.is_alphanumeric())
            .any(|each| each.eq_ignore_ascii_case(word))
    };
    let mut traces: Vec<_> = paths
        .into_iter()
        .filter(|path| text.contains(path))
        .collect();
    traces.extend(words(text).then_some(word));
    traces
}

#[test]
fn no_file_is_large_or_tied_to_a_machine() {
    let complaints = files().into_iter().flat_map(|path| {
        let shown = path.display().to_string();
        let bytes = fs::metadata(root().join(&path)).unwrap().len();
        let large = (bytes > FILE_BYTES_MAX)
            .then(|| format!("{shown}: {bytes} bytes; {FILE_BYTES_MAX} are the most"));
        let content = fs::read(root().join(&path)).unwrap();
        let traces = machine_traces(&String::from_utf8_lossy(&content));
        let traces = traces
            .into_iter()
            .map(|trace| format!("{shown}: mentions {trace:?}"))
            .collect::<Vec<_>>();
        large.into_iter().chain(traces)
    });
    assert_none(complaints);
}

#[test]
fn traces_of_a_machine_are_caught() {
    assert_eq!(machine_traces(concat!("see /wo", "rk/main")).len(), 1);
    assert_eq!(machine_traces(concat!("the Fa", "rm's")).len(), 1);
    assert_eq!(machine_traces("platforms and workspaces"), [""; 0]);
}

#[test]
fn the_readme_names_the_two_commands() {
    let readme = read("README.md");
    for command in ["cargo xtask demo", "cargo xtask test"] {
        assert!(
            readme.contains(command),
            "README.md does not name `{command}`"
        );
    }
}
