//! Finds what a job left behind when its supervisor was killed: by a variable in its environment. The last
//! resort under a subreaper; under a PID namespace the kernel has killed all by then.

use std::fs;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable that every process of a job inherits, unless the job takes it away.
pub(super) const VARIABLE: &str = "MVM_EXEC_JOB";

/// How often to look again: a killed process takes a moment to end, and may have forked.
const ROUNDS: u32 = 100;

/// Returns a value that no other job has.
pub(super) fn new_mark() -> io::Result<String> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

/// Kills everybody who has the mark, until nobody has it. Blocks for as long as that takes, a second at most.
pub(super) fn kill(mark: &str) {
    let entry = format!("{VARIABLE}={mark}");
    for _ in 0..ROUNDS {
        if !kill_once(entry.as_bytes()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn kill_once(entry: &[u8]) -> bool {
    let mut found = false;
    for folder in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = folder
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw).filter(|pid| has(*pid, entry)) else {
            continue;
        };
        // Looked at again through the handle's eyes: the number may be somebody else's since.
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            && has(pid, entry)
        {
            found = true;
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    found
}

/// Whether the process was started with this variable. Empty for zombies and for other users' processes.
fn has(pid: Pid, entry: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
    environment.is_ok_and(|all| all.split(|byte| *byte == 0).any(|each| each == entry))
}
