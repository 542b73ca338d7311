//! `mvm-ci cluster backup`.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use mvm_client::{BackupView, Client};
use serde_json::json;

use crate::{
    cli::{BackupCommand, FetchArgs},
    commands::{
        connect::InputError,
        output::{self, Cell},
    },
};

pub(super) async fn backup(
    client: &Client,
    command: BackupCommand,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match command {
        BackupCommand::List => list(client, json).await?,
        BackupCommand::Now => now(client, json).await?,
        BackupCommand::Fetch(arguments) => fetch(client, arguments, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let found = client.backups().await?;
    let mut output = io::stdout().lock();
    if json {
        for backup in &found.backups {
            output::json_line(&mut output, backup)?;
        }
        return Ok(());
    }
    let mut rows = vec![["NAME", "CREATED", "BYTES"].map(Cell::plain).to_vec()];
    rows.extend(found.backups.iter().map(row));
    Ok(output::table(&mut output, &rows)?)
}

fn row(backup: &BackupView) -> Vec<Cell> {
    let created = output::time(backup.created_at_ms);
    [backup.name.clone(), created, backup.bytes.to_string()]
        .map(Cell::plain)
        .into()
}

async fn now(client: &Client, json: bool) -> anyhow::Result<()> {
    let made = client.back_up().await?;
    let mut output = io::stdout().lock();
    match json {
        true => output::json_line(&mut output, &made)?,
        false => writeln!(output, "{}", output::printable(&made.name))?,
    }
    Ok(())
}

async fn fetch(client: &Client, arguments: FetchArgs, json: bool) -> anyhow::Result<()> {
    let name = match arguments.name {
        Some(name) => name,
        None => {
            let found = client.backups().await?;
            let node = found.node;
            let newest = found.backups.into_iter().next();
            newest.ok_or(InputError::NoBackup { node })?.name
        }
    };
    let file = match arguments.output {
        Some(file) => file,
        None => PathBuf::from(plain(&name)?),
    };
    if file.exists() {
        return Err(InputError::InTheWay { path: file }.into());
    }
    // A name that only what is whole has.
    let mut part = file.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let bytes = match write(client, &name, &part).await {
        Ok(bytes) => bytes,
        Err(error) => {
            // Nothing is lost with it.
            let _ = fs::remove_file(&part);
            return Err(error);
        }
    };
    fs::rename(&part, &file).with_context(|| format!("could not write {}", file.display()))?;
    let mut output = io::stdout().lock();
    match json {
        true => output::json_line(
            &mut output,
            &json!({ "name": name, "file": file, "bytes": bytes }),
        )?,
        false => writeln!(output, "{}", file.display())?,
    }
    Ok(())
}

/// A backup's name as a file's, which must lead nowhere else.
fn plain(name: &str) -> Result<&str, InputError> {
    match Path::new(name).file_name() {
        Some(file) if file == name => Ok(name),
        _ => Err(InputError::FileName { name: name.into() }),
    }
}

/// Writes a backup to a file, to the disk; answers with its length.
async fn write(client: &Client, name: &str, path: &Path) -> anyhow::Result<u64> {
    let failed = || format!("could not write {}", path.display());
    let mut download = client.fetch_backup(name).await?;
    let mut file = File::create(path).with_context(failed)?;
    let mut bytes = 0;
    while let Some(piece) = download.next().await? {
        file.write_all(&piece).with_context(failed)?;
        bytes += piece.len() as u64;
    }
    file.sync_all().with_context(failed)?;
    Ok(bytes)
}
