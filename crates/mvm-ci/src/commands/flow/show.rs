//! `mvm-ci flow show`.

use std::io;

use mvm_flow::journal::Shown;

use super::{at, client::Client, state};
use crate::{
    cli::OneFlowArgs,
    commands::output::{self, Cell},
};

pub(super) async fn show(arguments: &OneFlowArgs) -> anyhow::Result<()> {
    let shown = Client::new(&arguments.engine)?.show(arguments.id).await?;
    let mut output = io::stdout().lock();
    match arguments.engine.json {
        true => output::json_line(&mut output, &shown)?,
        false => output::table(&mut output, &facts(&shown))?,
    }
    Ok(())
}

fn facts(shown: &Shown) -> Vec<Vec<Cell>> {
    let time = |time| output::time(at(time));
    let facts = [
        ("reason", shown.reason.clone()),
        ("until", shown.until.map(time)),
        (
            "module",
            Some(format!("{}:{}", shown.module, shown.version)),
        ),
        ("hash", Some(shown.hash.to_string())),
        ("workflow", Some(shown.workflow.clone())),
        ("input", Some(shown.input.clone())),
        ("started by", shown.parent.map(|parent| parent.to_string())),
        ("started", Some(time(shown.created_at))),
        ("changed", Some(time(shown.updated_at))),
        ("ended", shown.finished_at.map(time)),
        ("owners", Some(shown.epoch.0.to_string())),
        (
            "journal",
            Some(format!(
                "{} frames, {} bytes",
                shown.frames, shown.journal_bytes
            )),
        ),
        (
            "responded",
            shown.response.map(|frame| format!("at frame {frame}")),
        ),
        (
            "messages",
            (shown.messages > 0).then(|| format!("{} wait", shown.messages)),
        ),
    ];
    let mut rows = vec![
        vec![Cell::plain("id"), Cell::plain(shown.id.to_string())],
        vec![Cell::plain("state"), state(shown.state)],
    ];
    let told = facts
        .into_iter()
        .filter_map(|(name, fact)| Some((name, fact?)));
    rows.extend(told.map(|(name, fact)| vec![Cell::plain(name), Cell::plain(fact)]));
    rows
}
