//! How long tests took on this host, so that the longest can be started first.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use mvm_machine::cache::Cache;

/// What is remembered of earlier runs, by the tests' names.
#[derive(Debug)]
pub struct Durations {
    path: PathBuf,
    ms_by_name: BTreeMap<String, u64>,
}

impl Durations {
    /// Reads what is known; nothing where nothing is.
    pub fn load(cache: &Cache) -> Durations {
        let path = cache.root().join("durations-by-test.json");
        let known = std::fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        Durations {
            path,
            ms_by_name: known.unwrap_or_default(),
        }
    }

    /// Returns how long a test took last; one never seen is taken for the longest of all.
    pub fn expected(&self, name: &str) -> Duration {
        let known = self.ms_by_name.get(name).copied();
        known.map_or(Duration::MAX, Duration::from_millis)
    }

    /// Notes how long a test took.
    pub fn observe(&mut self, name: &str, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.ms_by_name.insert(name.to_owned(), ms);
    }

    /// Writes what is known for later runs, if the cache can be written.
    pub fn save(&self) {
        if let Err(error) = self.write() {
            tracing::warn!(%error, "could not remember how long tests take");
        }
    }

    fn write(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(std::path::Path::new("."));
        let file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&file, &self.ms_by_name)?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}
