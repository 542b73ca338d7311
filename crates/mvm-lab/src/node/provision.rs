//! What makes a machine that is somebody one that does something: its files, users and units; and with systemd, the
//! services that were held back until it knew who it is.

use super::{Node, NodeError};
use crate::{
    run_folder::shell_line,
    service::{Service, ServiceSpec},
    topology::GuestContent,
};

/// Where units of the machine's own go.
const UNITS: &str = "/etc/systemd/system";
/// What services are told of the environment, and what logins are.
const ENVIRONMENT_FILES: [&str; 2] = [
    "/etc/systemd/system.conf.d/environment.conf",
    "/etc/environment",
];
/// The service by which the journal comes to the run folder.
const JOURNAL: &str = "journal";
impl Node {
    /// Puts into the machine what its configuration says, and lets its services go.
    pub(super) async fn provision(&self) -> Result<(), NodeError> {
        self.put_files().await?;
        self.make_users().await?;
        if self.has_systemd() {
            self.put_units().await?;
            let agent = self.agent()?;
            let provision = &self.member.config.provision;
            // Without any, systemd has read nothing that is not so any more.
            if !provision.units.is_empty() || !provision.environment.is_empty() {
                let renewed = agent.renew_system().await;
                renewed.map_err(|source| self.agent_error(source))?;
            }
            let released = agent.release().await;
            released.map_err(|source| self.agent_error(source))?;
            self.follow_journal().await?;
        }
        Ok(())
    }

    async fn put_files(&self) -> Result<(), NodeError> {
        for (path, file) in &self.member.config.provision.files {
            let content = match &file.content {
                GuestContent::Text(text) => text.clone().into_bytes(),
                GuestContent::Host(host) => {
                    let read = tokio::fs::read(host).await;
                    read.map_err(|source| NodeError::File {
                        machine: self.name().to_owned(),
                        path: host.clone(),
                        source,
                    })?
                }
            };
            self.put(path, file.mode, &content).await?;
        }
        Ok(())
    }

    async fn put(&self, path: &str, mode: u32, content: &[u8]) -> Result<(), NodeError> {
        let put = self.agent()?.upload(path, mode, content).await;
        put.map_err(|source| self.agent_error(source))
    }

    async fn make_users(&self) -> Result<(), NodeError> {
        let make = match self.has_systemd() {
            true => "useradd --create-home --shell /bin/bash",
            false => "adduser -D",
        };
        for user in &self.member.config.provision.users {
            let user = shell_line(std::slice::from_ref(user));
            self.run(&format!("id {user} >/dev/null 2>&1 || {make} {user}"))
                .await?;
        }
        Ok(())
    }

    async fn put_units(&self) -> Result<(), NodeError> {
        let provision = &self.member.config.provision;
        for (name, text) in &provision.units {
            self.put(&format!("{UNITS}/{name}"), 0o644, text.as_bytes())
                .await?;
        }
        let installed = provision
            .units
            .iter()
            .filter(|(_, text)| is_installed(text));
        let installed: Vec<String> = installed.map(|(name, _)| name.clone()).collect();
        if !installed.is_empty() {
            let units = shell_line(&installed);
            // Only links: systemd reads them when it reads everything anew.
            self.run(&format!("systemctl --root=/ --quiet enable -- {units}"))
                .await?;
        }
        if !provision.environment.is_empty() {
            let [services, logins] = ENVIRONMENT_FILES;
            let variables = provision.environment.iter();
            let lines: Vec<String> = variables
                .map(|(name, value)| {
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                    format!("{name}=\"{value}\"")
                })
                .collect();
            let told = format!("[Manager]\nDefaultEnvironment={}\n", lines.join(" "));
            self.put(services, 0o644, told.as_bytes()).await?;
            self.put(logins, 0o644, (lines.join("\n") + "\n").as_bytes())
                .await?;
        }
        Ok(())
    }

    /// Runs a command of ours that must succeed.
    async fn run(&self, command: &str) -> Result<(), NodeError> {
        let output = self.execute(command).await?;
        match output.success() {
            true => Ok(()),
            false => Err(match self.command_error(command, &output) {
                NodeError::Command {
                    machine,
                    command,
                    how,
                    output,
                } => NodeError::Provision {
                    machine,
                    command,
                    how,
                    output,
                },
                other => other,
            }),
        }
    }

    async fn follow_journal(&self) -> Result<(), NodeError> {
        let command = "journalctl --follow --lines=all --boot --output=short-precise";
        let spec = ServiceSpec::new(JOURNAL, command.split(' '));
        let started = Service::start(self.service_place(JOURNAL)?, &spec).await;
        let service = started.map_err(|source| self.service_error(source))?;
        self.services
            .lock()
            .await
            .insert(JOURNAL.to_owned(), service);
        Ok(())
    }
}

/// Whether a unit says what it is started with.
fn is_installed(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "[Install]")
}
