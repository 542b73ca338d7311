//! A scenario: a topology and steps on it, each reported with its name and duration.

use std::{
    borrow::Cow,
    error::Error,
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use crate::{
    checkpoint::CheckpointError,
    control::Control,
    event::{Event, Recorder, StepOutcome},
    lab::{Lab, LabError},
    network::NetworkError,
    node::NodeError,
    run_folder::RunFolder,
    topology::Topology,
    verdict::Verdict,
    wait::WaitError,
};

/// Why a step did not hold.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// [`Verdict::Failed`] if the system under test is to blame, [`Verdict::Unknown`] if the lab is.
    pub verdict: Verdict,
    /// What was tried, found and last observed.
    pub message: String,
}

impl Failure {
    /// The system under test broke a promise.
    pub fn broken(message: impl Into<String>) -> Failure {
        Failure {
            verdict: Verdict::Failed,
            message: message.into(),
        }
    }

    /// The lab had trouble.
    pub fn trouble(error: &dyn Error) -> Failure {
        Failure {
            verdict: Verdict::Unknown,
            message: error.to_string(),
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Failure {
        let verdict = if error.is_assertion() {
            Verdict::Failed
        } else {
            Verdict::Unknown
        };
        Failure {
            verdict,
            message: error.to_string(),
        }
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Failure {
        Failure::broken(error.to_string())
    }
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Failure {
        Failure::trouble(&error)
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Failure {
        Failure::trouble(&error)
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Failure {
        let unfit = matches!(error, LabError::Topology(_) | LabError::Memory(_));
        let verdict = if unfit {
            Verdict::Unfit
        } else {
            Verdict::Unknown
        };
        Failure {
            verdict,
            message: error.to_string(),
        }
    }
}

/// What a step or a scenario comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A future that a scenario's function returns.
pub type ScenarioFuture<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Something to try on machines.
pub struct Scenario {
    /// The name on the command line.
    pub name: Cow<'static, str>,
    /// One line for a listing.
    pub about: Cow<'static, str>,
    /// The machines it needs.
    pub topology: Topology,
    /// What must have happened before. The runner does it once, keeps a checkpoint, and starts each scenario with
    /// the same preparation and topology from there; without one a scenario finds all machines off.
    pub prepare: Option<Preparation>,
    /// What to do with them.
    pub run: Steps,
}

/// What a scenario does with its machines.
pub type Steps = Box<dyn for<'a> Fn(&'a Run) -> ScenarioFuture<'a> + Send + Sync>;

/// What several scenarios begin with: booting machines and forming a cluster, say.
pub struct Preparation {
    /// The checkpoint's name: what the machines are when it is done, such as "formed".
    pub name: &'static str,
    /// How they become that.
    pub run: for<'a> fn(&'a Run) -> ScenarioFuture<'a>,
}

/// A scenario under way.
pub struct Run {
    /// The machines and the network.
    pub lab: Lab,
    /// Where it leaves its files.
    pub folder: RunFolder,
    /// Where other processes ask for it, if it could be opened.
    pub control: Option<Control>,
    pub(crate) recorder: Recorder,
}

impl Run {
    /// Does one step: reports its beginning, its end and its duration.
    pub async fn step<T>(&self, name: &str, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let started = Instant::now();
        self.recorder.record(Event::StepStarted {
            step: name.to_owned(),
        });
        let result = work.await;
        let outcome = match &result {
            Ok(_) => StepOutcome::Passed,
            Err(failure) => StepOutcome::Failed {
                verdict: failure.verdict,
                message: failure.message.clone(),
            },
        };
        self.recorder.record(Event::StepEnded {
            step: name.to_owned(),
            outcome,
            duration_ms: milliseconds(started.elapsed()),
        });
        result
    }

    /// Puts a line, such as a measurement, into the reports.
    pub fn note(&self, text: impl Into<String>) {
        self.recorder.record(Event::Note { text: text.into() });
    }
}

/// Milliseconds as the events count them.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Fails the step with a formatted message unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::scenario::Failure::broken(format!($($message)+)));
        }
    };
}
