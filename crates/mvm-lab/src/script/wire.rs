//! What the Python side asks, and what it is told: one JSON object per line.
//!
//! A request is `{"id": N, AREA: WHAT}`, an answer `{"id": N, "value": ...}` or `{"id": N, "error": {"kind", "message"}}`.
//! Requests are answered as they are done, in any order; `{"cancel": N}` calls one off.

use std::{collections::BTreeMap, time::Duration};

use mvm_fabric::ChangeError;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::{
    event::LogLevel, network::NetworkError, node::NodeError, verdict::Verdict, wait::WaitError,
};

/// A line from the Python side.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Cancel {
        cancel: u64,
    },
    Request {
        id: u64,
        #[serde(flatten)]
        what: What,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Machine(String, MachineVerb),
    Network(NetworkVerb),
    Test(TestVerb),
}

/// What is asked of one machine.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MachineVerb {
    Start,
    Connect,
    Shutdown,
    WaitForShutdown {
        timeout: Limit,
    },
    Crash,
    Reboot,
    Pause,
    Resume,
    IsUp,
    Pid,
    Execute {
        command: String,
        timeout: Limit,
        #[serde(default)]
        told_as: Option<String>,
    },
    Spawn {
        command: String,
    },
    Begin {
        command: String,
    },
    WaitStarted {
        number: u64,
        timeout: Limit,
    },
    StartedRuns {
        number: u64,
    },
    StartedOutput {
        number: u64,
    },
    KillStarted {
        number: u64,
    },
    WaitUntil {
        command: String,
        succeeds: bool,
        timeout: Limit,
    },
    Systemctl {
        arguments: String,
        user: Option<String>,
    },
    WaitForUnit {
        unit: String,
        user: Option<String>,
        timeout: Limit,
    },
    Unit {
        unit: String,
        user: Option<String>,
    },
    WaitForPort {
        port: u16,
        address: String,
        open: bool,
        timeout: Limit,
    },
    Console {
        start: usize,
        /// What the other side has of the line that has not ended.
        #[serde(default)]
        begun: String,
        wait: Limit,
    },
    SendConsole {
        text: String,
    },
    MonitorEvent {
        wait: Limit,
    },
    CopyFromHost {
        source: String,
        target: String,
    },
    CopyFromMachine {
        source: String,
        target: String,
    },
    AttachCommand {
        kind: String,
    },
    Monitor {
        command: String,
    },
    ForwardPort {
        host_port: u16,
        guest_port: u16,
    },
    Block {
        blocked: bool,
    },
}

/// What is asked of the network.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NetworkVerb {
    Impair {
        of: Which,
        machines: Vec<String>,
        aspect: Aspect,
    },
    Cut {
        how: Change,
        machines: Vec<String>,
    },
    Partition {
        groups: Vec<Vec<String>>,
    },
    RandomMinority,
    Flap {
        one: String,
        other: String,
        up: Limit,
        down: Limit,
        total: Limit,
    },
    Status,
    Capture {
        file: String,
    },
    StopCapture {
        file: String,
    },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Which {
    Link,
    Direction,
    Of,
    SentBy,
    SentTo,
    All,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Aspect {
    Delay {
        delay: Limit,
        jitter: Limit,
        shape: Shape,
    },
    Loss {
        probability: f64,
    },
    BurstLoss {
        enter: f64,
        leave: f64,
        good: f64,
        bad: f64,
    },
    Duplicate {
        probability: f64,
    },
    Corrupt {
        probability: f64,
    },
    Reorder {
        probability: f64,
        extra: Limit,
    },
    Rate {
        bits_per_second: u64,
        queue_bytes: u32,
    },
    Mtu {
        size: u32,
    },
    Clear,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    Uniform,
    Normal,
    Pareto,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    Cut,
    OneWay,
    Isolate,
    Halves,
    Bridge,
    MajoritiesRing,
    Heal,
    HealOne,
    HealAll,
}

/// What concerns the test as a whole.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TestVerb {
    Hello,
    Log {
        level: LogLevel,
        text: String,
        machine: Option<String>,
    },
    LogConsoles {
        on: bool,
    },
    SubtestBegan {
        name: String,
    },
    SubtestEnded {
        name: String,
        error: Option<String>,
    },
    Finished {
        verdict: End,
        message: Option<String>,
    },
}

/// What a script came to, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Passed,
    Failed,
    Trouble,
    Interrupted,
}

impl From<End> for Verdict {
    fn from(end: End) -> Verdict {
        match end {
            End::Passed => Verdict::Passed,
            End::Failed => Verdict::Failed,
            End::Trouble => Verdict::Unknown,
            End::Interrupted => Verdict::Interrupted,
        }
    }
}

