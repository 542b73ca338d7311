//! `mvm-ci doctor`: what this host has and lacks, what still works, and how to get the rest.

use std::{io::Write, process::ExitCode, sync::Arc};

use anyhow::Context;
use mvm_exec::{Isolation, Kind};
use mvm_lab::verdict::Verdict;
use mvm_machine::{
    accelerator,
    cache::Cache,
    host::{self, Finding, HostView, State, survey},
    image::Image,
    kernel::Kernel,
};

use crate::cli::DoctorArgs;

pub(super) async fn doctor(arguments: DoctorArgs) -> anyhow::Result<ExitCode> {
    let cache = Cache::for_user()?;
    let view = HostView::of_this_host(cache.root().to_owned());
    let mut found = survey(&view);
    // Each goes above what was added before.
    found.push(isolation().await?);
    if let Some(choice) = probe(&cache, &view).await? {
        found.push(Finding::accelerator(
            &choice.accelerator.to_string(),
            &choice.reason,
        ));
    }
    let mut output = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut output, &found)?;
        writeln!(output)?;
    } else {
        write!(output, "{}", found.table(|_, text| text.to_owned()))?;
    }
    let fit = found.blocking().next().is_none();
    Ok(ExitCode::from(if fit {
        0
    } else {
        Verdict::Unfit.exit_code()
    }))
}

/// Asks as a node does when it starts: with this program as supervisor.
async fn isolation() -> anyhow::Result<Finding> {
    let probed = tokio::task::spawn_blocking(Isolation::probe).await?;
    Ok(match probed {
        Ok(isolation) => {
            let state = match isolation.kind() {
                Kind::PidNamespace { .. } => State::Ok,
                Kind::Subreaper { .. } => State::Unfit,
            };
            Finding::job_isolation(state, isolation.to_string())
        }
        Err(error) => Finding::job_isolation(State::Missing, error.to_string()),
    })
}

/// Probes the accelerator if QEMU and a kernel are here already: a doctor looks and does not download.
async fn probe(cache: &Cache, view: &HostView) -> anyhow::Result<Option<accelerator::Choice>> {
    let (Ok(qemu), Some(kernel)) = (host::find_qemu(view), Kernel::cached(cache)) else {
        return Ok(None);
    };
    let image = Arc::new(Image::minimal(&kernel).build(cache)?);
    let scratch = mvm_lab::scratch::folder().context("could not make a temporary folder")?;
    let version = qemu.version.to_string();
    Ok(Some(
        accelerator::choose(cache, &qemu.path, &version, &image, scratch.path()).await,
    ))
}
