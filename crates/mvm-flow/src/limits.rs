//! What workflows may have, by their module: a file of the operator's.
//!
//! ```toml
//! [default]                    # of modules that are not named; what is left out is as without a file
//! memory_mib = 256
//!
//! [modules.crawler]            # what is left out is as in `default`
//! memory_mib = 64              # of one workflow
//! instructions = 1_000_000_000 # between two commands
//! journal_mib = 4              # of one workflow
//! run_time_s = 3600            # from its first step to its end, sleep included
//! runs = 4                     # at once; those that wait do not count
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::sync::Notify;

use crate::{guest, journal::JOURNAL_BYTES_MAX};

const MIB: u64 = 1024 * 1024;
/// The largest memory of a WebAssembly guest.
const MEMORY_MIB_MAX: u64 = 4096;

/// What one workflow of a module may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ModuleLimits {
    /// Memory, and instructions between two commands.
    pub guest: guest::Limits,
    /// Its journal.
    pub journal_bytes: u64,
    /// From its first step to its end.
    pub run_time: Option<Duration>,
    /// How many run at once.
    pub runs: Option<u32>,
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self {
            guest: guest::Limits::default(),
            journal_bytes: JOURNAL_BYTES_MAX,
            run_time: None,
            runs: None,
        }
    }
}

/// The limits of all modules.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    default: ModuleLimits,
    modules: BTreeMap<String, ModuleLimits>,
}

/// A file of limits cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BadLimits {
    #[error("the file of limits {path} cannot be read: {source}")]
    Unread {
        path: String,
        source: std::io::Error,
    },
    #[error("the file of limits {path} cannot be used: {source}")]
    Form {
        path: String,
        source: Box<toml::de::Error>,
    },
    #[error("the file of limits {path} gives {section} {key} = {value}; {allowed}")]
    Value {
        path: String,
        section: String,
        key: &'static str,
        value: u64,
        allowed: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    default: Section,
    #[serde(default)]
    modules: BTreeMap<String, Section>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    memory_mib: Option<u64>,
    instructions: Option<u64>,
    journal_mib: Option<u64>,
    run_time_s: Option<u64>,
    runs: Option<u64>,
}

impl Limits {
    /// The same for all.
    pub const fn all(default: ModuleLimits) -> Self {
        Self {
            default,
            modules: BTreeMap::new(),
        }
    }

    /// Reads a file; what it leaves out is as in `otherwise`.
    pub fn read(path: &Path, otherwise: ModuleLimits) -> Result<Self, BadLimits> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| BadLimits::Unread {
            path: shown.clone(),
            source,
        })?;
        Self::parse(&text, &shown, otherwise)
    }

    fn parse(text: &str, path: &str, otherwise: ModuleLimits) -> Result<Self, BadLimits> {
        let file: File = toml::from_str(text).map_err(|source| BadLimits::Form {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let default = file.default.over(otherwise, path, "default")?;
        let modules = file.modules.into_iter().map(|(module, section)| {
            let limits = section.over(default, path, &format!("modules.{module}"))?;
            Ok((module, limits))
        });
        Ok(Self {
            default,
            modules: modules.collect::<Result<_, BadLimits>>()?,
        })
    }

    /// Those of a module.
    pub fn of(&self, module: &str) -> ModuleLimits {
        self.modules.get(module).copied().unwrap_or(self.default)
    }
}

impl Section {
    fn over(
        self,
        otherwise: ModuleLimits,
        path: &str,
        section: &str,
    ) -> Result<ModuleLimits, BadLimits> {
        let within = |key, value: Option<u64>, max: u64| match value {
            Some(value) if value == 0 || value > max => Err(BadLimits::Value {
                path: path.to_owned(),
                section: section.to_owned(),
                key,
                value,
                allowed: format!("at least 1 and at most {max} is allowed"),
            }),
            value => Ok(value),
        };
        let memory = within("memory_mib", self.memory_mib, MEMORY_MIB_MAX)?;
        let instructions = within("instructions", self.instructions, u64::MAX)?;
        let journal = within("journal_mib", self.journal_mib, JOURNAL_BYTES_MAX / MIB)?;
        let run_time = within("run_time_s", self.run_time_s, u64::from(u32::MAX))?;
        let runs = within("runs", self.runs, u64::from(u32::MAX))?;
        let bytes = |mib: u64| usize::try_from(mib * MIB).unwrap_or(usize::MAX);
        Ok(ModuleLimits {
            guest: guest::Limits {
                memory_bytes: memory.map_or(otherwise.guest.memory_bytes, bytes),
                instructions: instructions.unwrap_or(otherwise.guest.instructions),
            },
            journal_bytes: journal.map_or(otherwise.journal_bytes, |mib| mib * MIB),
            run_time: run_time.map(Duration::from_secs).or(otherwise.run_time),
            runs: runs
                .and_then(|runs| u32::try_from(runs).ok())
                .or(otherwise.runs),
        })
    }
}

/// How many workflows of each module run, and how many more may.
#[derive(Debug, Default)]
pub struct Room {
    limits: Limits,
    running: Mutex<HashMap<String, u32>>,
    freed: Notify,
}

/// A run of a module. Dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Run {
    room: Arc<Room>,
    module: String,
}

