//! The job queue's decisions: a pure core, the same as SQL, and the leader's bookkeeping. (Diagram to come.)

pub mod answer;
pub mod backoff;
pub mod command;
pub mod cron;
pub mod id;
pub mod job;
pub mod limits;
pub mod query;
pub mod queue;
pub mod refusal;
pub mod sql;
pub mod transition;
#[cfg(test)]
mod tests;

/// No statement of a valid command takes more in a log entry: the largest texts, as JSON where every byte is escaped.
pub const COMMAND_BYTES_MAX: usize = 256 * 1024;