/// How long something may take, in seconds; null is without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(Option<Duration>);

/// Longer than any test, and short enough to be added to any time.
const LIMIT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

impl Limit {
    pub(super) fn get(self) -> Duration {
        self.0.unwrap_or(LIMIT_MAX)
    }

    pub(super) fn bound(self) -> Option<Duration> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        let Some(seconds) = Option::<f64>::deserialize(deserializer)? else {
            return Ok(Limit(None));
        };
        let time = Duration::try_from_secs_f64(seconds)
            .map_err(|_| D::Error::custom(format!("{seconds} is no number of seconds")))?;
        Ok(Limit(Some(time.min(LIMIT_MAX))))
    }
}

/// An answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub(super) id: u64,
    #[serde(flatten)]
    pub(super) result: Told,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    Value(Value),
    Error(Refusal),
}

/// Why something asked for did not come to be.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    kind: Kind,
    message: String,
}

/// Which exception it is in the script.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// What the script asked for does not hold.
    Assertion,
    /// The lab or a machine is in trouble.
    Machine,
    /// What the script gave cannot be.
    Value,
}

impl Refusal {
    pub(super) fn assertion(message: impl Into<String>) -> Refusal {
        Refusal {
            kind: Kind::Assertion,
            message: message.into(),
        }
    }

    pub(super) fn machine(message: impl Into<String>) -> Refusal {
        Refusal {
            kind: Kind::Machine,
            message: message.into(),
        }
    }

    pub(super) fn value(message: impl Into<String>) -> Refusal {
        Refusal {
            kind: Kind::Value,
            message: message.into(),
        }
    }
}

impl From<NodeError> for Refusal {
    fn from(error: NodeError) -> Refusal {
        match error.is_assertion() {
            true => Refusal::assertion(error.to_string()),
            false => Refusal::machine(error.to_string()),
        }
    }
}

impl From<WaitError> for Refusal {
    fn from(error: WaitError) -> Refusal {
        Refusal::assertion(error.to_string())
    }
}

impl From<NetworkError> for Refusal {
    fn from(error: NetworkError) -> Refusal {
        match error {
            NetworkError::Switch(ChangeError::Stopped(_)) => Refusal::machine(error.to_string()),
            _ => Refusal::value(error.to_string()),
        }
    }
}

/// What a request comes to.
pub(super) type Done = Result<Value, Refusal>;

/// What a script is told first.
#[derive(Debug, Serialize)]
pub(super) struct World {
    pub(super) machines: Vec<MachineTold>,
    pub(super) segments: Vec<u8>,
    pub(super) out_dir: String,
}

#[derive(Debug, Serialize)]
pub(super) struct MachineTold {
    pub(super) name: String,
    pub(super) out_dir: String,
    pub(super) shared_dir: String,
}

/// The state of the network, for people.
#[derive(Debug, Serialize)]
pub(super) struct NetworkStatus {
    /// Who is not heard, and by whom.
    pub(super) cuts: Vec<(String, String)>,
    /// What each machine's cards have counted, `eth1` first.
    pub(super) cards: BTreeMap<String, Vec<CardCounted>>,
}

#[derive(Debug, Serialize)]
pub(super) struct CardCounted {
    pub(super) sent_frames: u64,
    pub(super) received_frames: u64,
    pub(super) dropped_frames: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_requests_or_cancellations() {
        let line = |text: &str| serde_json::from_str::<Line>(text);
        let request =
            r#"{"id": 3, "machine": ["n1", {"execute": {"command": "true", "timeout": 0.5}}]}"#;
        let Ok(Line::Request {
            id: 3,
            what: What::Machine(name, MachineVerb::Execute { timeout, .. }),
        }) = line(request)
        else {
            panic!("{:?}", line(request));
        };
        assert_eq!(
            (name.as_str(), timeout.get()),
            ("n1", Duration::from_millis(500))
        );
        let plain = r#"{"id": 4, "machine": ["n1", {"crash": null}]}"#;
        assert!(matches!(
            line(plain).unwrap(),
            Line::Request {
                id: 4,
                what: What::Machine(_, MachineVerb::Crash)
            }
        ));
        assert!(matches!(
            line(r#"{"cancel": 4}"#).unwrap(),
            Line::Cancel { cancel: 4 }
        ));
        for bad in [
            r#"{"id": 3, "machine": ["n1", {"fly": null}]}"#,
            r#"{"id": 3, "machine": ["n1", {"wait_for_shutdown": {"timeout": -1}}]}"#,
            r#"{"id": 3}"#,
            "3",
        ] {
            assert!(line(bad).is_err(), "{bad}");
        }
    }
}
