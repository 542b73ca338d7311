//! Files and folders between the host and a machine.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use serde_json::Value;

use super::{
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
    /// Copies a file or a folder of the host into a machine, links followed.
    pub(super) async fn copy_from_host(
        &self,
        machine: &Driven,
        source: &str,
        target: &str,
    ) -> Done {
        let node = machine.up().await?;
        let source = Path::new(source);
        let mut folders = vec![(source.to_owned(), target.trim_end_matches('/').to_owned())];
        if source.is_file() {
            upload(node, source, target).await?;
            return Ok(Value::Null);
        }
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

    /// Copies a file or a folder of a machine into a folder below the run's.
    pub(super) async fn copy_from_machine(
        &self,
        machine: &Driven,
        source: &str,
        target: &str,
    ) -> Done {
        let node = machine.up().await?;
        let folder = below(self.run.folder.path(), target)?;
        let source = source.trim_end_matches('/');
        let parent = source.rfind('/').map_or("", |end| &source[..=end]);
        let listed = node
            .succeed(&format!("find {} -type f -print0", quoted(source)))
            .await?;
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            let name = path.strip_prefix(parent).unwrap_or(path);
            let place = below(&folder, name)?;
            let downloaded = node.agent()?.download(path, FILE_BYTES_MAX).await;
            let (content, _mode) = downloaded.map_err(|source| node.agent_error(source))?;
            let written = async {
                tokio::fs::create_dir_all(place.parent().unwrap_or(&folder)).await?;
                tokio::fs::write(&place, content).await
            };
            written.await.map_err(|error| {
                Refusal::machine(format!("could not write {}: {error}", place.display()))
            })?;
        }
        Ok(Value::Null)
    }
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
