//! The words of the survey: a requirement, what was found for it, and what to do. Nothing here looks at the host.

use serde::Serialize;

/// Something the lab wants from its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// The emulator that runs the machines.
    Qemu,
    /// How machines are executed: hardware virtualisation or emulation.
    Accelerator,
    /// A kernel for the guests.
    Kernel,
    /// The maker of the machines' data disks.
    Mke2fs,
    /// The guests' shell and small tools.
    Busybox,
    /// The distribution's package tools.
    Apt,
    /// Free memory.
    Memory,
    /// Free space where kernels and images are kept.
    CacheFolder,
    /// Free space where runs keep their disks.
    TemporaryFolder,
    /// The interpreter of scenario scripts.
    Python,
    /// What holds the processes of a node's job together.
    JobIsolation,
    /// The programs that build Debian images.
    DebianImages,
}

impl Requirement {
    /// The name for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU",
            Self::Accelerator => "accelerator",
            Self::Kernel => "kernel source",
            Self::Mke2fs => "mke2fs",
            Self::Busybox => "BusyBox",
            Self::Apt => "apt tools",
            Self::Memory => "memory",
            Self::CacheFolder => "cache folder",
            Self::TemporaryFolder => "temporary folder",
            Self::Python => "Python",
            Self::JobIsolation => "job isolation",
            Self::DebianImages => "Debian images",
        }
    }
}

/// Whether the lab can boot a machine at all without a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Necessity {
    /// No machine boots without it.
    Required,
    /// Something works without it; [`Finding::without`] says what.
    Advised,
}

/// What a look at one requirement gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is there and good enough.
    Ok,
    /// It is not there.
    Missing,
    /// It is there, older than what is needed.
    TooOld,
    /// It is there and cannot be used, or there is not enough of it.
    Unfit,
}

impl State {
    /// The word for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::TooOld => "too old",
            Self::Unfit => "unfit",
        }
    }
}

/// How to get what is not ok.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// The distribution packages that bring it; empty when no package does, or none is known here.
    pub packages: Vec<String>,
    /// What to do, as a sentence fragment or a command.
    pub advice: String,
}

impl Remedy {
    /// A remedy that no package brings.
    pub(super) fn advice(advice: impl Into<String>) -> Self {
        Self {
            packages: Vec::new(),
            advice: advice.into(),
        }
    }
}

/// One line of the survey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked for.
    pub requirement: Requirement,
    /// Whether machines boot without it.
    pub necessity: Necessity,
    /// What the look gave.
    pub state: State,
    /// The evidence: a version and a path, a number, or what went wrong.
    pub found: String,
    /// What works without it, and what does not.
    pub without: String,
    /// How to get it; `None` when it is ok.
    pub remedy: Option<Remedy>,
}

impl Finding {
    /// The accelerator's line, from the probe's answer: its name, as `tcg`, and the reason for the choice.
    #[must_use]
    pub fn accelerator(name: &str, reason: &str) -> Self {
        Self {
            requirement: Requirement::Accelerator,
            necessity: Necessity::Advised,
            state: State::Ok,
            found: format!("{name}: {reason}"),
            without: "emulation always works".to_owned(),
            remedy: None,
        }
    }

    /// The line of what holds a job's processes together, which a node finds out by trying.
    #[must_use]
    pub fn job_isolation(state: State, found: impl Into<String>) -> Self {
        let advice = "run nodes as root, or allow user namespaces (kernel.unprivileged_userns_clone, user.max_user_namespaces)";
        Self {
            requirement: Requirement::JobIsolation,
            necessity: Necessity::Advised,
            state,
            found: found.into(),
            without: "a job that kills its supervisor can outlive its end".to_owned(),
            remedy: (state != State::Ok).then(|| Remedy::advice(advice)),
        }
    }

    /// What was looked for, found and can be done, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let advice = self
            .remedy
            .as_ref()
            .map_or(String::new(), |remedy| format!("; {}", remedy.advice));
        format!(
            "{} is {}: {}{advice}",
            self.requirement.label(),
            self.state.label(),
            self.found
        )
    }

    /// Whether this finding alone keeps every machine from booting.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.necessity == Necessity::Required && self.state != State::Ok
    }
}
