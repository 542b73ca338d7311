//! Whether the host has the memory a lab will really use.
//!
//! A machine's nominal memory says little: most of it is never touched. So each machine counts with
//! the private memory that machines of its kind were measured to use, and only one never seen before
//! counts with its nominal size. Of one kind are machines of one nominal size that run the same.

use std::{collections::BTreeMap, io, path::PathBuf};

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// The host has too little memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// One machine asks for more than the host has in all.
    #[error(
        "could not give machine {machine} {asked_mib} MiB of memory: the host has {host_mib} MiB in all"
    )]
    MachineTooLarge {
        /// The machine.
        machine: String,
        /// What it asks for.
        asked_mib: u64,
        /// What the host has.
        host_mib: u64,
    },
    /// All machines together would use more than is free.
    #[error(
        "could not start {machines} machines: they would use about {needed_mib} MiB, {available_mib} MiB are available"
    )]
    TooMany {
        /// How many machines.
        machines: usize,
        /// What they would use.
        needed_mib: u64,
        /// What there is.
        available_mib: u64,
    },
}

/// The host's memory in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostMemory {
    pub(crate) total_bytes: u64,
    pub(crate) available_bytes: u64,
}

impl HostMemory {
    /// Reads `/proc/meminfo`.
    pub(crate) fn read() -> io::Result<HostMemory> {
        let text = std::fs::read_to_string("/proc/meminfo")?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
                .map(|kib| kib * 1024)
        };
        match (field("MemTotal:"), field("MemAvailable:")) {
            (Some(total_bytes), Some(available_bytes)) => Ok(HostMemory {
                total_bytes,
                available_bytes,
            }),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "MemTotal or MemAvailable is missing in /proc/meminfo",
            )),
        }
    }
}

/// A machine, as far as its memory goes.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) machine: String,
    pub(crate) nominal_mib: u32,
    /// Names what such machines are and run.
    pub(crate) kind: String,
}

/// The most private memory that machines of a kind were seen to use, kept in a file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    #[serde(skip)]
    path: PathBuf,
    bytes_by_kind: BTreeMap<String, u64>,
}

impl Measured {
    /// Reads what earlier runs measured; a missing or damaged file is an empty one.
    pub(crate) fn load(path: PathBuf) -> Measured {
        let known = std::fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        Measured {
            path,
            ..known.unwrap_or_default()
        }
    }

    /// Keeps the larger of what was known and `bytes`.
    pub(crate) fn observe(&mut self, kind: &str, bytes: u64) {
        let known = self.bytes_by_kind.entry(kind.to_owned()).or_default();
        *known = bytes.max(*known);
    }

    /// Writes what is known for later runs.
    pub(crate) fn save(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(std::path::Path::new("."));
        let file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&file, self)?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }

    fn expected_bytes(&self, asked: &Asked) -> u64 {
        let known = self.bytes_by_kind.get(&asked.kind).copied();
        known.unwrap_or(u64::from(asked.nominal_mib) * MIB)
    }
}

/// Checks that `machines` fit into `host`.
pub(crate) fn check(
    host: HostMemory,
    machines: &[Asked],
    measured: &Measured,
) -> Result<(), MemoryError> {
    for Asked {
        machine,
        nominal_mib,
        ..
    } in machines
    {
        let asked_mib = u64::from(*nominal_mib);
        if asked_mib * MIB > host.total_bytes {
            return Err(MemoryError::MachineTooLarge {
                machine: machine.clone(),
                asked_mib,
                host_mib: host.total_bytes / MIB,
            });
        }
    }
    let needed: u64 = machines
        .iter()
        .map(|asked| measured.expected_bytes(asked))
        .sum();
    if needed > host.available_bytes {
        return Err(MemoryError::TooMany {
            machines: machines.len(),
            needed_mib: needed / MIB,
            available_mib: host.available_bytes / MIB,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostMemory = HostMemory {
        total_bytes: 4096 * MIB,
        available_bytes: 1024 * MIB,
    };

    fn machines(nominal_mib: u32, count: usize) -> Vec<Asked> {
        let machine = |number| Asked {
            machine: format!("node{number}"),
            nominal_mib,
            kind: format!("{nominal_mib} MiB"),
        };
        (1..=count).map(machine).collect()
    }

    #[test]
    fn nominal_sizes_count_until_measured() {
        let mut measured = Measured::default();
        assert!(check(HOST, &machines(512, 2), &measured).is_ok());
        assert!(matches!(
            check(HOST, &machines(512, 3), &measured),
            Err(MemoryError::TooMany {
                needed_mib: 1536,
                ..
            })
        ));
        measured.observe("512 MiB", 100 * MIB);
        measured.observe("512 MiB", 90 * MIB);
        assert!(check(HOST, &machines(512, 10), &measured).is_ok());
        assert!(check(HOST, &machines(512, 11), &measured).is_err());
    }

    #[test]
    fn one_machine_larger_than_the_host_is_named() {
        let error = check(HOST, &machines(5000, 1), &Measured::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not give machine node1 5000 MiB of memory: the host has 4096 MiB in all"
        );
    }

    #[test]
    fn measurements_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        let mut measured = Measured::load(path.clone());
        measured.observe("256 MiB", 7);
        measured.save().unwrap();
        let asked = &machines(256, 1)[0];
        assert_eq!(Measured::load(path.clone()).expected_bytes(asked), 7);
        std::fs::write(&path, "garbage").unwrap();
        assert_eq!(Measured::load(path).expected_bytes(asked), 256 * MIB);
    }
}
