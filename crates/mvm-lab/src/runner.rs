//! Runs one scenario from the host's inspection to the verdict, and leaves nothing behind but its folder.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    control::Control,
    environment::{Environment, EnvironmentOptions},
    event::{EVENTS_VERSION, Event, LineListener, Listener, Recorder},
    lab::{Lab, StartBy},
    prepared,
    run_folder::{RunFolder, RunFolderError, VerdictFile, shell_line},
    scenario::{Failure, Outcome, Preparation, Run, Scenario, milliseconds},
    seed::{SEED_VARIABLE, Seed, SeedError},
    topology::Topology,
    verdict::Verdict,
};

/// How to run a scenario.
pub struct RunOptions {
    /// Where run folders are made.
    pub runs: PathBuf,
    /// Whether all that passes the network is recorded, to `network.pcapng` in the run folder.
    pub capture: bool,
    /// The command line that runs the scenario again.
    pub command: Vec<String>,
    /// What to take from the host.
    pub environment: EnvironmentOptions,
    /// How machines come up, and whether what was prepared once is used again.
    pub start: StartBy,
    /// What random choices are made from, instead of what [`SEED_VARIABLE`] says or is drawn.
    pub seed: Option<Seed>,
    /// Whether the machines live on for a while when the scenario is done.
    pub stay: Stay,
    /// Who hears of the events.
    pub listeners: Vec<Listener>,
    /// Who hears of every line that the guests say.
    pub lines: Option<LineListener>,
}

impl RunOptions {
    /// Machines resume where they can and end with their scenario, the host is taken as it is found, and nobody hears
    /// of anything: the run folder, made in `runs`, tells what happened, and that `command` runs it again.
    pub fn new(runs: PathBuf, command: impl IntoIterator<Item = impl Into<String>>) -> RunOptions {
        RunOptions {
            runs,
            capture: false,
            command: command.into_iter().map(Into::into).collect(),
            environment: EnvironmentOptions::default(),
            start: StartBy::Snapshot,
            seed: None,
            stay: Stay::Never,
            listeners: Vec::new(),
            lines: None,
        }
    }
}

/// Whether machines stay when their scenario is done, until a signal that would otherwise have ended the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// They never do.
    Never,
    /// They do after a scenario that did not pass, to be looked at.
    Unpassed,
    /// They do after a scenario that passed: it brought them up to be used.
    Passed,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, unless it passed.
    pub message: Option<String>,
    /// The folder it left.
    pub folder: PathBuf,
}

/// Why a run could not even begin or conclude.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The seed asked for is none.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The run folder could not be written.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// The event file could not be made.
    #[error("could not create the event file {path:?}: {source}")]
    Events {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Signals could not be listened for.
    #[error("could not listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs `scenario` to its verdict.
///
/// `SIGINT` and `SIGTERM` end it in order: machines are killed, temporary files removed, the folder
/// concluded. A second one kills the process, which the watcher then cleans up after.
///
/// Random choices are made from a seed, which is noted: [`SEED_VARIABLE`] with that seed makes them again.
pub async fn run(scenario: &Scenario, mut options: RunOptions) -> Result<Report, RunError> {
    let started = Instant::now();
    let seed = match options.seed {
        Some(seed) => seed,
        None => Seed::of_environment()?,
    };
    let command = with_seed(seed, &options.command);
    let mut interrupts = Interrupts::listen().map_err(RunError::Signals)?;
    let folder = RunFolder::create(&options.runs, &scenario.name)?;
    let listeners = std::mem::take(&mut options.listeners);
    let recorder =
        Recorder::create(&folder.events(), listeners, options.lines.take()).map_err(|source| {
            RunError::Events {
                path: folder.events(),
                source,
            }
        })?;
    recorder.record(Event::RunStarted {
        version: EVENTS_VERSION,
        scenario: scenario.name.to_string(),
        lab_version: env!("CARGO_PKG_VERSION").to_owned(),
        unix_ms: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, milliseconds),
        command: command.clone(),
    });

    recorder.record(Event::Note {
        text: format!("seed {seed}; {SEED_VARIABLE}={seed} repeats the network's random choices"),
    });

    let (run, mut outcome) = tokio::select! {
        attempted = attempt(scenario, &options, seed, &folder, &recorder) => attempted,
        name = interrupts.next() => (None, Err(interrupted(name))),
    };
    if let Some(run) = run {
        if options.stay.applies_to(&outcome) {
            tell_attaching(&run, &outcome);
            let _ = interrupts.next().await;
        }
        tokio::select! {
            () = run.lab.end() => {}
            name = interrupts.next() => outcome = outcome.and(Err(interrupted(name))),
        }
    }
    let (verdict, message) = match outcome {
        Ok(()) => (Verdict::Passed, None),
        Err(failure) => (failure.verdict, Some(failure.message)),
    };
    let duration_ms = milliseconds(started.elapsed());
    recorder.record(Event::RunEnded {
        verdict,
        message: message.clone(),
        duration_ms,
    });
    folder.conclude(&VerdictFile {
        scenario: &scenario.name,
        verdict,
        exit_code: verdict.exit_code(),
        message: message.as_deref(),
        duration_ms,
        command: &command,
    })?;
    Ok(Report {
        verdict,
        message,
        folder: folder.path().to_owned(),
    })
}

