//! Units of a machine: systemd's where it has systemd, and the agent's services under the names and in the words that
//! systemd has for them ([`services`]).
//!
//! Waiting for a unit is the caller's; so is judging what a state means to a test.

mod services;

use std::collections::BTreeMap;

use mvm_agent::client::Output;

use self::services::service_name;
use super::{Node, NodeError};
use crate::{run_folder::shell_line, topology::ImageKind};

/// What is known of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// Its name, with its aliases resolved.
    pub name: String,
    /// systemd's `ActiveState`: `active`, `activating`, `inactive`, `failed` and others.
    pub active_state: String,
    /// All of its properties as `systemctl show` prints them.
    pub properties: BTreeMap<String, String>,
    /// Whether a job is queued or runs that may still change it: its own, or any at all while it is inactive.
    pub has_job: bool,
}

impl UnitState {
    /// Reads what `systemctl show` prints.
    fn parse(name: &str, shown: &str) -> UnitState {
        let lines = shown.lines().filter_map(|line| line.split_once('='));
        let properties: BTreeMap<String, String> = lines
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let told = |key: &str| properties.get(key).cloned().unwrap_or_default();
        UnitState {
            name: name.to_owned(),
            active_state: told("ActiveState"),
            has_job: !matches!(&*told("Job"), "" | "0"),
            properties,
        }
    }
}

impl Node {
    /// Tells the state of a unit, a service's with or without `.service`; a user's own with `user`.
    ///
    /// A unit that does not exist is inactive, as systemd says; its `LoadState` tells.
    ///
    /// # Errors
    ///
    /// If the machine is off or its systemd does not answer.
    pub async fn unit(&self, name: &str, user: Option<&str>) -> Result<UnitState, NodeError> {
        let name = self.resolve(name);
        if self.is_agents([&name], user) {
            return self.service_unit(&name, user).await;
        }
        let quoted = shell_line(std::slice::from_ref(&name));
        let arguments = format!("--no-pager show -- {quoted}");
        let show = async || self.systemd_says(&arguments, user).await;
        let mut state = UnitState::parse(&name, &show().await?);
        if state.active_state == "inactive" && !state.has_job {
            let jobs = "--no-pager --no-legend list-jobs";
            match is_any_job(&self.systemd_says(jobs, user).await?) {
                true => state.has_job = true,
                // The last job may have started it since it was looked at.
                false => state = UnitState::parse(&name, &show().await?),
            }
        }
        Ok(state)
    }

    /// Runs `systemctl` with arguments as a shell reads them; a user's own with `user`. Where there is no systemd, and for
    /// services of the topology, the verbs that services need act on the agent's.
    ///
    /// # Errors
    ///
    /// If the machine is off or its agent does not answer; how the command ended is in what it returns.
    pub async fn systemctl(
        &self,
        arguments: &str,
        user: Option<&str>,
    ) -> Result<Output, NodeError> {
        let words = arguments.split_whitespace().map(|word| self.resolve(word));
        let resolved = words.collect::<Vec<_>>();
        if self.is_agents(resolved.iter().skip(1), user) {
            return self.services_control(&resolved).await;
        }
        let arguments = resolved.join(" ");
        let command = match user {
            None => format!("systemctl {arguments}"),
            Some(user) => {
                let script =
                    format!("XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user {arguments}");
                shell_line(&["su", "-l", user, "-s", "/bin/sh", "-c", &script].map(str::to_owned))
            }
        };
        self.execute(&command).await
    }

    /// Whether PID 1 of this machine is systemd.
    pub fn has_systemd(&self) -> bool {
        match self.member.image.kind {
            ImageKind::Minimal => false,
            ImageKind::Debian => true,
        }
    }

    /// Whether the agent is asked for these units, and not systemd or a user's own.
    fn is_agents<'n>(
        &self,
        units: impl IntoIterator<Item = &'n String>,
        user: Option<&str>,
    ) -> bool {
        let mut units = units.into_iter();
        let is_service = |unit: &String| self.has_service(service_name(unit));
        !self.has_systemd() || user.is_none() && units.any(is_service)
    }

    async fn systemd_says(&self, arguments: &str, user: Option<&str>) -> Result<String, NodeError> {
        let output = self.systemctl(arguments, user).await?;
        match output.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(self.command_error(&format!("systemctl {arguments}"), &output)),
        }
    }

    /// The unit that a name stands for: aliases are told with or without `.service`.
    fn resolve(&self, name: &str) -> String {
        resolve(&self.member.config.aliases, name)
    }
}

fn resolve(aliases: &BTreeMap<String, String>, name: &str) -> String {
    let plain = name.strip_suffix(SERVICE_SUFFIX).unwrap_or(name);
    let alias = aliases
        .get(plain)
        .or_else(|| aliases.get(&format!("{plain}{SERVICE_SUFFIX}")));
    alias.map_or(name, String::as_str).to_owned()
}

/// What a service's name may be told without.
const SERVICE_SUFFIX: &str = ".service";

/// Whether `systemctl --no-legend list-jobs` lists any.
fn is_any_job(listed: &str) -> bool {
    let listed = listed.trim();
    !listed.is_empty() && !listed.starts_with("No jobs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read() {
        let shown = "Id=a.service\nActiveState=activating\nJob=12\nExecStart={ path=/bin/a ; argv[]=a }\n\n";
        let state = UnitState::parse("a", shown);
        assert_eq!(state.active_state, "activating");
        assert!(state.has_job);
        assert_eq!(
            state.properties["ExecStart"], "{ path=/bin/a ; argv[]=a }",
            "values may hold equals signs"
        );
        assert!(!UnitState::parse("a", "ActiveState=active\n").has_job);
    }

    #[test]
    fn jobs_are_seen() {
        assert!(!is_any_job("No jobs running.\n"));
        assert!(!is_any_job("\n"));
        assert!(is_any_job("12 a.service start waiting\n"));
    }

    #[test]
    fn aliases_hold_with_and_without_the_suffix() {
        let aliases = BTreeMap::from([
            ("redis-main".to_owned(), "redis-server.service".to_owned()),
            ("sshd.service".to_owned(), "ssh".to_owned()),
        ]);
        for (name, expected) in [
            ("redis-main", "redis-server.service"),
            ("redis-main.service", "redis-server.service"),
            ("sshd", "ssh"),
            ("sshd.service", "ssh"),
            ("sshd.socket", "sshd.socket"),
            ("nginx", "nginx"),
        ] {
            assert_eq!(resolve(&aliases, name), expected);
        }
    }
}
