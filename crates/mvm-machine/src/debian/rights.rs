//! With whose rights a root is built on this host.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// How mmdebstrap comes by the rights of root in the tree it builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// We are root.
    Root,
    /// In a user namespace.
    Namespace,
    /// In a machine of ours.
    Machine {
        /// Why nothing quicker will do.
        reason: String,
    },
}

impl Rights {
    /// Finds out by trying, which takes `mmdebstrap` a fraction of a second.
    pub fn on_this_host(mmdebstrap: &Path) -> Rights {
        if rustix::process::geteuid().is_root() {
            return Rights::Root;
        }
        let tried = Command::new(mmdebstrap)
            .args(["--unshare-helper", "true"])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output();
        let said = match tried {
            Ok(output) if output.status.success() => return Rights::Namespace,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let told = said.lines().find(|line| !line.trim().is_empty());
        let told = told.map_or("", |line| line.trim_start_matches(['E', 'W', ':', ' ']));
        Rights::Machine {
            reason: format!("a plain user has no user namespaces ({told})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_namespace_builds_in_a_machine() {
        if rustix::process::geteuid().is_root() {
            assert_eq!(Rights::on_this_host(Path::new("/bin/false")), Rights::Root);
            return;
        }
        assert_eq!(
            Rights::on_this_host(Path::new("/bin/true")),
            Rights::Namespace
        );
        let Rights::Machine { reason } = Rights::on_this_host(Path::new("/no/such/program")) else {
            panic!("there is no such program");
        };
        assert!(reason.contains("No such file"), "{reason}");
    }
}
