//! Waiting for a condition, with a bound and the last observation.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How often conditions are polled.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What a condition found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// It holds, with this result.
    Done(T),
    /// It does not hold yet; what was seen instead.
    NotYet(String),
}

/// The condition did not come to hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "could not see {condition} within {allowed:.1?}; last seen after {elapsed:.1?}: {observation}"
)]
pub struct WaitError {
    /// What was waited for.
    pub condition: String,
    /// How long it was waited for.
    pub elapsed: Duration,
    /// How long it could have been.
    pub allowed: Duration,
    /// The last thing seen instead.
    pub observation: String,
}

/// Polls `probe` until it is done, at most `allowed`.
///
/// A probe in flight when the time is up is given up, so its own waits need no bound. It is called at
/// least once. Cancel safe if the probe is.
pub async fn until<T, F>(
    condition: &str,
    allowed: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T, WaitError>
where
    F: Future<Output = Seen<T>>,
{
    let started = Instant::now();
    let mut observation = "no answer to the first look".to_owned();
    let polling = async {
        loop {
            match probe().await {
                Seen::Done(result) => return result,
                Seen::NotYet(seen) => observation = seen,
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    match tokio::time::timeout(allowed, polling).await {
        Ok(result) => Ok(result),
        Err(_) => Err(WaitError {
            condition: condition.to_owned(),
            elapsed: started.elapsed(),
            allowed,
            observation,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_condition_holds() {
        let mut looks = 0;
        let result = until("three looks", Duration::from_secs(1), || {
            looks += 1;
            let seen = if looks == 3 {
                Seen::Done(looks)
            } else {
                Seen::NotYet(format!("{looks} looks"))
            };
            async move { seen }
        });
        assert_eq!(result.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_tells_the_last_observation() {
        let result: Result<(), _> = until("rain", Duration::from_millis(250), || async {
            Seen::NotYet("sun".into())
        })
        .await;
        let error = result.unwrap_err();
        assert_eq!(
            (error.condition.as_str(), error.observation.as_str()),
            ("rain", "sun")
        );
        let hung: Result<(), _> = until(
            "an answer",
            Duration::from_millis(250),
            std::future::pending,
        )
        .await;
        assert_eq!(hung.unwrap_err().observation, "no answer to the first look");
    }
}
