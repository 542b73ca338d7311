//! The part of the host a survey looks at, as a value: tests hand in a made-up one.

use std::env;
use std::path::{Path, PathBuf};

/// Folders that hold system tools and are missing in a plain user's `PATH` on Debian.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where a survey looks.
#[derive(Clone, Debug)]
pub struct HostView {
    /// The folders searched for programs, in order.
    pub search_path: Vec<PathBuf>,
    /// The folder that stands for `/`, for `etc`, `proc`, `sys` and `boot`.
    pub root: PathBuf,
    /// The folder that keeps kernels and images; need not exist yet.
    pub cache: PathBuf,
    /// The folder in which runs keep their disks.
    pub temporary: PathBuf,
    /// The kernel named by the user, if any.
    pub given_kernel: Option<PathBuf>,
    /// A kernel already unpacked in the cache, if any.
    pub cached_kernel: Option<PathBuf>,
}

impl HostView {
    /// This host as its user sees it, with kernels and images below `cache`.
    ///
    /// Neither kernel is filled in: the caller knows the one on its command line, the kernel module the cached one.
    #[must_use]
    pub fn of_this_host(cache: PathBuf) -> Self {
        Self {
            search_path: search_path(),
            root: PathBuf::from("/"),
            cache,
            temporary: env::temp_dir(),
            given_kernel: None,
            cached_kernel: None,
        }
    }

    /// Finds an executable file called `name`.
    #[must_use]
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        self.search_path
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| is_executable(path))
    }
}

/// `PATH`, and after it the system tools' folders.
fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .collect();
    for folder in SYSTEM_FOLDERS.map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