/// The command that repeats a run, the network's random choices included.
fn with_seed(seed: Seed, command: &[String]) -> Vec<String> {
    let environment = ["env".to_owned(), format!("{SEED_VARIABLE}={seed}")];
    environment
        .into_iter()
        .chain(command.iter().cloned())
        .collect()
}

fn interrupted(signal: &str) -> Failure {
    Failure {
        verdict: Verdict::Interrupted,
        message: format!("stopped by {signal}"),
    }
}

impl Stay {
    fn applies_to(self, outcome: &Outcome) -> bool {
        match self {
            Stay::Never => false,
            Stay::Unpassed => outcome.is_err(),
            Stay::Passed => outcome.is_ok(),
        }
    }
}

/// Tells people how they come to machines that stay.
fn tell_attaching(run: &Run, outcome: &Outcome) {
    if let Err(failure) = outcome {
        run.note(format!("{}: {}", failure.verdict.word(), failure.message));
    }
    let names: Vec<_> = run.lab.nodes().map(|node| node.name()).collect();
    let folder = shell_line(&[run.folder.path().to_string_lossy().into_owned()]);
    run.note(format!(
        "the machines stay until Ctrl-C: {}",
        names.join(", ")
    ));
    run.note(format!(
        "a terminal in one, from elsewhere: mvm-ci ssh --run {folder} {}",
        names.first().copied().unwrap_or_default()
    ));
}

/// Prepares, builds and runs; dropping the future, or the run that comes with the outcome, kills the machines.
async fn attempt(
    scenario: &Scenario,
    options: &RunOptions,
    seed: Seed,
    folder: &RunFolder,
    recorder: &Recorder,
) -> (Option<Run>, Outcome) {
    let (run, preparation) = match set_up(scenario, options, seed, folder, recorder).await {
        Ok(set_up) => set_up,
        Err(failure) => return (None, Err(failure)),
    };
    let steps = async {
        if let Some(preparation) = preparation {
            (preparation.run)(&run).await?;
        }
        (scenario.run)(&run).await
    };
    let outcome = steps.await;
    (Some(run), outcome)
}

/// Looks at the host and builds the lab; returns it with the preparation that is still to be done.
async fn set_up<'a>(
    scenario: &'a Scenario,
    options: &RunOptions,
    seed: Seed,
    folder: &RunFolder,
    recorder: &Recorder,
) -> Outcome<(Run, Option<&'a Preparation>)> {
    let topology = &scenario.topology;
    let environment = Environment::prepare(&options.environment, topology, folder.path())
        .await
        .map_err(|error| Failure {
            verdict: Verdict::Unfit,
            message: error.to_string(),
        })?;
    recorder.record(Event::Environment {
        qemu: environment.qemu_version.clone(),
        kernel: environment.kernel_release.clone(),
        accelerator: environment.accelerator.to_string(),
    });
    let stage = Stage {
        environment: Arc::new(environment),
        start: options.start,
        capture: options.capture,
        seed,
        folder,
        recorder,
    };
    Ok(match (&scenario.prepare, options.start) {
        (Some(preparation), StartBy::Snapshot) => {
            let run = prepared::prepared(&stage, topology, preparation).await?;
            (run, None)
        }
        (preparation, _) => (stage.build(topology).await?, preparation.as_ref()),
    })
}

/// What a run's labs are built from.
pub(crate) struct Stage<'a> {
    pub(crate) environment: Arc<Environment>,
    pub(crate) start: StartBy,
    capture: bool,
    pub(crate) seed: Seed,
    pub(crate) folder: &'a RunFolder,
    pub(crate) recorder: &'a Recorder,
}

impl Stage<'_> {
    /// Sets up a lab with all machines off.
    pub(crate) async fn build(&self, topology: &Topology) -> Outcome<Run> {
        let (environment, start) = (&self.environment, self.start);
        let (seed, folder) = (self.seed, self.folder);
        let lab = Lab::build(topology, environment, start, seed, folder, self.recorder).await?;
        if self.capture {
            lab.capture_all()?;
        }
        let control = Control::open(lab.nodes(), self.folder);
        let control = control.inspect_err(|error| {
            self.recorder.record(Event::Warning {
                text: format!("nobody can attach to the machines: {error}"),
            });
        });
        Ok(Run {
            lab,
            folder: self.folder.clone(),
            control: control.ok(),
            recorder: self.recorder.clone(),
        })
    }
}

/// The signals that ask a run to end.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> std::io::Result<Interrupts> {
        Ok(Interrupts {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
