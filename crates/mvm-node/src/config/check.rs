//! What must hold between settings.

use std::{collections::BTreeSet, time::Duration};

use super::{Config, ConfigError, Member, Secret};

/// hiqlite asks for that many characters.
const SECRET_CHARS_MIN: usize = 16;

const BACKUP_KEEP_DAYS_MAX: u64 = 3_650;

pub(super) fn members(node_id: u64, members: &[Member]) -> Result<(), ConfigError> {
    let bad = |problem: String| {
        Err(ConfigError::Inconsistent {
            key: "members",
            problem,
        })
    };
    if !(1..=u64::from(u16::MAX)).contains(&node_id) {
        let problem = format!("{node_id} is not between 1 and {}", u16::MAX);
        return Err(ConfigError::Inconsistent {
            key: "node_id",
            problem,
        });
    }
    for (place, member) in members.iter().enumerate() {
        if !(1..=u64::from(u16::MAX)).contains(&member.id) {
            return bad(format!(
                "id {} is not between 1 and {}",
                member.id,
                u16::MAX
            ));
        }
        if members[..place].iter().any(|other| other.id == member.id) {
            return bad(format!("id {} is given twice", member.id));
        }
    }
    if !members.iter().any(|member| member.id == node_id) {
        return bad(format!("node_id is {node_id}, and no member has that id"));
    }
    if !members.iter().any(|member| member.id == 1) {
        return bad("no member has id 1, which founds the cluster".into());
    }
    Ok(())
}

pub(super) fn backup_keep(days: u64) -> Result<Duration, ConfigError> {
    match days {
        1..=BACKUP_KEEP_DAYS_MAX => Ok(Duration::from_hours(24 * days)),
        _ => Err(ConfigError::Inconsistent {
            key: "backup_keep_days",
            problem: format!("{days} is not between 1 and {BACKUP_KEEP_DAYS_MAX}"),
        }),
    }
}

pub(super) fn times(config: &Config) -> Result<(), ConfigError> {
    let bad = |key, problem: String| Err(ConfigError::Inconsistent { key, problem });
    let (heartbeat, min, max) = (config.heartbeat, config.election_min, config.election_max);
    if heartbeat < Duration::from_millis(10) {
        return bad(
            "heartbeat_ms",
            format!("{} ms is below 10 ms", heartbeat.as_millis()),
        );
    }
    if min < heartbeat * 2 {
        let problem = format!(
            "{} ms is less than two heartbeats of {} ms",
            min.as_millis(),
            heartbeat.as_millis()
        );
        return bad("election_min_ms", problem);
    }
    if max <= min || max > Duration::from_secs(60) {
        let problem = format!(
            "{} ms is not between election_min_ms ({}) and 60000",
            max.as_millis(),
            min.as_millis()
        );
        return bad("election_max_ms", problem);
    }
    let lease = config.lease;
    if lease <= max || lease > Duration::from_secs(3600) {
        let problem = format!(
            "{} ms is not between election_max_ms ({}) and 3600000",
            lease.as_millis(),
            max.as_millis()
        );
        return bad("lease_ms", problem);
    }
    worker(config)
}

/// A worker that offers what no job may ask for would be refused with each claim.
fn worker(config: &Config) -> Result<(), ConfigError> {
    let labels = config.labels.iter().cloned().collect();
    let offer = mvm_queue::validate_offer("node", 1, &labels, &BTreeSet::new());
    offer.map_err(|invalid| ConfigError::Inconsistent {
        key: "labels",
        problem: invalid.to_string(),
    })
}

/// A given secret, or for a single node, which talks to itself only, one that nobody else learns.
pub(super) fn secret(
    key: &'static str,
    given: Option<Secret>,
    single: bool,
) -> Result<Secret, ConfigError> {
    let problem = match given {
        Some(secret) if secret.expose().len() < SECRET_CHARS_MIN => {
            format!(
                "has {} characters; at least {SECRET_CHARS_MIN} are needed",
                secret.expose().len()
            )
        }
        // It travels in an HTTP header.
        Some(secret) if !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) => {
            "has characters other than printable ASCII without spaces".into()
        }
        Some(secret) => return Ok(secret),
        None if single => return Ok(crate::id::random_secret().into()),
        None => "is missing; nodes of a cluster prove by it that they belong together".into(),
    };
    Err(ConfigError::Inconsistent { key, problem })
}
