//! Speaks to a cluster of mvm-ci nodes over HTTP. Any node will do, and one that is down is no trouble.
//!
//! ```text
//!   Client ── jobs, work, cluster: one function per route ──┐
//!     │                                                     ▼
//!     └── follow: server-sent events ──▶ calls: try, go on, pause, give up ──▶ exchange: one request to one server
//!                                            └── Rotation: decides, without I/O
//! ```
//!
//! - A request goes to the server that answered last; if that one cannot be reached, is too slow or says 503, to the next. After
//!   each has been tried there is a pause, which grows; a server that names a `Retry-After` is not asked before. It ends
//!   with [`Options::deadline`].
//! - **A write happens once.** It has an `Idempotency-Key` from the start, and is repeated under it when the answer was lost
//!   (or was 504). If nobody tells in time what became of it, the error says so: [`ClientError::OutcomeUnknown`].
//! - An answer of 4xx is final, except 429 of a server that is busy itself: it says for how long, or has too many streams.
//! - Servers are not trusted: what they send is bounded in size and time.
//!
//! Proxies are not used, also if the environment names some: nodes are in one's own network. Redirections are not followed,
//! so the token goes to the named servers only.
//!
//! What is not here: what a job is ([`mvm_queue`]), and what is said to people (`mvm-ci`).

#![forbid(unsafe_code)]

mod backups;
mod calls;
mod cluster;
mod error;
mod exchange;
mod follow;
mod jobs;
mod keys;
mod list;
mod options;
mod rotation;
mod schedules;
mod source;
mod sse;
mod view;
mod work;

pub use self::{
    backups::Download,
    calls::{Client, http_client},
    error::{Cause, ClientError, Problem, ServerCause},
    follow::{FollowJob, FollowLog, JobEvent, LogEvent, LogPlace},
    list::JobsQuery,
    options::{Options, OptionsError, ServerUrl, Token},
    view::{
        BackupView, BackupsView, Changed, Chunk, Claimed, ClusterView, Consistency, JobView,
        JobsPage, Member, Renewed, ScheduleSet, ScheduleView, Stats, Submitted, WorkerView,
    },
    work::Offer,
};