impl Room {
    /// Nothing runs yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts a run.
    pub(crate) fn enter(self: &Arc<Self>, module: &str) -> Run {
        *self.running().entry(module.to_owned()).or_default() += 1;
        Run {
            room: Arc::clone(self),
            module: module.to_owned(),
        }
    }

    /// How many more workflows of a module may run; nothing, if there is no limit.
    pub fn left(&self, module: &str) -> Option<u32> {
        let runs = self.limits.of(module).runs?;
        let running = self.running().get(module).copied().unwrap_or(0);
        Some(runs.saturating_sub(running))
    }

    /// The modules of which no more may run.
    pub fn full(&self) -> Vec<String> {
        let modules: Vec<String> = self.running().keys().cloned().collect();
        let is_full = |module: &String| self.left(module) == Some(0);
        modules.into_iter().filter(is_full).collect()
    }

    /// Waits until a run of a limited module ends.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut running = self.room.running();
        if let Some(count) = running.get_mut(&self.module) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(&self.module);
            }
        }
        drop(running);
        if self.room.limits.of(&self.module).runs.is_some() {
            self.room.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use expect_test::{Expect, expect};

    use super::{Limits, ModuleLimits, Room};

    fn parse(text: &str) -> Result<Limits, super::BadLimits> {
        Limits::parse(text, "FILE", ModuleLimits::default())
    }

    #[test]
    fn a_module_has_its_own_limits_over_the_default_ones() {
        let limits = parse(
            "[default]\nmemory_mib = 8\nrun_time_s = 60\n[modules.crawler]\nrun_time_s = 5\nruns = 2\njournal_mib = 1\n",
        )
        .unwrap();
        let other = limits.of("other");
        assert_eq!(other.guest.memory_bytes, 8 << 20);
        assert_eq!(other.run_time, Some(Duration::from_secs(60)));
        assert_eq!(other.runs, None);
        let crawler = limits.of("crawler");
        assert_eq!(crawler.guest.memory_bytes, 8 << 20);
        assert_eq!(crawler.run_time, Some(Duration::from_secs(5)));
        assert_eq!((crawler.runs, crawler.journal_bytes), (Some(2), 1 << 20));
    }

    #[test]
    fn what_cannot_be_a_limit_is_told() {
        let check = |text: &str, expected: Expect| {
            expected.assert_eq(&parse(text).unwrap_err().to_string());
        };
        check(
            "[modules.a]\nruns = 0\n",
            expect![
                "the file of limits FILE gives modules.a runs = 0; at least 1 and at most 4294967295 is allowed"
            ],
        );
        check(
            "[default]\nmemory_mib = 5000\n",
            expect![
                "the file of limits FILE gives default memory_mib = 5000; at least 1 and at most 4096 is allowed"
            ],
        );
        check(
            "[default]\nmemory = 5\n",
            expect![[r#"
            the file of limits FILE cannot be used: TOML parse error at line 2, column 1
              |
            2 | memory = 5
              | ^^^^^^
            unknown field `memory`, expected one of `memory_mib`, `instructions`, `journal_mib`, `run_time_s`, `runs`
        "#]],
        );
        check(
            "[modules.a]\nrun_time_s = \"1h\"\n",
            expect![[r#"
            the file of limits FILE cannot be used: TOML parse error at line 2, column 14
              |
            2 | run_time_s = "1h"
              |              ^^^^
            invalid type: string "1h", expected u64
        "#]],
        );
    }

    #[test]
    fn a_run_that_ends_makes_room() {
        let room = Arc::new(Room::new(parse("[modules.a]\nruns = 2\n").unwrap()));
        let first = room.enter("a");
        assert_eq!((room.left("a"), room.left("b")), (Some(1), None));
        let _second = room.enter("a");
        assert_eq!(room.full(), ["a"]);
        drop(first);
        assert_eq!((room.left("a"), room.full().len()), (Some(1), 0));
    }
}
