//! Schedules: jobs that the cluster submits at times.

use mvm_queue::{JobSpec, Missed};
use serde::Deserialize;
use serde_json::json;

use crate::{
    calls::Client,
    error::ClientError,
    exchange::Call,
    view::{ScheduleSet, ScheduleView},
};

const PATH: [&str; 3] = ["api", "v1", "schedules"];

#[derive(Deserialize)]
struct Schedules {
    schedules: Vec<ScheduleView>,
}

impl Client {
    /// All schedules, by name.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn schedules(&self) -> Result<Vec<ScheduleView>, ClientError> {
        Ok(self.read::<Schedules>(Call::get(PATH)).await?.schedules)
    }

    /// Adds a schedule, or replaces the one of that name.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 400 if the cron line never fires.
    pub async fn set_schedule(
        &self,
        name: &str,
        cron: &str,
        missed: Missed,
        job: &JobSpec,
    ) -> Result<ScheduleSet, ClientError> {
        let body = json!({ "cron": cron, "missed": missed, "job": job });
        self.put(&named(name), &body).await
    }

    /// Removes a schedule; jobs that it submitted stay.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; it is refused with 404 if there is no such schedule.
    pub async fn remove_schedule(&self, name: &str) -> Result<(), ClientError> {
        self.delete(&named(name)).await
    }
}

fn named(name: &str) -> [&str; 4] {
    let [api, version, schedules] = PATH;
    [api, version, schedules, name]
}
