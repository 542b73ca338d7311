//! Why a Debian root could not be built, in the words of whoever asked for the image.

use std::path::PathBuf;

use crate::{files::FileError, process::ProcessError};

/// A Debian root could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// Programs are missing on this host.
    #[error(
        "could not find {}, which Debian images are built with; `apt-get install --no-install-recommends mmdebstrap squashfs-tools` brings them",
        names.join(" and ")
    )]
    Tools {
        /// Their names.
        names: Vec<&'static str>,
    },
    /// The suite has no such package.
    #[error(
        "could not install {package}: Debian {suite} has no package of this name; `apt-cache search` on a host of this suite finds names"
    )]
    NoPackage {
        /// The package.
        package: String,
        /// The suite.
        suite: String,
    },
    /// The disk is full.
    #[error(
        "could not build an image of Debian {suite}: no space is left in {}",
        folders.iter().map(|folder| format!("{folder:?}")).collect::<Vec<_>>().join(" or ")
    )]
    NoSpace {
        /// The suite.
        suite: String,
        /// Where it was built.
        folders: Vec<PathBuf>,
    },
    /// A program failed.
    #[error("could not build an image of Debian {suite}: {program} ended with {how}: {evidence}")]
    Failed {
        /// The suite.
        suite: String,
        /// Which one.
        program: &'static str,
        /// How it ended.
        how: String,
        /// What it said last.
        evidence: String,
    },
    /// A program could not be started.
    #[error(transparent)]
    Start(#[from] ProcessError),
    /// The machine in which it was to be built was none.
    #[error("could not build an image of Debian in a machine, as is done where {reason}: {source}")]
    Machine {
        /// Why it was not built on the host.
        reason: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}
