//! Files and folders between the host and a machine.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use serde_json::Value;

use super::{
    commands::FOLDER,
    machine::Driven,
    session::Session,
    wire::{Done, Refusal},
};
use crate::node::{Node, NodeError};

/// The largest file that is copied out of a machine.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// The permission bits of a file.
const MODE_BITS: u32 = 0o7777;

impl Session<'_> {
    /// Copies a file or a folder of the host into a machine, links followed; to where `cp -r` would, run in [`FOLDER`].
    pub(super) async fn copy_from_host(
        &self,
        machine: &Driven,
        source: &str,
        target: &str,
    ) -> Done {
        let node = machine.up().await?;
        let source = Path::new(source);
        let found = tokio::fs::metadata(source).await;
        let is_folder = found.map_err(|error| unreadable(source, &error))?.is_dir();
        let target = place(node, source, target).await?;
        if !is_folder {
            upload(node, source, &target).await?;
            return Ok(Value::Null);
        }
        let mut folders = vec![(source.to_owned(), target)];
        while let Some((folder, place)) = folders.pop() {
            node.succeed(&format!("mkdir -p {}", quoted(&place)))
                .await?;
            let mut entries = tokio::fs::read_dir(&folder)
                .await
                .map_err(|error| unreadable(&folder, &error))?;
            while let Some(entry) = entries
                .next_entry()
                .await
                .map_err(|error| unreadable(&folder, &error))?
            {
                let path = entry.path();
                let name = entry.file_name();
                let place = format!("{place}/{}", name.to_string_lossy());
                match path.is_dir() {
                    true => folders.push((path, place)),
                    false => upload(node, &path, &place).await?,
                }
            }
        }
        Ok(Value::Null)
    }

    /// Copies a file or a folder of a machine into a folder below the run's, links followed.
    pub(super) async fn copy_from_machine(
        &self,
        machine: &Driven,
        source: &str,
        target: &str,
    ) -> Done {
        let node = machine.up().await?;
        let folder = below(self.run.folder.path(), target)?;
        let source = absolute(source);
        let source = source.trim_end_matches('/');
        let parent = source.rfind('/').map_or("", |end| &source[..=end]);
        for (kind, is_file) in [("d", false), ("f", true)] {
            let find = format!("find -L {} -type {kind} -print0", quoted(source));
            let listed = node.succeed(&find).await?;
            for path in listed.split('\0').filter(|path| !path.is_empty()) {
                let place = below(&folder, path.strip_prefix(parent).unwrap_or(path))?;
                match is_file {
                    true => download(node, path, &place).await?,
                    false => make_folder(&place).await?,
                }
            }
        }
        Ok(Value::Null)
    }
}

/// A path in a machine, seen from where its commands are run.
fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{FOLDER}/{path}"),
    }
}

/// Where a copy goes: into a folder that is there, under its own name, or else to just that place.
async fn place(node: &Node, source: &Path, target: &str) -> Result<String, Refusal> {
    let target = absolute(target);
    let is_folder = node
        .execute(&format!("test -d {}", quoted(&target)))
        .await?;
    let target = target.trim_end_matches('/');
    Ok(match (is_folder.success(), source.file_name()) {
        (true, Some(name)) => format!("{target}/{}", name.to_string_lossy()),
        _ => target.to_owned(),
    })
}

async fn download(node: &Node, path: &str, place: &Path) -> Result<(), Refusal> {
    let downloaded = node.agent()?.download(path, FILE_BYTES_MAX).await;
    let (content, _mode) = downloaded.map_err(|source| node.agent_error(source))?;
    make_folder(place.parent().unwrap_or(place)).await?;
    let written = tokio::fs::write(place, content).await;
    written.map_err(|error| unwritable(place, &error))
}

async fn make_folder(place: &Path) -> Result<(), Refusal> {
    let made = tokio::fs::create_dir_all(place).await;
    made.map_err(|error| unwritable(place, &error))
}

async fn upload(node: &Node, source: &Path, target: &str) -> Result<(), Refusal> {
    let opened = async {
        let file = tokio::fs::File::open(source).await?;
        let mode = file.metadata().await?.permissions().mode() & MODE_BITS;
        io::Result::Ok((file, mode))
    };
    let (file, mode) = opened.await.map_err(|error| unreadable(source, &error))?;
    let uploaded = node.agent()?.upload_from(target, mode, file).await;
    let uploaded: Result<(), NodeError> = uploaded.map_err(|error| node.agent_error(error));
    Ok(uploaded?)
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::value(format!("could not read {}: {error}", path.display()))
}

fn unwritable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::machine(format!("could not write {}: {error}", path.display()))
}

/// A path within a folder. What a guest calls its files must not lead out of it.
fn below(folder: &Path, name: &str) -> Result<PathBuf, Refusal> {
    let inside = Path::new(name)
        .components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    match inside {
        true => Ok(folder.join(name)),
        false => Err(Refusal::value(format!(
            "{name:?} is no path within {}",
            folder.display()
        ))),
    }
}

fn quoted(word: &str) -> String {
    crate::run_folder::shell_line(&[word.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_their_folder() {
        let folder = Path::new("/run");
        for (name, inside) in [
            ("", true),
            ("logs", true),
            ("./a/b", true),
            ("../a", false),
            ("a/../../b", false),
            ("/etc/passwd", false),
        ] {
            assert_eq!(below(folder, name).is_ok(), inside, "{name:?}");
        }
    }
}
