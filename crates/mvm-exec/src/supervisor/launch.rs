//! Starts the job's own process, as clean as a login: its environment, descriptors, signals, session, limits.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use rustix::process::{Pid, Resource, Rlimit, Signal, getpid, getppid};

use crate::memory::Group;
use crate::spec::{DEFAULT_PATH, DiskPriority, Priority, Spec};
use crate::sys;

/// The nicest a process can be.
const NICE_MAX: u8 = 19;
/// As `IOPRIO_CLASS_BE`, and its last level.
const DISK_BEST_EFFORT: (i32, i32) = (2, 7);
/// As `IOPRIO_CLASS_IDLE`, which has no levels.
const DISK_IDLE: (i32, i32) = (3, 0);

/// Starts the job. Says in words what was in the way.
pub(super) fn launch(spec: &Spec, directory: &Path, group: Option<&Group>) -> Result<Pid, String> {
    let environment = environment(spec, directory);
    let path = environment.iter().rev().find(|(name, _)| name == "PATH");
    let program = find_program(&spec.program, path.map(|(_, value)| value), directory)?;
    let shown = spec.program.display();
    let mut command = Command::new(&program);
    let outputs = outputs().map_err(|error| format!("could not set up its output: {error}"))?;
    command
        .arg0(&spec.program)
        .args(&spec.arguments)
        .current_dir(directory)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(outputs.0)
        .stderr(outputs.1);
    prepare(&mut command, spec, group);
    let child = command
        .spawn()
        .map_err(|error| reason(&error, &shown.to_string(), &program))?;
    // The keeper reaps all its children itself.
    Ok(Pid::from_child(&child))
}

/// The clean environment, then the job's own variables.
fn environment(spec: &Spec, directory: &Path) -> Vec<(OsString, OsString)> {
    let base = [
        ("PATH", OsStr::new(DEFAULT_PATH)),
        ("HOME", directory.as_os_str()),
        ("LANG", OsStr::new("C.UTF-8")),
    ];
    let base = base.map(|(name, value)| (name.into(), value.to_owned()));
    base.into_iter()
        .chain(spec.environment.iter().cloned())
        .collect()
}

/// Copies of this process's own outputs, which are the job's pipes.
fn outputs() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok((
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?,
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?,
    ))
}

/// What the child does before it becomes the program. What fails here fails the start.
fn prepare(command: &mut Command, spec: &Spec, group: Option<&Group>) {
    let entrance = group.map(Group::entrance);
    // Without a control group the limit is per process, and on what it can write to.
    let data_limit = spec.memory_limit.filter(|_| group.is_none());
    let priority = spec.priority;
    let keeper = getpid();
    sys::before_exec(command, move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // A keeper that died before the line above would never send it.
        if getppid() != Some(keeper) {
            return Err(io::Error::other("its supervisor ended before it began"));
        }
        rustix::process::setsid()?;
        sys::reset_signals();
        rustix::process::umask(Mode::from_raw_mode(0o022));
        limit(Resource::Core, 0)?;
        if let Some(bytes) = data_limit {
            limit(Resource::Data, bytes)?;
        }
        if let Some(entrance) = &entrance {
            std::fs::write(entrance, "0")?;
        }
        prioritise(priority);
        Ok(())
    });
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

/// A wish, not a promise: a kernel without such priorities runs the job all the same.
fn prioritise(priority: Priority) {
    if priority.nice > 0 {
        let _ = rustix::process::nice(priority.nice.min(NICE_MAX).into());
    }
    let _ = match priority.disk {
        DiskPriority::Unchanged => Ok(()),
        DiskPriority::Low => sys::set_disk_priority(DISK_BEST_EFFORT.0, DISK_BEST_EFFORT.1),
        DiskPriority::Idle => sys::set_disk_priority(DISK_IDLE.0, DISK_IDLE.1),
    };
}

/// Finds the file of a program as a shell does, to say clearly why there is none.
fn find_program(
    program: &OsStr,
    path: Option<&OsString>,
    directory: &Path,
) -> Result<PathBuf, String> {
    let shown = program.display();
    if program.is_empty() {
        return Err("no program was named".to_owned());
    }
    if program.as_bytes().contains(&b'/') {
        let file = directory.join(program);
        return match std::fs::metadata(&file) {
            Ok(metadata) if is_program(&metadata) => Ok(file),
            Ok(_) => Err(format!(
                "the program `{shown}` is not an executable file; `chmod +x` makes it one"
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("the program `{shown}` does not exist"))
            }
            Err(error) => Err(format!("the program `{shown}`: {error}")),
        };
    }
    let path = path.map(OsString::as_os_str).unwrap_or_default();
    let mut files = std::env::split_paths(path).map(|folder| directory.join(folder).join(program));
    files
        .find(|file| std::fs::metadata(file).is_ok_and(|metadata| is_program(&metadata)))
        .ok_or_else(|| {
            format!(
                "the program `{shown}` does not exist in any folder of PATH ({})",
                path.display()
            )
        })
}

fn is_program(metadata: &std::fs::Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

/// The kernel's word on a program that exists.
fn reason(error: &io::Error, shown: &str, program: &Path) -> String {
    let what = match error.raw_os_error() {
        Some(libc::ENOENT) => "its interpreter does not exist; see its first line".to_owned(),
        Some(libc::EACCES) => "this user may not execute it".to_owned(),
        Some(libc::ENOEXEC) => "it is not a program for this machine".to_owned(),
        Some(libc::E2BIG) => "its arguments and environment are too long".to_owned(),
        _ => error.to_string(),
    };
    format!("the program `{shown}` ({}): {what}", program.display())
}
