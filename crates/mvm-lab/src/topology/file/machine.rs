//! A machine as a table of the file.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::super::{
    GuestContent, GuestFile, ImageKind, MEMORY_MIB_DEFAULT, MachineConfig, Provision,
    SEGMENT_DEFAULT,
};
use crate::service::{ServiceSpec, ServiceStart};

/// What a file may be read and written by that says nothing else.
const MODE_DEFAULT: u32 = 0o644;
const MODE_MAX: u32 = 0o7777;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MachineTable {
    /// Memory in MiB.
    memory_mib: u32,
    /// Processors.
    cpus: u8,
    /// Its cards, eth1 upward, by the numbers of their segments.
    segments: Vec<u8>,
    /// Whether it has a way out to the host's network, by eth0.
    gateway: bool,
    /// Whether it has a private disk at /data, kept across crashes.
    data_disk: bool,
    /// What it is, where not what `image.kind` says.
    image: Option<KindWord>,
    /// Beside those of `image`, if that is of the same kind.
    packages: Vec<String>,
    /// Programs that the agent runs, by name.
    services: BTreeMap<String, ServiceTable>,
    /// Files by absolute path, put there whenever the machine starts.
    #[schemars(with = "BTreeMap<String, FileTable>")]
    files: BTreeMap<String, KnownFile>,
    /// Units of systemd by file name.
    units: BTreeMap<String, UnitTable>,
    /// Each with a home and a shell.
    users: Vec<String>,
    /// For commands and services.
    environment: BTreeMap<String, String>,
    /// Other names of units, such as those that NixOS has.
    aliases: BTreeMap<String, String>,
}

impl Default for MachineTable {
    fn default() -> MachineTable {
        MachineTable {
            memory_mib: MEMORY_MIB_DEFAULT,
            cpus: 1,
            segments: vec![SEGMENT_DEFAULT],
            gateway: false,
            data_disk: false,
            image: None,
            packages: Vec::new(),
            services: BTreeMap::new(),
            files: BTreeMap::new(),
            units: BTreeMap::new(),
            users: Vec::new(),
            environment: BTreeMap::new(),
            aliases: BTreeMap::new(),
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum KindWord {
    /// A kernel, the agent, BusyBox and bash.
    #[default]
    Minimal,
    /// A suite of Debian with systemd.
    Debian,
}

impl From<KindWord> for ImageKind {
    fn from(word: KindWord) -> ImageKind {
        match word {
            KindWord::Minimal => ImageKind::Minimal,
            KindWord::Debian => ImageKind::Debian,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServiceTable {
    /// The program and its arguments.
    command: Vec<String>,
    /// Beside the machine's.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// When it starts.
    #[serde(default)]
    start: StartWord,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum StartWord {
    #[default]
    WithMachine,
    WhenAsked,
}

/// A file whose content is told once.
#[derive(Deserialize)]
#[serde(try_from = "FileTable")]
struct KnownFile(GuestFile);

/// A file's content: told, or that of a host's file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FileTable {
    /// The content.
    text: Option<String>,
    /// A file of this host, seen from the topology's folder.
    host: Option<PathBuf>,
    /// Permission bits in octal digits; 0644.
    #[serde(default, deserialize_with = "mode")]
    #[schemars(with = "Option<String>")]
    mode: Option<u32>,
}

/// A unit's text, or its sections, each with its settings.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum UnitTable {
    Text(String),
    Sections(BTreeMap<String, BTreeMap<String, UnitValue>>),
}

/// What a setting of a unit is set to; a list sets it again and again.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum UnitValue {
    Text(String),
    Number(i64),
    Switch(bool),
    Many(Vec<String>),
}

/// Reads permission bits, which people write in octal digits.
fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mode = u32::from_str_radix(&text, 8)
        .ok()
        .filter(|mode| *mode <= MODE_MAX);
    mode.map(Some)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is no mode of a file such as \"0644\"")))
}

impl MachineTable {
    /// The machine of this name.
    pub(super) fn named(self, name: String) -> MachineConfig {
        let services = self
            .services
            .into_iter()
            .map(|(name, service)| ServiceSpec {
                name,
                command: service.command,
                environment: service.environment,
                start: match service.start {
                    StartWord::WithMachine => ServiceStart::WithMachine,
                    StartWord::WhenAsked => ServiceStart::WhenAsked,
                },
            });
        let files = self.files.into_iter();
        let units = self.units.into_iter();
        MachineConfig {
            name,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            segments: self.segments,
            gateway: self.gateway,
            data_disk: self.data_disk,
            services: services.collect(),
            image: self.image.map(ImageKind::from),
            packages: self.packages,
            aliases: self.aliases,
            provision: Provision {
                files: files.map(|(path, file)| (path, file.0)).collect(),
                units: units.map(|(name, unit)| (name, unit.text())).collect(),
                users: self.users,
                environment: self.environment,
            },
        }
    }
}

impl TryFrom<FileTable> for KnownFile {
    type Error = &'static str;

    fn try_from(file: FileTable) -> Result<KnownFile, &'static str> {
        let content = match (file.text, file.host) {
            (Some(text), None) => GuestContent::Text(text),
            (None, Some(path)) => GuestContent::Host(path),
            (Some(_), Some(_)) | (None, None) => {
                return Err("a file has either a `text` or a `host` file that it is a copy of");
            }
        };
        Ok(KnownFile(GuestFile {
            content,
            mode: file.mode.unwrap_or(MODE_DEFAULT),
        }))
    }
}

impl UnitTable {
    /// The unit as systemd reads it.
    fn text(self) -> String {
        let sections = match self {
            UnitTable::Text(text) => return text,
            UnitTable::Sections(sections) => sections,
        };
        let mut text = String::new();
        for (section, settings) in sections {
            text.push_str(&format!("[{section}]\n"));
            for (key, value) in settings {
                for value in value.words() {
                    text.push_str(&format!("{key}={value}\n"));
                }
            }
        }
        text
    }
}

impl UnitValue {
    fn words(self) -> Vec<String> {
        match self {
            UnitValue::Text(text) => vec![text],
            UnitValue::Number(number) => vec![number.to_string()],
            UnitValue::Switch(true) => vec!["yes".to_owned()],
            UnitValue::Switch(false) => vec!["no".to_owned()],
            UnitValue::Many(words) => words,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_as_tables_too() {
        let unit: UnitTable = toml::from_str(
            "[Unit]\nAfter = [\"a.service\", \"b.service\"]\n[Service]\nExecStart = \"/bin/a\"\nPrivateTmp = true\nNice = 5\n",
        )
        .unwrap();
        // Sections are in the order of their names, which is nothing to systemd.
        assert_eq!(
            unit.text(),
            "[Service]\nExecStart=/bin/a\nNice=5\nPrivateTmp=yes\n[Unit]\nAfter=a.service\nAfter=b.service\n"
        );
    }
}
