//! What clients of the job queue saw, and whether it may have been so.
//!
//! ```text
//!  Plan ──▶ Processes (submitters, workers) ──asks──▶ Target: simulated, on loopback, in machines
//!              ▲                                         │
//!              └───────────────── told ──────────────────┤
//!                                                        ▼
//!           nemesis ── faults ──▶ History ◀── what each node tells in the end
//!                                    │
//!                                    ▼
//!                                  judge ──▶ Violations, each in one line
//! ```
//!
//! What is here: operations and answers ([`Action`], [`Told`]), the [`History`] with its file format, the workload as pure state
//! machines from a seed ([`Plan`], [`Process`]), the driver of targets ([`run`]), the node's HTTP interface as a
//! client speaks it ([`http`]), and the checker ([`judge()`]).
//!
//! What is not: sockets, clocks, machines and the queue itself. The same workload and the same checker serve a simulated
//! cluster (`mvm-queue`'s tests), processes on loopback and virtual machines (`mvm-ci`).
//!
//! `docs/design/invariants.md` tells what is checked and why that way.

#![forbid(unsafe_code)]

mod action;
mod history;
mod judge;
mod workload;

mod drive;
pub mod http;

pub use self::{
    action::{
        Action, At, AttemptSeen, Claim, Class, Consistency, Ended, JobId, JobSeen, NodeId, Token,
        Told,
    },
    drive::{Drained, Target, run},
    history::{
        Event, FORMAT_VERSION, Fault, FinalState, History, HistoryError, Operation, OperationId,
        Recorder,
    },
    judge::{Ends, Invariant, Rules, Violation, judge},
    workload::{Ask, Next, Phase, Plan, Process},
};
