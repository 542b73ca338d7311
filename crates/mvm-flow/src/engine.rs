//! The engine: takes executions that are ready, and runs as many at once as it has slots. What clients ask of it is checked in
//! [`crate::ask`].

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    callers::Callers,
    guest::{CannotRun, Guests},
    http::Http,
    journal::Journal,
    limits::{Limits, Room},
    metrics::Metrics,
    module::Description,
    run::{Rim, run, told},
    secrets::Secrets,
};

/// The pause after a claim that could not be made.
const RETRY: Duration = Duration::from_millis(500);

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name, for journals and logs.
    pub name: String,
    /// How many workflows run at once. Those that wait for long do not count.
    pub slots: usize,
    /// What workflows may have.
    pub limits: Limits,
    /// How long a guest that waits stays in memory before it is dropped, to be run again when it goes on.
    pub patience: Duration,
    /// How long workflows may take to come to their next command when the engine stops.
    pub stop_grace: Duration,
    /// Where compiled modules are kept for the next process.
    pub cache: Option<PathBuf>,
    /// What workflows may ask for.
    pub secrets: Secrets,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "engine".into(),
            slots: 256,
            limits: Limits::default(),
            patience: Duration::from_secs(1),
            stop_grace: Duration::from_secs(5),
            cache: None,
            secrets: Secrets::default(),
        }
    }
}

/// An engine cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Modules cannot be run.
    #[error(transparent)]
    Guests(#[from] CannotRun),
    /// Requests cannot be sent.
    #[error("requests cannot be sent: {0}")]
    Http(#[from] reqwest::Error),
}

/// Runs workflows of a journal.
#[derive(Debug)]
pub struct Engine<J: Journal> {
    pub(crate) rim: Arc<Rim<J>>,
    described: Mutex<Described>,
    pub(crate) describing: tokio::sync::Mutex<()>,
    slots: usize,
    stop_grace: Duration,
}

/// Modules that were asked for, by name and version.
pub(crate) type Described = HashMap<(String, String), Arc<Description>>;

impl<J: Journal> Engine<J> {
    /// Sets an engine up; [`Engine::run`] makes it work.
    pub fn new(journal: Arc<J>, settings: Settings) -> Result<Self, SetupError> {
        Ok(Self {
            rim: Arc::new(Rim {
                journal,
                guests: Guests::new(settings.cache.as_deref())?,
                http: Http::new()?,
                secrets: settings.secrets,
                name: settings.name,
                room: Arc::new(Room::new(settings.limits)),
                patience: settings.patience,
                callers: Callers::default(),
                metrics: Arc::default(),
            }),
            described: Mutex::default(),
            describing: tokio::sync::Mutex::default(),
            slots: settings.slots.max(1),
            stop_grace: settings.stop_grace,
        })
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.rim.metrics
    }

    /// Who waits for responses.
    pub fn callers(&self) -> &Callers {
        &self.rim.callers
    }

    /// Its journal.
    pub fn journal(&self) -> &Arc<J> {
        &self.rim.journal
    }

    pub(crate) fn described(&self) -> MutexGuard<'_, Described> {
        self.described
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs workflows until told to stop; then those that run are given back at their next command, or cut off.
    ///
    /// Dropping the future cuts them off. Whatever is cut off is run again by the next owner.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        // Dropped half way, a claim would take executions that nobody runs.
        let mut claiming = None;
        loop {
            while running.try_join_next().is_some() {}
            let free = self.slots.saturating_sub(running.len());
            if claiming.is_none() && free > 0 {
                claiming = Some(Box::pin(self.rim.journal.claim(free, &self.rim.room)));
            }
            let claimed = async {
                match claiming.as_mut() {
                    Some(claiming) => claiming.await,
                    None => std::future::pending().await,
                }
            };
            let claims = tokio::select! {
                () = told(&mut stop) => break,
                Some(_) = running.join_next() => continue,
                claims = claimed => claims,
            };
            claiming = None;
            match claims {
                Ok(claims) => {
                    for claim in claims {
                        let (rim, stop) = (Arc::clone(&self.rim), stop.clone());
                        let counted = self.rim.room.enter(&claim.module);
                        running.spawn(async move {
                            run(&rim, claim, stop).await;
                            drop(counted);
                        });
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "nothing was claimed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        drop(claiming);
        let all = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(self.stop_grace, all).await.is_err() {
            tracing::warn!(
                workflows = running.len(),
                "cut off; they go on from their journals"
            );
        }
    }
}
