//! The guest as a machine: who it is, what time it has, its randomness, its end.

use std::time::{Duration, Instant, SystemTime};

use super::error::AgentError;
use super::{Agent, PROMPT_TIMEOUT};
use crate::protocol::{Identity, MachineEnd, Request};

/// How much randomness a guest is given with its identity.
const ENTROPY_BYTES: usize = 64;

/// A round trip to the guest that is short enough for the clock: a host whose machines share few processors
/// seldom schedules all of them sooner.
const CLOCK_TRIP_SHORT: Duration = Duration::from_millis(20);

/// Longer than a guest waits for its systemd.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(90);

/// How often the clock is set in the hope of a short round trip.
const CLOCK_ATTEMPTS: u32 = 10;

impl Agent {
    /// Makes the guest the machine `identity` says: host name, machine id, `/etc/hosts`, network, file
    /// systems. Before that it gives its kernel fresh randomness. Returns when packets can pass as far as the
    /// guest can know. It may be repeated, after a failure too; the clock is [`Agent::set_clock`]'s.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] naming the step, among others.
    pub async fn configure(&self, identity: Identity) -> Result<(), AgentError> {
        let entropy = host_entropy();
        self.ask(
            Request::Configure { identity, entropy },
            "the identity",
            PROMPT_TIMEOUT,
        )
        .await?;
        Ok(())
    }

    /// Sets the guest's wall clock to the host's, and returns how far off it may be at most: the round trip
    /// of the message that set it.
    ///
    /// A long round trip is followed by another attempt, up to ten in all. So the bound is below 20 ms unless
    /// none of them was that short; then it is that of the last one, which set the clock that counts. When
    /// the future is dropped, the clock may have been set or not.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] where the clock is not the agent's to set, among others.
    pub async fn set_clock(&self) -> Result<Duration, AgentError> {
        let mut best = self.ping(PROMPT_TIMEOUT).await?;
        let mut attempts = 0;
        loop {
            // The message travels for a part of its round trip, half of it as a guess.
            let travel = best / 2;
            let begin = Instant::now();
            let since_epoch = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            let request = Request::SetClock {
                since_epoch: since_epoch + travel,
            };
            self.ask(request, "the time", PROMPT_TIMEOUT).await?;
            let trip = begin.elapsed();
            best = best.min(trip);
            attempts += 1;
            // The guess must lie within the trip, or the trip would bound nothing.
            let is_short = trip < CLOCK_TRIP_SHORT && travel <= trip;
            tracing::debug!(?trip, attempts, "set the guest's clock");
            if is_short || attempts == CLOCK_ATTEMPTS {
                return Ok(trip.max(travel));
            }
        }
    }

    /// Has the guest's systemd execute itself again, and returns when it hears its clients again: it has read all units and
    /// settings anew then, and remembers no id of the machine.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] where there is no systemd, among others.
    pub async fn renew_system(&self) -> Result<(), AgentError> {
        self.ask(Request::Renew, "systemd to execute itself", RELEASE_TIMEOUT)
            .await?;
        Ok(())
    }

    /// Has the guest's systemd start the services that it held back. Returns when they are queued. Once, after
    /// [`Agent::configure`].
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] naming the step, where there is no systemd too, among others.
    pub async fn release(&self) -> Result<(), AgentError> {
        self.ask(Request::Release, "the release of services", RELEASE_TIMEOUT)
            .await?;
        Ok(())
    }

    /// Gives the guest's kernel fresh randomness, which it uses at once: for a machine that is restored from
    /// a snapshot and keeps its identity. Others go a way of their own by [`Agent::configure`].
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] where the kernel is not the agent's to seed, among others.
    pub async fn reseed(&self) -> Result<(), AgentError> {
        let entropy = host_entropy();
        self.ask(
            Request::Reseed { entropy },
            "the randomness",
            PROMPT_TIMEOUT,
        )
        .await?;
        Ok(())
    }

    /// Has the guest stop all processes, sync, unmount, and power off. Returns once the guest agreed; that
    /// the machine ended shows in QEMU's exit.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] where the agent is not PID 1, among others.
    pub async fn power_off(&self) -> Result<(), AgentError> {
        self.end_machine(MachineEnd::PowerOff).await
    }

    /// Has the guest stop all processes, sync, unmount, and restart. Returns once the guest agreed.
    ///
    /// # Errors
    ///
    /// As for [`Agent::power_off`].
    pub async fn reboot(&self) -> Result<(), AgentError> {
        self.end_machine(MachineEnd::Reboot).await
    }

    async fn end_machine(&self, end: MachineEnd) -> Result<(), AgentError> {
        self.ask(
            Request::End(end),
            "the request to end the machine",
            PROMPT_TIMEOUT,
        )
        .await?;
        Ok(())
    }
}

/// Randomness for the guest; less of it, down to none, where the host has no `/dev/urandom`: the guest
/// refuses none.
fn host_entropy() -> Vec<u8> {
    use std::io::Read;
    let mut entropy = Vec::with_capacity(ENTROPY_BYTES);
    if let Ok(source) = std::fs::File::open("/dev/urandom") {
        // A short read only means less randomness.
        let _ = source.take(ENTROPY_BYTES as u64).read_to_end(&mut entropy);
    }
    entropy
}
