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
    memory_mib: u32,
    cpus: u8,
    segments: Vec<u8>,
    gateway: bool,
    data_disk: bool,
    image: Option<KindWord>,
    packages: Vec<String>,
    services: BTreeMap<String, ServiceTable>,
    #[schemars(with = "BTreeMap<String, FileTable>")]
    files: BTreeMap<String, KnownFile>,
    units: BTreeMap<String, UnitTable>,
    users: Vec<String>,
    environment: BTreeMap<String, String>,
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
    #[default]
    Minimal,
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
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
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
    text: Option<String>,
    host: Option<PathBuf>,
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
